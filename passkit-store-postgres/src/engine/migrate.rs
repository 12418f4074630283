//! Makes the tables, and checks whether the statements can use them.

use sqlx::{Connection as _, PgConnection, Row as _};

use crate::{
    error::PostgresError,
    layout::{self, MIGRATIONS, VERSION},
};

/// Runs all migrations that were not run yet, in one transaction.
pub(crate) async fn migrate(
    connection: &mut PgConnection,
    lock: bool,
) -> Result<(), PostgresError> {
    let mut transaction = connection.begin().await?;
    if lock {
        sqlx::raw_sql(layout::LOCK_MIGRATION)
            .execute(&mut *transaction)
            .await?;
    }
    let before = version(&mut transaction).await?;
    for migration in MIGRATIONS
        .iter()
        .filter(|migration| migration.version > before)
    {
        sqlx::raw_sql(migration.sql)
            .execute(&mut *transaction)
            .await?;
        tracing::info!(version = migration.version, "migrated the schema");
    }
    transaction.commit().await?;
    Ok(())
}

/// Fails if the statements can't use the schema. They can use a newer one if its migrations say so.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let version = version(connection).await?;
    if version < VERSION {
        Err(PostgresError::no_schema())
    } else {
        Ok(())
    }
}

/// Returns the version of the schema, or 0 before the first migration. Fails if the schema is too new for this program. The
/// statements are not prepared, because a pooler may not support that.
async fn version(connection: &mut PgConnection) -> Result<i32, PostgresError> {
    let exists = sqlx::raw_sql(layout::HAS_SCHEMA)
        .fetch_one(&mut *connection)
        .await?;
    if !exists.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let found = sqlx::raw_sql(layout::SCHEMA_VERSION)
        .fetch_one(connection)
        .await?;
    let (version, needs) = (found.try_get(0)?, found.try_get::<i32, _>(1)?);
    if needs > VERSION {
        return Err(PostgresError::newer_schema(version, needs, VERSION));
    }
    Ok(version)
}
