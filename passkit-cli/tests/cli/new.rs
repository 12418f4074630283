//! `passkit new`: its templates make good passes, and the commands that it prints work.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use passkit_archive::{Report, Rules};
use serde_json::Value;

use crate::{
    archives::unzip,
    phone::{Ended, Listening},
    program::{eventually, passkit, run},
};

/// The styles and their tables.
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

    /// Runs a command that must succeed. Returns its output.
    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, said) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{said}");
        out
    }

    /// Makes the passes of a table.
    fn make(&self, table: &str) {
        let make = ["make", "--template", "card.pkpasstemplate", "--from", table];
        self.done(&[&make[..], &["--cert", "card.pem", "--out", "passes"]].concat());
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

/// Checks that the only finding about an archive is that its certificates are not Apple's.
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
fn nothing_is_wrong_with_the_passes_of_a_template() {
    for (style, table) in STYLES {
        let desk = Desk::new(style);
        assert_eq!(desk.names(), ["card.pem", "card.pkpasstemplate", table]);
        let end = match style {
            "order" => "order",
            _ => "pkpass",
        };
        let signed = format!("card.{end}");
        desk.done(&[
            "sign",
            "card.pkpasstemplate",
            "--cert",
            "card.pem",
            "-o",
            &signed,
        ]);
        is_good(&desk.path(signed));

        desk.make(table);
        let rows = fs::read_to_string(desk.path(table)).unwrap();
        let serials: Vec<_> = rows
            .lines()
            .skip(1)
            .map(|row| row.split(',').next().unwrap())
            .collect();
        assert_eq!(serials.len(), 3);
        for serial in serials {
            is_good(&desk.path(format!("passes/{serial}.{end}")));
        }
    }
}

#[test]
fn openssl_verifies_a_pass_of_a_template() {
    let desk = Desk::new("storeCard");
    desk.make("members.csv");
    unzip(&desk.path("passes/1001.pkpass"), &desk.path("pass"));
    let pem = fs::read_to_string(desk.path("card.pem")).unwrap();
    let (_, authority) = pem.split_once("-----END CERTIFICATE-----\n").unwrap();
    fs::write(desk.path("root.pem"), authority).unwrap();
    let verify = "openssl cms -verify -binary -inform DER -in pass/signature -content pass/manifest.json \
                  -CAfile root.pem -purpose any -out /dev/null";
    let verify = || run(Command::new("sh").args(["-c", verify]).current_dir(&desk.0));
    assert_eq!(verify().0, Some(0), "{:?}", verify());
    fs::write(desk.path("pass/manifest.json"), "{}").unwrap();
    assert_ne!(verify().0, Some(0));
}

#[test]
fn the_printed_commands_bring_a_change_of_the_table_to_a_phone() {
    let desk = Desk::empty();
    let out = desk.done(&["new", "card.pkpasstemplate", "--throwaway-cert", "card.pem"]);
    let printed: Vec<Vec<&str>> = out
        .lines()
        .filter_map(|line| line.strip_prefix("passkit "))
        .map(|command| command.split(' ').collect())
        .collect();
    let [make, listen, serve, add] = &printed[..] else {
        panic!("{out}");
    };
    desk.done(make);

    assert_eq!(listen[..], ["device", "listen"]);
    let mut device = passkit();
    device.arg("device").current_dir(&desk.0);
    let phone = Listening::start(device);

    assert_eq!(serve[..], ["serve", "--passes", "passes", "OPTIONS"]);
    let mut service = Ended(
        passkit()
            .args(&serve[..3])
            .args(&phone.options)
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(&desk.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    let mut listening = BufReader::new(service.0.stdout.take().unwrap());
    listening.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();

    let (default_url, add) = add.split_last().unwrap();
    assert_eq!(*default_url, "http://127.0.0.1:8080");
    desk.done(&[add, &[url]].concat());

    let table = desk.path("members.csv");
    let rows = fs::read_to_string(&table).unwrap();
    fs::write(&table, rows.replace("Gold,120", "Gold,130")).unwrap();
    let made = desk.done(make);
    assert!(made.contains("1 changed, 2 unchanged"), "{made}");
    eventually("the phone has the change", || {
        phone
            .shown()
            .contains("updated: pass.com.example.card 1001")
    });
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
            format!("passkit: {existing} exists already; remove it, or use another folder\n")
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
fn each_template_has_its_own_token() {
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
fn the_picture_in_the_documents_shows_a_card_that_the_program_made() {
    let desk = Desk::new("storeCard");
    desk.make("members.csv");
    let drawn = desk.done(&["preview", "passes/1001.pkpass", "--side", "front"]);
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

#[test]
fn a_template_of_a_pass_makes_the_same_pass() {
    for (style, table) in STYLES {
        let desk = Desk::new(style);
        desk.make(table);
        let rows = fs::read_to_string(desk.path(table)).unwrap();
        let serial = rows.lines().nth(1).unwrap().split(',').next().unwrap();
        let (end, description) = match style {
            "order" => ("order", "order.json"),
            _ => ("pkpass", "pass.json"),
        };
        let pass = format!("{serial}.{end}");
        let before = format!("passes/{pass}");
        let text = desk.done(&["template", &before, "-o", "copy.pkpasstemplate"]);
        assert!(
            text.starts_with("made copy.pkpasstemplate and copy.csv\n"),
            "{text}"
        );
        let token = |folder: &str| {
            let json = fs::read(desk.path(folder).join(description)).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()["authenticationToken"].clone()
        };
        unzip(&desk.path(&before), &desk.path("unzipped"));
        assert_ne!(token("copy.pkpasstemplate"), token("unzipped"));

        let make = [
            "make",
            "--template",
            "copy.pkpasstemplate",
            "--from",
            "copy.csv",
        ];
        desk.done(&[&make[..], &["--cert", "card.pem", "--out", "again"]].concat());
        let (code, text, said) = desk.run(&["diff", &before, &format!("again/{pass}")]);
        // The token is derived from the secret of the new folder. A template leaves out samples.
        let is_expected = |line: &str| {
            [
                "/authenticationToken: changed",
                "/semantics: removed",
                "/locations: removed",
            ]
            .contains(&line)
        };
        let (changes, last) = text.trim().rsplit_once('\n').unwrap();
        assert!(
            code == Some(1) && changes.lines().all(is_expected),
            "{style}: {text}{said}"
        );
        assert!(
            last.starts_with("the user is told nothing: ") || style == "order",
            "{last}"
        );

        let (code, _, said) = desk.run(&["template", &before, "-o", "copy.pkpasstemplate"]);
        assert_eq!(code, Some(2));
        assert!(
            said.contains("copy.pkpasstemplate exists already"),
            "{said}"
        );
    }
}

#[test]
fn diff_shows_what_the_user_is_told() {
    let desk = Desk::new("storeCard");
    desk.make("members.csv");
    let table = fs::read_to_string(desk.path("members.csv")).unwrap();
    fs::rename(desk.path("passes/1001.pkpass"), desk.path("old.pkpass")).unwrap();
    assert!(table.contains(",120,"), "{table}");
    fs::write(desk.path("members.csv"), table.replace(",120,", ",130,")).unwrap();
    desk.make("members.csv");

    let (code, text, _) = desk.run(&["diff", "old.pkpass", "passes/1001.pkpass"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        text,
        "field points (\"Points\"): \"120\" is now \"130\"\nthe user is told: You have 130 points now\n"
    );
    let same = desk.done(&["diff", "old.pkpass", "old.pkpass"]);
    assert!(same.starts_with("nothing changed: "), "{same}");
    let (code, _, said) = desk.run(&["diff", "old.pkpass", "members.csv"]);
    assert!(
        code == Some(2) && said.starts_with("passkit: members.csv: "),
        "{said}"
    );
}

#[test]
fn a_bundle_has_passes_that_phones_accept() {
    let desk = Desk::new("storeCard");
    desk.make("members.csv");
    let bundle = ["bundle", "-o", "all.pkpasses", "passes/1001.pkpass"];
    let text = desk.done(&[&bundle[..], &["passes/1002.pkpass"]].concat());
    assert_eq!(text, "all.pkpasses: 2 passes\n");
    let text = desk.done(&["check", "all.pkpasses"]);
    assert!(
        text.contains("all.pkpasses/2.pkpass: ") && text.contains("1002"),
        "{text}"
    );

    let (code, _, said) = desk.run(&[&bundle[..], &["members.csv"]].concat());
    assert_eq!(code, Some(2));
    assert!(
        said.starts_with("passkit: members.csv: phones would refuse the pass: "),
        "{said}"
    );
    let (code, _, said) = desk.run(&[&bundle[..], &["passes/1001.pkpass"]].concat());
    assert!(
        code == Some(2) && said.contains("1001 again; phones keep one of each"),
        "{said}"
    );
    let text = desk.done(&["check", "all.pkpasses"]);
    assert!(text.contains("2.pkpass"), "the old bundle stays: {text}");
}
