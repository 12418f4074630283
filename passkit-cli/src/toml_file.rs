//! Reads TOML files. Its errors show no value, because a value may be a password.

use std::{fs::File, io::Read as _, path::Path};

use passkit_identity::pem;

use crate::failure::Failure;

/// The size of the largest file that is read, in bytes. Real files have a few hundred bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a text file with settings.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let shown = pem::shown(path);
    let cannot =
        |error: &dyn std::error::Error| Failure::from_error(format!("can't read {shown}"), error);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::new(format!("{shown}: has more than 1 MiB")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{shown}: is not UTF-8")))
}

/// Returns the text `line 1, column 2` for a place in the file.
pub(crate) fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = 1 + before[start..].chars().count();
    format!("line {line}, column {column}")
}

/// Returns the place of a TOML error, and its message.
pub(crate) fn explained(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    format!(
        "{}: {}",
        place(text, start),
        without_values(error.message())
    )
}

/// Returns the message of a TOML error, without a value of the wrong type.
fn without_values(message: &str) -> String {
    let start = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find(|start| message.starts_with(start));
    match (start, message.rsplit_once(", expected ")) {
        (Some(start), Some((_, expected))) => {
            format!("{}, expected {expected}", start.trim_end_matches(": "))
        }
        _ => message.to_owned(),
    }
}
