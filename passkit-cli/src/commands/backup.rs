use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    output,
    store::{self, StoreUrl},
};

/// Copies a sqlite: store into a new file. The store may be in use during the copy.
///
/// The copy has the state of the store at one moment, and can be used like the store. It contains
/// push tokens and device identifiers, which are secrets. After you replaced the store with a copy,
/// run `passkit restored`.
#[derive(Args)]
pub(crate) struct Backup {
    /// The file to make. The file must not exist yet.
    #[arg(value_name = "FILE", value_parser = output::path())]
    to: PathBuf,

    /// The store to copy.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,
}

impl Backup {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.store.back_up(&self.to).await?;
        say!("{} copied to {}", self.store, self.to.display());
        Ok(ExitCode::SUCCESS)
    }
}
