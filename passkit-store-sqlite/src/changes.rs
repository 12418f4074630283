use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, SerialNumber, TokenDigest, TypeIdentifier},
    push::Scope,
    store::{Changes, Content, ContentDigest, Published, StoreError, UpdateTag, clock},
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params, types::Type};

use crate::{
    error::SqliteError,
    layout::{self, identifier, integer, number},
};

/// Marks passes like [`mark`](passkit_server::store::RegistrationStore::mark), in a transaction of your own, so that the content
/// and its mark commit together.
///
/// The transaction must be on the file of the store, and must start as
/// [`Immediate`](rusqlite::TransactionBehavior::Immediate). The transaction has the only write lock of the file until it
/// ends.
///
/// # Errors
/// Fails if a statement fails. Roll the transaction back then.
pub fn mark_in(
    transaction: &Transaction<'_>,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    let marked = mark(transaction, type_id, changed).map(drop);
    marked.map_err(|error| failed_in(transaction, error))
}

pub(crate) fn failed_in(transaction: &Transaction<'_>, error: rusqlite::Error) -> StoreError {
    SqliteError::sqlite(transaction.path().unwrap_or_default().as_ref(), error).into()
}

/// A [`Changed`] that can go to another thread.
pub(crate) enum OwnedChange {
    Passes(Vec<SerialNumber>),
    Contents(Vec<Content>),
    All,
}

impl OwnedChange {
    /// Returns `None` if nothing changed.
    pub(crate) fn new(changed: Changed<'_>) -> Option<Self> {
        match changed {
            Changed::Passes([]) | Changed::Contents([]) => None,
            Changed::Passes(serials) => Some(Self::Passes(serials.to_vec())),
            Changed::Contents(contents) => Some(Self::Contents(contents.to_vec())),
            Changed::All => Some(Self::All),
        }
    }

    pub(crate) fn borrowed(&self) -> Changed<'_> {
        match self {
            Self::Passes(serials) => Changed::Passes(serials),
            Self::Contents(contents) => Changed::Contents(contents),
            Self::All => Changed::All,
        }
    }
}

/// Marks what changed. Returns the new version, and the passes or the type that were marked.
pub(crate) fn mark(
    connection: &Connection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> rusqlite::Result<(i64, Vec<Scope>)> {
    let mut scopes = Vec::new();
    match changed {
        Changed::Passes(serials) => scopes.extend(serials.iter().cloned().map(Scope::Pass)),
        Changed::Contents(contents) => {
            for content in contents {
                if publish(connection, type_id, content)? {
                    scopes.push(Scope::Pass(content.serial.clone()));
                }
            }
        }
        Changed::All => scopes.push(Scope::Type),
    }
    let version = if scopes.is_empty() {
        0
    } else {
        mark_scopes(connection, type_id, &scopes)?
    };
    Ok((version, scopes))
}

fn mark_scopes(
    connection: &Connection,
    type_id: &TypeIdentifier,
    scopes: &[Scope],
) -> rusqlite::Result<i64> {
    let type_id = type_id.as_str();
    // The time is read inside the transaction, so that a later transaction reads a later time.
    let now = integer(clock::now_micros());
    let seconds = now / 1_000_000;
    let (version, floor_date, latest_date): (i64, i64, i64) = connection
        .prepare_cached(layout::TICK)?
        .query_row(params![type_id, now], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let mut latest = latest_date;
    let mut mark_pass = connection.prepare_cached(layout::MARK_PASS)?;
    for scope in scopes {
        match scope {
            Scope::Pass(serial) => {
                let mark = params![type_id, serial.as_str(), version, seconds, floor_date];
                latest = latest.max(mark_pass.query_row(mark, |row| row.get(0))?);
            }
            Scope::Type => {
                let date = seconds.max(latest_date + 1);
                connection
                    .prepare_cached(layout::MARK_TYPE)?
                    .execute(params![type_id, date])?;
            }
        }
    }
    if latest > latest_date {
        connection
            .prepare_cached(layout::SET_LATEST_DATE)?
            .execute(params![type_id, latest])?;
    }
    Ok(version)
}

/// Stores the published content. Returns whether the pass must be marked.
fn publish(
    connection: &Connection,
    type_id: &TypeIdentifier,
    content: &Content,
) -> rusqlite::Result<bool> {
    let (type_id, serial) = (type_id.as_str(), content.serial.as_str());
    let known = connection
        .prepare_cached(layout::PUBLISHED)?
        .query_row(params![type_id, serial], read_published)
        .optional()?;
    let mut published = known.clone().unwrap_or_default();
    let is_new = published.update(content);
    if known.as_ref() != Some(&published) {
        let tokens: Vec<u8> = published
            .tokens
            .iter()
            .flat_map(TokenDigest::as_bytes)
            .copied()
            .collect();
        connection
            .prepare_cached(layout::SET_PUBLISHED)?
            .execute(params![type_id, serial, tokens, published.removed])?;
    }
    if is_new {
        connection
            .prepare_cached(layout::SET_DIGEST)?
            .execute(params![type_id, serial, published.digest])?;
    }
    Ok(is_new)
}

pub(crate) fn published(
    connection: &Connection,
    passes: &[PassId],
) -> rusqlite::Result<Vec<Option<Published>>> {
    let mut statement = connection.prepare_cached(layout::PUBLISHED)?;
    let read = |pass: &PassId| {
        statement
            .query_row(
                params![pass.type_id.as_str(), pass.serial.as_str()],
                read_published,
            )
            .optional()
    };
    passes.iter().map(read).collect()
}

fn read_published(row: &Row<'_>) -> rusqlite::Result<Published> {
    let (tokens, rest) = row.get_ref(1)?.as_blob()?.as_chunks();
    if !rest.is_empty() {
        return Err(rusqlite::Error::InvalidColumnType(
            1,
            "tokens".to_owned(),
            Type::Blob,
        ));
    }
    let tokens = tokens
        .iter()
        .copied()
        .map(TokenDigest::from_bytes)
        .collect();
    Ok(Published {
        digest: row.get::<_, Option<ContentDigest>>(0)?,
        tokens,
        removed: row.get(2)?,
    })
}

pub(crate) fn changes_since(
    connection: &Connection,
    device: &DeviceIdentifier,
    type_id: &TypeIdentifier,
    since: Option<UpdateTag>,
) -> rusqlite::Result<Changes> {
    let type_part = since.map(|since| integer(since.type_version));
    let device_part = since.map(|since| integer(since.device_version));
    let mut statement = connection.prepare_cached(layout::CHANGES_SINCE)?;
    let mut rows = statement.query(params![
        device.as_str(),
        type_id.as_str(),
        type_part,
        device_part
    ])?;
    let mut changes = Changes {
        serials: Vec::new(),
        tag: UpdateTag {
            type_version: 0,
            device_version: 0,
        },
    };
    while let Some(row) = rows.next()? {
        changes.tag = UpdateTag {
            type_version: number(row, 0)?,
            device_version: number(row, 1)?,
        };
        if row.get_ref(2)? != rusqlite::types::ValueRef::Null {
            changes.serials.push(identifier(row, 2)?);
        }
    }
    Ok(changes)
}

pub(crate) fn pass_state(connection: &Connection, pass: &PassId) -> rusqlite::Result<PassState> {
    connection.prepare_cached(layout::PASS_STATE)?.query_row(
        params![pass.type_id.as_str(), pass.serial.as_str()],
        |row| {
            Ok(PassState {
                version: number(row, 0)?,
                last_modified: number(row, 1)?,
                published: row.get(2)?,
            })
        },
    )
}
