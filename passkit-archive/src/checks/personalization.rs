//! `personalization.json`, which lets people sign up for rewards.

use serde_json::{Map, Value};

use crate::{
    contents::Contents,
    finding::Finding,
    json,
    keys::{self, Styles},
    layout::PERSONALIZATION,
    rules::{self, Level},
    walk::Walk,
};

/// Checks the file, if there is one, and the parts of the pass that it needs.
pub(crate) fn check(pass: &Map<String, Value>, contents: &Contents, findings: &mut Vec<Finding>) {
    let Some(file) = contents.file(PERSONALIZATION) else {
        return;
    };
    if file.start.len() < file.size {
        return findings.push(Finding::in_file(
            &rules::PERSONALIZATION,
            PERSONALIZATION,
            "is too large to be read; it needs only a few lines",
        ));
    }
    let needs = [
        (
            pass.contains_key("nfc"),
            "needs nfc in pass.json; add it, or remove this file",
        ),
        (
            pass.contains_key("webServiceURL") && pass.contains_key("authenticationToken"),
            "needs webServiceURL and authenticationToken in pass.json; add them, or remove this file",
        ),
        (
            contents.has_image("personalizationLogo"),
            "needs an image personalizationLogo.png; add it, or remove this file",
        ),
    ];
    for (_, message) in needs.into_iter().filter(|(is_there, _)| !is_there) {
        findings.push(Finding::in_file(
            &rules::PERSONALIZATION,
            PERSONALIZATION,
            message,
        ));
    }
    let mut found = Vec::new();
    let json = json::parse_object(
        PERSONALIZATION,
        &file.start,
        &rules::PERSONALIZATION,
        &mut found,
    );
    // Phones accept a pass whose personalization.json is broken, but nobody can sign up.
    findings.extend(found.into_iter().map(|one| match one.level() {
        Level::Refused => one.under(&rules::PERSONALIZATION),
        _ => one,
    }));
    let Some(json) = json else { return };
    let text = json::readable(&file.start);
    let mut walk = Walk::complete(PERSONALIZATION, &text, Styles::ALL, findings);
    walk.object(&json, keys::PERSONALIZATION);
    let is_empty = |key| match json.get(key) {
        Some(Value::Array(fields)) => fields.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        _ => false,
    };
    for key in ["requiredPersonalizationFields", "description"] {
        if is_empty(key) {
            walk.report_key(key, &rules::PERSONALIZATION, "is empty; fill it");
        }
    }
}
