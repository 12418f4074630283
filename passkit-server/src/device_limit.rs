//! A bound on the devices of a pass. Anyone who has a pass can register made-up devices for it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    PassId,
    identifiers::DeviceIdentifier,
    refusal::Refusal,
    store::{Registered, RegistrationStore, StoreError},
};

/// How long a pass counts as full before its devices are counted again.
const FULL_FOR: Duration = Duration::from_secs(60);
/// The maximum number of passes below the bound that are remembered.
const REMEMBERED: usize = 10_000;

/// Counts the devices of a pass after a sample of the new registrations.
pub(crate) struct DeviceLimit {
    at_most: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// New registrations since the last sample.
    since_sample: u64,
    passes: HashMap<PassId, Known>,
}

#[derive(Clone, Copy)]
enum Known {
    /// The devices need no count until this many new registrations were made.
    Below(u64),
    /// The pass is full. Its devices are counted again at this time.
    Full(Instant),
}

impl DeviceLimit {
    pub(crate) fn new(at_most: u64) -> Self {
        Self {
            at_most,
            state: Mutex::default(),
        }
    }

    /// Returns the sampling interval: one in this many new registrations causes a count.
    fn interval(&self) -> u64 {
        (self.at_most / 64).clamp(1, 1_024)
    }

    /// Refuses a new device of a full pass. A device that is registered may register again, because
    /// its push token may have changed.
    pub(crate) async fn admit<S: RegistrationStore>(
        &self,
        store: &S,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<(), Refusal> {
        let known = self.with(|state| state.passes.get(pass).copied());
        let Some(Known::Full(until)) = known else {
            return Ok(());
        };
        if until <= Instant::now() && !self.count(store, pass).await? {
            return Ok(());
        }
        let registered = store.changes_since(device, &pass.type_id, None).await?;
        if registered.serials.contains(&pass.serial) {
            Ok(())
        } else {
            Err(Refusal::TooManyDevices)
        }
    }

    /// Counts the devices of the pass if this registration belongs to the sample.
    pub(crate) async fn registered<S: RegistrationStore>(
        &self,
        store: &S,
        pass: &PassId,
        registered: Registered,
    ) -> Result<(), StoreError> {
        if registered == Registered::Created && self.is_sample(pass) {
            self.count(store, pass).await?;
        }
        Ok(())
    }

    fn is_sample(&self, pass: &PassId) -> bool {
        let interval = self.interval();
        self.with(|state| match state.passes.get_mut(pass) {
            Some(Known::Full(_)) => false,
            Some(Known::Below(left)) if *left > 0 => {
                *left -= 1;
                false
            }
            Some(Known::Below(_)) => true,
            None => {
                state.since_sample += 1;
                let is_sample = state.since_sample >= interval;
                if is_sample {
                    state.since_sample = 0;
                }
                is_sample
            }
        })
    }

    /// Returns whether the pass is full.
    async fn count<S: RegistrationStore>(
        &self,
        store: &S,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let devices = store.count_devices(pass, self.at_most).await?;
        let is_full = devices >= self.at_most;
        // Only half of the remaining places count, because other instances register devices too.
        let left = self.at_most.saturating_sub(devices) / 2;
        let is_news = self.with(|state| {
            if is_full {
                let full = Known::Full(Instant::now() + FULL_FOR);
                let before = state.passes.insert(pass.clone(), full);
                return !matches!(before, Some(Known::Full(_)));
            }
            state.passes.remove(pass);
            if left > self.interval() {
                if state.passes.len() >= REMEMBERED {
                    state
                        .passes
                        .retain(|_, known| matches!(known, Known::Full(_)));
                }
                state.passes.insert(pass.clone(), Known::Below(left));
            }
            false
        });
        if is_news {
            tracing::error!(
                "{pass}: {devices} devices are registered, which is the maximum: further devices are refused"
            );
        }
        Ok(is_full)
    }

    fn with<T>(&self, use_state: impl FnOnce(&mut State) -> T) -> T {
        use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
