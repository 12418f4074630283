use std::time::SystemTime;

use passkit_server::{
    Changed,
    delivery::{DeliveryLog as _, Event, Subject},
    maintenance::StoreMaintenance,
    push::PushQueue,
    store::{Audience, Coordination, RegistrationStore, StoreError, StoreErrorKind},
};
use passkit_store_postgres::{Config, PostgresStore, STATEMENTS, mark_and_push_in, mark_in};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::{
    delivery,
    support::{
        SERVER, content, device, new_database, new_store, pass, serial, text_of, token, type_id,
    },
};

#[tokio::test]
async fn every_statement_can_be_prepared() {
    let store = new_store().await;
    for (name, statement) in STATEMENTS {
        let prepared = store
            .pool()
            .prepare(sqlx::SqlStr::from_static(statement))
            .await;
        assert!(prepared.is_ok(), "{name}: {prepared:?}");
    }
}

/// Makes every call and returns the errors.
async fn errors(store: &PostgresStore) -> Vec<StoreError> {
    let registration = passkit_server::maintenance::Registration {
        device: device("d"),
        push_token: token(),
        pass: pass("1"),
    };
    let (serials, contents) = ([serial("1")], [content("1", Some(1), &[1])]);
    let subjects = [Subject::Pass(pass("1"))];
    let record = delivery::record(&subjects[0], Event::Fetched);
    let mut connection = store.pool().acquire().await.unwrap();
    let mut errors = vec![
        store.check().await.unwrap_err(),
        store
            .register(&device("d"), &pass("1"), &token())
            .await
            .unwrap_err(),
        store
            .unregister(&device("d"), &pass("1"))
            .await
            .unwrap_err(),
        store
            .changes_since(&device("d"), &type_id(), None)
            .await
            .unwrap_err(),
        store.pass_state(&pass("1")).await.unwrap_err(),
        store.published(&[pass("1")]).await.unwrap_err(),
        store
            .devices(Audience::Pass(&pass("1")), None, 9)
            .await
            .unwrap_err(),
        store
            .devices(Audience::Type(&type_id()), None, 9)
            .await
            .unwrap_err(),
        store.count_devices(&pass("1"), 9).await.unwrap_err(),
        store
            .forget_device(&device("d"), SystemTime::now())
            .await
            .unwrap_err(),
        store.register_many(&[registration]).await.unwrap_err(),
        store.registrations(None, 9).await.unwrap_err(),
        store.stats().await.unwrap_err(),
        store.backlog().await.unwrap_err(),
        store.pending(&type_id(), 9).await.unwrap_err(),
        store
            .defer(&type_id(), &[(device("d"), None)])
            .await
            .unwrap_err(),
        store.deferred(&type_id(), None, 9).await.unwrap_err(),
        store
            .claim(
                "5047e00a573f61bc5f065b55b00261d6",
                "o",
                std::time::Duration::from_secs(1),
            )
            .await
            .unwrap_err(),
        store
            .release("5047e00a573f61bc5f065b55b00261d6", "o")
            .await
            .unwrap_err(),
        store.note("n").await.unwrap_err(),
        store
            .replace_note("n", None, Some("new"))
            .await
            .unwrap_err(),
        store.record(&[record]).await.unwrap_err(),
        store.records(&subjects).await.unwrap_err(),
        store.forget(&subjects).await.unwrap_err(),
        store
            .discard_before(SystemTime::now(), 9)
            .await
            .unwrap_err(),
    ];
    for changed in [
        Changed::Passes(&serials),
        Changed::Contents(&contents),
        Changed::All,
    ] {
        errors.push(store.mark(&type_id(), changed).await.unwrap_err());
        errors.push(store.mark_and_push(&type_id(), changed).await.unwrap_err());
        errors.push(
            mark_in(&mut connection, &type_id(), changed)
                .await
                .unwrap_err(),
        );
        errors.push(
            mark_and_push_in(&mut connection, &type_id(), changed)
                .await
                .unwrap_err(),
        );
    }
    errors
}

#[tokio::test]
async fn before_migrations_every_error_says_how_to_migrate() {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    for error in errors(&store).await {
        assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
        assert!(text_of(&error).contains("passkit migrate"), "{error:?}");
    }
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
}

#[tokio::test]
async fn several_processes_can_migrate_at_once_and_again() {
    let url = new_database().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url.clone();
        tasks.spawn(async move {
            PostgresStore::connect(&url, Config::new().connections(1))
                .await
                .unwrap()
                .migrate()
                .await
                .unwrap();
        });
    }
    tasks.join_all().await;
    let store = PostgresStore::connect(&url, Config::new().migration_lock(false))
        .await
        .unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.stats().await.unwrap().devices, 1);
}

