//! Which buckets may have pending changes, so that workers, who look several times a second, need not look into all of them.
//!
//! A bucket is marked dirty before anything in it becomes pending, by the server's clock. A process does not repeat that for
//! a minute. A worker who finds a dirty bucket empty clears it when the mark is ten minutes old, which is much longer than a
//! change can be under way. So a bucket with pending changes is dirty. If a failover loses that, or a process stands still
//! for ten minutes, the change is found when a worker looks into all buckets, every five minutes.

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

/// For how long a process relies on what it marked.
const RELIED_ON: Duration = Duration::from_secs(60);

/// The age, in microseconds, from which an empty bucket is cleared.
pub(crate) const CLEARED_AGE: u64 = 600_000_000;

/// How often a process looks into all buckets.
const SWEEP: Duration = Duration::from_secs(300);

/// The most buckets that one command marks.
const STEP: usize = 250;

/// What this process marked, and when it last looked into all buckets.
#[derive(Debug, Default)]
pub(crate) struct DirtyBuckets {
    marked: Mutex<HashMap<TypeIdentifier, Marked>>,
    swept: Mutex<Option<Instant>>,
}

/// When a type was named among the types, and when each of its buckets was marked dirty: the time before that was begun.
#[derive(Debug, Default)]
struct Marked {
    type_at: Option<Instant>,
    buckets: HashMap<u64, Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DirtyBuckets {
    /// Names the type, and marks these of its buckets dirty, unless that was done lately.
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

    /// The same in any case.
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

    /// Clears buckets that were found empty, unless they were marked again after this time.
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
        // A dirty bucket too many is no loss, so no replica is waited for.
        runner.read(vec![call]).await.map(drop)
    }

    /// Whether it is time to look into all buckets.
    pub(crate) fn needs_sweep(&self, now: Instant) -> bool {
        lock(&self.swept).is_none_or(|swept| now >= swept + SWEEP)
    }

    pub(crate) fn swept(&self, now: Instant) {
        *lock(&self.swept) = Some(now);
    }
}
