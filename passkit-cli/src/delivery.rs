//! Delivery records: how long they are kept.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use passkit_server::{delivery::DeliveryRecorder, store::StoreError};
use tokio::time::sleep;

use crate::{
    failure::Chain,
    store::{Store, random_text},
};

/// How often old records are discarded.
const EVERY: Duration = Duration::from_secs(3_600);
/// How long the instance that discards holds its claim. This is a little shorter, so that each hour
/// has a new claim.
const CLAIMED_FOR: Duration = Duration::from_secs(3_500);
/// How many records are discarded in one call.
const STEP: usize = 1_000;
/// The pause between two such calls, so that phones don't wait for them.
const PAUSE: Duration = Duration::from_millis(20);

/// How long delivery records are kept: the value of `--keep-records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep(Duration);

impl Keep {
    /// Nothing is recorded.
    pub(crate) const OFF: Self = Self(Duration::ZERO);

    /// The value of `--keep-records` if the user sets none.
    pub(crate) const DEFAULT: &str = "30d";

    /// Returns whether anything is recorded at all.
    pub(crate) fn is_on(self) -> bool {
        !self.0.is_zero()
    }

    /// Makes a recorder, unless nothing is recorded.
    pub(crate) fn recorder(self, store: &Arc<dyn Store>) -> Option<DeliveryRecorder> {
        self.is_on()
            .then(|| DeliveryRecorder::new(store.clone(), store.clone()))
    }
}

impl FromStr for Keep {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "write a number of days or hours, such as 30d or 12h, or 0 to record nothing";
        const MOST_HOURS: u64 = 24 * 366 * 10;
        if text == "0" {
            return Ok(Self::OFF);
        }
        let hours = match text.as_bytes().last() {
            Some(b'd') => 24,
            Some(b'h') => 1,
            _ => return Err(EXPECTED),
        };
        let digits = &text[..text.len() - 1];
        let number: u64 = digits.parse().map_err(|_| EXPECTED)?;
        match number.checked_mul(hours) {
            Some(hours @ 0..=MOST_HOURS) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self(Duration::from_secs(3_600 * hours)))
            }
            Some(_) => Err("must be at most ten years, such as 3660d"),
            None => Err(EXPECTED),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}h", self.0.as_secs() / 3_600)
    }
}

/// Discards old records every hour, forever. Only one of the instances that share the store does
/// so.
pub(crate) async fn discard_old(store: Arc<dyn Store>, keep: Keep) {
    loop {
        if let Err(error) = discard_once(&*store, keep).await {
            tracing::warn!(error = %Chain(&error), "old delivery records stay for another hour");
        }
        sleep(EVERY).await;
    }
}

async fn discard_once(store: &dyn Store, keep: Keep) -> Result<(), StoreError> {
    // The time is in the name, so that a service with a new time discards at its start.
    let claim = format!("passkit-delivery-records:{keep}");
    if !store.claim(&claim, &random_text()?, CLAIMED_FOR).await? {
        return Ok(());
    }
    let before = SystemTime::now()
        .checked_sub(keep.0)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    while !store.discard_before(before, STEP).await? {
        sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_of_days_or_hours() {
        let hours = |text: &str| text.parse::<Keep>().map(|keep| keep.0.as_secs() / 3_600);
        assert_eq!(hours("30d"), Ok(720));
        assert_eq!(hours("12h"), Ok(12));
        for off in ["0", "0d", "0h"] {
            assert_eq!(hours(off), Ok(0), "{off}");
        }
        for text in [
            "",
            "d",
            "30",
            "30 d",
            "1.5d",
            "-1d",
            "+1d",
            "30m",
            "99999999999999999999d",
            "4000d",
            "\u{661}d",
        ] {
            assert!(hours(text).is_err(), "{text:?}");
        }
        assert!(Keep::DEFAULT.parse::<Keep>().is_ok_and(Keep::is_on));
    }
}