#[tokio::test]
async fn other_tools_can_run_the_migrations() {
    let store = PostgresStore::connect(&new_database().await, Config::new())
        .await
        .unwrap();
    let mut files: Vec<_> = std::fs::read_dir("migrations")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let sql = std::fs::read_to_string(file).unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(store.pool())
            .await
            .unwrap();
    }
    store.check().await.unwrap();
    store.migrate().await.unwrap();
    store
        .mark(&type_id(), Changed::Passes(&[serial("1")]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_newer_or_older_schema_is_refused() {
    let store = new_store().await;
    let migrated = async |version: i32, needs: i32| {
        sqlx::query("insert into passkit.migration (version, needs) values ($1, $2)")
            .bind(version)
            .bind(needs)
            .execute(store.pool())
            .await
            .unwrap();
    };
    // This migration says that older programs can use the schema.
    migrated(98, 2).await;
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    migrated(99, 99).await;
    for error in [
        store.migrate().await.unwrap_err(),
        store.check().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Configuration);
        let text = text_of(&error);
        assert!(
            text.contains("newer passkit") && text.contains("99"),
            "{text}"
        );
    }
    sqlx::query("delete from passkit.migration")
        .execute(store.pool())
        .await
        .unwrap();
    let error = store.check().await.unwrap_err();
    assert!(text_of(&error).contains("passkit migrate"), "{error:?}");
}

const FIRST: [&str; 3] = [
    include_str!("../../migrations/0001_store.sql"),
    include_str!("../../migrations/0002_needs.sql"),
    include_str!("../../migrations/0003_archive.sql"),
];

#[tokio::test]
async fn a_schema_of_the_first_version_is_migrated() {
    are_migrated(&FIRST[..1]).await;
}

/// Some states of the repository had delivery records in their first migration, and others did not. Some had archives in their
/// second migration.
#[tokio::test]
async fn schemas_of_states_between_the_versions_are_migrated() {
    let (tables, _version) = include_str!("../../migrations/0004_delivery.sql")
        .rsplit_once("insert into passkit.migration")
        .unwrap();
    are_migrated(&FIRST).await;
    are_migrated(&[FIRST[0], tables]).await;
    are_migrated(&[FIRST[0], tables, FIRST[1], FIRST[2]]).await;
    let archives_second = "delete from passkit.migration where version = 3;
        alter table passkit.migration drop column needs; drop function passkit.archive";
    are_migrated(&[FIRST[0], FIRST[1], FIRST[2], archives_second]).await;
    are_migrated(&[FIRST[0], tables, FIRST[1], FIRST[2], archives_second]).await;
}

async fn are_migrated(before: &[&'static str]) {
    let url = SERVER.url(&SERVER.new_database().await.unwrap());
    let store = PostgresStore::connect(&url, Config::new()).await.unwrap();
    for sql in before {
        sqlx::raw_sql(sqlx::SqlStr::from_static(sql))
            .execute(store.pool())
            .await
            .unwrap();
    }
    let error = store.check().await.unwrap_err();
    assert!(text_of(&error).contains("passkit migrate"), "{error:?}");
    store.migrate().await.unwrap();
    store.check().await.unwrap();
    delivery::are_kept(&store).await;
}

/// Databases have run these migrations, so they must not change. A change of the schema is a new migration.
#[tokio::test]
async fn old_migrations_stay_the_same() {
    let store = new_store().await;
    let mut digests = Vec::new();
    for sql in FIRST {
        let is_code = |line: &&str| !line.trim_start().starts_with("--");
        let code: Vec<_> = sql.lines().filter(is_code).collect();
        let digest = sqlx::query_scalar("select md5($1)").bind(code.join("\n"));
        let digest: String = digest.fetch_one(store.pool()).await.unwrap();
        digests.push(digest);
    }
    assert_eq!(
        digests,
        [
            "0bf62c289601b2e610332a75b7b024d5",
            "00c271d8175be09178b2053670d3cb75",
            "5047e00a573f61bc5f065b55b00261d6",
        ]
    );
}

#[tokio::test]
async fn missing_rights_are_reported() {
    let database = SERVER.new_database().await.unwrap();
    let owner = PostgresStore::connect(&SERVER.url(&database), Config::new())
        .await
        .unwrap();
    let user = format!("{database}_user");
    let run = async |sql: String| {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(owner.pool())
            .await
            .unwrap();
    };
    run(format!("create role {user} login password 'secret'")).await;
    let pool = PgPool::connect_with(
        SERVER
            .url(&database)
            .parse::<sqlx::postgres::PgConnectOptions>()
            .unwrap()
            .username(&user)
            .password("secret"),
    )
    .await
    .unwrap();
    let store = PostgresStore::new(pool);
    let refused = store.migrate().await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Configuration, "{refused:?}");

    owner.migrate().await.unwrap();
    for error in errors(&store).await {
        assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
        assert!(text_of(&error).contains("right"), "{error:?}");
    }

    // A user who owns the schema can migrate without the right to create schemas.
    run(format!(
        "drop schema passkit cascade; create schema passkit authorization {user}"
    ))
    .await;
    store.migrate().await.unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    store.pool().close().await;
    run(format!("drop schema passkit cascade; drop role {user}")).await;
}

#[tokio::test]
async fn a_wrong_address_is_reported() {
    let url = SERVER.url("no_such_database_here");
    let error = PostgresStore::connect(&url, Config::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
    let error = PostgresStore::connect("postgres://[", Config::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration, "{error:?}");
}
