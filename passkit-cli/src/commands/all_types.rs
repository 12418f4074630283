//! Marks every type of a store, so that phones fetch all changes that the store may have lost.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId,
    identifiers::TypeIdentifier,
    store::{StoreError, clock::now_micros},
};

use super::progress::Progress;
use crate::store::Store;

/// How many passes are read at a time.
const PAGE: usize = 1_000;

/// Calls `show` with every pass that was ever published, page by page.
pub(super) async fn published_passes(
    store: &dyn Store,
    progress: &Progress,
    mut show: impl AsyncFnMut(Vec<PassId>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = progress
            .patiently(async || store.published_passes(after.as_ref(), PAGE).await)
            .await?;
        show(page.items).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Marks all passes of these types, with a push to each phone.
pub(super) async fn mark(
    store: &dyn Store,
    types: &BTreeSet<TypeIdentifier>,
    progress: &Progress,
) -> Result<(), StoreError> {
    // Phones know dates only in whole seconds. A phone that fetched a pass in this second must get
    // a later date than before.
    let second = now_micros() / 1_000_000;
    while now_micros() / 1_000_000 <= second {
        tokio::time::sleep(until_next_second()).await;
    }
    for type_id in types {
        progress
            .patiently(async || store.mark_and_push(type_id, Changed::All).await)
            .await?;
    }
    Ok(())
}

fn until_next_second() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    Duration::from_secs(1).saturating_sub(Duration::from_nanos(nanos.into()))
}
