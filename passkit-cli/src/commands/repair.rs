use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    store::{self, StoreUrl},
};

/// Repairs the index of a Redis store, which lists the devices of each pass.
///
/// After a crash, the index may list devices that are no longer registered. Each of them costs a
/// useless push. After a failover, some devices may be missing in the index. The store may be in
/// use during the repair.
#[derive(Args)]
pub(crate) struct Repair {
    /// The store.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,
}

impl Repair {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.store.repair().await? {
            Some(repaired) => say!(
                "{} entries checked, {} removed, {} restored",
                repaired.checked,
                repaired.removed,
                repaired.restored
            ),
            None => say!("nothing to do: {} has no index to repair", self.store),
        }
        Ok(ExitCode::SUCCESS)
    }
}
