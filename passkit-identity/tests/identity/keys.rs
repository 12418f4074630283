//! All kinds of keys that TLS and signatures accept, in the forms that OpenSSL writes.

use std::{path::Path, process::Command};

use passkit_identity::Identity;

use crate::{TEAM, TYPE, type_id};

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes `NAME.pem` and `NAME.key`. The key is in PKCS #8.
fn make(folder: &Path, name: &str, algorithm: &[&str]) {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    let subject = format!("/UID={TYPE}/OU={TEAM}");
    openssl(folder, &[&["genpkey", "-out", &key], algorithm].concat());
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-key",
            &key,
            "-subj",
            &subject,
            "-days",
            "9",
            "-out",
            &certificate,
        ],
    );
}

#[test]
fn each_kind_of_key_fits_its_certificate_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let kinds: [(&str, &[&str]); 4] = [
        (
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ),
        (
            "p256",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        (
            "p384",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("ed25519", &["-algorithm", "ED25519"]),
    ];
    let mut keys = Vec::new();
    for (name, algorithm) in kinds {
        make(folder, name, algorithm);
        keys.push((name, format!("{name}.key")));
        // The older form of the key, which has a different kind of PEM section.
        if name != "ed25519" {
            let older = format!("{name}.older");
            openssl(
                folder,
                &[
                    "pkey",
                    "-traditional",
                    "-in",
                    &format!("{name}.key"),
                    "-out",
                    &older,
                ],
            );
            assert!(
                !std::fs::read_to_string(folder.join(&older))
                    .unwrap()
                    .contains("BEGIN PRIVATE KEY")
            );
            keys.push((name, older));
        }
    }
    for (of, key) in &keys {
        for (name, _) in kinds {
            let read = Identity::from_files(
                &type_id(),
                folder.join(format!("{name}.pem")),
                folder.join(key),
            );
            match read {
                Ok(identity) => {
                    assert_eq!(*of, name, "{key}");
                    assert_eq!(identity.team(), Some(TEAM));
                }
                Err(error) => {
                    assert_ne!(*of, name, "{error}");
                    assert!(
                        error
                            .to_string()
                            .ends_with("its private key does not fit the certificate")
                    );
                }
            }
        }
    }
}

#[test]
fn an_unsupported_key_is_refused_with_a_list_of_supported_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for algorithm in [
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
        &[
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:secp256k1",
        ],
    ] {
        make(folder, "odd", algorithm);
        let error =
            Identity::from_files(&type_id(), folder.join("odd.pem"), folder.join("odd.key"));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("odd.key: its private key can't be used; use RSA"),
            "{error}"
        );
    }
}
