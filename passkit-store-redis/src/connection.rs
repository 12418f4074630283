//! One way to run commands, whatever stands behind it.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use passkit_server::clock;
use redis::{
    Arg, Cmd, Pipeline, RedisError, RedisResult, Value,
    aio::{ConnectionManager, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
    sentinel::SentinelClient,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    config::Config,
    error::{self, Failure},
    scripts::{self, Script},
};

/// A connection to one node, to the master that Sentinels name, or to a Cluster.
///
/// Cheap to clone; clones share it. Made [from](From) a connection of the driver, or by
/// [`RedisStore::connect`](crate::RedisStore::connect), whose connection to a Cluster is replaced when it gets stuck.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    Node(ConnectionManager),
    Sentinel(Arc<Mutex<Sentinel>>),
    Cluster(Arc<Cluster>),
}

/// While slots move, or masters change, the driver may wait for ever for a lock that a command holds which it no longer
/// polls. So a connection that let a command time out is replaced; commands go on over the old one until then.
struct Cluster {
    /// With how long connecting may take. `None` where the connection was given to us.
    client: Option<(ClusterClient, Duration)>,
    current: std::sync::Mutex<Current>,
}

struct Current {
    connection: ClusterConnection,
    /// Counts the connections, so that of many calls that time out on one only the first has it replaced.
    generation: u64,
    is_replaced: bool,
}

/// The master as the Sentinels last named it; asked again after every failure.
struct Sentinel {
    client: SentinelClient,
    config: redis::AsyncConnectionConfig,
    master: Option<MultiplexedConnection>,
    /// Counts the masters, so that of many calls that fail with one only the first throws it away.
    generation: u64,
}

impl From<ConnectionManager> for Connection {
    fn from(connection: ConnectionManager) -> Self {
        Self(Kind::Node(connection))
    }
}

impl From<ClusterConnection> for Connection {
    fn from(connection: ClusterConnection) -> Self {
        Self::with_cluster(None, connection)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Node(_) => "Connection(node)",
            Kind::Sentinel(_) => "Connection(sentinel)",
            Kind::Cluster(_) => "Connection(cluster)",
        })
    }
}

/// How many replicas to wait for, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    replicas: u16,
    timeout: Duration,
}

/// What a command answered, and how many replicas confirmed it if that was asked.
type Answer = RedisResult<(Value, Option<i64>)>;

impl Connection {
    pub(crate) fn sentinel(client: SentinelClient, config: redis::AsyncConnectionConfig) -> Self {
        Self(Kind::Sentinel(Arc::new(Mutex::new(Sentinel { client, config, master: None, generation: 0 }))))
    }

    pub(crate) async fn cluster(client: ClusterClient, patience: Duration) -> RedisResult<Self> {
        let connection = client.get_async_connection().await?;
        Ok(Self::with_cluster(Some((client, patience)), connection))
    }

