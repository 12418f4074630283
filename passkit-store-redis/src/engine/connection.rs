//! Runs commands once, in the same way on a node, behind Sentinels and on a Cluster.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use redis::{
    Cmd, Pipeline, RedisError, RedisResult, Value,
    aio::{ConnectionManager, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
    sentinel::SentinelClient,
};
use tokio::{sync::Mutex, time::timeout};

use super::command::{Command, Route as For};
use crate::error::{self, Error};

/// A connection to one node, to the master that Sentinels name, or to a Cluster.
///
/// Cloning is cheap. Clones share the connection. [`RedisStore::connect`](crate::RedisStore::connect) makes a connection. You
/// can also convert a connection of the driver with `From`. If a connection to a Cluster gets stuck, the store replaces it,
/// but only if `connect` made it.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    Node(ConnectionManager),
    Sentinel(Arc<Mutex<Sentinel>>),
    Cluster(Arc<Cluster>),
}

/// A connection to a Cluster. The store can replace this connection.
///
/// While slots move or masters change, the driver may wait forever for a lock. The lock belongs to a command that the driver
/// no longer polls. So the store replaces a connection after a command timed out on it. Commands use the old connection until
/// the new one is open.
struct Cluster {
    /// The client, and how long connecting may take. `None` if the user made the connection.
    client: Option<(ClusterClient, Duration)>,
    current: std::sync::Mutex<Current>,
}

struct Current {
    connection: ClusterConnection,
    /// Counts the connections. If many calls time out on one connection, only the first of these calls replaces it.
    generation: u64,
    is_replaced: bool,
}

/// The connection to the master that the Sentinels named last. The store asks the Sentinels again after each failure.
struct Sentinel {
    client: SentinelClient,
    config: redis::AsyncConnectionConfig,
    master: Option<MultiplexedConnection>,
    /// Counts the connections to masters. If many calls fail on one connection, only the first of these calls drops it.
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
    pub(super) replicas: u16,
    pub(super) timeout: Duration,
}

/// The answer to a command. It includes the number of replicas that confirmed the command, if the command waited for
/// replicas.
pub(super) type Answer = RedisResult<(Value, Option<i64>)>;

impl Connection {
    pub(crate) fn sentinel(client: SentinelClient, config: redis::AsyncConnectionConfig) -> Self {
        Self(Kind::Sentinel(Arc::new(Mutex::new(Sentinel {
            client,
            config,
            master: None,
            generation: 0,
        }))))
    }

    pub(crate) async fn cluster(client: ClusterClient, time: Duration) -> RedisResult<Self> {
        let connection = client.get_async_connection().await?;
        Ok(Self::with_cluster(Some((client, time)), connection))
    }

