use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Holds new connections off after failures, longer each time, until an answer comes.
#[derive(Default)]
pub(crate) struct Backoff {
    /// Whether there are any: spares the lock.
    any: AtomicBool,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    in_a_row: u32,
    last: String,
    until: Option<Instant>,
}

impl Backoff {
    /// The time that is left, and what failed last.
    pub(crate) fn wait(&self) -> Option<(Duration, String)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let left = failures.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some((left, failures.last.clone()))
    }

    /// No connection came about, or one ended before the first answer.
    ///
    /// One that ended may be replaced at once, the first time: APNs closes connections when it likes.
    pub(crate) fn failed(&self, what: &str, was_connected: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = if was_connected && failures.in_a_row == 0 {
            Duration::ZERO
        } else {
            (FIRST * 2_u32.pow(failures.in_a_row.min(6))).min(LONGEST)
        };
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        what.clone_into(&mut failures.last);
        failures.until = Some(Instant::now() + delay);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn answered(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = Failures::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(backoff: &Backoff) -> Duration {
        backoff.wait().map_or(Duration::ZERO, |(left, _)| left)
    }

    #[test]
    fn waits_grow_to_five_seconds_and_end_with_an_answer() {
        let backoff = Backoff::default();
        backoff.failed("lost", true);
        assert_eq!(wait(&backoff), Duration::ZERO);
        backoff.failed("lost", true);
        assert!(wait(&backoff) > FIRST && wait(&backoff) <= 2 * FIRST);
        for _ in 0..100 {
            backoff.failed("refused", false);
        }
        assert!(wait(&backoff) > LONGEST - FIRST && wait(&backoff) <= LONGEST);
        assert_eq!(backoff.wait().unwrap().1, "refused");
        backoff.answered();
        assert_eq!(wait(&backoff), Duration::ZERO);
        backoff.failed("refused", false);
        assert!(wait(&backoff) > FIRST / 2 && wait(&backoff) <= FIRST);
    }
}
