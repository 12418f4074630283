//! `PUT /admin/v1/archives`: all instances serve an archive that one instance got.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use passkit_archive::ArchiveBuilder;
use passkit_server::identifiers::Kind;
use passkit_test_servers::redis::Single;
use serde_json::{Value, json};

use crate::{
    archives::{order, pass, unsigned, with_json},
    postgres,
    program::{self, Answer, Service, authorization, passkit, run},
    push::{self, Local},
    sqlite,
};

const TYPE: &str = "pass.com.example.handed";
const ADMIN: &str = "an-admin-token-for-tests";
const ARCHIVES: &str = "/admin/v1/archives";
const OPTIONS: [&str; 3] = ["--archives-in-store", "--admin-token", ADMIN];

fn put_to(address: &str, archive: &[u8]) -> Answer {
    let headers = [("Authorization", &*format!("Bearer {ADMIN}"))];
    program::send(address, "PUT", ARCHIVES, &headers, archive).unwrap()
}

fn put(service: &Service, archive: &[u8]) -> Answer {
    put_to(&service.address(), archive)
}

/// Returns the error of a refused archive, which is one line.
fn refused(service: &Service, status: u16, archive: &[u8]) -> Value {
    let answer = put(service, archive);
    let told = answer.json();
    assert_eq!(answer.status, status, "{told}");
    let error = told["error"].as_str().unwrap();
    assert!(!error.is_empty() && !error.contains('\n'), "{told}");
    told
}

fn date(answer: &Answer) -> &str {
    answer.header("last-modified").unwrap()
}

#[test]
fn instances_over_postgres_serve_an_archive_that_one_of_them_got() {
    all_instances_serve(&postgres::migrated());
}

#[test]
fn instances_over_sqlite_serve_an_archive_that_one_of_them_got() {
    let folder = tempfile::tempdir().unwrap();
    all_instances_serve(&sqlite::url(folder.path(), "passkit.db"));
}

fn all_instances_serve(store: &str) {
    let mut one = Service::over(store).given(&OPTIONS);
    // It has separate, empty folders, and takes no archives itself.
    let mut two = Service::over(store).given(&["--archives-in-store"]);
    one.start();
    two.start();
    assert_eq!(two.get(TYPE, "A/1", None).status, 401);

    let (first, second) = (pass(TYPE, "A/1", "one"), pass(TYPE, "A/1", "two"));
    let taken = put(&one, &first);
    assert_eq!(taken.status, 201, "{:?}", taken.json());
    let told = json!({ "type": TYPE, "serial": "A/1", "changed": true, "findings": [] });
    assert_eq!(taken.json(), told);
    let shop = order("order.com.example.handed", "W-1", "one");
    assert_eq!(put(&one, &shop).status, 201);
    assert!(two.get("order.com.example.handed", "W-1", None).body == shop);

    assert_eq!(two.register("D", TYPE, "A/1"), 201);
    let (listed, tag) = one.list("D", TYPE, None).unwrap();
    assert_eq!(listed, ["A/1"]);
    let fetched = two.get(TYPE, "A/1", None);
    assert!(fetched.status == 200 && fetched.body == first);
    let wrong = [("Authorization", "ApplePass another-token-0123")];
    let path = format!("/v1/passes/{TYPE}/A%2F1");
    assert_eq!(two.send("GET", &path, &wrong, b"").status, 401);

    // The same content again changes nothing, even if it is signed again.
    let again = put(&one, &pass(TYPE, "A/1", "one"));
    assert_eq!(
        (again.status, &again.json()["changed"]),
        (200, &json!(false))
    );
    for service in [&one, &two] {
        assert_eq!(service.list("D", TYPE, Some(&tag)), None);
        assert_eq!(service.get(TYPE, "A/1", Some(date(&fetched))).status, 304);
    }

    let changed = put(&one, &second);
    assert_eq!(
        (changed.status, &changed.json()["changed"]),
        (200, &json!(true))
    );
    for service in [&two, &one] {
        let (listed, _) = service.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(listed, ["A/1"]);
        let answer = service.get(TYPE, "A/1", Some(date(&fetched)));
        assert!(answer.status == 200 && answer.body == second);
        assert_eq!(service.get(TYPE, "A/1", Some(date(&answer))).status, 304);
    }

    // It is still there after all instances were killed.
    one.kill();
    two.kill();
    let mut three = Service::over(store).given(&["--archives-in-store"]);
    three.start();
    assert!(three.get(TYPE, "A/1", None).body == second);
    assert_eq!(three.unregister("D", TYPE, "A/1"), 200);

    // Nothing of a purged pass remains.
    let (code, _, said) = run(passkit().args(["purge", "--store", store, "--force", TYPE, "A/1"]));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(three.get(TYPE, "A/1", None).status, 401);
}

