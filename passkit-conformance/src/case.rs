use std::{fmt, str::FromStr};

use passkit_server::store::StoreError;

use crate::{Rule, Violation};

/// What a case is about. The catalogues are [`store::cases`](crate::store::cases) and
/// `service::cases`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case {
    /// The stable name: the endpoint, `store` or `queue`, a slash, and the expected result, as in
    /// `register/new-pass-is-201`.
    pub id: &'static str,
    /// How binding it is.
    pub level: Level,
    /// The rules that the case checks, the one that it is about first. If a run finds a violation
    /// of another rule, that rule blocks the case.
    pub rules: &'static [Rule],
    /// What the case does, in a sentence or two.
    pub steps: &'static str,
    /// What a phone or its owner suffers when the case fails.
    pub consequence: &'static str,
}

impl Case {
    /// Whether the case is there for this rule. A trace repeats what other cases check one by one.
    pub(crate) fn is_about(&self, rule: Rule) -> bool {
        self.rules.first() == Some(&rule) && self.endpoint() != "trace"
    }
}

/// How binding a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Phones rely on it. Without it updates are lost or repeat forever, or a stranger gets in.
    Must,
    /// Phones work without it, but not always well.
    Should,
    /// Good practice.
    Advisory,
}

impl Level {
    /// `must`, `should` or `advisory`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Advisory => "advisory",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Must, Self::Should, Self::Advisory]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| format!("no level is called {text:?}: write must, should or advisory"))
    }
}

/// The result of a case.
#[derive(Debug)]
pub enum Outcome {
    /// No rule was broken.
    Pass,
    /// A rule was broken.
    Fail(Violation),
    /// The case could not be tried, because another rule is broken. It does not count as failed.
    Blocked(Violation),
    /// The case does not apply to the target, or found nothing certain. The text is the reason.
    Skip(String),
    /// The case could not be completed. The text is the reason. It says nothing about the target.
    Error(String),
}

/// Why a case ends early.
#[derive(Debug)]
pub enum Stop {
    /// A rule was broken.
    Fail(Violation),
    /// The case cannot be tried, because another rule is broken.
    Blocked(Violation),
    /// The case does not apply to the target, or found nothing certain. The text is the reason.
    Skip(String),
    /// The case cannot go on. The text is the reason.
    Error(String),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Fail(violation)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Fail(error.into())
    }
}

/// What a case returns.
pub type CaseResult = Result<(), Stop>;

impl From<CaseResult> for Outcome {
    fn from(result: CaseResult) -> Self {
        match result {
            Ok(()) => Self::Pass,
            Err(Stop::Fail(violation)) => Self::Fail(violation),
            Err(Stop::Blocked(violation)) => Self::Blocked(violation),
            Err(Stop::Skip(reason)) => Self::Skip(reason),
            Err(Stop::Error(reason)) => Self::Error(reason),
        }
    }
}
