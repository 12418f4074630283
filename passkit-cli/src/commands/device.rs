use crate::failure::Failure;
use clap::Args;
use std::process::ExitCode;
/// stub
#[derive(Args)]
pub(crate) struct Device {}
impl Device {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        Ok(ExitCode::SUCCESS)
    }
}