    fn with_cluster(client: Option<(ClusterClient, Duration)>, connection: ClusterConnection) -> Self {
        let current = Current { connection, generation: 0, is_replaced: false };
        Self(Kind::Cluster(Arc::new(Cluster { client, current: std::sync::Mutex::new(current) })))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(_))
    }

    /// Runs each command once, those for one node in order where there is only one.
    ///
    /// Boxed, as is all that reaches into the driver: its futures are too deep for the compiler's limits elsewhere.
    fn attempt<'a>(&'a self, calls: &'a [&'a Call], wait: Option<Wait>) -> BoxFuture<'a, Vec<Answer>> {
        async move { self.attempt_inner(calls, wait).await }.boxed()
    }

    async fn attempt_inner(&self, calls: &[&Call], wait: Option<Wait>) -> Vec<Answer> {
        match &self.0 {
            Kind::Node(connection) => {
                let mut connection = connection.clone();
                if let ([call], None) = (calls, wait) {
                    return vec![connection.send_packed_command(&call.cmd).await.map(|value| (value, None))];
                }
                let pipeline = pipeline(calls, wait);
                let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
                spread(answers, calls.len(), wait)
            }
            Kind::Sentinel(sentinel) => {
                let (mut connection, generation) = match master(sentinel).await {
                    Ok(master) => master,
                    Err(error) => return vec![Err(error); calls.len()],
                };
                let pipeline = pipeline(calls, wait);
                let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
                let answers = spread(answers, calls.len(), wait);
                if answers.iter().any(|answer| answer.as_ref().is_err_and(error::is_passing)) {
                    lose_master(sentinel, generation).await;
                }
                answers
            }
            Kind::Cluster(cluster) => {
                let (connection, generation) = cluster.current();
                let answers =
                    join_all(calls.iter().map(|call| on_cluster(connection.clone(), call, wait))).await;
                if answers.iter().any(|answer| answer.as_ref().is_err_and(RedisError::is_timeout)) {
                    cluster.replace(generation);
                }
                answers
            }
        }
    }

    /// Has the Sentinels asked again who is master, unless they are being asked.
    fn distrust(&self) {
        if let Kind::Sentinel(sentinel) = &self.0
            && let Ok(mut sentinel) = sentinel.try_lock()
        {
            sentinel.master = None;
        }
    }

    /// The same command on every master.
    pub(crate) fn on_masters(&self, cmd: Cmd) -> BoxFuture<'_, Result<Vec<Value>, Failure>> {
        async move { self.on_masters_inner(cmd).await }.boxed()
    }

    async fn on_masters_inner(&self, cmd: Cmd) -> Result<Vec<Value>, Failure> {
        use redis::cluster_routing::MultipleNodeRoutingInfo::AllMasters;
        match &self.0 {
            Kind::Cluster(cluster) => {
                let routing = RoutingInfo::MultiNode((AllMasters, None));
                match cluster.current().0.route_command(cmd, routing).await? {
                    Value::Map(by_node) => Ok(by_node.into_iter().map(|(_, value)| value).collect()),
                    value => Ok(vec![value]),
                }
            }
            _ => {
                let call = Call { route: To::Any, cmd, script: None, time: None };
                let mut answers = Vec::new();
                for answer in self.attempt(&[&call], None).await {
                    answers.push(answer?.0.extract_error()?);
                }
                Ok(answers)
            }
        }
    }
}

impl Cluster {
    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> (ClusterConnection, u64) {
        let current = self.lock();
        (current.connection.clone(), current.generation)
    }

    /// Connects anew beside the calls, unless that was done or is being done.
    fn replace(self: &Arc<Self>, generation: u64) {
        let Some((client, patience)) = self.client.clone() else { return };
        {
            let mut current = self.lock();
            if current.generation != generation || current.is_replaced {
                return;
            }
            current.is_replaced = true;
        }
        let cluster = Arc::clone(self);
        let replacing = async move {
            let connected = timeout(patience, client.get_async_connection()).await;
            let mut current = cluster.lock();
            current.is_replaced = false;
            if let Ok(Ok(connection)) = connected {
                tracing::warn!("a connection to the Redis Cluster timed out and was replaced");
                current.connection = connection;
                current.generation += 1;
            }
        };
        tokio::spawn(replacing.boxed());
    }
}

fn pipeline(calls: &[&Call], wait: Option<Wait>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len() + 1);
    for call in calls {
        pipeline.add_command(call.cmd.clone());
    }
    if let Some(Wait { replicas, timeout }) = wait {
        // 0 would be to wait for ever.
        pipeline.cmd("WAIT").arg(replicas).arg(timeout.as_millis().max(1) as u64);
    }
    pipeline
}

/// The answers to a pipeline, one for each command. All of them share the count of replicas at its end.
fn spread(answers: RedisResult<Vec<Value>>, calls: usize, wait: Option<Wait>) -> Vec<Answer> {
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(error) => return vec![Err(error); calls],
    };
    let confirmed = match wait.and_then(|_| answers.pop()).map(Value::extract_error).transpose() {
        Ok(confirmed) => confirmed.and_then(|value| redis::from_redis_value(value).ok()),
        Err(error) => return vec![Err(error); calls],
    };
    answers.into_iter().map(|value| Ok((value, confirmed))).collect()
}

