//! Signs archives and personalization tokens.

mod cms;
mod error;
mod intermediate;
mod key;
mod throwaway;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use der::{Decode as _, asn1::AnyRef};
use passkit_identity::{Identity, pem, pki_types::CertificateDer};
use passkit_server::{
    SourceError, async_trait,
    enrolment::{PersonalizationToken, TokenSigner},
    identifiers::TypeIdentifier,
    text::OneLine,
};
use ring::signature::UnparsedPublicKey;

use self::{
    cms::{Algorithm, Cms},
    throwaway::Throwaway,
};
pub use self::{
    error::{SignerError, SignerErrorKind},
    key::{Purpose, SigningKey},
};
use crate::{
    algorithms::verification_algorithm,
    asn1::SignedCertificate,
    base64,
    certificate::Certificate,
    dates::{RENEWAL, date},
};

/// Signs archives with a certificate from Apple, or with a throw-away certificate for tests.
///
/// A signature contains the certificate, the intermediate certificate that issued it, and the
/// signing time. It uses SHA-256. Only ECDSA on P-384 uses SHA-384.
///
/// A signer exists only if phones can accept its signatures. The certificate must be for a type of
/// passes or orders, and must be valid now. The key must belong to it, and the intermediate
/// certificate must have issued it. Nothing checks whether the intermediate certificate is Apple's.
/// Phones do.
///
/// ```no_run
/// use passkit_archive::{ArchiveBuilder, Signer, placeholder_icon};
/// use passkit_identity::Identity;
/// use passkit_server::identifiers::Kind;
///
/// let identity = Identity::from_files(None, "ticket.pem", "ticket.key")?;
/// let signer = Signer::new(&identity, None)?;
/// # let pass = "{}";
/// let bytes = ArchiveBuilder::new(Kind::Pass, pass)
///     .file("icon.png", placeholder_icon(29))
///     .build_signed(&signer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The intermediate certificate
/// The functions that make a signer take the intermediate certificate in PEM or DER. If you give
/// none, the issuer is looked up among the certificates of the same file. If the issuer is not
/// among them, it must be Apple's *Worldwide Developer Relations* certificate of the generation G4,
/// which this crate contains. G4 issues the certificates of all passes and orders.
pub struct Signer {
    key: Box<dyn SigningKey>,
    /// Whether the key can change without the certificate. Each signature is then verified.
    is_foreign: bool,
    type_id: TypeIdentifier,
    teams: Vec<String>,
    /// Since 1970, like all times in this file.
    not_before: Duration,
    not_after: Duration,
    intermediate_not_after: Duration,
    cms: Cms,
}

impl Signer {
    /// Makes a signer from a certificate and its key.
    ///
    /// # Errors
    /// Fails if the certificate is not valid now, if phones refuse the algorithm of its key, or if
    /// the intermediate certificate is unknown or did not issue it.
    pub fn new(identity: &Identity, intermediate: Option<&[u8]>) -> Result<Self, SignerError> {
        let key = Box::new(identity.clone());
        Self::from_parts(identity.chain(), key, false, intermediate)
    }

    /// Makes a signer whose key is elsewhere, such as in a hardware module.
    ///
    /// `certificates` is PEM or DER. The first certificate belongs to the key. Others may follow in
    /// any order. Each signature of the key is verified before it is used, because somebody may
    /// replace the key in the other place.
    ///
    /// # Errors
    /// Fails like [`new`](Self::new), or if there is no certificate, or if it is not for passes or
    /// orders.
    pub fn with_key(
        certificates: &[u8],
        key: impl SigningKey + 'static,
        intermediate: Option<&[u8]>,
    ) -> Result<Self, SignerError> {
        let certificates = pem::certificates(certificates).map_err(|error| {
            SignerError::new(
                SignerErrorKind::Certificate,
                format!("the certificate {error}"),
            )
        })?;
        Self::from_parts(&certificates, Box::new(key), true, intermediate)
    }

    /// Makes a signer with a throw-away certificate, for tests, demos and development.
    ///
    /// It makes a key (ECDSA, P-256), a certificate for archives of this type and team, and the
    /// authority that issues it. Both certificates are valid for a year.
    /// [`Archive::check`](crate::Archive::check) accepts the archives. No phone does.
    ///
    /// # Errors
    /// Fails if the system has no random numbers, or if its clock is not between 1970 and 2048.
    pub fn throwaway(type_id: &TypeIdentifier, team_identifier: &str) -> Result<Self, SignerError> {
        Self::from_throwaway(type_id, &Throwaway::new(type_id, team_identifier, false)?)
    }

    /// Makes a signer like [`throwaway`](Self::throwaway). Its certificate allows NFC and rewards
    /// enrolment.
    ///
    /// # Errors
    /// Fails like [`throwaway`](Self::throwaway).
    pub fn throwaway_with_nfc(
        type_id: &TypeIdentifier,
        team_identifier: &str,
    ) -> Result<Self, SignerError> {
        Self::from_throwaway(type_id, &Throwaway::new(type_id, team_identifier, true)?)
    }

