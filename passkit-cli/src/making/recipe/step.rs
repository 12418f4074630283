//! A step of a recipe: a value that is set in each pass.

use passkit_archive::template::Draft;
use serde_json::Value;

use super::source::Source;

/// A value that is set in each pass.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) target: Target,
    pub(super) source: Source,
    pub(super) if_empty: IfEmpty,
    /// Whether a row may lack the column.
    pub(super) is_optional: bool,
    /// The place in the file.
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) enum Target {
    Field(String),
    Pointer(String),
    Barcode,
    Image(String),
    String { language: String, key: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfEmpty {
    Error,
    Keep,
    Remove,
}

impl Step {
    pub(super) fn apply<'a>(
        &self,
        draft: Draft<'a>,
        value: Value,
        image: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Draft<'a>, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Ok(match &self.target {
            Target::Field(key) => draft.field(key, value),
            Target::Pointer(pointer) => draft.set(pointer, value),
            Target::Barcode => draft.barcode(&text(&value)),
            Target::String { language, key } => draft.string(language, key, &text(&value)),
            Target::Image(name) => draft.image(name, image(&text(&value))?),
        })
    }

    pub(super) fn remove<'a>(&self, draft: Draft<'a>) -> Draft<'a> {
        match &self.target {
            Target::Field(key) => draft.remove_field(key),
            Target::Pointer(pointer) => draft.remove(pointer),
            Target::Barcode => draft.remove("/barcodes").remove("/barcode"),
            Target::Image(name) => draft.remove_image(name),
            // Such a recipe was refused when it was read.
            Target::String { .. } => draft,
        }
    }
}
