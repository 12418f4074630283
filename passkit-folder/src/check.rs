//! Reads files and checks whether they hold an archive to serve.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use passkit_archive::{Archive, Findings, Level, MAX_ARCHIVE_BYTES, Report, Rules};

use crate::files::Stamp;

/// The maximum number of threads that check at the same time. Each may need 20 MB for a hostile
/// archive.
const THREADS: usize = 3;

/// The result of checking a file.
pub(crate) enum Checked {
    /// The archive can be read. Phones may still refuse it.
    Read {
        archive: Box<Archive>,
        bytes: Bytes,
        /// The findings of level error or worse.
        findings: Findings,
    },
    /// The reason why the file can't be served.
    Refused(String),
    /// The file is no longer there.
    Gone,
}

/// Reads and checks a group of files on several threads. The results are in the order of the files.
pub(crate) fn check_all(group: &[(PathBuf, Stamp)], rules: Rules) -> Vec<Checked> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = group.len().div_ceil(threads.min(THREADS)).max(1);
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
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Checked::Gone,
        Err(error) => return Checked::Refused(format!("can't be read: {error}")),
    }
    let report = Report::of(&bytes, rules);
    let findings = report.findings.at_least(Level::Error);
    match report.archive {
        Some(archive) => Checked::Read {
            archive: Box::new(archive),
            bytes: bytes.into(),
            findings,
        },
        None => Checked::Refused(summary(&findings)),
    }
}

/// Returns the worst findings in one line.
pub(crate) fn summary(findings: &Findings) -> String {
    const SHOWN: usize = 5;

    let mut parts: Vec<_> = findings
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    if findings.len() > SHOWN {
        parts.push("and more; `passkit check` shows all".into());
    }
    parts.join("; ")
}