async fn on_cluster(mut connection: ClusterConnection, call: &Call, wait: Option<Wait>) -> Answer {
    let node = match &call.route {
        To::Key(key) => SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master)),
        To::Slot(slot) => SingleNodeRoutingInfo::SpecificNode(Route::new(*slot, SlotAddr::Master)),
        To::Any => SingleNodeRoutingInfo::RandomPrimary,
    };
    if wait.is_none() {
        let answer = connection.route_command(call.cmd.clone(), RoutingInfo::SingleNode(node)).await;
        return answer.map(|value| (value, None));
    }
    let pipeline = pipeline(&[call], wait);
    let count = pipeline.len();
    let answers = connection.route_pipeline(pipeline, 0, count, node).await;
    spread(answers, 1, wait).pop().unwrap_or_else(|| Ok((Value::Nil, None)))
}

async fn master(sentinel: &Mutex<Sentinel>) -> RedisResult<(MultiplexedConnection, u64)> {
    let mut sentinel = sentinel.lock().await;
    let Sentinel { client, config, master, generation } = &mut *sentinel;
    if let Some(master) = master {
        return Ok((master.clone(), *generation));
    }
    let connection = client.get_async_connection_with_config(config).await?;
    *generation += 1;
    *master = Some(connection.clone());
    Ok((connection, *generation))
}

async fn lose_master(sentinel: &Mutex<Sentinel>, generation: u64) {
    let mut sentinel = sentinel.lock().await;
    if sentinel.generation == generation {
        sentinel.master = None;
    }
}

/// Which node a command is for.
#[derive(Clone, Debug)]
enum To {
    Key(String),
    Slot(u16),
    Any,
}

/// A command that may run twice with no harm.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    route: To,
    cmd: Cmd,
    script: Option<&'static Script>,
    /// Where the time stands in the command, if it does.
    time: Option<usize>,
}

/// Where a script stands in its command, and its first key.
const SCRIPT: usize = 1;
const KEYS: usize = 3;

impl Call {
    pub(crate) fn plain(name: &str, key: String) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(&key);
        Self { route: To::Key(key), cmd, script: None, time: None }
    }

    /// A command whose key stands behind a second word.
    pub(crate) fn keyed(name: &str, second: &str, key: String) -> Self {
        let mut cmd = redis::cmd(name);
        cmd.arg(second).arg(&key);
        Self { route: To::Key(key), cmd, script: None, time: None }
    }

    pub(crate) fn script(script: &'static Script, key: String) -> Self {
        Self::script_on(script, vec![key])
    }

    /// A script that touches several keys, which are in one slot.
    pub(crate) fn script_on(script: &'static Script, keys: impl Into<Vec<String>>) -> Self {
        let mut keys = keys.into();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&script.hash).arg(keys.len()).arg(&keys);
        Self { route: To::Key(keys.swap_remove(0)), cmd, script: Some(script), time: None }
    }

    /// A script whose first argument is the time.
    pub(crate) fn timed(script: &'static Script, keys: impl Into<Vec<String>>) -> Self {
        Self::timed_at(script, keys, clock::now_micros())
    }

    /// The same with a time that several scripts share, each until it has to be run again.
    pub(crate) fn timed_at(script: &'static Script, keys: impl Into<Vec<String>>, now: u64) -> Self {
        let keys = keys.into();
        Self { time: Some(KEYS + keys.len()), ..Self::script_on(script, keys).arg(now) }
    }

    pub(crate) fn on_slot(slot: u16, cmd: Cmd) -> Self {
        Self { route: To::Slot(slot), cmd, script: None, time: None }
    }

    pub(crate) fn anywhere(cmd: Cmd) -> Self {
        Self { route: To::Any, cmd, script: None, time: None }
    }

    pub(crate) fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    /// With the script itself in place of its hash, which the server then keeps. Whether there was one.
    fn spell_out(&mut self) -> bool {
        let Some(script) = self.script.take() else { return false };
        self.replace(0, b"EVAL");
        self.replace(SCRIPT, script.source.as_bytes());
        true
    }

    /// With the time as it is now. A server that took over may lack what others saw before, and so must not be told a
    /// time from before.
    fn renew(&mut self) {
        if let Some(at) = self.time {
            self.replace(at, clock::now_micros().to_string().as_bytes());
        }
    }

    fn replace(&mut self, at: usize, new: &[u8]) {
        let mut cmd = Cmd::new();
        for (n, arg) in self.cmd.args_iter().enumerate() {
            if let Arg::Simple(arg) = arg {
                cmd.arg(if n == at { new } else { arg });
            }
        }
        self.cmd = cmd;
    }
}

