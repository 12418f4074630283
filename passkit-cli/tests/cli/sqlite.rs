//! The program over SQLite: the default store, and several processes over one file.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use passkit_store_sqlite::rusqlite::Connection;
use passkit_test_servers::redis::Single;

use crate::{
    archives::pass,
    instances,
    moving::registrations,
    postgres,
    program::{Service, eventually, passkit, registration, run},
    push::{Local, TYPE},
};

/// Returns the URL of a store in a file of this folder.
pub(crate) fn url(folder: &std::path::Path, name: &str) -> String {
    format!("sqlite:{}", folder.join(name).display())
}

#[test]
fn commands_name_a_store_that_is_missing_and_make_none() {
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().join("cwd");
    fs::create_dir(&cwd).unwrap();
    let local = Local::start();
    let mut push = vec!["push".to_owned(), TYPE.to_owned(), "A".to_owned()];
    push.extend(local.arguments());
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for arguments in [
        push,
        words("stats"),
        words("export"),
        words("restored"),
        words("backup copy.db"),
        words("copy --from sqlite:./passkit.db --to sqlite:./other.db"),
        words("stats --store sled:./passkit.db"),
    ] {
        let (code, out, said) = run(passkit().args(&arguments).current_dir(&cwd));
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("there is no store s")
                && said.contains("passkit.db")
                && said.contains("--store"),
            "{said}"
        );
        assert_eq!(fs::read_dir(&cwd).unwrap().count(), 0, "{arguments:?}");
    }
}

/// The stranger may be `sqlite3` in a transaction, for example.
#[test]
fn a_lock_of_a_stranger_is_answered_503_and_stops_no_reader() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    assert_eq!(service.register("first", TYPE, "A"), 201);
    let stranger = Connection::open(service.store().join("passkit.db")).unwrap();
    stranger.execute_batch("begin exclusive").unwrap();
    let authorization = crate::program::authorization(TYPE, "A");
    let register = |number: usize| {
        let path = registration(&format!("D-{number}"), TYPE, "A");
        let headers = [("Authorization", &*authorization)];
        service.send("POST", &path, &headers, br#"{"pushToken":"c0ffee"}"#)
    };
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..32)
            .map(|number| scope.spawn(move || register(number)))
            .collect();
        assert!(service.list("first", TYPE, None).is_some());
        assert_eq!(service.get(TYPE, "A", None).status, 200);
        for call in calls {
            let answer = call.join().unwrap();
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(answer.header("retry-after").is_some() && answer.body.is_empty());
        }
    });
    stranger.execute_batch("rollback").unwrap();
    drop(stranger);
    for number in 0..32 {
        // The status 201 shows that the refused call did not take effect later.
        assert_eq!(register(number).status, 201);
    }
    service.kill();
    service.start();
    for number in 0..32 {
        assert!(service.list(&format!("D-{number}"), TYPE, None).is_some());
    }
    assert!(service.list("first", TYPE, None).is_some());
}

#[test]
fn a_folder_without_a_store_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "a").unwrap();
    let store = format!("sled:{}", folder.path().display());
    for command in ["stats", "export", "restored"] {
        let (code, out, said) = run(passkit().args([command, "--store", &store]));
        assert_eq!((code, &*out), (Some(2), ""), "{command}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("there is no store in"), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{command}");
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_what_a_service_leaves_in_its_folder() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(service.store().join("passkit.db")), 0o600);
    assert_eq!(mode(service.folder.path().join("copies")), 0o700);
    let copies = service.folder.path().join("copies");
    assert_eq!(mode(copies.join("catalog.db")), 0o600);
}

#[test]
fn two_services_agree() {
    let folder = tempfile::tempdir().unwrap();
    instances::agree(&url(folder.path(), "passkit.db"));
}

#[test]
fn services_with_different_contents_go_on_answering() {
    let folder = tempfile::tempdir().unwrap();
    instances::disagree(&url(folder.path(), "passkit.db"));
}

#[test]
fn a_service_that_starts_later_knows_tokens_and_removals() {
    let folder = tempfile::tempdir().unwrap();
    instances::know_tokens(&url(folder.path(), "passkit.db"));
}

