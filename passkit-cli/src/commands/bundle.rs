use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use passkit_archive::Bundle as PassBundle;
use passkit_server::text::OneLine;

use super::check::read_archive;
use crate::{failure::Failure, output::Output};

/// Puts signed passes into one file (.pkpasses), which Safari and Mail add to Wallet at once.
///
/// A bundle has up to 10 passes, and up to 150 MiB. Serve it with the media type
/// application/vnd.apple.pkpasses. Phones ask the web service of each pass for updates, as if the
/// passes had been added one by one.
///
/// Exit code: 0 the bundle is written, 2 a pass can't be in it, or a file could not be read or
/// written.
#[derive(Args)]
pub(crate) struct Bundle {
    /// The signed passes.
    #[arg(required = true, value_name = "FILE")]
    passes: Vec<PathBuf>,

    /// The file to write, such as tickets.pkpasses.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Bundle {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let passes = self.passes.iter().map(|path| read_archive(path));
        let passes = passes.collect::<Result<Vec<_>, _>>()?;
        let bundle = PassBundle::build(&passes).map_err(|error| {
            let path = error
                .index()
                .map_or(&self.output, |index| &self.passes[index]);
            Failure::of_file(path, &error)
        })?;
        let mut output = Output::create(&self.output, &self.passes)?;
        output.write(&bundle)?;
        output.finish()?;
        let (path, count) = (OneLine::path(&self.output), passes.len());
        say!(
            "{path}: {count} {}",
            if count == 1 { "pass" } else { "passes" }
        );
        Ok(ExitCode::SUCCESS)
    }
}
