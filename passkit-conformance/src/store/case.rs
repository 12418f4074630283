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
use crate::{Case, CaseReport, CaseResult, Outcome, Rule, Violation};

/// A case that takes longer than this counts as hanging. Each of its calls has a shorter limit.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How many cases of a run hung. After three, the others are not tried, because each would take as
/// long.
#[derive(Default)]
pub(super) struct Hangs(AtomicUsize);

impl Hangs {
    const MOST: usize = 3;

    /// Why no more cases are tried, if too many hung.
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
    /// Runs the case. A store that panics, or a call that does not return within 30 seconds, breaks
    /// [`Rule::ERRORS`]. `PASSKIT_CONFORMANCE_TIMEOUT` sets another limit, in seconds.
    ///
    /// A store that blocks all threads of the runtime leaves none to report it. After a minute, the
    /// case and the call are printed, and the process ends with exit code 101.
    ///
    /// # Panics
    /// Outside a Tokio runtime with time enabled.
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
        // Dropping the stores may remove their data, so they outlive the case.
        let opening = stores.clone();
        // A separate task, so that a panic ends this case only. The set aborts it when dropped.
        let mut task = tokio::task::JoinSet::new();
        let watched = watch.clone();
        task.spawn(async move {
            let opened = watched.limited("opening the store", opening.open()).await;
            run(opened.map_err(not_opened)?.watched(&watched)).await
        });
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

/// Makes the list of a module's cases: id, level, rules, what the function takes, function, steps,
/// consequence.
///
/// A function takes the store as one trait (`store`, `maintenance`, `coordination` or `queue`), or
/// `opened`: all traits that the store has, and a way to open its data again.
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
