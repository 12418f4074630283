use std::{path::Path, time::SystemTime};

use passkit_identity::{
    Identity,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{Authority, DAY, Issued, OTHER_TYPE, TEAM, TYPE, type_id};

fn from_pem(certificate: &str, key: &str) -> Result<Identity, String> {
    Identity::from_pem(&type_id(), certificate.as_bytes(), key.as_bytes())
        .map_err(|error| error.to_string())
}

fn write(folder: &Path, issued: &Issued) {
    std::fs::write(folder.join("a.pem"), &issued.certificate).unwrap();
    std::fs::write(folder.join("a.key"), &issued.key).unwrap();
}

#[test]
fn each_fault_is_reported_in_one_line() {
    let authority = Authority::new();
    let good = authority.issue(TYPE);
    let other = authority.issue(OTHER_TYPE);
    let named = "certificate for pass.com.example.ticket: ";
    for (certificate, key, text) in [
        ("", good.key.as_str(), "has no certificate in PEM or DER"),
        (&good.key, &good.key, "has no certificate in PEM or DER"),
        (&good.certificate, "", "has no private key in PEM or DER"),
        (
            &good.certificate,
            &good.certificate,
            "has no private key in PEM or DER",
        ),
        (
            &good.certificate,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "its private key is encrypted: give its password where one can be given, or decrypt it with `openssl pkey \
             -in OLD -out NEW`",
        ),
        (
            &good.certificate,
            &other.key,
            "its private key does not fit the certificate",
        ),
        (
            &other.certificate,
            &other.key,
            "is a certificate for pass.com.example.other, not for pass.com.example.ticket",
        ),
    ] {
        let error = from_pem(certificate, key).unwrap_err();
        assert_eq!(error, format!("{named}{text}"));
    }
    let garbage = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let error = from_pem(garbage, &good.key).unwrap_err();
    assert!(
        error.starts_with(&format!("{named}is not PEM: ")),
        "{error}"
    );
    assert!(!error.contains('\n'));
}

#[test]
fn an_expired_certificate_is_read_and_reported_when_asked() {
    let authority = Authority::new();
    let read = |issued: Issued| {
        let (certificate, key) = (issued.certificate, issued.key);
        Identity::from_pem(None, certificate.as_bytes(), key.as_bytes()).unwrap()
    };
    assert!(read(authority.issue(TYPE)).check_expiry().is_ok());
    let error = read(authority.issue_expired()).check_expiry().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("certificate for {TYPE}: expired on Mon, 19 May 1997 00:00:00 GMT")
    );
}

#[test]
fn without_a_type_the_certificate_of_the_key_decides() {
    let authority = Authority::new();
    let good = authority.issue(TYPE);
    let other = authority.issue(OTHER_TYPE);
    let both = format!("{}{}", other.certificate, good.certificate);
    let identity = Identity::from_pem(None, both.as_bytes(), good.key.as_bytes()).unwrap();
    assert_eq!(identity.type_id(), &type_id());
    let error =
        Identity::from_pem(None, other.certificate.as_bytes(), good.key.as_bytes()).unwrap_err();
    let named = "certificate for pass.com.example.other: ";
    assert_eq!(
        error.to_string(),
        format!("{named}its private key does not fit the certificate")
    );
}

#[test]
fn a_fault_in_a_file_names_the_file() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    let error = || {
        Identity::from_files(&type_id(), &certificate, &key)
            .unwrap_err()
            .to_string()
    };
    let named = |file: &Path| {
        format!(
            "certificate for pass.com.example.ticket: {}: ",
            file.display()
        )
    };

    assert!(
        error().starts_with(&format!("{}No such file", named(&certificate))),
        "{}",
        error()
    );
    write(folder.path(), &authority.issue(OTHER_TYPE));
    assert_eq!(
        error(),
        format!(
            "{}is a certificate for pass.com.example.other, not for {TYPE}",
            named(&certificate)
        )
    );
    std::fs::write(&key, authority.issue(TYPE).key).unwrap();
    assert_eq!(
        error(),
        format!(
            "{}its private key does not fit the certificate",
            named(&key)
        )
    );
    std::fs::remove_file(&key).unwrap();
    assert!(
        error().starts_with(&format!("{}No such file", named(&key))),
        "{}",
        error()
    );
}

#[test]
fn certificate_key_and_chain_may_share_a_file_in_any_order() {
    let authority = Authority::new();
    let issued = authority.issue(TYPE);
    for parts in [
        [issued.key.as_str(), &issued.certificate, &authority.root],
        [&authority.root, &issued.certificate, &issued.key],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.pem");
        std::fs::write(
            &file,
            format!("Bag Attributes\n    friendlyName: x\n{}", parts.concat()),
        )
        .unwrap();
        let identity = Identity::from_files(&type_id(), &file, &file).unwrap();
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(
            identity.chain(),
            [der(&issued.certificate), der(&authority.root)]
        );
    }
}

#[test]
fn an_identity_has_the_type_the_team_and_the_dates_of_its_certificate() {
    let authority = Authority::new();
    let [start, end] = [10_000, 40_000].map(|days| SystemTime::UNIX_EPOCH + days * DAY);
    let issued = authority.issue_for(TYPE, start, end);
    let identity = from_pem(&issued.certificate, &issued.key).unwrap();
    assert_eq!(identity.type_id(), &type_id());
    assert_eq!(identity.team(), Some(TEAM));
    assert_eq!((identity.not_before(), identity.not_after()), (start, end));
    assert!(!format!("{identity:?}").contains("key"));
}

