//! Cases with batches around the usual limits of databases and clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TokenDigest},
    push::{Progress, Scope},
    store::{Content, Published, RegistrationStore, UpdateTag},
};

use super::{
    case::catalogue,
    names::{Device, new_passes, new_type, serials},
    queue::{Deferred, Queue, at, backlog_of, deferred, end, page, read_deferred, removed},
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "store/batches-of-many-sizes" Must [MARK C1 C2 P2 PUBLISHED] store batches_of_many_sizes,
        "Marks and publishes batches of 500, 501, 999, 1,000, 1,001 and 10,007 passes. Also marks \
         a batch of 65,537 passes. A device with some of the passes asks for its list while the \
         batches are written, and after each batch.",
        "If many passes change at once, the change fails, or some phones never learn of it.";
    "queue/batches-of-many-sizes" Must [Q1 Q2 Q3 Q4] queue queues_of_many_sizes,
        "Makes 501, 1,000, 1,001 and 10,007 changes pending in one call, records their progress in \
         one call, and finishes them. Defers as many pushes in one call, reads them in pages, and \
         removes them in one call.",
        "If many passes change at once, some phones get no push.";
}

/// The sizes to try. The last one is above the limit of parameters in PostgreSQL and in SQLite.
const SIZES: [usize; 7] = [500, 501, 999, 1_000, 1_001, 10_007, 65_537];

/// The positions in a batch that are checked: all of the first 1,001, and the positions around each
/// limit.
fn watched(most: usize) -> BTreeSet<usize> {
    let mut positions: BTreeSet<_> = (0..1_001.min(most)).collect();
    for limit in [5_000, 8_191, 10_000, 16_383, 32_766, 65_535, most - 1] {
        positions.extend((limit - 1..=limit + 2).filter(|at| *at < most));
    }
    positions
}

async fn batches_of_many_sizes(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let most = SIZES.into_iter().max().unwrap_or(1);
    let (type_id, passes) = new_passes(most)?;
    let positions = watched(most);
    let registered: Vec<_> = positions.iter().map(|at| passes[*at].clone()).collect();
    let device = Device::registered_for_many(store, &registered).await?;
    let mut tag = device
        .lists_exactly(&**store, &type_id, &registered, Rule::CHANGES_SINCE)
        .await?;
    for size in SIZES {
        let batch = serials(&passes[..size]);
        let marking = store.mark(&type_id, Changed::Passes(&batch));
        tag = seen_in_parts(&**store, &device, tag, marking, &passes[..size], &positions).await?;
    }
    for (number, size) in [501, 1_000, 1_001, 10_007].into_iter().enumerate() {
        let of = |pass: &PassId, at: usize| {
            let mut digest = [number as u8; 32];
            digest[24..].copy_from_slice(&at.to_le_bytes());
            Content {
                serial: pass.serial.clone(),
                digest: Some(digest),
                tokens: vec![TokenDigest::from_bytes(digest)],
            }
        };
        let passes = &passes[..size];
        let batch: Vec<_> = passes
            .iter()
            .zip(0..)
            .map(|(pass, at)| of(pass, at))
            .collect();
        let marking = store.mark(&type_id, Changed::Contents(&batch));
        tag = seen_in_parts(&**store, &device, tag, marking, passes, &positions).await?;
        let found = store.published(passes).await?;
        let is_right = |(one, content): &(&Option<Published>, &Content)| {
            one.as_ref().is_some_and(|one| {
                one.digest == content.digest && one.tokens.last() == content.tokens.last()
            })
        };
        let right = found.iter().zip(&batch).filter(is_right).count();
        ensure(
            Rule::PUBLISHED,
            found.len() == size && right == size,
            format!("what was published of {size} passes, in one call"),
            || format!("{} answers, of which {right} are right", found.len()),
        )?;
    }
    Ok(())
}

