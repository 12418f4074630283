use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use crate::{failure::Failure, output};

/// Prints a script that lets a shell complete the commands and options.
///
/// Save the script where the shell looks for it. An example for bash: passkit completions bash >
/// ~/.local/share/bash-completion/completions/passkit
#[derive(Args)]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut program: Command) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut program, "passkit", &mut script);
        output::note(std::io::Write::write_all(&mut std::io::stdout(), &script));
        Ok(ExitCode::SUCCESS)
    }
}
