//! What the examples share: a port, tickets, and a concert with one ticket.

mod concert;

use std::error::Error;

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use passkit_archive::{
    Signer,
    template::{Style, Template, TokenSecret},
};
use passkit_server::{
    AuthToken, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
};
use tokio::net::TcpListener;

pub use concert::Concert;

/// The result of an example and its parts.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// An error of a request: status 500, with the error as text.
#[derive(Debug)]
pub struct Failed(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

/// Listens on a port of this machine: the first argument of the program, or 8080.
pub async fn listen() -> Outcome<TcpListener> {
    let port = std::env::args().nth(1).unwrap_or_else(|| "8080".into());
    Ok(TcpListener::bind(("127.0.0.1", port.parse()?)).await?)
}

/// Serves until the program is stopped.
pub async fn serve(listener: TcpListener, app: Router) -> Outcome {
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// Makes tickets for a concert. A throw-away certificate signs them, and the virtual phone accepts it. Real phones need a
/// certificate from Apple. For them, make the signer with `Signer::new`.
#[derive(Debug)]
pub struct Tickets {
    /// The type of all tickets.
    pub type_id: TypeIdentifier,
    template: Template,
    tokens: TokenSecret,
    signer: Signer,
}

impl Tickets {
    /// Makes a template, a signer and the tokens. `web_service_url` is where phones ask for changes. For real phones, it must
    /// start with `https://`.
    pub fn new(web_service_url: &str) -> Outcome<Self> {
        let type_id = TypeIdentifier::new("pass.com.example.ticket")?;
        let template = Template::new(Style::EventTicket)
            .fill()
            .set("/passTypeIdentifier", type_id.as_str())
            .set("/teamIdentifier", "ABCDE12345")
            .set("/organizationName", "Example")
            .set("/description", "A ticket for a concert")
            .set("/webServiceURL", web_service_url)
            .set(
                "/eventTicket/primaryFields/-",
                serde_json::json!({ "key": "seat", "label": "Seat", "value": "", "changeMessage": "Your seat is now %@." }),
            )
            .into_template()?;
        Ok(Self {
            // In a real service, the secret is 32 random bytes that are kept forever. Phones keep the tokens.
            tokens: TokenSecret::new(b"a secret for examples"),
            signer: Signer::throwaway(&type_id, "ABCDE12345")?,
            template,
            type_id,
        })
    }

    /// Returns the identifier of a ticket.
    pub fn id(&self, serial: &str) -> Outcome<PassId> {
        Ok(PassId {
            type_id: self.type_id.clone(),
            serial: SerialNumber::new(serial)?,
        })
    }

    /// Returns the authentication token of a ticket.
    pub fn token(&self, ticket: &PassId) -> Outcome<AuthToken> {
        Ok(self.tokens.token(ticket)?)
    }

    /// Makes the signed ticket for a seat.
    pub fn make(&self, ticket: &PassId, seat: &str) -> Outcome<Bytes> {
        let pass = self
            .template
            .fill()
            .serial(ticket.serial.as_str())
            .set("/authenticationToken", self.token(ticket)?.as_str())
            .field("seat", seat)
            .finish()?;
        Ok(pass.build_signed(&self.signer)?.into())
    }
}
