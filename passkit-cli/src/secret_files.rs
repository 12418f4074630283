//! Secrets in files: `PASSKIT_STORE_FILE` names a file with the value of `PASSKIT_STORE`, and so on. A service manager may
//! also provide the file `PASSKIT_STORE` in the folder `$CREDENTIALS_DIRECTORY`.

use std::{env, ffi::OsStr, fs::File, io::Read as _, path::Path};

use crate::failure::Failure;

/// The size of the largest file in bytes. A real file has at most a few hundred.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret, and the name of the place from which it was read.
pub(crate) type Secret = (String, String);

/// Reads the secret of an option from the file that its variable names, if there is one.
pub(crate) fn named_by_variable(variable: &str) -> Result<Option<Secret>, Failure> {
    let name = format!("{variable}_FILE");
    let Some(path) = env::var_os(&name) else {
        return Ok(None);
    };
    if path.is_empty() {
        if env::var_os(variable).is_some() {
            return Ok(None);
        }
        return Err(Failure::new(format!(
            "{name} is empty; name the file, or remove the variable"
        )));
    }
    if env::var_os(variable).is_some() {
        return Err(Failure::new(format!(
            "{variable} and {name} are both set; remove one"
        )));
    }
    Ok(Some((read(&path, &name)?, name)))
}

/// Reads the secret of an option from the systemd credential with the name of the variable, if there is one.
pub(crate) fn credential(variable: &str) -> Result<Option<Secret>, Failure> {
    let folder = env::var_os("CREDENTIALS_DIRECTORY").filter(|folder| !folder.is_empty());
    let Some(folder) = folder else {
        return Ok(None);
    };
    let path = Path::new(&folder).join(variable);
    let name = format!("the credential {variable}");
    // If this process may not look for the file, it is an error, because the default would be used instead of the secret.
    let exists = path
        .try_exists()
        .map_err(|error| Failure::from_error(format!("can't read {name}"), &error))?;
    if !exists {
        return Ok(None);
    }
    Ok(Some((read(path.as_os_str(), &name)?, name)))
}

/// Reads the secret in a file. The path is not shown, because someone may have given the secret itself. `name` names the
/// setting instead.
pub(crate) fn read(path: &OsStr, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    let read = read
        .map_err(|error| Failure::from_error(format!("can't read the file of {name}"), &error))?;
    if read as u64 > MAX_BYTES {
        return Err(Failure::new(format!(
            "the file of {name} has more than 64 KiB"
        )));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains('\n') {
        return Err(Failure::new(format!(
            "the file of {name} must have one line, and no empty line after it"
        )));
    }
    Ok(text.to_owned())
}
