use std::time::SystemTime;

use passkit_server::identifiers::TypeIdentifier;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use crate::certificate::Facts;

/// What was read: certificates in any order, and private keys, or why there is none.
pub(crate) struct Parts {
    certificates: Vec<CertificateDer<'static>>,
    keys: Result<Vec<PrivateKeyDer<'static>>, Fault>,
}

#[derive(Clone, Copy)]
pub(crate) enum Part {
    Certificate,
    Key,
}

/// What is wrong with which part, to follow the name of its file.
#[derive(Clone)]
pub(crate) struct Fault(pub(crate) Part, pub(crate) String);

impl Parts {
    pub(crate) fn of_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Fault> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| certificate_fault(format!("is no PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(certificate_fault("has no certificate in PEM"));
        }
        let keys = PrivateKeyDer::from_pem_slice(key).map(|key| vec![key]).map_err(|_| {
            let encrypted = key.windows(9).any(|part| part == b"ENCRYPTED");
            key_fault(if encrypted {
                "its private key is encrypted: decrypt it with `openssl pkey`"
            } else {
                "has no private key in PEM"
            })
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
            Err(key_fault("has no private key: export the certificate together with its key"))
        } else {
            Ok(contents.keys.into_iter().map(|key| PrivateKeyDer::Pkcs8(key.into())).collect())
        };
        Ok(Self { certificates: contents.certificates.into_iter().map(CertificateDer::from).collect(), keys })
    }

    /// What the certificate of the key is for; if there is none, the first that says so.
    pub(crate) fn topic(&self) -> Result<TypeIdentifier, Fault> {
        let of_facts = |facts: &Facts| facts.topics.iter().find_map(|topic| TypeIdentifier::new(topic).ok());
        let of_key = self.fitting().unwrap_or_default();
        // Of several, that which is good longest.
        of_key
            .iter()
            .filter_map(|(_, facts)| Some((facts.not_after, of_facts(facts)?)))
            .max_by_key(|(not_after, _)| *not_after)
            .map(|(_, topic)| topic)
            .or_else(|| self.certificates.iter().find_map(|one| of_facts(&Facts::read(one).ok()?)))
            .ok_or_else(|| {
                certificate_fault("names no type of passes or orders: it is no certificate of a Pass Type ID")
            })
    }

    /// Each certificate that has its key here, with its chain.
    fn fitting(&self) -> Result<Vec<(CertifiedKey, Facts)>, Fault> {
        let mut fitting = Vec::new();
        let mut unusable = None;
        for key in self.keys.as_ref().map_err(Clone::clone)? {
            let key = match ring::default_provider().key_provider.load_private_key(key.clone_key()) {
                Ok(key) => key,
                Err(error) => {
                    unusable = Some(key_fault(format!("its private key can't be used: {error}")));
                    continue;
                }
            };
            for first in 0..self.certificates.len() {
                // The one of the key comes first, whatever the order of the file.
                let mut chain = self.certificates.clone();
                chain[..=first].rotate_right(1);
                let facts = chain.first().map(|certificate| Facts::read(certificate));
                let certified = CertifiedKey::new(chain, key.clone());
                if let (Some(facts), Ok(())) = (facts, certified.keys_match()) {
                    let facts = facts.map_err(|error| {
                        certificate_fault(format!("its certificate can't be read: {error}"))
                    })?;
                    fitting.push((certified, facts));
                }
            }
        }
        if fitting.is_empty() {
            return Err(unusable.unwrap_or_else(|| key_fault("its private key does not fit the certificate")));
        }
        Ok(fitting)
    }

    /// The certificate for a topic, with its key and its chain, and when it expires.
    pub(crate) fn check(self, topic: &TypeIdentifier) -> Result<(CertifiedKey, SystemTime), Fault> {
        let fitting = self.fitting()?;
        let first = fitting.first().map(|(_, facts)| facts);
        let other = first.and_then(|facts| facts.topics.first()).map_or_else(
            || "its certificate names no topic (the UID of its subject)".to_owned(),
            |other| format!("is a certificate for {other}, not for {topic}"),
        );
        // A file may hold more than one: of those, that which is good longest.
        let (certified, facts) = fitting
            .into_iter()
            .filter(|(_, facts)| facts.topics.iter().any(|one| one == topic.as_str()))
            .max_by_key(|(_, facts)| facts.not_after)
            .ok_or_else(|| certificate_fault(other))?;
        if facts.not_after <= SystemTime::now() {
            let date = httpdate::fmt_http_date(facts.not_after);
            return Err(certificate_fault(format!("expired on {date}")));
        }
        Ok((certified, facts.not_after))
    }
}

fn certificate_fault(problem: impl Into<String>) -> Fault {
    Fault(Part::Certificate, problem.into())
}

fn key_fault(problem: impl Into<String>) -> Fault {
    Fault(Part::Key, problem.into())
}
