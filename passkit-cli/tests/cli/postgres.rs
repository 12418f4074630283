//! The program over PostgreSQL.

use std::{fs, sync::OnceLock};

use passkit_test_servers::postgres::Server;

use crate::{
    instances,
    moving::registrations,
    program::{Service, passkit, run},
};

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
    instances::agree(&migrated());
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
