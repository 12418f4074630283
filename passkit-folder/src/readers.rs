//! Archives that are being sent. All readers of a version share one copy of it in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use passkit_server::PassId;

/// If this many passes are remembered, those without a reader are removed.
const PRUNED_FROM: usize = 1_024;

/// The copy of a pass that somebody reads. The lock is held while the copy is read from disk, so
/// that only one of many readers does it.
type Slot = tokio::sync::Mutex<Weak<Bytes>>;

#[derive(Default)]
pub(crate) struct Readers(Mutex<Slots>);

#[derive(Default)]
struct Slots {
    slots: HashMap<PassId, Arc<Slot>>,
    prune_at: usize,
}

struct Shared(Arc<Bytes>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Readers {
    /// Returns the copy that others are reading, or reads one.
    pub(crate) async fn get<E>(
        &self,
        pass: &PassId,
        read: impl AsyncFnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        // Get the slot before reading the copy. If the copy is replaced meanwhile, later readers
        // have another slot.
        let slot = self.slot(pass);
        let mut current = slot.lock().await;
        let shared = match current.upgrade() {
            Some(shared) => shared,
            None => match read().await? {
                Some(bytes) => {
                    let shared = Arc::new(bytes);
                    *current = Arc::downgrade(&shared);
                    shared
                }
                None => return Ok(None),
            },
        };
        Ok(Some(Bytes::from_owner(Shared(shared))))
    }

    /// Makes later readers read from disk again. Call it after the copies were replaced.
    pub(crate) fn forget(&self, passes: &[PassId]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pass in passes {
            state.slots.remove(pass);
        }
    }

    fn slot(&self, pass: &PassId) -> Arc<Slot> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = state.slots.get(pass) {
            return slot.clone();
        }
        if state.slots.len() >= state.prune_at.max(PRUNED_FROM) {
            state.slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot.try_lock().is_ok_and(|copy| copy.strong_count() > 0)
            });
            state.prune_at = 2 * state.slots.len();
        }
        state.slots.entry(pass.clone()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(serial: &str) -> PassId {
        PassId::new("pass.com.example", serial).unwrap()
    }

    async fn read(readers: &Readers, serial: &str, content: u8) -> Bytes {
        let read = async || Ok::<_, std::io::Error>(Some(Bytes::from(vec![content])));
        readers.get(&pass(serial), read).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn readers_of_a_version_share_it_and_a_new_version_is_read_again() {
        let readers = Readers::default();
        let first = read(&readers, "A", 1).await;
        let second = read(&readers, "A", 2).await;
        assert_eq!((&first[..], first.as_ptr()), (&[1][..], second.as_ptr()));
        readers.forget(&[pass("A")]);
        let third = read(&readers, "A", 3).await;
        assert_eq!((&third[..], &first[..]), (&[3][..], &[1][..]));
        drop((first, second, third));
        assert_eq!(&read(&readers, "A", 4).await[..], [4], "nobody had it");
    }

    #[tokio::test]
    async fn a_version_that_is_replaced_while_it_is_read_is_not_shared_later() {
        let readers = Readers::default();
        let slow = async || {
            readers.forget(&[pass("A")]);
            Ok::<_, std::io::Error>(Some(Bytes::from_static(&[1])))
        };
        let old = readers.get(&pass("A"), slow).await.unwrap().unwrap();
        assert_eq!(
            (&old[..], &read(&readers, "A", 2).await[..]),
            (&[1][..], &[2][..])
        );
    }

    #[tokio::test]
    async fn passes_that_nobody_reads_are_removed() {
        let readers = Readers::default();
        let held = read(&readers, "held", 1).await;
        for n in 0..10 * PRUNED_FROM {
            read(&readers, &n.to_string(), 2).await;
        }
        assert!(readers.0.lock().unwrap().slots.len() <= PRUNED_FROM + 1);
        assert_eq!(read(&readers, "held", 3).await.as_ptr(), held.as_ptr());
    }
}
