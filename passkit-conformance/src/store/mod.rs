//! The contract of [`RegistrationStore`](passkit_server::store::RegistrationStore) and of the traits beside it, as cases that any store can run.
//!
//! A case makes its own random types, devices, serial numbers and names. Any number of cases may therefore share a store
//! with each other and with real data. A case ends with the first [`Violation`] that it finds. [`cases`] gives them all,
//! and [`run_all`] runs them; a store's own test is
//!
//! ```
//! use std::sync::Arc;
//! use passkit_conformance::store::{TestStore, run_all};
//! use passkit_server::store::MemoryStore;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! run_all(|| async { TestStore::with_all(Arc::new(MemoryStore::new())) }).await.assert_passed();
//! # });
//! ```
//!
//! Run them on a multi-threaded Tokio runtime: races need more than one thread. C8 (the order at the source) is no
//! property of a store and is not checked here. C6, P6 and K4 (durability) need a [`Stores`] that can open a store
//! [again](Stores::reopen). Cases of a trait that the [`TestStore`] lacks are skipped.

mod cancelling;
mod claiming;
mod crowds;
mod deferring;
mod finishing;
mod forgetting;
mod growth;
pub mod history;
mod listing;
mod maintenance;
mod marking;
mod modelling;
mod names;
mod naming;
mod paging;
mod parallel;
mod pending;
mod publishing;
mod racing;
mod random;
mod registering;
mod reopening;
mod stores;

use std::{pin::Pin, sync::Arc, time::Duration};

use self::stores::{AnyStores, Opened};
pub use self::stores::{BoxError, Stores, TestStore};
use crate::{Case, CaseReport, CaseResult, Report, Rule, Stop, Violation};

/// A case waits this long for the store, then calls it hanging.
const TIMEOUT: Duration = Duration::from_secs(300);

type CaseFuture = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// A case of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreCase {
    /// What it is about.
    pub case: Case,
    run: fn(Opened) -> CaseFuture,
}

impl StoreCase {
    /// Runs the case. A store that panics, or does not answer for five minutes, breaks [`Rule::ERRORS`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time enabled.
    pub async fn run(&self, stores: &Arc<impl Stores + 'static>) -> CaseReport {
        self.run_on(stores.clone()).await
    }

    async fn run_on(&self, stores: Arc<dyn AnyStores>) -> CaseReport {
        let start = std::time::Instant::now();
        let run = self.run;
        // Dropping the stores may remove their data, so they outlive the case.
        let opening = stores.clone();
        // A task of its own, so that a panic ends this case only; the set aborts it when dropped.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { run(opening.open().await.map_err(not_opened)?).await });
        let result = match tokio::time::timeout(TIMEOUT, task.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(Some(Err(error))) => {
                Err(Violation::new(Rule::ERRORS, "no panic", error.to_string()).into())
            }
            Ok(None) | Err(_) => {
                Err(Violation::new(Rule::ERRORS, "an answer", "none for five minutes").into())
            }
        };
        drop(stores);
        CaseReport {
            case: self.case,
            outcome: result.into(),
            elapsed: start.elapsed(),
            transcript: Vec::new(),
        }
    }
}

fn not_opened(error: BoxError) -> Stop {
    Stop::Error(format!("the store can't be opened: {error}"))
}

/// Makes the list of a module's cases: id, level, rules, what the function takes, function, steps, consequence.
///
/// A function takes a `store`, a `maintenance`, a `coordination` or a `queue`, which is the store as that trait, or what was
/// `opened`: all traits that there are, and a way to open the storage again.
macro_rules! catalogue {
    (@run store $function:ident) => {
        |opened| Box::pin(async move { Ok($function(opened.registrations()).await?) })
    };
    (@run maintenance $function:ident) => {
        |opened| Box::pin(async move { Ok($function(opened.maintenance()?).await?) })
    };
    (@run coordination $function:ident) => {
        |opened| Box::pin(async move { Ok($function(opened.coordination()?).await?) })
    };
    (@run queue $function:ident) => {
        |opened| Box::pin(async move { Ok($function(opened.queue()?).await?) })
    };
    (@run opened $function:ident) => {
        |opened| Box::pin(async move { $function(&opened).await })
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
        publishing::CASES,
        paging::CASES,
        forgetting::CASES,
        cancelling::CASES,
        naming::CASES,
        modelling::CASES,
        racing::CASES,
        parallel::CASES,
        crowds::CASES,
        maintenance::CASES,
        reopening::CASES,
        claiming::CASES,
        pending::CASES,
        deferring::CASES,
        finishing::CASES,
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
    let stores = Arc::new(stores);
    let mut report = Report::default();
    for case in cases {
        report.results.push(case.run(&stores).await);
    }
    report
}

/// A [trial](libtest_mimic::Trial) for each of the [`cases`], named by its id; one that is skipped is shown as ignored,
/// with the reason. [`store_tests!`](crate::store_tests) makes a whole test of them.
#[cfg(feature = "trials")]
#[must_use]
pub fn trials(stores: impl Stores + 'static) -> Vec<libtest_mimic::Trial> {
    let stores = Arc::new(stores);
    crate::trials::trials(cases().into_iter().map(|one| {
        let stores = stores.clone();
        (one.case, async move { one.run(&stores).await })
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
            let name = case
                .id
                .strip_prefix("store/")
                .or_else(|| case.id.strip_prefix("queue/"))
                .or_else(|| case.id.strip_prefix("coordination/"))
                .unwrap();
            assert!(
                name.bytes()
                    .all(|b| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit()),
                "{name}"
            );
            for text in [case.steps, case.consequence] {
                assert!(
                    text.ends_with('.') && text.len() > 30 && !text.contains("  "),
                    "{name}: {text:?}"
                );
            }
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), cases.len());
    }
}
