//! Pushes: a phone learns of its new seat at once.
//!
//! The pushes go to a push service on this machine, which prints them, because pushes to real phones need a certificate from
//! Apple. If you have such a certificate, make the identity with `Identity::from_files`, and remove the lines about
//! `LocalApns`.

use std::sync::Arc;

use passkit_apns::{
    ApnsSender, Config, Identity,
    local::{LocalApns, Options},
};
use passkit_examples::{Concert, Outcome, listen, serve};
use passkit_server::{
    WalletService,
    push::{Publisher, PushConfig},
};
use passkit_store_sqlite::SqliteStore;

#[tokio::main]
async fn main() -> Outcome {
    let listener = listen().await?;

    let print = |push: passkit_apns::local::Received| async move {
        println!("a push for {} to the phone {}", push.topic, push.token);
    };
    let apns = LocalApns::start(Options::new().on_push(print)).await?;
    let issued = apns.issue("pass.com.example.ticket")?;
    let identity = Identity::from_pem(None, issued.certificate.as_bytes(), issued.key.as_bytes())?;
    let config = Config::new()
        .endpoint(apns.host(), apns.port())
        .root_certificates(apns.root_pem());
    let sender = Arc::new(ApnsSender::new(config.identity(identity))?);

    let store = Arc::new(SqliteStore::create("./concert.db")?);
    let publisher = Arc::new(Publisher::new(store.clone(), sender, PushConfig::new()));
    let sending = publisher.clone();
    tokio::spawn(async move { sending.run().await });

    let concert = Concert::new(&format!("http://{}", listener.local_addr()?), publisher)?;
    let wallet = WalletService::new(store, concert.clone());
    serve(listener, concert.routes().fallback_service(wallet)).await
}
