use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::SystemTime,
};

use tokio::time::Instant;

use crate::{delivery::PushFailure, identifiers::PushToken};

/// A key of fixed size for a push token. Equal tokens have equal keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey(u64, u64);

/// The start time and the result of the last push to each token. When this table is full, the
/// oldest entries are dropped. A dropped entry may cost an unneeded push.
#[derive(Debug, Default)]
pub(super) struct Recent {
    hashers: (RandomState, RandomState),
    young: HashMap<TokenKey, Pushed>,
    old: HashMap<TokenKey, Pushed>,
    newest: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pushed {
    pub(super) at: Instant,
    /// When the token went out of use, if it did.
    pub(super) gone: Option<SystemTime>,
    /// How the push failed. `None` if it was accepted.
    pub(super) failure: Option<PushFailure>,
}

/// How many tokens each of the two generations holds.
const GENERATION: usize = 250_000;

impl Recent {
    pub(super) fn key(&self, token: &PushToken) -> TokenKey {
        TokenKey(
            self.hashers.0.hash_one(token),
            self.hashers.1.hash_one(token),
        )
    }

    pub(super) fn get(&self, key: TokenKey) -> Option<Pushed> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    pub(super) fn insert(&mut self, key: TokenKey, pushed: Pushed) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, pushed);
        self.newest = self.newest.max(Some(pushed.at));
    }

    /// Frees the memory if all entries are older than `than`.
    pub(super) fn clear_if_older(&mut self, than: Instant) {
        if self.newest.take_if(|newest| *newest < than).is_some() {
            self.young = HashMap::new();
            self.old = HashMap::new();
        }
    }
}
