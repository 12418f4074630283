//! The contract of [`RegistrationStore`], as cases that any store can run.
//!
//! A case makes its own random types, devices and serial numbers, so that any number of cases may share a store with
//! each other and with real data, and ends with the first [`Breach`] that it finds. [`cases`] gives them all, and
//! [`run_all`] runs them; a store's own test is
//!
//! ```
//! use std::sync::Arc;
//! use passkit_conformance::store::run_all;
//! use passkit_server::{MemoryStore, RegistrationStore};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! run_all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn RegistrationStore> }).await.assert_kept();
//! # });
//! ```
//!
//! Run them on a multi-threaded Tokio runtime: races need more than one thread. C8 (the order at the source) is no
//! property of a store and is not checked here; C6 (durability) wants a store that can be opened
//! [anew](Stores::reopen), [`StoreMaintenance`] one that [has it](Stores::maintained), and [`PushQueue`] one that
//! [is one](Stores::queued).

mod cancelling;
mod crowds;
mod forgetting;
mod growth;
pub mod history;
mod holding;
mod leasing;
mod listing;
mod maintaining;
mod marking;
mod modelling;
mod names;
mod naming;
mod owing;
mod paging;
mod parallel;
mod racing;
mod random;
mod registering;
mod reopening;
mod settling;

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use passkit_server::{PushQueue, RegistrationStore, StoreMaintenance};

use crate::{Breach, Case, CaseResult, Report, Rule, Stop, Verdict};

/// A case waits this long for the store, then calls it hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// Any error, for a reason in a report.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the cases get their stores from. A closure `async || Arc<dyn RegistrationStore>` is one already.
///
/// Cases do not meet: a store may be the same for all of them, or a new one for each.
#[async_trait]
pub trait Stores: Send + Sync {
    /// A store to try.
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError>;

    /// The storage of `store` as it lies now, opened anew as after its process was killed: what this store has not
    /// acknowledged may be lost. `store` was given by [`open`](Self::open) and is still open. `None`, if that can't
    /// be had here, skips the cases that want it.
    async fn reopen(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Option<Result<Arc<dyn RegistrationStore>, BoxError>> {
        drop(store);
        None
    }

    /// An empty store that can be maintained; `None` skips the cases that want one.
    async fn maintained(&self) -> Option<Result<Arc<dyn StoreMaintenance>, BoxError>> {
        None
    }

    /// A store that remembers which pushes are owed; `None` skips the cases that want one.
    async fn queued(&self) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        None
    }

    /// As [`reopen`](Self::reopen), of a store that [`queued`](Self::queued) gave.
    async fn reopen_queued(&self, store: Arc<dyn PushQueue>) -> Option<Result<Arc<dyn PushQueue>, BoxError>> {
        drop(store);
        None
    }
}

#[async_trait]
impl<F, S> Stores for F
where
    F: Fn() -> S + Send + Sync,
    S: Future<Output = Arc<dyn RegistrationStore>> + Send,
{
    async fn open(&self) -> Result<Arc<dyn RegistrationStore>, BoxError> {
        Ok(self().await)
    }
}

type CaseFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// A case of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreCase {
    /// What it is about.
    pub case: Case,
    run: fn(Arc<dyn Stores>) -> CaseFuture,
}

impl StoreCase {
    /// Runs the case. A store that panics, or does not answer for five minutes, breaks [`Rule::ERRORS`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time enabled.
    pub async fn run(&self, stores: Arc<dyn Stores>) -> CaseResult {
        let start = std::time::Instant::now();
        // A task of its own, so that a panic ends this case only; the set aborts it when dropped.
        let mut task = tokio::task::JoinSet::new();
        // The stores may end what they are kept in when they are dropped, and so outlive the case.
        task.spawn((self.run)(stores.clone()));
        let verdict = match tokio::time::timeout(PATIENCE, task.join_next()).await {
            Ok(Some(Ok(verdict))) => verdict,
            Ok(Some(Err(error))) => Err(Breach::new(Rule::ERRORS, "no panic", error.to_string()).into()),
            Ok(None) | Err(_) => Err(Breach::new(Rule::ERRORS, "an answer", "none for five minutes").into()),
        };
        drop(stores);
        CaseResult {
            case: self.case,
            outcome: verdict.into(),
            elapsed: start.elapsed(),
            transcript: Vec::new(),
        }
    }
}

fn not_opened(error: BoxError) -> Stop {
    Stop::Error(format!("the store can't be opened: {error}"))
}

