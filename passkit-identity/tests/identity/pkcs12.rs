//! Reads files of `openssl pkcs12`, in the schemes that Keychain Access uses (`-legacy`) and in newer ones.
//! Reads encrypted keys of `openssl pkcs8` too.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use passkit_identity::{
    Identity,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use passkit_server::identifiers::TypeIdentifier;

use crate::{Authority, Issued, OTHER_TYPE, TYPE, type_id};

const PASSWORD: &str = "a pässword";

/// Exports a certificate, its key, and `more`, which is PEM.
fn export(folder: &Path, issued: &Issued, more: &str, password: &str, options: &[&str]) -> PathBuf {
    let (pem, file) = (folder.join("in.pem"), folder.join("ticket.p12"));
    std::fs::write(&pem, [more, &issued.certificate, &issued.key].concat()).unwrap();
    let mut command = Command::new("openssl");
    command
        .args(["pkcs12", "-export", "-in"])
        .arg(&pem)
        .arg("-out")
        .arg(&file)
        .args(options);
    let output = command
        .args(["-passout", &format!("pass:{password}")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    file
}

fn read(file: &Path, password: &str) -> Result<Identity, String> {
    Identity::from_pkcs12_file(&type_id(), file, password).map_err(|error| error.to_string())
}

#[test]
fn each_scheme_is_read() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    for options in [
        &[][..],
        // The schemes that Keychain Access uses: RC2 with 40 bits, triple DES, SHA-1.
        &["-legacy"],
        &["-legacy", "-descert"],
        &[
            "-legacy",
            "-certpbe",
            "PBE-SHA1-RC2-128",
            "-keypbe",
            "PBE-SHA1-2DES",
        ],
        &[
            "-certpbe",
            "AES-128-CBC",
            "-keypbe",
            "AES-192-CBC",
            "-macalg",
            "sha512",
        ],
        &[
            "-certpbe",
            "DES-EDE3-CBC",
            "-keypbe",
            "AES-256-CBC",
            "-macalg",
            "sha384",
        ],
        &["-certpbe", "NONE", "-keypbe", "NONE"],
        &["-nomac"],
        &["-nomaciter", "-noiter"],
    ] {
        for password in [PASSWORD, ""] {
            let issued = authority.issue(TYPE);
            let file = export(folder.path(), &issued, &authority.root, password, options);
            let identity =
                read(&file, password).unwrap_or_else(|error| panic!("{options:?}: {error}"));
            let bytes = std::fs::read(&file).unwrap();
            assert_eq!(
                Identity::from_pkcs12(None, &bytes, password)
                    .unwrap()
                    .type_id(),
                &type_id()
            );
            let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert_eq!(
                identity.chain(),
                [der(&issued.certificate), der(&authority.root)],
                "{options:?}"
            );
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            let contains =
                |long: &[u8], part: &[u8]| long.windows(part.len()).any(|window| window == part);
            // OpenSSL writes the same key, but without its public half.
            let secret = &key.secret_der()[36..68];
            assert!(
                contains(identity.private_key().secret_der(), secret),
                "{options:?}"
            );
        }
    }
}

#[test]
fn each_fault_is_one_line_with_file_and_type() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let good = authority.issue(TYPE);
    let other = authority.issue(OTHER_TYPE);
    let expired = authority.issue_expired();
    let file = folder.path().join("ticket.p12");
    let fails = |password: &str, text: &str| {
        let error = read(&file, password).unwrap_err();
        assert_eq!(
            error,
            format!("certificate for {TYPE}: {}: {text}", file.display())
        );
    };

    // Without encryption, only the MAC shows that a password is wrong. Without a MAC, only the
    // decryption shows it.
    let bare = &["-certpbe", "NONE", "-keypbe", "NONE"];
    for options in [&[][..], &["-legacy"], &["-legacy", "-nomac"], bare] {
        export(folder.path(), &good, "", PASSWORD, options);
        fails("another", "the password is wrong");
        fails("", "the password is wrong");
    }
    export(folder.path(), &good, "", "", &[]);
    fails(PASSWORD, "the password is wrong");
    export(folder.path(), &expired, "", PASSWORD, &[]);
    let identity = Identity::from_pkcs12_file(None, &file, PASSWORD).unwrap();
    assert_eq!(
        identity.check_expiry().unwrap_err().to_string(),
        format!(
            "certificate for {TYPE}: {}: expired on Mon, 19 May 1997 00:00:00 GMT",
            file.display()
        )
    );
    export(folder.path(), &other, "", PASSWORD, &[]);
    fails(
        PASSWORD,
        &format!("is a certificate for pass.com.example.other, not for {TYPE}"),
    );
    export(folder.path(), &good, "", PASSWORD, &["-nokeys"]);
    fails(
        PASSWORD,
        "has no private key; export the certificate together with its key",
    );
    export(folder.path(), &good, "", PASSWORD, &["-nocerts"]);
    fails(PASSWORD, "has no certificate");
    export(
        folder.path(),
        &good,
        "",
        PASSWORD,
        &["-legacy", "-keypbe", "PBE-SHA1-RC4-128"],
    );
    let fix = "write it again with `openssl pkcs12`";
    fails(
        PASSWORD,
        &format!("is protected by the unknown scheme 1.2.840.113549.1.12.1.1; {fix}"),
    );

    // A key without its certificate. openssl refuses to export this, so the test joins two files.
    let halves = [("-nokeys", &good), ("-nocerts", &other)];
    let [certificate, key] = halves.map(|(option, issued)| {
        std::fs::read(export(
            folder.path(),
            issued,
            "",
            "",
            &[option, "-certpbe", "NONE", "-nomac"],
        ))
        .unwrap()
    });
    std::fs::write(&file, joined(&certificate, &key)).unwrap();
    fails("", "its private key does not fit the certificate");
}

