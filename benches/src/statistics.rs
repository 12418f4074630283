//! Databases with different planner statistics about their tables: no statistics, current statistics, or statistics of empty
//! tables.
//!
//! Autovacuum is off for the tables, so that the statistics stay the same.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use passkit_server::maintenance::StoreMaintenance as _;
use passkit_store_postgres::{
    PostgresStore,
    sqlx::{self, AssertSqlSafe, Connection as _, PgConnection, PgPool},
};
use passkit_test_servers::{Outcome, postgres::Server};

use crate::{data, http};

/// The statistics that PostgreSQL has about the full tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// There are none, because the tables were never analyzed.
    Never,
    /// They are current.
    Analyzed,
    /// They are of empty tables, because the tables were analyzed before they were filled.
    OfEmpty,
}

impl Statistics {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Never, Self::Analyzed, Self::OfEmpty];

    /// Returns a name for the table of results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never analyzed",
            Self::Analyzed => "analyzed",
            Self::OfEmpty => "analyzed when empty",
        }
    }

    fn database(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Analyzed => "analyzed",
            Self::OfEmpty => "of_empty",
        }
    }
}

/// Returns the server at `PASSKIT_TEST_POSTGRES_URL`. If the variable is not set, starts a server. If a folder is given, the
/// data of the new server stay in this folder.
///
/// # Errors
/// Fails if there is no server, or it does not start.
pub fn server(kept: Option<&Path>) -> Outcome<Server> {
    // `fsync` stays on, which is the default.
    let settings = ["shared_buffers=512MB", "max_wal_size=2GB"];
    match kept {
        _ if env::var_os("PASSKIT_TEST_POSTGRES_URL").is_some() => Server::find(),
        Some(folder) => {
            fs::create_dir_all(folder)?;
            Server::kept(&folder.join("postgres"), &settings)
        }
        None => Server::throwaway(&settings),
    }
}

/// Returns the address of the database with this name. Creates the database if it does not exist.
///
/// # Errors
/// Fails if the server returns an error or can't be reached.
pub async fn database(server: &Server, name: &str) -> Outcome<String> {
    let database = format!("passkit_bench_{name}");
    let mut connection = PgConnection::connect(&server.url("postgres")).await?;
    let there = sqlx::query("select from pg_database where datname = $1").bind(&database);
    if there.fetch_optional(&mut connection).await?.is_none() {
        sqlx::query(AssertSqlSafe(format!("create database {database}")))
            .execute(&mut connection)
            .await?;
    }
    Ok(server.url(&database))
}

/// Returns the address of a database with this number of registrations and these statistics. Fills the database if it is empty.
///
/// # Errors
/// Fails if the server returns an error or can't be reached.
pub async fn filled(
    server: &Server,
    statistics: Statistics,
    registrations: usize,
) -> Outcome<String> {
    let url = database(
        server,
        &format!("{}_{registrations}", statistics.database()),
    )
    .await?;
    let store = store(&url).await?;
    store.migrate().await?;
    let is_there = store
        .stats()
        .await?
        .types
        .iter()
        .any(|one| one.registrations == registrations as u64);
    if !is_there {
        println!(
            "loading {} registrations into postgres, {}",
            data::grouped(registrations),
            statistics.name()
        );
        let mut connection = PgConnection::connect(&url).await?;
        keep_autovacuum_away(&mut connection).await?;
        if statistics == Statistics::OfEmpty {
            sqlx::query("analyze").execute(&mut connection).await?;
        }
        http::load(&store, registrations).await;
        if statistics == Statistics::Analyzed {
            sqlx::query("analyze").execute(&mut connection).await?;
        }
        wait_for_writes(&mut connection).await?;
    }
    store.pool().close().await;
    Ok(url)
}

/// Returns a store over a pool with default settings, like the pool of many users.
///
/// # Errors
/// Fails if the server can't be reached.
pub async fn store(url: &str) -> Outcome<PostgresStore> {
    Ok(PostgresStore::new(PgPool::connect(url).await?))
}

/// Switches autovacuum off for the store's tables.
///
/// # Errors
/// Fails if the server returns an error or can't be reached.
pub async fn keep_autovacuum_away(connection: &mut PgConnection) -> Outcome<()> {
    let each = "\
do $$
declare name text;
begin
    for name in select tablename from pg_tables where schemaname = 'passkit' loop
        execute format('alter table passkit.%I set (autovacuum_enabled = false)', name);
    end loop;
end
$$";
    sqlx::query(each).execute(connection).await?;
    Ok(())
}

/// Returns how many rows and index entries of the store's tables were read so far. This includes reads inside functions. The
/// pool must have only one connection, because each session has separate counts.
///
/// # Errors
/// Fails if the server returns an error or can't be reached.
pub async fn rows_read(pool: &PgPool) -> Outcome<i64> {
    sqlx::query("select pg_stat_force_next_flush()")
        .execute(pool)
        .await?;
    let read = "\
select (select sum(seq_tup_read) from pg_stat_user_tables where schemaname = 'passkit')::bigint
    + (select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'passkit')::bigint";
    Ok(sqlx::query_scalar(read).fetch_one(pool).await?)
}

/// Waits until the server has written the loaded data, and no autovacuum is running.
///
/// # Errors
/// Fails if autovacuum does not end.
pub async fn wait_for_writes(connection: &mut PgConnection) -> Outcome<()> {
    // A checkpoint returns when everything is on disk. Some users lack the right to run it.
    if let Err(error) = sqlx::query("checkpoint").execute(&mut *connection).await {
        println!("postgres may still be writing what was loaded: {error}");
    }
    let workers = "select count(*) from pg_stat_activity where backend_type = 'autovacuum worker'";
    let started = Instant::now();
    while sqlx::query_scalar::<_, i64>(workers)
        .fetch_one(&mut *connection)
        .await?
        > 0
    {
        if started.elapsed() > Duration::from_secs(600) {
            return Err("autovacuum does not end".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
