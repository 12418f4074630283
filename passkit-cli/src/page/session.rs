//! Who is signed in. Sessions are in memory, so that a restart ends all of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

/// How long a session lasts without a request, and in total.
const IDLE: Duration = Duration::from_secs(60 * 60);
const WHOLE: Duration = Duration::from_secs(12 * 60 * 60);
/// The most sessions. One more session ends the one that was idle longest.
const MAX: usize = 100;

/// How many wrong tokens a network may try within a minute.
const WRONG_TOKENS: u32 = 5;
const MINUTE: Duration = Duration::from_secs(60);
/// How many networks are remembered.
const MAX_NETWORKS: usize = 10_000;

/// The random number in the cookie.
pub(super) struct Id([u8; 32]);

impl Id {
    /// Reads the value of a cookie.
    pub(super) fn of_cookie(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut id = [0; 32];
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(bytes.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }

    pub(super) fn to_cookie(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key under which a session is kept. A caller can't choose the digest, so the duration of
    /// a look-up reveals nothing about the number.
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// Returns the name of the cookie. A browser takes a name with `__Host-` only over HTTPS from this
/// very host.
pub(super) fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure {
        "__Host-passkit"
    } else {
        "passkit"
    }
}

/// The sessions, and the wrong tokens of the last minute.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<[u8; 32], Session>>,
    wrong: Mutex<HashMap<Option<IpAddr>, (u32, Instant)>>,
}

struct Session {
    begun: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self) -> bool {
        self.used.elapsed() >= IDLE || self.begun.elapsed() >= WHOLE
    }
}

impl Sessions {
    /// Begins a session. Fails if the system has no random numbers.
    pub(super) fn begin(&self) -> Result<Id, getrandom::Error> {
        let mut id = Id([0; 32]);
        getrandom::fill(&mut id.0)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| !session.is_over());
        if open.len() >= MAX {
            let oldest = open.iter().min_by_key(|(_, session)| session.used);
            let oldest = oldest.map(|(key, _)| *key);
            oldest.map(|key| open.remove(&key));
        }
        let now = Instant::now();
        let session = Session {
            begun: now,
            used: now,
        };
        open.insert(id.digest(), session);
        Ok(id)
    }

    /// Returns whether the session is open.
    pub(super) fn has(&self, id: &Id) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open
            .get_mut(&id.digest())
            .filter(|session| !session.is_over());
        session
            .map(|session| session.used = Instant::now())
            .is_some()
    }

    pub(super) fn end(&self, id: &Id) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&id.digest());
    }

    /// Judges a token. Returns `None` if this network tried too many wrong tokens within the last
    /// minute. Only wrong tokens count.
    ///
    /// The check and the count are one step. Otherwise, many requests could be checked before the
    /// first of them is counted.
    pub(super) fn judge(
        &self,
        network: Option<IpAddr>,
        is_right: impl FnOnce() -> bool,
    ) -> Option<bool> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let is_locked_out = wrong
            .get(&network)
            .is_some_and(|(count, since)| *count >= WRONG_TOKENS && since.elapsed() < MINUTE);
        if is_locked_out {
            return None;
        }
        if is_right() {
            return Some(true);
        }
        if wrong.len() >= MAX_NETWORKS {
            wrong.retain(|_, (_, since)| since.elapsed() < MINUTE);
        }
        if wrong.len() >= MAX_NETWORKS {
            wrong.clear();
        }
        let (count, since) = wrong.entry(network).or_insert((0, Instant::now()));
        if since.elapsed() >= MINUTE {
            (*count, *since) = (0, Instant::now());
        }
        *count += 1;
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_until_it_ends() {
        let sessions = Sessions::default();
        let id = sessions.begin().unwrap();
        let again = Id::of_cookie(&id.to_cookie()).unwrap();
        assert!(sessions.has(&again));
        assert!(!sessions.has(&Id([7; 32])));
        sessions.end(&id);
        assert!(!sessions.has(&again));
        assert!(Id::of_cookie("").is_none() && Id::of_cookie(&"g".repeat(64)).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_the_newest_stay() {
        let sessions = Sessions::default();
        let ids: Vec<Id> = (0..=MAX).map(|_| sessions.begin().unwrap()).collect();
        assert_eq!(sessions.open.lock().unwrap().len(), MAX);
        assert!(!sessions.has(&ids[0]) && sessions.has(&ids[MAX]));
    }

    #[test]
    fn wrong_tokens_are_counted_for_each_network() {
        let sessions = Sessions::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(text.parse().unwrap()));
        for _ in 0..WRONG_TOKENS {
            assert_eq!(sessions.judge(one, || true), Some(true));
            assert_eq!(sessions.judge(one, || false), Some(false));
        }
        for is_right in [true, false] {
            assert_eq!(sessions.judge(one, || is_right), None);
            assert_eq!(sessions.judge(other, || is_right), Some(is_right));
        }
    }
}
