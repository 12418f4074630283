//! The program over Redis.

use std::fs;

use passkit_test_servers::redis::{Cluster, Node, SentinelSet, Single};

use crate::{
    archives::{pass, token_of},
    instances,
    moving::{import_all, interrupted, registrations},
    program::{Service, eventually, passkit, run},
};

#[test]
fn instances_over_one_node_agree() {
    let server = Single::start().unwrap();
    instances::agree(server.url());
}

#[test]
fn instances_over_sentinels_agree() {
    let servers = SentinelSet::start().unwrap();
    instances::agree(&servers.url());
}

#[test]
fn instances_over_a_cluster_agree() {
    let servers = Cluster::start_own(&[]).unwrap();
    instances::agree(&servers.url());
}

#[test]
fn instances_with_different_contents_go_on_answering() {
    let server = Single::start().unwrap();
    instances::disagree(server.url());
}

#[test]
fn an_instance_that_starts_later_knows_tokens_and_removals() {
    let server = Single::start().unwrap();
    instances::know_tokens(server.url());
}

#[test]
fn a_removal_is_kept_until_the_store_has_it() {
    const TYPE: &str = "pass.com.example.removed";
    let node = Node::start(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let mut one = Service::over(&node.url());
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    one.start();
    let token = token_of(TYPE, "A-1");
    node.kill().unwrap();
    fs::remove_file(&file).unwrap();
    eventually("the store refuses it", || {
        one.said().contains("can't mark changes")
    });
    one.kill();
    node.restart().unwrap();
    let mut two = one.newcomer();
    two.start();
    assert_eq!(
        two.statuses("D", TYPE, "A-1", &token),
        [201, 503, 200],
        "the store has no removal yet"
    );
    one.start();
    eventually("the store has it", || {
        two.statuses("D", TYPE, "A-1", &token) == [401, 401, 200]
    });
}

#[test]
fn registrations_are_imported_counted_and_repaired() {
    let server = Single::start().unwrap();
    let url = server.url();
    let folder = tempfile::tempdir().unwrap();
    let file = registrations(folder.path().join("a.csv"), 20_000);
    let (code, out, said) = run(passkit()
        .args(["import", "--store", url, "--from"])
        .arg(&file));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.starts_with("20000 registrations imported, 20000 of them new"),
        "{out}"
    );
    let (code, out, said) = run(passkit().args(["stats", "--json", "--store", url]));
    assert_eq!(code, Some(0), "{said}");
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["registrations"], 20_000);
    let (code, out, _) = run(passkit().args(["export", "--store", url]));
    assert_eq!(code, Some(0));
    let mut exported: Vec<_> = out.lines().skip(1).collect();
    exported.sort_unstable();
    exported.dedup();
    assert_eq!(
        exported.join("\n"),
        fs::read_to_string(&file).unwrap().trim_end()
    );
    let (code, out, said) = run(passkit().args(["repair", "--store", url]));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.ends_with(" 0 removed, 0 restored\n"), "{out}");
}

#[test]
fn a_failed_start_is_one_line() {
    let service = Service::over("");
    let evicting = Node::start(&["--maxmemory-policy", "allkeys-lru"]).unwrap();
    let locked = Node::start(&["--requirepass", "correct"]).unwrap();
    let wrong_password = locked.url().replace("redis://", "redis://:secret@");
    for (url, mention) in [
        (evicting.url(), "noeviction"),
        (wrong_password, "Password"),
        ("redis://:secret@127.0.0.1:1".to_owned(), "127.0.0.1:1"),
        (
            "redis+cluster://127.0.0.1:1,127.0.0.1:2".to_owned(),
            "127.0.0.1:1",
        ),
    ] {
        let mut command = passkit();
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                &url,
                "--passes",
            ])
            .arg(service.passes());
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("passkit: "))
                .count(),
            1,
            "{said}"
        );
        assert!(
            said.contains(mention) && !said.contains("secret"),
            "{mention}: {said}"
        );
    }
}

#[test]
fn an_import_goes_on_unless_the_server_was_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&[]).unwrap();
    let file = interrupted(&node.url(), folder.path());
    let said = import_all(&node.url(), &file);
    assert!(said.contains("continues after line 10000,"), "{said}");
    assert_eq!(node.ask(&["FLUSHDB"]).unwrap(), "OK");
    interrupted(&node.url(), folder.path());
    assert_eq!(node.ask(&["FLUSHDB"]).unwrap(), "OK");
    let said = import_all(&node.url(), &file);
    assert!(!said.contains("continues"), "{said}");
}
