//! `passkit sign`: a folder becomes a pass that OpenSSL verifies. Each error is one line, and no
//! good file is lost.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use passkit_archive::placeholder_icon;
use passkit_test_servers::disk::SmallDisk;

use crate::{
    archives::unzip,
    authority::{Authority, P256, RSA, TEAM},
    program::{passkit, run},
};

const TYPE: &str = "pass.com.example.ticket";
const PASSWORD: &str = "xyzzy plugh";

/// An authority, a certificate in several files, and the folder of a pass.
struct Desk {
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let this = Self {
            authority: Authority::new(),
            folder: tempfile::tempdir().unwrap(),
        };
        this.authority.certify("ticket", TYPE, RSA);
        let root = this.authority.read("root.pem");
        let root = String::from_utf8(root).unwrap();
        this.authority.export("ticket", PASSWORD, &root, &[]);
        this.write("card/pass.json", Self::pass(TYPE, TEAM));
        for (name, size) in [("icon", 38), ("icon@2x", 76), ("icon@3x", 114)] {
            this.write(&format!("card/{name}.png"), placeholder_icon(size));
        }
        this.write("card/de.lproj/pass.strings", "\"seat\" = \"Platz\";\n");
        this
    }

    fn pass(type_id: &str, team: &str) -> String {
        serde_json::json!({
            "formatVersion": 1,
            "passTypeIdentifier": type_id,
            "serialNumber": "A-1",
            "teamIdentifier": team,
            "organizationName": "Example",
            "description": "A ticket",
            "webServiceURL": "https://example.com/wallet",
            "authenticationToken": "0123456789abcdef",
            "eventTicket": { "primaryFields": [
                { "key": "seat", "label": "seat", "value": 7, "changeMessage": "seat %@" },
            ] },
        })
        .to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// `passkit sign`, with the intermediate certificate and the password.
    fn sign(&self, source: &str, cert: &str) -> Command {
        let mut command = passkit();
        command
            .args(["sign", source, "--cert"])
            .arg(self.authority.path(cert))
            .arg("--wwdr")
            .arg(self.authority.path("G4.pem"))
            .env("PASSKIT_CERT_PASSWORD", PASSWORD)
            .current_dir(self.folder.path());
        command
    }

    /// Unzips an archive. Returns the folder.
    fn unzip(&self, archive: &str) -> PathBuf {
        let folder = self.path("unzipped");
        unzip(&self.path(archive), &folder);
        folder
    }

    fn verify(&self, archive: &str) -> Vec<u8> {
        let folder = self.unzip(archive);
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let signature = fs::read(folder.join("signature")).unwrap();
        self.authority.verify(&manifest, &signature).unwrap();
        manifest
    }
}

/// Checks that the command fails with one line, with exit code 2.
fn refused(command: &mut Command, mentions: &str) {
    let (code, out, said) = run(command);
    assert_eq!((code, &*out), (Some(2), ""), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("passkit: ") && said.contains(mentions) && !said.contains("xyzzy"),
        "{mentions}: {said}"
    );
}

#[test]
fn a_folder_becomes_a_pass_that_openssl_verifies() {
    let desk = Desk::new();
    for litter in [
        ".DS_Store",
        "._icon.png",
        "__MACOSX/._icon.png",
        ".git/HEAD",
        "pass.json~",
        "Thumbs.db",
    ] {
        desk.write(&format!("card/{litter}"), "litter");
    }
    desk.write("card/manifest.json", "{}");
    let (code, out, said) = run(&mut desk.sign("card", "ticket.p12"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out, format!("card.pkpass: signed: pass {TYPE} A-1\n"));
    for litter in [".DS_Store", "__MACOSX", ".git", "pass.json~", "Thumbs.db"] {
        assert!(said.contains(&format!("left out {litter}\n")), "{said}");
    }
    let manifest = desk.verify("card.pkpass");
    let listed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        listed.as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "de.lproj/pass.strings",
            "icon.png",
            "icon@2x.png",
            "icon@3x.png",
            "pass.json"
        ]
    );
    let (code, out, _) = run(passkit().arg("check").arg(desk.path("card.pkpass")));
    assert_eq!(code, Some(0), "{out}");

    // An archive is signed again, in its place or elsewhere. PEM and keys for ECDSA work too.
    desk.authority.certify("other", TYPE, P256);
    let before = fs::read(desk.path("card.pkpass")).unwrap();
    let mut again = desk.sign("card.pkpass", "other.pem");
    again
        .env_remove("PASSKIT_CERT_PASSWORD")
        .arg("--key")
        .arg(desk.authority.path("other.key"));
    let (code, _, said) = run(again.args(["-o", "again.pkpass"]));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(desk.verify("again.pkpass"), manifest);
    assert!(fs::read(desk.path("card.pkpass")).unwrap() == before);
    fs::write(desk.path("card.pkpass"), [&before[..], b"tail"].concat()).unwrap();
    let (code, _, said) = run(&mut desk.sign("card.pkpass", "ticket.p12"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(desk.verify("card.pkpass"), manifest);
    assert!(
        !fs::read(desk.path("card.pkpass"))
            .unwrap()
            .ends_with(b"tail")
    );

    // The folder may be the current one.
    let (code, out, said) = run(desk.sign(".", "ticket.p12").current_dir(desk.path("card")));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("card.pkpass: signed"), "{out}");
}

