//! Checks the dependencies of the crates against `deny.toml`: licences, sources and wildcards. `cargo deny` checks more,
//! but takes minutes to install.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

/// Returns the list of this name in `deny.toml`.
fn listed(deny: &toml::Table, section: &str, key: &str) -> BTreeSet<String> {
    let list = deny[section][key].as_array().unwrap();
    list.iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Returns whether the allowed licences satisfy this licence. It consists of names, `OR`, `AND`, `WITH` and brackets.
fn is_met(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = licence
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    match words.next() {
        Some("(") => either(words, allowed) & words.next_if_eq(&")").is_some(),
        Some(name) => {
            let name = match words.next_if_eq(&"WITH") {
                Some(_) => format!("{name} WITH {}", words.next().unwrap_or_default()),
                None => name.to_owned(),
            };
            allowed.contains(&name)
        }
        None => false,
    }
}

#[test]
fn licences_are_read() {
    let allowed: BTreeSet<_> = ["MIT", "ISC"].map(str::to_owned).into();
    for good in ["MIT", "MIT/X", "X OR (MIT AND ISC)", "(X OR MIT) AND ISC"] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "X",
        "MIT AND X",
        "MIT WITH Y",
        "(MIT",
        "MIT ISC",
        "MIT AND (X OR Y)",
    ] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

/// `deny.toml` names no other source, so only the usual registry is allowed.
#[test]
fn every_dependency_comes_from_the_registry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let deny: toml::Table =
        toml::from_str(&fs::read_to_string(root.join("deny.toml")).unwrap()).unwrap();
    assert_eq!(deny["sources"]["unknown-registry"].as_str(), Some("deny"));
    assert_eq!(deny["sources"]["unknown-git"].as_str(), Some("deny"));
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock: toml::Table =
            toml::from_str(&fs::read_to_string(root.join(lock)).unwrap()).unwrap();
        for package in lock["package"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            match package.get("source").and_then(toml::Value::as_str) {
                // A package of this repository.
                None => assert!(name.starts_with("passkit-"), "{name}"),
                Some(source) => assert_eq!(
                    source, "registry+https://github.com/rust-lang/crates.io-index",
                    "{name}"
                ),
            }
        }
    }
}

#[test]
fn every_dependency_has_an_allowed_licence_and_a_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let deny: toml::Table =
        toml::from_str(&fs::read_to_string(root.join("deny.toml")).unwrap()).unwrap();
    let allowed = listed(&deny, "licenses", "allow");
    assert_eq!(deny["bans"]["wildcards"].as_str(), Some("deny"));
    let rustc = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let rustc = String::from_utf8(rustc).unwrap();
    // Only what is built here has been downloaded.
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let mut problems = Vec::new();
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
        ]);
        cargo
            .arg(host.unwrap())
            .arg("--manifest-path")
            .arg(root.join(manifest));
        let output = cargo.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        assert!(packages.len() > 50, "{} packages", packages.len());
        for package in packages {
            let name = package["name"].as_str().unwrap();
            let licence = package["license"].as_str().unwrap_or_default();
            let is_ours = package["source"].is_null();
            if !is_ours && !is_met(licence, &allowed) {
                problems.push(format!("{name}: {licence:?} is not allowed"));
            }
            for dependency in package["dependencies"].as_array().unwrap() {
                if is_ours && dependency["req"] == "*" && dependency["path"].is_null() {
                    problems.push(format!("{name}: {} has no version", dependency["name"]));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}
