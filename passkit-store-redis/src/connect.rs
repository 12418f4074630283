//! Addresses, and what is checked of a server before it is used.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use passkit_server::clock;
use redis::{
    IntoConnectionInfo as _, RedisError, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use crate::{
    config::Config,
    connection::{Call, Connection, Runner},
    error::Failure,
    keys::{self, Keys},
    scripts, tls,
};

/// How many changes wait for replicas at the same time.
const WRITERS: usize = 8;

/// What to connect to: the URLs of the nodes, and what Sentinel calls the master.
#[derive(Debug, PartialEq)]
struct Address {
    mode: Mode,
    nodes: Vec<String>,
}

#[derive(Debug, PartialEq)]
enum Mode {
    Node,
    Cluster,
    Sentinel { master: String },
}

const SCHEMES: &str = "redis://host:port, redis+cluster://host:port,host:port and \
    redis+sentinel://host:port,host:port/mastername, or the same with rediss for TLS";

impl Address {
    fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::configuration(format!("the Redis URL {what}; it may be {SCHEMES}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let (base, mode) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(base, "redis" | "rediss") || !matches!(mode, "" | "cluster" | "sentinel") {
            return Err(wrong("has an unknown scheme"));
        }
        if base == "rediss" && cfg!(not(feature = "tls")) {
            return Err(Failure::configuration(
                "a rediss URL needs the feature \"tls\" of passkit-store-redis",
            ));
        }
        if mode.is_empty() {
            return Ok(Self { mode: Mode::Node, nodes: vec![url.to_owned()] });
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) =
            authority.rsplit_once('@').map_or((String::new(), authority), |(u, h)| (format!("{u}@"), h));
        if hosts.split(',').any(str::is_empty) {
            return Err(wrong("names no host, or an empty one"));
        }
        let mut path = path.to_owned();
        let mode = if mode == "cluster" {
            Mode::Cluster
        } else {
            let (master, database) = path.split_once('/').unwrap_or((&path, ""));
            let master = master.to_owned();
            if master.is_empty() {
                return Err(wrong("does not say what Sentinel calls the master"));
            }
            path = database.to_owned();
            Mode::Sentinel { master }
        };
        let nodes = hosts.split(',').map(|host| format!("{base}://{user}{host}/{path}")).collect();
        Ok(Self { mode, nodes })
    }
}

/// Connects, and opens the store.
pub(crate) async fn connect(url: &str, config: &Config) -> Result<(Runner, Meta), Failure> {
    let address = Address::parse(url)?;
    tls::prepare(address.is_tls(), config)?;

    let count = if config.min_replicas > 0 { WRITERS } else { 0 };
    let hosts = address.shown();
    let about =
        |failure: Failure| tls::advise(failure, address.is_tls()).within(format_args!("Redis at {hosts}"));
    let connection = within(config, address.connection(config)).await.map_err(about)?;
    let mut writers = Vec::new();
    for _ in 0..count {
        writers.push(within(config, address.connection(config)).await.map_err(about)?);
    }
    let runner = Runner::new(connection, writers, config);
    let meta = open(&runner, config).await.map_err(about)?;
    Ok((runner, meta))
}

async fn within<T>(
    config: &Config,
    connecting: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(config.call_timeout, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Failure::timeout()),
    }
}

impl Address {
    /// The hosts, without what stands before them.
    fn shown(&self) -> String {
        let hosts = self.nodes.iter().filter_map(|node| {
            let rest = node.split_once("://")?.1;
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            rest.split(['/', '?', '#']).next()
        });
        hosts.collect::<Vec<_>>().join(",")
    }

    fn is_tls(&self) -> bool {
        self.nodes[0].starts_with("rediss")
    }

    fn connection<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<Connection, RedisError>> {
        async move { self.connection_inner(config).await }.boxed()
    }

    async fn connection_inner(&self, config: &Config) -> Result<Connection, RedisError> {
        // A command may wait for replicas before it answers.
        let response = config.response_timeout
            + if config.min_replicas > 0 { config.replica_timeout } else { Duration::ZERO };
        match &self.mode {
            Mode::Node => {
                let node = self.nodes[0].as_str().into_connection_info()?.set_tcp_settings(tcp(config));
                let client = tls::client(node, config)?;
                let manager = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(response))
                    .set_connection_timeout(Some(config.response_timeout))
                    .set_min_delay(Duration::from_millis(20))
                    .set_max_delay(Duration::from_millis(200))
                    .set_number_of_retries(1)
                    .set_pipeline_buffer_size(1_000);
                Ok(ConnectionManager::new_with_config(client, manager).await?.into())
            }
            Mode::Cluster => {
                let builder = ClusterClientBuilder::new(self.nodes.iter().map(String::as_str));
                let client = tls::for_cluster(builder, config)
                    .tcp_settings(tcp(config))
                    .connection_timeout(config.response_timeout)
                    .response_timeout(response)
                    // Leaves time for another attempt, should the driver be stuck.
                    .overall_response_timeout(Some((response * 3 / 2).min(config.call_timeout * 3 / 4)))
                    .retries(4)
                    .min_retry_wait(10)
                    .max_retry_wait(100)
                    .build()?;
                Connection::cluster(client, config.call_timeout).await
            }
            Mode::Sentinel { master } => {
                let mut sentinels = Vec::new();
                for node in &self.nodes {
                    sentinels.push(node.as_str().into_connection_info()?);
                }
                let settings = sentinels[0].redis_settings().clone();
                let addresses = sentinels.iter().map(|node| node.addr().clone()).collect::<Vec<_>>();
                let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                    .set_client_to_redis_db(settings.db())
                    .set_client_to_redis_tcp_settings(tcp(config))
                    .set_client_to_sentinel_tcp_settings(tcp(config));
                if let Some(username) = settings.username() {
                    builder = builder.set_client_to_redis_username(username);
                }
                if let Some(password) = settings.password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                if self.is_tls() {
                    builder = tls::for_sentinel(builder, config);
                }
                let connecting = redis::AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(config.response_timeout))
                    .set_response_timeout(Some(response))
                    .set_pipeline_buffer_size(1_000);
                Ok(Connection::sentinel(builder.build()?, connecting))
            }
        }
    }
}

