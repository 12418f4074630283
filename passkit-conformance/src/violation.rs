use std::{error::Error, fmt};

use passkit_server::{store::StoreError, text::Chain};

use crate::Rule;

/// A broken [`Rule`]: what was expected, and what happened.
///
/// A violation contains no device identifier, push token or authentication token.
#[derive(Debug)]
pub struct Violation {
    rule: Rule,
    expected: String,
    actual: String,
    source: Option<StoreError>,
}

impl Violation {
    /// Makes a violation of `rule`.
    pub fn new(rule: Rule, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self {
            rule,
            expected: expected.into(),
            actual: actual.into(),
            source: None,
        }
    }

    /// The rule that was broken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What should have happened.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What happened instead.
    #[must_use]
    pub fn actual(&self) -> &str {
        &self.actual
    }

    /// Changes the broken rule.
    pub(crate) fn under(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Changes the broken rule, unless the store returned an error.
    pub(crate) fn unless_error_under(self, rule: Rule) -> Self {
        if self.rule == Rule::ERRORS {
            self
        } else {
            self.under(rule)
        }
    }
}

/// Every error of a store breaks [`Rule::ERRORS`], because no case gives the store a reason to
/// fail.
impl From<StoreError> for Violation {
    fn from(error: StoreError) -> Self {
        Self {
            rule: Rule::ERRORS,
            expected: "no error".into(),
            actual: Chain(&error).to_string(),
            source: Some(error),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            expected,
            actual,
            ..
        } = self;
        write!(
            f,
            "breaks {rule} ({}): expected {expected}, got {actual}",
            rule.sentence()
        )
    }
}

impl Error for Violation {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// Returns a violation of `rule` if `holds` is false.
pub(crate) fn ensure(
    rule: Rule,
    holds: bool,
    expected: impl Into<String>,
    actual: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(rule, expected, actual()))
    }
}
