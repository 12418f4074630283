use std::{pin::Pin, sync::Arc, time::Duration};

use super::stores::{AnyStores, Opened, Stores, not_opened};
use crate::{Case, CaseReport, CaseResult, Rule, Violation};

/// After this time, the store counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(300);

type CaseFuture = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// A case of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreCase {
    /// The description of the case.
    pub case: Case,
    pub(super) run: fn(Opened) -> CaseFuture,
}

impl StoreCase {
    /// Runs the case. If the store panics, or if the case takes longer than five minutes,
    /// [`Rule::ERRORS`] is broken.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime with time enabled.
    pub async fn run(&self, stores: &Arc<impl Stores + 'static>) -> CaseReport {
        self.run_on(stores.clone()).await
    }

    async fn run_on(&self, stores: Arc<dyn AnyStores>) -> CaseReport {
        let start = std::time::Instant::now();
        let run = self.run;
        // `stores` outlives the case, because dropping it may remove the data.
        let opening = stores.clone();
        // The case runs in a separate task, so that a panic ends only this case. Dropping the set
        // aborts the task.
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

/// Defines the `CASES` of a module. Each entry has an id, level, rules, the argument of the
/// function, the function, steps and consequence.
///
/// The argument is the store as one trait (`store`, `maintenance`, `coordination` or `queue`), or
/// `opened`, which has all traits of the store and can open its data again.
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
