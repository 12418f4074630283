//! The store checks: the reference store passes them all, and each of many wrong stores fails the right ones.

pub(crate) mod faulty;

use std::sync::Arc;

use faulty::{Fault, Faulty};
use passkit_conformance::{
    Outcome, Rule,
    store::{CASES, run, run_all},
};
use passkit_server::{MemoryStore, RegistrationStore};

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_store_keeps_the_contract() {
    let report = run_all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn RegistrationStore> }).await;
    println!("{report}");
    report.assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_checks_may_share_one_store() {
    let store: Arc<dyn RegistrationStore> = Arc::new(MemoryStore::new());
    run_all(move || std::future::ready(store.clone())).await.assert_kept();
}

/// Each fault with the checks that must find it, and the rule that they must name.
const FAULTS: &[(Fault, Rule, &[&str])] = &[
    (Fault::TagsOfWholeSeconds, Rule::C1, &["every-mark-counts-however-close"]),
    (Fault::GreaterOrEqual, Rule::C2, &["asking-again-gives-nothing"]),
    (Fault::PushTokenNotReplaced, Rule::C10, &["every-register-stores-the-push-token"]),
    (Fault::AlwaysCreated, Rule::C10, &["first-register-creates", "parallel-registers-create-once"]),
    (Fault::AlwaysExisting, Rule::C10, &["first-register-creates", "parallel-registers-create-once"]),
    (
        Fault::RegisterChecksFirst,
        Rule::C10,
        &["parallel-registers-create-once", "parallel-register-and-unregister"],
    ),
    (Fault::RegisterInTwoSteps, Rule::C12, &["dropped-register-is-whole"]),
    (Fault::ListIgnoresType, Rule::UPDATED_SINCE, &["list-keeps-types-apart"]),
    (
        Fault::ListIgnoresDevice,
        Rule::UPDATED_SINCE,
        &["list-keeps-devices-apart", "unknown-device-has-no-changes"],
    ),
    (Fault::ListRepeatsSerials, Rule::UPDATED_SINCE, &["no-tag-lists-all"]),
    (Fault::ListFailsForUnknownDevice, Rule::ERRORS, &["unknown-device-has-no-changes"]),
    (Fault::OnlyTheNewestListed, Rule::C1, &["list-keeps-devices-apart"]),
    (Fault::TagNowBesideTheQuery, Rule::C1, &["no-device-goes-stale"]),
    (Fault::TagOfTheOldest, Rule::C2, &["asking-again-gives-nothing"]),
    (Fault::TagNeverMoves, Rule::C4, &["marked-pass-is-listed", "tags-never-go-back"]),
    (Fault::TagAheadIsCovered, Rule::C5, &["tag-ahead-counts-as-none"]),
    (Fault::RegistrationVersionIgnored, Rule::C3, &["new-registration-counts"]),
    (Fault::RegistrationVersionIgnored, Rule::C7, &["old-tags-miss-nothing"]),
    (Fault::NumberTakenBeforeItShows, Rule::C1, &["no-device-goes-stale"]),
    (Fault::MarkAllDoesNothing, Rule::C9, &["mark-all-lists-every-registration-once"]),
    (Fault::MarkAllPanics, Rule::ERRORS, &["mark-all-lists-every-registration-once"]),
    (Fault::MarkAllWalks, Rule::C9, &["mark-all-takes-constant-time"]),
    (Fault::FloorIgnoredInLists, Rule::C9, &["mark-all-lists-every-registration-once"]),
    (Fault::FloorIgnoredInDates, Rule::C14, &["every-mark-moves-the-date"]),
    (Fault::EmptyBatchMarksAll, Rule::MARK_UPDATED, &["marked-pass-is-listed"]),
    (Fault::BatchMarkedOneByOne, Rule::C12, &["dropped-mark-is-whole"]),
    (Fault::DateIsNow, Rule::C14, &["every-mark-moves-the-date", "parallel-marks-move-the-date"]),
    (Fault::UnmarkedDateIsNow, Rule::C14, &["dates-move-with-marks-only"]),
    (Fault::DateSharedByType, Rule::C14, &["dates-move-with-marks-only"]),
    (Fault::UnregisterLeavesRegistration, Rule::UNREGISTER, &["unregister-removes-the-registration"]),
    (
        Fault::UnregisterLeavesDevice,
        Rule::UNREGISTER,
        &["unregister-removes-the-device-with-its-last-registration"],
    ),
    (Fault::UnregisterSaysTrue, Rule::UNREGISTER, &["unregistering-nothing-is-no-error"]),
    (Fault::ForgetIgnoresTime, Rule::C13, &["forget-minds-the-time", "forget-counts-from-the-last-register"]),
    (Fault::ForgetNeedsLaterTime, Rule::C13, &["forget-minds-the-time"]),
    (Fault::ForgetLeavesRegistrations, Rule::C13, &["forget-minds-the-time"]),
    (Fault::PagesSkip, Rule::C11, &["pages-hold-every-device", "pages-under-change-miss-nobody"]),
    (Fault::PagesByOffset, Rule::C11, &["pages-under-change-miss-nobody"]),
    (Fault::PageLimitIgnored, Rule::C11, &["pages-hold-every-device"]),
    (Fault::CursorFails, Rule::ERRORS, &["hostile-cursor-reads-from-the-start"]),
    (Fault::SerialsFolded, Rule::NAMES, &["serials-of-the-wild"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let mut missed = Vec::new();
    for (fault, rule, ids) in FAULTS {
        let checks: Vec<_> =
            CASES.iter().filter(|one| ids.contains(&one.case.id.trim_start_matches("store/"))).collect();
        assert_eq!(checks.len(), ids.len(), "{fault:?} names an unknown check");
        let fault = *fault;
        let report =
            run(checks, move || async move { Arc::new(Faulty::new(fault)) as Arc<dyn RegistrationStore> })
                .await;
        for result in report.results {
            let id = result.case.id;
            match result.outcome {
                Outcome::Fail(breach) if breach.rule() == *rule => println!("{fault:?}: {id}: {breach}"),
                Outcome::Fail(breach) => missed.push(format!("{fault:?}: {id} found {breach}")),
                other => missed.push(format!("{fault:?}: {id} found nothing: {other:?}")),
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The wrapper itself is no fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_without_fault_is_right() {
    let slow = ["dropped-mark-is-whole", "mark-all-takes-constant-time"];
    let checks = CASES.iter().filter(|one| !slow.contains(&one.case.id.trim_start_matches("store/")));
    run(checks, || async { Arc::new(Faulty::new(Fault::None)) as Arc<dyn RegistrationStore> })
        .await
        .assert_kept();
}
