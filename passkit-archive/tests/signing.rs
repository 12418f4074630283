//! Signs with certificates like Apple's. OpenSSL verifies every signature up to the root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod authority;

use std::{
    error::Error,
    fs,
    sync::{Arc, Mutex},
};

use authority::{Authority, P256, P384, RSA, TEAM};
use passkit_archive::{
    ArchiveBuilder, Level, Purpose, Report, Rules, SignatureAlgorithm, Signer, SignerError,
    SignerErrorKind, SigningKey, placeholder_icon,
};
use passkit_identity::Identity;
use passkit_server::identifiers::{Kind, TypeIdentifier};

const TYPE: &str = "pass.com.example.ticket";
const ORDER_TYPE: &str = "order.com.example.shop";
const MANIFEST: &[u8] = br#"{"pass.json":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#;
const NFC: &str = "1.2.840.113635.100.6.1.26=ASN1:NULL\n";

fn identity(authority: &Authority, name: &str) -> Identity {
    let [certificate, key] = ["pem", "key"].map(|end| authority.path(&format!("{name}.{end}")));
    Identity::from_files(None, certificate, key).unwrap()
}

fn signer(authority: &Authority, name: &str) -> Signer {
    Signer::new(&identity(authority, name), Some(&authority.read("G4.pem"))).unwrap()
}

fn refusal(signer: Result<Signer, SignerError>) -> (SignerErrorKind, String) {
    let error = signer.unwrap_err();
    let said = error.to_string();
    assert!(!said.contains('\n'), "{said}");
    (error.kind(), said)
}

fn pass() -> ArchiveBuilder {
    let pass = serde_json::json!({
        "formatVersion": 1,
        "passTypeIdentifier": TYPE,
        "serialNumber": "A-1",
        "teamIdentifier": TEAM,
        "organizationName": "Example",
        "description": "A ticket",
        "webServiceURL": "https://example.com/wallet",
        "authenticationToken": "0123456789abcdef",
        "nfc": { "message": "a", "encryptionPublicKey": "b" },
        "eventTicket": {},
    });
    ArchiveBuilder::new(Kind::Pass, pass.to_string()).file("icon.png", placeholder_icon(29))
}

#[test]
fn openssl_verifies_the_signature_of_each_kind_of_key() {
    let authority = Authority::new();
    for (name, type_id, kind, algorithms) in [
        ("rsa", TYPE, RSA, ["sha256", "rsaEncryption"]),
        ("p256", ORDER_TYPE, P256, ["sha256", "ecdsa-with-SHA256"]),
        ("p384", TYPE, P384, ["sha384", "ecdsa-with-SHA384"]),
    ] {
        authority.certify(name, type_id, kind);
        let signer = signer(&authority, name);
        assert_eq!(
            (signer.type_id().as_str(), signer.team()),
            (type_id, Some(TEAM))
        );
        for content in [MANIFEST, b"", &[0, 13, 10, 255]] {
            let signature = signer.sign(Purpose::Manifest, content).unwrap();
            authority.verify(content, &signature).unwrap();
            // The check above proves something only if a changed content or signature does not
            // verify.
            let mut other = content.to_vec();
            other.push(b' ');
            assert!(authority.verify(&other, &signature).is_err());
            let mut other = signature.clone();
            *other.last_mut().unwrap() ^= 1;
            assert!(authority.verify(content, &other).is_err());
        }
        let signature = signer
            .sign(Purpose::PersonalizationToken, b"aZ09._~+/=-")
            .unwrap();
        authority.verify(b"aZ09._~+/=-", &signature).unwrap();

        let printed = authority.openssl(&[&[
            "cms",
            "-cmsout",
            "-print",
            "-inform",
            "DER",
            "-in",
            "signature",
        ]]);
        for part in algorithms.into_iter().chain([
            "object: contentType",
            "object: signingTime",
            "object: messageDigest",
            "OU=G4",
        ]) {
            assert!(printed.contains(part), "{part} in {printed}");
        }
        assert_eq!(printed.matches("d.certificate:").count(), 2, "{printed}");
    }
}

