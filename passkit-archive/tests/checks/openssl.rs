//! Chains of certificates that OpenSSL makes, with the faults that certificates have in the field.

use std::fs;

use crate::{
    authority::{Authority, P256},
    samples::{Draft, TYPE},
    zips::{unzip, zip},
};

/// The days of a certificate that expired long ago, as options of `openssl ca`.
pub(crate) const EXPIRED: &[&str] = &[
    "-startdate",
    "20200101000000Z",
    "-enddate",
    "20210101000000Z",
];

/// How a pass is signed.
pub(crate) struct Chain {
    /// Options of `openssl ca`.
    pub(crate) leaf_days: &'static [&'static str],
    pub(crate) intermediate_days: &'static [&'static str],
    /// The name of the authority above the intermediate certificate.
    pub(crate) root_name: &'static str,
    /// Whether the leaf has the extension in which Apple names the type.
    pub(crate) has_extension: bool,
    /// More options of `openssl cms`. The certificate that issued the leaf is in `intermediate.pem`.
    pub(crate) options: &'static [&'static str],
    /// Whether a bit of the leaf's signature is changed.
    pub(crate) is_forged: bool,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            leaf_days: &["-days", "365"],
            intermediate_days: &["-days", "3000"],
            root_name: "Apple Root CA (for tests)",
            has_extension: true,
            options: &["-certfile", "intermediate.pem"],
            is_forged: false,
        }
    }
}

impl Chain {
    /// Signs a good ticket.
    pub(crate) fn sign(&self, authority: &Authority) -> Vec<u8> {
        authority.root("above", self.root_name);
        authority.intermediate("intermediate", "above", self.intermediate_days);
        let extension = if self.has_extension {
            format!("1.2.840.113635.100.6.1.16=ASN1:UTF8String:{TYPE}\n")
        } else {
            String::new()
        };
        authority.certify_by(
            "intermediate",
            "leaf",
            TYPE,
            P256,
            &extension,
            self.leaf_days,
        );
        if self.is_forged {
            let convert = |from: [&str; 2], to: [&str; 2]| {
                authority.openssl(&[
                    &["x509", "-inform", from[0], "-in", from[1]],
                    &["-outform", to[0], "-out", to[1]],
                ]);
            };
            convert(["PEM", "leaf.pem"], ["DER", "leaf.der"]);
            let mut leaf = authority.read("leaf.der");
            *leaf.last_mut().unwrap() ^= 1;
            fs::write(authority.path("leaf.der"), leaf).unwrap();
            convert(["DER", "leaf.der"], ["PEM", "leaf.pem"]);
        }
        let builder = Draft::ticket().builder();
        fs::write(authority.path("manifest"), builder.manifest()).unwrap();
        authority.openssl(&[
            &[
                "cms", "-sign", "-binary", "-md", "sha256", "-outform", "DER",
            ],
            &["-signer", "leaf.pem", "-inkey", "leaf.key"],
            &["-in", "manifest", "-out", "signature"],
            self.options,
        ]);
        let mut files = unzip(&builder.build_unsigned().unwrap());
        files.push(("signature".into(), authority.read("signature")));
        zip(&files)
    }
}
