//! The program over a Redis server with TLS.

use std::{fs, process::Command};

use passkit_test_servers::redis::{Cluster, Node, SentinelSet, Tls};

use crate::{
    moving::registrations,
    program::{Service, passkit, run},
};

const ROOT: &str = "PASSKIT_REDIS_ROOT";

/// Returns the program with this authority as the only one that it trusts.
fn trusting(tls: &Tls, by: &str) -> Command {
    let mut command = passkit();
    command.env(by, tls.file("ca.crt"));
    command
}

/// Imports and exports registrations, with a client certificate.
fn serves(tls: &Tls, trusted_by: &str, url: &str) {
    let command = || {
        let mut command = trusting(tls, trusted_by);
        command
            .env("PASSKIT_REDIS_CERT", tls.file("client.pem"))
            .env("PASSKIT_STORE", url);
        command
    };
    assert!(url.starts_with("rediss"), "{url}");
    let folder = tempfile::tempdir().unwrap();
    let file = registrations(folder.path().join("a.csv"), 300);
    let (code, out, said) = run(command().args(["import", "--from"]).arg(&file));
    assert_eq!(code, Some(0), "{url}: {said}");
    assert!(
        out.starts_with("300 registrations imported, 300 of them new"),
        "{out}"
    );
    let (code, out, said) = run(command().arg("export"));
    assert_eq!(code, Some(0), "{url}: {said}");
    let mut exported: Vec<_> = out.lines().skip(1).collect();
    exported.sort_unstable();
    assert_eq!(
        exported.join("\n"),
        fs::read_to_string(&file).unwrap().trim_end()
    );
}

#[test]
fn a_node_a_cluster_and_sentinels_work_over_tls() {
    let tls = Tls::make().unwrap();
    let options = tls.options(true);
    let node = Node::start(&options).unwrap();
    serves(&tls, ROOT, &node.url());
    node.ask(&["FLUSHALL"]).unwrap();
    // This variable replaces the system's authorities.
    serves(&tls, "SSL_CERT_FILE", &node.url());
    serves(&tls, ROOT, &Cluster::start_own(&options).unwrap().url());
    serves(&tls, ROOT, &SentinelSet::start_own(&options).unwrap().url());
}

#[test]
fn a_tls_failure_is_one_line() {
    let tls = Tls::make().unwrap();
    let (own, other) = (Service::over(""), Tls::make().unwrap());
    let node = Node::start(&tls.options(false)).unwrap();
    let asking = Node::start(&tls.options(true)).unwrap();
    let plain = Node::start(&[]).unwrap();
    let at = |scheme: &str, node: &Node| format!("{scheme}://:secret@127.0.0.1:{}", node.port());
    let no_key = tls.file("client.crt");
    for (trusted, certificate, url, mention) in [
        (&other, None, at("rediss", &node), "PASSKIT_REDIS_ROOT"),
        (
            &other,
            None,
            at("rediss+cluster", &node),
            "PASSKIT_REDIS_ROOT",
        ),
        (
            &other,
            None,
            at("rediss+sentinel", &node) + "/main",
            "PASSKIT_REDIS_ROOT",
        ),
        (
            &tls,
            None,
            format!("rediss://localhost:{}", node.port()),
            "host name",
        ),
        (&tls, None, at("rediss", &plain), "redis instead of rediss"),
        (
            &tls,
            None,
            at("rediss+cluster", &plain),
            "redis instead of rediss",
        ),
        (&tls, None, at("redis", &node), "start the URL with rediss"),
        (
            &tls,
            None,
            at("redis+cluster", &node),
            "start the URL with rediss",
        ),
        (&tls, None, at("rediss", &asking), "PASSKIT_REDIS_CERT"),
        (&tls, Some(&no_key), at("rediss", &asking), "no private key"),
        (
            &tls,
            Some(&tls.file("client.pem")),
            at("redis", &plain),
            "need a rediss URL",
        ),
        (
            &tls,
            Some(&tls.file("client.key")),
            at("rediss", &asking),
            "no certificate",
        ),
        (
            &tls,
            Some(&tls.file("missing")),
            at("rediss", &asking),
            "PASSKIT_REDIS_CERT",
        ),
    ] {
        let mut command = if url.starts_with("rediss") {
            trusting(trusted, ROOT)
        } else {
            passkit()
        };
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                &url,
                "--passes",
            ])
            .arg(own.passes());
        if let Some(certificate) = certificate {
            command.env("PASSKIT_REDIS_CERT", certificate);
        }
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(2), "{url}: {said}");
        assert_eq!(
            said.lines()
                .filter(|line| line.starts_with("passkit: "))
                .count(),
            1,
            "{said}"
        );
        assert!(
            said.contains(mention) && !said.contains("secret"),
            "{url}, {mention}: {said}"
        );
    }
}