#[test]
fn openssl_verifies_the_signatures_of_each_kind_of_p12_file() {
    let authority = Authority::new();
    authority.certify("rsa", TYPE, RSA);
    authority.certify("p256", TYPE, P256);
    let g4 = String::from_utf8(authority.read("G4.pem")).unwrap();
    let schemes: [&[&str]; 6] = [
        &[],
        // Keychain Access writes this scheme.
        &["-legacy"],
        &["-legacy", "-descert"],
        &["-certpbe", "AES-128-CBC", "-keypbe", "AES-192-CBC"],
        &["-certpbe", "NONE", "-keypbe", "NONE"],
        &["-nomac"],
    ];
    for name in ["rsa", "p256"] {
        for options in schemes {
            let file = authority.export(name, "a pässword", &g4, options);
            let identity = Identity::from_pkcs12_file(None, &file, "a pässword").unwrap();
            // The intermediate certificate is in the file.
            let signer = Signer::new(&identity, None).unwrap();
            let signature = signer.sign(Purpose::Manifest, MANIFEST).unwrap();
            authority
                .verify(MANIFEST, &signature)
                .unwrap_or_else(|error| panic!("{name} {options:?}: {error}"));
        }
    }
}

#[test]
fn a_signed_archive_has_nothing_that_phones_refuse() {
    let authority = Authority::new();
    authority.certify_for("nfc", TYPE, RSA, NFC, &["-days", "365"]);
    let bytes = pass().build_signed(&signer(&authority, "nfc")).unwrap();
    let findings = Report::of(&bytes, Rules::strict()).findings;
    assert!(findings.worst() < Some(Level::Refused), "{findings}");
    // Phones refuse a pass with `nfc` if its certificate lacks the extension for NFC.
    authority.certify("plain", TYPE, RSA);
    let bytes = pass().build_signed(&signer(&authority, "plain")).unwrap();
    let findings = Report::of(&bytes, Rules::strict()).findings;
    assert_eq!(findings[0].rule().code, "certificate-nfc", "{findings}");
}

#[test]
fn the_intermediate_is_chosen_by_the_issuer_of_the_certificate() {
    let authority = Authority::new();
    authority.certify("ticket", TYPE, P256);
    let identity = identity(&authority, "ticket");
    let text = |name: &str| String::from_utf8(authority.read(name)).unwrap();

    // The intermediate is found in the file of the certificate, whatever else the file contains.
    let all = text("root.pem") + &text("G3.pem") + &text("ticket.pem") + &text("G4.pem");
    let with_chain = Identity::from_pem(None, all.as_bytes(), text("ticket.key").as_bytes());
    let chosen = Signer::new(&with_chain.unwrap(), None).unwrap();
    let given = signer(&authority, "ticket");
    assert_eq!(chosen.intermediate(), given.intermediate());

    // A file given as intermediate may be DER, or contain several certificates in PEM.
    let both = text("G3.pem") + &text("G4.pem");
    Signer::new(&identity, Some(both.as_bytes())).unwrap();
    let der = Signer::new(&identity, Some(given.intermediate())).unwrap();
    let signature = der.sign(Purpose::Manifest, MANIFEST).unwrap();
    authority.verify(MANIFEST, &signature).unwrap();

    // Without a given intermediate, the issuer of this certificate is unknown.
    let (kind, said) = refusal(Signer::new(&identity, None));
    assert_eq!(kind, SignerErrorKind::Intermediate);
    assert!(
        said.contains("issued by \"Worldwide Developer Relations (for tests)\" (G4)"),
        "{said}"
    );

    for (given, mentions) in [
        // Another generation of the intermediate has the same name.
        (authority.read("G3.pem"), "(for tests)\" (G3), but"),
        (authority.read("root.pem"), "Apple Root CA (for tests)"),
        (authority.read("ticket.pem"), TYPE),
        (authority.read("ticket.key"), "no certificate"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "is a JPEG image"),
        (placeholder_icon(1), "is a PNG image"),
        (pass().build_unsigned().unwrap(), "is a zip archive"),
        (authority.read("ticket.csr"), "is the signing request"),
        (
            fs::read(authority.export("ticket", "", &text("root.pem"), &[])).unwrap(),
            "is PKCS #12 (.p12); give a file",
        ),
        (Vec::new(), "no certificate"),
    ] {
        let (kind, said) = refusal(Signer::new(&identity, Some(&given)));
        assert_eq!(kind, SignerErrorKind::Intermediate, "{said}");
        assert!(
            said.contains("intermediate") && said.contains(mentions),
            "{said}"
        );
    }
}

