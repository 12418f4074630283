//! A ticket gets another seat. The new content and its mark commit together. The next list for the phone then has the ticket.
//!
//! `cargo run -p passkit-store-postgres --example ticket -- postgres://localhost/tickets`

use std::error::Error;

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, PushToken},
    store::RegistrationStore,
};
use passkit_store_postgres::{Config, PostgresStore, mark_in, sqlx};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("usage: ticket postgres://user@host/database")?;
    run(&url).await
}

/// Runs the example on any database.
pub async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    // You can also use your own pool: `PostgresStore::new(pool)`.
    let store = PostgresStore::connect(url, Config::new()).await?;
    store.migrate().await?;
    sqlx::query("create table if not exists seat (ticket text primary key, seat int not null)")
        .execute(store.pool())
        .await?;

    let phone = DeviceIdentifier::new("0a1b2c3d4e5f60718293a4b5c6d7e8f9")?;
    let ticket = PassId::new("pass.com.example.ticket", "A-0001")?;
    store
        .register(&phone, &ticket, &PushToken::new("c0ffee")?)
        .await?;
    let seen = store.changes_since(&phone, &ticket.type_id, None).await?;

    let mut transaction = store.pool().begin().await?;
    sqlx::query(
        "insert into seat values ($1, 7) on conflict (ticket) do update set seat = excluded.seat",
    )
    .bind(ticket.serial.as_str())
    .execute(&mut *transaction)
    .await?;
    let changed = Changed::Passes(std::slice::from_ref(&ticket.serial));
    mark_in(&mut transaction, &ticket.type_id, changed).await?;
    transaction.commit().await?;

    let changes = store
        .changes_since(&phone, &ticket.type_id, Some(seen.tag))
        .await?;
    println!("the phone has to fetch {:?}", changes.serials);
    assert_eq!(changes.serials, [ticket.serial]);
    Ok(())
}
