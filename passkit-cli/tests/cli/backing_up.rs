//! `passkit backup` with names and disks that it can't use, and while phones register.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use passkit_store_sqlite::rusqlite::Connection;
use passkit_test_servers::disk::SmallDisk;

use crate::{
    archives::pass,
    moving::registrations,
    program::{Service, authorization, eventually, passkit, registration, run, send},
    sqlite::url,
};

const TYPE: &str = "pass.com.example.backed-up";
const CLIENTS: usize = 32;

/// Phones that register all the time. Each call must succeed.
struct Phones {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Phones {
    fn start(address: &str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..CLIENTS).map(|client| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let address = address.to_owned();
            std::thread::spawn(move || register_until(&stop, &address, client, &acknowledged))
        });
        Self {
            clients: clients.collect(),
            stop,
            acknowledged,
        }
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Waits until each client has registered a few more.
    fn go_on(&self) {
        let before = self.acknowledged().len();
        eventually("they go on registering", || {
            self.acknowledged().len() >= before + 2 * CLIENTS
        });
    }

    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

fn register_until(
    stop: &AtomicBool,
    address: &str,
    client: usize,
    acknowledged: &Mutex<BTreeSet<String>>,
) {
    let headers = [("Authorization", &*authorization(TYPE, "A"))];
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let device = format!("D-{client}-{number}");
        let path = registration(&device, TYPE, "A");
        let body = br#"{"pushToken":"c0ffee"}"#;
        let answer = send(address, "POST", &path, &headers, body).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        acknowledged.lock().unwrap().insert(device);
    }
}

fn backup(store: &str, to: &Path) -> Command {
    let mut command = passkit();
    command.args(["backup", "--store", store]).arg(to);
    command
}

/// The line that a refused backup prints.
fn refused(store: &str, to: &Path) -> String {
    let (code, out, said) = run(&mut backup(store, to));
    assert_eq!((code, &*out), (Some(2), ""), "{}", to.display());
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// The devices in a database that is whole.
fn devices(database: &Path) -> BTreeSet<String> {
    let database = Connection::open(database).unwrap();
    let check = database.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
    let mut statement = database.prepare("select device from devices").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_backup_replaces_nothing_and_disturbs_no_phone() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let store = service.store_url().to_owned();
    let place = service.store();
    let at = |name: &str| place.join(name);
    let phones = Phones::start(&service.address());
    phones.go_on();

    fs::write(at("old.db"), "an older backup").unwrap();
    fs::hard_link(at("passkit.db"), at("hard.db")).unwrap();
    std::os::unix::fs::symlink("passkit.db", at("soft.db")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling.db")).unwrap();
    for name in [
        "old.db",
        "passkit.db",
        "./passkit.db",
        "hard.db",
        "soft.db",
        "dangling.db",
        "passkit.db-wal",
        "passkit.db-shm",
        "passkit.db-journal",
        "old.db-wal",
    ] {
        let said = refused(&store, &at(name));
        assert!(said.contains("name another file"), "{name}: {said}");
    }
    assert_eq!(fs::read(at("old.db")).unwrap(), b"an older backup");
    // SQLite would add the rest of another database to the copy.
    for part in ["copy.db-wal", "copy.db-journal", "copy.db.partial"] {
        fs::write(at(part), "of another database").unwrap();
        let said = refused(&store, &at("copy.db"));
        let advice = match part {
            "copy.db.partial" => "remove",
            _ => "exists; remove it",
        };
        assert!(
            said.contains(part) && said.contains(advice) && !said.contains("not set up"),
            "{said}"
        );
        assert!(!at("copy.db").exists());
        fs::remove_file(at(part)).unwrap();
    }
    let said = refused(&store, &at("none/copy.db"));
    assert!(said.contains("copy.db"), "{said}");
    phones.go_on();

    let small = tempfile::tempdir().unwrap();
    if let Some(disk) = SmallDisk::mount(small.path(), 12) {
        let _ = disk.fill();
        let said = refused(&store, &small.path().join("copy.db"));
        let disk = small.path().to_str().unwrap();
        assert!(said.contains(disk), "names the disk that is full: {said}");
        assert!(said.contains("the disk is full"), "{said}");
        assert_eq!(fs::read_dir(small.path()).unwrap().count(), 1, "{said}");
    }
    phones.go_on();

    let before = phones.acknowledged();
    let (code, _, said) = run(&mut backup(&store, &at("copy.db")));
    assert_eq!(code, Some(0), "{said}");
    assert!(devices(&at("copy.db")).is_superset(&before));
    let said = refused(&store, &at("copy.db"));
    assert!(said.contains("copy.db exists"), "{said}");
    phones.go_on();
    let acknowledged = phones.stop();
    service.stop("TERM");
    assert_eq!(devices(&at("passkit.db")), acknowledged);
}

#[test]
fn a_killed_backup_leaves_no_copy_and_says_what_to_remove() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let store = url(folder.path(), "passkit.db");
    let file = registrations(at("a.csv"), 60_000);
    let (code, _, said) = run(passkit()
        .args(["import", "--store", &store, "--from"])
        .arg(file));
    assert_eq!(code, Some(0), "{said}");
    for attempt in 0.. {
        assert!(attempt < 100, "every backup was too fast to be killed");
        let mut child = backup(&store, &at("copy.db"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !at("copy.db.partial").exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if at("copy.db.partial").exists() {
            break;
        }
        fs::remove_file(at("copy.db")).unwrap();
    }
    assert!(!at("copy.db").exists());
    // Only the journal may be left.
    fs::rename(at("copy.db.partial"), at("copy.db.partial-journal")).unwrap();
    let said = refused(&store, &at("copy.db"));
    assert!(said.contains("remove "), "{said}");
    assert!(said.trim_end().ends_with("copy.db.partial*"), "{said}");
    fs::remove_file(at("copy.db.partial-journal")).unwrap();
    let (code, _, said) = run(&mut backup(&store, &at("copy.db")));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(devices(&at("copy.db")).len(), 20_000);
    assert_eq!(devices(&at("passkit.db")).len(), 20_000);
}
