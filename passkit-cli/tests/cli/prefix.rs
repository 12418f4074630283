//! `--prefix`, for passes whose `webServiceURL` has a path.

use std::fs;

use crate::{
    archives::{self, replace},
    program::{Answer, Service, eventually, passkit, run},
};

const TYPE: &str = "pass.com.example.ticket";

fn pass(serial: &str, url: &str) -> Vec<u8> {
    archives::with_url(TYPE, serial, url)
}

/// The warnings about paths.
fn warnings(service: &Service) -> Vec<String> {
    let said = service.said();
    let about_paths = said
        .lines()
        .filter(|line| line.contains("webServiceURL has the path"));
    about_paths.map(str::to_owned).collect()
}

fn fetch(service: &Service, path: &str) -> Answer {
    let authorization = crate::program::authorization(TYPE, "A");
    service.send("GET", path, &[("Authorization", &authorization)], b"")
}

#[test]
fn the_service_answers_below_a_prefix_and_warns_of_other_paths_once() {
    let mut service =
        Service::with_arguments(&["--allow-unsigned", "--admin-token", "an-admin-token-1"]);
    let passes = service.passes();
    let file = |name: &str| passes.join(name);
    let (a, b, later) = (file("a.pkpass"), file("b.pkpass"), file("later.pkpass"));
    fs::write(&a, pass("A", "https://example.com/api/wallet")).unwrap();
    fs::write(
        &b,
        pass("B", "https://me:secret@example.com/api/wallet/?x=1"),
    )
    .unwrap();
    fs::write(file("root.pkpass"), pass("R", "https://example.com/")).unwrap();
    let below = format!("/api/wallet/v1/passes/{TYPE}/A");
    let root = format!("/v1/passes/{TYPE}/A");

    // Without a prefix, the service works only behind a proxy that removes the path.
    service.start();
    assert_eq!(fetch(&service, &below).status, 404);
    assert_eq!(fetch(&service, &root).status, 200);
    eventually("the path is named", || !warnings(&service).is_empty());
    let warned = warnings(&service);
    let [line] = &warned[..] else {
        panic!("{warned:?}")
    };
    assert!(
        line.contains("/api/wallet") && line.contains("--prefix") && !line.contains("secret"),
        "{line}"
    );
    // Each path of a new archive is named once.
    fs::write(&later, pass("C", "https://example.com/other")).unwrap();
    eventually("the other path is named", || warnings(&service).len() == 2);
    assert!(warnings(&service)[1].contains("/other"));
    fs::write(file("last.pkpass"), pass("D", "https://example.com/other/")).unwrap();
    replace(&b, &pass("B", "https://example.com/last"));
    eventually("the last path is named", || warnings(&service).len() == 3);
    assert!(warnings(&service)[2].contains("/last"));

    // The paths of files that did not change are known after a restart.
    fs::remove_file(file("last.pkpass")).unwrap();
    fs::remove_file(&later).unwrap();
    replace(&b, &pass("B", "https://example.com/api/wallet"));
    service.stop("TERM");
    service.start();
    eventually("it is named again", || warnings(&service).len() == 1);

    // With the prefix, both kinds of proxies work. The publish endpoint stays at the root.
    service.stop("TERM");
    let mut service = service.given(&["--prefix", "/api/wallet/"]);
    service.start();
    for path in [&below, &root, &format!("/api/wallet/{root}")] {
        assert_eq!(fetch(&service, path).status, 200, "{path}");
    }
    assert_eq!(warnings(&service), [""; 0]);
    for (path, status) in [
        ("/admin/v1/publish", 202),
        ("/api/wallet/admin/v1/publish", 404),
    ] {
        let body = format!(r#"{{"type":"{TYPE}","all":true}}"#);
        let headers = [("Authorization", "Bearer an-admin-token-1")];
        let answer = service.send("POST", path, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{path}");
    }
}

#[test]
fn a_prefix_is_a_path() {
    for (wrong, reason) in [
        ("https://example.com/api", "write its path only"),
        ("/a b", "character"),
        ("/a/../b", "\"..\""),
    ] {
        let (code, _, said) = run(passkit().args(["serve", "--passes", ".", "--prefix", wrong]));
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains("--prefix") && said.contains(reason), "{said}");
    }
}
