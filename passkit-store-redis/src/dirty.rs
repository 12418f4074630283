//! Records which buckets may have pending changes. Workers look for changes several times a second, and read only these
//! *dirty* buckets.
//!
//! Before a process makes a change pending, it marks the bucket of the change dirty, with the current time of the server.
//! After that, the process relies on the mark for a minute, and then renews it. A worker clears a dirty bucket if the bucket
//! has no pending changes and its mark is more than ten minutes old. Making a change pending never takes that long, so a
//! bucket with pending changes is dirty. There are two exceptions: a failover may lose the mark, or a process may stand
//! still for ten minutes. To find such changes too, a process reads all buckets every five minutes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use passkit_server::identifiers::TypeIdentifier;
use tokio::time::Instant;

use crate::{
    engine::{Command, Runner, scripts},
    error::Error,
    layout::Keys,
};

/// How long a process relies on its last mark of a bucket.
const RELIED_ON: Duration = Duration::from_secs(60);

/// A bucket without pending changes is cleared if its mark is older than this number of microseconds.
pub(crate) const CLEARED_AGE: u64 = 600_000_000;

/// How often a process reads all buckets.
const SWEEP: Duration = Duration::from_secs(300);

/// The maximum number of buckets that one command marks.
const STEP: usize = 250;

/// The buckets that this process marked, and when it last read all buckets.
#[derive(Debug, Default)]
pub(crate) struct DirtyBuckets {
    marked: Mutex<HashMap<TypeIdentifier, Marked>>,
    swept: Mutex<Option<Instant>>,
}

/// When this process added a type to `types`, and when it marked each bucket of the type dirty. Each time was taken before the
/// call.
#[derive(Debug, Default)]
struct Marked {
    type_at: Option<Instant>,
    buckets: HashMap<u64, Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirtyBuckets {
    /// Adds the type to `types` and marks these buckets dirty, unless this process did so within [`RELIED_ON`].
    pub(crate) async fn mark(
        &self,
        runner: &Runner,
        keys: &Keys,
        type_id: &TypeIdentifier,
        buckets: impl Iterator<Item = u64>,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let is_old = |at: Option<&Instant>| at.is_none_or(|at| now >= *at + RELIED_ON);
        let (names_type, buckets) = {
            let mut marked = lock(&self.marked);
            let marked = marked.entry(type_id.clone()).or_default();
            let buckets: Vec<u64> = buckets
                .filter(|bucket| is_old(marked.buckets.get(bucket)))
                .collect();
            (is_old(marked.type_at.as_ref()), buckets)
        };
        if !names_type && buckets.is_empty() {
            return Ok(());
        }
        Self::mark_now(runner, keys, type_id, &buckets).await?;
        let mut marked = lock(&self.marked);
        let marked = marked.entry(type_id.clone()).or_default();
        marked.type_at = Some(now);
        marked
            .buckets
            .extend(buckets.into_iter().map(|bucket| (bucket, now)));
        Ok(())
    }

    /// Adds the type to `types` and marks these buckets dirty, even if this process has just done so.
    pub(crate) async fn mark_now(
        runner: &Runner,
        keys: &Keys,
        type_id: &TypeIdentifier,
        buckets: &[u64],
    ) -> Result<(), Error> {
        let mut calls = vec![
            Command::plain("HSET", keys.types())
                .arg(type_id.as_str())
                .arg(1),
        ];
        for buckets in buckets.chunks(STEP) {
            calls.push(Command::script(&scripts::MARK_DIRTY, keys.dirty(type_id)).arg(buckets));
        }
        runner.write(calls).await.map(drop)
    }

    /// Clears buckets. Each bucket is given with the time of its mark. A bucket that was marked again since then stays dirty.
    pub(crate) async fn clear(
        runner: &Runner,
        keys: &Keys,
        type_id: &TypeIdentifier,
        buckets: &[[u64; 2]],
    ) -> Result<(), Error> {
        if buckets.is_empty() {
            return Ok(());
        }
        let call = Command::script(&scripts::CLEAR_DIRTY, keys.dirty(type_id))
            .arg(CLEARED_AGE)
            .arg(buckets.as_flattened());
        // A bucket that stays dirty does no harm, so this does not wait for replicas.
        runner.read(vec![call]).await.map(drop)
    }

    /// Returns whether it is time to read all buckets.
    pub(crate) fn needs_sweep(&self, now: Instant) -> bool {
        lock(&self.swept).is_none_or(|swept| now >= swept + SWEEP)
    }

    pub(crate) fn swept(&self, now: Instant) {
        *lock(&self.swept) = Some(now);
    }
}
