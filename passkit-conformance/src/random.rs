//! Random numbers from a seed. The same seed gives the same numbers.

use std::hash::{BuildHasher, RandomState};

use crate::{Rule, Violation};

/// The environment variable with the seed of a run. Set it to the number in a report to run the
/// same sequences again.
pub(crate) const SEED: &str = "PASSKIT_CONFORMANCE_SEED";

/// Returns the seed in the environment, if there is one.
///
/// # Errors
/// Fails with the text of the variable if the text is not a number.
pub(crate) fn seed() -> Result<Option<u64>, String> {
    match std::env::var(SEED) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| text),
        Err(_) => Ok(None),
    }
}

/// Returns the seed in the environment, or else a random seed.
///
/// # Errors
/// Fails if the variable is set to something that is not a number.
pub(crate) fn seed_of_run() -> Result<u64, Violation> {
    let given = seed().map_err(|text| {
        Violation::new(
            Rule::ERRORS,
            format!("a number in {SEED}"),
            format!("{text:?} in the environment"),
        )
    })?;
    Ok(given.unwrap_or_else(Random::short_seed))
}

/// Adds the seed to a violation.
pub(crate) fn with_seed(violation: Violation, seed: u64) -> Violation {
    let actual = format!("{}; {SEED}={seed} makes the same calls", violation.actual());
    Violation::new(violation.rule(), violation.expected(), actual)
}

/// Numbers that depend only on a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a random seed.
    pub(crate) fn from_time() -> u64 {
        RandomState::new().hash_one(std::process::id())
    }

    /// Returns a random seed that is short, because people copy it.
    pub(crate) fn short_seed() -> u64 {
        Self::from_time() % 1_000_000_000
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or(0) % end
    }
}