/// Joins the contents of two files without a MAC. Both files have lengths of two bytes.
fn joined(one: &[u8], other: &[u8]) -> Vec<u8> {
    let element = |tag: u8, contents: &[u8]| {
        let [high, low] = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, high, low], contents].concat()
    };
    // The version and the content type come first. Then come [0], an octet string and a sequence,
    // each with a length of two bytes.
    let parts = |file: &[u8]| {
        let at = file
            .windows(2)
            .position(|bytes| bytes == [0xA0, 0x82])
            .unwrap();
        file[at + 12..].to_vec()
    };
    let safe = element(0x30, &[parts(one), parts(other)].concat());
    let data = [
        0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x01,
    ];
    let content = element(
        0x30,
        &[&data[..], &element(0xA0, &element(0x04, &safe))].concat(),
    );
    element(0x30, &[&[0x02, 0x01, 0x03][..], &content].concat())
}

#[test]
fn a_damaged_or_foreign_file_is_reported_and_never_panics() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    // The files use one iteration, so that thousands of broken files can be tried quickly.
    let options = ["-legacy", "-noiter", "-nomaciter"];
    let file = export(
        folder.path(),
        &authority.issue(TYPE),
        "",
        PASSWORD,
        &options,
    );
    let good = std::fs::read(&file).unwrap();
    let from = |bytes: &[u8]| {
        Identity::from_pkcs12(&type_id(), bytes, PASSWORD).map_err(|error| error.to_string())
    };
    assert!(from(&good).is_ok());

    let no_pkcs12 = format!("certificate for {TYPE}: is not a PKCS #12 file, or is damaged");
    for bytes in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\n",
        b"\x30\x03\x02\x01\x03",
        &[0x30; 64],
    ] {
        assert_eq!(from(bytes).unwrap_err(), no_pkcs12);
    }
    for length in 0..good.len() {
        assert_eq!(
            from(&good[..length]).unwrap_err(),
            no_pkcs12,
            "cut after {length} bytes"
        );
    }
    let open = [&[0x30, 0x80], &good[4..], &[0, 0]].concat();
    assert!(
        from(&open)
            .unwrap_err()
            .ends_with("is in BER with indefinite lengths; write it again with `openssl pkcs12`")
    );
    // Whichever byte is changed, the file can still be read, or the error has one line.
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        if let Err(error) = from(&bytes) {
            assert!(
                !error.contains('\n') && error.starts_with(&format!("certificate for {TYPE}: ")),
                "{error}"
            );
        }
    }
}

#[test]
fn the_certificate_of_the_key_is_chosen() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (authority.issue(TYPE), authority.issue(OTHER_TYPE));
    let file = export(
        folder.path(),
        &ours,
        &other.certificate,
        PASSWORD,
        &["-legacy"],
    );
    assert_eq!(read(&file, PASSWORD).unwrap().type_id(), &type_id());
    let other = TypeIdentifier::new(OTHER_TYPE).unwrap();
    let error = Identity::from_pkcs12_file(&other, &file, PASSWORD)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with(&format!("is a certificate for {TYPE}, not for {other}")),
        "{error}"
    );
}

