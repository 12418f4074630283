use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    answer::Script,
    check::KnownTokens,
    issuer::Issuer,
    options::{Options, Received},
    provider_token::TokenKeys,
};
use crate::lock::lock;

/// How many failed connections are kept.
const TROUBLES: usize = 10;

/// The state that all connections share. A push that gets a normal answer takes no lock that other
/// connections hold.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) issuer: Issuer,
    pub(crate) token_keys: TokenKeys,
    pub(crate) script: Script,
    pub(crate) known: KnownTokens,
    /// There is one list for each connection, so that connections do not wait for each other.
    pub(crate) received: Mutex<Vec<Arc<Mutex<Vec<Received>>>>>,
    pub(crate) violations: Mutex<Vec<String>>,
    pub(crate) connections: AtomicUsize,
    /// Why connections failed, the newest last.
    pub(crate) troubles: Mutex<VecDeque<String>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Counts a new connection. Returns its number and its list.
    pub(crate) fn connected(&self) -> (usize, Arc<Mutex<Vec<Received>>>) {
        let list = Arc::new(Mutex::new(Vec::new()));
        let mut lists = lock(&self.received);
        lists.push(Arc::clone(&list));
        self.connections.fetch_add(1, Ordering::Relaxed);
        (lists.len() - 1, list)
    }

    pub(crate) fn trouble(&self, text: String) {
        let mut troubles = lock(&self.troubles);
        if troubles.len() == TROUBLES {
            troubles.pop_front();
        }
        troubles.push_back(text);
    }

    pub(crate) fn violation(&self, text: impl Into<String>) {
        lock(&self.violations).push(text.into());
    }
}
