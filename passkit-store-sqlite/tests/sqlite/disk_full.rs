use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use passkit_server::store::{RegistrationStore as _, StoreErrorKind};
use passkit_store_sqlite::{SqliteStore, rusqlite::ErrorCode};
use tokio::task::JoinSet;

use crate::support::{device, pass, registered, sqlite_code, text, token};

const WRITERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(run("umount", &[self.0.to_str().unwrap()]) || std::thread::panicking());
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|ended| ended.status.success())
}

/// Mounts a file system of 24 MiB. Returns `None` if this user is not root or the environment
/// forbids it. If root can't mount, the test fails.
fn mount(folder: &Path) -> Option<Mounted> {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" || std::env::var_os("PASSKIT_NO_MOUNT").is_some() {
        eprintln!("left out: only root may mount the small file system that this test fills");
        return None;
    }
    let at = folder.join("mnt");
    fs::create_dir(&at).unwrap();
    assert!(
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=24m",
                "tmpfs",
                at.to_str().unwrap()
            ]
        ),
        "cannot mount a tmpfs as root; allow it, for example with \"docker run --privileged\", or set PASSKIT_NO_MOUNT=1"
    );
    Some(Mounted(at))
}

/// Fills the rest of the disk.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_loses_nothing_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounted) = mount(folder.path()) else {
        return;
    };
    let path = mounted.0.join("passkit.db");
    let ballast = mounted.0.join("ballast");
    let store = Arc::new(SqliteStore::create(&path).unwrap());
    store
        .register(&device("first"), &pass("1"), &token())
        .await
        .unwrap();
    fill(&ballast);

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let name = format!("{:06}", acknowledged.len());
                match store
                    .register(&device(format!("{writer}")), &pass(&name), &token())
                    .await
                {
                    Ok(_) => acknowledged.push(name),
                    Err(error) => {
                        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
                        let code = sqlite_code(&error);
                        assert!(
                            matches!(code, ErrorCode::DiskFull | ErrorCode::SystemIoFailure),
                            "{error:?}"
                        );
                        return (writer, acknowledged);
                    }
                }
            }
        });
    }
    let results = tokio::time::timeout(PATIENCE, writers.join_all())
        .await
        .expect("the writers end when the disk is full");
    assert_eq!(
        registered(&*store, &device("first")).await,
        ["1"],
        "reading goes on"
    );

    fs::remove_file(&ballast).unwrap();
    store
        .register(&device("first"), &pass("2"), &token())
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(registered(&store, &device("first")).await, ["1", "2"]);
    for (writer, acknowledged) in results {
        let found = registered(&store, &device(format!("{writer}"))).await;
        for name in acknowledged {
            assert!(found.contains(&name), "{name} is lost");
        }
    }
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounted) = mount(folder.path()) else {
        return;
    };
    let path = mounted.0.join("passkit.db");
    let at = mounted.0.to_str().unwrap();
    drop(SqliteStore::create(&path).unwrap());
    // The system may take a moment to close the files of the store.
    while !run("mount", &["-o", "remount,ro", at]) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let expected =
        "passkit.db can't be written to; give this user the right to write it and its folder";
    assert!(text(&error).ends_with(expected), "{error:?}");
    assert!(run("mount", &["-o", "remount,rw", at]));
    SqliteStore::open(&path)
        .unwrap()
        .register(&device("a"), &pass("1"), &token())
        .await
        .unwrap();
}
