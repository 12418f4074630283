//! Tests the cases of a store. The reference store passes all of them, and each of many faulty
//! stores fails the right ones.

mod faults;
pub(crate) mod faulty;
mod hanging;
mod memory;
mod right;

use std::{collections::BTreeSet, sync::Arc};

use faults::FAULTS;
use faulty::{Fault, FaultyStores};
use memory::Memory;
use passkit_conformance::{
    Outcome, Rule,
    store::{StoreCase, TestStore, cases, run, run_all},
};
use passkit_server::store::MemoryStore;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_store_passes_all() {
    let report = run_all(Memory).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_cases_may_share_one_store() {
    let store = Arc::new(MemoryStore::new());
    // The cases of StoreMaintenance are left out, because they need an empty store.
    let store = TestStore::new(store.clone()).with_queue(store);
    run_all(move || std::future::ready(store.clone()))
        .await
        .assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let all = cases();
    let mut missed = Vec::new();
    // A dropped call has half a minute to finish. So these cases run at the same time.
    let mut dropped = JoinSet::new();
    for (fault, rule, ids) in FAULTS {
        let checks: Vec<_> = all
            .iter()
            .filter(|one| ids.contains(&one.case.id.trim_start_matches("store/")))
            .collect();
        assert_eq!(checks.len(), ids.len(), "{fault:?} names an unknown case");
        for one in checks {
            if one.case.id.contains("/dropped-") {
                dropped.spawn(try_often(*one, *fault, *rule));
            } else {
                missed.extend(try_often(*one, *fault, *rule).await.err());
            }
        }
    }
    missed.extend(dropped.join_all().await.into_iter().filter_map(Result::err));
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// Tries a case up to five times, because races and random sequences may miss a fault on a busy
/// machine.
async fn try_often(one: StoreCase, fault: Fault, rule: Rule) -> Result<(), String> {
    let mut found = Err(String::new());
    for _ in 0..5 {
        found = try_fault(&one, fault, rule).await;
        if found.is_ok() {
            break;
        }
    }
    found
}

async fn try_fault(one: &StoreCase, fault: Fault, rule: Rule) -> Result<(), String> {
    let id = one.case.id;
    match one.run(&Arc::new(FaultyStores(fault))).await.outcome {
        // The case with random sequences may find another broken rule first.
        Outcome::Fail(violation)
            if violation.rule() == rule || id == "store/random-sequences-follow-the-model" =>
        {
            println!("{fault:?}: {id}: {violation}");
            Ok(())
        }
        Outcome::Fail(violation) => Err(format!("{fault:?}: {id} found {violation}")),
        other => Err(format!("{fault:?}: {id} found nothing: {other:?}")),
    }
}

/// The wrapper around the store adds no fault of its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_without_a_fault_passes() {
    let all = cases();
    let checks = all
        .iter()
        .filter(|one| one.case.id != "store/dropped-mark-is-all-or-nothing");
    run(checks, FaultyStores(Fault::None)).await.assert_passed();
}

/// For every case, there is a faulty store that fails it.
#[test]
fn every_case_has_caught_something() {
    let caught: BTreeSet<_> = FAULTS.iter().flat_map(|(_, _, ids)| *ids).collect();
    let all = cases();
    let names = all
        .iter()
        .map(|one| one.case.id.trim_start_matches("store/"));
    let idle: Vec<_> = names.filter(|name| !caught.contains(name)).collect();
    assert!(idle.is_empty(), "never seen to fail: {idle:?}");
}

/// For every rule of a store, there is a faulty store that breaks it.
#[test]
fn every_rule_was_seen_broken() {
    let of_stores = Rule::ALL
        .iter()
        .filter(|rule| rule.source().starts_with("the contract of"));
    let unbroken: Vec<_> = of_stores
        .filter(|rule| FAULTS.iter().all(|(_, broken, _)| broken != *rule))
        .collect();
    assert!(unbroken.is_empty(), "never seen broken: {unbroken:?}");
}
