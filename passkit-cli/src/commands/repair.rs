use std::process::ExitCode;

use clap::Args;

use crate::{failure::Failure, store::StoreUrl};

/// Mends the index of a Redis store: which devices a pass is on.
///
/// After a crash the index may name devices that are not registered any more, each of which costs a push in vain; after
/// a failover it may lack some. The store may be in use meanwhile.
#[derive(Args)]
pub(crate) struct Repair {
    /// The store.
    #[arg(long, env = "PASSKIT_STORE", value_name = "URL")]
    store: StoreUrl,
}

impl Repair {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self.store.repair().await? {
            Some(repaired) => say!(
                "{} entries looked at, {} removed, {} restored",
                repaired.looked_at,
                repaired.removed,
                repaired.restored
            ),
            None => say!("nothing to do: {} keeps its index in step by itself", self.store),
        }
        Ok(ExitCode::SUCCESS)
    }
}
