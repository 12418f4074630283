//! Texts that name columns.

use super::super::{row_error::RowError, table::Row};

/// A text that names columns in braces.
#[derive(Debug)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Plain(String),
    Column(String),
}
/// A value and its place in the file.
#[derive(Debug)]
pub(crate) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl Text {
    pub(super) fn of_column(name: &str) -> Self {
        Self(vec![Piece::Column(name.into())])
    }

    /// Parses a text that may contain `{column}`. `{{` and `}}` stand for braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = brace
                .strip_prefix("{{")
                .or_else(|| brace.strip_prefix("}}"))
            {
                plain.extend(brace.chars().next());
                rest = after;
                continue;
            }
            let Some((column, after)) = brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
            else {
                return Err("has a brace without its partner; write a column as {name}, and a brace as {{ or }}".into());
            };
            if column.trim().is_empty() || column.contains('{') {
                return Err("has braces without a column; write a column as {name}, and a brace as {{ or }}".into());
            }
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Column(column.trim().into()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Self(pieces))
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Column(name) => Some(name.as_str()),
            Piece::Plain(_) => None,
        })
    }

    /// Returns the text for a row, or `None` if it has columns and all of them are empty.
    pub(super) fn fill(&self, row: &Row) -> Result<Option<String>, RowError> {
        let mut text = String::new();
        let mut is_empty = true;
        for piece in &self.0 {
            match piece {
                Piece::Plain(plain) => text.push_str(plain),
                Piece::Column(name) => {
                    let cell = row.cell(name)?;
                    is_empty &= cell.trim().is_empty();
                    text.push_str(cell);
                }
            }
        }
        let has_columns = self.columns().next().is_some();
        Ok((!(has_columns && is_empty)).then_some(text))
    }

    /// Returns the text if it has no columns.
    pub(super) fn fixed(&self) -> Option<String> {
        match &self.0[..] {
            [] => Some(String::new()),
            [Piece::Plain(plain)] => Some(plain.clone()),
            _ => None,
        }
    }
}

impl Placed<Text> {
    /// Returns the text for a row. It must not be empty.
    pub(crate) fn fill(&self, row: &Row) -> Result<String, RowError> {
        self.value
            .fill(row)?
            .ok_or_else(|| self.error(row, "is empty; fill it in"))
    }

    pub(crate) fn error(&self, row: &Row, message: impl Into<String>) -> RowError {
        match self.value.columns().next() {
            Some(column) => RowError::in_column(row.line, column, message),
            None => RowError::new(row.line, message),
        }
    }
}
