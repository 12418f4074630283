use std::{path::Path, process::Command, time::Duration};

use passkit_server::store::{RegistrationStore, StoreErrorKind};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;

use crate::support::{device, pass, registered, token};

/// A small file system for the tables.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Returns `None` if this user is not root or the environment forbids it. If root can't mount, the test fails.
    fn new(at: &Path) -> Option<Self> {
        let id = Command::new("id").arg("-u").output().unwrap();
        if id.stdout != b"0\n" || std::env::var_os("PASSKIT_NO_MOUNT").is_some() {
            eprintln!("left out: only root may mount the small file system that this test fills");
            return None;
        }
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|mount| mount.status.success());
        assert!(
            mounted,
            "cannot mount a tmpfs as root; allow it, for example with \"docker run --privileged\", or set PASSKIT_NO_MOUNT=1"
        );
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _still_in_use = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_makes_writes_unavailable_and_has_no_other_effect() {
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL may run as another user.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let Some(mounted) = Mounted::new(folder.path()) else {
        return;
    };
    let space = mounted.0.join("space");
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
