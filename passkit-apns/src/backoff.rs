use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::lock::lock;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Delays new connections after failures. The delay grows until an answer comes.
#[derive(Default)]
pub(crate) struct Backoff {
    /// Whether there are failures. If there are none, the lock is not needed.
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
    /// Returns how long to wait, and the last failure. `None` if there is no need to wait.
    pub(crate) fn wait(&self) -> Option<(Duration, String)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let failures = lock(&self.failures);
        let left = failures
            .until?
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())?;
        Some((left, failures.last.clone()))
    }

    /// Records that no connection could be made, or that one ended before its first answer.
    ///
    /// The first connection that ends like this may be replaced at once, because APNs closes
    /// connections at any time.
    pub(crate) fn failed(&self, what: &str, was_connected: bool) {
        let mut failures = lock(&self.failures);
        let delay = delay(failures.in_a_row, was_connected);
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        what.clone_into(&mut failures.last);
        failures.until = Some(Instant::now() + delay);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn answered(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            *lock(&self.failures) = Failures::default();
        }
    }
}

/// Returns the delay after a failure that follows `in_a_row` others.
fn delay(in_a_row: u32, was_connected: bool) -> Duration {
    if was_connected && in_a_row == 0 {
        Duration::ZERO
    } else {
        (FIRST * 2_u32.pow(in_a_row.min(6))).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds() {
        assert_eq!(delay(0, true), Duration::ZERO);
        assert_eq!(delay(1, true), 2 * FIRST);
        assert_eq!(
            [0, 1, 2].map(|in_a_row| delay(in_a_row, false)),
            [FIRST, 2 * FIRST, 4 * FIRST]
        );
        assert_eq!(delay(100, false), LONGEST);
    }

    #[test]
    fn waits_end_with_an_answer() {
        let backoff = Backoff::default();
        backoff.failed("lost", true);
        assert!(backoff.wait().is_none());
        for _ in 0..100 {
            backoff.failed("refused", false);
        }
        let (left, last) = backoff.wait().unwrap();
        assert!(left <= LONGEST && last == "refused");
        backoff.answered();
        assert!(backoff.wait().is_none());
        assert_eq!(backoff.failures.lock().unwrap().in_a_row, 0);
    }
}
