//! The case that makes random sequences of calls, and compares the answers with a small model of
//! the contract.
//!
//! A failing sequence is shortened, and reported as numbered steps.

mod operation;
mod reference;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use passkit_server::store::RegistrationStore;

use self::{operation::Operation, reference::Reference};
use super::case::catalogue;
use crate::{
    Violation,
    random::{Random, SEED, seed_of_run},
};

catalogue! {
    "store/random-sequences-follow-the-model" Must [C1 C2 C3 C4 C5 C7 C9 C10 C11 C13 C14 P2 P4 P5] store
        random_sequences_follow_the_model,
        "Runs 50 to 1,000 random sequences of calls, as many as fit into two seconds. Each sequence has up to 85 \
         calls for three devices and five passes of two types. Each answer is checked against a \
         model. PASSKIT_CONFORMANCE_SEED=n repeats a run.",
        "The consequence depends on the steps in the report. For example, an update is lost, or a pass is listed \
         forever.";
}

const SEQUENCES: u64 = 1_000;
/// After the budget is spent, this number of sequences is run all the same, because a busy machine
/// runs only a few in that time.
const LEAST: u64 = 50;
const BUDGET: Duration = Duration::from_secs(2);
/// The time limit for shortening a failing sequence.
const SHRINKING: Duration = Duration::from_secs(5);

async fn random_sequences_follow_the_model(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    let start = Instant::now();
    let first = seed_of_run()?;
    for seed in first..first.saturating_add(SEQUENCES) {
        let sequence = operation::sequence(&mut Random::new(seed));
        if let Err((violation, end)) = run(store, &sequence).await {
            let (smallest, violation) = shrink(store, &sequence[..end], violation).await;
            return Err(with_steps(&smallest, &violation, seed));
        }
        if start.elapsed() > BUDGET && seed - first >= LEAST {
            break;
        }
    }
    Ok(())
}

/// Runs a sequence with new identifiers. The error has the violation, and the number of steps up to
/// the violation.
async fn run(
    store: &Arc<dyn RegistrationStore>,
    sequence: &[Operation],
) -> Result<(), (Violation, usize)> {
    let mut reference = Reference::new().map_err(|violation| (violation, 0))?;
    for (n, operation) in sequence.iter().enumerate() {
        reference
            .step(store, operation)
            .await
            .map_err(|violation| (violation, n + 1))?;
    }
    Ok(())
}

/// Shortens a failing sequence. Removes large pieces first, then smaller ones, as long as the
/// sequence breaks the same rule.
async fn shrink(
    store: &Arc<dyn RegistrationStore>,
    failing: &[Operation],
    mut violation: Violation,
) -> (Vec<Operation>, Violation) {
    let start = Instant::now();
    let mut smallest = failing.to_vec();
    let mut piece = smallest.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < smallest.len() && start.elapsed() < SHRINKING {
            let mut less = smallest.clone();
            less.drain(at..(at + piece).min(smallest.len()));
            match run(store, &less).await {
                Err((found, end)) if found.rule() == violation.rule() => {
                    less.truncate(end);
                    (smallest, violation, smaller) = (less, found, true);
                }
                _ => at += piece,
            }
        }
        if start.elapsed() >= SHRINKING || (piece == 1 && !smaller) {
            return (smallest, violation);
        }
        if !smaller {
            piece = piece.div_ceil(2);
        }
    }
}

/// Adds the steps and the seed to a violation.
fn with_steps(steps: &[Operation], violation: &Violation, seed: u64) -> Violation {
    let mut actual = format!("{}; the steps are", violation.actual());
    for (n, step) in steps.iter().enumerate() {
        actual.push_str(&format!(" ({}) {step};", n + 1));
    }
    actual.push_str(&format!(" {SEED}={seed} repeats them"));
    Violation::new(violation.rule(), violation.expected(), actual)
}
