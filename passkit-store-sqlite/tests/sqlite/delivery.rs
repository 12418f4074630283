use passkit_server::delivery::{DeliveryLog as _, Event, Record, Subject};
use passkit_store_sqlite::{SqliteStore, rusqlite::Connection};

use crate::support::{pass, type_id};

/// An instance with a newer version of the program may write events that this version does not know.
#[tokio::test]
async fn records_of_unknown_events_are_left_out_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    let subjects = [Subject::Pass(pass("1")), Subject::Type(type_id())];
    let records = subjects.clone().map(|subject| Record {
        subject,
        event: Event::Fetched,
        version: 7,
        count: 1,
        at: 1,
        detail: String::new(),
    });
    store.record(&records).await.unwrap();
    let own = Connection::open(&path).unwrap();
    let newer = "insert into passkit_delivery
        select kind, type, name, 'newer', version, count, at, detail from passkit_delivery";
    assert_eq!(own.execute(newer, []).unwrap(), 2);
    let read = store.records(&subjects).await.unwrap();
    assert_eq!(read, records.map(|record| vec![record]));
    store.forget(&subjects[..1]).await.unwrap();
    let left = "select count(*) from passkit_delivery";
    let left: i64 = own.query_row(left, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 2);
}