#[test]
fn all_commands_work_beside_two_services() {
    const MOVED: &str = "pass.com.example.moved";
    let local = Local::start();
    let mut one = Service::new();
    fs::write(one.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    let mut two = one.sibling();
    one.start();
    two.start();
    let store = one.store_url().to_owned();
    let file = registrations(one.folder.path().join("a.csv"), 15_000);

    // Phones register the whole time, with both services.
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
    let clients: Vec<_> = [one.address(), two.address()]
        .into_iter()
        .enumerate()
        .map(|(client, address)| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let authorization = crate::program::authorization(TYPE, "A");
                let headers = [("Authorization", &*authorization)];
                for number in 0.. {
                    let path = registration(&format!("D-{client}-{number}"), TYPE, "A");
                    let body = br#"{"pushToken":"c0ffee"}"#;
                    let answer =
                        crate::program::send(&address, "POST", &path, &headers, body).unwrap();
                    assert_eq!(answer.status, 201, "{answer:?}");
                    *acknowledged.lock().unwrap() += 1;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        })
        .collect();

    let command = |words: &[&str]| {
        let (code, out, said) = run(passkit().args(words).args(["--store", &store]));
        assert_eq!(code, Some(0), "{words:?}: {said}");
        out
    };
    let imported = command(&["import", "--from", file.to_str().unwrap()]);
    assert!(imported.starts_with("15000 registrations"), "{imported}");
    let mut push = vec!["push"];
    let arguments = local.arguments_with(&local.certificate(MOVED), local.apns.port());
    push.extend(arguments.iter().map(String::as_str));
    push.extend([MOVED, "--all"]);
    let pushed = command(&push);
    assert!(pushed.starts_with("5000 sent"), "{pushed}");
    assert!(command(&["export"]).lines().count() > 15_000);
    assert!(command(&["stats"]).contains(MOVED));
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }

    let stats: serde_json::Value = serde_json::from_str(&command(&["stats", "--json"])).unwrap();
    let expected = 15_000 + *acknowledged.lock().unwrap();
    assert_eq!(stats["registrations"], expected);
    assert_eq!(command(&["export"]).lines().count(), expected + 1);
}

#[test]
fn a_backup_of_another_store_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");
    let sled = format!("sled:{}", folder.path().join("sled").display());
    for (store, how) in [
        (&*sled, "copy the folder"),
        ("postgres://u:secret@h/d", "pg_dump"),
        ("redis://h", "BGSAVE"),
    ] {
        let (code, _, said) = run(passkit().args(["backup", "--store", store]).arg(&to));
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(how) && !said.contains("secret"), "{said}");
    }
    assert!(!to.exists());
}

/// Returns an empty store of every kind, each with a value that must live as long as the store.
pub(crate) fn every_store() -> Vec<(String, Box<dyn Send>)> {
    let (sled, sqlite) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let redis = Single::start().unwrap();
    vec![
        (
            format!("sled:{}", sled.path().join("store").display()),
            Box::new(sled),
        ),
        (url(sqlite.path(), "passkit.db"), Box::new(sqlite)),
        (postgres::migrated(), Box::new(())),
        (redis.url().to_owned(), Box::new(redis)),
    ]
}

#[test]
fn after_restored_every_store_lists_every_pass_once_more() {
    for (store, _alive) in every_store() {
        let mut service = Service::over(&store);
        fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
        service.start();
        assert_eq!(service.register("D", TYPE, "A"), 201);
        let (_, tag) = service.list("D", TYPE, None).unwrap();
        let answer = service.get(TYPE, "A", None);
        let date = answer.header("last-modified").unwrap();
        assert_eq!(service.list("D", TYPE, Some(&tag)), None);
        assert_eq!(service.get(TYPE, "A", Some(date)).status, 304);
        service.stop("TERM");

        let (code, out, said) =
            run(passkit().args(["restored", "--store", &store, "pass.com.example.unknown"]));
        assert_eq!((code, &*out), (Some(0), "2 types marked\n"), "{said}");

        service.start();
        let (serials, tag) = service.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(serials, ["A"], "{store}");
        let answer = service.get(TYPE, "A", Some(date));
        assert_eq!(answer.status, 200, "{store}");
        let date = answer.header("last-modified").unwrap();
        assert_eq!(service.list("D", TYPE, Some(&tag)), None, "{store}");
        eventually("it is quiet", || {
            service.get(TYPE, "A", Some(date)).status == 304
        });
    }
}
