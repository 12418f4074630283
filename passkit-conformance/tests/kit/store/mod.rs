//! Tests the cases of a store. The reference store passes all cases. Each of many faulty stores
//! fails the expected cases.

mod faults;
pub(crate) mod faulty;
mod hanging;
mod kinds;
mod memory;
mod right;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use faults::FAULTS;
use faulty::{Fault, FaultyStores};
use kinds::KINDS;
use memory::Memory;
use passkit_conformance::{
    Outcome, Rule,
    store::{StoreCase, TestStore, cases, run, run_all},
};
use passkit_server::store::MemoryStore;
use tokio::{sync::Semaphore, task::JoinSet};

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
    let store = TestStore::new(store.clone())
        .with_queue(store.clone())
        .with_delivery(store);
    run_all(move || std::future::ready(store.clone()))
        .await
        .assert_passed();
}

/// A broken store, the rule that it breaks, and the cases that must find it.
type Broken = (Fault, Rule, &'static [&'static str]);

/// How many faults are tried at the same time.
const AT_ONCE: u32 = 4;

/// All broken stores.
fn broken() -> impl Iterator<Item = Broken> {
    let kinds = KINDS
        .iter()
        .map(|(kind, rule, ids)| (Fault::Kind(*kind), *rule, *ids));
    FAULTS.iter().copied().chain(kinds)
}

/// `PASSKIT_FAULT=Push` tries only faults whose names contain this text. `PASSKIT_FAULT_ROUNDS=10`
/// tries each of them ten times.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let all = cases();
    let chosen = std::env::var("PASSKIT_FAULT").unwrap_or_default();
    let rounds = std::env::var("PASSKIT_FAULT_ROUNDS").map_or(1, |text| text.parse().unwrap());
    // A dropped call has half a minute to finish, and an expired claim has a minute. The cases of
    // one fault therefore run at the same time.
    let mut tasks = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE as usize));
    for (fault, rule, ids) in broken().filter(|(fault, ..)| format!("{fault:?}").contains(&chosen))
    {
        let checks: Vec<_> = all
            .iter()
            .filter(|one| ids.contains(&one.case.id.trim_start_matches("store/")))
            .collect();
        assert_eq!(checks.len(), ids.len(), "{fault:?} names an unknown case");
        for one in checks.into_iter().copied().cycle().take(ids.len() * rounds) {
            let at_once = at_once.clone();
            tasks.spawn(async move {
                // A case that measures times runs alone.
                let turns = match one.case.id {
                    id if id.contains("/dropped-") => 0,
                    id if id.ends_with("-takes-constant-time") => AT_ONCE,
                    _ => 1,
                };
                let _turn = at_once.acquire_many(turns).await.unwrap();
                try_fault(&one, fault, rule).await
            });
        }
    }
    let missed: Vec<_> = tasks
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// How often a case may say that it can't judge, because the machine is busy with other programs.
const UNCLEAR: usize = 10;

async fn try_fault(one: &StoreCase, fault: Fault, rule: Rule) -> Result<(), String> {
    let id = one.case.id;
    let mut outcome = one.run(&Arc::new(FaultyStores(fault))).await.outcome;
    for _ in 0..UNCLEAR {
        if !matches!(outcome, Outcome::Skip(_)) {
            break;
        }
        outcome = one.run(&Arc::new(FaultyStores(fault))).await.outcome;
    }
    match outcome {
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

/// Shows which rules each fault breaks. All cases run on every broken store, except the cases that
/// take long.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn consequences_of_each_fault() {
    const SLOW: [&str; 8] = [
        "dropped-",
        "-sizes",
        "-many-devices",
        "ten-thousand",
        "history",
        "random-",
        "in-time",
        "constant-time",
    ];
    let chosen = std::env::var("PASSKIT_FAULT").unwrap_or_default();
    let at_once = Arc::new(Semaphore::new(4));
    let mut tasks = JoinSet::new();
    for (fault, rule, ids) in broken().filter(|(fault, ..)| format!("{fault:?}").contains(&chosen))
    {
        let at_once = at_once.clone();
        tasks.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            let is_named = |id: &str| ids.contains(&id.trim_start_matches("store/"));
            let fast: Vec<_> = cases()
                .into_iter()
                .filter(|one| {
                    is_named(one.case.id) || SLOW.iter().all(|slow| !one.case.id.contains(slow))
                })
                .collect();
            let report = run(&fast, FaultyStores(fault)).await;
            let broken: BTreeSet<_> = report
                .results
                .iter()
                .filter_map(|result| match &result.outcome {
                    Outcome::Fail(violation) => Some(violation.rule().id()),
                    _ => None,
                })
                .collect();
            let blocked = report
                .results
                .iter()
                .filter(|one| matches!(one.outcome, Outcome::Blocked(_)))
                .count();
            println!(
                "{fault:?}: {} breaks {broken:?}, {blocked} blocked",
                rule.id()
            );
            (format!("{fault:?}"), rule.id(), broken)
        });
    }
    for (fault, rule, broken) in tasks.join_all().await {
        assert!(
            broken.contains(rule),
            "{fault}: {rule} is not among {broken:?}"
        );
    }
}

/// The first number counts the stores with a fault of registrations, changes or contents. The
/// second number counts the stores with a fault of the queue, of claims, of notes or of delivery
/// records.
#[test]
fn there_are_many_broken_stores() {
    let mut faults: BTreeMap<String, bool> = BTreeMap::new();
    for (fault, _, ids) in broken() {
        let of_queue = ids
            .iter()
            .all(|id| id.contains('/') && !id.starts_with("store/"));
        *faults.entry(format!("{fault:?}")).or_insert(true) &= of_queue;
    }
    let queues = faults.values().filter(|of_queue| **of_queue).count();
    let stores = faults.len() - queues;
    println!("{stores} broken stores, {queues} broken queues");
    assert!(stores >= 120 && queues >= 105, "{stores} and {queues}");
}

/// The wrapper around the store has no fault itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_wrapper_without_a_fault_passes() {
    let all = cases();
    let checks = all
        .iter()
        .filter(|one| one.case.id != "store/dropped-mark-is-all-or-nothing");
    run(checks, FaultyStores(Fault::None)).await.assert_passed();
}

/// Some faulty store fails each case.
#[test]
fn every_case_has_caught_something() {
    let caught: BTreeSet<&str> = broken().flat_map(|(_, _, ids)| ids).copied().collect();
    let all = cases();
    let names = all
        .iter()
        .map(|one| one.case.id.trim_start_matches("store/"));
    let idle: Vec<_> = names.filter(|name| !caught.contains(name)).collect();
    assert!(idle.is_empty(), "never seen to fail: {idle:?}");
}

/// Some faulty store breaks each rule of a store.
#[test]
fn every_rule_was_seen_broken() {
    let of_stores = Rule::ALL
        .iter()
        .filter(|rule| rule.source().starts_with("the contract of"));
    let unbroken: Vec<_> = of_stores
        .filter(|rule| broken().all(|(_, broken, _)| broken != **rule))
        .collect();
    assert!(unbroken.is_empty(), "never seen broken: {unbroken:?}");
}
