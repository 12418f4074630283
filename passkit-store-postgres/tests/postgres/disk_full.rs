use std::time::Duration;

use passkit_server::store::{RegistrationStore, StoreErrorKind};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::{disk::SmallDisk, postgres::Server};

use crate::support::{device, pass, registered, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_makes_writes_unavailable_and_has_no_other_effect() {
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL may run as another user.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path(), 2) else {
        return;
    };
    let space = folder.path().join("space");
    std::fs::create_dir(&space).unwrap();
    let server = Server::throwaway(&["fsync=off"]).unwrap();
    server.give(&space).unwrap();
    let url = server.url(&server.new_database().await.unwrap());
    let store = PostgresStore::connect(&url, Config::new().timeout(Duration::from_secs(30)))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let run = async |sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(store.pool())
            .await
            .unwrap();
    };
    run(format!(
        "create tablespace small location '{}'",
        space.display()
    ))
    .await;
    run("alter table passkit.registration set tablespace small".into()).await;

    let names: Vec<_> = (0..).map(|i| format!("{i:0>500}")).take(20_000).collect();
    let mut last = 0;
    let error = loop {
        match store
            .register(&device("d"), &pass(&names[last]), &token())
            .await
        {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
        assert!(last < names.len(), "the disk is never full");
    };
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(
        crate::support::text_of(&error).contains("full"),
        "{error:?}"
    );
    // Reads still show everything that was acknowledged.
    assert_eq!(registered(&store, &device("d")).await, names[..last]);

    run("alter table passkit.registration set tablespace pg_default".into()).await;
    store
        .register(&device("d"), &pass(&names[last]), &token())
        .await
        .unwrap();
    assert_eq!(registered(&store, &device("d")).await.len(), last + 1);
}
