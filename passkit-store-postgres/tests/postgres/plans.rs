//! Tests that statements read little, whatever statistics PostgreSQL has about the tables.
//!
//! The tests count rows and buffers, and check estimated costs. They use no clock.

use std::collections::BTreeMap;

use passkit_store_postgres::{Config, PostgresStore, STATEMENTS};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};

use crate::support::{new_database, new_store};

/// 30,000 devices with three of 1,000 passes each, and one device with 10,000 passes. 30,000 pending changes and deferred
/// pushes, half of them of one type, the others of 30 types. 30,000 claims and notes.
/// 40,000 delivery records, four in each hour.
const FILL: &str = "
insert into passkit.device select lpad(to_hex(n), 32, '0'), 'c0ffee', n from generate_series(1, 30000) n;
insert into passkit.registration
select lpad(to_hex(n), 32, '0'), 'pass.com.example.ticket', (n * 3 + i) % 1000, n
from generate_series(1, 30000) n, generate_series(0, 2) i;
insert into passkit.device values ('many', 'c0ffee', 1);
insert into passkit.registration
select 'many', 'pass.com.example.ticket', n, 1 from generate_series(1, 10000) n;
insert into passkit.pass select 'pass.com.example.ticket', n, n, n, '\\x01' from generate_series(1, 30000) n;
insert into passkit.published select 'pass.com.example.ticket', n, false, decode(repeat('01', 32), 'hex')
from generate_series(1, 30000) n;
insert into passkit.pending_push
select 'pass.com.example.' || case when n % 2 = 0 then 'ticket' else n % 60 || '' end, n, n * 7919 % 30011, n
from generate_series(1, 30000) n;
insert into passkit.deferred_push
select 'pass.com.example.' || case when n % 2 = 0 then 'ticket' else n % 60 || '' end, lpad(to_hex(n), 32, '0'),
    'c0ffee', nullif(n % 3, 0) * n, 1, null
from generate_series(1, 30000) n;
insert into passkit.claim select n, 'owner', 1 from generate_series(1, 30000) n;
insert into passkit.note select n, 'old' from generate_series(1, 30000) n;
insert into passkit.delivery (kind, pass_type, name, event, version, count, at, detail)
select k, 'pass.com.example.ticket', n, e, 1, 1, n * 3600000000::bigint, ''
from generate_series(1, 10000) n, (values ('pass'), ('device')) k(k), (values ('fetched'), ('asked')) e(e);
insert into passkit.archive select 'pass.com.example.ticket', n, '\\x01', 1, '\\x02' from generate_series(1, 30000) n;
insert into passkit.clock values ('pass.com.example.ticket', 20000, 0, 0, 20000);
";

/// The data after someone tried the service with one device and one pass type: the device has every registration.
const TRIAL: &str = "
insert into passkit.device values ('first', 'c0ffee', 1);
insert into passkit.registration select 'first', 'pass.com.example.trial', n, 1 from generate_series(1, 1000) n;
insert into passkit.pass select 'pass.com.example.trial', n, n, n, '\\x01' from generate_series(1, 1000) n;
insert into passkit.published select 'pass.com.example.trial', n, false, '' from generate_series(1, 1000) n;
insert into passkit.pending_push select 'pass.com.example.trial', n, n, n from generate_series(1, 1000) n;
insert into passkit.deferred_push
select 'pass.com.example.trial', n, 'c0ffee', n, 1, null from generate_series(1, 1000) n;
insert into passkit.delivery (kind, pass_type, name, event, version, count, at, detail)
select 'device', 'pass.com.example.trial', n, 'asked', 1, 1, 3600000000000000, '' from generate_series(1, 1000) n;
insert into passkit.clock values ('pass.com.example.trial', 20000, 0, 0, 20000);
";

/// The data after a first campaign: one pass on every device.
const CAMPAIGN: &str = "
insert into passkit.device select 'first-' || n, 'c0ffee', 1 from generate_series(1, 1000) n;
insert into passkit.registration select 'first-' || n, 'pass.com.example.trial', 'coupon', 1 from generate_series(1, 1000) n;
insert into passkit.pass values ('pass.com.example.trial', 'coupon', 1, 1, '\\x01');
insert into passkit.published values ('pass.com.example.trial', 'coupon', false, '');
insert into passkit.pending_push values ('pass.com.example.trial', 'coupon', 1, 1);
insert into passkit.deferred_push
select 'pass.com.example.trial', 'first-' || n, 'c0ffee', n, 1, null from generate_series(1, 1000) n;
insert into passkit.delivery (kind, pass_type, name, event, version, count, at, detail)
select 'device', 'pass.com.example.trial', n, 'asked', 1, 1, 3600000000000000, '' from generate_series(1, 1000) n;
insert into passkit.clock values ('pass.com.example.trial', 20000, 0, 0, 20000);
";

/// These tables have few rows in every store. A statement may read all of them.
const SMALL: [&str; 3] = ["clock", "store", "migration"];

