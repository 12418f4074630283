//! The value that a step sets, and how it comes from a row.

use jiff::tz::TimeZone;
use passkit_archive::template::Template;
use serde_json::Value;

use super::{
    super::{dates, row_error::RowError, table::Row},
    error::shortened,
    text::Text,
};

#[derive(Debug)]
pub(super) enum Source {
    /// A value that is the same in all passes.
    Fixed(Value),
    Filled(Text, Form),
}

/// The JSON type of a value.
#[derive(Debug)]
pub(super) enum Form {
    Text,
    Number,
    Boolean,
    Date(Option<Zone>),
}

#[derive(Debug)]
pub(super) enum Zone {
    Fixed(TimeZone),
    Filled(Text),
}

impl Source {
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        let (text, zone) = match self {
            Source::Fixed(_) => (None, None),
            Source::Filled(text, Form::Date(Some(Zone::Filled(zone)))) => (Some(text), Some(zone)),
            Source::Filled(text, _) => (Some(text), None),
        };
        text.into_iter().chain(zone).flat_map(Text::columns)
    }

    pub(super) fn error(&self, row: &Row, message: String) -> RowError {
        match self.columns().next() {
            Some(column) => RowError::in_column(row.line, column, message),
            None => RowError::new(row.line, message),
        }
    }

    /// Returns the value for a row, or `None` if its columns are empty.
    pub(super) fn value(&self, row: &Row) -> Result<Option<Value>, RowError> {
        let (text, form) = match self {
            Source::Fixed(value) => return Ok(Some(value.clone())),
            Source::Filled(text, form) => (text, form),
        };
        let Some(text) = text.fill(row)? else {
            return Ok(None);
        };
        let value = match form {
            Form::Text => return Ok(Some(Value::String(text))),
            Form::Number => number(&text),
            Form::Boolean => boolean(&text),
            Form::Date(None) => dates::to_w3c(&text, None).map(Value::String),
            Form::Date(Some(Zone::Fixed(zone))) => {
                dates::to_w3c(&text, Some(zone)).map(Value::String)
            }
            Form::Date(Some(Zone::Filled(zone))) => {
                let name = zone.fill(row)?.unwrap_or_default();
                let found =
                    dates::zone(name.trim()).map_err(|message| match zone.columns().next() {
                        Some(column) => RowError::in_column(row.line, column, message),
                        None => RowError::new(row.line, message),
                    })?;
                dates::to_w3c(&text, Some(&found)).map(Value::String)
            }
        };
        let value = value
            .map_err(|message| self.error(row, format!("{:?} {message}", shortened(&text))))?;
        Ok(Some(value))
    }
}

impl Form {
    pub(super) fn of_field(template: &Template, key: &str) -> Self {
        if template.is_number(key) {
            Self::Number
        } else if template.is_date(key) {
            Self::Date(None)
        } else {
            Self::Text
        }
    }

    /// Returns a value of this type, to try a recipe.
    pub(super) fn sample(&self) -> Value {
        match self {
            Self::Text => "x".into(),
            Self::Number => 1.into(),
            Self::Boolean => true.into(),
            Self::Date(_) => "2026-11-27T10:00:00Z".into(),
        }
    }
}

fn number(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let wrong = || "is not a number; write it as 12 or 12.5".to_owned();
    let number: serde_json::Number = serde_json::from_str(text).map_err(|_| wrong())?;
    let is_whole = !text.contains(['.', 'e', 'E']);
    if is_whole && number.as_i64().is_none() && number.as_u64().is_none() {
        return Err("has too many digits for a number; use a text".into());
    }
    Ok(Value::Number(number))
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true.into()),
        "false" | "no" | "0" => Ok(false.into()),
        _ => Err("is neither true nor false; write one of these two".into()),
    }
}
