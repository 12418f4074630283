//! Certificates like Apple's, made by OpenSSL. There are a root, two generations of an intermediate
//! certificate, and certificates of types with Apple's extensions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub const TEAM: &str = "ABCDE12345";

/// A folder with certificates and keys in PEM. `NAME.pem` is a certificate, and `NAME.key` its key.
pub struct Authority {
    folder: tempfile::TempDir,
}

/// The kinds of keys that phones accept, as arguments of `openssl genpkey`.
pub const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];

/// The days of a certificate, in one of the forms that `openssl x509` accepts: `YYYYMMDDhhmmssZ`,
/// or days from now.
const YEAR: &[&str] = &["-days", "365"];

impl Authority {
    /// Makes `root`, and the intermediate certificates `G4` and `G3`.
    pub fn new() -> Self {
        let this = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        this.root("root", "Apple Root CA (for tests)");
        for generation in ["G4", "G3"] {
            this.intermediate(generation, "root", &["-days", "3000"]);
        }
        this
    }

    /// Makes the certificate `name` that issues intermediate certificates.
    pub fn root(&self, name: &str, common_name: &str) {
        let [key, certificate] = ["key", "pem"].map(|end| format!("{name}.{end}"));
        self.key(name, P256);
        self.openssl(&[
            &["req", "-x509", "-key", &key, "-out", &certificate],
            &["-days", "3650"],
            &["-subj", &format!("/CN={common_name}/O=Example")],
        ]);
    }

    /// Makes the intermediate certificate `name`, with its name as the generation.
    pub fn intermediate(&self, name: &str, root: &str, days: &[&str]) {
        self.key(name, RSA);
        self.issue(
            name,
            root,
            &format!("/CN=Worldwide Developer Relations (for tests)/OU={name}/O=Example"),
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
            days,
        );
    }

    /// Makes the certificate `name` for a type. G4 issues it. It is valid for a year.
    pub fn certify(&self, name: &str, type_id: &str, key: &[&str]) {
        self.certify_for(name, type_id, key, "", YEAR);
    }

    /// Makes a certificate with additional extensions, and with a different period of validity.
    pub fn certify_for(
        &self,
        name: &str,
        type_id: &str,
        key: &[&str],
        extensions: &str,
        days: &[&str],
    ) {
        let extensions =
            format!("1.2.840.113635.100.6.1.16=ASN1:UTF8String:{type_id}\n{extensions}");
        self.certify_by("G4", name, type_id, key, &extensions, days);
    }

    /// Makes a certificate with only these extensions. `issuer` need not be G4.
    pub fn certify_by(
        &self,
        issuer: &str,
        name: &str,
        type_id: &str,
        key: &[&str],
        extensions: &str,
        days: &[&str],
    ) {
        self.key(name, key);
        self.issue(
            name,
            issuer,
            &format!("/UID={type_id}/CN=Pass Type ID: {type_id}/OU={TEAM}/O=Example"),
            &format!(
                "keyUsage=critical,digitalSignature\nextendedKeyUsage=1.2.840.113635.100.4.14\n{extensions}"
            ),
            days,
        );
    }

    fn key(&self, name: &str, kind: &[&str]) {
        self.openssl(&[&["genpkey", "-out", &format!("{name}.key")], kind]);
    }

    fn issue(&self, name: &str, issuer: &str, subject: &str, extensions: &str, days: &[&str]) {
        let [key, request, certificate] = ["key", "csr", "pem"].map(|end| format!("{name}.{end}"));
        self.openssl(&[&[
            "req", "-new", "-utf8", "-key", &key, "-subj", subject, "-out", &request,
        ]]);
        fs::write(
            self.path("extensions.cnf"),
            format!("subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n{extensions}"),
        )
        .unwrap();
        // `openssl x509` can't set the first day, but `openssl ca` can.
        fs::write(self.path("index.txt"), "").unwrap();
        fs::write(
            self.path("ca.cnf"),
            "[ca]\ndefault_ca=ca\n[ca]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\n\
             default_md=sha256\npolicy=any\nunique_subject=no\n[any]\nUID=optional\ncommonName=optional\n\
             organizationalUnitName=optional\norganizationName=optional\n",
        )
        .unwrap();
        let [issuer, issuer_key] = ["pem", "key"].map(|end| format!("{issuer}.{end}"));
        self.openssl(&[
            &[
                "ca",
                "-batch",
                "-notext",
                "-config",
                "ca.cnf",
                "-preserveDN",
            ],
            &["-cert", &issuer, "-keyfile", &issuer_key, "-in", &request],
            &["-extfile", "extensions.cnf", "-out", &certificate],
            days,
        ]);
    }

    /// Writes `NAME.p12` with a certificate, its key, and the certificates in `more`.
    pub fn export(&self, name: &str, password: &str, more: &str, options: &[&str]) -> PathBuf {
        let [certificate, key, p12] = ["pem", "key", "p12"].map(|end| format!("{name}.{end}"));
        fs::write(self.path("more.pem"), more).unwrap();
        let password = format!("pass:{password}");
        self.openssl(&[
            &["pkcs12", "-export", "-in", &certificate, "-inkey", &key],
            &["-certfile", "more.pem", "-out", &p12, "-passout", &password],
            options,
        ]);
        self.path(&p12)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Runs OpenSSL in the folder. Panics if it fails. Returns what it prints.
    pub fn openssl(&self, arguments: &[&[&str]]) -> String {
        openssl(self.folder.path(), &arguments.concat())
            .unwrap_or_else(|error| panic!("openssl {}: {error}", arguments.concat().join(" ")))
    }

    /// Verifies a detached signature with the chain up to the root, as a phone does. If it does not
    /// verify, returns the reason.
    pub fn verify(&self, content: &[u8], signature: &[u8]) -> Result<(), String> {
        self.verify_with(content, signature, "root.pem")
    }

    pub fn verify_with(&self, content: &[u8], signature: &[u8], root: &str) -> Result<(), String> {
        fs::write(self.path("content"), content).unwrap();
        fs::write(self.path("signature"), signature).unwrap();
        let arguments = [
            "cms",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signature",
            "-content",
            "content",
            "-CAfile",
            root,
            "-purpose",
            "any",
            "-out",
            "verified",
        ];
        openssl(self.folder.path(), &arguments)?;
        assert_eq!(self.read("verified"), content);
        Ok(())
    }
}

fn openssl(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
