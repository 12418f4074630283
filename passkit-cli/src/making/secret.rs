//! The secret from which authentication tokens are derived, in a file.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use passkit_archive::template::TokenSecret;
use passkit_server::{PassId, private_files, text::OneLine};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// The length of the shortest secret and of the largest file, in bytes.
const MIN_BYTES: usize = 32;
const MAX_BYTES: usize = 4096;

/// A secret, and the value by which it is recognised.
pub(crate) struct Secret {
    pub(crate) tokens: TokenSecret,
    /// A text that can only come from this secret. It does not reveal the secret.
    pub(super) check: String,
}

impl Secret {
    /// Reads a secret. Returns `None` if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let shown = OneLine::path(path);
        let cannot_read =
            |error: io::Error| Failure::new(format!("can't read the secret {shown}: {error}"));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read(error)),
        };
        let wrong = |problem: &str| Failure::new(format!("the secret {shown} {problem}"));
        let mut text = Vec::new();
        let mut start = file.take(MAX_BYTES as u64 + 1);
        start.read_to_end(&mut text).map_err(cannot_read)?;
        if text.len() > MAX_BYTES {
            return Err(wrong(
                "has more than 4 KiB; name the file that passkit made",
            ));
        }
        let text = text.trim_ascii_end();
        if text.len() < MIN_BYTES {
            return Err(wrong(
                "has fewer than 32 characters, so it can be guessed; use the file that passkit made",
            ));
        }
        private_files::warn_of_readers(path);
        Ok(Some(Self::new(text)?))
    }

    /// Makes a secret in a new file, which only its owner can read. The file is on disk when this returns.
    pub(crate) fn make(path: &Path) -> Result<Self, Failure> {
        let text = random_text()?;
        write_new(path, &text).map_err(|error| {
            Failure::new(format!(
                "can't make the secret {}: {error}",
                OneLine::path(path)
            ))
        })?;
        // Another process may have made the file first.
        match Self::read(path)? {
            Some(secret) => Ok(secret),
            None => Err(Failure::new(format!(
                "the secret {} has disappeared",
                OneLine::path(path)
            ))),
        }
    }

    /// Makes a secret for a dry run. It is never written.
    pub(crate) fn made_up() -> Result<Self, Failure> {
        Self::new(random_text()?.as_bytes())
    }

    fn new(text: &[u8]) -> Result<Self, Failure> {
        let tokens = TokenSecret::new(text);
        // No pass has this type, because nobody can register it with Apple.
        let nobody = PassId::new("pass.invalid.passkit-secret-check", "1");
        let token = nobody.and_then(|nobody| tokens.token(&nobody));
        let token = token.map_err(|error| Failure::from_error("can't check the secret", &error))?;
        let check = format!("{:x}", Sha256::digest(token.as_str()));
        Ok(Self { tokens, check })
    }
}

/// Returns the path of the secret for the passes in a folder. By default, it is beside the folder.
pub(crate) fn path_for(out: &Path, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let folder = std::path::absolute(out);
            let folder =
                folder.map_err(|error| Failure::new(format!("{}: {error}", OneLine::path(out))))?;
            let mut name = folder.file_name().unwrap_or_default().to_owned();
            name.push(".token-secret");
            folder.with_file_name(name)
        }
    };
    let home = path
        .parent()
        .filter(|home| *home != Path::new(""))
        .unwrap_or(Path::new("."));
    if let (Ok(home), Ok(out)) = (home.canonicalize(), out.canonicalize())
        && home.starts_with(out)
    {
        return Err(Failure::new(format!(
            "the secret {} would be in the folder of the passes, which is served; name a file outside with \
             --token-secret",
            OneLine::path(&path)
        )));
    }
    Ok(path)
}

fn random_text() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("can't make a secret: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file under another name first, so that nobody sees it half-written. Keeps a file that
/// already exists.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let unnamed = private_files::beside(path)?;
    let mut file = private_files::create_new(&unnamed)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    let named = written.and_then(|()| private_files::give_name(&unnamed, path));
    if named.is_err() {
        let _ = fs::remove_file(&unnamed);
    }
    match named {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

/// Makes the name of a file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Other systems can't open a folder, so they can't sync it either.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
