//! Tests whether a store keeps the contracts of
//! [`RegistrationStore`](passkit_server::store::RegistrationStore) and of the other traits of a
//! store.
//!
//! Each case makes its own random types, devices, serial numbers and names. All cases may therefore
//! share one store, even a store with real data. A case ends with the first
//! [`Violation`](crate::Violation) that it finds. [`cases`] returns all cases, and [`run_all`] runs
//! them. The test of a store looks like this:
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
//! Run the cases on a multi-threaded Tokio runtime, because races need more than one thread. No
//! case checks C8 (the order at the source), because C8 is a rule for callers of a store. The cases
//! of C6, P6 and K4 (durability) need a [`Stores`] that can [reopen](Stores::reopen) a store. The
//! cases of traits that the [`TestStore`] lacks are skipped.

mod cancelling;
mod case;
mod claiming;
mod crowds;
mod deferring;
mod finishing;
mod forgetting;
mod growth;
pub mod history;
mod interleaving;
mod lasting;
mod limited;
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
mod purging;
mod queue;
mod racing;
mod recording;
mod registering;
mod reopening;
mod sizes;
mod spread;
mod stores;
mod undisturbed;

use std::sync::Arc;

use self::case::Hangs;
pub use self::{
    case::StoreCase,
    stores::{BoxError, Stores, TestStore},
};
use crate::{Report, random};

/// All cases. The cases that find simple faults come first.
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
        interleaving::CASES,
        parallel::CASES,
        sizes::CASES,
        crowds::CASES,
        maintenance::CASES,
        purging::CASES,
        reopening::CASES,
        claiming::CASES,
        pending::CASES,
        deferring::CASES,
        finishing::CASES,
        undisturbed::CASES,
        recording::CASES,
        lasting::CASES,
    ]
    .concat()
}

/// Runs all [`cases`].
///
/// # Panics
/// Panics outside a Tokio runtime with time enabled.
pub async fn run_all(stores: impl Stores + 'static) -> Report {
    run(&cases(), stores).await
}

/// Runs cases one after the other. The run ends early if a call of the store did not return in
/// three cases.
///
/// # Panics
/// Panics outside a Tokio runtime with time enabled.
pub async fn run<'a>(
    cases: impl IntoIterator<Item = &'a StoreCase>,
    stores: impl Stores + 'static,
) -> Report {
    let stores = Arc::new(stores);
    let hangs = Hangs::default();
    let mut report = Report::default();
    let mut cases = cases.into_iter();
    while hangs.reason().is_none()
        && let Some(case) = cases.next()
    {
        let result = case.run_on(stores.clone(), &hangs).await;
        report.results.push(result);
    }
    if let Some(reason) = hangs.reason() {
        report.stop(cases.map(|one| one.case), reason);
    }
    report.seed = random::seed().ok().flatten();
    report.conclude();
    report
}

/// Makes a [trial](libtest_mimic::Trial) from each of the [`cases`]. Its name is the id of the
/// case. A skipped case is shown as ignored, with the reason. [`store_tests!`](crate::store_tests)
/// makes a complete test target.
#[cfg(feature = "trials")]
#[must_use]
pub fn trials(stores: impl Stores + 'static) -> Vec<libtest_mimic::Trial> {
    let (stores, hangs) = (Arc::new(stores), Arc::new(Hangs::default()));
    crate::trials::trials(cases().into_iter().map(|one| {
        let (stores, hangs) = (stores.clone(), hangs.clone());
        (one.case, async move { one.run_on(stores, &hangs).await })
    }))
}

/// Returns the arguments of the command line for the `main` of a test target. By default, at least
/// four trials run at once, because most cases wait for the storage most of the time.
/// [`store_tests!`](crate::store_tests) uses this function.
#[cfg(feature = "trials")]
#[must_use]
pub fn arguments() -> libtest_mimic::Arguments {
    crate::trials::arguments()
}

/// Defines the `main` of a test target that runs every store case as a separate trial. The
/// expression is a [`Stores`](crate::store::Stores). The test target needs `harness = false`.
///
/// ```no_run
/// use std::sync::Arc;
/// use passkit_conformance::store::TestStore;
/// use passkit_server::store::MemoryStore;
///
/// passkit_conformance::store_tests!(|| async { TestStore::with_all(Arc::new(MemoryStore::new())) });
/// ```
#[cfg(feature = "trials")]
#[macro_export]
macro_rules! store_tests {
    ($stores:expr $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            let arguments = $crate::store::arguments();
            $crate::libtest_mimic::run(&arguments, $crate::store::trials($stores)).exit_code()
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_well_formed() {
        let cases = cases();
        let mut ids: Vec<_> = cases.iter().map(|one| one.case.id).collect();
        for StoreCase { case, .. } in &cases {
            let name = case
                .id
                .strip_prefix("store/")
                .or_else(|| case.id.strip_prefix("queue/"))
                .or_else(|| case.id.strip_prefix("coordination/"))
                .or_else(|| case.id.strip_prefix("delivery/"))
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
