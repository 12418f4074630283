use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    store::{self, StoreUrl},
};

/// Makes the tables of a PostgreSQL store, or updates them.
///
/// Run this command once before the first use, and after an update that requires it. The service
/// may run at the same time.
#[derive(Args)]
pub(crate) struct Migrate {
    /// The store.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,
}

impl Migrate {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        if self.store.migrate().await? {
            say!("the tables are up to date");
        } else {
            say!("nothing to do: {} needs no tables", self.store);
        }
        Ok(ExitCode::SUCCESS)
    }
}
