use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::store::StoreError;

/// What the processes that share a store agree on: who does a job, and short notes.
///
/// Names are texts of 1 to 700 bytes without control characters; owners and notes are texts of 1 to 1,000 bytes without
/// control characters. Claims and notes have separate names. A store need not check this.
///
/// # Contract
/// * **K1, one owner.** Of any number of parallel [`claim`](Self::claim) calls by different owners for one name, one
///   returns `true`. The others return `true` only after the claim was released or its time is over. An owner that claims
///   again before that keeps the claim and sets its time anew. One clock measures the time, the store's own. It may be a
///   wall clock. When that is set forward, two owners may believe for a moment that they have a claim.
/// * **K2, released by its owner alone.** [`release`](Self::release) ends a claim if the owner still has it, and does
///   nothing otherwise.
/// * **K3, notes are compared and set in one step.** Of any number of parallel [`replace_note`](Self::replace_note) calls
///   that expect the same note, one returns `true`. The others return `false` and change nothing.
/// * **K4, durable.** What was acknowledged survives the process as C6 says of marks. A claim may be lost with its
///   process in a store that no other process uses.
///
/// # Cancel safety
/// A call that is dropped half way has happened or not, never in part.
///
/// # Errors
/// As those of [`RegistrationStore`](crate::store::RegistrationStore). After an error the call may have happened. Repeating a
/// claim or a release is always right. After an error of `replace_note`, read the note.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// Claims `name` for `owner` until `time` from now, a year at most. Returns whether `owner` has the claim.
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError>;

    /// Ends the claim early if `owner` has it.
    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError>;

    /// The note of this name.
    async fn note(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets the note to `new`, or removes it, if it is `expected` now. Returns whether it was.
    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError>;
}

/// The longest claim.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Claims in memory, for a store that one process uses.
#[derive(Debug, Default)]
pub struct Claims(Mutex<HashMap<String, Claim>>);

#[derive(Debug)]
struct Claim {
    owner: String,
    until: Instant,
}

impl Claims {
    /// What [`Coordination::claim`] does.
    pub fn claim(&self, name: &str, owner: &str, time: Duration) -> bool {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        claims.retain(|_, claim| claim.until > now);
        if claims.get(name).is_some_and(|claim| claim.owner != owner) {
            return false;
        }
        claims.insert(name.to_owned(), Claim { owner: owner.to_owned(), until: now + time.min(YEAR) });
        true
    }

    /// What [`Coordination::release`] does.
    pub fn release(&self, name: &str, owner: &str) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.retain(|of, claim| of != name || claim.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_ends_with_its_time_or_its_release() {
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
