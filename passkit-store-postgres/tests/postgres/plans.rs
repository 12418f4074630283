//! How statements read their tables, whatever PostgreSQL knows of them.
//!
//! Rows read and buffers touched are counted, and estimated costs compared: no clock is involved.

use std::collections::BTreeMap;

use passkit_store_postgres::{Config, PostgresStore, STATEMENTS};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use crate::support::{new_database, new_store};

/// 30,000 devices with three passes each, 1,000 passes in all, and one device with 10,000; 30,000 debts and deferred
/// pushes, half of them of one type, the others of 30 types.
const FILL: &str = "
insert into passkit.device select lpad(to_hex(n), 32, '0'), 'c0ffee', n from generate_series(1, 30000) n;
insert into passkit.registration
select lpad(to_hex(n), 32, '0'), 'pass.com.example.ticket', (n * 3 + i) % 1000, n
from generate_series(1, 30000) n, generate_series(0, 2) i;
insert into passkit.device values ('many', 'c0ffee', 1);
insert into passkit.registration
select 'many', 'pass.com.example.ticket', n, 1 from generate_series(1, 10000) n;
insert into passkit.pass select 'pass.com.example.ticket', n, n, n from generate_series(1, 30000) n;
insert into passkit.owed
select 'pass.com.example.' || case when n % 2 = 0 then 'ticket' else n % 60 || '' end, n, n * 7919 % 30011, n
from generate_series(1, 30000) n;
insert into passkit.held
select 'pass.com.example.' || case when n % 2 = 0 then 'ticket' else n % 60 || '' end, lpad(to_hex(n), 32, '0'),
    'c0ffee', nullif(n % 3, 0) * n, 1, null
from generate_series(1, 30000) n;
insert into passkit.clock values ('pass.com.example.ticket', 20000, 0, 0, 20000);
";

/// What is there after someone tried everything with one device and one pass type: one device has every registration.
const TRIAL: &str = "
insert into passkit.device values ('first', 'c0ffee', 1);
insert into passkit.registration select 'first', 'pass.com.example.trial', n, 1 from generate_series(1, 1000) n;
insert into passkit.pass select 'pass.com.example.trial', n, n, n from generate_series(1, 1000) n;
insert into passkit.owed select 'pass.com.example.trial', n, n, n from generate_series(1, 1000) n;
insert into passkit.held select 'pass.com.example.trial', n, 'c0ffee', n, 1, null from generate_series(1, 1000) n;
insert into passkit.clock values ('pass.com.example.trial', 20000, 0, 0, 20000);
";

/// What is there after a first campaign: one pass on every device.
const CAMPAIGN: &str = "
insert into passkit.device select 'first-' || n, 'c0ffee', 1 from generate_series(1, 1000) n;
insert into passkit.registration select 'first-' || n, 'pass.com.example.trial', 'coupon', 1 from generate_series(1, 1000) n;
insert into passkit.pass values ('pass.com.example.trial', 'coupon', 1, 1);
insert into passkit.owed values ('pass.com.example.trial', 'coupon', 1, 1);
insert into passkit.held select 'pass.com.example.trial', 'first-' || n, 'c0ffee', n, 1, null from generate_series(1, 1000) n;
insert into passkit.clock values ('pass.com.example.trial', 20000, 0, 0, 20000);
";

/// From here on PostgreSQL compiles a statement.
const JIT_ABOVE_COST: f64 = 100_000.0;

/// What PostgreSQL knows of the full tables.
#[derive(Clone, Copy, Debug)]
enum Statistics {
    /// Nothing.
    Never,
    Current,
    /// What was true when the tables were empty.
    OfEmpty,
    /// What was true of [`TRIAL`].
    OfTrial,
    /// What was true of [`CAMPAIGN`].
    OfCampaign,
}

impl Statistics {
    /// The statements that fill empty tables and leave it so.
    fn fill(self) -> Vec<&'static str> {
        match self {
            Self::Never => vec![FILL],
            Self::Current => vec![FILL, "analyze"],
            Self::OfEmpty => vec!["analyze", FILL],
            Self::OfTrial => vec![TRIAL, "analyze", FILL],
            Self::OfCampaign => vec![CAMPAIGN, "analyze", FILL],
        }
    }
}

/// A statement, values for its parameters, and how many rows it may read.
struct Call {
    sql: &'static str,
    values: String,
    rows: i64,
}