    /// Makes a throw-away certificate like [`throwaway`](Self::throwaway), as PEM: the certificate,
    /// the authority that issues it, and the key. [`Identity::from_files`] reads a file with it.
    ///
    /// # Errors
    /// Fails like [`throwaway`](Self::throwaway).
    pub fn throwaway_pem(
        type_id: &TypeIdentifier,
        team_identifier: &str,
        allows_nfc: bool,
    ) -> Result<String, SignerError> {
        let Throwaway {
            certificate,
            key,
            authority,
        } = Throwaway::new(type_id, team_identifier, allows_nfc)?;
        Ok([
            base64::pem("CERTIFICATE", &certificate),
            base64::pem("CERTIFICATE", &authority),
            base64::pem("PRIVATE KEY", key.as_ref()),
        ]
        .concat())
    }

    fn from_throwaway(
        type_id: &TypeIdentifier,
        throwaway: &Throwaway,
    ) -> Result<Self, SignerError> {
        let identity = Identity::from_pem(type_id, &throwaway.certificate, throwaway.key.as_ref());
        let identity = identity
            .map_err(|error| SignerError::new(SignerErrorKind::Other, error.to_string()))?;
        Self::new(&identity, Some(&throwaway.authority))
    }

    /// The first of `certificates` belongs to the key.
    fn from_parts(
        certificates: &[CertificateDer<'_>],
        key: Box<dyn SigningKey>,
        is_foreign: bool,
        intermediate: Option<&[u8]>,
    ) -> Result<Self, SignerError> {
        let damaged = |error: der::Error| {
            SignerError::new(
                SignerErrorKind::Certificate,
                format!("the certificate is damaged: {error}"),
            )
        };
        let (own, others) = certificates
            .split_first()
            .ok_or_else(|| damaged(der::ErrorKind::Failed.into()))?;
        let certificate = AnyRef::from_der(own)
            .and_then(Certificate::read)
            .map_err(damaged)?;
        let type_id = certificate.subject.user_id.as_deref().unwrap_or_default();
        let type_id = TypeIdentifier::new(type_id).map_err(|_| {
            SignerError::new(
                SignerErrorKind::Certificate,
                "the certificate names no type of passes or orders; use the certificate of a Pass Type ID or an \
                 Order Type ID",
            )
        })?;
        let of_key = |message| SignerError::new(SignerErrorKind::Key, message);
        let algorithm = key.algorithm();
        let algorithm = Algorithm::of(algorithm).ok_or_else(|| {
            of_key(format!(
                "the key of the certificate for {type_id} signs with {algorithm}, which phones refuse; use a key \
                 for RSA, or for ECDSA on P-256 or P-384"
            ))
        })?;
        if !algorithm.fits(certificate.public_key()) {
            return Err(misfit(&type_id));
        }
        let intermediate = intermediate::choose(&certificate, &type_id, intermediate, others)?;
        let issuer = AnyRef::from_der(&intermediate).and_then(Certificate::read)?;
        let signer = Self {
            key,
            is_foreign,
            teams: certificate.subject.units.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            intermediate_not_after: issuer.not_after,
            cms: Cms::new(algorithm, own, intermediate.clone())?,
            type_id,
        };
        signer.check_days(now()?)?;
        Ok(signer)
    }

    /// Returns the type of the passes or orders that the certificate is for.
    #[must_use]
    pub fn type_id(&self) -> &TypeIdentifier {
        &self.type_id
    }

    /// Returns the team of the certificate: 10 letters and digits. Write it into `teamIdentifier`.
    #[must_use]
    pub fn team(&self) -> Option<&str> {
        self.teams.first().map(String::as_str)
    }

    /// Returns the certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.cms.certificate()
    }

    /// Returns the intermediate certificate in DER, which issued the certificate.
    #[must_use]
    pub fn intermediate(&self) -> &[u8] {
        self.cms.intermediate()
    }

    /// Checks that phones can accept archives of this type and team that this signer signs.
    ///
    /// [`ArchiveBuilder::build_signed`](crate::ArchiveBuilder::build_signed) does not check this,
    /// so that tests can make wrong archives. [`Report::of`](crate::Report::of) also reports the
    /// problem.
    ///
    /// # Errors
    /// Fails if the certificate is for another type or another team.
    pub fn check_for(
        &self,
        type_id: &TypeIdentifier,
        team_identifier: &str,
    ) -> Result<(), SignerError> {
        let certified = &self.type_id;
        if certified != type_id {
            return Err(SignerError::new(
                SignerErrorKind::Type,
                format!(
                    "the certificate is for {certified}, not for {type_id}; sign with the certificate of {type_id}"
                ),
            ));
        }
        if !self.teams.iter().any(|team| team == team_identifier) {
            let teams = self.teams.join("\", \"");
            return Err(SignerError::new(
                SignerErrorKind::Team,
                format!(
                    "the certificate for {certified} belongs to the team \"{}\", not to \"{}\"; write the team \
                     of the certificate as teamIdentifier",
                    OneLine::of(&teams),
                    OneLine::of(team_identifier)
                ),
            ));
        }
        Ok(())
    }