#[test]
fn an_order_need_not_name_a_team() {
    let desk = Desk::new();
    let type_id = "order.com.example.shop";
    desk.authority.certify("shop", type_id, P256);
    let order = serde_json::json!({
        "schemaVersion": 1,
        "orderTypeIdentifier": type_id,
        "orderIdentifier": "1042",
        "orderType": "ecommerce",
        "orderManagementURL": "https://example.com/orders/1042",
        "merchant": {
            "displayName": "Example Shop",
            "merchantIdentifier": "com.example.shop",
            "url": "https://example.com",
        },
        "status": "open",
        "createdAt": "2026-01-31T12:00:00Z",
        "updatedAt": "2026-01-31T12:00:00Z",
        "webServiceURL": "https://example.com/wallet",
        "authenticationToken": "0123456789abcdef",
    });
    let sign = |order: &serde_json::Value| {
        desk.write("shop/order.json", order.to_string());
        let mut command = desk.sign("shop", "shop.pem");
        command
            .env_remove("PASSKIT_CERT_PASSWORD")
            .arg("--key")
            .arg(desk.authority.path("shop.key"));
        command
    };
    let (code, out, said) = run(&mut sign(&order));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out, format!("shop.order: signed: order {type_id} 1042\n"));
    desk.verify("shop.order");
    // If it names a team, the team must be the right one.
    let mut other = order;
    other["teamIdentifier"] = "ZYXWV98765".into();
    refused(&mut sign(&other), "ZYXWV98765");
}

#[test]
fn the_password_comes_from_a_file_or_is_asked_for() {
    let desk = Desk::new();
    let bare = || {
        let mut command = desk.sign("card", "ticket.p12");
        command.env_remove("PASSKIT_CERT_PASSWORD");
        command
    };
    desk.write("password", format!("{PASSWORD}\n"));
    let (code, _, said) = run(bare().env("PASSKIT_CERT_PASSWORD_FILE", "password"));
    assert_eq!(code, Some(0), "{said}");
    refused(&mut bare(), "needs its password; put it into");

    // On a terminal, the program asks. What is typed is not shown.
    let mut command = Command::new("python3");
    let asking = bare();
    command
        .args(["-c", ON_A_TERMINAL, PASSWORD])
        .arg(asking.get_program())
        .args(asking.get_args())
        .current_dir(desk.folder.path())
        .env_remove("PASSKIT_CERT_PASSWORD")
        .stdin(Stdio::null());
    let (code, out, said) = run(&mut command);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(
        out.contains("the password of ") && out.contains("signed: pass"),
        "{out}"
    );
    assert!(!out.contains("xyzzy"), "{out}");
}

#[test]
fn a_key_with_a_password_signs() {
    let desk = Desk::new();
    desk.authority.openssl(&[
        &["pkcs8", "-topk8", "-in", "ticket.key", "-out", "secret.key"],
        &["-passout", &format!("pass:{PASSWORD}")],
    ]);
    desk.authority.openssl(&[
        &["rsa", "-in", "ticket.key", "-out", "old.key", "-aes128"],
        &["-traditional", "-passout", &format!("pass:{PASSWORD}")],
    ]);
    let with_key = |key: &str| {
        let mut command = desk.sign("card", "ticket.pem");
        command.arg("--key").arg(desk.authority.path(key));
        command
    };
    let (code, _, said) = run(&mut with_key("secret.key"));
    assert_eq!(code, Some(0), "{said}");
    desk.verify("card.pkpass");
    refused(
        with_key("secret.key").env("PASSKIT_CERT_PASSWORD", "wrong"),
        "secret.key: the password is wrong",
    );
    refused(
        with_key("secret.key").env_remove("PASSKIT_CERT_PASSWORD"),
        "secret.key needs its password; put it into",
    );
    refused(
        &mut with_key("old.key"),
        "old.key: its private key is encrypted in an old form",
    );
    refused(&mut with_key("ticket.key"), "don't name a password");
}

