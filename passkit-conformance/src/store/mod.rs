//! The contract of [`RegistrationStore`], as checks that any store can run.
//!
//! A check is an async function over a store: it makes its own random types, devices and serial numbers, so that any
//! number of checks may share a store with each other and with real data, and it returns the first [`Breach`] it
//! finds. [`CASES`] names them all, and [`run_all`] runs them; a store's own test is
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
//! Run them on a multi-threaded Tokio runtime: races need more than one thread. C6 (durability) and C8 (the order at
//! the source) are no properties of a running store and are not checked here.
//!
//! What is checked where:
//!
//! | module | rules |
//! | --- | --- |
//! | [`registering`] | C10 and what `unregister` promises |
//! | [`listing`] | C1 to C5, C7 |
//! | [`marking`] | C9, C14 |
//! | [`paging`] | C11 |
//! | [`cancelling`] | C12 |
//! | [`forgetting`] | C13 |
//! | [`naming`] | serial numbers, types and devices that are easily taken for one another |
//! | [`racing`] | C1 to C4, C10 and C14 under parallel load |

pub mod cancelling;
pub mod forgetting;
pub mod listing;
pub mod marking;
mod names;
pub mod naming;
pub mod paging;
pub mod racing;
pub mod registering;

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use passkit_server::{RegistrationStore, StoreMaintenance};

use crate::{Breach, Case, CaseResult, Level, Report, Rule, Stop, Verdict};

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

/// One entry of [`CASES`].
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
        task.spawn((self.run)(stores));
        let verdict = match tokio::time::timeout(PATIENCE, task.join_next()).await {
            Ok(Some(Ok(verdict))) => verdict,
            Ok(Some(Err(error))) => Err(Breach::new(Rule::ERRORS, "no panic", error.to_string()).into()),
            Ok(None) | Err(_) => Err(Breach::new(Rule::ERRORS, "an answer", "none for five minutes").into()),
        };
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

macro_rules! cases {
    ($($id:literal [$($rule:ident)+] $module:ident :: $function:ident, $steps:literal, $consequence:literal;)+) => {
        /// All cases, those that find simple faults first.
        pub const CASES: &[StoreCase] = &[
            $(StoreCase {
                case: Case {
                    id: $id,
                    level: Level::Must,
                    rules: &[$(Rule::$rule),+],
                    steps: $steps,
                    consequence: $consequence,
                },
                run: |stores| Box::pin(async move {
                    let store = stores.open().await.map_err(not_opened)?;
                    Ok($module::$function(&store).await?)
                }),
            }),+
        ];
    };
}