    fn with_cluster(
        client: Option<(ClusterClient, Duration)>,
        connection: ClusterConnection,
    ) -> Self {
        let current = Current {
            connection,
            generation: 0,
            is_replaced: false,
        };
        Self(Kind::Cluster(Arc::new(Cluster {
            client,
            current: std::sync::Mutex::new(current),
        })))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(_))
    }

    /// Runs each command once. On a single node, the commands run in the given order.
    ///
    /// The future is boxed because the futures of the driver are nested too deeply for the compiler.
    pub(super) fn try_once<'a>(
        &'a self,
        calls: &'a [&'a Command],
        wait: Option<Wait>,
    ) -> BoxFuture<'a, Vec<Answer>> {
        async move { self.try_once_inner(calls, wait).await }.boxed()
    }

    async fn try_once_inner(&self, calls: &[&Command], wait: Option<Wait>) -> Vec<Answer> {
        match &self.0 {
            Kind::Node(connection) => {
                let mut connection = connection.clone();
                if let ([call], None) = (calls, wait) {
                    return vec![
                        connection
                            .send_packed_command(&call.cmd)
                            .await
                            .map(|value| (value, None)),
                    ];
                }
                let pipeline = pipeline(calls, wait);
                let answers = connection
                    .send_packed_commands(&pipeline, 0, pipeline.len())
                    .await;
                spread(answers, calls.len(), wait)
            }
            Kind::Sentinel(sentinel) => {
                let (mut connection, generation) = match master(sentinel).await {
                    Ok(master) => master,
                    Err(error) => return vec![Err(error); calls.len()],
                };
                let pipeline = pipeline(calls, wait);
                let answers = connection
                    .send_packed_commands(&pipeline, 0, pipeline.len())
                    .await;
                let answers = spread(answers, calls.len(), wait);
                if answers
                    .iter()
                    .any(|answer| answer.as_ref().is_err_and(error::is_transient))
                {
                    lose_master(sentinel, generation).await;
                }
                answers
            }
            Kind::Cluster(cluster) => {
                let (connection, generation) = cluster.current();
                let answers = join_all(
                    calls
                        .iter()
                        .map(|call| on_cluster(connection.clone(), call, wait)),
                )
                .await;
                if answers
                    .iter()
                    .any(|answer| answer.as_ref().is_err_and(RedisError::is_timeout))
                {
                    cluster.replace(generation);
                }
                answers
            }
        }
    }

    /// Makes the next command ask the Sentinels for the master, unless another command is asking them now.
    pub(super) fn rediscover_master(&self) {
        if let Kind::Sentinel(sentinel) = &self.0
            && let Ok(mut sentinel) = sentinel.try_lock()
        {
            sentinel.master = None;
        }
    }

    /// Runs a command on every master.
    pub(crate) fn on_masters(&self, cmd: Cmd) -> BoxFuture<'_, Result<Vec<Value>, Error>> {
        async move { self.on_masters_inner(cmd).await }.boxed()
    }

    async fn on_masters_inner(&self, cmd: Cmd) -> Result<Vec<Value>, Error> {
        use redis::cluster_routing::MultipleNodeRoutingInfo::AllMasters;
        match &self.0 {
            Kind::Cluster(cluster) => {
                let routing = RoutingInfo::MultiNode((AllMasters, None));
                match cluster.current().0.route_command(cmd, routing).await? {
                    Value::Map(by_node) => {
                        Ok(by_node.into_iter().map(|(_, value)| value).collect())
                    }
                    value => Ok(vec![value]),
                }
            }
            _ => {
                let call = Command::anywhere(cmd);
                let mut answers = Vec::new();
                for answer in self.try_once(&[&call], None).await {
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

    /// Opens a new connection in the background, unless another call has done so or is doing so.
    fn replace(self: &Arc<Self>, generation: u64) {
        let Some((client, time)) = self.client.clone() else {
            return;
        };
        {
            let mut current = self.lock();
            if current.generation != generation || current.is_replaced {
                return;
            }
            current.is_replaced = true;
        }
        let cluster = Arc::clone(self);
        let replacing = async move {
            let connected = timeout(time, client.get_async_connection()).await;
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

fn pipeline(calls: &[&Command], wait: Option<Wait>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(calls.len() + 1);
    for call in calls {
        pipeline.add_command(call.cmd.clone());
    }
    if let Some(Wait { replicas, timeout }) = wait {
        // With a timeout of 0, the server would wait forever.
        pipeline
            .cmd("WAIT")
            .arg(replicas)
            .arg(timeout.as_millis().max(1) as u64);
    }
    pipeline
}

/// Splits the answers to a pipeline into one for each command. The last answer of the pipeline is the number of replicas
/// that confirmed it. Each command gets this number.
fn spread(answers: RedisResult<Vec<Value>>, calls: usize, wait: Option<Wait>) -> Vec<Answer> {
    let mut answers = match answers {
        Ok(answers) => answers,
        Err(error) => return vec![Err(error); calls],
    };
    let confirmed = match wait
        .and_then(|_| answers.pop())
        .map(Value::extract_error)
        .transpose()
    {
        Ok(confirmed) => confirmed.and_then(|value| redis::from_redis_value(value).ok()),
        Err(error) => return vec![Err(error); calls],
    };
    answers
        .into_iter()
        .map(|value| Ok((value, confirmed)))
        .collect()
}

async fn on_cluster(
    mut connection: ClusterConnection,
    call: &Command,
    wait: Option<Wait>,
) -> Answer {
    let node = match &call.route {
        For::Key(key) => {
            SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master))
        }
        For::Slot(slot) => SingleNodeRoutingInfo::SpecificNode(Route::new(*slot, SlotAddr::Master)),
        For::Any => SingleNodeRoutingInfo::RandomPrimary,
    };
    if wait.is_none() {
        let answer = connection
            .route_command(call.cmd.clone(), RoutingInfo::SingleNode(node))
            .await;
        return answer.map(|value| (value, None));
    }
    let pipeline = pipeline(&[call], wait);
    let count = pipeline.len();
    let answers = connection.route_pipeline(pipeline, 0, count, node).await;
    spread(answers, 1, wait)
        .pop()
        .unwrap_or_else(|| Ok((Value::Nil, None)))
}

async fn master(sentinel: &Mutex<Sentinel>) -> RedisResult<(MultiplexedConnection, u64)> {
    let mut sentinel = sentinel.lock().await;
    let Sentinel {
        client,
        config,
        master,
        generation,
    } = &mut *sentinel;
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
