use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, Command};

use crate::failure::Failure;

/// Writes the manual pages: passkit.1, and a page for each command.
///
/// `man DIR/passkit.1` shows a page. Existing pages are replaced.
#[derive(Args)]
pub(crate) struct Man {
    /// The folder for the pages. It is made if it does not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(crate) fn run(self, program: Command) -> Result<ExitCode, Failure> {
        fs::create_dir_all(&self.folder)
            .and_then(|()| clap_mangen::generate_to(program, &self.folder))
            .map_err(|error| {
                let folder = self.folder.display();
                Failure::new(format!("can't write the manual pages to {folder}: {error}"))
            })?;
        Ok(ExitCode::SUCCESS)
    }
}