/// The cost from which PostgreSQL compiles a statement.
const JIT_ABOVE_COST: f64 = 100_000.0;

/// The statistics that PostgreSQL has about the full tables.
#[derive(Clone, Copy, Debug)]
enum Statistics {
    /// The tables were never analyzed.
    Never,
    /// The tables were analyzed after they were filled.
    Current,
    /// The tables were analyzed while they were empty.
    OfEmpty,
    /// The tables were analyzed with the rows of [`TRIAL`].
    OfTrial,
    /// The tables were analyzed with the rows of [`CAMPAIGN`].
    OfCampaign,
}

impl Statistics {
    /// Returns the statements that fill empty tables and produce these statistics.
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

/// A statement with values for its parameters, and how many rows it may read.
struct BoundedCall {
    sql: &'static str,
    values: String,
    rows: i64,
}

/// The calls that phones, publishers and workers wait for.
fn calls() -> Vec<BoundedCall> {
    let d = "lpad(to_hex(777), 32, '0')";
    let t = "'pass.com.example.ticket'";
    let call = |wanted: &str, values: String, rows| {
        let (_, sql) = STATEMENTS.iter().find(|(name, _)| *name == wanted).unwrap();
        BoundedCall { sql, values, rows }
    };
    // A new digest, a removal and a new pass. The token of the removal is new, the others are known.
    let contents = format!(
        r"{t}, array['777', '778', 'x'], array['\x0{{digest}}', null, '\x02']::bytea[],
        array[decode(repeat('01', 32), 'hex'), decode(repeat('02', 32), 'hex'), '']"
    );
    vec![
        call("changes since", format!("{d}, {t}, 9999, 1"), 10),
        call(
            "changes since many",
            format!("array[{d}, {d}], array[{t}, 'none'], array[9999, 0], array[1, 1]"),
            20,
        ),
        call("pass state", format!("{t}, '777'"), 5),
        call("pass states", format!("array[{t}, 'none'], array['777', '1']"), 10),
        call("published", format!("array[{t}, {t}, 'none'], array['777', 'x', '1']"), 10),
        call("devices of pass", format!("{t}, '777', {d}, 20"), 50),
        // Later, only few of all devices have the pass of the campaign.
        call("devices of pass", "'pass.com.example.trial', 'coupon', '', 20".into(), 50),
        call("count devices", "'pass.com.example.trial', 'coupon', 20".into(), 20),
        call("devices of type", format!("{t}, '777', {d}, 20"), 50),
        call("devices of type", format!("{t}, '', '', 20"), 50),
        call("count devices", format!("{t}, '777', 20"), 20),
        call("registrations", format!("{d}, {t}, '', 20"), 50),
        // Counts 10,000 of the 15,000 pending changes of one type, and all 16,000 of the others.
        call("backlog", String::new(), 27_000),
        call("pending", format!("{t}, 100"), 100),
        call("deferred", format!("{t}, {d}, 100"), 100),
        call(
            "defer",
            format!(
                "{t}, array[{d}, lpad(to_hex(778), 32, '0'), 'x', 'y'], array['c0', null, 'c0', null],
                array[1, null, null, null]::bigint[], array[1, null, 2, null], array[null, null, 1, null]::bigint[]"
            ),
            10,
        ),
        call("record progress", format!("{t}, array['778', '780'], array[778, 1], array[null, 'x']"), 10),
        call(
            "record",
            format!(
                "array['device', 'pass', 'pass'], array[{t}, {t}, 'x'], array['777', '777', 'x'],
                array['asked', 'fetched', 'fetched'], array[1, 1, 1], array[1, 1, 1], array[1, 1, 1], array['', '', '']"
            ),
            6,
        ),
        call("records", format!("array['pass', 'device', 'type'], array[{t}, {t}, {t}], array['777', '778', '']"), 8),
        call("forget records", format!("array['device', 'pass'], array[{t}, {t}], array['777', '777']"), 8),
        // Reads the records of the last hour twice: some of them are newer than the time.
        call("discard records", "36000000001, 20".into(), 60),
        call("discard records", "36000000001, 1000".into(), 120),
        call("claim", "'777', 'owner', 1000".into(), 2),
        call("release", "'777', 'owner'".into(), 2),
        call("note", "'777'".into(), 2),
        call("replace note", "'777', 'old', 'new'".into(), 4),
        call("replace note", "'777', 'old', null".into(), 4),
        call("replace note", "'x', null, 'new'".into(), 4),
        call("replace note", "'x', null, null".into(), 4),
        call("register", format!("{d}, {t}, '331', 'c0'"), 10),
        call(
            "register many",
            format!(
                "array[{d}, {d}, 'x'], array[{t}, {t}, 'none'], array['331', '1', '1'], array['c0', 'c0', 'c0']"
            ),
            20,
        ),
        call("unregister", format!("{d}, {t}, '331'"), 10),
        call("forget", format!("{d}, 9223372036854775807"), 10),
        call("mark", format!("{t}, array['777', 'x'], false"), 10),
        call("mark", format!("{t}, array['778', 'x'], true"), 15),
        call("publish", format!("{}, false", contents.replace("{digest}", "1")), 30),
        call("publish", format!("{}, true", contents.replace("{digest}", "3")), 30),
        call("archive", format!(r"{t}, '777', '\x01'"), 2),
        call("put archive", format!(r"{t}, '777', '\x03', '\x04'"), 10),
        call("mark all", format!("{t}, false"), 10),
        call("mark all", format!("{t}, true"), 10),
    ]
}

/// Makes empty tables without autovacuum. Returns a single connection, so that prepared statements and their plans stay.
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
    for (number, BoundedCall { sql, .. }) in calls().into_iter().enumerate() {
        run(&mut connection, &format!("prepare call_{number} as {sql}")).await;
    }
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())))
        .await
        .unwrap();
}

