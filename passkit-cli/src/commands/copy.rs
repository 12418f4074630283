use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use clap::Args;
use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::{Content, Published, StoreError},
};

use super::{all_types, progress::Progress};
use crate::{
    failure::Failure,
    store::{Store, StoreUrl, Unfinished, check_finished},
};

/// How many registrations are copied at a time.
const GROUP: usize = 5_000;

/// Copies a store into another store: registrations, and the digests and tokens of published
/// passes.
///
/// Stop everything that writes to the old store first. At the end, all passes in the new store
/// count as changed once, so that no phone misses a change. Phones therefore also get a push for
/// changes whose pushes were still pending in the old store. If the command is interrupted, run it
/// again. Until the copy is complete, `passkit serve` refuses the new store. The old store does not
/// change.
#[derive(Args)]
pub(crate) struct Copy {
    /// The store to copy.
    #[arg(
        long,
        env = "PASSKIT_COPY_FROM",
        value_name = "URL",
        hide_env_values = true
    )]
    from: StoreUrl,

    /// The store to fill.
    #[arg(
        long,
        env = "PASSKIT_COPY_TO",
        value_name = "URL",
        hide_env_values = true
    )]
    to: StoreUrl,
}

/// The number of items that were copied so far.
#[derive(Default)]
struct Copied {
    registrations: u64,
    published: u64,
    /// One device of each type, for comparing the clocks.
    devices: BTreeMap<TypeIdentifier, DeviceIdentifier>,
    types: BTreeSet<TypeIdentifier>,
}

impl Copy {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let same = || Failure::new("--from and --to are the same store; nothing was copied");
        if self.from.is_same_place(&self.to) {
            return Err(same());
        }
        let from = self.from.open().await?.store;
        check_finished(&*from, &self.from).await?;
        let to = self.to.open_or_create().await?.store;
        let progress = Progress::new("registrations", None);
        let failed = |error| Failure::incomplete("the copy is not complete", &error);
        let unfinished = Unfinished::begin(&*to, "copy").await.map_err(failed)?;
        if unfinished.is_in(&*from).await.map_err(failed)? {
            unfinished.undo(&*to).await.map_err(failed)?;
            return Err(same());
        }
        let mut copied = Copied::default();
        copied.copy(&*from, &*to, &progress).await.map_err(failed)?;
        let late = ahead(&*from, &*to, &copied.devices).await.map_err(failed)?;
        progress.finish();
        if let Some(micros) = late {
            return Err(Failure::new(format!(
                "the clock of {} is ahead; copy the store again in {} s",
                self.from,
                micros / 1_000_000 + 1
            )));
        }
        unfinished.finish(&*to).await.map_err(failed)?;
        say!(
            "{} registrations and {} published passes copied; {} types marked",
            copied.registrations,
            copied.published,
            copied.types.len()
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Copied {
    async fn copy(
        &mut self,
        from: &dyn Store,
        to: &dyn Store,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        all_types::published_passes(from, progress, async |passes| {
            self.copy_published(from, to, progress, &passes).await
        })
        .await?;
        let mut after = None;
        loop {
            let page = progress
                .patiently(async || from.registrations(after.as_ref(), GROUP).await)
                .await?;
            progress
                .patiently(async || to.register_many(&page.items).await)
                .await?;
            self.registrations += page.items.len() as u64;
            progress.set(self.registrations, 0);
            for one in page.items {
                if !self.devices.contains_key(&one.pass.type_id) {
                    self.types.insert(one.pass.type_id.clone());
                    self.devices.insert(one.pass.type_id, one.device);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        all_types::mark(to, &self.types, progress).await
    }

    async fn copy_published(
        &mut self,
        from: &dyn Store,
        to: &dyn Store,
        progress: &Progress,
        passes: &[PassId],
    ) -> Result<(), StoreError> {
        let contents = progress
            .patiently(async || from.published(passes).await)
            .await?;
        let mut of_types: BTreeMap<&TypeIdentifier, [Vec<Content>; 2]> = BTreeMap::new();
        for (pass, published) in passes.iter().zip(contents) {
            let Some(Published {
                digest,
                tokens,
                removed,
            }) = published
            else {
                continue;
            };
            let [first, then] = of_types.entry(&pass.type_id).or_default();
            let content = |digest| Content {
                serial: pass.serial.clone(),
                digest,
                tokens: tokens.clone(),
            };
            if digest.is_some() {
                first.push(content(digest));
            }
            if removed {
                // A removed pass keeps its digest.
                then.push(content(None));
            }
            self.published += 1;
        }
        for (type_id, steps) in of_types {
            for contents in steps {
                progress
                    .patiently(async || to.mark(type_id, Changed::Contents(&contents)).await)
                    .await?;
            }
            self.types.insert(type_id.clone());
        }
        Ok(())
    }
}

/// If the clocks of the old store are ahead of the clocks of the new store, returns by how many
/// microseconds. Phones have tags with readings of the old clocks. They would miss changes that the
/// new store marks with lower readings.
async fn ahead(
    from: &dyn Store,
    to: &dyn Store,
    devices: &BTreeMap<TypeIdentifier, DeviceIdentifier>,
) -> Result<Option<u64>, StoreError> {
    let mut most = None;
    for (type_id, device) in devices {
        let old = from.changes_since(device, type_id, None).await?.tag;
        let new = to.changes_since(device, type_id, None).await?.tag;
        if old.type_version >= new.type_version {
            most = most.max(Some(old.type_version - new.type_version));
        }
    }
    Ok(most)
}
