//! The options about the certificate that signs passes.

use std::{fmt, io::IsTerminal as _, path::PathBuf};

use clap::Args;
use passkit_archive::{Signer, SignerErrorKind};
use passkit_identity::{Identity, pem};

use crate::{
    certificate::{CertPassword, CertificateProblem, Secret, identity},
    failure::Failure,
};

/// The certificate, its password and its issuer.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignerOptions {
    /// The certificate of the pass type, with its key: the .p12 file that Keychain Access exports,
    /// or PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,

    /// The private key of the certificate, if the key is in another file: PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) password: CertPassword,

    /// The intermediate certificate that issued the certificate: PEM or DER. The default is the issuer
    /// in the file of the certificate. If that file has no issuer, the default is Apple's Worldwide
    /// Developer Relations certificate of generation G4.
    #[arg(long, value_name = "FILE")]
    pub(crate) wwdr: Option<PathBuf>,
}

impl SignerOptions {
    /// Reads the certificate. Asks for its password on a terminal.
    pub(crate) fn open(&self) -> Result<Signer, Failure> {
        self.signer(&self.identity(true)?)
    }

    /// Reads the certificate, and never asks for its password.
    pub(crate) fn open_unattended(&self) -> Result<Signer, Failure> {
        self.signer(&self.identity(false)?)
    }

    fn signer(&self, identity: &Identity) -> Result<Signer, Failure> {
        let wwdr = self
            .wwdr
            .as_ref()
            .map(|file| {
                pem::read_file(file).map_err(|error| {
                    Failure::from_error(format!("can't read {}", pem::shown(file)), &error)
                })
            })
            .transpose()?;
        Signer::new(identity, wwdr.as_deref()).map_err(|error| {
            let is_about_issuer = error.kind() == SignerErrorKind::Intermediate;
            match &self.wwdr {
                Some(wwdr) if is_about_issuer => Failure::from_error(pem::shown(wwdr), &error),
                None if is_about_issuer => {
                    Failure::new(format!("{}: {error}, with --wwdr", pem::shown(&self.cert)))
                }
                _ => Failure::from_error(pem::shown(&self.cert), &error),
            }
        })
    }

    fn identity(&self, may_ask: bool) -> Result<Identity, Failure> {
        let read =
            |password: Option<&Secret>| identity(None, &self.cert, self.key.as_deref(), password);
        let password = self.password.cert_password.as_ref();
        let failed = |problem: CertificateProblem| Failure::new(problem.to_string());
        let may_ask = may_ask && std::io::stdin().is_terminal() && console::user_attended_stderr();
        let file = match read(password) {
            Err(CertificateProblem::NeedsPassword(file)) if may_ask => file,
            read => return read.map_err(failed),
        };
        let asked = format!("the password of {file}");
        eprint!("passkit: {asked}: ");
        let password = console::Term::stderr()
            .read_secure_line()
            .map_err(|error| Failure::from_error(format!("can't ask for {asked}"), &error))?;
        read(Some(&Secret::from(&*password))).map_err(failed)
    }

    /// Returns the files of the certificate.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let more = self.key.iter().chain(&self.wwdr);
        std::iter::once(&self.cert).chain(more).cloned().collect()
    }

    /// Returns the name of the certificate's file for messages.
    pub(crate) fn shown(&self) -> impl fmt::Display {
        pem::shown(&self.cert).to_string()
    }
}
