//! The cases of a web service: the sound one passes them all, and each of many wrong ones fails the right ones.

mod credentials;
mod logging;
mod registering;
mod sound;
mod transport;
mod unregistering;
mod urls;
mod wrong;

use std::collections::BTreeSet;

use passkit_conformance::{
    Outcome, Rule,
    service::{cases, run},
};
use sound::{Sound, Wrong};

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_service_passes_all() {
    let report = run(&cases(), &Sound::new().target()).await;
    println!("{report}");
    report.assert_kept();
    let skipped = report.results.iter().filter(|result| matches!(result.outcome, Outcome::Skip(_))).count();
    assert_eq!(skipped, 0, "nothing is lacking\n{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_service_passes_all_over_the_network() {
    let report = run(&cases(), &Sound::new().target_on_loopback().await).await;
    println!("{report}");
    report.assert_kept();
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
    [
        registering::FAULTS,
        unregistering::FAULTS,
        credentials::FAULTS,
        urls::FAULTS,
        transport::FAULTS,
        logging::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let all = cases();
    let mut missed = Vec::new();
    for Fault { name, rule, caught_by, wrong } in faults() {
        let chosen: Vec<_> = all.iter().filter(|one| caught_by.contains(&one.case.id)).collect();
        assert_eq!(chosen.len(), caught_by.len(), "{name} names an unknown case");
        let sound = Sound::new();
        let target = sound.target_with(wrong(sound.clone()));
        for result in run(chosen, &target).await.results {
            let id = result.case.id;
            match result.outcome {
                Outcome::Fail(breach) if breach.rule() == *rule => println!("{name}: {id}: {breach}"),
                Outcome::Fail(breach) => missed.push(format!("{name}: {id} found {breach}")),
                other => missed.push(format!("{name}: {id} found nothing: {other:?}")),
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// No case is without a service that it catches.
#[test]
fn every_case_has_caught_something() {
    let caught: BTreeSet<_> = faults().iter().flat_map(|fault| fault.caught_by).copied().collect();
    let idle: Vec<_> = cases().iter().map(|one| one.case.id).filter(|id| !caught.contains(id)).collect();
    assert!(idle.is_empty(), "never seen to fail: {idle:?}");
}