#[test]
fn a_certificate_that_is_not_valid_now_is_refused() {
    let authority = Authority::new();
    let days = |start: &'static str, end: &'static str| ["-startdate", start, "-enddate", end];
    let make = |name: &str, days: &[&str]| {
        authority.certify_for(name, TYPE, P256, "", days);
        let key: Key = Key::of(identity_even_if_expired(&authority, name));
        Signer::with_key(
            &authority.read(&format!("{name}.pem")),
            key,
            Some(&authority.read("G4.pem")),
        )
    };
    let (kind, said) = refusal(make("old", &days("20200101000000Z", "20210131120000Z")));
    assert_eq!(kind, SignerErrorKind::Expired);
    assert!(
        said.contains(TYPE) && said.contains("expired on 2021-01-31"),
        "{said}"
    );
    let (kind, said) = refusal(make("new", &days("20480131000000Z", "20490101000000Z")));
    assert_eq!(kind, SignerErrorKind::NotYetValid);
    assert!(said.contains("not valid before 2048-01-31"), "{said}");

    // The warning starts 90 days before the end.
    assert_eq!(make("long", &["-days", "92"]).unwrap().warning(), None);
    let warning = make("short", &["-days", "89"]).unwrap().warning().unwrap();
    assert!(
        warning.contains(TYPE) && warning.contains("renew"),
        "{warning}"
    );
    assert!(make("last", &["-days", "1"]).unwrap().warning().is_some());
}

/// Returns an identity with the key of `name`, and with a certificate that has not expired.
fn identity_even_if_expired(authority: &Authority, name: &str) -> Identity {
    authority.openssl(&[
        &["req", "-x509", "-key", &format!("{name}.key"), "-days", "9"],
        &["-subj", &format!("/UID={TYPE}"), "-out", "stand-in.pem"],
    ]);
    let key = authority.read(&format!("{name}.key"));
    Identity::from_pem(None, &authority.read("stand-in.pem"), &key).unwrap()
}

#[test]
fn types_and_teams_are_compared() {
    let authority = Authority::new();
    authority.certify("ticket", TYPE, P256);
    let signer = signer(&authority, "ticket");
    let type_id = TypeIdentifier::new(TYPE).unwrap();
    signer.check_for(&type_id, TEAM).unwrap();
    let error = signer
        .check_for(
            &TypeIdentifier::new("pass.com.example.other").unwrap(),
            TEAM,
        )
        .unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Type);
    assert!(
        error
            .to_string()
            .contains("is for pass.com.example.ticket, not for pass.com.example.other")
    );
    let error = signer.check_for(&type_id, "OTHER\n1234").unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Team);
    assert!(
        error
            .to_string()
            .contains(r#"to the team "ABCDE12345", not to "OTHER\n1234""#),
        "{error}"
    );

    // A certificate for another purpose has no type.
    authority.certify("site", "com.example.site", P256);
    let key = Key::of(identity(&authority, "ticket"));
    let (kind, said) = refusal(Signer::with_key(&authority.read("site.pem"), key, None));
    assert_eq!(kind, SignerErrorKind::Certificate);
    assert!(said.contains("names no type"), "{said}");
}

/// A key outside this process. It records the calls.
#[derive(Clone)]
struct Key {
    identity: Identity,
    algorithm: SignatureAlgorithm,
    asked: Arc<Mutex<Vec<(Purpose, usize)>>>,
}

impl Key {
    fn of(identity: Identity) -> Self {
        Self {
            algorithm: identity.algorithm(),
            identity,
            asked: Arc::default(),
        }
    }
}

impl SigningKey for Key {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign(
        &self,
        purpose: Purpose,
        message: &[u8],
    ) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        self.asked.lock().unwrap().push((purpose, message.len()));
        if purpose == Purpose::PersonalizationToken {
            return Err("this key signs passes only".into());
        }
        Ok(self.identity.sign(message)?)
    }
}

