use std::{error::Error, fmt};

use passkit_server::StoreError;

/// A promise of [`RegistrationStore`](passkit_server::RegistrationStore): one of the numbered rules of its contract,
/// or what the documentation of one of its methods says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// Complete: what was marked is listed.
    C1,
    /// Quiet: what did not change is not listed again.
    C2,
    /// A new registration counts as a change.
    C3,
    /// Tags are monotone.
    C4,
    /// No tag is an error.
    C5,
    /// Nothing is under-reported.
    C7,
    /// Marking a whole type.
    C9,
    /// Registering is idempotent and free of races.
    C10,
    /// Devices are read in pages.
    C11,
    /// A dropped future leaves nothing half done.
    C12,
    /// A device is forgotten only if it did not come back.
    C13,
    /// The dates of a pass.
    C14,
    /// What `unregister` says of itself.
    Unregister,
    /// What `updated_since` says of itself.
    UpdatedSince,
    /// What `mark_updated` says of itself.
    MarkUpdated,
    /// Identifiers are compared whole and byte for byte.
    Names,
    /// A call fails only when the storage does.
    Errors,
}

impl Rule {
    /// The short name: `C1` to `C14`, the name of a method, `names` or `errors`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::C3 => "C3",
            Self::C4 => "C4",
            Self::C5 => "C5",
            Self::C7 => "C7",
            Self::C9 => "C9",
            Self::C10 => "C10",
            Self::C11 => "C11",
            Self::C12 => "C12",
            Self::C13 => "C13",
            Self::C14 => "C14",
            Self::Unregister => "unregister",
            Self::UpdatedSince => "updated_since",
            Self::MarkUpdated => "mark_updated",
            Self::Names => "names",
            Self::Errors => "errors",
        }
    }

    /// The rule in one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::C1 => "a marked pass is in the next list of every device that holds it",
            Self::C2 => {
                "with no mark and no registration in between, asking with the returned tag gives nothing"
            }
            Self::C3 => "a pass registered after a tag was issued is in the list for that tag",
            Self::C4 => {
                "tags never go backwards, and an answer with serial numbers never carries the tag asked with"
            }
            Self::C5 => "a tag ahead of the store's clocks counts as no tag",
            Self::C7 => "a list may name too many passes of the device, never too few",
            Self::C9 => {
                "marking a whole type takes constant time and lists every registration once to each device"
            }
            Self::C10 => {
                "of parallel equal registers one creates, each stores the push token, and none fails"
            }
            Self::C11 => "a device that is registered while all pages are read is in one of them",
            Self::C12 => "a future that is dropped half way leaves the store as before or as after the call",
            Self::C13 => "a device is forgotten only if it last registered at or before the given time",
            Self::C14 => "the date of a pass is strictly greater after every mark and never moves otherwise",
            Self::Unregister => {
                "unregister removes the registration, and the device with its last one, and says if there was one"
            }
            Self::UpdatedSince => {
                "a list holds passes of that type that are registered on that device, each once"
            }
            Self::MarkUpdated => {
                "passes may be unknown or stand twice in a batch, and an empty batch does nothing"
            }
            Self::Names => {
                "a pass is named by exactly its type and serial number, a device by exactly its identifier"
            }
            Self::Errors => "a call fails only when the storage does",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// A store that did not do what a [`Rule`] says: what was expected beside what happened.
///
/// Shows no device identifier and no push token.
#[derive(Debug)]
pub struct Breach {
    rule: Rule,
    expected: String,
    actual: String,
    source: Option<StoreError>,
}

impl Breach {
    /// A breach of `rule`.
    pub fn new(rule: Rule, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { rule, expected: expected.into(), actual: actual.into(), source: None }
    }

    /// The rule that was broken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// What the rule demands in this case.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What the store did.
    #[must_use]
    pub fn actual(&self) -> &str {
        &self.actual
    }

    /// The same, under another rule.
    pub(crate) fn under(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }
}

/// Every error of the store is a breach of [`Rule::Errors`]; no check gives cause for one.
impl From<StoreError> for Breach {
    fn from(error: StoreError) -> Self {
        let mut actual = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            actual.push_str(": ");
            actual.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { rule: Rule::Errors, expected: "no error".into(), actual, source: Some(error) }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, expected, actual, .. } = self;
        write!(f, "breaks {rule} ({}): expected {expected}, got {actual}", rule.sentence())
    }
}

impl Error for Breach {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// What a check returns.
pub type Kept = Result<(), Breach>;

/// A breach of `rule` unless `holds`.
pub(crate) fn demand(
    rule: Rule,
    holds: bool,
    expected: impl Into<String>,
    actual: impl FnOnce() -> String,
) -> Kept {
    if holds { Ok(()) } else { Err(Breach::new(rule, expected, actual())) }
}
