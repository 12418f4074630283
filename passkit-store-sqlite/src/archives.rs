use bytes::Bytes;
use passkit_server::{
    PassId, async_trait,
    store::{ARCHIVE_KEPT, ArchiveStore, ContentDigest, StoreError, clock},
};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{SqliteStore, layout};

#[async_trait]
impl ArchiveStore for SqliteStore {
    async fn put_archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
        archive: Bytes,
    ) -> Result<(), StoreError> {
        let (pass, content) = (pass.clone(), *content);
        self.engine
            .write(move |connection| put(connection, &pass, &content, &archive))
            .await
    }

    async fn archive(
        &self,
        pass: &PassId,
        content: &ContentDigest,
    ) -> Result<Option<Bytes>, StoreError> {
        let (pass, content) = (pass.clone(), *content);
        self.engine
            .read(move |connection| archive(connection, &pass, &content))
            .await
    }
}

fn put(
    connection: &Connection,
    pass: &PassId,
    content: &ContentDigest,
    archive: &[u8],
) -> rusqlite::Result<()> {
    let (type_id, serial) = (pass.type_id.as_str(), pass.serial.as_str());
    let now = clock::now_micros();
    let kept = u64::try_from(ARCHIVE_KEPT.as_micros()).unwrap_or(u64::MAX);
    let old = layout::integer(now.saturating_sub(kept));
    connection
        .prepare_cached(layout::PUT_ARCHIVE)?
        .execute(params![
            type_id,
            serial,
            content,
            layout::integer(now),
            archive
        ])?;
    connection
        .prepare_cached(layout::REMOVE_OLD_ARCHIVES)?
        .execute(params![type_id, serial, old])
        .map(drop)
}

fn archive(
    connection: &Connection,
    pass: &PassId,
    content: &ContentDigest,
) -> rusqlite::Result<Option<Bytes>> {
    let (type_id, serial) = (pass.type_id.as_str(), pass.serial.as_str());
    let archive: Option<Vec<u8>> = connection
        .prepare_cached(layout::ARCHIVE)?
        .query_row(params![type_id, serial, content], |row| row.get(0))
        .optional()?;
    Ok(archive.map(Bytes::from))
}
