//! The cases of a web service: the sound one passes them all, and each of many wrong ones fails the right ones.

mod altered;
mod archives;
mod fetching;
mod listing;
mod orders;
mod racing;
mod registering;
mod sound;
mod stores;
mod traces;

use std::{collections::BTreeSet, sync::Arc};

use passkit_conformance::{
    Outcome, Rule,
    service::{Target, cases, run},
};
use sound::{Sound, Wrong};
use tokio::task::JoinSet;

use crate::store::faulty::Faulty;

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_service_passes_all() {
    let report = run(&cases(), &Sound::new().target()).await;
    println!("{report}");
    report.assert_kept();
    let skipped = report.results.iter().filter(|result| matches!(result.outcome, Outcome::Skip(_))).count();
    assert_eq!(skipped, 0, "nothing is lacking\n{report}");
}

/// A service that is wrong in one way.
pub(crate) struct Fault {
    /// What it does wrong.
    pub(crate) name: &'static str,
    /// The rule that the cases must name.
    pub(crate) rule: Rule,
    /// The cases that must find it.
    pub(crate) caught_by: &'static [&'static str],
    /// Makes the wrong service around a sound one.
    pub(crate) wrong: fn(Sound) -> Wrong,
}

fn faults() -> Vec<&'static Fault> {
    [registering::FAULTS, listing::FAULTS, fetching::FAULTS, archives::FAULTS, orders::FAULTS, traces::FAULTS]
        .into_iter()
        .flatten()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let mut tries = JoinSet::new();
    for Fault { name, rule, caught_by, wrong } in faults() {
        let sound = Sound::new();
        let target = sound.target_with(wrong(sound.clone()));
        tries.spawn(missed((*name).into(), *rule, caught_by, target));
    }
    for (fault, rule, caught_by) in stores::FAULTS {
        let target = Sound::over(Arc::new(Faulty::new(*fault))).target();
        tries.spawn(missed(format!("{fault:?}"), *rule, caught_by, target));
    }
    let missed = tries.join_all().await.concat();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// What the cases should have said of a fault, and did not.
async fn missed(name: String, rule: Rule, caught_by: &'static [&'static str], target: Target) -> Vec<String> {
    let all = cases();
    let chosen: Vec<_> = all.iter().filter(|one| caught_by.contains(&one.case.id)).collect();
    assert_eq!(chosen.len(), caught_by.len(), "{name} names an unknown case");
    let mut missed = Vec::new();
    for result in run(chosen, &target).await.results {
        let id = result.case.id;
        match result.outcome {
            Outcome::Fail(breach) if breach.rule() == rule => println!("{name}: {id}: {breach}"),
            Outcome::Fail(breach) => missed.push(format!("{name}: {id} found {breach}")),
            other => missed.push(format!("{name}: {id} found nothing: {other:?}")),
        }
    }
    missed
}

/// No case is without a service that it catches.
#[test]
fn every_case_has_caught_something() {
    let caught: BTreeSet<_> = faults()
        .iter()
        .map(|fault| fault.caught_by)
        .chain(stores::FAULTS.iter().map(|(_, _, caught_by)| *caught_by))
        .flatten()
        .copied()
        .collect();
    let idle: Vec<_> = cases().iter().map(|one| one.case.id).filter(|id| !caught.contains(id)).collect();
    assert!(idle.is_empty(), "never seen to fail: {idle:?}");
}
