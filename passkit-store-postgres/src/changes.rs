//! Marks passes, alone or in the caller's transaction, and reads what was published.

use std::collections::BTreeMap;

use passkit_server::{
    Changed, PassId,
    identifiers::{TokenDigest, TypeIdentifier},
    store::{Content, Published, StoreError, unite_tokens},
};
use sqlx::{PgConnection, postgres::PgRow};

use crate::{
    batches::{PASSES_AT_ONCE, digest, mark_statement},
    engine::{
        connections::Statement,
        rows::{column, row_for_each},
    },
    error::PostgresError,
    layout,
    store::PostgresStore,
};

/// Marks passes like [`mark`](passkit_server::store::RegistrationStore::mark), in a transaction of your own. Your change and
/// its mark commit together, or not at all.
///
/// The mark locks the row of the type until the transaction ends. All other marks of the type wait for it, so mark just
/// before the commit. If a transaction marks several types, mark them in the order of [`TypeIdentifier`], so that two
/// transactions can't deadlock. While a mark waits for this lock, the store holds no other lock.
///
/// # Errors
/// Same errors as [`PostgresStore`](crate::PostgresStore). The function does not retry. After an error, the transaction can't
/// be used any more.
pub async fn mark_in(
    connection: &mut PgConnection,
    type_id: &TypeIdentifier,
    changed: Changed<'_>,
) -> Result<(), StoreError> {
    Ok(execute_marks(connection, type_id, changed, false).await?)
}

/// Marks passes like [`mark_in`], and makes their pushes pending like
/// [`mark_and_push`](passkit_server::push::PushQueue::mark_and_push). Your change, its mark and its pushes commit together, or
/// not at all.
///
/// Call [`Publisher::wake`](passkit_server::push::Publisher::wake) after the commit, so that the pushes go out at once.
///
/// # Errors
/// Same errors as [`mark_in`].
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
    /// Marks what changed. With `push`, also makes the pushes pending.
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

fn publish_statement(type_id: &TypeIdentifier, contents: &[Content], push: bool) -> Statement {
    // The statement must not name a pass twice. If a pass occurs twice, its last content counts.
    let contents: BTreeMap<_, _> = contents
        .iter()
        .map(|content| (&content.serial, content))
        .collect();
    let contents: Vec<_> = contents.into_values().collect();
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
        return Err(PostgresError::unreadable(
            "a list of tokens ends in the middle of one",
        ));
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
