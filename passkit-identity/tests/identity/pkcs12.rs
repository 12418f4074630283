//! Certificates as `openssl pkcs12` writes them, in the schemes that Keychain Access uses (`-legacy`) and in newer ones.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use passkit_apns::{ApnsSender, Identity};
use passkit_conformance::apns::Issued;
use passkit_server::{identifiers::TypeIdentifier, push::PushOutcome};

use crate::{TOPIC, apns, assert_no_violations, config, push, topic, until};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PASSWORD: &str = "a pässword";

/// Exports a certificate and its key, with what else is to be in the file, in PEM.
fn export(folder: &Path, issued: &Issued, more: &str, password: &str, options: &[&str]) -> PathBuf {
    let (pem, file) = (folder.join("in.pem"), folder.join("ticket.p12"));
    std::fs::write(&pem, [more, &issued.certificate, &issued.key].concat()).unwrap();
    let mut command = Command::new("openssl");
    command.args(["pkcs12", "-export", "-in"]).arg(&pem).arg("-out").arg(&file).args(options);
    let output = command.args(["-passout", &format!("pass:{password}")]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

fn read(file: &Path, password: &str) -> Result<Identity, String> {
    Identity::from_pkcs12_file(&topic(), file, password).map_err(|error| error.to_string())
}

#[tokio::test]
async fn each_way_of_writing_it_is_read_and_pushes() {
    let apns = apns().await;
    let folder = tempfile::tempdir().unwrap();
    for options in [
        &[][..],
        // As Keychain Access does: RC2 with 40 bits, triple DES, SHA-1.
        &["-legacy"],
        &["-legacy", "-descert"],
        &["-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-2DES"],
        &["-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC", "-macalg", "sha512"],
        &["-certpbe", "DES-EDE3-CBC", "-keypbe", "AES-256-CBC", "-macalg", "sha384"],
        &["-certpbe", "NONE", "-keypbe", "NONE"],
        &["-nomac"],
        &["-nomaciter", "-noiter"],
    ] {
        for password in [PASSWORD, ""] {
            let issued = apns.issue(TOPIC).unwrap();
            let file = export(folder.path(), &issued, apns.root_pem(), password, options);
            let identity = read(&file, password).unwrap_or_else(|error| panic!("{options:?}: {error}"));
            let bytes = std::fs::read(&file).unwrap();
            assert_eq!(Identity::from_pkcs12(None, &bytes, password).unwrap().topic(), &topic());
            let sender = ApnsSender::new(config(&apns).identity(identity)).unwrap();
            assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent, "{options:?}");
        }
    }
    assert_no_violations(&apns);
}

#[tokio::test]
async fn each_fault_is_one_line_that_names_file_and_topic() {
    let apns = apns().await;
    let folder = tempfile::tempdir().unwrap();
    let good = apns.issue(TOPIC).unwrap();
    let other = apns.issue("pass.com.example.other").unwrap();
    let now = SystemTime::now();
    let expired = apns.issue_for(TOPIC, now - 2 * DAY, SystemTime::UNIX_EPOCH + 10_000 * DAY).unwrap();
    let file = folder.path().join("ticket.p12");
    let fails = |password: &str, text: &str| {
        let error = read(&file, password).unwrap_err();
        assert_eq!(error, format!("certificate for {TOPIC}: {}: {text}", file.display()));
    };

    // Without encryption only the MAC tells, and the other way round.
    let bare = &["-certpbe", "NONE", "-keypbe", "NONE"];
    for options in [&[][..], &["-legacy"], &["-legacy", "-nomac"], bare] {
        export(folder.path(), &good, "", PASSWORD, options);
        fails("another", "its password is another one");
        fails("", "its password is another one");
    }
    export(folder.path(), &good, "", "", &[]);
    fails(PASSWORD, "its password is another one");
    export(folder.path(), &expired, "", PASSWORD, &[]);
    fails(PASSWORD, "expired on Mon, 19 May 1997 00:00:00 GMT");
    export(folder.path(), &other, "", PASSWORD, &[]);
    fails(PASSWORD, &format!("is a certificate for pass.com.example.other, not for {TOPIC}"));
    export(folder.path(), &good, "", PASSWORD, &["-nokeys"]);
    fails(PASSWORD, "has no private key: export the certificate together with its key");
    export(folder.path(), &good, "", PASSWORD, &["-nocerts"]);
    fails(PASSWORD, "has no certificate");
    export(folder.path(), &good, "", PASSWORD, &["-legacy", "-keypbe", "PBE-SHA1-RC4-128"]);
    let mend = "which is not known here: write it anew with `openssl pkcs12`";
    fails(PASSWORD, &format!("is protected by 1.2.840.113549.1.12.1.1, {mend}"));

    // Its own certificate is missing: openssl refuses to export what does not fit, so the two files are of one key each.
    let halves = [("-nokeys", &good), ("-nocerts", &other)];
    let [certificate, key] = halves.map(|(option, issued)| {
        std::fs::read(export(folder.path(), issued, "", "", &[option, "-certpbe", "NONE", "-nomac"])).unwrap()
    });
    std::fs::write(&file, joined(&certificate, &key)).unwrap();
    fails("", "its private key does not fit the certificate");
}

/// A file with what two files without a MAC hold, each of which has lengths below 65,536 in two bytes.
fn joined(one: &[u8], other: &[u8]) -> Vec<u8> {
    let element = |tag: u8, contents: &[u8]| {
        let [high, low] = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, high, low], contents].concat()
    };
    // Behind the version and the type of the content: [0], an octet string and a sequence, all of two bytes of length.
    let parts = |file: &[u8]| {
        let at = file.windows(2).position(|bytes| bytes == [0xA0, 0x82]).unwrap();
        file[at + 12..].to_vec()
    };
    let safe = element(0x30, &[parts(one), parts(other)].concat());
    let data = [0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x01];
    let content = element(0x30, &[&data[..], &element(0xA0, &element(0x04, &safe))].concat());
    element(0x30, &[&[0x02, 0x01, 0x03][..], &content].concat())
}