    /// Returns a line that says which certificate expires in the next 90 days, or has expired. Show
    /// it to the person who renews certificates.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let now = now().ok()?;
        let (type_id, own) = (&self.type_id, self.not_after);
        let intermediate = self.intermediate_not_after;
        if now + RENEWAL > own {
            Some(format!(
                "the certificate for {type_id} expires on {}; renew it before that day, in Apple's developer portal",
                date(own)
            ))
        } else if now + RENEWAL > intermediate {
            Some(format!(
                "the intermediate certificate of {type_id} expires on {}; get the next generation from \
                 https://www.apple.com/certificateauthority/",
                date(intermediate)
            ))
        } else {
            None
        }
    }

    /// Signs bytes. Returns a detached CMS signature in DER, with the certificate, the intermediate
    /// certificate and the time.
    ///
    /// For [`Purpose::Manifest`], the content is the exact bytes of `manifest.json`. For
    /// [`Purpose::PersonalizationToken`], the content is the token that a phone sent: 1 to 256
    /// ASCII letters, digits and characters of `._~+/=-`. Other tokens are refused, because
    /// strangers choose the tokens. Without this check, a stranger could get a manifest signed by
    /// sending it as a token.
    ///
    /// The call blocks while the key signs.
    ///
    /// # Errors
    /// Fails if the certificate has expired in the meantime, if the content is not a
    /// personalization token, or if the key fails.
    pub fn sign(&self, purpose: Purpose, content: &[u8]) -> Result<Vec<u8>, SignerError> {
        if purpose == Purpose::PersonalizationToken && !is_token(content) {
            return Err(SignerError::new(
                SignerErrorKind::Token,
                "the text is not a personalization token; a token has 1 to 256 ASCII letters, digits and characters \
                 of \"._~+/=-\", and is not JSON",
            ));
        }
        let now = now()?;
        self.check_days(now)?;
        let attributes = self.cms.attributes(content, now)?;
        let message = attributes.message()?;
        let signature = self
            .key
            .sign(purpose, &message)
            .map_err(|error| SignerError::signing(&self.type_id, error))?;
        if self.is_foreign {
            self.verify(&message, &signature)?;
        }
        Ok(self.cms.write(&attributes, &signature)?)
    }

    fn check_days(&self, now: Duration) -> Result<(), SignerError> {
        let type_id = &self.type_id;
        if now < self.not_before {
            return Err(SignerError::new(
                SignerErrorKind::NotYetValid,
                format!(
                    "the certificate for {type_id} is not valid before {}; wait, or correct the clock of this \
                     machine",
                    date(self.not_before)
                ),
            ));
        }
        if now > self.not_after {
            return Err(SignerError::new(
                SignerErrorKind::Expired,
                format!(
                    "the certificate for {type_id} expired on {}; get a new one from Apple's developer portal",
                    date(self.not_after)
                ),
            ));
        }
        Ok(())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignerError> {
        let certificate = SignedCertificate::from_der(self.cms.certificate())?.to_be_signed;
        let Algorithm {
            signature_id,
            digest,
            ..
        } = self.cms.algorithm;
        verification_algorithm(&certificate.public_key, signature_id, digest)
            .and_then(|algorithm| {
                let key = certificate.public_key.key.raw_bytes();
                UnparsedPublicKey::new(algorithm, key)
                    .verify(message, signature)
                    .ok()
            })
            .ok_or_else(|| misfit(&self.type_id))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("type_id", &self.type_id)
            .field("teams", &self.teams)
            .field("not_after", &date(self.not_after))
            .finish_non_exhaustive()
    }
}

fn misfit(type_id: &TypeIdentifier) -> SignerError {
    SignerError::new(
        SignerErrorKind::Key,
        format!(
            "the private key does not fit the certificate for {type_id}; use the key that the certificate was \
             requested with"
        ),
    )
}

fn is_token(content: &[u8]) -> bool {
    std::str::from_utf8(content).is_ok_and(|text| PersonalizationToken::new(text).is_ok())
}

/// Signs the tokens of rewards enrolments for passes of the type of the certificate.
#[async_trait]
impl TokenSigner for Signer {
    async fn sign(
        &self,
        type_id: &TypeIdentifier,
        token: &PersonalizationToken,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        if *type_id != self.type_id {
            return Ok(None);
        }
        let content = token.as_str().as_bytes();
        Ok(Some(self.sign(Purpose::PersonalizationToken, content)?))
    }
}

/// Returns the time since 1970.
fn now() -> Result<Duration, SignerError> {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| SignerError::new(SignerErrorKind::Other, "the clock is before 1970"))
}
