//! Checks that `manifest.json` lists every file of the archive with its right digest, and nothing
//! else.

use serde_json::Value;

use crate::{
    contents::{Contents, Litter},
    finding::Finding,
    json,
    layout::{FileDigest, MANIFEST, SIGNATURE},
    rules::{self, Rule},
};

/// Compares the `manifest` with the files that it must list.
pub(crate) fn check(
    manifest: &[u8],
    contents: &Contents,
    digest: FileDigest,
    findings: &mut Vec<Finding>,
) {
    // If a digest is listed twice, one of the two may be the digest of another file.
    let Some(manifest) = json::parse_object(MANIFEST, manifest, &rules::MANIFEST_VALUE, findings)
    else {
        return;
    };
    for file in &contents.files {
        let found = match (manifest.get(&file.name), file.litter) {
            (None, Some(_)) => Some(macos()),
            (Some(_), Some(Litter::AppleDouble)) => Some((
                &rules::APPLE_DOUBLE,
                format!("was added by macOS, and {MANIFEST} lists it; remove it and sign again"),
            )),
            (Some(Value::String(listed)), litter) => {
                compare(listed, &file.listed_digest, digest).or_else(|| litter.map(|_| macos()))
            }
            (Some(_), _) => Some((
                &rules::MANIFEST_VALUE,
                format!("{MANIFEST} lists it with a value that is not a string; list its digest"),
            )),
            (None, None) => Some((
                &rules::NOT_LISTED,
                format!(
                    "{MANIFEST} does not list it; list the file, or leave it out of the archive"
                ),
            )),
        };
        findings.extend(found.map(|(rule, message)| Finding::in_file(rule, &file.name, message)));
    }
    for name in manifest.keys().filter(|name| !contents.has(name)) {
        let (rule, message) = if name == MANIFEST || name == SIGNATURE {
            (
                &rules::MANIFEST_VALUE,
                "lists itself or the signature; remove these entries",
            )
        } else {
            (
                &rules::NOT_THERE,
                "lists a file that is not in the archive; add the file or remove it from the list",
            )
        };
        let message = format!("{message}: \"{name}\"");
        findings.push(Finding::in_file(rule, MANIFEST, message).of_key(name));
    }
}

/// Returns the finding about a file that macOS added. Phones ignore such files.
pub(crate) fn macos() -> (&'static Rule, String) {
    let message = "was added by macOS; leave it out (zip -X, without .DS_Store)";
    (&rules::MACOS, message.to_owned())
}

fn compare(listed: &str, right: &str, digest: FileDigest) -> Option<(&'static Rule, String)> {
    let name = digest.name();
    if listed == right {
        None
    } else if listed.eq_ignore_ascii_case(right) {
        Some((
            &rules::MANIFEST_CASE,
            format!(
                "{MANIFEST} lists its {name} in upper case; write lower-case hexadecimal digits"
            ),
        ))
    } else if listed.len() != right.len() || !listed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = right.len();
        Some((
            &rules::MANIFEST_VALUE,
            format!(
                "{MANIFEST} lists a value that is not a {name}; list {digits} hexadecimal digits"
            ),
        ))
    } else {
        Some((
            &rules::DIGEST,
            format!(
                "its content does not match {MANIFEST} (the {name} is {right}, but {listed} is listed); \
                 write the manifest again after the last change, then sign"
            ),
        ))
    }
}