#[test]
fn a_renewed_file_can_be_read_again_with_the_same_password() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let file = export(
        folder.path(),
        &authority.issue(TYPE),
        "",
        PASSWORD,
        &["-legacy"],
    );
    let identity = read(&file, PASSWORD).unwrap();
    export(folder.path(), &authority.issue(TYPE), "", PASSWORD, &[]);
    assert_ne!(identity.current_stamp(), identity.stamp());
    assert_ne!(identity.reload().unwrap().chain(), identity.chain());
}

/// Encrypts a key with `openssl pkcs8 -topk8`, or with `openssl rsa` in the old form.
fn encrypt(folder: &Path, key: &str, command: &[&str]) -> String {
    std::fs::write(folder.join("plain.key"), key).unwrap();
    let output = Command::new("openssl")
        .args(command)
        .args(["-in", "plain.key", "-passout", &format!("pass:{PASSWORD}")])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_encrypted_key_in_pem_is_read_in_each_scheme() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let issued = authority.issue(TYPE);
    let read = |key: &str, password: &str| {
        let certificate = issued.certificate.as_bytes();
        Identity::from_pem_with_password(&type_id(), certificate, key.as_bytes(), password)
            .map_err(|error| error.to_string())
    };
    let fails = |key: &str, password: &str, text: &str| {
        let error = read(key, password).unwrap_err();
        assert_eq!(error, format!("certificate for {TYPE}: {text}"));
    };
    let pkcs8 = ["pkcs8", "-topk8"];
    for options in [
        &[][..],
        &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
        &["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA256"],
        &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
        &["-v2", "des3"],
        &["-v1", "PBE-SHA1-3DES"],
        &["-iter", "100000"],
    ] {
        let key = encrypt(folder.path(), &issued.key, &[&pkcs8, options].concat());
        assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let identity = read(&key, PASSWORD).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        identity.sign(b"a message").unwrap();
        fails(&key, "another", "the password is wrong");
        fails(&key, "", "the password is wrong");
        // Without a way to give the password, the error says what to do.
        let error = Identity::from_pem(None, issued.certificate.as_bytes(), key.as_bytes());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("encrypted: give its password"), "{error}");

        // A key that is cut off is damaged, or has a wrong password.
        let lines: Vec<_> = key.lines().collect();
        let cut = [&lines[..2], &lines[lines.len() - 1..]].concat().join("\n");
        fails(
            &cut,
            PASSWORD,
            "its encrypted private key is damaged: copy the file again",
        );
    }
    // The password of a key that is not encrypted does not matter.
    read(&issued.key, PASSWORD).unwrap();

    for (options, scheme) in [
        (&["-scrypt"][..], "1.3.6.1.4.1.11591.4.11"),
        (&["-v2", "camellia-128-cbc"], "1.2.392.200011.61.1.1.1.2"),
    ] {
        let key = encrypt(folder.path(), &issued.key, &[&pkcs8, options].concat());
        fails(
            &key,
            PASSWORD,
            &format!(
                "its private key is encrypted with the unknown scheme {scheme}: write it again with \
                 `openssl pkcs8 -topk8 -in OLD -out NEW`"
            ),
        );
    }
    let old = encrypt(folder.path(), &issued.key, &["ec", "-aes256"]);
    assert!(old.contains("Proc-Type: 4,ENCRYPTED"), "{old}");
    fails(
        &old,
        PASSWORD,
        "its private key is encrypted in an old form that is not read: write it again with `openssl pkcs8 -topk8 \
         -in OLD -out NEW`",
    );
}

#[test]
fn files_with_an_encrypted_key_can_be_read_again_with_the_same_password() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["a.pem", "a.key"].map(|name| folder.path().join(name));
    let write = || {
        let issued = authority.issue(TYPE);
        std::fs::write(&certificate, &issued.certificate).unwrap();
        let encrypted = encrypt(folder.path(), &issued.key, &["pkcs8", "-topk8"]);
        std::fs::write(&key, encrypted).unwrap();
    };
    write();
    let read = |password| Identity::from_files_with_password(None, &certificate, &key, password);
    let error = read("another").unwrap_err().to_string();
    assert!(
        error.ends_with("a.key: the password is wrong") && !error.contains("another"),
        "{error}"
    );
    let identity = read(PASSWORD).unwrap();
    write();
    assert_ne!(identity.reload().unwrap().chain(), identity.chain());
}
