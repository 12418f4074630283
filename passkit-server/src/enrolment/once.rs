use std::time::Duration;

use crate::{
    PassId,
    store::{Coordination, StoreError, clock},
};

/// How long a request may work on an enrolment before another request takes over. No request takes
/// this long, so two requests never work on the same pass.
const TURN: Duration = Duration::from_secs(60);

/// The pause before a request checks again whether another request has finished.
const POLL: Duration = Duration::from_millis(100);

/// The enrolment of a pass. It happens only once, whichever instances get the requests.
pub(super) struct Once<'a> {
    store: &'a dyn Coordination,
    /// The name of the claim, and of the note with the time of the enrolment.
    name: String,
    /// The name of the note that is there while the enroller may have enrolled the pass.
    begun: String,
}

/// The right to enrol a pass.
pub(super) struct Turn<'a, 'b> {
    once: &'b Once<'a>,
    owner: String,
}

impl<'a> Once<'a> {
    pub(super) fn of(store: &'a dyn Coordination, pass: &PassId) -> Self {
        Self {
            store,
            name: done_name(pass),
            begun: begun_name(pass),
        }
    }

    /// Returns when the pass was enrolled, in microseconds since the Unix epoch.
    pub(super) async fn done_at(&self) -> Result<Option<u64>, StoreError> {
        let note = self.store.note(&self.name).await?;
        // A note that is not a time comes from another program. The pass then counts as enrolled
        // long ago.
        Ok(note.map(|time| time.parse().unwrap_or_default()))
    }

    /// Waits until no other request works on the enrolment. Returns `None` if the pass is then
    /// enrolled.
    pub(super) async fn begin(&self) -> Result<Option<Turn<'a, '_>>, StoreError> {
        let owner = format!("{:032x}", random());
        while !self.store.claim(&self.name, &owner, TURN).await? {
            tokio::time::sleep(POLL).await;
        }
        let turn = Turn { once: self, owner };
        if self.done_at().await?.is_some() {
            turn.end().await?;
            return Ok(None);
        }
        Ok(Some(turn))
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

impl Turn<'_, '_> {
    /// Returns whether an earlier request began an enrolment that is not done. The enroller may have
    /// enrolled the pass.
    pub(super) async fn was_begun(&self) -> Result<bool, StoreError> {
        let note = self.once.store.note(&self.once.begun).await?;
        Ok(note.is_some())
    }

    /// Remembers that the enroller may enrol the pass from now on.
    pub(super) async fn begun(&self) -> Result<(), StoreError> {
        let store = self.once.store;
        store
            .replace_note(&self.once.begun, None, Some("yes"))
            .await?;
        Ok(())
    }

    /// Remembers that the pass is enrolled.
    pub(super) async fn done(&self) -> Result<(), StoreError> {
        let time = clock::now_micros().to_string();
        let name = &self.once.name;
        // If the note exists, an earlier call for it took effect although it failed.
        self.once
            .store
            .replace_note(name, None, Some(&time))
            .await?;
        remove_note(self.once.store, &self.once.begun).await
    }

    /// Lets other requests continue.
    pub(super) async fn end(&self) -> Result<(), StoreError> {
        self.once.store.release(&self.once.name, &self.owner).await
    }
}

/// Returns a number that no other request has.
fn random() -> u128 {
    use std::hash::{BuildHasher as _, RandomState};

    let half = || u128::from(RandomState::new().hash_one(clock::now_micros()));
    half() << 64 | half()
}