async fn open(stores: Arc<dyn Stores>) -> Result<Arc<dyn RegistrationStore>, Stop> {
    stores.open().await.map_err(not_opened)
}

async fn open_maintained(stores: Arc<dyn Stores>) -> Result<Arc<dyn StoreMaintenance>, Stop> {
    const LACKING: &str =
        "Stores::maintained gives no store: implement it where the store has StoreMaintenance";
    let store = stores.maintained().await.ok_or_else(|| Stop::Skip(LACKING.into()))?;
    store.map_err(not_opened)
}

async fn open_queued(stores: Arc<dyn Stores>) -> Result<Arc<dyn PushQueue>, Stop> {
    const LACKING: &str = "Stores::queued gives no store: implement it where the store is a PushQueue";
    let store = stores.queued().await.ok_or_else(|| Stop::Skip(LACKING.into()))?;
    store.map_err(not_opened)
}

/// Makes the list of a module's cases: id, level, rules, what the function takes, function, steps, consequence.
///
/// A function takes a `store`, one that can be `maintained`, one that is a `queue`, or the `stores`, to open what it
/// wants.
macro_rules! catalogue {
    (@run store $function:ident) => {
        |stores| Box::pin(async move { Ok($function(&crate::store::open(stores).await?).await?) })
    };
    (@run maintained $function:ident) => {
        |stores| Box::pin(async move { Ok($function(&crate::store::open_maintained(stores).await?).await?) })
    };
    (@run queue $function:ident) => {
        |stores| Box::pin(async move { Ok($function(&crate::store::open_queued(stores).await?).await?) })
    };
    (@run stores $function:ident) => {
        |stores| Box::pin($function(stores))
    };
    ($($id:literal $level:ident [$($rule:ident)+] $takes:ident $function:ident, $steps:literal, $consequence:literal;)+) => {
        pub(super) const CASES: &[crate::store::StoreCase] = &[
            $(crate::store::StoreCase {
                case: crate::Case {
                    id: $id,
                    level: crate::Level::$level,
                    rules: &[$(crate::Rule::$rule),+],
                    steps: $steps,
                    consequence: $consequence,
                },
                run: crate::store::catalogue!(@run $takes $function),
            }),+
        ];
    };
}
use catalogue;

/// All cases, those that find simple faults first.
#[must_use]
pub fn cases() -> Vec<StoreCase> {
    [
        registering::CASES,
        listing::CASES,
        marking::CASES,
        paging::CASES,
        forgetting::CASES,
        cancelling::CASES,
        naming::CASES,
        modelling::CASES,
        racing::CASES,
        parallel::CASES,
        crowds::CASES,
        maintaining::CASES,
        reopening::CASES,
        owing::CASES,
        holding::CASES,
        leasing::CASES,
        settling::CASES,
    ]
    .concat()
}

/// Runs all [`cases`].
///
/// # Panics
/// Outside of a Tokio runtime with time enabled.
pub async fn run_all(stores: impl Stores + 'static) -> Report {
    run(&cases(), stores).await
}

/// Runs cases one after the other.
///
/// # Panics
/// Outside of a Tokio runtime with time enabled.
pub async fn run<'a>(
    cases: impl IntoIterator<Item = &'a StoreCase>,
    stores: impl Stores + 'static,
) -> Report {
    let stores: Arc<dyn Stores> = Arc::new(stores);
    let mut report = Report::default();
    for case in cases {
        report.results.push(case.run(stores.clone()).await);
    }
    report
}

/// A [trial](libtest_mimic::Trial) for each of the [`cases`], named by its id; one that is skipped is shown as ignored,
/// with the reason. [`store_tests!`](crate::store_tests) makes a whole test of them.
#[cfg(feature = "trials")]
#[must_use]
pub fn trials(stores: impl Stores + 'static) -> Vec<libtest_mimic::Trial> {
    let stores: Arc<dyn Stores> = Arc::new(stores);
    crate::trials::trials(cases().into_iter().map(|one| {
        let stores = stores.clone();
        (one.case, async move { one.run(stores).await })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_whole() {
        let cases = cases();
        let mut ids: Vec<_> = cases.iter().map(|one| one.case.id).collect();
        for StoreCase { case, .. } in &cases {
            let name = case.id.strip_prefix("store/").or_else(|| case.id.strip_prefix("queue/")).unwrap();
            assert!(
                name.bytes().all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{name}"
            );
            for text in [case.steps, case.consequence] {
                assert!(text.ends_with('.') && text.len() > 30 && !text.contains("  "), "{name}: {text:?}");
            }
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), cases.len());
    }
}
