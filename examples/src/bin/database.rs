//! Tickets in a PostgreSQL table. A new seat and its mark commit together.
//!
//! `database 8080 postgres://localhost/concert` makes the table `ticket` and starts. `POST /tickets/A-1` with a seat sells the
//! ticket or moves it, and `GET /tickets/A-1` downloads it.
//!
//! The transaction also makes the push pending. So each phone learns of its new seat, even if this program crashes. To send
//! the pushes, make the publisher with `Publisher::new`, as in the example `pushes`.

use std::{env, slice, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing,
};
use passkit_examples::{Failed, Outcome, Tickets, listen, serve};
use passkit_server::{
    ArchiveBody, Changed, Credentials, PassId, PassSource, PassState, SourceError, WalletService,
    async_trait, push::Publisher,
};
use passkit_store_postgres::{Config, PostgresStore, mark_and_push_in, sqlx};

struct Concert {
    tickets: Tickets,
    /// The store and the tickets share a pool.
    pool: sqlx::PgPool,
    publisher: Publisher,
}

impl Concert {
    /// Returns the seat of a ticket, if the ticket was sold.
    async fn seat(&self, ticket: &PassId) -> sqlx::Result<Option<String>> {
        sqlx::query_scalar("select seat from ticket where serial = $1")
            .bind(ticket.serial.as_str())
            .fetch_optional(&self.pool)
            .await
    }
}

#[async_trait]
impl PassSource for Concert {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let is_sold = pass.type_id == self.tickets.type_id && self.seat(pass).await?.is_some();
        let token = self.tickets.token(pass)?;
        Ok(is_sold.then(|| Credentials::from(&token)))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let Some(seat) = self.seat(pass).await? else {
            return Ok(None);
        };
        Ok(Some(self.tickets.make(pass, &seat)?.into()))
    }
}

async fn download(
    State(concert): State<Arc<Concert>>,
    Path(serial): Path<String>,
) -> Result<Response, Failed> {
    let ticket = concert.tickets.id(&serial)?;
    Ok(match concert.seat(&ticket).await? {
        Some(seat) => concert.tickets.make(&ticket, &seat)?.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn move_to(
    State(concert): State<Arc<Concert>>,
    Path(serial): Path<String>,
    seat: String,
) -> Result<(), Failed> {
    let PassId { type_id, serial } = concert.tickets.id(&serial)?;
    let mut transaction = concert.pool.begin().await?;
    sqlx::query(
        "insert into ticket values ($1, $2) on conflict (serial) do update set seat = excluded.seat",
    )
    .bind(serial.as_str())
    .bind(seat)
    .execute(&mut *transaction)
    .await?;
    // Last, because the mark locks its type until the commit.
    let changed = Changed::Passes(slice::from_ref(&serial));
    mark_and_push_in(&mut transaction, &type_id, changed).await?;
    transaction.commit().await?;
    concert.publisher.wake();
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let url = env::args()
        .nth(2)
        .ok_or("usage: database PORT postgres://user@host/database")?;
    let store = Arc::new(PostgresStore::connect(&url, Config::new()).await?);
    store.migrate().await?;
    let pool = store.pool().clone();
    sqlx::query("create table if not exists ticket (serial text primary key, seat text not null)")
        .execute(&pool)
        .await?;

    let listener = listen().await?;
    let concert = Arc::new(Concert {
        tickets: Tickets::new(&format!("http://{}", listener.local_addr()?))?,
        pool,
        publisher: Publisher::recording(store.clone()),
    });
    let app = Router::new()
        .route("/tickets/{serial}", routing::get(download).post(move_to))
        .with_state(concert.clone())
        .fallback_service(WalletService::new(store, concert));
    serve(listener, app).await
}
