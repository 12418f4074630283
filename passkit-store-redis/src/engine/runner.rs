use std::{
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    command::Command,
    connection::{Connection, Wait},
    scripts,
};
use crate::{
    config::Config,
    error::{self, Error},
};

/// Runs commands, and repeats a command until it is answered.
#[derive(Debug)]
pub(crate) struct Runner {
    connection: Connection,
    /// Connections for commands that wait for replicas. There are several, because `WAIT` blocks all later commands on its
    /// connection.
    writers: Vec<Connection>,
    next: AtomicUsize,
    wait: Option<Wait>,
    /// How long a call is retried.
    timeout: Duration,
    /// When the Sentinels were last asked again.
    rediscovered: std::sync::Mutex<Option<Instant>>,
}

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

impl Runner {
    pub(crate) fn new(
        connection: Connection,
        mut writers: Vec<Connection>,
        config: &Config,
    ) -> Self {
        if writers.is_empty() {
            writers.push(connection.clone());
        }
        let wait = (config.min_replicas > 0).then_some(Wait {
            replicas: config.min_replicas,
            timeout: config.replica_timeout,
        });
        let next = AtomicUsize::new(0);
        Self {
            connection,
            writers,
            next,
            wait,
            timeout: config.call_timeout,
            rediscovered: Default::default(),
        }
    }

    /// Makes the connections ask the Sentinels again. Call it after too few replicas confirmed a change, because the master
    /// may be cut off from the other servers, and a new master may have taken over. If replicas are only down, asking is
    /// useless. So this method limits how often the Sentinels are asked.
    fn rediscover_master(&self) {
        let rest = self.wait.map_or(Duration::ZERO, |wait| wait.timeout);
        let mut last = self
            .rediscovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= rest) {
            *last = Some(Instant::now());
            self.writers
                .iter()
                .chain([&self.connection])
                .for_each(Connection::rediscover_master);
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs commands without waiting for replicas. Use it for commands that only read, and for writes whose loss does no harm.
    /// No answer to a device may depend on these commands. Returns the answers in the order of the commands.
    pub(crate) async fn read(&self, calls: Vec<Command>) -> Result<Vec<Value>, Error> {
        self.run(&self.connection, calls, None).await
    }

    /// Runs commands that write. Returns when enough replicas have confirmed the change.
    pub(crate) async fn write(&self, calls: Vec<Command>) -> Result<Vec<Value>, Error> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len();
        self.run(&self.writers[next], calls, self.wait).await
    }

    /// Reads fields of a hash, or all fields if `fields` is empty. If changes wait for replicas, this read waits too, because
    /// a failover must not lose anything that a device has seen. The read then also writes `field` without changing it,
    /// because replicas confirm only writes.
    pub(crate) async fn read_confirmed(
        &self,
        key: String,
        field: &str,
        fields: &[&str],
    ) -> Result<Value, Error> {
        let answers = if self.waits() {
            self.write(vec![
                Command::script(&scripts::CONFIRM, key)
                    .arg(field)
                    .arg(fields),
            ])
            .await?
        } else {
            let name = if fields.is_empty() {
                "HGETALL"
            } else {
                "HMGET"
            };
            self.read(vec![Command::plain(name, key).arg(fields)])
                .await?
        };
        Ok(answers.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Returns a time after which every call has certainly ended, so that the name of the call can be forgotten.
    pub(crate) fn longest_call(&self) -> Duration {
        self.timeout
            .saturating_mul(10)
            .clamp(Duration::from_secs(60), Duration::from_secs(30 * 86_400))
    }

    /// Returns whether changes wait for replicas.
    pub(crate) fn waits(&self) -> bool {
        self.wait.is_some()
    }

    async fn run(
        &self,
        connection: &Connection,
        mut calls: Vec<Command>,
        wait: Option<Wait>,
    ) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut answers = vec![Value::Nil; calls.len()];
        let mut open: Vec<usize> = (0..calls.len()).collect();
        let mut pause = PAUSES.0;
        let mut last = Error::timeout();
        while !open.is_empty() {
            let these: Vec<&Command> = open.iter().map(|at| &calls[*at]).collect();
            let results = match timeout_at(deadline, connection.try_once(&these, wait)).await {
                Ok(results) => results,
                Err(_) => return Err(last),
            };
            let mut still_open = Vec::new();
            let mut transient = false;
            for (at, result) in open.into_iter().zip(results) {
                match result.and_then(|(value, confirmed)| Ok((value.extract_error()?, confirmed)))
                {
                    Ok((value, confirmed)) => {
                        if let Some(Wait { replicas, .. }) = wait
                            && confirmed.is_none_or(|confirmed| confirmed < i64::from(replicas))
                        {
                            self.rediscover_master();
                            return Err(Error::unconfirmed(confirmed.unwrap_or(0), replicas));
                        }
                        answers[at] = value;
                    }
                    Err(error) if error::is_transient(&error) => {
                        let lacks_script = error.kind()
                            == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript);
                        transient |= !(lacks_script && calls[at].spell_out());
                        still_open.push(at);
                        last = error.into();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            open = still_open;
            if transient {
                if Instant::now() + pause > deadline {
                    return Err(last);
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                open.iter().for_each(|at| calls[*at].renew());
            }
        }
        Ok(answers)
    }
}
