//! The certificate that issued the certificate of the signer. Without it, a phone shows nothing.

use der::{Decode as _, asn1::AnyRef};
use passkit_identity::{
    pem::{self, PemError},
    pki_types::CertificateDer,
};
use passkit_server::{identifiers::TypeIdentifier, text::OneLine};

use super::{SignerError, SignerErrorKind};
use crate::certificate::{Certificate, Relation};

/// Apple's certificate "Worldwide Developer Relations Certification Authority" of the generation
/// G4, which issues the certificates of passes and orders. It is valid until 2030-12-10. Older
/// generations are left out, because they issued no certificate of a pass that is still valid.
///
/// The SHA-256 is `ea4757885538dd8cb59ff4556f676087d83c85e70902c122e42c0808b5bce14c`. Apple
/// publishes the file at <https://www.apple.com/certificateauthority/>.
pub(super) const APPLE_G4: &[u8] = include_bytes!("../../certificates/AppleWWDRCAG4.cer");

/// Returns the issuer's certificate in DER. This is the given certificate (PEM or DER), a
/// certificate of `others`, or Apple's.
pub(super) fn choose(
    leaf: &Certificate<'_>,
    type_id: &TypeIdentifier,
    given: Option<&[u8]>,
    others: &[CertificateDer<'_>],
) -> Result<Vec<u8>, SignerError> {
    let wrong = |message| SignerError::new(SignerErrorKind::Intermediate, message);
    let issuer = leaf.issuer.shown();
    let issuer = OneLine::of(&issuer);
    let given = given
        .map(|given| {
            pem::certificates(given).map_err(|error| {
                wrong(match error {
                    PemError::Pkcs12 => "the intermediate certificate is PKCS #12 (.p12); give a file that has only \
                                         that certificate, in PEM or DER"
                        .into(),
                    error => format!("the intermediate certificate {error}"),
                })
            })
        })
        .transpose()?;
    let candidates: Vec<&[u8]> = match &given {
        Some(given) => given.iter().map(|given| &given[..]).collect(),
        None => others
            .iter()
            .map(|other| &other[..])
            .chain([APPLE_G4])
            .collect(),
    };
    let mut names = Vec::new();
    for candidate in candidates {
        let certificate = match AnyRef::from_der(candidate).and_then(Certificate::read) {
            Ok(certificate) => certificate,
            // The file of the signer's certificate may also contain certificates that don't matter
            // here.
            Err(_) if given.is_none() => continue,
            Err(error) => {
                return Err(wrong(format!(
                    "the intermediate certificate is damaged: {error}"
                )));
            }
        };
        match certificate.relation_to(leaf) {
            Relation::Issuer => return Ok(candidate.to_vec()),
            Relation::Forged => {
                return Err(SignerError::new(
                    SignerErrorKind::Certificate,
                    format!(
                        "the certificate for {type_id} was not signed by its issuer; it was changed or damaged"
                    ),
                ));
            }
            Relation::Namesake | Relation::Stranger => names.push(certificate.subject.shown()),
        }
    }
    Err(wrong(match (given, names.first()) {
        (Some(_), Some(name)) => format!(
            "the intermediate certificate is {}, but the certificate for {type_id} was issued by {issuer}; use the \
             certificate of that issuer",
            OneLine::of(name)
        ),
        _ => format!(
            "the certificate for {type_id} was issued by {issuer}, whose certificate is not known; give the certificate of the \
             issuer as the intermediate"
        ),
    }))
}