#[test]
fn a_service_needs_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::url(folder.path(), "passkit.db");
    let serve = |more: &[&str]| {
        let mut command = passkit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", &store]);
        command.args(more);
        command
    };
    let (code, _, said) = run(&mut serve(&[]));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let mut running = serve(&OPTIONS)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = running.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("listening on http://");
    let archive = pass(TYPE, "A-1", "one");
    let taken = put_to(address, &archive);
    let path = format!("/v1/passes/{TYPE}/A-1");
    let authorization = authorization(TYPE, "A-1");
    let headers = [("Authorization", &*authorization)];
    let fetched = program::send(address, "GET", &path, &headers, b"").unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(taken.status, 201);
    assert!(fetched.body == archive);
}

#[test]
fn a_store_without_archives_is_refused_at_the_start() {
    let redis = Single::start().unwrap();
    for service in [Service::alone(), Service::over(redis.url())] {
        let (code, _, said) = run(service
            .given(&OPTIONS)
            .command()
            .arg("--metrics=127.0.0.1:0"));
        assert_eq!(code, Some(2), "{said}");
        let last = said.lines().last().unwrap();
        assert!(
            last.contains("--archives-in-store") && last.contains("postgres:"),
            "{said}"
        );
    }
}

#[test]
fn bad_archives_are_refused_and_what_is_served_stays() {
    let mut service = Service::new().given(&OPTIONS);
    fs::write(service.passes().join("f.pkpass"), pass(TYPE, "F-1", "one")).unwrap();
    service.start();
    let good = pass(TYPE, "A-1", "one");
    assert_eq!(put(&service, &good).status, 201);

    let bomb = ArchiveBuilder::new(Kind::Pass, "{}").file("a.txt", vec![0; 65 << 20]);
    let bomb = bomb.build_unsigned().unwrap();
    for bad in [
        &b""[..],
        b"not a zip",
        &good[..good.len() / 2],
        &unsigned(TYPE, "A-1", "two"),
        &with_json(TYPE, &json!({ "formatVersion": 2 })),
        &bomb,
    ] {
        let told = refused(&service, 422, bad);
        let first = &told["findings"][0];
        for key in ["code", "level", "message"] {
            assert!(first[key].is_string(), "{told}");
        }
    }
    refused(&service, 413, &vec![0; (15 << 20) + 1]);
    // The instance would serve the file in the folder instead.
    let told = refused(&service, 409, &pass(TYPE, "F-1", "two"));
    assert!(told["error"].as_str().unwrap().contains("F-1"), "{told}");
    assert_eq!(service.send("PUT", ARCHIVES, &[], &good).status, 401);
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("Authorization", &*bearer)];
    let posted = service.send("POST", ARCHIVES, &headers, &good);
    assert_eq!((posted.status, posted.header("allow")), (405, Some("PUT")));
    assert!(service.get(TYPE, "A-1", None).body == good);
    assert!(service.get(TYPE, "F-1", None).body != good);

    let mut without = Service::new().given(&["--admin-token", ADMIN]);
    without.start();
    let told = refused(&without, 404, &good);
    assert!(
        told["error"]
            .as_str()
            .unwrap()
            .contains("--archives-in-store")
    );
}

/// An operator does what the answer 409 says: removes the file, and sends the archive again.
#[test]
fn a_pass_moves_from_the_folder_to_the_store() {
    let mut service = Service::new().given(&OPTIONS);
    let file = |serial: &str| service.passes().join(format!("{serial}.pkpass"));
    // One of the archives has the same content as its file.
    let moves = [("F-1", "one"), ("F-2", "two")].map(|(serial, version)| {
        let file = file(serial);
        fs::write(&file, pass(TYPE, serial, "one")).unwrap();
        (serial, file, pass(TYPE, serial, version))
    });
    service.start();
    for (_, file, archive) in &moves {
        refused(&service, 409, archive);
        fs::remove_file(file).unwrap();
        program::eventually("the archive is taken", || {
            let status = put(&service, archive).status;
            assert!([200, 409].contains(&status), "{status}");
            status == 200
        });
    }
    // Everything that the folder still has to publish is published at the end, or at the next start.
    assert_eq!(service.stop("TERM").code(), Some(0));
    service.start();
    for (serial, _, archive) in &moves {
        let answer = service.get(TYPE, serial, None);
        assert!(answer.status == 200 && answer.body == *archive, "{serial}");
    }
}

