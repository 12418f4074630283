use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{
    PassId,
    store::{Coordination, StoreError, clock},
};

/// How long a request may work on an enrolment before another request takes over. No request takes
/// this long, so two requests never work on the same pass.
const TURN: Duration = Duration::from_secs(60);

/// How long a request waits until it looks again whether another one has finished. Each pause is
/// twice as long as the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The enrolment of a pass. It happens only once, whichever instances get the requests.
pub(super) struct Once<'a> {
    store: &'a dyn Coordination,
    /// The name of the claim, and of the note with the time of the enrolment.
    name: String,
    /// The name of the note that is there while the enroller may have enrolled the pass.
    begun: String,
    /// The owner of the claim, which is this request.
    owner: String,
}

impl<'a> Once<'a> {
    pub(super) fn of(store: &'a dyn Coordination, pass: &PassId) -> Self {
        Self {
            store,
            name: done_name(pass),
            begun: begun_name(pass),
            owner: format!("{:032x}", random()),
        }
    }

    /// Returns when the pass was enrolled, in microseconds since the Unix epoch.
    pub(super) async fn done_at(&self) -> Result<Option<u64>, StoreError> {
        let note = self.store.note(&self.name).await?;
        // A note that is not a time comes from another program. The pass then counts as enrolled
        // long ago.
        Ok(note.map(|time| time.parse().unwrap_or_default()))
    }

    /// Waits until no other request works on the enrolment, at any instance. Returns whether this
    /// request may work on it now, and `false` if it is too late. Call [`release`](Self::release)
    /// afterwards in any case: after an error, the claim may be there.
    pub(super) async fn claim(&self, end: Instant) -> Result<bool, StoreError> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            // The time limit does not cut this call off, so that no claim is made after the release.
            let is_claimed = self.store.claim(&self.name, &self.owner, TURN).await?;
            let now = Instant::now();
            if is_claimed || now >= end {
                return Ok(is_claimed && now < end);
            }
            sleep_until(end.min(now + pause)).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Returns whether an earlier request began an enrolment that is not done. The enroller may have
    /// enrolled the pass.
    pub(super) async fn was_begun(&self) -> Result<bool, StoreError> {
        let note = self.store.note(&self.begun).await?;
        Ok(note.is_some())
    }

    /// Remembers that the enroller may enrol the pass from now on.
    pub(super) async fn begun(&self) -> Result<(), StoreError> {
        let yes = Some("yes");
        self.store.replace_note(&self.begun, None, yes).await?;
        Ok(())
    }

    /// Remembers that the pass is enrolled.
    pub(super) async fn done(&self) -> Result<(), StoreError> {
        let time = clock::now_micros().to_string();
        // If the note exists, an earlier call for it took effect although it failed.
        self.store
            .replace_note(&self.name, None, Some(&time))
            .await?;
        remove_note(self.store, &self.begun).await
    }

    /// Lets other requests go on.
    pub(super) async fn release(&self) -> Result<(), StoreError> {
        self.store.release(&self.name, &self.owner).await
    }
}

/// Removes what the store keeps about the enrolment of a pass.
pub(crate) async fn forget<S>(store: &S, pass: &PassId) -> Result<(), StoreError>
where
    S: Coordination + ?Sized,
{
    remove_note(store, &done_name(pass)).await?;
    remove_note(store, &begun_name(pass)).await
}

async fn remove_note<S>(store: &S, name: &str) -> Result<(), StoreError>
where
    S: Coordination + ?Sized,
{
    while let Some(note) = store.note(name).await? {
        store.replace_note(name, Some(&note), None).await?;
    }
    Ok(())
}

/// Returns the name of the claim, and of the note with the time of the enrolment.
fn done_name(pass: &PassId) -> String {
    format!("enrolled {pass}")
}

/// Returns the name of the note that is there while the enroller may have enrolled the pass.
fn begun_name(pass: &PassId) -> String {
    format!("enrolling {pass}")
}

/// Returns a number that no other request has.
fn random() -> u128 {
    use std::hash::{BuildHasher as _, RandomState};

    let half = || u128::from(RandomState::new().hash_one(clock::now_micros()));
    half() << 64 | half()
}
