//! The program over PostgreSQL.

use std::{fs, process::Command, sync::OnceLock};

use passkit_test_servers::postgres::{Server, program};

use crate::{
    archives::{pass, replace},
    instances,
    moving::{import_all, interrupted, registrations},
    program::{Service, eventually, passkit, run},
};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::find().unwrap_or_else(|error| panic!("{error}")))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Makes an empty database.
fn database() -> String {
    server().url(&wait(server().new_database()).unwrap())
}

/// Makes an empty database with the tables.
pub(crate) fn migrated() -> String {
    let url = database();
    for _ in 0..2 {
        let (code, out, said) = run(passkit().args(["migrate", "--store", &url]));
        assert_eq!(code, Some(0), "{said}");
        assert!(out.contains("up to date"), "{out}");
    }
    url
}

/// Runs SQL as an operator would.
fn execute(url: &str, sql: &str) {
    let done = Command::new(program("psql").unwrap())
        .args(["--no-psqlrc", "--quiet", "--dbname", url, "--command", sql])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn instances_go_on_while_a_newer_version_migrates() {
    const TYPE: &str = "pass.com.example.upgraded";
    let url = migrated();
    let mut one = Service::over(&url);
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    one.start();
    let works = |instance: &Service, device: &str, version: &str| {
        assert_eq!(instance.register(device, TYPE, "A-1"), 201);
        let (_, tag) = instance.list(device, TYPE, None).unwrap();
        let content = pass(TYPE, "A-1", version);
        replace(&file, &content);
        eventually("the change is listed", || {
            instance.list(device, TYPE, Some(&tag)).is_some()
        });
        assert!(instance.get(TYPE, "A-1", None).body == content);
        assert_eq!(instance.unregister(device, TYPE, "A-1"), 200);
    };
    works(&one, "D-1", "1");
    // A newer version adds columns, which this version does not know.
    let columns: String = [
        "clock",
        "device",
        "registration",
        "pass",
        "published",
        "pending_push",
        "deferred_push",
        "claim",
        "note",
    ]
    .map(|table| format!("alter table passkit.{table} add column of_newer text default 'x';"))
    .concat();
    let version = "insert into passkit.migration (version, needs) values";
    execute(&url, &format!("{columns} {version} (98, 2)"));
    works(&one, "D-2", "2");
    let (code, out, said) = run(passkit().args(["migrate", "--store", &url]));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("up to date"), "{out}");
    // An instance of this version can still start.
    let mut two = one.sibling();
    two.start();
    works(&two, "D-3", "3");

    // The next version no longer supports this one.
    execute(&url, &format!("{version} (99, 98)"));
    works(&one, "D-4", "4");
    let said = one.sibling().refusal().unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("newer passkit"), "{said}");
}

#[test]
fn a_failed_start_is_one_line() {
    let service = Service::over("");
    let closed = "postgres://somebody:secret@127.0.0.1:1/nowhere";
    for (url, hint) in [
        (database().as_str(), "passkit migrate"),
        (closed, "can't connect"),
    ] {
        let mut command = passkit();
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                url,
                "--passes",
            ])
            .arg(service.passes());
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(hint) && !said.contains("secret"), "{said}");
    }
}

#[test]
fn the_other_instance_serves_a_change_that_one_marks() {
    instances::agree(&migrated());
}

#[test]
fn instances_with_different_contents_go_on_answering() {
    instances::disagree(&migrated());
}

#[test]
fn an_instance_that_starts_later_knows_tokens_and_removals() {
    instances::know_tokens(&migrated());
}

#[test]
fn a_database_restored_from_before_a_change_gets_the_change_again() {
    const TYPE: &str = "pass.com.example.restored";
    let database = migrated();
    let (_, name) = database.rsplit_once('/').unwrap();
    let mut service = Service::over(&database);
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    assert_eq!(service.register("D", TYPE, "A-1"), 201);
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    let date = service
        .get(TYPE, "A-1", None)
        .header("last-modified")
        .unwrap()
        .to_owned();
    service.stop("TERM");
    let dump = wait(server().copy_database(name)).unwrap();

    service.start();
    let two = pass(TYPE, "A-1", "two");
    replace(&file, &two);
    eventually("the change is listed", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
    service.stop("TERM");

    service.set_store(&server().url(&dump));
    service.start();
    let answer = service.get(TYPE, "A-1", None);
    assert_eq!(answer.status, 200, "{}", service.said());
    assert!(answer.body == two);
    // A phone that has the content before the change gets the change, although the database no
    // longer has it.
    eventually("the change is listed again", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
    let answer = service.get(TYPE, "A-1", Some(&date));
    assert_eq!(answer.status, 200);
    assert!(answer.body == two);
    let (_, newer) = service.list("D", TYPE, Some(&tag)).unwrap();
    let date = answer.header("last-modified").unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(service.get(TYPE, "A-1", Some(&date)).status, 304);
        assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    }
    assert_eq!(service.list("D", TYPE, Some(&newer)), None);
}

#[test]
fn registrations_are_imported_and_counted() {
    let url = migrated();
    let folder = tempfile::tempdir().unwrap();
    let file = registrations(folder.path().join("a.csv"), 20_000);
    let (code, out, said) = run(passkit()
        .args(["import", "--store", &url, "--from"])
        .arg(&file));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.starts_with("20000 registrations imported, 20000 of them new"),
        "{out}"
    );
    let (code, out, said) = run(passkit().args(["stats", "--json", "--store", &url]));
    assert_eq!(code, Some(0), "{said}");
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["registrations"], 20_000);
    assert!(stats["storage_bytes"].as_u64().unwrap() > 1_000_000);
    let (code, out, _) = run(passkit().args(["export", "--store", &url]));
    assert_eq!(code, Some(0));
    let mut exported: Vec<_> = out.lines().skip(1).collect();
    exported.sort_unstable();
    assert_eq!(
        exported.join("\n"),
        fs::read_to_string(&file).unwrap().trim_end()
    );
}

#[test]
fn an_import_goes_on_unless_the_tables_were_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let url = migrated();
    let file = interrupted(&url, folder.path());
    let said = import_all(&url, &file);
    assert!(said.contains("continues after line 10000,"), "{said}");

    let url = migrated();
    interrupted(&url, folder.path());
    // The notes stay in the database.
    execute(
        &url,
        "truncate passkit.registration, passkit.device cascade",
    );
    let said = import_all(&url, &file);
    assert!(said.contains("starts from the beginning"), "{said}");
}
