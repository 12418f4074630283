use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::lock;

/// What a [`LocalApns`](super::LocalApns) does with a push.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) act: Act,
    pub(crate) delay: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// What the checks find.
    Check,
    Respond(StatusCode, Bytes),
    Stall,
    Reset,
    GoAway(String),
    Close,
}

impl Answer {
    fn of(act: Act) -> Self {
        Self { act, delay: Duration::ZERO }
    }

    /// Accepts it, if it is without fault.
    #[must_use]
    pub fn accept() -> Self {
        Self::of(Act::Check)
    }

    /// Refuses it with a status and a reason, such as 403 and `BadCertificate`. A status that is none becomes 500.
    #[must_use]
    pub fn refuse(status: u16, reason: &str) -> Self {
        Self::json(status, &json!({ "reason": reason }))
    }

    /// Says with 410 since when the token is out of use.
    #[must_use]
    pub fn gone(reason: &str, since: SystemTime) -> Self {
        let since = since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self::json(410, &json!({ "reason": reason, "timestamp": u64::try_from(since).unwrap_or(u64::MAX) }))
    }

    /// Refuses it with this body, whatever it is.
    #[must_use]
    pub fn body(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of(Act::Respond(status, body.into()))
    }

    fn json(status: u16, body: &Value) -> Self {
        Self::body(status, body.to_string())
    }

    /// Never answers.
    #[must_use]
    pub fn stall() -> Self {
        Self::of(Act::Stall)
    }

    /// Ends the stream without an answer.
    #[must_use]
    pub fn reset() -> Self {
        Self::of(Act::Reset)
    }

    /// Ends the connection with GOAWAY and this reason: this push is not processed, and what was on its way before it is
    /// left without an answer.
    #[must_use]
    pub fn go_away(reason: &str) -> Self {
        Self::of(Act::GoAway(reason.into()))
    }

    /// Ends the connection without a word.
    #[must_use]
    pub fn close() -> Self {
        Self::of(Act::Close)
    }

    /// After this time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The answers that were asked for.
#[derive(Default)]
pub(crate) struct Script {
    /// Whether there are any: spares the lock.
    any: AtomicBool,
    script: Mutex<Orders>,
}

#[derive(Default)]
struct Orders {
    next: VecDeque<(usize, Answer)>,
    tokens: HashMap<String, Answer>,
}

impl Script {
    pub(crate) fn token(&self, token: &str, answer: Answer) {
        lock(&self.script).tokens.insert(token.into(), answer);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn next(&self, pushes: usize, answer: Answer) {
        lock(&self.script).next.push_back((pushes, answer));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        *lock(&self.script) = Orders::default();
        self.any.store(false, Ordering::Release);
    }

    pub(crate) fn answer(&self, token: &str) -> Answer {
        if !self.any.load(Ordering::Acquire) {
            return Answer::accept();
        }
        let mut orders = lock(&self.script);
        while let Some((left, answer)) = orders.next.front_mut() {
            if *left > 0 {
                *left -= 1;
                return answer.clone();
            }
            orders.next.pop_front();
        }
        orders.tokens.get(token).cloned().unwrap_or_else(Answer::accept)
    }
}