#[test]
fn a_full_disk_leaves_the_old_archive_and_nothing_else() {
    let desk = Desk::new();
    fs::create_dir(desk.path("small")).unwrap();
    let small = desk.path("small");
    let Some(disk) = SmallDisk::mount(&small, 12) else {
        return;
    };
    desk.write("small/card.pkpass", "what was here before");
    let _ = disk.fill();
    let sign = || {
        let mut command = desk.sign("card", "ticket.p12");
        command.args(["-o", "small/card.pkpass"]);
        command
    };
    let (code, _, said) = run(&mut sign());
    // Warnings about the pass come before the error.
    let error = "passkit: can't write small/card.pkpass: No space left on device (os error 28)";
    assert_eq!(
        (code, said.lines().last()),
        (Some(2), Some(error)),
        "{said}"
    );
    assert_eq!(names(&small), ["ballast", "card.pkpass"]);
    assert_eq!(
        fs::read(desk.path("small/card.pkpass")).unwrap(),
        b"what was here before"
    );
    disk.grow();
    let (code, _, said) = run(&mut sign());
    assert_eq!(code, Some(0), "{said}");
    desk.verify("small/card.pkpass");
}

/// Runs a program on a terminal. When the program has asked for a password and has switched the echo off, types it. What is
/// typed before that is discarded.
const ON_A_TERMINAL: &str = "
import os, pty, select, sys, termios
ECHO_FLAGS = 3
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown = b''
typed = False
while True:
    if not typed and shown.rstrip().endswith(b'.p12:') and not termios.tcgetattr(terminal)[ECHO_FLAGS] & termios.ECHO:
        os.write(terminal, sys.argv[1].encode() + b'\\n')
        typed = True
    if not select.select([terminal], [], [], None if typed else 0.01)[0]:
        continue
    try:
        piece = os.read(terminal, 1024)
    except OSError:
        break
    if not piece:
        break
    shown += piece
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

#[test]
fn certificates_that_can_not_sign_are_refused_in_one_line() {
    let desk = Desk::new();
    let authority = &desk.authority;
    let write = |name: &str, content: &[u8]| fs::write(authority.path(name), content).unwrap();
    write("photo.p12", b"\xff\xd8\xff\xe0\0\x10JFIF\0");
    write("icon.p12", &placeholder_icon(9));
    write("card.p12", &crate::archives::pass(TYPE, "A", "one"));
    write("nothing.pem", b"");
    write("half.p12", &authority.read("ticket.p12")[..900]);
    authority.certify("shop", "pass.com.example.shop", P256);
    let pem = |name: &str| {
        [
            authority.read(&format!("{name}.pem")),
            authority.read(&format!("{name}.key")),
        ]
        .concat()
    };
    write("shop-pair.pem", &pem("shop"));
    write(
        "misfit.pem",
        &[authority.read("ticket.pem"), authority.read("shop.key")].concat(),
    );
    write("root-pair.pem", &pem("root"));
    for (name, start, end) in [
        ("old", "20200101000000Z", "20210131120000Z"),
        ("new", "20480131000000Z", "20490101000000Z"),
    ] {
        authority.certify_for(
            name,
            TYPE,
            P256,
            "",
            &["-startdate", start, "-enddate", end],
        );
        write(&format!("{name}-pair.pem"), &pem(name));
    }
    desk.write("card.pkpass", "what was here before");
    for (cert, mentions) in [
        ("photo.p12", "photo.p12: is a JPEG image"),
        ("icon.p12", "icon.p12: is a PNG image"),
        ("card.p12", "card.p12: is a zip archive"),
        ("ticket.csr", "ticket.csr: is the signing request"),
        ("nothing.pem", "has no certificate"),
        ("half.p12", "half.p12"),
        ("missing.p12", "No such file"),
        ("shop-pair.pem", "is for pass.com.example.shop"),
        ("misfit.pem", "key"),
        ("root-pair.pem", "root-pair.pem"),
        ("old-pair.pem", "expired on 2021-01-31"),
        ("new-pair.pem", "2048-01-31"),
        ("", "directory"),
    ] {
        refused(
            desk.sign("card", cert).env_remove("PASSKIT_CERT_PASSWORD"),
            mentions,
        );
    }
    refused(
        desk.sign("card", "ticket.p12")
            .env("PASSKIT_CERT_PASSWORD", "wrong"),
        "the password is wrong",
    );
    for (wwdr, mentions) in [
        ("G3.pem", "(G3), but"),
        ("ticket.key", "no certificate"),
        (
            "ticket.p12",
            "ticket.p12: the intermediate certificate is PKCS #12 (.p12)",
        ),
        ("photo.p12", "is a JPEG image"),
    ] {
        refused(
            passkit()
                .args(["sign", "card", "--cert"])
                .arg(authority.path("ticket.p12"))
                .arg("--wwdr")
                .arg(authority.path(wwdr))
                .env("PASSKIT_CERT_PASSWORD", PASSWORD)
                .current_dir(desk.folder.path()),
            mentions,
        );
    }
    desk.write("card/pass.json", Desk::pass(TYPE, "ZYXWV98765"));
    // If the command fails, it does not also name the files that it left out.
    desk.write("card/.DS_Store", "litter");
    refused(&mut desk.sign("card", "ticket.p12"), "ZYXWV98765");
    // The old file is still there, and nothing is beside it.
    assert_eq!(
        fs::read(desk.path("card.pkpass")).unwrap(),
        b"what was here before"
    );
    assert_eq!(names(desk.folder.path()), ["card", "card.pkpass"]);
}

