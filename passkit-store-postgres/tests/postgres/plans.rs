use std::collections::BTreeMap;

use passkit_server::{
    HeldPush, Owed, PublishedContent, PushQueue, Reached, Registration, RegistrationStore, StoreMaintenance,
};
use passkit_store_postgres::{Config, PostgresStore, STATEMENTS};
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use crate::support::{device, new_database, pass, serial, token, type_id};

/// A device with three passes each, 1,000 passes in all, and one device with 10,000; 30,000 debts and held pushes of 31
/// types.
const FILL: &str = "
insert into passkit.device select lpad(to_hex(n), 32, '0'), 'c0ffee', n from generate_series(1, 30000) n;
insert into passkit.registration
select lpad(to_hex(n), 32, '0'), 'pass.com.example.ticket', (n * 3 + i) % 1000, n
from generate_series(1, 30000) n, generate_series(0, 2) i;
insert into passkit.device values ('many', 'c0ffee', 1);
insert into passkit.registration
select 'many', 'pass.com.example.ticket', n, 1 from generate_series(1, 10000) n;
insert into passkit.pass select 'pass.com.example.ticket', n, n, n from generate_series(1, 10000) n;
insert into passkit.owed
select 'pass.com.example.' || case when n % 31 = 0 then 'ticket' else n % 31 || '' end, n, n, n
from generate_series(1, 30000) n;
insert into passkit.held
select 'pass.com.example.' || case when n % 31 = 0 then 'ticket' else n % 31 || '' end, lpad(to_hex(n), 32, '0'),
    'c0ffee', nullif(n % 3, 0) * n, 1, null
from generate_series(1, 30000) n;
insert into passkit.clock values ('pass.com.example.ticket', 20000, 0, 0, 20000);
";

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