#[test]
fn a_key_that_is_elsewhere_learns_the_purpose_and_never_the_content() {
    let authority = Authority::new();
    authority.certify("ticket", TYPE, RSA);
    let key = Key::of(identity(&authority, "ticket"));
    let (certificate, g4) = (authority.read("ticket.pem"), authority.read("G4.pem"));
    let signer = Signer::with_key(&certificate, key.clone(), Some(&g4)).unwrap();
    let long = vec![b'{'; 1 << 20];
    let signature = signer.sign(Purpose::Manifest, &long).unwrap();
    authority.verify(&long, &signature).unwrap();
    let error = signer
        .sign(Purpose::PersonalizationToken, b"abc")
        .unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Signing);
    assert_eq!(
        error.source().unwrap().to_string(),
        "this key signs passes only"
    );
    let asked = key.asked.lock().unwrap().clone();
    let purposes: Vec<_> = asked.iter().map(|(purpose, _)| *purpose).collect();
    assert_eq!(purposes, [Purpose::Manifest, Purpose::PersonalizationToken]);
    assert!(asked.iter().all(|(_, length)| *length < 200), "{asked:?}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let authority = Authority::new();
    authority.certify("ticket", TYPE, P256);
    authority.certify("other", TYPE, P256);
    authority.certify("rsa", TYPE, RSA);
    authority.certify("p384", TYPE, P384);
    let (certificate, g4) = (authority.read("ticket.pem"), authority.read("G4.pem"));
    // A key of another kind is noticed at once.
    for name in ["rsa", "p384"] {
        let key = Key::of(identity(&authority, name));
        let (kind, said) = refusal(Signer::with_key(&certificate, key, Some(&g4)));
        assert_eq!(kind, SignerErrorKind::Key);
        assert!(said.contains("does not fit"), "{said}");
    }
    // Another key of the same kind is noticed before its signature is used.
    let key = Key::of(identity(&authority, "other"));
    let signer = Signer::with_key(&certificate, key, Some(&g4)).unwrap();
    let error = signer.sign(Purpose::Manifest, MANIFEST).unwrap_err();
    assert_eq!(error.kind(), SignerErrorKind::Key);
    // Phones refuse Ed25519.
    let mut key = Key::of(identity(&authority, "ticket"));
    key.algorithm = SignatureAlgorithm::Ed25519;
    let (kind, said) = refusal(Signer::with_key(&certificate, key, Some(&g4)));
    assert_eq!(kind, SignerErrorKind::Key);
    assert!(said.contains("Ed25519, which phones refuse"), "{said}");
}

#[test]
fn nothing_but_a_token_is_signed_as_a_token() {
    let signer = Signer::throwaway(&TypeIdentifier::new(TYPE).unwrap(), TEAM).unwrap();
    let longest = "a".repeat(256);
    for token in ["a", "F5bDo7_n.p~q", &longest] {
        signer
            .sign(Purpose::PersonalizationToken, token.as_bytes())
            .unwrap();
    }
    let manifest = std::str::from_utf8(MANIFEST).unwrap();
    let too_long = "a".repeat(257);
    for other in [
        manifest, "", "{}", "[]", "\"a\"", "null", "-1", "a b", "a\n", "ä", "a\0", &too_long,
    ] {
        let error = signer
            .sign(Purpose::PersonalizationToken, other.as_bytes())
            .unwrap_err();
        assert_eq!(error.kind(), SignerErrorKind::Token, "{other}");
    }
}

#[test]
fn a_damaged_certificate_is_an_error_of_one_line() {
    let authority = Authority::new();
    authority.certify("ticket", TYPE, P256);
    let key = Key::of(identity(&authority, "ticket"));
    let der = signer(&authority, "ticket").certificate().to_vec();
    let g4 = authority.read("G4.pem");
    let mut refused = 0;
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0x41;
        match Signer::with_key(&changed, key.clone(), Some(&g4)) {
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{error}");
            }
            // The certificate can be read, so the signature of its issuer was not checked.
            Ok(_) => panic!("byte {at} can be changed"),
        }
    }
    assert_eq!(refused, der.len());
}

/// The shipped certificate is Apple's, because it has the digest that Apple publishes.
#[test]
fn the_shipped_intermediate_is_the_g4_of_apple() {
    let authority = Authority::new();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/certificates/AppleWWDRCAG4.cer"
    );
    let printed = authority.openssl(&[
        &["x509", "-inform", "DER", "-in", file, "-noout", "-subject"],
        &["-nameopt", "RFC2253", "-enddate", "-fingerprint", "-sha256"],
    ]);
    let name = "CN=Apple Worldwide Developer Relations Certification Authority";
    assert!(
        printed.contains(name) && printed.contains("OU=G4"),
        "{printed}"
    );
    assert!(
        printed.contains("notAfter=Dec 10 00:00:00 2030 GMT"),
        "{printed}"
    );
    assert!(
        printed
            .replace(':', "")
            .to_lowercase()
            .contains("ea4757885538dd8cb59ff4556f676087d83c85e70902c122e42c0808b5bce14c"),
        "{printed}"
    );
}
