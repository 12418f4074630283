//! `passkit copy` from store to store.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use passkit_test_servers::redis::Single;

use crate::{
    archives::{pass, replace, token_of, with_token},
    moving::registrations,
    postgres,
    program::{Service, eventually, passkit, run},
    sqlite::{every_store, url},
};

const TYPE: &str = "pass.com.example.copied";

fn copy(from: &str, to: &str) -> Command {
    let mut command = passkit();
    command.args(["copy", "--from", from, "--to", to]);
    command
}

fn count(store: &str) -> serde_json::Value {
    let (code, out, said) = run(passkit().args(["stats", "--json", "--store", store]));
    assert_eq!(code, Some(0), "{said}");
    let mut stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    stats["storage_bytes"].take();
    stats
}

fn export(store: &str) -> Vec<String> {
    let (code, out, said) = run(passkit().args(["export", "--store", store]));
    assert_eq!(code, Some(0), "{said}");
    let mut lines: Vec<_> = out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A change that no phone has fetched, an earlier token and a removal take effect in the other
/// store.
fn moves(from: &str, to: &str) {
    const FIRST: &str = "the-first-token-of-it";
    const SECOND: &str = "the-second-token-of-it";
    let mut old = Service::over(from).given(&["--allow-unsigned"]);
    let [changed, renewed, removed] =
        ["changed", "renewed", "removed"].map(|name| old.passes().join(format!("{name}.pkpass")));
    fs::write(&changed, pass(TYPE, "changed", "one")).unwrap();
    fs::write(&renewed, with_token(TYPE, "renewed", FIRST)).unwrap();
    fs::write(&removed, pass(TYPE, "removed", "one")).unwrap();
    old.start();
    for serial in ["changed", "removed"] {
        assert_eq!(old.register("D", TYPE, serial), 201);
    }
    let (_, tag) = old.list("D", TYPE, None).unwrap();
    let before = old.get(TYPE, "changed", None);
    let date = before.header("last-modified").unwrap();
    let two = pass(TYPE, "changed", "two");
    replace(&changed, &two);
    replace(&renewed, &with_token(TYPE, "renewed", SECOND));
    fs::remove_file(&removed).unwrap();
    eventually("all of that is published", || {
        old.list("D", TYPE, Some(&tag)).is_some()
            && old.statuses("E", TYPE, "renewed", SECOND)[0] != 401
            && old.get(TYPE, "removed", None).status == 401
    });
    // A start publishes the changes that the last run left.
    old.stop("TERM");
    old.start();
    old.stop("TERM");

    for _ in 0..2 {
        let (code, out, said) = run(&mut copy(from, to));
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            out,
            "2 registrations and 3 published passes copied; 1 types marked\n"
        );
        assert_eq!(count(from), count(to));
        assert_eq!(export(from), export(to));
    }

    let mut new = Service::over(to).given(&["--allow-unsigned"]);
    fs::write(new.passes().join("changed.pkpass"), &two).unwrap();
    fs::write(
        new.passes().join("renewed.pkpass"),
        with_token(TYPE, "renewed", SECOND),
    )
    .unwrap();
    new.start();
    let (serials, tag) = new.list("D", TYPE, Some(&tag)).unwrap();
    assert_eq!(serials, ["changed", "removed"]);
    let answer = new.get(TYPE, "changed", Some(date));
    assert_eq!(answer.status, 200);
    assert!(answer.body == two);
    assert_eq!(new.list("D", TYPE, Some(&tag)), None, "marked once");
    for token in [FIRST, SECOND] {
        assert_eq!(
            new.statuses("F", TYPE, "renewed", token),
            [201, 200, 200],
            "{token}"
        );
    }
    let token = token_of(TYPE, "removed");
    assert_eq!(new.statuses("D", TYPE, "removed", &token), [401, 401, 200]);
}

#[test]
fn from_every_store_to_another() {
    let (from, to) = (every_store(), every_store());
    // sled to SQLite, SQLite to PostgreSQL, PostgreSQL to Redis, Redis to sled.
    for (n, (from, _alive)) in from.iter().enumerate() {
        moves(from, &to[(n + 1) % to.len()].0);
    }
}

#[test]
fn from_redis_to_sqlite() {
    let (from, to) = (Single::start().unwrap(), tempfile::tempdir().unwrap());
    moves(from.url(), &url(to.path(), "passkit.db"));
}

#[test]
fn a_copy_that_was_killed_is_made_complete_by_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut size = 30_000;
    // The number grows until copying takes longer than the time until the kill.
    let (from, to) = loop {
        size *= 2;
        let from = url(folder.path(), &format!("from-{size}.db"));
        let target = folder.path().join(format!("to-{size}.db"));
        let file = registrations(folder.path().join("a.csv"), size);
        let (code, _, said) = run(passkit()
            .args(["import", "--store", &from, "--from"])
            .arg(file));
        assert_eq!(code, Some(0), "{said}");
        let to = format!("sqlite:{}", target.display());
        let mut child = copy(&from, &to)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = format!("{}-wal", target.display());
        let has_begun = || fs::metadata(Path::new(&log)).is_ok_and(|log| log.len() > 500_000);
        let mut ended = None;
        eventually("the copy is under way", || {
            ended = child.try_wait().unwrap();
            ended.is_some() || has_begun()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        if ended.is_none() && count(&to)["registrations"] != size {
            break (from, to);
        }
        assert!(size < 4_000_000, "every copy was too fast to be killed");
    };
    let (code, _, said) = run(&mut copy(&from, &to));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(count(&from), count(&to));
    assert_eq!(export(&from), export(&to));
}

#[test]
fn a_store_is_not_copied_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = registrations(folder.path().join("a.csv"), 3);
    let (sqlite, redis) = (url(folder.path(), "one.db"), Single::start().unwrap());
    let postgres = postgres::migrated();
    for store in [&sqlite, &postgres, redis.url()] {
        let (code, _, said) = run(passkit()
            .args(["import", "--store", store, "--from"])
            .arg(&file));
        assert_eq!(code, Some(0), "{said}");
    }
    fs::hard_link(folder.path().join("one.db"), folder.path().join("link.db")).unwrap();
    std::os::unix::fs::symlink("one.db", folder.path().join("symlink.db")).unwrap();
    let longer = |url: &str| format!("{url}?application_name=other");
    for (from, to) in [
        (sqlite.clone(), sqlite.clone()),
        (sqlite.clone(), url(folder.path(), "link.db")),
        (sqlite.clone(), url(folder.path(), "symlink.db")),
        (sqlite.clone(), url(&folder.path().join("."), "./one.db")),
        (postgres.clone(), longer(&postgres)),
        (
            redis.url().to_owned(),
            format!("{}/0", redis.url().trim_end_matches('/')),
        ),
    ] {
        let (code, out, said) = run(&mut copy(&from, &to));
        assert_eq!((code, &*out), (Some(2), ""), "{from} {to}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("are the same store"), "{from} {to}: {said}");
    }
    assert_eq!(count(&sqlite)["registrations"], 3);
}
