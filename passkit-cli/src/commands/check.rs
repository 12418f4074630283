use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use passkit_archive::{Archive, MAX_ARCHIVE_BYTES, Rules};
use passkit_server::identifiers::Kind;

use crate::failure::Failure;

/// Prints what is wrong with archives, or that they are good.
///
/// Checks the zip file, the JSON, the required keys, the digests of all files, the signature, and whether its certificate
/// is for this pass. It does not check whether Apple issued the certificate.
///
/// Exit code: 0 all are good, 1 something is wrong with one, 2 one could not be read.
#[derive(Args)]
pub(crate) struct Check {
    /// The archives: .pkpass or .order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Accept development archives: without a signature, and with a webServiceURL of http://.
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
            let name = file.display();
            match read_archive(file) {
                Ok(bytes) => match Archive::check(&bytes, rules) {
                    Ok(archive) => {
                        let kind = match archive.kind() {
                            Kind::Pass => "pass",
                            Kind::Order => "order",
                        };
                        let signed = if archive.signed { "signed" } else { "unsigned" };
                        say!("{name}: good: {kind} {}, {signed}", archive.id);
                    }
                    Err(problems) => {
                        problems
                            .iter()
                            .for_each(|problem| say!("{name}: {problem}"));
                        worst = worst.max(1);
                    }
                },
                Err(failure) => {
                    eprintln!("passkit: {failure}");
                    worst = 2;
                }
            }
        }
        Ok(ExitCode::from(worst))
    }
}

/// The bytes of a file that may be an archive. If it is too large, only enough bytes to show that.
pub(crate) fn read_archive(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| {
            file.take(MAX_ARCHIVE_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| Failure::new(format!("can't read {}: {error}", path.display())))?;
    Ok(bytes)
}
