//! Decides when visits are due. The due times do not depend on how long earlier visits take.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::stop::Stop;

/// The longest time that `pace` sleeps before it checks again whether it has to stop.
const NOTICE: Duration = Duration::from_millis(50);

/// The number of visits that are due per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rate {
    PerSecond(f64),
    /// The callers make as many visits as they can. Each starts its next visit when its last visit
    /// has ended.
    Max,
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if (0.01..=1_000_000.0).contains(&rate) => Ok(Self::PerSecond(rate)),
            _ => Err("neither max nor a number between 0.01 and 1000000"),
        }
    }
}

/// Visits at even intervals from a start to an end.
pub(super) struct Schedule {
    pub(super) rate: Rate,
    pub(super) start: Instant,
    end: Instant,
    /// One permit for each visit that is due and has not started.
    waiting: Semaphore,
    begun: AtomicU64,
    stop: Stop,
}

/// A visit to make.
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) due: Instant,
}

impl Schedule {
    pub(super) fn new(rate: Rate, duration: Duration, stop: Stop) -> Self {
        let start = Instant::now();
        let end = start + duration;
        Self {
            rate,
            start,
            end,
            waiting: Semaphore::new(0),
            begun: AtomicU64::new(0),
            stop,
        }
    }

    /// Hands out turns when they are due, until the end. Returns the time at which the
    /// schedule ended, and the number of visits that were due by then.
    ///
    /// This blocks its thread, because the timers of the runtime are accurate only to a
    /// millisecond. Many visits take less time.
    pub(super) fn pace(&self) -> (Instant, u64) {
        let mut handed_out = 0;
        loop {
            let now = Instant::now().min(self.end);
            let is_over = now == self.end || self.stop.is_wanted();
            let due = self.due_before(now);
            self.waiting
                .add_permits(usize::try_from(due - handed_out).unwrap_or(0));
            handed_out = due;
            if is_over {
                // After that, no visit starts, even if it is due.
                self.waiting.close();
                return (now, due);
            }
            let next = self.due(due).map_or(self.end, |next| next.min(self.end));
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(NOTICE));
        }
    }

    /// Waits until the next visit is due. Returns `None` at the end.
    pub(super) async fn next(&self) -> Option<Turn> {
        if self.rate == Rate::Max {
            let now = Instant::now();
            let is_over = now >= self.end || self.stop.is_wanted();
            return (!is_over).then(|| Turn {
                number: self.begun.fetch_add(1, Ordering::Relaxed),
                due: now,
            });
        }
        self.waiting.acquire().await.ok()?.forget();
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        Some(Turn {
            number,
            due: self.due(number)?,
        })
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns how many visits are due but have not started.
    pub(super) fn backlog(&self) -> usize {
        self.waiting.available_permits()
    }

    /// Returns the time at which a visit is due. Returns `None` if that time depends on other
    /// visits.
    pub(super) fn due(&self, number: u64) -> Option<Instant> {
        match self.rate {
            Rate::PerSecond(rate) => {
                Some(self.start + Duration::from_secs_f64(number as f64 / rate))
            }
            Rate::Max => None,
        }
    }

    /// Returns how many visits are due before this time. Returns 0 for `Max`, because the number
    /// then depends on other visits.
    fn due_before(&self, then: Instant) -> u64 {
        match self.rate {
            // The first visit is due at the start.
            Rate::PerSecond(rate) => ((then - self.start).as_secs_f64() * rate).ceil() as u64,
            Rate::Max => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("12.5".parse(), Ok(Rate::PerSecond(12.5)));
        for wrong in ["", "0", "-1", "NaN", "inf", "Max", "1e9"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn visits_are_due_at_even_intervals_whenever_they_are_begun() {
        let schedule = Schedule::new(
            Rate::PerSecond(100.0),
            Duration::from_millis(10_005),
            Stop::never(),
        );
        let schedule = std::sync::Arc::new(schedule);
        let pace = {
            let schedule = schedule.clone();
            tokio::task::spawn_blocking(move || schedule.pace())
        };
        // The test takes the first turn at once, and 18 more after a pause. It takes none of the
        // later turns, although they become due.
        let mut turns = vec![schedule.next().await.unwrap()];
        tokio::time::sleep(Duration::from_millis(100)).await;
        while turns.len() < 19 {
            turns.push(schedule.next().await.unwrap());
            assert!(turns.last().unwrap().due <= Instant::now());
        }
        let (ended, due) = pace.await.unwrap();
        assert!(schedule.next().await.is_none());
        for (number, turn) in turns.iter().enumerate() {
            assert_eq!(turn.number, number as u64);
            assert_eq!(
                turn.due - schedule.start,
                Duration::from_millis(10) * u32::try_from(number).unwrap()
            );
        }
        assert_eq!(
            (ended - schedule.start, due, schedule.begun()),
            (Duration::from_millis(10_005), 1_001, 19)
        );
    }
}
