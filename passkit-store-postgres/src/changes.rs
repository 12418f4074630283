//! Marking passes, and what changed: lists, states, and what was published.

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, SerialNumber, TokenDigest, TypeIdentifier},
    store::{Changes, Content, ContentDigest, Published, StoreError, UpdateTag, unite_tokens},
};
use sqlx::{PgConnection, postgres::PgRow};

use crate::{
    engine::{
        batch::Work,
        connections::Statement,
        rows::{column, identifier, row_for_each, signed, unsigned},
    },
    error::PostgresError,
    layout,
    store::PostgresStore,
};

/// How many passes go into one statement.
const PASSES_AT_ONCE: usize = 1_024;

/// Marks passes as [`mark`](passkit_server::store::RegistrationStore::mark) does, in a transaction of your own: your change and its
/// mark then commit together, or not at all.
///
/// The row of the type is locked until the transaction ends, and all other marks of the type wait for it. So mark last, just
/// before the commit. If a transaction marks several types, mark them in the order of [`TypeIdentifier`]: two transactions
/// that do so never wait for each other. The store itself has no other lock while it waits for that of a type.
///
/// # Errors
/// The same errors as every call. Nothing is tried again, and the transaction can't be used afterwards.
pub async fn mark_in(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    Ok(execute_marks(connection, type_id, changed, false).await?)
}

/// Marks passes as [`mark_in`] does, and makes their pushes pending as
/// [`mark_and_push`](passkit_server::push::PushQueue::mark_and_push) does: all of it commits together with your change, or not at
/// all.
///
/// Call [`Publisher::wake`](passkit_server::push::Publisher::wake) after the commit, and the pushes go out at once.
///
/// # Errors
/// The same errors as [`mark_in`].
pub async fn mark_and_push_in(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    Ok(execute_marks(connection, type_id, changed, true).await?)
}

async fn execute_marks(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
    push: bool,
) -> Result<(), PostgresError> {
    match changed {
        Changed::Passes(serials) => {
            for part in serials.chunks(PASSES_AT_ONCE) {
                mark_statement(type_id, part.iter(), push)
                    .execute(connection)
                    .await?;
            }
        }
        Changed::Contents(contents) => {
            for part in contents.chunks(PASSES_AT_ONCE) {
                publish_statement(type_id, part, push)
                    .execute(connection)
                    .await?;
            }
        }
        Changed::All => {
            mark_all_statement(type_id, push)
                .execute(connection)
                .await?
        }
    }
    Ok(())
}

impl PostgresStore {
    /// Marks what changed, and makes pushes pending if asked to.
    pub(crate) async fn mark_changed(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
        push: bool,
    ) -> Result<(), PostgresError> {
        match changed {
            Changed::Passes(serials) => {
                for part in serials.chunks(PASSES_AT_ONCE) {
                    self.marks(type_id, push).ask(part.to_vec()).await?;
                }
            }
            Changed::Contents(contents) => {
                for part in contents.chunks(PASSES_AT_ONCE) {
                    self.execute(publish_statement(type_id, part, push)).await?;
                }
            }
            Changed::All => self.execute(mark_all_statement(type_id, push)).await?,
        }
        Ok(())
    }

    pub(crate) async fn published_of(
        &self,
        passes: &[PassId],
    ) -> Result<Vec<Option<Published>>, PostgresError> {
        if passes.is_empty() {
            return Ok(Vec::new());
        }
        let statement = Statement::new(layout::PUBLISHED)
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.type_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.serial.as_str())
                    .collect::<Vec<_>>(),
            );
        let rows = self.connections().fetch(statement).await?;
        row_for_each(&rows, passes.len(), published)?
            .into_iter()
            .collect()
    }
}

fn mark_statement<'a>(
    type_id: &TypeIdentifier,
    serials: impl Iterator<Item = &'a SerialNumber>,
    push: bool,
) -> Statement {
    let serials: Vec<_> = serials.map(SerialNumber::as_str).collect();
    Statement::new(layout::MARK)
        .bind(type_id.as_str())
        .bind(serials)
        .bind(push)
}

fn publish_statement(type_id: &TypeIdentifier, contents: &[Content], push: bool) -> Statement {
    let serials = contents.iter().map(|content| content.serial.as_str());
    let digests = contents
        .iter()
        .map(|content| content.digest.as_ref().map(|digest| &digest[..]));
    let tokens = contents.iter().map(|content| {
        let tokens = unite_tokens(&[], &content.tokens);
        tokens
            .iter()
            .flat_map(|token| *token.as_bytes())
            .collect::<Vec<u8>>()
    });
    Statement::new(layout::PUBLISH)
        .bind(type_id.as_str())
        .bind(serials.collect::<Vec<_>>())
        .bind(digests.collect::<Vec<_>>())
        .bind(tokens.collect::<Vec<_>>())
        .bind(push)
}

