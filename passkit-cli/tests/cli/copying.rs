//! `passkit copy` from store to store.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use passkit_store_sqlite::rusqlite::{Connection, OpenFlags};
use passkit_test_servers::{disk::SmallDisk, redis::Single};

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

fn import(store: &str, file: &Path) {
    let (code, _, said) = run(passkit()
        .args(["import", "--store", store, "--from"])
        .arg(file));
    assert_eq!(code, Some(0), "{said}");
}

/// Runs a command over a SQLite store and kills it, until five kills have left the store
/// incomplete. Each of them comes a little later than the one before. After each of them, a
/// service must refuse the store and name the command.
pub(crate) fn interrupted(name: &str, store: &str, command: impl Fn() -> Command) {
    let service = Service::over(store);
    let path = Path::new(store.strip_prefix("sqlite:").unwrap());
    let is_begun = || {
        let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let notes = "select count(*) from passkit_note where name = 'passkit-unfinished'";
        store.query_row(notes, [], |row| row.get::<_, bool>(0))
    };
    let mut refused = 0;
    for attempt in 0.. {
        assert!(attempt < 100, "every run ended before it was killed");
        let mut child = command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it is under way", || {
            child.try_wait().unwrap().is_some() || is_begun().unwrap_or(false)
        });
        // The pause only chooses the moment of the kill. No result depends on it.
        std::thread::sleep(Duration::from_millis(refused * 60));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        assert!(ended.code().is_none_or(|code| code == 0));
        // The command may have been complete when it was killed.
        if let Some(said) = service.refusal() {
            let expected = format!("not complete, because `passkit {name}` was interrupted");
            assert!(said.contains(&expected), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            refused += 1;
        }
        if refused == 5 {
            return;
        }
    }
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
    moves_after(from, to, || ());
}

/// Checks a copy that is made after `prepare` has run.
fn moves_after(from: &str, to: &str, prepare: impl FnOnce()) {
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

    prepare();
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
fn a_copy_that_was_killed_often_moves_everything() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = format!("sled:{}", from.path().join("store").display());
    let to = url(to.path(), "passkit.db");
    moves_after(&from, &to, || interrupted("copy", &to, || copy(&from, &to)));
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
        import(&from, &file);
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
    let other = folder.path().join("other.db");
    let (code, out, said) = run(&mut copy(&to, &format!("sqlite:{}", other.display())));
    assert_eq!((code, &*out), (Some(2), ""), "{said}");
    assert!(said.contains("was interrupted"), "{said}");
    assert!(!other.exists(), "an incomplete store is not copied on");
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
        import(store, &file);
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
    assert_eq!(Service::over(&sqlite).refusal(), None, "it is complete");
}

#[test]
fn a_source_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = registrations(at("a.csv"), 3_000);
    import(&url(folder.path(), "good.db"), &file);
    let changed = |name: &str, sql: &str| {
        fs::copy(at("good.db"), at(name)).unwrap();
        Connection::open(at(name))
            .unwrap()
            .execute_batch(sql)
            .unwrap();
    };
    changed("newer.db", "update passkit_store set version = 99");
    fs::write(at("text.db"), "no database".repeat(500)).unwrap();
    Connection::open(at("other.db"))
        .unwrap()
        .execute_batch("create table t (a)")
        .unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/a.txt"), "a").unwrap();
    let sled = format!("sled:{}", at("folder").display());
    let to = url(folder.path(), "to.db");
    let sqlite = |name| url(folder.path(), name);
    for (from, why) in [
        (sqlite("missing.db"), "there is no store"),
        (sqlite("newer.db"), "use that version"),
        (sqlite("text.db"), "it is not an SQLite database"),
        (sqlite("other.db"), "contains no store"),
        (sqlite("folder"), "is a folder"),
        (sled, "there is no store"),
    ] {
        let (code, out, said) = run(&mut copy(&from, &to));
        assert_eq!((code, &*out), (Some(2), ""), "{from}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let (_, path) = from.split_once(':').unwrap();
        assert!(said.contains(why) && said.contains(path), "{said}");
        assert!(!at("to.db").exists(), "{from}");
    }
    assert_eq!(
        fs::read_dir(at("folder")).unwrap().count(),
        1,
        "no store is made where none is expected"
    );

    let mut bytes = fs::read(at("good.db")).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    // The test copies the file, so that the new file has the same mode.
    fs::copy(at("good.db"), at("damaged.db")).unwrap();
    fs::write(at("damaged.db"), bytes).unwrap();
    let (code, out, said) = run(&mut copy(&sqlite("damaged.db"), &to));
    assert_eq!((code, &*out), (Some(2), ""), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("the copy is not complete: ")
            && said.contains("damaged.db: it is damaged; restore it from a backup"),
        "{said}"
    );
    let said = Service::over(&to).refusal().unwrap();
    assert!(said.contains("`passkit copy` was interrupted"), "{said}");
    // Another run from a good copy of the source completes the copy.
    let (code, _, said) = run(&mut copy(&sqlite("good.db"), &to));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(export(&to), export(&sqlite("good.db")));
    assert_eq!(Service::over(&to).refusal(), None);
}

