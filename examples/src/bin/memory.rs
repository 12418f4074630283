//! The smallest service: one ticket in memory, without pushes.
//!
//! The store in memory loses the registrations when the program ends, so use it for tests only. `Concert`, in
//! `src/concert.rs`, is the source of the ticket.

use std::sync::Arc;

use passkit_examples::{Concert, Outcome, listen, serve};
use passkit_server::{WalletService, push::Publisher, store::MemoryStore};

#[tokio::main]
async fn main() -> Outcome {
    let listener = listen().await?;
    let store = Arc::new(MemoryStore::new());
    let publisher = Arc::new(Publisher::marking(store.clone()));
    let concert = Concert::new(&format!("http://{}", listener.local_addr()?), publisher)?;
    let wallet = WalletService::new(store, concert.clone());
    serve(listener, concert.routes().fallback_service(wallet)).await
}
