//! Finds calls that get slower as the amount of data grows.
//!
//! These calls walk through the data. Only the time that a call takes shows this, but other
//! processes disturb any single measurement. A case therefore doubles the amount of data several
//! times, and measures the call after each doubling. The call is a walk if its time grows with each
//! doubling, and if the last time is far above the time on almost no data.

use std::time::Duration;

/// A walk takes at least this much longer than the call on almost no data.
const LEAST: Duration = Duration::from_millis(1);
/// A walk takes at least this many times as long as the call on almost no data.
const TIMES: u32 = 4;
/// The possible factors by which the time of a walk grows when the data double. The range allows
/// for disturbances by other processes.
const STEP: std::ops::RangeInclusive<f64> = 1.5..=5.0;

/// Returns whether `time` is so far above `base` that it may be the time of a walk. `base` is the
/// time on almost no data.
pub(super) fn stands_out(base: Duration, time: Duration) -> bool {
    time >= base * TIMES && time - base >= LEAST
}

/// Returns whether `times` show a walk. The data doubled from each time to the next.
pub(super) fn is_walk(base: Duration, times: &[Duration]) -> bool {
    let above: Vec<f64> = times
        .iter()
        .map(|time| time.saturating_sub(base).as_secs_f64())
        .collect();
    times.last().is_some_and(|last| stands_out(base, *last))
        && above
            .windows(2)
            .all(|pair| pair[0] > 0.0 && STEP.contains(&(pair[1] / pair[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(base: u64, times: [u64; 4]) -> bool {
        is_walk(
            Duration::from_micros(base),
            &times.map(Duration::from_micros),
        )
    }

    #[test]
    fn a_walk_doubles_with_its_size() {
        assert!(walk(2, [1_000, 2_000, 4_000, 8_000]));
        assert!(walk(1, [160, 320, 640, 1_280]));
        assert!(walk(500, [900, 1_300, 2_200, 3_700]));
        assert!(walk(5_000, [9_000, 12_000, 22_000, 35_000]));
    }

    #[test]
    fn what_a_busy_machine_does_is_no_walk() {
        assert!(!walk(2, [2, 3, 2, 2]), "no difference");
        assert!(!walk(2, [20, 40, 80, 160]), "the difference is too small");
        assert!(
            !walk(5_000, [6_000, 7_000, 9_000, 13_000]),
            "not far enough above the rest"
        );
        assert!(!walk(2, [4, 3, 5, 20_000]), "one disturbance");
        assert!(
            !walk(2, [4_000, 8_000, 8_000, 16_000]),
            "no growth in between"
        );
        assert!(
            !walk(2, [16_000, 8_000, 4_000, 2_000]),
            "a machine that becomes less busy"
        );
        assert!(
            !walk(2_000, [2_000, 4_000, 8_000, 16_000]),
            "the first time is not above the base"
        );
        assert!(!is_walk(Duration::ZERO, &[]));
    }
}
