//! The case that runs as long as it is told to.

use std::time::{Duration, Instant};

use super::{
    case::catalogue,
    parallel::World,
    random::{seed_of_run, with_seed},
    stores::Opened,
};
use crate::{CaseResult, Rule, Stop, Violation};

catalogue! {
    "store/long-history-adds-up" Must [C6 C1 C2 C3 C4 C9 C10 C11 C13 C14 P1 P2 CHANGES_SINCE UNREGISTER COUNT_DEVICES] opened
        long_history_adds_up,
        "Does the same as parallel-history-adds-up in rounds, for one second or as long as \
         PASSKIT_CONFORMANCE_FOR says, such as 90s, 10m or 2h. Some calls are delayed, and some \
         callers are dropped. Three times in each round, the data are opened again and read. \
         PASSKIT_CONFORMANCE_SEED=n makes the same calls again, though not at the same moments.",
        "A fault that needs an unusual order of calls reaches the phones of some users.";
}

/// The environment variable with the time that the case takes.
const FOR: &str = "PASSKIT_CONFORMANCE_FOR";

/// Returns the time that the case takes. Without the variable, or if it can't be read, this is a
/// second.
pub(super) fn time() -> Duration {
    given().ok().flatten().unwrap_or(Duration::from_secs(1))
}

fn given() -> Result<Option<Duration>, String> {
    match std::env::var(FOR) {
        Ok(text) => read(&text).map(Some).ok_or(text),
        Err(_) => Ok(None),
    }
}

/// Reads a time such as `90s`, `10m` or `2h`.
fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

async fn long_history_adds_up(opened: &Opened) -> CaseResult {
    given().map_err(|text| {
        let expected = format!("a time such as 90s, 10m or 2h in {FOR}");
        Violation::new(Rule::ERRORS, expected, format!("{text:?}"))
    })?;
    let (start, first) = (Instant::now(), seed_of_run()?);
    opened.delay_calls();
    for seed in first.. {
        round(opened, seed)
            .await
            .map_err(|stop| with_seed_of(stop, seed))?;
        if start.elapsed() >= time() {
            break;
        }
    }
    Ok(())
}

async fn round(opened: &Opened, seed: u64) -> CaseResult {
    const PARTS: u64 = 3;
    const WRITES: usize = 20;
    let world = World::new(opened, WRITES).await?;
    for part in 0..PARTS {
        world.busy(seed ^ (part << 50), true).await?;
        match opened.reopen().await {
            Ok(reopened) => world
                .read_over(reopened.registrations().clone())
                .await
                .map_err(|found| found.unless_error_under(Rule::C6))?,
            // Without reopening, the rest is still worth checking.
            Err(Stop::Skip(_)) => {}
            Err(stop) => return Err(stop),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let seconds = |text| read(text).map(|time| time.as_secs());
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("2h"), Some(7_200));
        for text in [
            "",
            "s",
            "10",
            "1.5m",
            "-1s",
            "10d",
            "\u{661}s",
            "99999999999999999999h",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