/// One connection, so that prepared statements and their plans stay.
async fn single(url: &str) -> PostgresStore {
    let store = PostgresStore::connect(url, Config::new().connections(1)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// The statements that serve phones and find what is owed, with values for their parameters.
fn hot() -> Vec<(&'static str, String)> {
    let first = |start: &str| *STATEMENTS.iter().find(|sql| sql.contains(start)).unwrap();
    let d = "lpad(to_hex(777), 32, '0')";
    vec![
        (first("$1::text as device_id"), format!("{d}, 'pass.com.example.ticket', 9999, 1")),
        (
            first("as asked(device_id"),
            format!("array[{d}, {d}], array['pass.com.example.ticket', 'none'], array[9999, 0], array[1, 1]"),
        ),
        (first("p.pass_type = $1"), "'pass.com.example.ticket', '777'".into()),
        (first("as a(pass_type"), "array['pass.com.example.ticket', 'none'], array['777', '1']".into()),
        (first("order by r.device_id limit"), format!("'pass.com.example.ticket', '777', {d}, 100")),
        (first("order by r.device_id, r.pass_type"), format!("{d}, 'pass.com.example.ticket', '', 100")),
        (first("with recursive debtor"), String::new()),
        (first("o.begun, o.next"), "'pass.com.example.ticket', 100".into()),
        (first("h.device_id > $2"), format!("'pass.com.example.ticket', {d}, 100")),
        (first("insert into passkit.lease"), "'pass.com.example.ticket', 'worker', 1000".into()),
        (first("delete from passkit.lease"), "'pass.com.example.ticket', 'worker'".into()),
        (
            first("insert into passkit.held"),
            format!(
                "'pass.com.example.none', array[{d}, 'x'], array['c0', 'c0'], array[1, null], array[1, 2], array[null, 1]"
            ),
        ),
        (first("delete from passkit.held"), format!("'pass.com.example.none', array[{d}, 'x']")),
    ]
}

fn execute(number: usize, values: &str) -> String {
    if values.is_empty() {
        format!("execute hot_{number}")
    } else {
        format!("execute hot_{number}({values})")
    }
}

async fn assert_no_table_is_read_whole(pool: &PgPool) {
    for (number, (_, values)) in hot().into_iter().enumerate() {
        let explain = AssertSqlSafe(format!("explain {}", execute(number, &values)));
        let rows = sqlx::raw_sql(explain).fetch_all(pool).await.unwrap();
        let plan = rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
        for table in ["registration", "device", "pass", "owed", "held"] {
            assert!(!plan.contains(&format!("Seq Scan on {table} ")), "reads all of {table}:\n{plan}");
        }
    }
}

async fn prepare_hot(pool: &PgPool) {
    for (number, (sql, _)) in hot().into_iter().enumerate() {
        run(pool, &format!("prepare hot_{number} as {sql}")).await;
    }
}

#[tokio::test]
async fn hot_statements_use_the_indexes() {
    let store = single(&new_database().await).await;
    run(store.pool(), FILL).await;
    run(store.pool(), "analyze").await;
    prepare_hot(store.pool()).await;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        run(store.pool(), &format!("set plan_cache_mode = {mode}")).await;
        assert_no_table_is_read_whole(store.pool()).await;
    }
}

/// A plan made while the tables were empty is kept until someone analyses them.
#[tokio::test]
async fn plans_of_empty_tables_do_for_full_ones() {
    let store = single(&new_database().await).await;
    prepare_hot(store.pool()).await;
    for (number, (_, values)) in hot().into_iter().enumerate() {
        for _ in 0..8 {
            run(store.pool(), &execute(number, &values)).await;
        }
    }
    run(store.pool(), FILL).await;
    assert_no_table_is_read_whole(store.pool()).await;
}

/// What happens inside of the functions shows in how often each table was read whole.
#[tokio::test]
async fn writing_uses_the_indexes() {
    const DEVICES: u8 = 12;
    let url = new_database().await;
    let store = single(&url).await;
    // Plans made for empty tables, then for full ones.
    for round in 0..2 {
        for i in 0..DEVICES {
            let device = device(format!("{round}-{i}"));
            store.register(&device, &pass("a"), &token()).await.unwrap();
            store.register(&device, &pass("b"), &token()).await.unwrap();
            store.mark_updated(&type_id(), &[serial("a"), serial("b")]).await.unwrap();
            store.unregister(&device, &pass("a")).await.unwrap();
            let many = ["b", "c", "c"].map(|name| Registration {
                device: device.clone(),
                push_token: token(),
                pass: pass(name),
            });
            store.register_many(&many).await.unwrap();
            store.register_many(&many[..2]).await.unwrap();
            store.forget_device(&device, std::time::SystemTime::now()).await.unwrap();
            let contents = ["a", "d"].map(|name| (serial(name), [i; 32]));
            store.publish(&type_id(), &contents).await.unwrap();
            store.mark_all_updated(&type_id()).await.unwrap();
            store.mark_and_owe(&type_id(), &[serial("a"), serial("b")]).await.unwrap();
            store.mark_all_and_owe(&type_id()).await.unwrap();
            let debts = store.debts(&type_id(), 3).await.unwrap();
            let done: Vec<(Owed, Reached)> = debts
                .into_iter()
                .map(|debt| (debt.owed, Reached { version: debt.version, next: None }))
                .collect();
            store.mark_and_owe(&type_id(), &[serial("a")]).await.unwrap();
            store.advance(&type_id(), &done).await.unwrap();
            let held = HeldPush {
                device: device.clone(),
                push_token: token(),
                due: Some(std::time::SystemTime::now()),
                attempts: 1,
                bad_since: None,
            };
            store.hold(&type_id(), &[held]).await.unwrap();
            store.held(&type_id(), None, 3).await.unwrap();
            store.unhold(&type_id(), std::slice::from_ref(&device)).await.unwrap();
            store.updated_since(&device, &type_id(), None).await.unwrap();
        }
        if round == 0 {
            run(store.pool(), &FILL.replace("insert into passkit.clock values", "-- ")).await;
        }
    }
    // A session has told all its counts when it has ended, and a little later they are there.
    store.pool().close().await;
    let store = single(&url).await;
    let mut inserted = 0;
    while inserted < 30_001 + 2 * i64::from(DEVICES) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let count =
            "select coalesce(sum(n_tup_ins), 0)::bigint from pg_stat_user_tables where relname = 'device'";
        inserted = sqlx::query_scalar(count).fetch_one(store.pool()).await.unwrap();
    }
    // Making an index read its table once.
    let counts = sqlx::query_as::<_, (String, i64)>(
        "select relname::text, seq_scan - (select count(*) from pg_index where indrelid = relid)
        from pg_stat_user_tables where schemaname = 'passkit'",
    );
    let counts: BTreeMap<_, _> = counts.fetch_all(store.pool()).await.unwrap().into_iter().collect();
    for table in ["registration", "device", "pass", "owed", "held"] {
        assert_eq!(counts[table], 0, "{table} was read whole: {counts:?}");
    }
}