cases! {
    "store/first-register-creates" [C10] registering::first_register_creates,
        "", "";
    "store/every-register-stores-the-push-token" [C10] registering::every_register_stores_the_push_token,
        "", "";
    "store/devices-may-share-a-push-token" [C10] registering::devices_may_share_a_push_token,
        "", "";
    "store/unregister-removes-the-registration" [UNREGISTER] registering::unregister_removes_the_registration,
        "", "";
    "store/unregister-removes-the-device-with-its-last-registration" [UNREGISTER]
        registering::unregister_removes_the_device_with_its_last_registration,
        "", "";
    "store/unregistering-nothing-is-no-error" [UNREGISTER] registering::unregistering_nothing_is_no_error,
        "", "";
    "store/no-tag-lists-all" [UPDATED_SINCE C7] listing::no_tag_lists_all,
        "", "";
    "store/list-keeps-devices-apart" [UPDATED_SINCE] listing::list_keeps_devices_apart,
        "", "";
    "store/list-keeps-types-apart" [UPDATED_SINCE] listing::list_keeps_types_apart,
        "", "";
    "store/unknown-device-has-no-changes" [UPDATED_SINCE] listing::unknown_device_has_no_changes,
        "", "";
    "store/marked-pass-is-listed" [C1 MARK_UPDATED] listing::marked_pass_is_listed,
        "", "";
    "store/every-mark-counts-however-close" [C1 C4] listing::every_mark_counts_however_close,
        "", "";
    "store/asking-again-gives-nothing" [C2] listing::asking_again_gives_nothing,
        "", "";
    "store/new-registration-counts" [C3] listing::new_registration_counts,
        "", "";
    "store/tags-never-go-back" [C4] listing::tags_never_go_back,
        "", "";
    "store/tag-ahead-counts-as-none" [C5] listing::tag_ahead_counts_as_none,
        "", "";
    "store/old-tags-miss-nothing" [C1 C3 C7] listing::old_tags_miss_nothing,
        "", "";
    "store/mark-all-lists-every-registration-once" [C9 C2] marking::mark_all_lists_every_registration_once,
        "", "";
    "store/mark-all-takes-constant-time" [C9] marking::mark_all_takes_constant_time,
        "", "";
    "store/every-mark-moves-the-date" [C14] marking::every_mark_moves_the_date,
        "", "";
    "store/dates-move-with-marks-only" [C14] marking::dates_move_with_marks_only,
        "", "";
    "store/never-marked-passes-share-one-date" [C14] marking::never_marked_passes_share_one_date,
        "", "";
    "store/pages-hold-every-device" [C11] paging::pages_hold_every_device,
        "", "";
    "store/unknown-pass-has-no-devices" [C11] paging::unknown_pass_has_no_devices,
        "", "";
    "store/hostile-cursor-reads-from-the-start" [C11] paging::hostile_cursor_reads_from_the_start,
        "", "";
    "store/pages-under-change-miss-nobody" [C11] paging::pages_under_change_miss_nobody,
        "", "";
    "store/forget-minds-the-time" [C13] forgetting::forget_minds_the_time,
        "", "";
    "store/forget-counts-from-the-last-register" [C13] forgetting::forget_counts_from_the_last_register,
        "", "";
    "store/forget-leaves-others-alone" [C13] forgetting::forget_leaves_others_alone,
        "", "";
    "store/dropped-register-is-whole" [C12] cancelling::dropped_register_is_whole,
        "", "";
    "store/dropped-unregister-is-whole" [C12] cancelling::dropped_unregister_is_whole,
        "", "";
    "store/dropped-mark-is-whole" [C12] cancelling::dropped_mark_is_whole,
        "", "";
    "store/dropped-mark-all-is-whole" [C12] cancelling::dropped_mark_all_is_whole,
        "", "";
    "store/dropped-forget-is-whole" [C12] cancelling::dropped_forget_is_whole,
        "", "";
    "store/serials-of-the-wild" [NAMES] naming::serials_of_the_wild,
        "", "";
    "store/types-that-start-alike" [NAMES] naming::types_that_start_alike,
        "", "";
    "store/devices-that-start-alike" [NAMES] naming::devices_that_start_alike,
        "", "";
    "store/orders-and-passes-with-equal-serials" [NAMES] naming::orders_and_passes_with_equal_serials,
        "", "";
    "store/parallel-registers-create-once" [C10] racing::parallel_registers_create_once,
        "", "";
    "store/parallel-register-and-unregister" [C10] racing::parallel_register_and_unregister,
        "", "";
    "store/parallel-marks-move-the-date" [C14] racing::parallel_marks_move_the_date,
        "", "";
    "store/no-device-goes-stale" [C1 C2 C3 C4] racing::no_device_goes_stale,
        "", "";
    "store/ten-thousand-passes-on-one-device" [C1 C2 C9] racing::ten_thousand_passes_on_one_device,
        "", "";
    "store/one-pass-on-many-devices" [C11] racing::one_pass_on_many_devices,
        "", "";
}

/// Runs all of [`CASES`].
///
/// # Panics
/// Outside of a Tokio runtime with time enabled.
pub async fn run_all(stores: impl Stores + 'static) -> Report {
    run(CASES, stores).await
}

/// Runs some of [`CASES`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let mut ids: Vec<_> = CASES.iter().map(|one| one.case.id).collect();
        assert!(ids.iter().all(|id| {
            id.strip_prefix("store/")
                .is_some_and(|rest| rest.bytes().all(|b| b == b'-' || b.is_ascii_lowercase()))
        }));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CASES.len());
    }
}