#[test]
fn folders_that_are_no_pass_are_refused() {
    let desk = Desk::new();
    desk.write("card.pkpass", "what was here before");
    let refused_with = |mentions: &str| refused(&mut desk.sign("card", "ticket.p12"), mentions);
    let without = |name: &str| fs::remove_file(desk.path(name)).unwrap();

    desk.write("card/ICON.png", "");
    refused_with("the same letters as another file");
    without("card/ICON.png");
    std::os::unix::fs::symlink("/etc/passwd", desk.path("card/logo.png")).unwrap();
    refused_with("logo.png: is a link");
    without("card/logo.png");
    std::os::unix::fs::symlink("/etc", desk.path("card/en.lproj")).unwrap();
    refused_with("en.lproj: is a link");
    without("card/en.lproj");
    desk.write("card/a\nb.png", "");
    refused_with("control character");
    without("card/a\nb.png");
    desk.write("card/order.json", "{}");
    refused_with("both pass.json and order.json");
    without("card/order.json");
    refused(&mut desk.sign("none", "ticket.p12"), "none");
    desk.write("above/card/pass.json", "{}");
    refused(
        &mut desk.sign("above", "ticket.p12"),
        "neither pass.json nor order.json",
    );
    desk.write("photo.pkpass", b"\xff\xd8\xff\xe0\0\x10JFIF\0");
    refused(&mut desk.sign("photo.pkpass", "ticket.p12"), "photo.pkpass");

    // The output must not be a folder, and must not be in the folder that is signed.
    let to = |output: &str, mentions: &str| {
        refused(
            desk.sign("card", "ticket.p12").args(["-o", output]),
            mentions,
        );
    };
    to("card", "would overwrite");
    to("card/a.pkpass", "which the command reads");
    to("none/a.pkpass", "none/a.pkpass");

    // The reasons why phones refuse the pass are shown as `check` shows them.
    for (content, code) in [
        ("{}".to_owned(), "[key-missing]"),
        ("x".into(), "[json]"),
        (
            format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20)),
            "[file-unreadable]",
        ),
        (format!("[{}1]", "[],".repeat(1 << 18)), "[json-limit]"),
    ] {
        desk.write("card/pass.json", content);
        let (exit, out, said) = run(&mut desk.sign("card", "ticket.p12"));
        assert_eq!((exit, &*out), (Some(1), ""), "{said}");
        assert!(said.contains(code), "{code}: {said}");
    }
    assert_eq!(
        fs::read(desk.path("card.pkpass")).unwrap(),
        b"what was here before"
    );
    assert_eq!(
        names(desk.folder.path()),
        ["above", "card", "card.pkpass", "photo.pkpass"]
    );
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap()));
    let mut names = names.collect::<io::Result<Vec<_>>>().unwrap();
    names.sort();
    names
}
