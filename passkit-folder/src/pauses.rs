//! Limits how often a pass is published again if instances serve different versions of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use passkit_server::PassId;

/// The first pause of a pass. Each later pause is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// The maximum number of passes that are remembered.
const PASSES: usize = 10_000;
/// The shortest time between two messages in the log.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The passes that were published again lately.
#[derive(Default)]
pub(crate) struct Pauses {
    passes: HashMap<PassId, Pause>,
    reported: Option<Instant>,
    unreported: usize,
}

struct Pause {
    until: Instant,
    time: Duration,
}

impl Pauses {
    /// Returns whether `pass` may be published again now. The first time, it may be published at
    /// once. Later, it may be published after its pause. If this returns `true`, the next pause of
    /// the pass starts.
    ///
    /// While too many passes are in a pause, no other pass may be published again.
    pub(crate) fn may_publish(&mut self, pass: &PassId, now: Instant) -> bool {
        if let Some(pause) = self.passes.get_mut(pass) {
            if now < pause.until {
                return false;
            }
            let quiet = now.duration_since(pause.until);
            let time = if quiet > LONGEST {
                FIRST
            } else {
                (pause.time * 2).min(LONGEST)
            };
            *pause = Pause {
                until: now + time,
                time,
            };
            return true;
        }
        if self.passes.len() >= PASSES {
            self.passes.retain(|_, pause| pause.until > now);
        }
        if self.passes.len() >= PASSES {
            return false;
        }
        self.passes.insert(
            pass.clone(),
            Pause {
                until: now + FIRST,
                time: FIRST,
            },
        );
        true
    }

    /// Counts a pass that was published again. Returns the count since the last message, if it is
    /// time for a message.
    pub(crate) fn report(&mut self, now: Instant) -> Option<usize> {
        self.unreported += 1;
        if self
            .reported
            .is_some_and(|last| now.duration_since(last) < REPORT_EVERY)
        {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(number: usize) -> PassId {
        PassId::new("pass.com.example.pauses", &number.to_string()).unwrap()
    }

    #[test]
    fn a_pass_may_be_published_again_at_once_and_then_after_pauses_that_grow() {
        let mut pauses = Pauses::default();
        let mut now = Instant::now();
        assert!(pauses.may_publish(&pass(1), now));
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(60 * minutes);
            assert!(
                !pauses.may_publish(&pass(1), now + pause - Duration::from_millis(1)),
                "{minutes}"
            );
            now += pause;
            assert!(pauses.may_publish(&pass(1), now), "{minutes}");
        }
        assert!(
            pauses.may_publish(&pass(2), now),
            "each pass has a separate pause"
        );
        now += LONGEST + LONGEST + Duration::from_secs(1);
        assert!(pauses.may_publish(&pass(1), now));
        assert!(
            pauses.may_publish(&pass(1), now + FIRST),
            "an hour without a conflict ends the growth"
        );
    }

    #[test]
    fn the_passes_that_are_remembered_are_bounded() {
        let mut pauses = Pauses::default();
        let now = Instant::now();
        for number in 0..PASSES {
            assert!(pauses.may_publish(&pass(number), now));
        }
        assert!(!pauses.may_publish(&pass(PASSES), now));
        assert_eq!(pauses.passes.len(), PASSES);
        assert!(pauses.may_publish(&pass(PASSES), now + FIRST));
        assert_eq!(pauses.passes.len(), 1);
    }

    #[test]
    fn there_is_one_line_a_minute_however_many_passes() {
        let mut pauses = Pauses::default();
        let now = Instant::now();
        assert_eq!(pauses.report(now), Some(1));
        assert_eq!(pauses.report(now), None);
        assert_eq!(pauses.report(now), None);
        assert_eq!(pauses.report(now + REPORT_EVERY), Some(3));
    }
}