/// What phones, publishers and workers wait for.
fn calls() -> Vec<Call> {
    let d = "lpad(to_hex(777), 32, '0')";
    let t = "'pass.com.example.ticket'";
    let call = |part: &str, values: String, rows| {
        let mut found = STATEMENTS.iter().filter(|sql| sql.contains(part));
        let sql = found.next().unwrap_or_else(|| panic!("no statement has {part:?}"));
        assert!(found.next().is_none(), "two statements have {part:?}");
        Call { sql, values, rows }
    };
    vec![
        call("$1::text as device_id", format!("{d}, {t}, 9999, 1"), 10),
        call(
            "as asked(device_id",
            format!("array[{d}, {d}], array[{t}, 'none'], array[9999, 0], array[1, 1]"),
            20,
        ),
        call("$1::text as pass_type", format!("{t}, '777'"), 5),
        call("as a(pass_type", format!("array[{t}, 'none'], array['777', '1']"), 10),
        call("select content", format!("{t}, '777'"), 1),
        call("passkit.devices(", format!("{t}, '777', {d}, 20"), 50),
        call("passkit.registrations(", format!("{d}, {t}, '', 20"), 50),
        // Counts 10,000 of the 15,000 debts of one type, and all 16,000 of the others.
        call("passkit.backlog(", String::new(), 27_000),
        call("passkit.pending(", format!("{t}, 100"), 100),
        call("passkit.deferred(", format!("{t}, {d}, 100"), 100),
        call("insert into passkit.lease", format!("{t}, 'worker', 1000"), 2),
        call("delete from passkit.lease", format!("{t}, 'worker'"), 2),
        call(
            "insert into passkit.held",
            format!(
                "{t}, array[{d}, 'x'], array['c0', 'c0'], array[1, null]::bigint[], array[1, 2], array[null, 1]::bigint[]"
            ),
            10,
        ),
        call("passkit.undefer(", format!("{t}, array['x', lpad(to_hex(778), 32, '0')]"), 10),
        call("passkit.advance(", format!("{t}, array['778', '780'], array[778, 1], array[null, 'x']"), 10),
        call("passkit.register(", format!("{d}, {t}, '331', 'c0'"), 10),
        call(
            "passkit.register_many(",
            format!(
                "array[{d}, {d}, 'x'], array[{t}, {t}, 'none'], array['331', '1', '1'], array['c0', 'c0', 'c0']"
            ),
            20,
        ),
        call("passkit.unregister(", format!("{d}, {t}, '331'"), 10),
        call("passkit.forget(", format!("{d}, 9223372036854775807"), 10),
        call("passkit.mark(", format!("{t}, array['777', 'x']"), 10),
        call("passkit.mark_and_owe(", format!("{t}, array['778', 'x']"), 10),
        call("passkit.publish(", format!(r"{t}, array['777', 'x'], array['\x01', '\x02']::bytea[]"), 30),
        call("select $1, '', m.version", t.into(), 10),
    ]
}

/// On one connection, so that prepared statements and their plans stay. PostgreSQL keeps its hands off the tables.
async fn empty_tables() -> PgConnection {
    let store = new_store().await;
    let mut connection = store.pool().acquire().await.unwrap().detach();
    run(
        &mut connection,
        "do $$
        declare name text;
        begin
            for name in select tablename from pg_tables where schemaname = 'passkit' loop
                execute format('alter table passkit.%I set (autovacuum_enabled = false)', name);
            end loop;
        end
        $$",
    )
    .await;
    for (number, Call { sql, .. }) in calls().into_iter().enumerate() {
        run(&mut connection, &format!("prepare call_{number} as {sql}")).await;
    }
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
}

fn execute(number: usize, values: &str) -> String {
    if values.is_empty() {
        format!("execute call_{number}")
    } else {
        format!("execute call_{number}({values})")
    }
}

/// The plan of a call, run and taken back.
async fn explain(connection: &mut PgConnection, number: usize, call: &Call) -> Value {
    let sql = format!("explain (analyze, buffers, format json) {}", execute(number, &call.values));
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.unwrap();
    let plans: Value = serde_json::from_str(row.get_unchecked(0)).unwrap();
    plans[0]["Plan"].clone()
}

