mod explain;
mod online;
mod report;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use passkit_archive::{Bundle, MAX_ARCHIVE_BYTES, MAX_BUNDLE_BYTES, Report, Rules};
use passkit_server::text::OneLine;

use self::{
    online::Service,
    report::{Checked, Json},
};
use crate::failure::Failure;

/// Prints what is wrong with archives, or reports that they are good.
///
/// Checks the zip file, all files against the manifest, the signature with its certificates, the
/// keys and values of pass.json, barcodes, images, colours, translations, and the address for
/// updates. It does not check whether Apple issued the certificates. In a bundle (.pkpasses) it
/// checks every pass.
///
/// Each line has a level. "refused": phones refuse the archive. "error": phones accept the archive,
/// but something in it cannot work. "warning": the archive probably has a mistake. "note": there is
/// nothing wrong. The code in brackets never changes. --explain says more about a code.
///
/// Exit code: 0 all archives are good, 1 an archive is refused or has an error, 2 an archive could
/// not be read.
#[derive(Args)]
pub(crate) struct Check {
    /// The archives: .pkpass, .order or .pkpasses.
    #[arg(required_unless_present = "explain", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Accept development archives, which have no signature.
    #[arg(long)]
    allow_unsigned: bool,

    /// Also check the web service of each archive: whether it answers, and whether it refuses a
    /// wrong token. The token of the archive is not sent.
    #[arg(long)]
    online: bool,

    /// How to print the findings.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Explain a code: what it means for a phone, how to fix it, and where to read more. "all"
    /// lists every code.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["files", "online", "allow_unsigned"])]
    explain: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One line for each finding.
    Text,
    /// One JSON document.
    Json,
    /// Annotations for GitHub Actions.
    Github,
}

impl Check {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        if let Some(code) = &self.explain {
            explain::explain(code)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rules = if self.allow_unsigned {
            Rules::development()
        } else {
            Rules::strict()
        };
        let mut json = Json::default();
        let mut worst = 0;
        for file in &self.files {
            let name = OneLine::path(file).to_string();
            let bytes = match read_up_to(file, MAX_BUNDLE_BYTES) {
                Ok(bytes) => bytes,
                Err(failure) => {
                    match self.format {
                        Format::Text => eprintln!("passkit: {failure}"),
                        Format::Github => report::github_failure(&name, &failure),
                        Format::Json => json.fail(&name, &failure),
                    }
                    worst = 2;
                    continue;
                }
            };
            let mut print = |checked: &Checked| {
                worst = worst.max(u8::from(!checked.is_good()));
                match self.format {
                    Format::Text => checked.print_text(),
                    Format::Github => checked.print_github(),
                    Format::Json => json.add(checked),
                }
            };
            match Bundle::open(&bytes) {
                None => print(&self.check(name, &bytes, rules).await),
                Some(mut bundle) => {
                    if matches!(self.format, Format::Text) {
                        say!(
                            "{name}: is a bundle of passes (.pkpasses), for Safari and Mail; a web service serves passes one by one"
                        );
                    }
                    for (pass, bytes) in bundle.passes() {
                        let name = format!("{name}/{}", OneLine::of(&pass));
                        print(&self.check(name, &bytes, rules).await);
                    }
                }
            }
        }
        if matches!(self.format, Format::Json) {
            json.print();
        }
        Ok(ExitCode::from(worst))
    }

    async fn check(&self, file: String, bytes: &[u8], rules: Rules) -> Checked {
        let Report {
            archive, findings, ..
        } = Report::of(bytes, rules);
        let mut findings: Vec<_> = findings.into_iter().collect();
        if let (true, Some(archive)) = (self.online, &archive)
            && let Some(url) = &archive.web_service_url
        {
            findings.extend(Service::of(url, &archive.id).check().await);
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.level()));
        }
        Checked {
            file,
            archive,
            findings,
        }
    }
}

/// Returns the bytes of a file that may be an archive. If the file is too large, returns just
/// enough bytes to show that it is.
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
