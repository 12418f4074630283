use async_trait::async_trait;
use bytes::Bytes;
use passkit_server::{
    PassId,
    store::{ArchiveStore, ContentDigest, StoreError},
};

use crate::{
    engine::{connections::Statement, rows::column},
    layout,
    store::PostgresStore,
};

/// The clock of the database decides when an archive may be removed.
#[async_trait]
impl ArchiveStore for PostgresStore {
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError> {
        let statement = Statement::new(layout::PUT_ARCHIVE)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str())
            .bind(&content[..])
            .bind(&archive[..]);
        Ok(self.execute(statement).await?)
    }

    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        let statement = Statement::new(layout::ARCHIVE)
            .bind(pass.type_id.as_str())
            .bind(pass.serial.as_str())
            .bind(&content[..]);
        let rows = self.connections().fetch(statement).await?;
        let archive = rows.first().map(|row| column::<Vec<u8>>(row, 0));
        Ok(archive.transpose()?.map(Bytes::from))
    }
}
