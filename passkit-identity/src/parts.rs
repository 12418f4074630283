use std::sync::Arc;

use passkit_server::identifiers::TypeIdentifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    certificate::Facts,
    key::SigningKey,
    pem::{self, FoundKey, PemError},
};

/// The content of the files: certificates in any order, and private keys or the reason why there
/// are none.
pub(crate) struct Parts {
    certificates: Vec<CertificateDer<'static>>,
    keys: Result<Vec<PrivateKeyDer<'static>>, Fault>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    /// The certificate of the key, then all other certificates of the file.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) signing_key: Arc<SigningKey>,
    pub(crate) facts: Facts,
}

#[derive(Clone, Copy)]
pub(crate) enum Part {
    Certificate,
    Key,
}

/// The password of a file. Without the feature `pkcs12`, there is none.
#[derive(Clone)]
#[cfg(feature = "pkcs12")]
pub(crate) struct Password(pub(crate) String);
#[derive(Clone)]
#[cfg(not(feature = "pkcs12"))]
pub(crate) enum Password {}

/// The faulty part, and a message that continues a line after the name of its file.
#[derive(Clone)]
pub(crate) struct Fault(pub(crate) Part, pub(crate) String);

impl Parts {
    pub(crate) fn of_pem(
        certificate: &[u8],
        key: &[u8],
        password: Option<&Password>,
    ) -> Result<Self, Fault> {
        let certificates =
            pem::certificates(certificate).map_err(|error| certificate_fault(error.to_string()))?;
        let found = pem::find_key(key).map_err(|error| key_fault(error.to_string()));
        let keys = found.and_then(|found| match (found, password) {
            (FoundKey::Plain(key), _) => Ok(vec![key]),
            (FoundKey::Encrypted(_), None) => Err(key_fault(PemError::Encrypted.to_string())),
            #[cfg(feature = "pkcs12")]
            (FoundKey::Encrypted(encrypted), Some(Password(password))) => {
                let key = crate::pkcs12::decrypt_key(&encrypted, password)
                    .map_err(|problem| key_fault(problem.to_string()))?;
                Ok(vec![PrivateKeyDer::Pkcs8(key.into())])
            }
            #[cfg(not(feature = "pkcs12"))]
            (FoundKey::Encrypted(_), Some(password)) => match *password {},
        });
        Ok(Self { certificates, keys })
    }

    #[cfg(feature = "pkcs12")]
    pub(crate) fn of_pkcs12(pkcs12: &[u8], password: &str) -> Result<Self, Fault> {
        let contents = crate::pkcs12::open(pkcs12, password)
            .map_err(|problem| certificate_fault(problem.to_string()))?;
        if contents.certificates.is_empty() {
            return Err(certificate_fault("has no certificate"));
        }
        let keys = if contents.keys.is_empty() {
            Err(key_fault(
                "has no private key: export the certificate together with its key",
            ))
        } else {
            Ok(contents
                .keys
                .into_iter()
                .map(|key| PrivateKeyDer::Pkcs8(key.into()))
                .collect())
        };
        Ok(Self {
            certificates: contents
                .certificates
                .into_iter()
                .map(CertificateDer::from)
                .collect(),
            keys,
        })
    }

    /// Returns the type that the certificate of the key names. If no certificate fits the key,
    /// returns the first type that any certificate names.
    pub(crate) fn type_id(&self) -> Result<TypeIdentifier, Fault> {
        let of_facts = |facts: &Facts| {
            facts
                .types
                .iter()
                .find_map(|name| TypeIdentifier::new(name).ok())
        };
        let pairs = self.pairs().unwrap_or_default();
        // If several pairs fit, the one whose certificate expires last is used.
        pairs
            .iter()
            .filter_map(|pair| Some((pair.facts.not_after, of_facts(&pair.facts)?)))
            .max_by_key(|(not_after, _)| *not_after)
            .map(|(_, type_id)| type_id)
            .or_else(|| {
                self.certificates
                    .iter()
                    .find_map(|one| of_facts(&Facts::read(one).ok()?))
            })
            .ok_or_else(|| {
                certificate_fault(
                    "names no type of passes or orders: it is not the certificate of a Pass Type ID",
                )
            })
    }

    /// Returns each certificate that fits one of the keys, with its chain.
    fn pairs(&self) -> Result<Vec<Pair>, Fault> {
        let mut pairs = Vec::new();
        let mut unusable = None;
        for key in self.keys.as_ref().map_err(Clone::clone)? {
            let Some(signing_key) = SigningKey::read(key).map(Arc::new) else {
                unusable = Some(key_fault(
                    "its private key can't be used: it must be RSA of 2048 bits or more, ECDSA on P-256 or P-384, \
                     or Ed25519",
                ));
                continue;
            };
            for first in 0..self.certificates.len() {
                // The key's certificate comes first in the chain, wherever it is in the file.
                let mut chain = self.certificates.clone();
                chain[..=first].rotate_right(1);
                match chain.first().map(|certificate| Facts::read(certificate)) {
                    Some(Ok(facts)) if facts.public_key == signing_key.public_key() => {
                        pairs.push(Pair {
                            chain,
                            key: key.clone_key(),
                            signing_key: Arc::clone(&signing_key),
                            facts,
                        });
                    }
                    _ => {}
                }
            }
        }
        if pairs.is_empty() {
            return Err(unusable
                .unwrap_or_else(|| key_fault("its private key does not fit the certificate")));
        }
        Ok(pairs)
    }

    /// Returns the pair for a type. If there are several, returns the one whose certificate expires
    /// last.
    pub(crate) fn pair_for(self, type_id: &TypeIdentifier) -> Result<Pair, Fault> {
        let pairs = self.pairs()?;
        let other = pairs
            .first()
            .and_then(|pair| pair.facts.types.first())
            .map_or_else(
                || "the certificate names no type (the UID of its subject)".to_owned(),
                |other| format!("is a certificate for {other}, not for {type_id}"),
            );
        pairs
            .into_iter()
            .filter(|pair| pair.facts.types.iter().any(|one| one == type_id.as_str()))
            .max_by_key(|pair| pair.facts.not_after)
            .ok_or_else(|| certificate_fault(other))
    }
}

fn certificate_fault(problem: impl Into<String>) -> Fault {
    Fault(Part::Certificate, problem.into())
}

fn key_fault(problem: impl Into<String>) -> Fault {
    Fault(Part::Key, problem.into())
}
