//! Messages from phones in a table. Only phones report these problems of a service.
//!
//! The table `message` in `messages.db` has the time, the meaning and the pass of each message.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use passkit_examples::{Concert, Outcome, listen, serve};
use passkit_server::{WalletService, device_log::LogEntry, push::Publisher, store::MemoryStore};
use rusqlite::Connection;

struct Message {
    serial: Option<String>,
    meaning: &'static str,
}

#[tokio::main]
async fn main() -> Outcome {
    let table = Connection::open("./messages.db")?;
    table.execute_batch(
        "create table if not exists message (at text not null default current_timestamp, serial text, meaning text not null)",
    )?;
    // Anyone may post messages, so the channel has a limit. Messages that do not fit are dropped.
    let (sender, messages) = mpsc::sync_channel::<Message>(1000);
    thread::spawn(move || {
        for Message { serial, meaning } in messages {
            let insert = "insert into message (serial, meaning) values (?1, ?2)";
            if let Err(error) = table.execute(insert, (serial, meaning)) {
                eprintln!("a message of a phone was not stored: {error}");
            }
        }
    });
    // The call runs on the task that answers the phone, so it must not wait for the table.
    let hook = move |entry: &LogEntry<'_>| {
        let message = Message {
            serial: entry.serial.map(str::to_owned),
            meaning: entry.report.meaning(),
        };
        let _is_dropped = sender.try_send(message).is_err();
    };

    let listener = listen().await?;
    let store = Arc::new(MemoryStore::new());
    let publisher = Arc::new(Publisher::marking(store.clone()));
    let concert = Concert::new(&format!("http://{}", listener.local_addr()?), publisher)?;
    let wallet = WalletService::new(store, concert.clone()).device_log(hook);
    serve(listener, concert.routes().fallback_service(wallet)).await
}
