//! Reads and checks certificates and keys from files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keys;
mod pem;
#[cfg(feature = "pkcs12")]
mod pkcs12;

use std::time::{Duration, SystemTime};

use passkit_server::identifiers::TypeIdentifier;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const TYPE: &str = "pass.com.example.ticket";
const OTHER_TYPE: &str = "pass.com.example.other";
const TEAM: &str = "ABCDE12345";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn type_id() -> TypeIdentifier {
    TypeIdentifier::new(TYPE).unwrap()
}

/// An authority that takes Apple's place.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A certificate and its key, in PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// Issues a certificate that is valid since yesterday, for a year.
    fn issue(&self, type_id: &str) -> Issued {
        let now = SystemTime::now();
        self.issue_for(type_id, now - DAY, now + 365 * DAY)
    }

    fn issue_for(&self, type_id: &str, not_before: SystemTime, not_after: SystemTime) -> Issued {
        let mut params = CertificateParams::new([]).unwrap();
        let user_id = DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]);
        params.distinguished_name.push(user_id, type_id);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Pass Type ID: {type_id}"));
        params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, TEAM);
        let time = |time: SystemTime| {
            rcgen::date_time_ymd(1970, 1, 1) + time.duration_since(SystemTime::UNIX_EPOCH).unwrap()
        };
        (params.not_before, params.not_after) = (time(not_before), time(not_after));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued {
            certificate,
            key: key.serialize_pem(),
        }
    }

    fn issue_expired(&self) -> Issued {
        self.issue_for(
            TYPE,
            SystemTime::UNIX_EPOCH + 9_000 * DAY,
            SystemTime::UNIX_EPOCH + 10_000 * DAY,
        )
    }
}
