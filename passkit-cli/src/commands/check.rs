use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use passkit_archive::{Bundle, Level, MAX_ARCHIVE_BYTES, MAX_BUNDLE_BYTES, Report, Rules};
use passkit_server::{identifiers::Kind, text::OneLine};

use crate::failure::Failure;

/// Prints what is wrong with archives, or that they are good.
///
/// Checks the zip file, the JSON with its keys, the digests of all files and the signature, and
/// whether the certificates are for this pass and were valid. It does not check whether Apple
/// issued them. In a bundle (.pkpasses) it checks every pass.
///
/// Each line has a level. "refused": phones refuse the archive. "error": phones accept it, but
/// something in it cannot work. "warning": this is probably not what you want. "note": this is good
/// to know. The code in brackets never changes.
///
/// Exit code: 0 all are good, 1 one is refused or has an error, 2 one could not be read.
#[derive(Args)]
pub(crate) struct Check {
    /// The archives: .pkpass, .order or .pkpasses.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Accept development archives, which have no signature.
    #[arg(long)]
    allow_unsigned: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let rules = if self.allow_unsigned {
            Rules::development()
        } else {
            Rules::strict()
        };
        let mut worst = 0;
        for file in &self.files {
            let name = OneLine::path(file).to_string();
            match read_up_to(file, MAX_BUNDLE_BYTES) {
                Ok(bytes) => {
                    let good = match Bundle::open(&bytes) {
                        Some(mut bundle) => check_bundle(&name, &mut bundle, rules),
                        None => check(&name, &bytes, rules),
                    };
                    worst = worst.max(u8::from(!good));
                }
                Err(failure) => {
                    eprintln!("passkit: {failure}");
                    worst = 2;
                }
            }
        }
        Ok(ExitCode::from(worst))
    }
}

/// Prints the findings. Returns whether the archive is good.
fn check(name: &str, bytes: &[u8], rules: Rules) -> bool {
    let Report {
        archive, findings, ..
    } = Report::of(bytes, rules);
    let good = findings.worst() < Some(Level::Error);
    if let (true, Some(archive)) = (good, archive) {
        let kind = match archive.kind() {
            Kind::Pass => "pass",
            Kind::Order => "order",
        };
        let signed = if archive.signed { "signed" } else { "unsigned" };
        say!("{name}: good: {kind} {}, {signed}", archive.id);
    }
    for finding in &findings {
        let (level, code) = (finding.level(), finding.rule().code);
        say!("{name}: {level}: {finding} [{code}]");
    }
    good
}

fn check_bundle(name: &str, bundle: &mut Bundle<'_>, rules: Rules) -> bool {
    say!(
        "{name}: is a bundle of passes (.pkpasses), for Safari and Mail; a web service serves passes one by one"
    );
    let mut good = true;
    for (pass, bytes) in bundle.passes() {
        good &= check(&format!("{name}/{}", OneLine::of(&pass)), &bytes, rules);
    }
    good
}

/// Returns the bytes of a file that may be an archive. If the file is too large, returns just
/// enough to show that.
pub(crate) fn read_archive(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    read_up_to(path, MAX_ARCHIVE_BYTES)
}

fn read_up_to(path: &std::path::Path, limit: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::new(format!("can't read {}: {error}", OneLine::path(path))))?;
    Ok(bytes)
}
