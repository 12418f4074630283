//! Reads the rows of an answer. A value that this crate never writes is an error.

use passkit_server::identifiers::InvalidIdentifier;
use sqlx::{Decode, Postgres, Row as _, Type, postgres::PgRow};

use crate::error::PostgresError;

pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T, PostgresError> {
    Ok(row.try_get(index)?)
}

/// Reads an answer that is a single value.
pub(crate) fn only<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    rows: &'r [PgRow],
) -> Result<T, PostgresError> {
    match rows {
        [row] => column(row, 0),
        _ => Err(PostgresError::unreadable(format!(
            "{} rows instead of one",
            rows.len()
        ))),
    }
}

/// Reads the answers to `count` questions. Each has one row.
pub(crate) fn row_for_each<T>(
    rows: &[PgRow],
    count: usize,
    answer: impl Fn(&PgRow) -> Result<T, PostgresError>,
) -> Result<Vec<Result<T, PostgresError>>, PostgresError> {
    if rows.len() != count {
        return Err(PostgresError::unreadable(format!(
            "{} rows for {count} questions",
            rows.len()
        )));
    }
    Ok(rows.iter().map(answer).collect())
}

/// Reads a number, a version or a date.
pub(crate) fn unsigned(row: &PgRow, index: usize) -> Result<u64, PostgresError> {
    u64::try_from(column::<i64>(row, index)?).map_err(PostgresError::unreadable)
}

/// Converts a number, a version or a date for PostgreSQL. A number that is too large becomes the largest possible.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX)
}

pub(crate) fn identifier<T>(
    text: &str,
    new: impl FnOnce(&str) -> Result<T, InvalidIdentifier>,
) -> Result<T, PostgresError> {
    new(text).map_err(PostgresError::unreadable)
}
