//! Tests the cases of a web service. The sound service passes all cases. Each of many faulty
//! services fails the expected cases.

mod altered;
mod archives;
mod credentials;
mod enrolling;
mod fetching;
mod history;
mod hostile;
mod listing;
mod logging;
mod orders;
mod preflight;
mod pushing;
mod racing;
mod registering;
mod right;
mod sound;
mod stores;
mod traces;
mod transport;
mod unregistering;
mod urls;
mod wrong;

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use passkit_conformance::{
    Outcome, Report, Rule,
    service::{Target, cases, run},
};
use sound::{Sound, Wrong};
use tokio::task::JoinSet;
use wrong::refusing;

use crate::store::faulty::Faulty;

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_service_passes_all() {
    let report = run(&cases(), &Sound::pushing().await.target()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(
        skipped(&report),
        [transport::ON_THE_WIRE],
        "only this case is skipped\n{report}"
    );
}

fn skipped(report: &Report) -> Vec<&'static str> {
    let skipped = report
        .results
        .iter()
        .filter(|result| matches!(result.outcome, Outcome::Skip(_)));
    skipped.map(|result| result.case.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_service_passes_all_over_the_network() {
    let report = run(&cases(), &Sound::pushing().await.target_on_loopback().await).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(skipped(&report), [""; 0], "no case is skipped\n{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_one_token_for_all_passes_is_not_accused() {
    let report = run(&cases(), &Sound::pushing().await.target_with_one_token()).await;
    println!("{report}");
    report.assert_passed();
    let about_tokens = [
        "auth/token-of-another-pass-is-401",
        "auth/token-of-another-type-is-401",
        "orders/token-of-another-order-is-401",
        "trace/same-serial-in-two-types",
        "trace/wrong-token",
        transport::ON_THE_WIRE,
    ];
    let skipped: BTreeSet<_> = skipped(&report).into_iter().collect();
    assert_eq!(skipped, BTreeSet::from(about_tokens), "{report}");
}

/// A service with one fault.
pub(crate) struct Fault {
    /// A description of the fault.
    pub(crate) name: &'static str,
    /// The rule that the cases must name.
    pub(crate) rule: Rule,
    /// The cases that must find it.
    pub(crate) caught_by: &'static [&'static str],
    /// Makes the faulty service from a sound one.
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
        enrolling::FAULTS,
        listing::FAULTS,
        fetching::FAULTS,
        archives::FAULTS,
        orders::FAULTS,
        traces::FAULTS,
        racing::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A fault, the rule that the cases must name, and the cases that must find it. Each run makes a
/// new service with the fault.
struct Try {
    name: String,
    rule: Rule,
    caught_by: &'static [&'static str],
    target: Box<dyn Fn() -> Making + Send + Sync>,
}

type Making = Pin<Box<dyn Future<Output = Target> + Send>>;

fn tries() -> Vec<Try> {
    let around = faults().into_iter().map(
        |Fault {
             name,
             rule,
             caught_by,
             wrong,
         }| Try {
            name: (*name).into(),
            rule: *rule,
            caught_by,
            target: Box::new(|| {
                let sound = Sound::new();
                let target = sound.target_with(wrong(sound.clone()));
                Box::pin(async { target })
            }),
        },
    );
    let over = stores::FAULTS.iter().map(|(fault, rule, caught_by)| Try {
        name: format!("{fault:?}"),
        rule: *rule,
        caught_by,
        target: Box::new(|| {
            let target = Sound::over(Arc::new(Faulty::new(*fault))).target();
            Box::pin(async { target })
        }),
    });
    let pushing = pushing::FAULTS.iter().map(|(fault, rule, caught_by)| Try {
        name: format!("{fault:?}"),
        rule: *rule,
        caught_by,
        target: Box::new(|| Box::pin(pushing::target(*fault))),
    });
    let history = history::FAULTS.iter().map(|(name, rule, make)| Try {
        name: (*name).into(),
        rule: *rule,
        caught_by: &[history::LONG],
        target: Box::new(|| {
            let target = history::target(*make);
            Box::pin(async { target })
        }),
    });
    around.chain(over).chain(pushing).chain(history).collect()
}

#[test]
fn there_are_many_faulty_services() {
    assert!(tries().len() >= 80, "{}", tries().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_named() {
    let mut all = JoinSet::new();
    for one in tries() {
        all.spawn(async move { missed(&one).await });
    }
    let mut still = Vec::new();
    for found in all.join_all().await {
        still.extend(found);
    }
    assert!(still.is_empty(), "{}", still.join("\n"));
}

/// Returns the faults that the cases should have found but did not find.
async fn missed(one: &Try) -> Vec<String> {
    let Try {
        name,
        rule,
        caught_by,
        target,
    } = one;
    let target = target().await;
    let all = cases();
    let chosen: Vec<_> = all
        .iter()
        .filter(|one| caught_by.contains(&one.case.id))
        .collect();
    assert_eq!(
        chosen.len(),
        caught_by.len(),
        "{name} names an unknown case"
    );
    let mut missed = Vec::new();
    // Each case runs alone, because a broken rule blocks other cases of the same run.
    for case in chosen {
        let id = case.case.id;
        match case.run(&target).await.outcome {
            Outcome::Fail(violation) | Outcome::Blocked(violation) if violation.rule() == *rule => {
                println!("{name}: {id}: {violation}")
            }
            Outcome::Fail(violation) => missed.push(format!("{name}: {id} found {violation}")),
            other => missed.push(format!("{name}: {id} found nothing: {other:?}")),
        }
    }
    missed
}

/// Faults, each with all cases that fail in a run of all cases. The fault blocks the other cases
/// that notice it.
const ALONE: &[(&str, &[&str])] = &[
    (
        "register answers 200 to a new registration",
        &["register/new-pass-is-201"],
    ),
    ("there is no Last-Modified", &["get/has-last-modified"]),
    ("Last-Modified is an ISO date", &["get/has-last-modified"]),
    (
        "tags are numbers",
        &["list/values-are-strings", "orders/list-has-its-own-words"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_is_not_many_failures() {
    let mut all = JoinSet::new();
    for (name, expected) in ALONE {
        let one = tries().into_iter().find(|one| one.name == *name).unwrap();
        all.spawn(async move { (name, expected, run(&cases(), &(one.target)().await).await) });
    }
    for (name, expected, report) in all.join_all().await {
        let failed: Vec<_> = report
            .results
            .iter()
            .filter(|result| matches!(result.outcome, Outcome::Fail(_)))
            .map(|result| result.case.id)
            .collect();
        assert_eq!(&failed, expected, "{name}: {report}");
    }
}

/// At most this many cases fail if one endpoint of a service always fails.
const MOST: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_endpoint_is_not_many_failures() {
    type Status = fn(&sound::Asked) -> Option<u16>;
    let spoiled: [(&str, Status); 4] = [
        ("each list is 500", |asked| {
            altered::is_list(asked).then_some(500)
        }),
        ("each list is empty", |asked| {
            altered::is_list(asked).then_some(204)
        }),
        ("each fetch is 500", |asked| {
            altered::is_fetch(asked).then_some(500)
        }),
        ("each registration is 500", |asked| {
            wrong::registers(asked).then_some(500)
        }),
    ];
    let mut all = JoinSet::new();
    for (name, status) in spoiled {
        let sound = Sound::new();
        let target = sound.target_with(refusing(sound.clone(), status));
        all.spawn(async move { (name, run(&cases(), &target).await) });
    }
    let mut many = Vec::new();
    for (name, report) in all.join_all().await {
        let failed: Vec<_> = report
            .results
            .iter()
            .filter(|result| matches!(result.outcome, Outcome::Fail(_)))
            .map(|result| result.case.id)
            .collect();
        if failed.is_empty() || failed.len() > MOST {
            many.push(format!("{name}: {} failed: {failed:?}", failed.len()));
        }
    }
    assert!(many.is_empty(), "{}", many.join("\n"));
}

/// Some faulty service fails each case.
#[test]
fn every_case_has_caught_something() {
    let caught: BTreeSet<_> = faults()
        .iter()
        .map(|fault| fault.caught_by)
        .chain(stores::FAULTS.iter().map(|(_, _, caught_by)| *caught_by))
        .chain(pushing::FAULTS.iter().map(|(_, _, caught_by)| *caught_by))
        .flatten()
        .copied()
        .chain([transport::ON_THE_WIRE, history::LONG])
        .collect();
    let idle: Vec<_> = cases()
        .iter()
        .map(|one| one.case.id)
        .filter(|id| !caught.contains(id))
        .collect();
    assert!(idle.is_empty(), "never seen to fail: {idle:?}");
}
