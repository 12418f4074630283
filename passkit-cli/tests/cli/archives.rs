//! Archives as issuers make them.

use std::{collections::HashMap, path::Path, process::Command, sync::Mutex};

use passkit_archive::{ArchiveBuilder, Signer, placeholder_icon};
use passkit_server::{PassId, identifiers::Kind};
use serde_json::json;

pub(crate) const TEAM: &str = "TEAM123456";

/// Returns the token of a test pass.
pub(crate) fn token_of(type_id: &str, serial: &str) -> String {
    format!("token-of-{serial}-of-{type_id}").replace('\u{fc}', "ue")
}

pub(crate) fn pass(type_id: &str, serial: &str, version: &str) -> Vec<u8> {
    signed(type_id, serial, version, &[])
}

pub(crate) fn order(type_id: &str, serial: &str, version: &str) -> Vec<u8> {
    signed(type_id, serial, version, &[])
}

/// Makes a pass or an order, depending on the type, with additional files.
pub(crate) fn signed(
    type_id: &str,
    serial: &str,
    version: &str,
    files: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    // There is one signer for each type, because making a certificate takes a while.
    static SIGNERS: Mutex<Option<HashMap<String, Signer>>> = Mutex::new(None);
    let builder = builder(type_id, serial, version, files);
    let mut signers = SIGNERS.lock().unwrap();
    let signer = signers
        .get_or_insert_default()
        .entry(type_id.to_owned())
        .or_insert_with(|| Signer::throwaway(&type_id.parse().unwrap(), TEAM).unwrap());
    builder.build_signed(signer).unwrap()
}

pub(crate) fn unsigned(type_id: &str, serial: &str, version: &str) -> Vec<u8> {
    builder(type_id, serial, version, &[])
        .build_unsigned()
        .unwrap()
}

/// Makes an unsigned pass with this token.
pub(crate) fn with_token(type_id: &str, serial: &str, token: &str) -> Vec<u8> {
    unsigned_with(type_id, serial, &json!({"authenticationToken": token}))
}

/// An unsigned pass with this `webServiceURL`.
pub(crate) fn with_url(type_id: &str, serial: &str, url: &str) -> Vec<u8> {
    unsigned_with(type_id, serial, &json!({"webServiceURL": url}))
}

/// An unsigned pass with these keys.
pub(crate) fn with_json(type_id: &str, keys: &serde_json::Value) -> Vec<u8> {
    unsigned_with(type_id, "A", keys)
}

fn unsigned_with(type_id: &str, serial: &str, keys: &serde_json::Value) -> Vec<u8> {
    let mut description = description(Kind::Pass, type_id, serial, "one");
    for (key, value) in keys.as_object().unwrap() {
        description[key] = value.clone();
    }
    ArchiveBuilder::new(Kind::Pass, description.to_string())
        .file("icon.png", placeholder_icon(29))
        .build_unsigned()
        .unwrap()
}

fn builder(
    type_id: &str,
    serial: &str,
    version: &str,
    files: &[(&str, Vec<u8>)],
) -> ArchiveBuilder {
    let kind = PassId::new(type_id, serial).unwrap().type_id.kind();
    let mut builder = ArchiveBuilder::new(
        kind,
        description(kind, type_id, serial, version).to_string(),
    );
    for (name, size) in [("icon", 29), ("icon@2x", 58), ("icon@3x", 87)] {
        builder = builder.file(format!("{name}.png"), placeholder_icon(size));
    }
    for (name, content) in files {
        builder = builder.file(*name, content.clone());
    }
    builder
}

fn description(kind: Kind, type_id: &str, serial: &str, version: &str) -> serde_json::Value {
    match kind {
        Kind::Pass => json!({
            "formatVersion": 1,
            "passTypeIdentifier": type_id,
            "serialNumber": serial,
            "teamIdentifier": TEAM,
            "organizationName": "Example",
            "description": "An example",
            "generic": { "primaryFields": [
                { "key": "version", "value": version, "changeMessage": "version %@" },
            ] },
            "webServiceURL": "https://wallet.example.com/",
            "authenticationToken": token_of(type_id, serial),
        }),
        Kind::Order => json!({
            "schemaVersion": 1,
            "orderTypeIdentifier": type_id,
            "orderIdentifier": serial,
            "orderType": "ecommerce",
            "orderManagementURL": "https://shop.example.com/",
            "merchant": {
                "displayName": "Shop", "merchantIdentifier": "merchant.com.example", "url": "https://shop.example.com/",
            },
            "status": "open",
            "statusDescription": version,
            "createdAt": "2026-11-22T10:00:00Z",
            "updatedAt": "2026-11-22T10:00:00Z",
            "webServiceURL": "https://wallet.example.com/",
            "authenticationToken": token_of(type_id, serial),
        }),
    }
}

/// Replaces a file in one step, as a careful program does.
pub(crate) fn replace(path: &Path, content: &[u8]) {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// Unzips an archive with another program. Replaces the folder.
pub(crate) fn unzip(archive: &Path, folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    let done = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .args([archive, folder])
        .status()
        .unwrap();
    assert!(done.success());
}