/// Awaits a batch that marks `passes`. Meanwhile, the device asks for lists as after pushes.
/// Ensures that the lists name all marked passes of the device. Returns the last tag.
async fn seen_in_parts(
    store: &dyn RegistrationStore,
    device: &Device,
    tag: UpdateTag,
    marking: impl Future<Output = Result<(), passkit_server::store::StoreError>>,
    passes: &[PassId],
    positions: &BTreeSet<usize>,
) -> Result<UpdateTag, Violation> {
    let (marked, mut tag, mut seen) =
        (AtomicBool::new(false), tag, BTreeSet::<SerialNumber>::new());
    let type_id = &passes[0].type_id;
    let marking = async {
        let result = marking.await;
        marked.store(true, SeqCst);
        result
    };
    let polling = async {
        loop {
            let last = marked.load(SeqCst);
            let listed = device.list(store, type_id, Some(tag)).await?;
            if !listed.serials.is_empty() {
                tag = listed.tag;
                seen.extend(listed.serials);
            }
            if last {
                return Ok::<_, Violation>(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (marking, polling) = both(marking, polling).await;
    marking?;
    polling?;
    let missing = positions
        .range(..passes.len())
        .filter(|at| !seen.contains(&passes[**at].serial));
    let missing: Vec<_> = missing.collect();
    ensure(
        Rule::MARK,
        missing.is_empty(),
        format!("every pass of a batch of {} in a list", passes.len()),
        || {
            format!(
                "{} of the watched passes missing, the first at position {}",
                missing.len(),
                missing[0]
            )
        },
    )?;
    device
        .list(store, type_id, Some(tag))
        .await?
        .is_empty(Rule::C2, "when asked again with the new tag")?;
    Ok(tag)
}

/// Awaits both futures at the same time.
pub(super) async fn both<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    super::interleaving::interleave(0, first, second).await
}

async fn queues_of_many_sizes(queue: &Queue) -> Result<(), Violation> {
    for size in [501, 1_000, 1_001, 10_007] {
        pending_batch(queue, size).await?;
    }
    for size in [501, 1_000, 1_001, 10_007] {
        deferred_batch(queue, size).await?;
    }
    Ok(())
}

async fn pending_batch(queue: &Queue, size: usize) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(size)?;
    let batch = serials(&passes);
    queue
        .mark_and_push(&type_id, Changed::Passes(&batch))
        .await?;
    let counted = backlog_of(queue, &type_id)
        .await?
        .map_or(0, |backlog| backlog.pending);
    // A store may stop counting at 10,000.
    ensure(
        Rule::Q1,
        (size.min(10_000) as u64..=size as u64).contains(&counted),
        format!("a backlog of {size} changes"),
        || counted.to_string(),
    )?;
    let mut left: BTreeSet<_> = batch.iter().cloned().map(Scope::Pass).collect();
    // A store may return fewer changes than the limit. It returns the others when these are
    // finished.
    while !left.is_empty() {
        let pending = queue.pending(&type_id, size).await?;
        let versions: BTreeMap<_, _> = pending
            .into_iter()
            .map(|change| (change.scope, change.version))
            .collect();
        ensure(
            Rule::Q1,
            !versions.is_empty() && versions.keys().all(|scope| left.contains(scope)),
            format!(
                "{} pending changes of {size} that were marked in one call",
                left.len()
            ),
            || format!("{} changes", versions.len()),
        )?;
        let progress = |to: fn(u64) -> Progress| -> Vec<_> {
            let all = versions.iter();
            all.map(|(scope, version)| (scope.clone(), to(*version)))
                .collect()
        };
        // Progress to a page is recorded for only one size, because reading many changes takes
        // long.
        if size == 1_001 {
            queue
                .record_progress(&type_id, &progress(|version| page(version, "page 2")))
                .await?;
            let begun = queue.pending(&type_id, size).await?;
            let without = begun
                .iter()
                .filter(|change| versions.contains_key(&change.scope) && change.progress.is_none())
                .count();
            ensure(
                Rule::Q2,
                without == 0,
                format!("the progress of {} changes", versions.len()),
                || format!("{without} changes without progress"),
            )?;
        }
        queue.record_progress(&type_id, &progress(end)).await?;
        left.retain(|scope| !versions.contains_key(scope));
        let again = queue.pending(&type_id, size).await?;
        let finished = again
            .iter()
            .filter(|one| !left.contains(&one.scope))
            .count();
        ensure(
            Rule::Q3,
            finished == 0,
            "no change that was finished, in a batch of many",
            || format!("{finished} of {} changes finished", versions.len()),
        )?;
    }
    Ok(())
}

async fn deferred_batch(queue: &Queue, size: usize) -> Result<(), Violation> {
    let type_id = new_type()?;
    let pushes = (0..size as u64)
        .map(|n| {
            Ok(deferred(
                &Device::new()?,
                Some(at(1_800_000_000_000_000 + n)),
            ))
        })
        .collect::<Result<Vec<Deferred>, Violation>>()?;
    queue.defer(&type_id, &pushes).await?;
    let found: BTreeMap<_, _> = read_deferred(queue, &type_id, None, 1_000)
        .await?
        .into_iter()
        .collect();
    let wrong = pushes
        .iter()
        .filter(|(device, push)| found.get(device) != Some(push))
        .count();
    ensure(
        Rule::Q4,
        wrong == 0 && found.len() == size,
        format!("{size} pushes that were deferred in one call, in pages of 1,000"),
        || {
            format!(
                "{} deferred pushes, and {wrong} missing or wrong",
                found.len()
            )
        },
    )?;
    queue.defer(&type_id, &removed(&pushes)).await?;
    let left = read_deferred(queue, &type_id, None, 1_000).await?.len();
    ensure(
        Rule::Q4,
        left == 0,
        format!("no deferred push after {size} were removed in one call"),
        || left.to_string(),
    )
}
