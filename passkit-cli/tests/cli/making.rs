//! `passkit make`: a table becomes passes that OpenSSL verifies, and only the passes of changed rows are made
//! again.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::SystemTime,
};

use passkit_archive::placeholder_icon;
use passkit_identity::pem;
use serde_json::{Value, json};

use crate::{
    authority::{Authority, P256, RSA, TEAM},
    program::{passkit, run},
};

pub(crate) const TYPE: &str = "pass.com.example.card";

/// A template, a table and a certificate.
pub(crate) struct Workshop {
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
}

/// The recipe that most tests use.
const RECIPE: &str = r#"serial = "{id}"
web-service-url = "https://wallet.example.org"

[fields]
name = "{first} {last}"
points = "{points}"
until = { date = "{until}", zone = "Europe/Berlin" }
seat = { value = "{seat}", if-empty = "remove" }

[barcode]
message = "{id}"
"#;

pub(crate) const TABLE: &str = "id,first,last,points,until,seat
A-1,Ada,Lovelace,12,2026-12-31,4
a-1,Alan,Turing,7.5,2027-06-30 10:00,
B 2/\u{fc},Grace,\"Hopper, \"\"Amazing\"\"\",0,2027-01-31T23:00:00Z,9
";

impl Workshop {
    pub(crate) fn new() -> Self {
        Self::certified(TYPE, P256)
    }

