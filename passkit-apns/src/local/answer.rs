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

use crate::lock::lock;

/// How a [`LocalApns`](super::LocalApns) answers a push.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(crate) act: Act,
    pub(crate) delay: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Accepts the push if the checks find no fault, and refuses it otherwise.
    Check,
    Respond(StatusCode, Bytes),
    Stall,
    Reset,
    GoAway(String),
    Close,
}

impl Answer {
    fn of(act: Act) -> Self {
        Self {
            act,
            delay: Duration::ZERO,
        }
    }

    /// Accepts the push if the request is valid, and refuses it otherwise.
    #[must_use]
    pub fn accept() -> Self {
        Self::of(Act::Check)
    }

    /// Refuses the push with a status and a reason, for example 403 and `BadCertificate`. An invalid
    /// status becomes 500.
    #[must_use]
    pub fn refuse(status: u16, reason: &str) -> Self {
        Self::json(status, &json!({ "reason": reason }))
    }

    /// Answers 410 with the time since when the token is out of use.
    #[must_use]
    pub fn gone(reason: &str, since: SystemTime) -> Self {
        let since = since
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        Self::json(
            410,
            &json!({ "reason": reason, "timestamp": u64::try_from(since).unwrap_or(u64::MAX) }),
        )
    }

    /// Answers with any status and body.
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

    /// Ends the connection with GOAWAY and this reason. The push is not processed. Earlier pushes that
    /// wait for an answer get none.
    #[must_use]
    pub fn go_away(reason: &str) -> Self {
        Self::of(Act::GoAway(reason.into()))
    }

    /// Ends the connection without GOAWAY.
    #[must_use]
    pub fn close() -> Self {
        Self::of(Act::Close)
    }

    /// Delays the answer.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The answers that were set.
#[derive(Default)]
pub(crate) struct Script {
    /// Whether there are answers. If there are none, the lock is not needed.
    any: AtomicBool,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    next: VecDeque<(usize, Answer)>,
    tokens: HashMap<String, Answer>,
}

impl Script {
    pub(crate) fn token(&self, token: &str, answer: Answer) {
        lock(&self.answers).tokens.insert(token.into(), answer);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn next(&self, pushes: usize, answer: Answer) {
        lock(&self.answers).next.push_back((pushes, answer));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        *lock(&self.answers) = Answers::default();
        self.any.store(false, Ordering::Release);
    }

    pub(crate) fn answer(&self, token: &str) -> Answer {
        if !self.any.load(Ordering::Acquire) {
            return Answer::accept();
        }
        let mut answers = lock(&self.answers);
        while let Some((left, answer)) = answers.next.front_mut() {
            if *left > 0 {
                *left -= 1;
                return answer.clone();
            }
            answers.next.pop_front();
        }
        answers
            .tokens
            .get(token)
            .cloned()
            .unwrap_or_else(Answer::accept)
    }
}