/// Runs commands until they are answered.
#[derive(Debug)]
pub(crate) struct Runner {
    connection: Connection,
    /// `WAIT` stops everything behind it on its connection, so what waits for replicas has connections of its own, and
    /// several so that a few can wait at a time.
    writers: Vec<Connection>,
    next: AtomicUsize,
    wait: Option<Wait>,
    patience: Duration,
    /// When the master was doubted last.
    distrusted: std::sync::Mutex<Option<Instant>>,
}

/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

impl Runner {
    pub(crate) fn new(connection: Connection, mut writers: Vec<Connection>, config: &Config) -> Self {
        if writers.is_empty() {
            writers.push(connection.clone());
        }
        let wait = (config.min_replicas > 0)
            .then_some(Wait { replicas: config.min_replicas, timeout: config.replica_timeout });
        let next = AtomicUsize::new(0);
        Self {
            connection,
            writers,
            next,
            wait,
            patience: config.call_timeout,
            distrusted: Default::default(),
        }
    }

    /// A master that no replica confirms was perhaps cut off from all but us, and another has taken over. It may as well be
    /// the replica that is away, so this is asked only once in the time that replicas have.
    fn distrust(&self) {
        let rest = self.wait.map_or(Duration::ZERO, |wait| wait.timeout);
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.is_none_or(|last| last.elapsed() >= rest) {
            *distrusted = Some(Instant::now());
            self.writers.iter().chain([&self.connection]).for_each(Connection::distrust);
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs commands that only read, if nothing a device is told follows from it, or whose loss does no harm; answers in their order.
    pub(crate) async fn read(&self, calls: Vec<Call>) -> Result<Vec<Value>, Failure> {
        self.run(&self.connection, calls, None).await
    }

    /// Runs commands that write, and returns when the change is as durable as was asked for.
    pub(crate) async fn write(&self, calls: Vec<Call>) -> Result<Vec<Value>, Failure> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len();
        self.run(&self.writers[next], calls, self.wait).await
    }

    /// Reads fields of a device or a bucket, or all of them. Where changes wait for replicas so does this: what a device
    /// was told must not be lost.
    pub(crate) async fn read_confirmed(
        &self,
        key: String,
        clock: &str,
        fields: &[&str],
    ) -> Result<Value, Failure> {
        let answers = if self.waits() {
            self.write(vec![Call::script(&scripts::CONFIRM, key).arg(clock).arg(fields)]).await?
        } else {
            let name = if fields.is_empty() { "HGETALL" } else { "HMGET" };
            self.read(vec![Call::plain(name, key).arg(fields)]).await?
        };
        Ok(answers.into_iter().next().unwrap_or(Value::Nil))
    }

    /// Whether changes wait for replicas.
    pub(crate) fn waits(&self) -> bool {
        self.wait.is_some()
    }

    async fn run(
        &self,
        connection: &Connection,
        mut calls: Vec<Call>,
        wait: Option<Wait>,
    ) -> Result<Vec<Value>, Failure> {
        let deadline = Instant::now() + self.patience;
        let mut answers = vec![Value::Nil; calls.len()];
        let mut open: Vec<usize> = (0..calls.len()).collect();
        let mut pause = PAUSES.0;
        let mut last = Failure::timeout();
        while !open.is_empty() {
            let these: Vec<&Call> = open.iter().map(|at| &calls[*at]).collect();
            let results = match timeout_at(deadline, connection.attempt(&these, wait)).await {
                Ok(results) => results,
                Err(_) => return Err(last),
            };
            let mut still_open = Vec::new();
            let mut passing = false;
            for (at, result) in open.into_iter().zip(results) {
                match result.and_then(|(value, confirmed)| Ok((value.extract_error()?, confirmed))) {
                    Ok((value, confirmed)) => {
                        if let Some(Wait { replicas, .. }) = wait
                            && confirmed.is_none_or(|confirmed| confirmed < i64::from(replicas))
                        {
                            self.distrust();
                            return Err(Failure::unconfirmed(confirmed.unwrap_or(0), replicas));
                        }
                        answers[at] = value;
                    }
                    Err(error) if error::is_passing(&error) => {
                        let lacks_script =
                            error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript);
                        passing |= !(lacks_script && calls[at].spell_out());
                        still_open.push(at);
                        last = error.into();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            open = still_open;
            if passing {
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
