use async_trait::async_trait;
use passkit_server::{ContentDigest, PassId, PublishedContent, SerialNumber, StoreError, TypeIdentifier};

use crate::{calls::column, connections::Statement, error::Failure, schema, store::PostgresStore};

/// How many passes go into one statement.
const TOGETHER: usize = 2_000;

#[async_trait]
impl PublishedContent for PostgresStore {
    async fn publish(
        &self,
        type_id: &TypeIdentifier,
        contents: &[(SerialNumber, ContentDigest)],
    ) -> Result<(), StoreError> {
        for part in contents.chunks(TOGETHER) {
            let serials: Vec<_> = part.iter().map(|(serial, _)| serial.as_str()).collect();
            let digests: Vec<_> = part.iter().map(|(_, content)| &content[..]).collect();
            let statement =
                Statement::new(schema::PUBLISH).bind(type_id.as_str()).bind(serials).bind(digests);
            self.connections().fetch(statement).await?;
        }
        Ok(())
    }

    async fn published(&self, pass: &PassId) -> Result<Option<ContentDigest>, StoreError> {
        let statement =
            Statement::new(schema::PUBLISHED).bind(pass.type_id.as_str()).bind(pass.serial.as_str());
        let rows = self.connections().fetch(statement).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let content: Option<&[u8]> = column(row, 0)?;
        let digest = content.map(|content| content.try_into().map_err(Failure::unreadable));
        Ok(digest.transpose()?)
    }
}
