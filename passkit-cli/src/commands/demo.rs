use crate::failure::Failure;
use clap::Args;
use std::process::ExitCode;
/// stub
#[derive(Args)]
pub(crate) struct Demo {}
impl Demo {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        Ok(ExitCode::SUCCESS)
    }
}
