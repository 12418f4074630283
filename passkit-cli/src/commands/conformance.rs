use std::process::ExitCode;

use clap::Args;
use passkit_conformance::cli::Command;

use crate::failure::Failure;

/// Tests the Wallet web service at a URL. The service may be written in any language.
#[derive(Args)]
pub(crate) struct Conformance {
    #[command(subcommand)]
    command: Command,
}

impl Conformance {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.command.run().await.map_err(Failure::new)
    }
}