fn mark_all_statement(type_id: &TypeIdentifier, push: bool) -> Statement {
    Statement::new(layout::MARK_ALL)
        .bind(type_id.as_str())
        .bind(push)
}

fn published(row: &PgRow) -> Result<Option<Published>, PostgresError> {
    let Some(removed) = column(row, 1)? else {
        return Ok(None);
    };
    let (tokens, rest) = column::<&[u8]>(row, 2)?.as_chunks();
    if !rest.is_empty() {
        return Err(PostgresError::unreadable("half a token"));
    }
    let tokens = tokens
        .iter()
        .map(|token| TokenDigest::from_bytes(*token))
        .collect();
    Ok(Some(Published {
        digest: digest(row, 0)?,
        tokens,
        removed,
    }))
}

fn digest(row: &PgRow, index: usize) -> Result<Option<ContentDigest>, PostgresError> {
    let digest: Option<&[u8]> = column(row, index)?;
    digest
        .map(|digest| digest.try_into().map_err(PostgresError::unreadable))
        .transpose()
}

#[derive(Debug)]
pub(crate) struct ListQuestion {
    pub(crate) device: DeviceIdentifier,
    pub(crate) type_id: TypeIdentifier,
    pub(crate) since: Option<UpdateTag>,
}

/// Lists for several callers in one statement.
#[derive(Debug)]
pub(crate) struct Lists;

impl Work for Lists {
    type Question = ListQuestion;
    type Answer = Changes;
    const AT_ONCE: usize = 2;
    const MAX_WEIGHT: usize = 64;

    fn weight(&self, _: &ListQuestion) -> usize {
        1
    }

    fn statement(&self, questions: &[ListQuestion]) -> Statement {
        // A lone question goes without arrays, which is quicker.
        if let [one] = questions {
            return Statement::new(layout::CHANGES_SINCE)
                .bind(one.device.as_str())
                .bind(one.type_id.as_str())
                .bind(one.since.map(|tag| signed(tag.type_version)))
                .bind(one.since.map(|tag| signed(tag.device_version)));
        }
        let part = |of: fn(UpdateTag) -> u64| -> Vec<Option<i64>> {
            questions
                .iter()
                .map(|one| one.since.map(|tag| signed(of(tag))))
                .collect()
        };
        Statement::new(layout::CHANGES_SINCE_MANY)
            .bind(
                questions
                    .iter()
                    .map(|one| one.device.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                questions
                    .iter()
                    .map(|one| one.type_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(part(|tag| tag.type_version))
            .bind(part(|tag| tag.device_version))
    }

    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<Changes, PostgresError>>, PostgresError> {
        row_for_each(rows, count, |row| {
            let tag = UpdateTag {
                type_version: unsigned(row, 0)?,
                device_version: unsigned(row, 1)?,
            };
            let serials = column::<Vec<String>>(row, 2)?.into_iter();
            let serials = serials
                .map(|text| identifier(&text, SerialNumber::new))
                .collect::<Result<_, _>>()?;
            Ok(Changes { serials, tag })
        })
    }
}

/// States for several callers in one statement.
#[derive(Debug)]
pub(crate) struct States;

impl Work for States {
    type Question = PassId;
    type Answer = PassState;
    const AT_ONCE: usize = 2;
    const MAX_WEIGHT: usize = 64;

    fn weight(&self, _: &PassId) -> usize {
        1
    }

    fn statement(&self, passes: &[PassId]) -> Statement {
        // A lone question goes without arrays, which is quicker.
        if let [pass] = passes {
            let statement = Statement::new(layout::PASS_STATE);
            return statement
                .bind(pass.type_id.as_str())
                .bind(pass.serial.as_str());
        }
        Statement::new(layout::PASS_STATES)
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.type_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.serial.as_str())
                    .collect::<Vec<_>>(),
            )
    }

    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<PassState, PostgresError>>, PostgresError> {
        row_for_each(rows, count, |row| {
            Ok(PassState {
                version: unsigned(row, 0)?,
                last_modified: unsigned(row, 1)?,
                published: digest(row, 2)?,
            })
        })
    }
}

/// Marks of passes of one type for several callers in one statement, with or without pushes.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) type_id: TypeIdentifier,
    pub(crate) push: bool,
}

impl Work for Marks {
    type Question = Vec<SerialNumber>;
    type Answer = ();
    /// The row of the type lets one through at a time: a second statement would only occupy a connection.
    const AT_ONCE: usize = 1;
    const MAX_WEIGHT: usize = PASSES_AT_ONCE;

    fn weight(&self, serials: &Vec<SerialNumber>) -> usize {
        serials.len()
    }

    fn statement(&self, questions: &[Vec<SerialNumber>]) -> Statement {
        mark_statement(&self.type_id, questions.iter().flatten(), self.push)
    }

    fn answers(
        &self,
        _: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<(), PostgresError>>, PostgresError> {
        Ok((0..count).map(|_| Ok(())).collect())
    }
}
