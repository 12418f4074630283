use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

use crate::PassId;

/// How many requests may work at once.
const WORKING: usize = 32;
/// How many requests may work or wait. Each needs at most 16 KiB of memory.
const IN_ALL: usize = 512;
/// How many requests of one pass may work or wait, so that nobody can take all places with one pass.
const OF_A_PASS: usize = 24;

/// The enrolments at this instance. One request of a pass works at a time. The others wait without a
/// call to the store.
pub(super) struct Turns {
    working: Semaphore,
    places: StdMutex<Places>,
}

#[derive(Default)]
struct Places {
    taken: usize,
    of_a_pass: HashMap<PassId, (usize, Arc<Mutex<()>>)>,
}

/// The place of a request that works or waits.
pub(super) struct Place {
    turns: Arc<Turns>,
    pass: PassId,
    line: Arc<Mutex<()>>,
}

/// The right of a request to work.
pub(super) struct Turn<'a>(
    #[expect(dead_code, reason = "the right ends when it is dropped")]
    (MutexGuard<'a, ()>, Option<SemaphorePermit<'a>>),
);

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            working: Semaphore::new(WORKING),
            places: StdMutex::default(),
        }
    }

    /// Returns a place for a request. `None` if there are too many requests.
    pub(super) fn place(self: &Arc<Self>, pass: &PassId) -> Option<Place> {
        let mut places = self.places();
        if places.taken >= IN_ALL {
            return None;
        }
        let (taken, line) = places.of_a_pass.entry(pass.clone()).or_default();
        if *taken >= OF_A_PASS {
            return None;
        }
        *taken += 1;
        let line = line.clone();
        places.taken += 1;
        Some(Place {
            turns: self.clone(),
            pass: pass.clone(),
            line,
        })
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the request may work.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let line = self.line.lock().await;
        // This semaphore is never closed.
        let permit = self.turns.working.acquire().await.ok();
        Turn((line, permit))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.turns.places();
        places.taken -= 1;
        if let Some((taken, _)) = places.of_a_pass.get_mut(&self.pass) {
            *taken -= 1;
            if *taken == 0 {
                places.of_a_pass.remove(&self.pass);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn pass(serial: usize) -> PassId {
        PassId::new("pass.com.example.card", &serial.to_string()).unwrap()
    }

    #[test]
    fn the_places_have_limits() {
        let turns = Arc::new(Turns::new());
        let mut places: Vec<Place> = Vec::new();
        for serial in 0.. {
            let taken = places.len();
            places.extend((0..OF_A_PASS + 1).map_while(|_| turns.place(&pass(serial))));
            if places.len() == IN_ALL {
                break;
            }
            assert_eq!(places.len(), taken + OF_A_PASS);
        }
        assert!(turns.place(&pass(1_000)).is_none());
        places.pop();
        assert!(turns.place(&pass(1_000)).is_some());
        places.clear();
        let places = turns.places();
        assert!(places.taken == 0 && places.of_a_pass.is_empty());
    }

    #[test]
    fn one_request_of_a_pass_works_at_a_time() {
        let turns = Arc::new(Turns::new());
        let place = |serial| turns.place(&pass(serial)).unwrap();
        let (one, two) = (place(0), place(0));
        let first = one.turn().now_or_never().unwrap();
        assert!(two.turn().now_or_never().is_none());
        drop(first);
        let second = two.turn().now_or_never().unwrap();

        let others: Vec<Place> = (1..=WORKING).map(place).collect();
        let working: Vec<Turn<'_>> = others
            .iter()
            .filter_map(|place| place.turn().now_or_never())
            .collect();
        assert_eq!(working.len(), WORKING - 1);
        drop(second);
        assert!(others[WORKING - 1].turn().now_or_never().is_some());
    }
}
