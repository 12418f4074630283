use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use passkit_archive::{ArchiveBuilder, Findings, Level, PassFiles, Report, Rules, Signer};
use passkit_server::{identifiers::Kind, text::OneLine};

use crate::{failure::Failure, output::Output, signer::SignerOptions};

/// Endings that people give to the folder of an unzipped pass or order.
const FOLDER_ENDS: [&str; 3] = [".pass", ".raw", ".pkpasstemplate"];

/// Signs an unzipped pass or order, or signs an archive again.
///
/// SOURCE is a folder with pass.json or order.json and the other files, or an archive. An old
/// manifest and signature are replaced. Hidden files, such as .DS_Store, are left out.
///
/// The result is checked before it is written. If phones would refuse the result, nothing is
/// written.
///
/// Exit code: 0 the archive is signed, 1 phones would refuse it, 2 a file could not be read or
/// written, or the certificate can't sign this archive.
#[derive(Args)]
pub(crate) struct Sign {
    /// The folder or the archive.
    source: PathBuf,

    #[command(flatten)]
    signer: SignerOptions,

    /// The file to write. By default, an archive is replaced, and the archive of a folder is
    /// written beside the folder with the folder's name.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Sign {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let signer = self.signer.open()?;
        let files = PassFiles::open(&self.source).map_err(|error| self.failure(&error))?;
        let path = self.path(files.kind())?;
        let mut inputs = self.signer.files();
        if self.source.is_dir() {
            inputs.push(self.source.clone());
        }
        // An output that can't be written is reported before a pass is signed.
        let mut output = Output::create(&path, &inputs)?;

        let left_out = files.left_out().to_vec();
        let builder = files.into_builder();
        let Some((bytes, name)) = self.signed(&builder, &signer)? else {
            return Ok(ExitCode::from(1));
        };
        output.write(&bytes)?;
        output.finish()?;
        // An error is a single line, so these lines come only when nothing can fail any more.
        for name in left_out {
            eprintln!("passkit: left out {}", OneLine::of(&name));
        }
        say!("{}: signed: {name}", OneLine::path(&path));
        Ok(ExitCode::SUCCESS)
    }

    /// Makes the archive, and returns it with a name to show. Prints what is wrong with the
    /// archive. Returns `None` if phones would refuse it.
    fn signed(
        &self,
        builder: &ArchiveBuilder,
        signer: &Signer,
    ) -> Result<Option<(Vec<u8>, String)>, Failure> {
        // The content is checked first, because the other checks need its type and its team.
        let unsigned = builder.build_unsigned();
        let unsigned = unsigned.map_err(|error| self.failure(&error))?;
        let Report {
            archive, findings, ..
        } = Report::of(&unsigned, Rules::development());
        let Some(archive) = archive.filter(|_| findings.worst() < Some(Level::Refused)) else {
            self.show(&findings);
            return Ok(None);
        };
        let team = match archive.kind() {
            Kind::Pass => None,
            // Orders need not name a team.
            Kind::Order => signer.team(),
        };
        let team = archive.team_identifier.as_deref().or(team);
        let checked = signer.check_for(&archive.id.type_id, team.unwrap_or_default());
        checked.map_err(|error| Failure::from_error(self.signer.shown(), &error))?;

        let bytes = builder.build_signed(signer);
        let bytes = bytes.map_err(|error| self.failure(&error))?;
        let report = Report::of(&bytes, Rules::strict());
        self.show(&report.findings);
        if report.findings.worst() == Some(Level::Refused) {
            return Ok(None);
        }
        let kind = match archive.kind() {
            Kind::Pass => "pass",
            Kind::Order => "order",
        };
        Ok(Some((bytes, format!("{kind} {}", archive.id))))
    }

    /// Shows all findings except notes, worded as in `passkit check`.
    fn show(&self, findings: &Findings) {
        let source = OneLine::path(&self.source);
        for finding in findings
            .into_iter()
            .filter(|finding| finding.level() > Level::Note)
        {
            let (level, code) = (finding.level(), finding.rule().code);
            eprintln!("{source}: {level}: {finding} [{code}]");
        }
    }

    /// Returns the path of the archive to write.
    fn path(&self, kind: Kind) -> Result<PathBuf, Failure> {
        if let Some(output) = &self.output {
            return Ok(output.clone());
        }
        if !self.source.is_dir() {
            return Ok(self.source.clone());
        }
        let end = match kind {
            Kind::Pass => ".pkpass",
            Kind::Order => ".order",
        };
        // `.` and `..` have no name, so the name is taken from the absolute path.
        let folder = if self.source.file_name().is_some() {
            self.source.clone()
        } else {
            let whole = self.source.canonicalize();
            whole.map_err(|error| self.failure(&error))?
        };
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let stem = FOLDER_ENDS
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|stem| !stem.is_empty())
            .unwrap_or(&name);
        let path = folder.with_file_name(format!("{stem}{end}"));
        if path == folder || stem.is_empty() {
            return Err(Failure::new(format!(
                "{}: can't name the archive; name a file with --output",
                OneLine::path(&self.source)
            )));
        }
        Ok(path)
    }

    fn failure(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::of_file(&self.source, error)
    }
}
