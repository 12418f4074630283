//! A certificate with its key and its password, as the command line names them.

use std::{fmt, fs, io::Read as _, path::Path};

use clap::Args;
use passkit_identity::{
    Identity,
    pem::{self, PemError},
};
use passkit_server::identifiers::TypeIdentifier;
use serde::Deserialize;

/// The password of the certificate's file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct CertPassword {
    /// The password of .p12 files, and of encrypted keys in PEM. It is safer to set the password in the environment, or in the
    /// file that PASSKIT_CERT_PASSWORD_FILE names.
    #[arg(
        long,
        env = "PASSKIT_CERT_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true
    )]
    pub(crate) cert_password: Option<Secret>,
}

/// A password. `Debug` does not show it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// The reason why a certificate can't be used.
pub(crate) enum CertificateProblem {
    /// The file with this name needs a password, and none was given.
    NeedsPassword(String),
    Other(String),
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsPassword(file) => write!(
                f,
                "{file} needs its password; put it into the variable PASSKIT_CERT_PASSWORD, or into the file that \
                 PASSKIT_CERT_PASSWORD_FILE names"
            ),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

/// Reads the certificate in a file. The certificate must be for `type_id`. If `type_id` is `None`,
/// the certificate may be for any type.
pub(crate) fn identity(
    type_id: Option<&TypeIdentifier>,
    certificate: &Path,
    key: Option<&Path>,
    password: Option<&Secret>,
) -> Result<Identity, CertificateProblem> {
    let wrong = |problem: &str| {
        CertificateProblem::Other(format!("{}: {problem}", pem::shown(certificate)))
    };
    let identity = match (is_pkcs12(certificate), key, password) {
        (true, Some(_), _) => {
            return Err(wrong(
                "is PKCS #12 and contains the key: don't name a file for the key",
            ));
        }
        (true, None, password) => Identity::from_pkcs12_file(
            type_id,
            certificate,
            password.map_or("", |password| &password.0),
        ),
        (false, key, password) => {
            let key = key.unwrap_or(certificate);
            let text = password.map_or("", |password| &password.0);
            let read = Identity::from_files_with_password(type_id, certificate, key, text);
            // If the file can't be read, its error says more than an error about the password.
            if read.is_ok() && password.is_some() && !is_encrypted(key) {
                return Err(wrong(
                    "is not PKCS #12 (.p12), and its key is not encrypted: don't name a password",
                ));
            }
            read
        }
    };
    identity.map_err(|error| {
        let error = error.to_string();
        // Without a password, an empty password was tried.
        if password.is_none() && error.ends_with("the password is wrong") {
            let file = pem::shown(key.unwrap_or(certificate)).to_string();
            return CertificateProblem::NeedsPassword(file);
        }
        CertificateProblem::Other(error)
    })
}

/// Returns whether a certificate or its key is protected by a password.
pub(crate) fn takes_password(certificate: &Path, key: Option<&Path>) -> bool {
    is_pkcs12(certificate) || is_encrypted(key.unwrap_or(certificate))
}

fn is_encrypted(key: &Path) -> bool {
    let Ok(text) = pem::read_file(key) else {
        return false;
    };
    matches!(pem::private_key(&text), Err(PemError::Encrypted))
}

/// Returns whether the file begins like PKCS #12.
fn is_pkcs12(file: &Path) -> bool {
    let mut start = Vec::new();
    fs::File::open(file)
        .and_then(|file| file.take(16).read_to_end(&mut start))
        .is_ok()
        && pem::is_pkcs12(&start)
}