#[test]
fn a_copy_onto_a_full_disk_goes_on_when_there_is_room() {
    let (folder, small) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(disk) = SmallDisk::mount(small.path(), 12) else {
        return;
    };
    let from = url(folder.path(), "from.db");
    import(&from, &registrations(folder.path().join("a.csv"), 90_000));
    let to = url(small.path(), "to.db");
    let (code, out, said) = run(&mut copy(&from, &to));
    assert_eq!((code, &*out), (Some(2), ""), "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.contains("the copy is not complete; run this again: ")
            && last.contains("to.db: the disk is full"),
        "{said}"
    );
    disk.grow();
    let refused = Service::over(&to).refusal().unwrap();
    assert!(refused.contains("was interrupted"), "{refused}");
    let (code, _, said) = run(&mut copy(&from, &to));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(export(&from), export(&to));
    assert_eq!(count(&from), count(&to));
}

#[test]
fn what_the_new_store_has_already_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (url(folder.path(), "from.db"), url(folder.path(), "to.db"));
    import(&from, &registrations(folder.path().join("a.csv"), 3));
    let file = folder.path().join("b.csv");
    fs::write(&file, format!("D,c0ffee,{TYPE},A\n")).unwrap();
    import(&to, &file);
    let mut expected = export(&from);
    expected.extend(export(&to));
    expected.sort();
    expected.dedup();
    let (code, out, said) = run(&mut copy(&from, &to));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        out,
        "3 registrations and 0 published passes copied; 1 types marked\n"
    );
    assert_eq!(export(&to), expected);
}

/// Follows docs/moving.md. A sled store contains the copies of the files.
#[test]
fn a_file_that_was_removed_after_the_stop_is_known_to_the_new_store_as_removed() {
    let mut old = Service::alone();
    let removed = old.passes().join("removed.pkpass");
    fs::write(&removed, pass(TYPE, "removed", "one")).unwrap();
    old.start();
    assert_eq!(old.register("D", TYPE, "removed"), 201);
    old.stop("TERM");
    fs::remove_file(&removed).unwrap();

    let to = url(old.folder.path(), "passkit.db");
    let (code, _, said) = run(&mut copy(old.store_url(), &to));
    assert_eq!(code, Some(0), "{said}");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(old.store().join("folder"))
        .arg(old.folder.path().join("copies"))
        .status();
    assert!(copied.unwrap().success());
    let mut new = old.sibling();
    new.set_store(&to);
    new.start();
    let token = token_of(TYPE, "removed");
    assert_eq!(new.statuses("E", TYPE, "removed", &token), [401, 401, 200]);
    // Another instance learns of the removal from the store.
    let mut other = new.newcomer();
    other.start();
    assert_eq!(
        other.statuses("E", TYPE, "removed", &token),
        [401, 401, 200]
    );
}
