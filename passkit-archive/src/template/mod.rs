//! Templates: many passes or orders of one design.
//!
//! A [`Template`] is a folder or a flat zip archive. It may come from Apple's Pass Designer, or may
//! be any pass or order, zipped or not. A [`Draft`] is one pass of the template that is being
//! filled in.
//!
//! ```
//! use passkit_archive::{Archive, Rules, Signer, template::{Style, Template}};
//! # use passkit_server::identifiers::TypeIdentifier;
//! # let signer = Signer::throwaway(&TypeIdentifier::new("pass.com.example.card")?, "ABCDE12345")?;
//!
//! // Template::open("card.pkpasstemplate")? opens a template that somebody has drawn.
//! let template = Template::new(Style::StoreCard)
//!     .fill()
//!     .set("/passTypeIdentifier", "pass.com.example.card")
//!     .set("/teamIdentifier", "ABCDE12345")
//!     .set("/organizationName", "Example")
//!     .set("/description", "A stamp card")
//!     .set("/storeCard/primaryFields/-", serde_json::json!({ "key": "left", "value": 10 }))
//!     .into_template()?;
//!
//! for (member, left) in [("A-1", 3), ("A-2", 7)] {
//!     let pass = template.fill().serial(member).field("left", left).finish()?;
//!     let bytes = pass.build_signed(&signer)?;
//!     assert_eq!(Archive::check(&bytes, Rules::strict())?.id.serial.as_str(), member);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What never enters a pass
//! * `tooling.json` and every `_id`, which Pass Designer adds; `passkit.toml`; `manifest.json` and
//!   `signature` of an earlier pass; files that macOS adds.
//! * The `semantics` and `locations` of the template, because they are samples.
//!   [`Template::samples`] lists them. Set the values that are the same in all passes with
//!   [`Draft::set`].
//!
//! Everything else stays as it is: the order of keys, the digits of numbers, and keys that this
//! crate does not know.

mod document;
mod draft;
mod open;
mod outline;
mod strings;
mod style;
mod token;

use std::collections::BTreeSet;

use passkit_server::{identifiers::Kind, text::OneLine};

use self::document::Json;
pub use self::{draft::Draft, style::Style, token::TokenSecret};
use crate::{
    ArchiveBuilder, Findings, ReadError,
    layout::{Layout, PERSONALIZATION},
};

/// A template of passes or orders. See the [module](self).
#[derive(Clone, Debug)]
pub struct Template {
    kind: Kind,
    json: Json,
    /// The files. The description file is a placeholder.
    files: ArchiveBuilder,
    /// The files that [`Draft::finish`] checks. They are the same files, but images are cut after
    /// their headers.
    outline: ArchiveBuilder,
    /// JSON Pointers to the samples that were left out.
    samples: Vec<String>,
    /// The content of `passkit.toml`.
    recipe: Option<Vec<u8>>,
}

impl Template {
    /// Makes a template with only the keys that every pass of the style has, and white icons.
    #[must_use]
    pub fn new(style: Style) -> Self {
        style.template()
    }

    /// Returns whether this is a template of passes or of orders.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the key of the type: `passTypeIdentifier` or `orderTypeIdentifier`.
    #[must_use]
    pub fn type_key(&self) -> &'static str {
        Layout::of(self.kind).type_key
    }

    /// Returns JSON Pointers to the sample values that were left out, such as
    /// `/semantics/eventName`.
    #[must_use]
    pub fn samples(&self) -> &[String] {
        &self.samples
    }

    /// Returns the keys of all fields, in all styles. An order has no fields.
    #[must_use]
    pub fn field_keys(&self) -> BTreeSet<&str> {
        document::fields(&self.json)
            .filter_map(|field| field.member("key")?.text())
            .collect()
    }

    /// Returns whether a field with this key is shown as a number, because it has `numberStyle` or
    /// `currencyCode`.
    #[must_use]
    pub fn is_number(&self, key: &str) -> bool {
        self.has_style(key, ["numberStyle", "currencyCode"])
    }

    /// Returns whether a field with this key is shown as a date, because it has `dateStyle` or
    /// `timeStyle`.
    #[must_use]
    pub fn is_date(&self, key: &str) -> bool {
        self.has_style(key, ["dateStyle", "timeStyle"])
    }

    fn has_style(&self, key: &str, styles: [&str; 2]) -> bool {
        document::fields(&self.json)
            .filter(|field| field.member("key").and_then(Json::text) == Some(key))
            .any(|field| styles.iter().any(|style| field.member(style).is_some()))
    }

    /// Returns whether the passes offer rewards enrolment.
    #[must_use]
    pub fn offers_enrolment(&self) -> bool {
        self.files.content(PERSONALIZATION).is_some()
    }

    /// Returns the content of the file `passkit.toml`, if the template has one. It says how
    /// `passkit make` fills in the template.
    #[must_use]
    pub fn recipe(&self) -> Option<&[u8]> {
        self.recipe.as_deref()
    }

    /// Returns the text at a top-level key, such as `webServiceURL`.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.json.member(key)?.text()
    }

    /// Starts a pass of this template.
    pub fn fill(&self) -> Draft<'_> {
        Draft::new(self)
    }
}

/// The reason why a template can't be opened, or why a pass can't be made of it.
///
/// `Display` writes one line, or one line for each finding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A value can't be set.
    #[error("{}: {}", OneLine::of(pointer), OneLine::of(message))]
    Value {
        /// The JSON Pointer to the value, or the name of the file.
        pointer: String,
        /// What is wrong, and how to fix it.
        message: String,
    },
    /// The pass would be refused, or something in it could not work.
    #[error("{0}")]
    Pass(Findings),
}
