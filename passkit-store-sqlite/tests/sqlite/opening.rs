use std::{fs, os::unix::fs::PermissionsExt as _, time::SystemTime};

use bytes::Bytes;
use passkit_server::{
    delivery::{DeliveryLog as _, Event, Record, Subject},
    store::{ArchiveStore as _, RegistrationStore as _, StoreErrorKind},
};
use passkit_store_sqlite::{SqliteStore, rusqlite::Connection};

use crate::support::{device, pass, registered, sqlite_code, text, token};

#[tokio::test]
async fn create_makes_a_store_and_opens_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    for _ in 0..2 {
        let store = SqliteStore::create(&path).unwrap();
        store
            .register(&device("a"), &pass("1"), &token())
            .await
            .unwrap();
    }
    let created = fs::metadata(&path).unwrap();
    assert_eq!(
        created.permissions().mode() & 0o777,
        0o600,
        "the file holds secrets"
    );
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(registered(&store, &device("a")).await, ["1"]);
    for suffix in ["-wal", "-shm"] {
        let beside = fs::metadata(format!("{}{suffix}", path.display())).unwrap();
        assert_eq!(beside.permissions().mode() & 0o777, 0o600, "{suffix}");
    }
    drop(store);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the last one to close tidies up"
    );
}

/// A process may be killed between making the file and protecting it.
#[test]
fn an_empty_file_that_others_can_read_is_protected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(SqliteStore::create(&path).unwrap());
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn many_create_one_store_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let stores = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| SqliteStore::create(&path)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(stores.len(), 16);
}

#[test]
fn a_missing_file_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let text = text(&error);
    assert_eq!(
        text,
        format!(
            "there is no store {}; check the path, or create it first",
            path.display()
        )
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let error = SqliteStore::create(folder.path().join("none/passkit.db")).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let error = SqliteStore::create(folder.path()).unwrap_err();
    assert!(
        self::text(&error).ends_with(" is a folder; use the path of a file"),
        "{error:?}"
    );
}

#[test]
fn a_path_is_never_a_url() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file:a?mode=memory");
    drop(SqliteStore::create(&path).unwrap());
    assert!(path.exists());
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");

    fs::write(
        &path,
        "a text that is long enough to be the header of a database, and is none at all".repeat(20),
    )
    .unwrap();
    let before = fs::read(&path).unwrap();
    for error in [
        SqliteStore::open(&path).unwrap_err(),
        SqliteStore::create(&path).unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
        assert!(
            text(&error).ends_with("it is not an SQLite database; use another file"),
            "{error:?}"
        );
        assert_eq!(
            sqlite_code(&error),
            passkit_store_sqlite::rusqlite::ErrorCode::NotADatabase
        );
    }
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::remove_file(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("create table t (a); pragma user_version = 7;")
        .unwrap();
    drop(other);
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(
        text(&error).ends_with("contains no store; check the path, or create the store first"),
        "{error:?}"
    );
    let error = SqliteStore::create(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(
        text(&error).ends_with("contains a database of another program; use another file"),
        "{error:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::write(&path, "").unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(text(&error).contains("contains no store"), "{error:?}");
    drop(SqliteStore::create(&path).unwrap());
}

/// Returns the statements that made the tables and views.
fn schema(connection: &Connection) -> Vec<(String, Option<String>)> {
    let mut statement = connection
        .prepare("select name, sql from sqlite_schema order by name")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn stores_of_older_versions_are_upgraded() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.db");
    drop(SqliteStore::create(&new).unwrap());
    let new = Connection::open(&new).unwrap();
    let made = |names: &[&str]| {
        let schema = schema(&new).into_iter();
        let statements = schema.filter(|(name, _)| names.contains(&name.as_str()));
        statements
            .filter_map(|(_, sql)| sql)
            .collect::<Vec<_>>()
            .join(";")
    };
    let archives = made(&["passkit_archive"]);
    // The names are sorted, and the view comes before its table. SQLite allows that.
    let deliveries = made(&[
        "delivery_records",
        "passkit_delivery",
        "passkit_delivery_by_age",
    ]);
    // Some states of the repository had delivery records in these versions, and others did not.
    for (version, more) in [
        (1, String::new()),
        (1, deliveries.clone()),
        (2, archives.clone()),
        (2, format!("{archives};{deliveries}")),
    ] {
        let path = folder.path().join("old.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(include_str!("version_1.sql")).unwrap();
        old.execute_batch(&more).unwrap();
        old.execute("insert into passkit_store values (?1, 1)", [version])
            .unwrap();
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(schema(&old), schema(&new));
        let record = Record {
            subject: Subject::Pass(pass("1")),
            event: Event::Fetched,
            version: 7,
            count: 1,
            at: 1,
            detail: String::new(),
        };
        store.record(std::slice::from_ref(&record)).await.unwrap();
        let subjects = [record.subject.clone()];
        let read = store.records(&subjects).await.unwrap();
        assert_eq!(read, [[record]]);
        store.forget(&subjects).await.unwrap();
        assert!(store.discard_before(SystemTime::now(), 10).await.unwrap());
        let archive = Bytes::from_static(b"archive");
        store
            .put_archive(&pass("1"), &[1; 32], archive.clone())
            .await
            .unwrap();
        let found = store.archive(&pass("1"), &[1; 32]).await.unwrap();
        assert_eq!(found, Some(archive));
        drop((store, old));
        drop(SqliteStore::open(&path).unwrap());
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    drop(SqliteStore::create(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .execute("update passkit_store set version = version + 1", [])
        .unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let expected =
        "was written by another version of passkit (schema 4, this one knows 3); use that version";
    assert_eq!(text(&error), format!("{} {expected}", path.display()));
}

#[tokio::test]
async fn damage_is_reported_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    for i in 0..500 {
        store
            .register(&device(format!("device-{i}")), &pass("1"), &token())
            .await
            .unwrap();
    }
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    // All pages except the first, which has the schema.
    bytes[4096..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = match SqliteStore::open(&path) {
        Ok(store) => store
            .register(&device("device-1"), &pass("1"), &token())
            .await
            .unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(
        text(&error).ends_with("it is damaged; restore it from a backup"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_file_that_was_replaced_takes_no_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    fs::rename(&path, folder.path().join("moved.db")).unwrap();
    let error = store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(
        text(&error).contains("was replaced or removed"),
        "{error:?}"
    );
    fs::write(&path, "").unwrap();
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap_err();
    fs::rename(folder.path().join("moved.db"), &path).unwrap();
    store
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
}
