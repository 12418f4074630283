//! Making the tables, and checking that they are those that the statements expect.

use sqlx::{Connection as _, PgConnection};

use crate::{
    error::PostgresError,
    layout::{self, MIGRATIONS, VERSION},
};

/// Takes the steps that are missing, all or none.
pub(crate) async fn migrate(connection: &mut PgConnection, lock: bool) -> Result<(), PostgresError> {
    let mut transaction = connection.begin().await?;
    if lock {
        sqlx::raw_sql(layout::LOCK_MIGRATION).execute(&mut *transaction).await?;
    }
    let before = version(&mut transaction).await?;
    refuse_newer(before)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > before) {
        sqlx::raw_sql(migration.sql).execute(&mut *transaction).await?;
        tracing::info!(version = migration.version, "migrated the schema");
    }
    transaction.commit().await?;
    Ok(())
}

/// Fails unless the schema is the one that the statements are written for.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let mut transaction = connection.begin().await?;
    let version = version(&mut transaction).await?;
    transaction.commit().await?;
    refuse_newer(version)?;
    if version < VERSION { Err(PostgresError::no_schema()) } else { Ok(()) }
}

/// 0 before the first migration.
async fn version(connection: &mut PgConnection) -> Result<i32, PostgresError> {
    // Not kept by the connection: a pooler in between may not allow that.
    let exists = sqlx::query_scalar(layout::HAS_SCHEMA).persistent(false);
    if !exists.fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    Ok(sqlx::query_scalar(layout::SCHEMA_VERSION).persistent(false).fetch_one(connection).await?)
}

fn refuse_newer(version: i32) -> Result<(), PostgresError> {
    if version > VERSION { Err(PostgresError::newer_schema(version, VERSION)) } else { Ok(()) }
}
