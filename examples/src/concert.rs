use std::{slice, sync::Arc};

use axum::{Router, extract::State, routing};
use bytes::Bytes;
use passkit_server::{
    ArchiveBody, Changed, Credentials, PassId, PassSource, PassState, SourceError, async_trait,
    push::Publisher,
};
use tokio::sync::Mutex;

use crate::{Failed, Outcome, Tickets};

/// A concert with one ticket, in memory.
///
/// `GET /ticket` downloads the ticket, and `POST /seat` with a text moves it to another seat.
pub struct Concert {
    tickets: Tickets,
    ticket: PassId,
    seat: Mutex<String>,
    publisher: Arc<Publisher>,
}

impl Concert {
    /// `web_service_url` is where phones ask for changes.
    pub fn new(web_service_url: &str, publisher: Arc<Publisher>) -> Outcome<Arc<Self>> {
        let tickets = Tickets::new(web_service_url)?;
        Ok(Arc::new(Self {
            ticket: tickets.id("A-1")?,
            tickets,
            seat: Mutex::new("1".into()),
            publisher,
        }))
    }

    /// The routes of the shop.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route("/ticket", routing::get(download))
            .route("/seat", routing::post(move_to))
            .with_state(self)
    }
}

/// The source that the web service for phones asks.
#[async_trait]
impl PassSource for Concert {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let token = self.tickets.token(pass)?;
        Ok((*pass == self.ticket).then(|| Credentials::from(&token)))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let ticket = self.tickets.make(pass, &self.seat.lock().await)?;
        Ok(Some(ticket.into()))
    }
}

async fn download(State(concert): State<Arc<Concert>>) -> Result<Bytes, Failed> {
    let seat = concert.seat.lock().await;
    Ok(concert.tickets.make(&concert.ticket, &seat)?)
}

async fn move_to(State(concert): State<Arc<Concert>>, seat: String) -> Result<(), Failed> {
    // First the content, then the mark. In the other order, a phone could fetch the old seat and never ask again.
    *concert.seat.lock().await = seat;
    let PassId { type_id, serial } = &concert.ticket;
    let changed = Changed::Passes(slice::from_ref(serial));
    Ok(concert.publisher.publish(type_id, changed).await?)
}

impl std::fmt::Debug for Concert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Concert").finish_non_exhaustive()
    }
}
