use passkit_server::{
    Changed,
    delivery::{DeliveryLog as _, Event, PushFailure, Record, Subject},
    push::PushQueue as _,
    store::{Content, RegistrationStore as _, clock},
};
use passkit_store_sqlite::{
    SqliteStore,
    rusqlite::{Connection, Row, types::Value},
};

use crate::support::{device, pass, serial, token, type_id};

fn rows(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |row: &Row<'_>| {
        (0..columns)
            .map(|column| {
                row.get(column).map(|value| match value {
                    Value::Null => "-".to_owned(),
                    Value::Integer(number) => number.to_string(),
                    Value::Text(text) => text,
                    other => format!("{other:?}"),
                })
            })
            .collect()
    };
    statement
        .query_map([], text)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The README promises these names and columns.
#[tokio::test]
async fn an_operator_can_look_inside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
    store
        .register(&device("a"), &pass("2"), &token())
        .await
        .unwrap();
    store
        .register(&device("b"), &pass("1"), &token())
        .await
        .unwrap();
    store
        .mark_and_push(&type_id(), Changed::Passes(&[serial("1")]))
        .await
        .unwrap();
    store.mark_and_push(&type_id(), Changed::All).await.unwrap();
    let content = Content {
        serial: serial("3"),
        digest: Some([0xab; 32]),
        tokens: vec![],
    };
    store
        .mark(
            &type_id(),
            Changed::Contents(std::slice::from_ref(&content)),
        )
        .await
        .unwrap();
    store
        .mark(
            &type_id(),
            Changed::Contents(&[Content {
                digest: None,
                ..content
            }]),
        )
        .await
        .unwrap();

    let own = Connection::open(&path).unwrap();
    let passes =
        "select type, serial, version > 0, last_modified > '2020', digest, removed, devices from passes
        order by serial";
    let ticket = "pass.com.example.ticket";
    assert_eq!(
        rows(&own, passes),
        [
            [ticket, "1", "1", "1", "-", "0", "2"],
            [ticket, "2", "1", "1", "-", "0", "1"],
            [ticket, "3", "1", "1", &"ab".repeat(32), "1", "0"],
        ]
    );
    let devices = "select device, push_token, registered_at > '2020', registrations from devices order by device";
    assert_eq!(
        rows(&own, devices),
        [["a", "c0ffee", "1", "2"], ["b", "c0ffee", "1", "1"]]
    );
    let registrations =
        "select device, type, serial, registered_at > '2020' from registrations order by 1, 3";
    assert_eq!(
        rows(&own, registrations),
        [
            ["a", ticket, "1", "1"],
            ["a", ticket, "2", "1"],
            ["b", ticket, "1", "1"]
        ]
    );
    let pending =
        "select type, serial, pending_since > '2020', started from pending_pushes order by serial";
    assert_eq!(
        rows(&own, pending),
        [[ticket, "-", "1", "0"], [ticket, "1", "1", "0"]]
    );
    let of = |subject| Record {
        subject,
        event: Event::PushFailed(PushFailure::Gone),
        version: 7,
        count: 2,
        at: clock::now_micros(),
        detail: "Unregistered".to_owned(),
    };
    let subjects = [
        Subject::Device(type_id(), device("a")),
        Subject::Pass(pass("1")),
        Subject::Type(type_id()),
    ];
    store.record(&subjects.map(of)).await.unwrap();
    let records =
        "select type, serial, device, event, version, count, last_at > '2020', detail from delivery_records
        order by device, serial";
    let failed = ["push-gone", "7", "2", "1", "Unregistered"];
    assert_eq!(
        rows(&own, records),
        [("-", "-"), ("1", "-"), ("-", "a")]
            .map(|(serial, device)| { [&[ticket, serial, device], &failed[..]].concat() })
    );
    for (view, columns) in [
        (
            "passes",
            "type serial version last_modified digest removed devices",
        ),
        ("devices", "device push_token registered_at registrations"),
        ("registrations", "device type serial registered_at"),
        ("pending_pushes", "type serial pending_since started"),
        (
            "delivery_records",
            "type serial device event version count last_at detail",
        ),
    ] {
        let statement = own.prepare(&format!("select * from {view}")).unwrap();
        let names =
            (0..statement.column_count()).map(|column| statement.column_name(column).unwrap());
        assert_eq!(names.collect::<Vec<_>>().join(" "), columns);
    }
}