#[tokio::test]
async fn a_file_of_another_kind_is_reported_and_does_no_harm() {
    let apns = apns().await;
    let folder = tempfile::tempdir().unwrap();
    // With one round, so that trying thousands of broken ones is quick.
    let options = ["-legacy", "-noiter", "-nomaciter"];
    let file = export(folder.path(), &apns.issue(TOPIC).unwrap(), "", PASSWORD, &options);
    let good = std::fs::read(&file).unwrap();
    let from =
        |bytes: &[u8]| Identity::from_pkcs12(&topic(), bytes, PASSWORD).map_err(|error| error.to_string());
    assert!(from(&good).is_ok());

    let no_pkcs12 = format!("certificate for {TOPIC}: is no PKCS #12, or a damaged one");
    for bytes in [&b""[..], b"-----BEGIN CERTIFICATE-----\n", b"\x30\x03\x02\x01\x03", &[0x30; 64]] {
        assert_eq!(from(bytes).unwrap_err(), no_pkcs12);
    }
    for length in 0..good.len() {
        assert_eq!(from(&good[..length]).unwrap_err(), no_pkcs12, "cut after {length} bytes");
    }
    let open = [&[0x30, 0x80], &good[4..], &[0, 0]].concat();
    assert!(
        from(&open)
            .unwrap_err()
            .ends_with("is written with open lengths (BER): write it anew with `openssl pkcs12`")
    );
    // Whatever byte is another, no more than a good file or one line comes of it.
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        if let Err(error) = from(&bytes) {
            assert!(
                !error.contains('\n') && error.starts_with(&format!("certificate for {TOPIC}: ")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn of_several_certificates_that_of_the_key_is_taken() {
    let apns = apns().await;
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (apns.issue(TOPIC).unwrap(), apns.issue("pass.com.example.other").unwrap());
    let file = export(folder.path(), &ours, &other.certificate, PASSWORD, &["-legacy"]);
    assert_eq!(read(&file, PASSWORD).unwrap().topic(), &topic());
    let other = TypeIdentifier::new("pass.com.example.other").unwrap();
    let error = Identity::from_pkcs12_file(&other, &file, PASSWORD).unwrap_err().to_string();
    assert!(error.ends_with(&format!("is a certificate for {TOPIC}, not for {other}")), "{error}");
}

#[tokio::test]
async fn a_renewed_file_is_taken() {
    let (apns, elsewhere) = (apns().await, apns().await);
    let folder = tempfile::tempdir().unwrap();
    let file = export(folder.path(), &elsewhere.issue(TOPIC).unwrap(), "", PASSWORD, &["-legacy"]);
    let config = config(&apns).identity(read(&file, PASSWORD).unwrap());
    let sender = ApnsSender::new(config.look_interval(Duration::from_millis(50))).unwrap();
    assert!(matches!(push(&sender, "c0ffee").await, PushOutcome::Misconfigured(_)));

    export(folder.path(), &apns.issue(TOPIC).unwrap(), "", PASSWORD, &[]);
    until("the renewed certificate is used", async || push(&sender, "c0ffee").await == PushOutcome::Sent)
        .await;
}
