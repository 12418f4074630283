//! New folders and files, for commands that write something to start from.

use std::{fs, io::Write as _, path::Path};

use passkit_server::{private_files, text::OneLine};

use crate::failure::Failure;

/// Refuses a path at which something exists.
pub(super) fn refuse_existing(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Failure::new(format!(
            "{} exists already; remove it, or use another folder",
            OneLine::path(path)
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_write(path, &error)),
    }
}

/// Writes a new file that only its owner can open, and makes its folders.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
    private_files::create_new(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("can't write {}: {error}", OneLine::path(path)))
}

/// Makes an authentication token.
pub(super) fn random_token() -> Result<String, Failure> {
    let mut random = [0; 20];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(format!("can't make a token: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a path as one word of a shell command.
pub(super) fn word(path: &Path) -> String {
    let text = OneLine::path(path).to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./+@:,%".contains(c);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
