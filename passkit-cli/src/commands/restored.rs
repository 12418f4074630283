use std::{collections::BTreeSet, process::ExitCode};

use clap::Args;
use passkit_server::{identifiers::TypeIdentifier, store::StoreError};

use super::{all_types, progress::Progress};
use crate::{
    failure::Failure,
    store::{self, Store, StoreUrl, Unfinished, renew_edition},
};

/// Makes phones fetch the changes that a restored backup of the store lacks.
///
/// Run this command after a backup has replaced the store, before the service starts again. Every
/// pass then counts as changed once. Phones get a push, and fetch every change that they missed.
/// When an instance of `passkit serve` starts, it publishes all its files again. This restores
/// tokens and removals. Unchanged content is not marked again. You can safely run this command
/// twice. If the command is interrupted, `passkit serve` refuses the store until you run the
/// command again.
#[derive(Args)]
pub(crate) struct Restored {
    /// The store that was restored.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// Types that the backup may lack, because their first pass was published after the backup.
    #[arg(value_name = "TYPE")]
    types: Vec<TypeIdentifier>,
}

impl Restored {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let store = self.store.open().await?.store;
        let progress = Progress::new("types", None);
        let types = restore(&*store, self.types, &progress)
            .await
            .map_err(|error| Failure::incomplete("can't mark the passes", &error))?;
        progress.finish();
        say!("{} types marked", types.len());
        Ok(ExitCode::SUCCESS)
    }
}

async fn restore(
    store: &dyn Store,
    named: Vec<TypeIdentifier>,
    progress: &Progress,
) -> Result<BTreeSet<TypeIdentifier>, StoreError> {
    // While this note exists, instances don't start. It is removed when every type is marked.
    let unfinished = progress
        .patiently(async || Unfinished::begin(store, "restored").await)
        .await?;
    progress
        .patiently(async || renew_edition(store).await)
        .await?;
    let mut types = BTreeSet::from_iter(named);
    let stats = progress.patiently(async || store.stats().await).await?;
    types.extend(stats.types.into_iter().map(|one| one.type_id));
    all_types::published_passes(store, progress, async |passes| {
        types.extend(passes.into_iter().map(|pass| pass.type_id));
        Ok(())
    })
    .await?;
    all_types::mark(store, &types, progress).await?;
    progress
        .patiently(async || unfinished.finish(store).await)
        .await?;
    Ok(types)
}
