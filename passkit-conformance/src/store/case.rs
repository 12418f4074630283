use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    limited::Watch,
    stores::{AnyStores, Opened, Stores, not_opened},
};
use crate::{Case, CaseReport, CaseResult, Outcome, Rule, Violation, length};

/// The time limit of a case. Each call of the store has a shorter limit.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Counts the cases of a run in which a call of the store did not return. After three such cases,
/// the remaining cases are not tried, because each of them could take as long.
#[derive(Default)]
pub(super) struct Hangs(AtomicUsize);

impl Hangs {
    const MOST: usize = 3;

    /// Returns the reason why no more cases are tried, if there is one.
    pub(super) fn reason(&self) -> Option<&'static str> {
        (self.0.load(Ordering::Relaxed) >= Self::MOST)
            .then_some("calls of the store did not return in three cases")
    }
}

type CaseFuture = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// A case of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreCase {
    /// The description of the case.
    pub case: Case,
    pub(super) run: fn(Opened) -> CaseFuture,
}

impl StoreCase {
    /// Runs the case. [`Rule::ERRORS`] is broken if the store panics, or if a call does not return
    /// within 30 seconds. `PASSKIT_CONFORMANCE_TIMEOUT` sets another limit, in seconds.
    ///
    /// If the store blocks all threads of the runtime, the case can't report that. Instead, a
    /// separate thread prints the case and the call after about a minute, and ends the process with
    /// exit code 101.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime with time enabled.
    pub async fn run(&self, stores: &Arc<impl Stores + 'static>) -> CaseReport {
        self.run_on(stores.clone(), &Hangs::default()).await
    }

    pub(super) async fn run_on(&self, stores: Arc<dyn AnyStores>, hangs: &Hangs) -> CaseReport {
        let start = std::time::Instant::now();
        if let Some(reason) = hangs.reason() {
            return CaseReport {
                case: self.case,
                outcome: Outcome::Error(format!("not tried: {reason}")),
                elapsed: Duration::ZERO,
                transcript: Vec::new(),
            };
        }
        let watch = Watch::new(self.case.id);
        let run = self.run;
        // `stores` must outlive the case, because dropping it may remove the data.
        let opening = stores.clone();
        // The case runs in a separate task, so that a panic ends only this case. Dropping the set
        // aborts the task.
        let mut task = tokio::task::JoinSet::new();
        let watched = watch.clone();
        task.spawn(async move {
            let opened = watched.limited("opening the store", opening.open()).await;
            run(opened.map_err(not_opened)?.watched(&watched)).await
        });
        let result =
            match tokio::time::timeout(TIMEOUT.saturating_add(length::time()), task.join_next())
                .await
            {
                Ok(Some(Ok(result))) => result,
                Ok(Some(Err(error))) => {
                    Err(Violation::new(Rule::ERRORS, "no panic", error.to_string()).into())
                }
                Ok(None) | Err(_) => Err(Violation::new(
                    Rule::ERRORS,
                    "an answer",
                    "no answer for more than fifteen minutes",
                )
                .into()),
            };
        drop(stores);
        if watch.is_hung() {
            hangs.0.fetch_add(1, Ordering::Relaxed);
        }
        CaseReport {
            case: self.case,
            outcome: result.into(),
            elapsed: start.elapsed(),
            transcript: Vec::new(),
        }
    }
}

/// Defines the `CASES` of a module. Each entry consists of the id, the level, the rules, the
/// argument of the function, the function, the steps and the consequence.
///
/// With `store`, `maintenance`, `coordination`, `queue` or `delivery`, the function gets the store as one of
/// its traits. With `opened`, the function gets all traits of the store, and can open the data
/// again.
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
    (@run delivery $function:ident) => {
        |opened| Box::pin(async move { Ok($function(opened.delivery()?).await?) })
    };
    (@run opened $function:ident) => {
        |opened| Box::pin(async move { $function(&opened).await })
    };
    ($($id:literal $level:ident [$($rule:ident)+] $takes:ident $function:ident, $steps:literal, $consequence:literal;)+) => {
        pub(super) const CASES: &[crate::store::case::StoreCase] = &[
            $(crate::store::case::StoreCase {
                case: crate::Case {
                    id: $id,
                    level: crate::Level::$level,
                    rules: &[$(crate::Rule::$rule),+],
                    steps: $steps,
                    consequence: $consequence,
                },
                run: crate::store::case::catalogue!(@run $takes $function),
            }),+
        ];
    };
}
pub(super) use catalogue;
