//! The case whose length an environment variable sets.

use std::time::Instant;

use super::{case::catalogue, parallel::World, stores::Opened};
use crate::{
    CaseResult, Rule, Stop, Violation, length,
    random::{seed_of_run, with_seed},
};

catalogue! {
    "store/long-history-adds-up" Must [C6 C1 C2 C3 C4 C9 C10 C11 C13 C14 P1 P2 CHANGES_SINCE UNREGISTER COUNT_DEVICES] opened
        long_history_adds_up,
        "Does the same as parallel-history-adds-up in rounds, for one second or as long as \
         PASSKIT_CONFORMANCE_FOR says, such as 90s, 10m or 2h. Some calls are delayed, and some \
         callers are dropped. Three times in each round, the data are opened again and read. After \
         the third time, the calls go on with the opened data, as after a crash. \
         PASSKIT_CONFORMANCE_SEED=n makes the same calls again, but not at the same times.",
        "A fault that needs an unusual order of calls reaches the phones of some users.";
}

async fn long_history_adds_up(opened: &Opened) -> CaseResult {
    length::given().map_err(|text| {
        let expected = format!("a time such as 90s, 10m or 2h in {}", length::VARIABLE);
        Violation::new(Rule::ERRORS, expected, format!("{text:?}"))
    })?;
    let (start, first) = (Instant::now(), seed_of_run()?);
    opened.delay_calls();
    for seed in first.. {
        round(opened, seed)
            .await
            .map_err(|stop| with_seed_of(stop, seed))?;
        if start.elapsed() >= length::time() {
            break;
        }
    }
    Ok(())
}

async fn round(opened: &Opened, seed: u64) -> CaseResult {
    const PARTS: u64 = 3;
    const WRITES: usize = 20;
    let mut world = World::new(opened, WRITES).await?;
    for part in 1..=PARTS {
        world.busy(seed ^ (part << 50), true).await?;
        let reopened = match opened.reopen().await {
            Ok(reopened) => reopened,
            // If the data can't be opened again, the rest is still worth checking.
            Err(Stop::Skip(_)) => continue,
            Err(stop) => return Err(stop),
        };
        world
            .read_over(reopened.registrations().clone())
            .await
            .map_err(|found| found.unless_error_under(Rule::C6))?;
        if part == PARTS {
            // From here on, the test is in the state after a restart of a killed process. The data
            // can't be opened again after this, because the reopened store may have a copy of them.
            world = world.moved_to(&reopened);
            world.busy(seed, true).await?;
        }
    }
    Ok(world.recorder.history().check()?)
}

fn with_seed_of(stop: Stop, seed: u64) -> Stop {
    match stop {
        Stop::Fail(violation) => Stop::Fail(with_seed(violation, seed)),
        other => other,
    }
}
