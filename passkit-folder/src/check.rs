//! Reads files and checks whether they hold an archive to serve.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use passkit_archive::{Archive, MAX_ARCHIVE_BYTES, Rules};

use crate::files::Stamp;

/// The result of checking a file.
pub(crate) enum Checked {
    Good(Box<Archive>, Bytes),
    /// Why it is not served.
    Refused(String),
}

/// Reads and checks a group of files on all processors. The results are in the order of the files.
pub(crate) fn check_all(group: &[(PathBuf, Stamp)], rules: Rules) -> Vec<Checked> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = group.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = group
            .chunks(share)
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|(path, _)| check(path, rules))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let failed = |part: &[_]| {
            part.iter()
                .map(|_| Checked::Refused("it can't be checked".into()))
                .collect()
        };
        let parts = parts.into_iter().zip(group.chunks(share));
        parts
            .flat_map(|(part, files)| part.join().unwrap_or_else(|_| failed(files)))
            .collect()
    })
}

fn check(path: &Path, rules: Rules) -> Checked {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let limit = MAX_ARCHIVE_BYTES as u64 + 1;
    if let Err(error) =
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    {
        return Checked::Refused(format!("can't be read: {error}"));
    }
    match Archive::check(&bytes, rules) {
        Ok(archive) => Checked::Good(Box::new(archive), bytes.into()),
        Err(problems) => Checked::Refused(
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        ),
    }
}
