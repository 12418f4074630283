//! Chains of certificates that OpenSSL makes, with faults that real certificates have.

use std::{fs, path::Path, process::Command};

use crate::{
    samples::{Draft, TEAM, TYPE},
    zips::{unzip, zip},
};

/// The certificates and options with which a pass is signed.
pub(crate) struct Chain {
    pub(crate) leaf_days: i32,
    pub(crate) authority_days: i32,
    /// Whether the leaf has the extension in which Apple names the type.
    pub(crate) has_extension: bool,
    /// Further options of `openssl cms`.
    pub(crate) options: &'static str,
    /// Whether a bit of the leaf's signature is changed.
    pub(crate) is_forged: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            leaf_days: 365,
            authority_days: 3_650,
            has_extension: true,
            options: "-certfile authority.pem",
            is_forged: false,
        }
    }
}

fn openssl(folder: &Path, arguments: &str) {
    // An underscore stands for a blank within an argument.
    let arguments = arguments
        .split_whitespace()
        .map(|word| word.replace('_', " "));
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("openssl is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

impl Chain {
    /// Signs a good ticket.
    pub(crate) fn sign(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["leaf", "authority", "other"] {
            openssl(
                folder,
                &format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"),
            );
        }
        fs::write(folder.join("identifier"), "subjectKeyIdentifier=hash").unwrap();
        for (name, days) in [("authority", self.authority_days), ("other", 3_650)] {
            openssl(
                folder,
                &format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"),
            );
            openssl(
                folder,
                &format!(
                    "x509 -req -in {name}.csr -signkey {name}.key -days {days} \
                     -extfile identifier -out {name}.pem"
                ),
            );
        }
        let mut extensions = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n".to_owned();
        if self.has_extension {
            extensions += &format!("1.2.840.113635.100.6.1.16=ASN1:UTF8:{TYPE}\n");
        }
        fs::write(folder.join("extensions"), extensions).unwrap();
        openssl(
            folder,
            &format!("req -new -key leaf.key -subj /UID={TYPE}/CN=Pass/OU={TEAM} -out leaf.csr"),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in leaf.csr -CA authority.pem -CAkey authority.key -CAcreateserial \
                 -extfile extensions -days {} -outform DER -out leaf.der",
                self.leaf_days
            ),
        );
        if self.is_forged {
            let mut leaf = fs::read(folder.join("leaf.der")).unwrap();
            *leaf.last_mut().unwrap() ^= 1;
            fs::write(folder.join("leaf.der"), leaf).unwrap();
        }
        openssl(folder, "x509 -inform DER -in leaf.der -out leaf.pem");
        let builder = Draft::ticket().builder();
        fs::write(folder.join("manifest"), builder.manifest()).unwrap();
        openssl(
            folder,
            &format!(
                "cms -sign -binary -md sha256 -signer leaf.pem -inkey leaf.key \
                 -in manifest -outform DER -out signature {}",
                self.options
            ),
        );
        let mut files = unzip(&builder.build_unsigned().unwrap());
        let signature = fs::read(folder.join("signature")).unwrap();
        files.push(("signature".into(), signature));
        zip(&files)
    }
}
