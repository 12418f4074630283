use std::{fmt, str::FromStr};

use passkit_server::store::StoreError;

use crate::{Rule, Violation};

/// The description of a case. [`store::cases`](crate::store::cases) and `service::cases` list all
/// cases.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Case {
    /// The stable name, such as `register/new-pass-is-201`. The part before the slash is the group,
    /// such as an endpoint, `store` or `queue`. The rest is the expected result.
    pub id: &'static str,
    /// How important the case is.
    pub level: Level,
    /// The rules that the case checks. The first is the rule that the case is about. If a run finds
    /// a violation of any other rule, that rule blocks the case.
    pub rules: &'static [Rule],
    /// The steps of the case, in a few sentences.
    pub steps: &'static str,
    /// What goes wrong for a phone or its owner if the case fails.
    pub consequence: &'static str,
}

impl Case {
    /// Returns whether the case is about this rule. A case in the groups `trace` and `history` is
    /// not about a single rule, because it repeats what other cases check.
    pub(crate) fn is_about(&self, rule: Rule) -> bool {
        self.rules.first() == Some(&rule) && !["trace", "history"].contains(&self.endpoint())
    }
}

/// How important a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Phones rely on the checked behaviour. Without this behaviour, updates get lost or repeat
    /// forever, or strangers get access.
    Must,
    /// Phones work without the checked behaviour, but not always well.
    Should,
    /// The checked behaviour is good practice. Phones work without it.
    Advisory,
}

impl Level {
    /// Returns `must`, `should` or `advisory`.
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
    /// The case could not be tried, because another rule is broken. A blocked case does not count
    /// as failed.
    Blocked(Violation),
    /// The case does not apply to the target, or has no clear result. The text is the reason.
    Skip(String),
    /// The case could not be completed, so it says nothing about the target. The text is the
    /// reason.
    Error(String),
}

/// Why a case ends early.
#[derive(Debug)]
pub enum Stop {
    /// A rule was broken.
    Fail(Violation),
    /// The case can't be tried, because another rule is broken.
    Blocked(Violation),
    /// The case does not apply to the target, or has no clear result. The text is the reason.
    Skip(String),
    /// The case cannot continue. The text is the reason.
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

/// The result of the function that runs a case.
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
