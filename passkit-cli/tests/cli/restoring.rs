//! After a backup is restored, phones get every change.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use serde_json::json;

use crate::{
    archives::{pass, replace, token_of},
    copying::interrupted,
    program::{Service, authorization, eventually, passkit, registration, run, send},
    push::{Local, TYPE, token},
};

/// Replaces the database with a file, as an operator would.
fn put_back(backup: &Path, database: &Path) {
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", database.display()));
    }
    fs::copy(backup, database).unwrap();
}

/// Returns the phones of a backup, from an export of it, each with its push token.
fn phones_in(store: &str) -> BTreeMap<String, String> {
    let (code, out, said) = run(passkit().args(["export", "--store", store]));
    assert_eq!(code, Some(0), "{said}");
    let fields = |line: &str| {
        let mut fields = line.split(',').map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap())
    };
    out.lines().skip(1).map(fields).collect()
}

#[test]
fn phones_get_everything_after_a_backup_was_restored() {
    let local = Local::start();
    let mut service = Service::new().given(&local.arguments());
    let [file, removed] =
        ["a", "removed"].map(|name| service.passes().join(format!("{name}.pkpass")));
    fs::write(&file, pass(TYPE, "A", "one")).unwrap();
    fs::write(&removed, pass(TYPE, "removed", "one")).unwrap();
    service.start();

    // Phones register while the backup is made. Each asks what changed, so it has a tag.
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<Mutex<Vec<usize>>> = Arc::default();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, acknowledged, address) =
                (stop.clone(), acknowledged.clone(), service.address());
            std::thread::spawn(move || {
                let authorization = authorization(TYPE, "A");
                let headers = [("Authorization", &*authorization)];
                for number in (client..).step_by(4) {
                    let path = registration(&format!("D-{number}"), TYPE, "A");
                    let body = json!({ "pushToken": token(number) }).to_string();
                    let answer = send(&address, "POST", &path, &headers, body.as_bytes()).unwrap();
                    assert_eq!(answer.status, 201, "{answer:?}");
                    acknowledged.lock().unwrap().push(number);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        })
        .collect();
    eventually("some have registered", || {
        acknowledged.lock().unwrap().len() >= 20
    });
    let before = acknowledged.lock().unwrap().clone();
    let backup = service.folder.path().join("backup.db");
    let (code, out, said) = run(passkit()
        .args(["backup", "--store", service.store_url()])
        .arg(&backup));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("backup.db"), "{out}");
    eventually("more have registered", || {
        acknowledged.lock().unwrap().len() >= before.len() + 20
    });
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }

    // The backup lacks a change, which the phones fetched, and a removal.
    let two = pass(TYPE, "A", "two");
    let (_, tag) = service.list("D-0", TYPE, None).unwrap();
    replace(&file, &two);
    fs::remove_file(&removed).unwrap();
    eventually("the change is listed", || {
        service.list("D-0", TYPE, Some(&tag)).is_some()
    });
    eventually("the removal is known", || {
        service.get(TYPE, "removed", None).status == 401
    });
    let tags: BTreeMap<usize, String> = before
        .iter()
        .map(|number| {
            let (_, tag) = service.list(&format!("D-{number}"), TYPE, None).unwrap();
            (*number, tag)
        })
        .collect();
    let answer = service.get(TYPE, "A", None);
    let date = answer.header("last-modified").unwrap().to_owned();
    service.kill();
    // One more change happens while no service runs.
    let three = pass(TYPE, "A", "three");
    replace(&file, &three);

    let database: PathBuf = service.store().join("passkit.db");
    put_back(&backup, &database);
    let store = service.store_url().to_owned();
    let phones = phones_in(&store);
    for number in &before {
        assert!(
            phones.contains_key(&format!("D-{number}")),
            "acknowledged before the backup"
        );
    }
    let (code, _, said) = run(passkit().args(["restored", "--store", &store]));
    assert_eq!(code, Some(0), "{said}");
    let restarted = SystemTime::now();
    service.start();
    eventually("every phone in the backup gets a push", || {
        let pushed = local.pushed(restarted);
        phones.values().all(|token| pushed.contains_key(token))
    });
    for (number, tag) in tags {
        let (serials, _) = service
            .list(&format!("D-{number}"), TYPE, Some(&tag))
            .unwrap();
        assert_eq!(serials, ["A"]);
    }
    let answer = service.get(TYPE, "A", Some(&date));
    assert_eq!(answer.status, 200);
    assert!(answer.body == three);
    // Another instance also learns of the removal, which the backup lacks.
    let mut newcomer = service.newcomer();
    fs::write(newcomer.passes().join("a.pkpass"), &three).unwrap();
    newcomer.start();
    assert_eq!(
        newcomer.statuses("D-0", TYPE, "removed", &token_of(TYPE, "removed")),
        [401, 401, 200]
    );
    local.no_violation();
}

#[test]
fn a_restored_that_was_killed_is_made_complete_by_another_run() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    assert_eq!(service.register("D", TYPE, "A"), 201);
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    let answer = service.get(TYPE, "A", None);
    let date = answer.header("last-modified").unwrap();
    service.stop("TERM");
    let store = service.store_url().to_owned();
    let restored = || {
        let mut command = passkit();
        command.args(["restored", "--store", &store]);
        command
    };
    interrupted("restored", &store, restored);
    let (code, out, said) = run(&mut restored());
    assert_eq!((code, &*out), (Some(0), "1 types marked\n"), "{said}");
    service.start();
    let (serials, _) = service.list("D", TYPE, Some(&tag)).unwrap();
    assert_eq!(serials, ["A"]);
    assert_eq!(service.get(TYPE, "A", Some(date)).status, 200);
}
