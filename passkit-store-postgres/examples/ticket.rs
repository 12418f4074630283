//! A ticket changes seats: its new content and its mark commit together, and the phone that has it hears of it.
//!
//! `cargo run -p passkit-store-postgres --example ticket -- postgres://localhost/tickets`

use std::error::Error;

use passkit_server::{DeviceIdentifier, PassId, PushToken, RegistrationStore};
use passkit_store_postgres::{Config, PostgresStore, mark_updated_in, sqlx};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: ticket postgres://user@host/database")?;
    run(&url).await
}

/// The example, on an address of its own choice.
pub async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    // Or `PostgresStore::new(pool)` over a pool of yours.
    let store = PostgresStore::connect(url, Config::new()).await?;
    store.migrate().await?;
    sqlx::query("create table if not exists seat (ticket text primary key, seat int not null)")
        .execute(store.pool())
        .await?;

    let phone = DeviceIdentifier::new("0a1b2c3d4e5f60718293a4b5c6d7e8f9")?;
    let ticket = PassId::new("pass.com.example.ticket", "A-0001")?;
    store.register(&phone, &ticket, &PushToken::new("c0ffee")?).await?;
    let seen = store.updated_since(&phone, &ticket.type_id, None).await?;

    let mut transaction = store.pool().begin().await?;
    sqlx::query("insert into seat values ($1, 7) on conflict (ticket) do update set seat = excluded.seat")
        .bind(ticket.serial.as_str())
        .execute(&mut *transaction)
        .await?;
    mark_updated_in(&mut transaction, &ticket.type_id, std::slice::from_ref(&ticket.serial)).await?;
    transaction.commit().await?;

    let news = store.updated_since(&phone, &ticket.type_id, Some(seen.tag)).await?;
    println!("the phone is told to fetch {:?}", news.serials);
    assert_eq!(news.serials, [ticket.serial]);
    Ok(())
}
