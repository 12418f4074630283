//! The web service below a path, beside other routes, with tower layers.
//!
//! Tickets have the `webServiceURL` `http://…/wallet`. Phones add `/v1/…` to it.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header::SERVER},
    routing,
};
use passkit_examples::{Concert, Outcome, listen, serve};
use passkit_server::{WalletService, push::Publisher, store::MemoryStore};
use tower_http::{set_header::SetResponseHeaderLayer, trace::TraceLayer};

#[tokio::main]
async fn main() -> Outcome {
    let listener = listen().await?;
    let store = Arc::new(MemoryStore::new());
    let publisher = Arc::new(Publisher::marking(store.clone()));
    let url = format!("http://{}/wallet", listener.local_addr()?);
    let concert = Concert::new(&url, publisher)?;
    let wallet = WalletService::new(store, concert.clone());

    let app = Router::new()
        .route(
            "/",
            routing::get(async || "The shop. Your ticket is at /ticket."),
        )
        .merge(concert.routes())
        .nest_service("/wallet", wallet)
        .layer(SetResponseHeaderLayer::overriding(
            SERVER,
            HeaderValue::from_static("shop"),
        ))
        // Don't log the headers or the path of a request: they have the token of a pass, and the identifier of a phone.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(|_: &axum::http::Request<_>| tracing::info_span!("request")),
        );
    serve(listener, app).await
}
