//! Several instances over one PostgreSQL database.

use std::{fs, sync::OnceLock, time::Duration};

use passkit_test_servers::postgres::Server;

use crate::{
    archives::{pass, replace},
    moving::registrations,
    program::{Service, eventually, passkit, run},
};

const TYPE: &str = "pass.com.example.shared";
const SOON: Duration = Duration::from_secs(8);

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::find().unwrap_or_else(|error| panic!("{error}")))
}

/// An empty database.
fn database() -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = runtime.block_on(server().new_database()).unwrap();
    server().url(&name)
}

/// An empty database with the tables.
pub(crate) fn migrated() -> String {
    let url = database();
    for _ in 0..2 {
        let (code, out, said) = run(passkit().args(["migrate", "--store", &url]));
        assert_eq!(code, Some(0), "{said}");
        assert!(out.contains("up to date"), "{out}");
    }
    url
}

#[test]
fn a_start_that_cannot_be_is_one_line() {
    let service = Service::over("");
    let closed = "postgres://somebody:secret@127.0.0.1:1/nowhere";
    for (url, mend) in [(database().as_str(), "passkit migrate"), (closed, "can't connect")] {
        let mut command = passkit();
        command.args(["serve", "--listen", "127.0.0.1:0", "--store", url, "--passes"]).arg(service.passes());
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(mend) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn what_one_instance_marks_the_other_serves() {
    let mut one = Service::over(&migrated());
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    fs::write(one.passes().join("b.pkpass"), pass(TYPE, "B-1", "0")).unwrap();
    let mut two = one.sibling();
    one.start();
    two.start();

    assert_eq!(one.register("D", TYPE, "A-1"), 201);
    assert_eq!(two.register("D", TYPE, "A-1"), 200);
    let (_, mut tag) = two.list("D", TYPE, None).unwrap();
    let mut date = one.get(TYPE, "A-1", None).header("last-modified").unwrap().to_owned();
    assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
    for version in 1..=4 {
        let content = pass(TYPE, "A-1", &version.to_string());
        replace(&file, &content);
        eventually("the change is listed", SOON, || one.list("D", TYPE, Some(&tag)).is_some());
        // At once: whichever noticed it first, both serve it.
        for service in [&two, &one] {
            let answer = service.get(TYPE, "A-1", Some(&date));
            assert_eq!(answer.status, 200, "{}", service.said());
            assert!(answer.body == content, "old content under a new date");
        }
        let (serials, newer) = two.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(serials, ["A-1"]);
        date = one.get(TYPE, "A-1", None).header("last-modified").unwrap().to_owned();
        // Both have noticed by now, and one mark was made.
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(one.list("D", TYPE, Some(&newer)), None, "marked twice");
        assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
        tag = newer;
    }

    // A third one, which starts from nothing, changes nothing.
    let mut three = one.sibling();
    three.start();
    assert_eq!(three.list("D", TYPE, Some(&tag)), None);
    assert_eq!(three.get(TYPE, "A-1", Some(&date)).status, 304);
    assert_eq!(one.stop("TERM").code(), Some(0));
    assert_eq!(three.unregister("D", TYPE, "A-1"), 200);
    assert_eq!(two.list("D", TYPE, None), None);
}

#[test]
fn registrations_are_imported_and_counted() {
    let url = migrated();
    let folder = tempfile::tempdir().unwrap();
    let file = registrations(folder.path().join("a.csv"), 20_000);
    let (code, out, said) = run(passkit().args(["import", "--store", &url, "--from"]).arg(&file));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("20000 registrations imported, 20000 of them new"), "{out}");
    let (code, out, said) = run(passkit().args(["stats", "--json", "--store", &url]));
    assert_eq!(code, Some(0), "{said}");
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["registrations"], 20_000);
    assert!(stats["storage_bytes"].as_u64().unwrap() > 1_000_000);
    let (code, out, _) = run(passkit().args(["export", "--store", &url]));
    assert_eq!(code, Some(0));
    let mut exported: Vec<_> = out.lines().skip(1).collect();
    exported.sort_unstable();
    assert_eq!(exported.join("\n"), fs::read_to_string(&file).unwrap().trim_end());
}