/// How often this session read each table whole, and how many of its rows it read in any way, inside of functions too.
/// Those of former transactions may or may not be among them.
async fn counts(connection: &mut PgConnection) -> BTreeMap<String, (i64, i64)> {
    let counts = sqlx::raw_sql(
        "select relname::text, seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        from pg_stat_xact_user_tables where schemaname = 'passkit'",
    );
    let rows = counts.fetch_all(connection).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

fn nodes(plan: &Value) -> Vec<&Value> {
    let children = plan["Plans"].as_array().into_iter().flatten();
    std::iter::once(plan).chain(children.flat_map(nodes)).collect()
}

/// Runs every call, and panics if one reads more than it has to or costs so much that it is compiled.
async fn assert_plans_are_good(connection: &mut PgConnection, state: &str) {
    for (number, call) in calls().iter().enumerate() {
        // The first call of a function in a session reads the catalogue too.
        run(connection, &format!("begin; {}; rollback; begin", execute(number, &call.values))).await;
        let before = counts(connection).await;
        let plan = explain(connection, number, call).await;
        let after = counts(connection).await;
        run(connection, "rollback").await;

        let what = format!("{state}: {}\n{plan:#}", call.sql);
        let mut rows = 0;
        for (table, (scans, read)) in after {
            let (scans, read) = before.get(&table).map_or((scans, read), |old| (scans - old.0, read - old.1));
            rows += read;
            let big = ["registration", "device", "pass", "owed", "held"].contains(&&*table);
            assert!(!big || scans == 0, "reads all of {table}: {what}");
        }
        assert!(rows <= call.rows, "reads {rows} rows, not {}: {what}", call.rows);
        let buffers = ["Shared Hit Blocks", "Shared Read Blocks"].map(|key| plan[key].as_i64().unwrap());
        let buffers = buffers[0] + buffers[1];
        assert!(buffers <= 100 + 8 * call.rows, "touches {buffers} buffers: {what}");
        let cost = plan["Total Cost"].as_f64().unwrap();
        assert!(cost < JIT_ABOVE_COST / 10.0, "is expected to cost {cost}: {what}");
        for node in nodes(&plan) {
            let kind = node["Node Type"].as_str().unwrap();
            assert!(!["Hash Join", "Merge Join"].contains(&kind), "{kind}: {what}");
        }
    }
}

/// Two sets of plans: for the values at hand, and those that are kept for any values.
async fn assert_any_plans_are_good(statistics: Statistics) {
    let mut connection = empty_tables().await;
    for sql in statistics.fill() {
        run(&mut connection, sql).await;
    }
    for mode in ["force_custom_plan", "force_generic_plan"] {
        run(&mut connection, &format!("set plan_cache_mode = {mode}")).await;
        assert_plans_are_good(&mut connection, &format!("{statistics:?}, {mode}")).await;
    }
}

#[tokio::test]
async fn without_statistics_every_call_reads_little() {
    assert_any_plans_are_good(Statistics::Never).await;
}

#[tokio::test]
async fn with_current_statistics_every_call_reads_little() {
    assert_any_plans_are_good(Statistics::Current).await;
}

#[tokio::test]
async fn with_statistics_of_empty_tables_every_call_reads_little() {
    assert_any_plans_are_good(Statistics::OfEmpty).await;
}

#[tokio::test]
async fn with_statistics_of_a_trial_every_call_reads_little() {
    assert_any_plans_are_good(Statistics::OfTrial).await;
}

#[tokio::test]
async fn with_statistics_of_a_campaign_every_call_reads_little() {
    assert_any_plans_are_good(Statistics::OfCampaign).await;
}

/// A session keeps its plans until someone analyzes the tables.
#[tokio::test]
async fn plans_of_empty_tables_do_for_full_ones() {
    let mut connection = empty_tables().await;
    run(&mut connection, "set plan_cache_mode = force_generic_plan").await;
    for (number, call) in calls().iter().enumerate() {
        run(&mut connection, &format!("begin; {}; rollback", execute(number, &call.values))).await;
    }
    run(&mut connection, FILL).await;
    assert_plans_are_good(&mut connection, "made for empty tables").await;
}

#[tokio::test]
async fn connections_of_the_store_do_not_compile() {
    for config in [Config::new(), Config::new().statement_timeout(std::time::Duration::ZERO)] {
        let store = PostgresStore::connect(&new_database().await, config).await.unwrap();
        let jit: String = sqlx::query_scalar("show jit").fetch_one(store.pool()).await.unwrap();
        assert_eq!(jit, "off");
    }
}
