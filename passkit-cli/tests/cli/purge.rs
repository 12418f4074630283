//! `passkit purge`: nothing of a purged pass remains, and everything else stays.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::json;

use crate::{
    archives::{pass, replace, token_of, with_json},
    program::{Service, authorization, eventually, passkit, registration, run, send},
    sqlite::every_store,
};

const TYPE: &str = "pass.com.example.purged";

fn purge(store: &str) -> Command {
    let mut command = passkit();
    command.args(["purge", "--store", store]);
    command
}

/// Runs a command that must succeed. Returns its output.
fn done(command: &mut Command) -> String {
    let (code, out, said) = run(command);
    assert_eq!(code, Some(0), "{out}{said}");
    out
}

/// Runs a command that must refuse to do anything. Returns its line on stderr.
fn refused(command: &mut Command) -> String {
    let (code, out, said) = run(command);
    assert_eq!((code, &*out), (Some(2), ""), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// Returns the devices and serial numbers of all registrations.
fn registrations(store: &str) -> Vec<(String, String)> {
    let out = done(passkit().args(["export", "--store", store]));
    let fields = |line: &str| {
        let mut fields = line.split(',');
        let device = fields.next().unwrap().to_owned();
        (device, fields.nth(2).unwrap().to_owned())
    };
    let mut all: Vec<_> = out.lines().skip(1).map(fields).collect();
    all.sort();
    all
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(device, serial): &(&str, &str)| ((*device).to_owned(), (*serial).to_owned());
    all.iter().map(pair).collect()
}

fn file(service: &Service, serial: &str) -> std::path::PathBuf {
    service.passes().join(format!("{serial}.pkpass"))
}

/// Removes the file of a pass, and waits until the service has withdrawn the pass.
fn withdraw(service: &Service, serial: &str) {
    fs::remove_file(file(service, serial)).unwrap();
    eventually("the pass is withdrawn", || {
        service.get(TYPE, serial, None).status == 401
    });
}

fn would_remove(store: &str) -> String {
    done(purge(store).args(["--removed", "--dry-run"]))
}

#[test]
fn every_store_loses_the_pass_and_nothing_else() {
    for (store, _alive) in every_store() {
        let mut service = Service::over(&store);
        for serial in ["A", "B"] {
            fs::write(file(&service, serial), pass(TYPE, serial, "one")).unwrap();
        }
        service.start();
        for (device, serial) in [("D", "A"), ("D", "B"), ("E", "A")] {
            assert_eq!(service.register(device, TYPE, serial), 201);
        }
        let (_, tag) = service.list("D", TYPE, None).unwrap();
        withdraw(&service, "A");
        // A start finishes what the last run did not publish.
        service.stop("TERM");
        service.start();
        service.stop("TERM");

        let listed = done(purge(&store).args([TYPE, "A", "--dry-run"]));
        assert_eq!(
            listed,
            format!("{TYPE} A: 2 registrations\n1 passes with 2 registrations would be purged\n")
        );
        let all = pairs(&[("D", "A"), ("D", "B"), ("E", "A")]);
        assert_eq!(registrations(&store), all);
        let out = done(purge(&store).args([TYPE, "A"]));
        assert_eq!(
            out,
            "1 passes purged: 2 registrations, 0 deferred pushes and 0 files removed\n"
        );
        assert_eq!(registrations(&store), pairs(&[("D", "B")]), "{store}");
        let stats = done(passkit().args(["stats", "--json", "--store", &store]));
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats["devices"], 1, "{store}");
        let again = done(purge(&store).args([TYPE, "A"]));
        assert!(again.contains(" 0 registrations"), "{again}");

        // The instance removes the pass from its own list too, so it never publishes the pass again.
        service.start();
        let token = token_of(TYPE, "A");
        assert_eq!(service.statuses("F", TYPE, "A", &token), [401, 401, 401]);
        assert_eq!(service.list("D", TYPE, Some(&tag)), None, "{store}");
        service.stop("TERM");
        let removed = would_remove(&store);
        assert!(removed.starts_with("0 passes"), "{store}: {removed}");

        // A pass that comes back is a new pass.
        service.start();
        fs::write(file(&service, "A"), pass(TYPE, "A", "one")).unwrap();
        eventually("the pass is served again", || {
            service.get(TYPE, "A", None).status == 200
        });
        assert_eq!(service.register("D", TYPE, "A"), 201);
        let (serials, _) = service.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(serials, ["A"]);
    }
}

fn expiring(serial: &str, keys: &serde_json::Value) -> Vec<u8> {
    let mut keys = keys.clone();
    keys["serialNumber"] = json!(serial);
    keys["authenticationToken"] = json!(token_of(TYPE, serial));
    with_json(TYPE, &keys)
}

/// Makes a service with four passes: two that expired in 2020 and in 2024, a voided pass, and a good pass.
fn with_expired() -> Service {
    let mut service = Service::with_arguments(&["--allow-unsigned"]);
    for (serial, keys) in [
        ("2020", json!({"expirationDate": "2020-06-01T00:00Z"})),
        ("2024", json!({"expirationDate": "2024-06-01T00:00+02:00"})),
        (
            "void",
            json!({"voided": true, "expirationDate": "2999-01-01T00:00Z"}),
        ),
        ("good", json!({"expirationDate": "2999-01-01T00:00Z"})),
    ] {
        fs::write(file(&service, serial), expiring(serial, &keys)).unwrap();
    }
    service.start();
    for serial in ["2020", "2024", "void", "good"] {
        assert_eq!(service.register("D", TYPE, serial), 201);
    }
    service
}

fn in_folder(store: &str, passes: &Path) -> Command {
    let mut command = purge(store);
    command.arg("--passes").arg(passes);
    command
}

#[test]
fn expired_passes_and_their_files_are_removed_while_the_service_runs() {
    let service = with_expired();
    let (store, passes) = (service.store_url(), service.passes());
    let expired = || {
        let mut command = in_folder(store, &passes);
        command.arg("--expired");
        command
    };
    let said = refused(&mut expired());
    assert!(
        said.contains("2020.pkpass still holds")
            && said.ends_with("; add --delete-files to delete the files too\n"),
        "{said}"
    );
    let listed = done(expired().args(["--delete-files", "--dry-run"]));
    assert!(
        listed.contains(&format!("{TYPE} 2024: 1 registrations, ")),
        "{listed}"
    );
    assert!(
        listed.ends_with("2 passes with 2 registrations would be purged\n"),
        "{listed}"
    );
    assert!(file(&service, "2020").exists());

    let old = done(expired().args(["--before", "2021-01-01", "--delete-files"]));
    assert!(old.starts_with("1 passes purged: 1 registrations"), "{old}");
    let out = done(expired().arg("--delete-files"));
    assert_eq!(
        out,
        "1 passes purged: 1 registrations, 0 deferred pushes and 1 files removed\n"
    );
    assert_eq!(registrations(store), pairs(&[("D", "good"), ("D", "void")]));
    for serial in ["2020", "2024"] {
        assert!(!file(&service, serial).exists());
        assert_eq!(service.get(TYPE, serial, None).status, 401);
        assert_eq!(service.register("E", TYPE, serial), 401);
    }
    let voided = done(in_folder(store, &passes).args(["--voided", "--delete-files"]));
    assert!(voided.starts_with("1 passes purged"), "{voided}");
    let (serials, _) = service.list("D", TYPE, None).unwrap();
    assert_eq!(serials, ["good"]);
}

#[test]
fn a_pass_that_is_renewed_during_the_purge_stays() {
    let service = with_expired();
    let (store, passes) = (service.store_url(), service.passes());
    // The purge writes a line about each of these files, which is more than fits into its stderr while nobody reads.
    for number in 0..500 {
        let name = format!("z{number:0>200}.pkpass");
        fs::write(passes.join(name), "no archive").unwrap();
    }
    let mut running = in_folder(store, &passes)
        .args(["--expired", "--delete-files"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let stderr = running.stderr.as_mut().unwrap();
    // The good files come first, so they have been read.
    stderr.read_exact(&mut [0]).unwrap();
    let renewed = json!({"expirationDate": "2999-06-01T00:00Z"});
    replace(&file(&service, "2020"), &expiring("2020", &renewed));
    stderr.read_to_string(&mut said).unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("passkit: 1 passes are not purged") && last.contains("2020.pkpass"),
        "{last}"
    );
    assert!(
        output.stdout.starts_with(b"1 passes purged: 1 reg"),
        "{output:?}"
    );
    assert!(file(&service, "2020").exists() && !file(&service, "2024").exists());
    let left = pairs(&[("D", "2020"), ("D", "good"), ("D", "void")]);
    assert_eq!(registrations(store), left);
}

#[test]
fn a_restarted_service_brings_no_purged_pass_back() {
    let mut service = with_expired();
    service.stop("TERM");
    let (store, passes) = (service.store_url().to_owned(), service.passes());
    // The service does not run, so it notices the removal of the files only after the purge.
    done(in_folder(&store, &passes).args(["--expired", "--delete-files"]));
    service.start();
    service.stop("TERM");
    let removed = would_remove(&store);
    assert!(removed.starts_with("0 passes"), "{removed}");
    assert_eq!(
        registrations(&store),
        pairs(&[("D", "good"), ("D", "void")])
    );
}

#[test]
fn removed_passes_are_purged_together() {
    let service = with_expired();
    for serial in ["2020", "good"] {
        withdraw(&service, serial);
    }
    let store = service.store_url();
    eventually("the removals are published", || {
        would_remove(store).contains("2 passes")
    });
    let out = done(purge(store).arg("--removed"));
    assert!(out.starts_with("2 passes purged: 2 registrations"), "{out}");
    let left = pairs(&[("D", "2024"), ("D", "void")]);
    assert_eq!(registrations(store), left);
}

#[test]
fn a_pass_that_is_still_offered_is_not_purged() {
    let service = with_expired();
    let (store, passes) = (service.store_url(), service.passes());
    let said = refused(purge(store).args([TYPE, "good"]));
    assert!(
        said.contains("passkit serve offers") && said.contains("--force"),
        "{said}"
    );
    let said = refused(in_folder(store, &passes).args([TYPE, "good"]));
    assert!(said.contains("good.pkpass still holds"), "{said}");
    // A broken file may be the file of any pass.
    fs::write(file(&service, "broken"), "no archive").unwrap();
    let (code, _, said) = run(in_folder(store, &passes).args([TYPE, "good", "--delete-files"]));
    assert!(
        code == Some(2) && said.contains("broken.pkpass can't be read"),
        "{said}"
    );
    assert!(file(&service, "good").exists());
    assert_eq!(registrations(store).len(), 4);
    let forced = done(purge(store).args([TYPE, "good", "--force"]));
    assert!(
        forced.starts_with("1 passes purged: 1 registrations"),
        "{forced}"
    );
    for (wrong, why) in [
        (&["--expired"][..], "--expired needs the folder"),
        (
            &["--delete-files", TYPE, "A"],
            "--delete-files needs the folder",
        ),
        (&[], "required"),
        (&[TYPE], "required"),
        (&["--before", "2020-01-01", "--removed"], "--expired"),
        (&["--expired", "--before", "soon"], "write a day such as"),
        (&["--expired", TYPE, "A"], "cannot be used with"),
    ] {
        let said = refused(purge(store).args(wrong));
        assert!(said.contains(why), "{wrong:?}: {said}");
    }
}

#[test]
fn phones_that_register_during_the_purge_are_refused_afterwards() {
    const PHONES: usize = 4;
    let service = with_expired();
    let (store, passes) = (service.store_url(), service.passes());
    let registered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for phone in 0..PHONES {
            let (address, registered) = (service.address(), &registered);
            scope.spawn(move || {
                let authorization = authorization(TYPE, "2020");
                let headers = [("Authorization", &*authorization)];
                for number in (phone..).step_by(PHONES) {
                    let path = registration(&format!("P-{number}"), TYPE, "2020");
                    let body = br#"{"pushToken":"c0ffee"}"#;
                    let answer = send(&address, "POST", &path, &headers, body).unwrap();
                    if answer.status == 401 {
                        return;
                    }
                    assert_eq!(answer.status, 201, "{answer:?}");
                    registered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        eventually("phones register", || {
            registered.load(Ordering::Relaxed) > 20
        });
        done(in_folder(store, &passes).args(["--expired", "--delete-files"]));
    });
    let left = registrations(store);
    let of_purged = left.iter().filter(|(_, serial)| serial == "2020");
    // Each phone may have had one registration under way, which arrived after the purge.
    assert!(of_purged.count() <= PHONES, "{left:?}");
    done(purge(store).args([TYPE, "2020"]));
    assert_eq!(registrations(store), pairs(&[("D", "good"), ("D", "void")]));
}
