//! Checks that `manifest.json` lists every file of the archive with its right digest, and nothing
//! else.

use serde_json::Value;

use crate::{
    contents::Contents,
    json,
    layout::{FileDigest, MANIFEST, SIGNATURE},
    problem::Problem,
};

/// Compares the `manifest` with the files it must list.
pub(crate) fn check(
    manifest: &[u8],
    contents: &Contents,
    digest: FileDigest,
    problems: &mut Vec<Problem>,
) {
    let manifest = match json::parse_object(MANIFEST, manifest) {
        Ok(manifest) => manifest,
        Err(problem) => return problems.push(problem),
    };
    for file in &contents.files {
        let message = match manifest.get(&file.name) {
            Some(Value::String(listed)) => match compare(listed, &file.listed_digest, digest) {
                Ok(()) => continue,
                Err(message) => message,
            },
            Some(_) => {
                format!("{MANIFEST} lists it with a value that is not a string; list its digest")
            }
            None => format!("{MANIFEST} does not list it; list it or leave it out of the archive"),
        };
        problems.push(Problem::in_file(&file.name, message));
    }
    for name in manifest.keys().filter(|name| !contents.has(name)) {
        let message = if name == MANIFEST || name == SIGNATURE {
            "lists itself or the signature; remove those two"
        } else {
            "lists a file that is not in the archive; add the file or remove it from the list"
        };
        problems.push(Problem::in_file(MANIFEST, format!("{message}: \"{name}\"")));
    }
}

fn compare(listed: &str, right: &str, digest: FileDigest) -> Result<(), String> {
    let name = digest.name();
    if listed == right {
        Ok(())
    } else if listed.eq_ignore_ascii_case(right) {
        Err(format!(
            "{MANIFEST} lists its {name} in upper case; write lower-case hexadecimal digits"
        ))
    } else if listed.len() != right.len() || !listed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits = right.len();
        Err(format!(
            "{MANIFEST} lists a value that is not a {name}; list {digits} hexadecimal digits"
        ))
    } else {
        Err(format!(
            "its content does not match {MANIFEST} ({name} is {right}, listed is {listed}); \
             write the manifest again after the last change, then sign"
        ))
    }
}
