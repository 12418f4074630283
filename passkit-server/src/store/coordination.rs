use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::store::StoreError;

/// Coordinates processes that share a store. The processes claim jobs, and leave short notes for
/// each other.
///
/// Names have 1 to 700 bytes. Owners and notes have 1 to 1,000 bytes. None of these texts has
/// control characters. A store need not check this. A claim and a note may have the same name.
///
/// # Contract
/// * **K1, one owner.** If different owners call [`claim`](Self::claim) for one name in parallel,
///   one call returns `true`. The others return `true` only after the claim was released or has
///   expired. If the owner claims again before that, it keeps the claim, and the new time starts,
///   even if it is shorter. The store's own clock measures the time. If that is a wall clock and is
///   set forward, two owners may believe for a moment that they have a claim.
/// * **K2, released by its owner alone.** [`release`](Self::release) ends a claim if the owner
///   still has it. Otherwise it does nothing.
/// * **K3, notes are compared and set in one step.** If several
///   [`replace_note`](Self::replace_note) calls expect the same note in parallel, one returns
///   `true`. The others return `false` and change nothing.
/// * **K4, durable.** C6 applies to acknowledged calls. There is one exception: in a store that
///   only one process uses, a claim may be lost with the process.
///
/// # Cancel safety
/// A dropped call took effect completely or not at all.
///
/// # Errors
/// Every method fails with a [`StoreError`](crate::store::StoreError), as in
/// [`RegistrationStore`](crate::store::RegistrationStore). After an error the call may have taken
/// effect. It is always safe to repeat a claim or a release. After an error of `replace_note`, read
/// the note.
///
/// # Implementing
/// If a store repeats failed calls itself, it must not repeat a `replace_note` that may have taken
/// effect. The second try would return `false`, and the caller would not know that the first try
/// succeeded. Either return the error, or recognise the repeated call and return the first result.
///
/// A store need not remove expired claims. But an expired claim must not keep other owners out.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// Claims `name` for `owner` for the given time, which is at most a year. Returns whether
    /// `owner` has the claim.
    ///
    /// A claim with a time of 0 expires at once, or after the shortest time that the store can
    /// measure. The call still returns `true` unless another owner has the claim.
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError>;

    /// Ends the claim early if `owner` has it.
    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError>;

    /// Reads the note of this name.
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets the note to `new` if it equals `expected`. If `new` is `None`, the call removes the
    /// note instead. Returns whether the note equalled `expected`.
    ///
    /// `None` as `expected` means that there is no note. If both are `None`, the call changes
    /// nothing, and returns `true` if there is no note.
    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError>;
}

/// The longest claim.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Claims in memory, for a store that only one process uses.
#[derive(Debug, Default)]
pub struct Claims(Mutex<HashMap<String, Claim>>);

#[derive(Clone, Debug)]
struct Claim {
    owner: String,
    until: Instant,
}

/// A clone has the same claims, and is independent of the original.
impl Clone for Claims {
    fn clone(&self) -> Self {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self(Mutex::new(claims.clone()))
    }
}

impl Claims {
    /// Does what [`Coordination::claim`] describes.
    pub fn claim(&self, name: &str, owner: &str, time: Duration) -> bool {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        claims.retain(|_, claim| claim.until > now);
        if claims.get(name).is_some_and(|claim| claim.owner != owner) {
            return false;
        }
        claims.insert(
            name.to_owned(),
            Claim {
                owner: owner.to_owned(),
                until: now + time.min(YEAR),
            },
        );
        true
    }

    /// Does what [`Coordination::release`] describes.
    pub fn release(&self, name: &str, owner: &str) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|of, claim| of != name || claim.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_ends_when_it_expires_or_is_released() {
        let claims = Claims::default();
        let minute = Duration::from_secs(60);
        assert!(claims.claim("a", "one", minute) && claims.claim("b", "two", minute));
        assert!(!claims.claim("a", "two", minute) && claims.claim("a", "one", 2 * minute));
        claims.release("a", "two");
        assert!(!claims.claim("a", "two", minute));
        tokio::time::advance(minute).await;
        assert!(!claims.claim("a", "two", minute) && claims.claim("b", "one", minute));
        claims.release("a", "one");
        assert!(claims.claim("a", "two", Duration::MAX));
        tokio::time::advance(YEAR).await;
        assert!(claims.claim("a", "one", minute));
    }
}