    pub(crate) fn certified(type_id: &str, key: &[&str]) -> Self {
        let this = Self {
            authority: Authority::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        this.authority.certify("card", type_id, key);
        this.write("card/pass.json", Self::pass().to_string());
        for (name, size) in [("icon", 38), ("icon@2x", 76), ("icon@3x", 114)] {
            this.write(&format!("card/{name}.png"), placeholder_icon(size));
        }
        this.write("card/passkit.toml", RECIPE);
        this.write("table.csv", TABLE);
        this
    }

    pub(crate) fn pass() -> Value {
        json!({
            "formatVersion": 1,
            "organizationName": "Example",
            "description": "A card",
            "storeCard": {
                "headerFields": [{
                    "key": "points", "label": "Points", "value": 0, "numberStyle": "PKNumberStyleDecimal",
                    "changeMessage": "You have %@ points",
                }],
                "primaryFields": [{ "key": "name", "value": "Sample" }],
                "auxiliaryFields": [
                    { "key": "until", "value": "2026-01-01T00:00:00Z", "dateStyle": "PKDateStyleShort" },
                    { "key": "seat", "value": "1A" },
                ],
            },
            "barcodes": [{ "format": "PKBarcodeFormatQR", "message": "SAMPLE", "messageEncoding": "utf-8" }],
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        self.write(name, text.replace(from, to));
    }

    /// `passkit make` with the template `card`, the table `table.csv` and the folder `passes`.
    pub(crate) fn make(&self) -> Command {
        self.make_from("card", "table.csv")
    }

    pub(crate) fn make_from(&self, template: &str, table: &str) -> Command {
        self.make_into(template, table, Path::new("passes"))
    }

    pub(crate) fn make_into(&self, template: &str, table: &str, out: &Path) -> Command {
        let mut command = passkit();
        command
            .args(["make", "--template", template, "--from", table, "--out"])
            .arg(out)
            .arg("--cert")
            .arg(self.authority.path("card.pem"))
            .arg("--key")
            .arg(self.authority.path("card.key"))
            .arg("--wwdr")
            .arg(self.authority.path("G4.pem"))
            .current_dir(self.folder.path());
        command
    }

    /// Returns the names of all files in the folder, except hidden ones.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = names(&self.path("passes")).unwrap_or_default();
        names.retain(|name| !name.starts_with('.'));
        names
    }

    /// Returns the bytes and the modification time of each file in the folder.
    pub(crate) fn files(&self) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
        let read = |name: String| {
            let path = self.path("passes").join(&name);
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            (name, (fs::read(path).unwrap(), time))
        };
        self.names().into_iter().map(read).collect()
    }

    /// Unzips a file of an archive in the folder with another program.
    pub(crate) fn unzip(&self, archive: &str, file: &str) -> Vec<u8> {
        const UNZIP: &str = "import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))";
        let path = self.path("passes").join(archive);
        let output = Command::new("python3")
            .args(["-c", UNZIP])
            .arg(path)
            .arg(file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    pub(crate) fn json(&self, archive: &str) -> Value {
        serde_json::from_slice(&self.unzip(archive, "pass.json")).unwrap()
    }

    pub(crate) fn verify(&self, archive: &str) {
        let manifest = self.unzip(archive, "manifest.json");
        let signature = self.unzip(archive, "signature");
        self.authority.verify(&manifest, &signature).unwrap();
        let (code, out, said) = run(passkit()
            .arg("check")
            .arg(self.path("passes").join(archive)));
        assert_eq!(code, Some(0), "{out}{said}");
    }
}

/// Runs a command that makes all passes. Returns its output.
pub(crate) fn made(command: &mut Command) -> String {
    let (code, out, said) = run(command);
    assert_eq!(code, Some(0), "{out}{said}");
    out
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn a_table_becomes_passes_that_openssl_verifies() {
    let workshop = Workshop::certified(TYPE, RSA);
    let out = made(&mut workshop.make());
    assert_eq!(
        out,
        "3 rows: 3 new, 0 changed, 0 unchanged, 0 wrong; 0 voided\n"
    );
    let names = ["A-1~8.pkpass", "B%202%2f%c3%bc~8.pkpass", "a-1.pkpass"];
    assert_eq!(workshop.names(), names);
    for name in names {
        workshop.verify(name);
    }
    let ada = workshop.json(names[0]);
    let token = ada["authenticationToken"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 43);
    let mut expected = Workshop::pass();
    let card = &mut expected["storeCard"];
    card["headerFields"][0]["value"] = json!(12);
    card["primaryFields"][0]["value"] = json!("Ada Lovelace");
    card["auxiliaryFields"][0]["value"] = json!("2026-12-31T00:00:00+01:00");
    card["auxiliaryFields"][1]["value"] = json!("4");
    expected["barcodes"][0]["message"] = json!("A-1");
    for (key, value) in [
        ("passTypeIdentifier", TYPE),
        ("teamIdentifier", TEAM),
        ("serialNumber", "A-1"),
        ("webServiceURL", "https://wallet.example.org"),
        ("authenticationToken", &token),
    ] {
        expected[key] = json!(value);
    }
    assert_eq!(ada, expected);

    let alan = workshop.json(names[2]);
    assert_eq!(alan["storeCard"]["headerFields"][0]["value"], json!(7.5));
    let until = json!([{ "key": "until", "value": "2027-06-30T10:00:00+02:00", "dateStyle": "PKDateStyleShort" }]);
    assert_eq!(
        alan["storeCard"]["auxiliaryFields"], until,
        "the empty seat is removed"
    );
    let grace = workshop.json(names[1]);
    assert_eq!(grace["serialNumber"], json!("B 2/\u{fc}"));
    assert_eq!(
        grace["storeCard"]["primaryFields"][0]["value"],
        json!("Grace Hopper, \"Amazing\"")
    );

    // No pass contains the recipe, and only the owner can read the secret.
    let manifest: Value =
        serde_json::from_slice(&workshop.unzip(names[0], "manifest.json")).unwrap();
    assert!(manifest.get("passkit.toml").is_none(), "{manifest}");
    let mode = fs::metadata(workshop.path("passes.token-secret"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn only_changed_rows_are_made_again() {
    let workshop = Workshop::new();
    made(&mut workshop.make());
    let before = workshop.files();
    let out = made(&mut workshop.make());
    assert_eq!(
        out,
        "3 rows: 0 new, 0 changed, 3 unchanged, 0 wrong; 0 voided\n"
    );
    assert!(
        workshop.files() == before,
        "unchanged files keep their bytes and times"
    );

    workshop.edit("table.csv", "Lovelace,12", "Lovelace,13");
    workshop.edit("table.csv", "\na-1,", "\nA-2,New,N,1,2027-01-01,1\na-1,");
    let (code, out, _) = run(workshop.make().arg("--dry-run"));
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(
        out,
        "changed A-1~8.pkpass\nnew A-2~8.pkpass\n4 rows: would be 1 new, 1 changed, 2 unchanged, 0 wrong; 0 voided\n"
    );
    assert!(workshop.files() == before, "nothing is written");

    let out = made(workshop.make().arg("--json"));
    let numbers: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({
        "rows": 4, "new": 1, "changed": 1, "unchanged": 2, "bad": 0, "without_row": 0, "voided": 0, "dry_run": false,
    });
    assert_eq!(numbers, expected);
    let after = workshop.files();
    assert_eq!(after.len(), 4);
    // The next run reads no tokens from files that are older than the note.
    let changed = |name: &str| {
        let found = fs::metadata(workshop.path("passes").join(name)).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let note = changed(".passkit-make/secret-check");
    assert!(after.keys().all(|name| changed(name) <= note));
    for (name, file) in &before {
        assert_eq!(after[name] == *file, name != "A-1~8.pkpass", "{name}");
    }
    assert_eq!(
        workshop.json("A-1~8.pkpass")["storeCard"]["headerFields"][0]["value"],
        json!(13)
    );
}

#[test]
fn a_dry_run_before_the_first_leaves_nothing() {
    let workshop = Workshop::new();
    let before = names(workshop.folder.path()).unwrap();
    let out = made(workshop.make().arg("--dry-run"));
    assert!(
        out.ends_with("3 rows: would be 3 new, 0 changed, 0 unchanged, 0 wrong; 0 voided\n"),
        "{out}"
    );
    assert_eq!(names(workshop.folder.path()).unwrap(), before);
}

#[test]
fn passes_without_a_row_are_counted_or_voided() {
    let workshop = Workshop::new();
    // The template has sample semantics. They enter no pass, unless the recipe sets them.
    workshop.edit(
        "card/passkit.toml",
        "[barcode]",
        "[set]\n\"/semantics/eventName\" = \"Opening\"\n\n[barcode]",
    );
    made(&mut workshop.make());
    let first = workshop.files();
    let token = workshop.json("a-1.pkpass")["authenticationToken"].clone();
    workshop.edit("table.csv", "a-1,Alan,Turing,7.5,2027-06-30 10:00,\n", "");
    let out = made(&mut workshop.make());
    assert!(
        out.ends_with("1 passes have no row; --void-missing voids them\n"),
        "{out}"
    );
    assert!(workshop.files() == first);

    // A pass without a row may belong to the wrong row.
    workshop.write(
        "wrong.csv",
        format!(
            "{}C,C\n",
            fs::read_to_string(workshop.path("table.csv")).unwrap()
        ),
    );
    let (code, out, _) = run(workshop
        .make_from("card", "wrong.csv")
        .arg("--void-missing"));
    assert_eq!(code, Some(1));
    assert!(
        out.contains("they are not voided, because one of the wrong rows may belong to them"),
        "{out}"
    );
    workshop.write("empty.csv", TABLE.lines().next().unwrap());
    let out = made(
        workshop
            .make_from("card", "empty.csv")
            .arg("--void-missing"),
    );
    assert!(
        out.contains("they are not voided, because the table is empty"),
        "{out}"
    );
    let out = made(workshop.make().args(["--void-missing", "--dry-run"]));
    assert!(out.starts_with("voided a-1.pkpass\n"), "{out}");
    assert!(workshop.files() == first);

    let out = made(workshop.make().arg("--void-missing"));
    assert_eq!(
        out,
        "2 rows: 0 new, 0 changed, 2 unchanged, 0 wrong; 1 voided\n"
    );
    let voided = workshop.json("a-1.pkpass");
    assert_eq!(voided["voided"], json!(true));
    assert_eq!(voided["authenticationToken"], token);
    assert_eq!(voided["semantics"]["eventName"], json!("Opening"));
    workshop.verify("a-1.pkpass");
    let once = workshop.files();
    let out = made(workshop.make().arg("--void-missing"));
    assert_eq!(
        out,
        "2 rows: 0 new, 0 changed, 2 unchanged, 0 wrong; 0 voided\n"
    );
    assert!(workshop.files() == once);

    // The row is in the table again.
    workshop.write("table.csv", TABLE);
    let out = made(workshop.make().arg("--void-missing"));
    assert_eq!(
        out,
        "3 rows: 0 new, 1 changed, 2 unchanged, 0 wrong; 0 voided\n"
    );
    assert!(workshop.json("a-1.pkpass").get("voided").is_none());
}

#[test]
fn orders_are_made_in_the_same_way() {
    let workshop = Workshop::certified("order.com.example.shop", P256);
    let order = json!({
        "schemaVersion": 1,
        "orderType": "ecommerce",
        "orderManagementURL": "https://shop.example.com/",
        "merchant": {
            "displayName": "Shop", "merchantIdentifier": "merchant.com.example", "url": "https://shop.example.com/",
        },
        "status": "open",
        "createdAt": "2026-11-22T10:00:00Z",
        "updatedAt": "2026-11-22T10:00:00Z",
        "webServiceURL": "https://wallet.example.com/",
    });
    workshop.write("order/order.json", order.to_string());
    let recipe = "serial = \"{number}\"\n[set]\n\"/status\" = \"{status}\"\n\
                  \"/updatedAt\" = { date = \"{updated}\", zone = \"UTC\" }\n";
    workshop.write("order/passkit.toml", recipe);
    workshop.write(
        "t.csv",
        "number,status,updated\n1042,open,2026-11-22 11:00\n1043,completed,2026-11-23\n",
    );
    let out = made(&mut workshop.make_from("order", "t.csv"));
    assert!(out.starts_with("2 rows: 2 new"), "{out}");
    assert_eq!(workshop.names(), ["1042.order", "1043.order"]);
    let order: Value = serde_json::from_slice(&workshop.unzip("1043.order", "order.json")).unwrap();
    assert_eq!(order["status"], "completed");
    assert_eq!(order["updatedAt"], "2026-11-23T00:00:00+00:00");
    assert_eq!(order["authenticationToken"].as_str().unwrap().len(), 43);
    workshop.verify("1042.order");
    workshop.edit("t.csv", "1042,open", "1042,completed");
    let out = made(&mut workshop.make_from("order", "t.csv"));
    assert!(
        out.starts_with("2 rows: 0 new, 1 changed, 1 unchanged"),
        "{out}"
    );
    let (code, _, said) = run(workshop.make_from("order", "t.csv").arg("--void-missing"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("orders can't be voided"), "{said}");

    workshop.write(
        "order/passkit.toml",
        format!("{recipe}[fields]\nname = \"{{number}}\"\n"),
    );
    let (code, _, said) = run(&mut workshop.make_from("order", "t.csv"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("an order has no fields"), "{said}");
}

#[test]
fn a_watched_table_is_made_again_when_it_changes() {
    let workshop = Workshop::new();
    let mut command = workshop.make();
    command
        .arg("--watch")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watching = Watching(command.spawn().unwrap());
    let mut lines = BufReader::new(watching.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut errors = BufReader::new(watching.0.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("3 rows: 3 new"));
    workshop.edit("table.csv", "Lovelace,12", "Lovelace,13");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 1 changed, 2 unchanged")
    );
    // A change that can't be used does not end the command.
    workshop.edit("card/passkit.toml", "\"{points}\"", "\"{pionts}\"");
    let wrong = errors.find(|line| line.contains("passkit.toml")).unwrap();
    assert!(wrong.contains("did you mean {points}?"), "{wrong}");
    workshop.edit("card/passkit.toml", "\"{pionts}\"", "\"{points}\"");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 0 changed, 3 unchanged")
    );
    workshop.edit("card/pass.json", "A card", "A new card");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 3 changed, 0 unchanged")
    );
    let (code, _, said) = run(&mut workshop.make());
    assert_eq!(code, Some(0), "the folder is free between two runs: {said}");
    // A change waits while another process writes to the folder.
    let lock = fs::File::open(workshop.path("passes/.passkit-make/lock")).unwrap();
    lock.lock().unwrap();
    workshop.edit("table.csv", "Lovelace,13", "Lovelace,14");
    let waits = errors.next().unwrap();
    assert!(waits.contains("waiting until it has ended"), "{waits}");
    drop(lock);
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 1 changed, 2 unchanged")
    );
}

#[test]
fn a_watched_image_or_certificate_makes_passes_again() {
    let workshop = Workshop::new();
    let recipe = format!("{RECIPE}[images]\nthumbnail = \"photo.png\"\n");
    workshop.write("card/passkit.toml", recipe);
    workshop.write("photo.png", placeholder_icon(90));
    let mut command = workshop.make();
    command
        .arg("--watch")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut watching = Watching(command.spawn().unwrap());
    let mut lines = BufReader::new(watching.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut errors = BufReader::new(watching.0.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("3 rows: 3 new"));
    workshop.write("photo.png", placeholder_icon(60));
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 3 changed")
    );

    let certificate = workshop.authority.path("card.pem");
    fs::write(&certificate, "no certificate").unwrap();
    errors
        .find(|line| line.contains("still made with the old certificate"))
        .unwrap();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 0 changed")
    );
    // Only a new certificate with its new key can make passes that verify.
    workshop.authority.certify("next", TYPE, P256);
    for end in ["key", "pem"] {
        let renewed = fs::read(workshop.authority.path(&format!("next.{end}"))).unwrap();
        fs::write(workshop.authority.path(&format!("card.{end}")), renewed).unwrap();
    }
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 0 changed")
    );
    workshop.edit("table.csv", "Lovelace,12", "Lovelace,13");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("3 rows: 0 new, 1 changed")
    );
    workshop.verify("A-1~8.pkpass");
    let renewed = pem::certificates(&fs::read(&certificate).unwrap()).unwrap();
    let signature = workshop.unzip("A-1~8.pkpass", "signature");
    assert!(
        signature
            .windows(renewed[0].len())
            .any(|part| part == &*renewed[0])
    );
}

/// A process that is killed even if the test fails.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the first block in this language on the page.
fn block(page: &str, language: &str) -> String {
    let start = page
        .find(&format!("```{language}\n"))
        .unwrap_or_else(|| panic!("no {language}"));
    let text = &page[start + language.len() + 4..];
    text[..text.find("```").unwrap()].to_owned()
}

#[test]
fn the_example_of_the_documentation_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/making-passes.md");
    let page = fs::read_to_string(page).unwrap();
    let workshop = Workshop::new();
    workshop.write("card/passkit.toml", block(&page, "toml"));
    workshop.write("card/de.lproj/pass.strings", "\"Points\" = \"?\";\n");
    workshop.write("table.csv", block(&page, "csv"));
    workshop.write("photos/grace.png", placeholder_icon(90));
    let out = made(&mut workshop.make());
    assert!(
        out.starts_with("2 rows: 2 new, 0 changed, 0 unchanged, 0 wrong"),
        "{out}"
    );
    let ada = workshop.json("1042.pkpass");
    assert_eq!(ada["expirationDate"], "2030-12-31T00:00:00+01:00");
    assert!(ada.get("voided").is_none(), "{ada}");
    let grace = workshop.json("1043.pkpass");
    assert_eq!(grace["expirationDate"], "2030-06-30T10:00:00+02:00");
    assert_eq!(grace["voided"], json!(false));
    let photo = workshop.unzip("1043.pkpass", "thumbnail.png");
    assert!(photo == placeholder_icon(90));
    let strings = workshop.unzip("1043.pkpass", "de.lproj/pass.strings");
    assert_eq!(
        String::from_utf8(strings).unwrap(),
        "\"Points\" = \"Pluspunkte\";\n"
    );

    // The page also shows the line about a wrong row.
    workshop.edit("table.csv", ",7.5,", ",many,");
    let (code, _, said) = run(&mut workshop.make());
    assert_eq!(code, Some(1));
    let example = page
        .lines()
        .find_map(|line| line.split_once("column \"points\""))
        .unwrap()
        .1;
    let example = format!(
        "column \"points\"{}",
        &example[..example.find('`').unwrap()]
    );
    assert!(said.contains(&example), "{example}: {said}");
    for name in ["A-1", "a b"] {
        workshop.write("table.csv", block(&page, "csv").replace("1042", name));
        run(&mut workshop.make());
    }
    for name in ["1042.pkpass", "A-1~8.pkpass", "a%20b.pkpass"] {
        assert!(
            page.contains(&format!("`{name}`")) && workshop.names().contains(&name.to_owned()),
            "{name}"
        );
    }
}