/// While the store can't be written, an instance knows that a file is gone, and the store does not.
#[test]
fn an_archive_is_refused_until_the_removal_of_its_file_is_published() {
    let mut service = Service::new().given(&OPTIONS);
    let file = service.passes().join("f.pkpass");
    fs::write(&file, pass(TYPE, "F-1", "one")).unwrap();
    service.start();
    let script = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute('begin immediate')
print('locked', flush=True)
sys.stdin.read()";
    let mut locking = Command::new("python3")
        .args(["-c", script])
        .arg(service.store().join("passkit.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = locking.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    fs::remove_file(&file).unwrap();
    let archive = pass(TYPE, "F-1", "two");
    program::eventually("the removal is not published", || {
        let told = refused(&service, 409, &archive);
        told["error"].as_str().unwrap().contains("was removed")
    });
    drop(locking.stdin.take());
    assert!(locking.wait().unwrap().success());
    program::eventually("the archive is taken", || {
        put(&service, &archive).status == 200
    });
    assert!(service.get(TYPE, "F-1", None).body == archive);
}

#[test]
fn an_instance_that_notices_late_that_a_file_is_gone_does_not_end_the_pass() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::url(folder.path(), "passkit.db");
    let [mut one, mut late] = [(); 2].map(|()| Service::over(&store).given(&OPTIONS));
    one.start();
    for (serial, version) in [("F-1", "one"), ("F-2", "two")] {
        let file = late.passes().join("f.pkpass");
        fs::write(&file, pass(TYPE, serial, "one")).unwrap();
        late.start();
        assert_eq!(late.get(TYPE, serial, None).status, 200);
        assert_eq!(late.stop("TERM").code(), Some(0));
        fs::remove_file(&file).unwrap();
        let archive = pass(TYPE, serial, version);
        assert_eq!(put(&one, &archive).status, 200);
        late.start();
        for service in [&one, &late] {
            let answer = service.get(TYPE, serial, None);
            assert!(answer.status == 200 && answer.body == archive, "{serial}");
        }
        assert_eq!(late.stop("TERM").code(), Some(0));
    }
}

/// Each answer has the content that belongs to its date, and in the end all instances serve the same.
#[test]
fn parallel_archives_of_one_pass_end_with_one_that_all_instances_serve() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 8;
    let store = postgres::migrated();
    let [mut one, mut two] = [(); 2].map(|()| Service::over(&store).given(&OPTIONS));
    one.start();
    two.start();
    assert_eq!(put(&one, &pass(TYPE, "A-1", "first")).status, 201);
    assert_eq!(one.register("D", TYPE, "A-1"), 201);
    let (services, done) = ([&one, &two], AtomicBool::new(false));
    let fetched = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let address = services[writer % 2].address();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Some of the versions were published before.
                        let version = format!("{}-{}", writer % 2, round % 3);
                        let answer = put_to(&address, &pass(TYPE, "A-1", &version));
                        assert_eq!(answer.status, 200, "{:?}", answer.json());
                    }
                })
            })
            .collect();
        let readers: Vec<_> = services
            .map(|service| {
                let done = &done;
                scope.spawn(move || {
                    let mut fetched = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let answer = service.get(TYPE, "A-1", None);
                        assert_eq!(answer.status, 200, "{}", service.said());
                        let etag = answer.header("etag").unwrap().to_owned();
                        fetched.push((etag, content_of(&answer.body)));
                    }
                    fetched
                })
            })
            .into_iter()
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(written.iter().all(Result::is_ok));
        let fetched = readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap());
        fetched.collect::<Vec<_>>()
    });
    let mut contents: HashMap<String, [u8; 32]> = HashMap::new();
    for (etag, content) in fetched {
        let known = *contents.entry(etag.clone()).or_insert(content);
        assert!(known == content, "two contents with the ETag {etag}");
    }
    let last = services.map(|service| service.get(TYPE, "A-1", None));
    assert_eq!(content_of(&last[0].body), content_of(&last[1].body));
    for service in services {
        assert_eq!(service.get(TYPE, "A-1", Some(date(&last[0]))).status, 304);
    }
}

/// Returns the digest of an archive without its signature.
fn content_of(archive: &[u8]) -> [u8; 32] {
    let rules = passkit_archive::Rules::strict();
    passkit_archive::Archive::check(archive, rules)
        .unwrap()
        .content_digest
}

#[test]
fn phones_get_a_push_for_a_changed_archive() {
    let local = Local::start();
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::url(folder.path(), "passkit.db");
    let mut service = Service::over(&store)
        .given(&local.arguments())
        .given(&OPTIONS);
    service.start();
    assert_eq!(put(&service, &pass(push::TYPE, "A-1", "one")).status, 201);
    push::register(&service, "D-1", &push::token(1), "A-1");
    let changed = std::time::SystemTime::now();
    assert_eq!(put(&service, &pass(push::TYPE, "A-1", "two")).status, 200);
    program::eventually("the phone is pushed", || {
        local.pushed(changed).contains_key(&push::token(1))
    });
    local.no_violation();
}

/// An archive and a purge after an upgrade of the schema. Only an SQLite file is upgraded automatically.
#[test]
fn a_store_of_the_first_version_is_upgraded() {
    let mut service = Service::new();
    service.start();
    assert_eq!(service.stop("TERM").code(), Some(0));
    let database = service.store().join("passkit.db");
    let script = "import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.executescript('drop table passkit_archive; drop view delivery_records; drop table passkit_delivery;'
    'update passkit_store set version = 1')";
    let changed = Command::new("python3")
        .args(["-c", script])
        .arg(&database)
        .status();
    assert!(changed.unwrap().success());
    let mut service = service.given(&OPTIONS);
    service.start();
    assert_eq!(put(&service, &pass(TYPE, "A-1", "one")).status, 201);
    // This also removes the delivery records of the pass.
    let url = sqlite::url(&service.store(), "passkit.db");
    let (code, _, said) = run(passkit().args(["purge", "--store", &url, "--force", TYPE, "A-1"]));
    assert_eq!(code, Some(0), "{said}");
}
