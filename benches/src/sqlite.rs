//! The floor of SQLite: the prepared statements of the store. They run on threads, each with a
//! separate connection. The connections have the same settings as the connections of the store.

use std::{
    path::Path,
    sync::mpsc::{Sender, channel},
    thread,
};

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, SerialNumber},
    store::{UpdateTag, clock},
};
use passkit_store_sqlite::{
    STATEMENTS,
    rusqlite::{CachedStatement, Connection, Result, params},
};
use tokio::sync::oneshot;

use crate::data::{TYPE, token};

/// The number of threads, which is also the number of the store's readers.
const THREADS: usize = 4;

/// The size of a connection's page cache in kilobytes, the same as in the store.
const CACHE: i64 = 64 * 1024 / 7;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that run jobs. They end when this value is dropped.
pub struct Threads(Vec<Sender<Job>>);

impl Threads {
    /// Connects to the database of a store.
    ///
    /// # Errors
    /// Fails if the database can't be opened.
    pub fn start(path: &Path) -> Result<Self> {
        let start = |_| {
            let connection = Connection::open(path)?;
            connection.set_prepared_statement_cache_capacity(64);
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "cache_size", -CACHE)?;
            let (sender, jobs) = channel::<Job>();
            thread::spawn(move || jobs.into_iter().for_each(|job| job(&connection)));
            Ok(sender)
        };
        (0..THREADS).map(start).collect::<Result<_>>().map(Self)
    }

    async fn run<T: Send + 'static>(
        &self,
        number: usize,
        job: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> T {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(sender.send(job(connection))));
        self.0[number % THREADS].send(job).expect("a thread");
        answer.await.expect("a thread").expect("answered")
    }

    /// Commits on the first thread, because SQLite has one writer.
    async fn commit(&self, change: impl FnOnce(&Connection) -> Result<()> + Send + 'static) {
        let commit = |connection: &Connection| {
            connection.prepare_cached("begin immediate")?.execute([])?;
            change(connection)?;
            connection.prepare_cached("commit")?.execute([]).map(drop)
        };
        self.run(0, commit).await;
    }

    pub(crate) async fn changes_since(
        &self,
        number: usize,
        device: &DeviceIdentifier,
        since: UpdateTag,
    ) -> Vec<String> {
        let device = device.as_str().to_owned();
        let (type_version, device_version) =
            (since.type_version as i64, since.device_version as i64);
        let ask = move |connection: &Connection| {
            let mut statement = statement(connection, "changes since")?;
            let rows = statement
                .query_map(params![device, TYPE, type_version, device_version], |row| {
                    row.get::<_, Option<String>>(2)
                })?;
            rows.filter_map(Result::transpose).collect()
        };
        self.run(number, ask).await
    }

    pub(crate) async fn register(&self, device: &DeviceIdentifier, pass: &PassId) {
        let (device, serial) = (device.as_str().to_owned(), pass.serial.as_str().to_owned());
        let register = move |connection: &Connection| {
            let now = clock::now_micros() as i64;
            let version: i64 = statement(connection, "register device")?
                .query_row(params![device, token().as_str(), now], |row| row.get(0))?;
            statement(connection, "register")?
                .execute(params![device, TYPE, serial, version])
                .map(drop)
        };
        self.commit(register).await;
    }

    pub(crate) async fn mark(&self, serials: &[SerialNumber]) {
        let serials = serials.to_vec();
        let mark = move |connection: &Connection| {
            let now = clock::now_micros() as i64;
            let (version, floor_date): (i64, i64) = statement(connection, "tick")?
                .query_row(params![TYPE, now], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut latest = 0;
            for serial in serials {
                let mark = params![TYPE, serial.as_str(), version, now / 1_000_000, floor_date];
                let date: i64 =
                    statement(connection, "mark pass")?.query_row(mark, |row| row.get(0))?;
                latest = latest.max(date);
            }
            statement(connection, "set latest date")?
                .execute(params![TYPE, latest])
                .map(drop)
        };
        self.commit(mark).await;
    }

    /// Returns the devices after this device, with their push tokens.
    pub(crate) async fn devices(
        &self,
        pass: &PassId,
        after: String,
        limit: usize,
    ) -> Vec<(String, String)> {
        let serial = pass.serial.as_str().to_owned();
        let ask = move |connection: &Connection| {
            let mut statement = statement(connection, "devices of pass")?;
            let rows = statement.query_map(params![TYPE, serial, after, limit as i64], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            rows.collect()
        };
        self.run(0, ask).await
    }
}

/// Returns the store's statement of this name.
fn statement<'a>(connection: &'a Connection, name: &str) -> Result<CachedStatement<'a>> {
    let (_, sql) = STATEMENTS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a statement of the store");
    connection.prepare_cached(sql)
}