/// A connection is given up when the other side takes nothing for that long: a machine that vanished says no word.
fn tcp(config: &Config) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(config.call_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    settings
}

/// What every store of one prefix agrees on.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) keys: Keys,
    /// When the store was made, in seconds.
    pub(crate) created: u64,
}

/// Checks the server, and makes the store or finds it.
pub(crate) async fn open(runner: &Runner, config: &Config) -> Result<Meta, Failure> {
    let prefix = &config.prefix;
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b":._-".contains(&b)) {
        return Err(Failure::configuration(
            "the prefix of the keys must be letters, digits, and any of \":._-\", and not empty",
        ));
    }
    if config.buckets.is_some_and(|buckets| !(1..=4_096).contains(&buckets)) {
        return Err(Failure::configuration("the number of buckets must be 1 to 4,096"));
    }
    check(runner, config).await?;

    let key = Keys::store(prefix);
    // Changes nothing, but tells whether scripts may run.
    runner.read(vec![Call::script(&scripts::UNHINT, key.clone())]).await?;
    let now = clock::now_micros() / 1_000_000;
    let set = |field, value: u64| Call::plain("HSETNX", key.clone()).arg(field).arg(value);
    runner
        .write(vec![
            set("format", keys::FORMAT),
            set("created", now),
            set("buckets", u64::from(config.buckets.unwrap_or(64))),
        ])
        .await?;
    let get = Call::plain("HMGET", key).arg(&["format", "created", "buckets"]);
    let values = runner.read(vec![get]).await?.into_iter().next().unwrap_or(Value::Nil);
    let (format, created, buckets): (u64, u64, u64) =
        redis::from_redis_value(values).map_err(|_| Failure::unreadable("description"))?;
    if format != keys::FORMAT {
        return Err(Failure::configuration(format!(
            "the store {prefix:?} has format {format}, and this version reads format {}; use the version that wrote it",
            keys::FORMAT
        )));
    }
    if config.buckets.is_some_and(|wanted| u64::from(wanted) != buckets) || buckets == 0 {
        return Err(Failure::configuration(format!(
            "the store {prefix:?} has {buckets} buckets, which can't be changed; leave the number out"
        )));
    }
    Ok(Meta { keys: Keys { prefix: prefix.clone(), buckets }, created })
}

/// Refuses what would lose data, and warns of what may.
async fn check(runner: &Runner, config: &Config) -> Result<(), Failure> {
    let connection = runner.connection();
    runner.read(vec![Call::anywhere(redis::cmd("PING"))]).await?;
    for info in connection.on_masters(redis::cmd("INFO")).await? {
        let info: String = redis::from_redis_value(info).map_err(|_| Failure::unreadable("server's INFO"))?;
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            return Err(Failure::configuration(format!(
                "Redis evicts keys (maxmemory-policy {policy}), which loses registrations; set it to noeviction"
            )));
        }
        if value("cluster_enabled") == Some("1") && !connection.is_cluster() {
            return Err(Failure::configuration(
                "the server is part of a Cluster; use a redis+cluster:// URL, or a connection to the Cluster",
            ));
        }
        if value("role") == Some("slave") {
            return Err(Failure::configuration(
                "the server is a replica; use the address of its master, or a redis+sentinel:// URL",
            ));
        }
        let replicas = value("connected_slaves").and_then(|n| n.parse::<u16>().ok()).unwrap_or(0);
        if replicas < config.min_replicas {
            tracing::warn!(
                replicas,
                wanted = config.min_replicas,
                "a Redis master has fewer replicas than changes wait for; changes will fail"
            );
        }
        if replicas == 0 && value("aof_enabled") != Some("1") {
            tracing::warn!(
                "Redis has neither an append-only file nor replicas: what was acknowledged is lost when it ends"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let address = |url: &str| Address::parse(url).unwrap();
        assert_eq!(address("redis://u:p@h:1/2").nodes, ["redis://u:p@h:1/2"]);
        let cluster = address("redis+cluster://u:p@a:1,b:2");
        assert_eq!(cluster.mode, Mode::Cluster);
        assert_eq!(cluster.nodes, ["redis://u:p@a:1/", "redis://u:p@b:2/"]);
        assert_eq!(cluster.shown(), "a:1,b:2");
        let sentinel = address("redis+sentinel://:p@a:1,b:2/main/3");
        assert_eq!(sentinel.mode, Mode::Sentinel { master: "main".into() });
        assert_eq!(sentinel.nodes, ["redis://:p@a:1/3", "redis://:p@b:2/3"]);
    }

    #[test]
    fn wrong_addresses_are_told_in_one_line_without_the_password() {
        for url in [
            "localhost",
            "http://u:secret@h",
            "redis+x://h",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+sentinel://a:1",
        ] {
            let failure = Address::parse(url).unwrap_err();
            let text = failure.to_string();
            assert!(!text.contains('\n') && !text.contains("secret"), "{text}");
            assert_eq!(failure.kind, passkit_server::StoreErrorKind::Configuration);
        }
    }
}
