use passkit_server::{Changed, store::RegistrationStore};
use passkit_store_sqlite::SqliteStore;
use passkit_test_servers::child::{self, Trace, report};

use crate::support::{device, pass, serial, token, type_id};

const OPERATIONS: usize = 30;

#[test]
fn the_child() {
    let Some(path) = child::path() else { return };
    child::run(async {
        let store = SqliteStore::create(path).unwrap();
        for i in 0..OPERATIONS {
            report(&format!("begin-{i}."));
            let (device, pass) = (device(format!("{}", i / 3)), pass(format!("{}", i / 3)));
            match i % 3 {
                0 => drop(store.register(&device, &pass, &token()).await.unwrap()),
                1 => store
                    .mark(&type_id(), Changed::Passes(&[serial("1")]))
                    .await
                    .unwrap(),
                _ => assert!(store.unregister(&device, &pass).await.unwrap()),
            }
            report(&format!("acknowledged-{i}."));
        }
    });
}

/// SQLite syncs its log between the last write of a change and the acknowledgement.
#[test]
fn every_acknowledgement_follows_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let log = folder.path().join("passkit.db-wal");
    Trace::record("durability::the_child", &path, &log, &[]).assert_synced(OPERATIONS);
}