#[test]
fn a_renewed_file_shows_in_the_stamp_and_can_be_read_again() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    write(folder.path(), &authority.issue(TYPE));
    let identity = Identity::from_files(None, &certificate, &key).unwrap();
    assert_eq!(identity.current_stamp(), identity.stamp());
    assert_eq!(identity.reload().unwrap().chain(), identity.chain());

    let renewed = authority.issue(TYPE);
    std::fs::write(&certificate, format!("# Renewed\n{}", renewed.certificate)).unwrap();
    assert_ne!(identity.current_stamp(), identity.stamp());
    assert!(identity.reload().is_err(), "the new key is not there yet");
    std::fs::write(&key, &renewed.key).unwrap();
    let reloaded = identity.reload().unwrap();
    assert_ne!(reloaded.chain(), identity.chain());
    assert_eq!(reloaded.current_stamp(), reloaded.stamp());

    // Reloading never changes the type.
    write(folder.path(), &authority.issue(OTHER_TYPE));
    assert!(identity.reload().is_err());
    std::fs::remove_file(&key).unwrap();
    assert_ne!(reloaded.current_stamp(), reloaded.stamp());
}

/// Returns a PEM text with the changes that environment variables, editors and careless copying
/// cause.
fn bent(pem: &str) -> Vec<(&'static str, Vec<u8>)> {
    let lines = || pem.lines();
    let join = |between: &str| lines().collect::<Vec<_>>().join(between).into_bytes();
    let utf16 = pem.encode_utf16().flat_map(u16::to_le_bytes);
    vec![
        ("literal line ends", join("\\n")),
        ("literal line ends of Windows", join("\\r\\n")),
        (
            "in quotes",
            format!("\"{}\"", pem.replace('\n', "\\n")).into_bytes(),
        ),
        ("blanks", join(" ")),
        ("line ends of Windows", join("\r\n")),
        (
            "indented",
            lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
                .into_bytes(),
        ),
        ("a byte order mark", format!("\u{feff}{pem}").into_bytes()),
        ("UTF-16", [0xff, 0xfe].into_iter().chain(utf16).collect()),
        ("one line", lines().collect::<String>().into_bytes()),
    ]
}

#[test]
fn bent_pem_is_read() {
    let issued = Authority::new().issue(TYPE);
    for (what, certificate) in bent(&issued.certificate) {
        let identity = Identity::from_pem(None, &certificate, issued.key.as_bytes());
        assert!(identity.is_ok(), "{what}: {identity:?}");
    }
    for (what, key) in bent(&issued.key) {
        let identity = Identity::from_pem(None, issued.certificate.as_bytes(), &key);
        assert!(identity.is_ok(), "{what}: {identity:?}");
    }
    // Two files, joined without a line end between them.
    let glued = format!("{}{}", issued.certificate.trim_end(), issued.key.trim_end());
    for (what, both) in bent(&glued) {
        let identity = Identity::from_pem(None, &both, &both);
        assert!(identity.is_ok(), "{what}: {identity:?}");
    }
}

#[test]
fn der_is_read() {
    let issued = Authority::new().issue(TYPE);
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    Identity::from_pem(None, &certificate, key.secret_der()).unwrap();
}

/// A message may repeat at most this many characters of the key in a row, in any spelling of its
/// bytes.
const HARMLESS: usize = 8;

#[test]
fn no_error_repeats_a_part_of_the_file() {
    let issued = Authority::new().issue(TYPE);
    let secret: Vec<u8> = issued.key.bytes().collect();
    let mut texts: Vec<Vec<u8>> = vec![
        issued.key.replace("-----BEGIN", "----BEGIN").into_bytes(),
        issued.key.replace("-----END", "-----EN").into_bytes(),
        issued.key.replace("PRIVATE", "PRIV\nATE").into_bytes(),
        issued.key.replace('A', "!").into_bytes(),
        issued.key.replace("-----", "").into_bytes(),
        issued.key.replace('\n', "\\").into_bytes(),
        issued.key.as_bytes()[..issued.key.len() / 2].to_vec(),
        [issued.key.as_bytes(), &[0xff, 0xfe, 0]].concat(),
    ];
    texts.extend(bent(&issued.key).into_iter().map(|(_, text)| text));
    for text in &texts {
        let good = issued.certificate.as_bytes();
        for (certificate, key) in [(&text[..], &text[..]), (good, text), (text, good)] {
            let Err(error) = Identity::from_pem(&type_id(), certificate, key) else {
                continue;
            };
            let shown = format!("{error} {error:?}");
            for part in secret.windows(HARMLESS) {
                let plain = String::from_utf8_lossy(part);
                // The labels are not secret.
                let is_label = part
                    .iter()
                    .all(|b| b.is_ascii_uppercase() || b"- \n".contains(b));
                assert!(is_label || !shown.contains(&*plain), "{shown}");
            }
            assert!(!shown.contains("45, 45"), "{shown}");
        }
    }
}
