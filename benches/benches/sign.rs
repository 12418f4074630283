//! Measures how long it takes to make a signed pass of about 50 KB, with an RSA key of 2048 bits. The floor is the bare
//! signature of ring with the same key.

#![allow(clippy::expect_used)]

use std::{fs, process::Command, sync::Arc, thread};

use passkit_archive::{
    ArchiveBuilder, Signer, placeholder_icon,
    template::{Style, Template},
};
use passkit_benches::turns::{Bench, Side, called};
use passkit_identity::{Identity, pki_types::PrivateKeyDer};
use passkit_server::identifiers::Kind;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::json;

const TYPE: &str = "pass.com.example.ticket";
const TEAM: &str = "ABCDE12345";

/// This message has the same length as the signed attributes. These are the bytes that a signer signs.
const MESSAGE: [u8; 107] = [7; 107];

/// Square images of a pass, with the lengths of their sides. Together, their files have 46 KB.
const IMAGES: [(&str, u16); 6] = [
    ("icon.png", 38),
    ("icon@2x.png", 76),
    ("icon@3x.png", 114),
    ("logo@2x.png", 200),
    ("strip@2x.png", 320),
    ("strip@3x.png", 450),
];

fn main() {
    let mut bench = Bench::new("sign");
    let identity = identity();
    let signer = Arc::new(Signer::new(&identity, Some(&identity.chain()[0])).expect("a signer"));
    let key = Arc::new(key(&identity));
    let base = images().into_iter().fold(
        ArchiveBuilder::new(Kind::Pass, ""),
        |builder, (name, content)| builder.file(name, content),
    );
    let text: Arc<str> = pass().into();
    let template = Arc::new(template(&text));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for callers in [1, cores] {
        let floor = || -> Side {
            let key = Arc::clone(&key);
            called(callers, move |_| {
                let key = Arc::clone(&key);
                async move {
                    let mut signature = vec![0; key.public().modulus_len()];
                    let random = SystemRandom::new();
                    key.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut signature)
                        .expect("signed");
                }
            })
        };
        bench.compare("rsa", "a pass whose images are shared", callers, || {
            let (base, signer, text) = (base.clone(), Arc::clone(&signer), text.clone());
            let own = called(callers, move |number| {
                let (builder, signer, text) = (base.clone(), Arc::clone(&signer), text.clone());
                async move {
                    let builder = builder.file("pass.json", of_number(&text, number));
                    builder.build_signed(&signer).expect("a pass");
                }
            });
            (floor(), own)
        });
        bench.compare("rsa", "a pass whose files are all new", callers, || {
            let (signer, text, images) = (Arc::clone(&signer), text.clone(), Arc::new(images()));
            let own = called(callers, move |number| {
                let (signer, text, images) =
                    (Arc::clone(&signer), text.clone(), Arc::clone(&images));
                async move {
                    let builder = images.iter().fold(
                        ArchiveBuilder::new(Kind::Pass, of_number(&text, number)),
                        |builder, (name, content)| builder.file(*name, &content[..]),
                    );
                    builder.build_signed(&signer).expect("a pass");
                }
            });
            (floor(), own)
        });
        bench.compare("rsa", "a template, filled in and checked", callers, || {
            let (template, signer) = (Arc::clone(&template), Arc::clone(&signer));
            let own = called(callers, move |number| {
                let (template, signer) = (Arc::clone(&template), Arc::clone(&signer));
                async move {
                    let draft = template.fill().serial(&format!("A-{number}"));
                    let builder = draft.field("seat", number).finish().expect("a good pass");
                    builder.build_signed(&signer).expect("a pass");
                }
            });
            (floor(), own)
        });
    }
    bench.finish();
}

/// Makes a key and a certificate with OpenSSL, because ring makes no keys for RSA. The certificate is its own issuer.
fn identity() -> Identity {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 9 -keyout key -out certificate".split(' '))
        .args(["-subj", &format!("/UID={TYPE}/CN=Pass/OU={TEAM}")])
        .current_dir(&folder)
        .output()
        .expect("openssl is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let read = |name| fs::read(folder.path().join(name)).expect("written by openssl");
    Identity::from_pem(None, &read("certificate"), &read("key")).expect("an identity")
}

fn key(identity: &Identity) -> RsaKeyPair {
    match identity.private_key() {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        _ => panic!("OpenSSL writes PKCS #8"),
    }
    .expect("a key for RSA")
}

fn template(text: &str) -> Template {
    let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let members = json.as_object().expect("an object").clone();
    let bare = Template::new(Style::EventTicket);
    let draft = members
        .into_iter()
        .fold(bare.fill(), |draft, (key, value)| {
            draft.set(&format!("/{key}"), value)
        });
    let draft = images()
        .into_iter()
        .fold(draft, |draft, (name, content)| draft.image(name, content));
    draft.into_template().expect("a template")
}

fn images() -> Vec<(&'static str, Vec<u8>)> {
    IMAGES
        .map(|(name, side)| (name, placeholder_icon(side)))
        .to_vec()
}

/// Returns the text of another pass.
fn of_number(text: &str, number: usize) -> String {
    text.replace("NUMBER", &format!("{number:06}"))
}

/// Returns a `pass.json` of about 3 KB.
fn pass() -> String {
    let back: Vec<_> = (0..8)
        .map(|field| {
            json!({
                "key": format!("back-{field}"),
                "label": format!("Rule {field}"),
                "value": format!("Rule {field} of this ticket says who may come in, when the doors open, and what \
                                  to do if the event is moved. Show the ticket at the door."),
            })
        })
        .collect();
    let url = "https://wallet.example.com/passes";
    json!({
        "formatVersion": 1,
        "passTypeIdentifier": TYPE,
        "serialNumber": "A-NUMBER",
        "teamIdentifier": TEAM,
        "organizationName": "Example",
        "description": "A ticket",
        "webServiceURL": url,
        "authenticationToken": "0123456789abcdef-NUMBER",
        "backgroundColor": "rgb(20, 40, 90)",
        "foregroundColor": "rgb(255, 255, 255)",
        "labelColor": "rgb(220, 220, 240)",
        "relevantDates": [{ "date": "2031-01-31T19:30:00+01:00" }],
        "barcodes": [{
            "format": "PKBarcodeFormatQR",
            "message": "ticket-NUMBER",
            "messageEncoding": "utf-8",
        }],
        "eventTicket": {
            "headerFields": [{ "key": "door", "label": "Door", "value": "C" }],
            "primaryFields": [{ "key": "event", "label": "Event", "value": "A concert" }],
            "secondaryFields": [
                { "key": "seat", "label": "Seat", "value": "NUMBER", "changeMessage": "Seat %@" },
                { "key": "row", "label": "Row", "value": "12" },
            ],
            "auxiliaryFields": [{ "key": "level", "label": "Level", "value": "Balcony" }],
            "backFields": back,
        },
    })
    .to_string()
}