fn execute(number: usize, values: &str) -> String {
    if values.is_empty() {
        format!("execute call_{number}")
    } else {
        format!("execute call_{number}({values})")
    }
}

/// Runs a call, rolls it back, and returns its plan.
async fn explain(connection: &mut PgConnection, number: usize, call: &BoundedCall) -> Value {
    let sql = format!(
        "explain (analyze, buffers, format json) {}",
        execute(number, &call.values)
    );
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let plans: Value = serde_json::from_str(row.get_unchecked(0)).unwrap();
    plans[0]["Plan"].clone()
}

/// Returns for each table how often this session read all of it, and how many rows it read in any way, including rows that
/// functions read. The counts may include earlier transactions.
async fn counts(connection: &mut PgConnection) -> BTreeMap<String, (i64, i64)> {
    let counts = sqlx::raw_sql(
        "select relname::text, seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        from pg_stat_xact_user_tables where schemaname = 'passkit'",
    );
    let rows = counts.fetch_all(connection).await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2))))
        .collect()
}

fn nodes(plan: &Value) -> Vec<&Value> {
    let children = plan["Plans"].as_array().into_iter().flatten();
    std::iter::once(plan)
        .chain(children.flat_map(nodes))
        .collect()
}

/// Runs every call. Panics if one reads too much, or is expected to cost so much that it would be compiled.
async fn assert_plans_are_good(connection: &mut PgConnection, state: &str) {
    for (number, call) in calls().iter().enumerate() {
        // The first call of a function in a session also reads the system catalogue.
        run(
            connection,
            &format!("begin; {}; rollback; begin", execute(number, &call.values)),
        )
        .await;
        let before = counts(connection).await;
        let plan = explain(connection, number, call).await;
        let after = counts(connection).await;
        run(connection, "rollback").await;

        let what = format!("{state}: {}\n{plan:#}", call.sql);
        let mut rows = 0;
        for (table, (scans, read)) in after {
            let (scans, read) = before
                .get(&table)
                .map_or((scans, read), |old| (scans - old.0, read - old.1));
            rows += read;
            assert!(
                SMALL.contains(&&*table) || scans == 0,
                "reads all of {table}: {what}"
            );
        }
        assert!(
            rows <= call.rows,
            "reads {rows} rows, not {}: {what}",
            call.rows
        );
        let buffers =
            ["Shared Hit Blocks", "Shared Read Blocks"].map(|key| plan[key].as_i64().unwrap());
        let buffers = buffers[0] + buffers[1];
        assert!(
            buffers <= 100 + 8 * call.rows,
            "touches {buffers} buffers: {what}"
        );
        let cost = plan["Total Cost"].as_f64().unwrap();
        assert!(
            cost < JIT_ABOVE_COST / 10.0,
            "is expected to cost {cost}: {what}"
        );
        for node in nodes(&plan) {
            let kind = node["Node Type"].as_str().unwrap();
            assert!(
                !["Hash Join", "Merge Join"].contains(&kind),
                "{kind}: {what}"
            );
        }
    }
}

/// Checks the plans for given values, and the generic plans.
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

/// A session uses its old plans until the tables are analyzed.
#[tokio::test]
async fn plans_made_for_empty_tables_are_good_for_full_ones() {
    let mut connection = empty_tables().await;
    run(&mut connection, "set plan_cache_mode = force_generic_plan").await;
    for (number, call) in calls().iter().enumerate() {
        run(
            &mut connection,
            &format!("begin; {}; rollback", execute(number, &call.values)),
        )
        .await;
    }
    run(&mut connection, FILL).await;
    assert_plans_are_good(&mut connection, "made for empty tables").await;
}

#[tokio::test]
async fn connections_of_the_store_do_not_compile() {
    for config in [
        Config::new(),
        Config::new().statement_timeout(std::time::Duration::ZERO),
    ] {
        let store = PostgresStore::connect(&new_database().await, config)
            .await
            .unwrap();
        let jit: String = sqlx::query_scalar("show jit")
            .fetch_one(store.pool())
            .await
            .unwrap();
        assert_eq!(jit, "off");
    }
}
