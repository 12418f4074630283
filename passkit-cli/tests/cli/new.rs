//! `passkit new`: of each template, `passkit sign` makes a pass in which nothing is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
};

use passkit_archive::{Report, Rules};
use serde_json::Value;

use crate::{
    archives::unzip,
    picture,
    program::{passkit, run},
};

/// The styles, and their tables.
const STYLES: [(&str, &str); 9] = [
    ("generic", "members.csv"),
    ("storeCard", "members.csv"),
    ("coupon", "coupons.csv"),
    ("eventTicket", "tickets.csv"),
    ("posterEventTicket", "tickets.csv"),
    ("boardingPass", "passengers.csv"),
    ("semanticBoardingPass", "passengers.csv"),
    ("posterGeneric", "members.csv"),
    ("order", "orders.csv"),
];

/// A folder in which `passkit new` ran.
struct Desk(tempfile::TempDir);

impl Desk {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn new(style: &str) -> Self {
        let desk = Self::empty();
        let made = ["new", "card.pkpasstemplate", "--throwaway-cert", "card.pem"];
        desk.done(&[&made[..], &["--style", style]].concat());
        desk
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        run(passkit().args(arguments).current_dir(&self.0))
    }

    /// Runs a command that succeeds. Returns what it printed.
    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{said}");
        out
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn end_of(style: &str) -> &'static str {
    match style {
        "order" => "order",
        _ => "pkpass",
    }
}

/// Checks that the only thing to say of an archive is that its certificates are not Apple's.
fn is_good(archive: &Path) {
    let report = Report::of(&fs::read(archive).unwrap(), Rules::strict());
    let codes: Vec<_> = report
        .findings
        .into_iter()
        .map(|finding| finding.rule().code)
        .collect();
    assert_eq!(codes, ["root"], "{}", archive.display());
}

#[test]
fn nothing_is_wrong_with_what_is_signed_from_a_template() {
    for (style, table) in STYLES {
        let desk = Desk::new(style);
        assert_eq!(desk.names(), ["card.pem", "card.pkpasstemplate", table]);
        let archive = format!("card.{}", end_of(style));
        desk.done(&[
            "sign",
            "card.pkpasstemplate",
            "--cert",
            "card.pem",
            "-o",
            &archive,
        ]);
        is_good(&desk.path(archive));
    }
}

#[test]
fn nothing_is_overwritten() {
    let desk = Desk::empty();
    let new = ["new", "card.pkpasstemplate", "--throwaway-cert", "card.pem"];
    for existing in ["card.pkpasstemplate", "members.csv", "card.pem"] {
        let path = desk.path(existing);
        fs::write(&path, "mine").unwrap();
        let (code, out, said) = desk.run(&new);
        assert_eq!((code, &*out), (Some(2), ""), "{said}");
        assert_eq!(
            said,
            format!(
                "passkit: {existing} exists already, and is not overwritten; remove it, or use another folder\n"
            )
        );
        assert_eq!(desk.names(), [existing]);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_file(path).unwrap();
    }
    for (folder, reason) in [
        (".", "gives the template no name"),
        ("..", "gives the template no name"),
        ("card.pem/template", "can't write"),
    ] {
        fs::write(desk.path("card.pem"), "mine").unwrap();
        let (code, _, said) = desk.run(&["new", folder]);
        assert!(code == Some(2) && said.contains(reason), "{folder}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(desk.names(), ["card.pem"]);
    }
}

#[test]
fn each_template_has_a_token_of_its_own() {
    let tokens = [(); 2].map(|()| {
        let desk = Desk::new("storeCard");
        let json = fs::read(desk.path("card.pkpasstemplate/pass.json")).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        json["authenticationToken"].as_str().unwrap().to_owned()
    });
    assert!(tokens.iter().all(|token| token.len() == 40));
    assert_ne!(tokens[0], tokens[1]);
}

#[test]
fn only_the_owner_can_read_the_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new("storeCard");
    let found = fs::metadata(desk.path("card.pem")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(desk.path("card.pem")).unwrap();
    let sections = |label: &str| text.matches(&format!("-----BEGIN {label}-----\n")).count();
    assert_eq!((sections("CERTIFICATE"), sections("PRIVATE KEY")), (2, 1));
}

#[test]
fn the_picture_in_the_documents_is_of_a_card_that_was_made() {
    let desk = Desk::new("storeCard");
    desk.done(&[
        "sign",
        "card.pkpasstemplate",
        "--cert",
        "card.pem",
        "-o",
        "card.pkpass",
    ]);
    unzip(&desk.path("card.pkpass"), &desk.path("card"));
    let drawn = picture::draw(&desk.path("card"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/card.svg");
    if std::env::var_os("PASSKIT_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &drawn).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == drawn,
        "docs/images/card.svg is out of date; draw it with: PASSKIT_BLESS=1 cargo test -p passkit-cli picture"
    );
}
