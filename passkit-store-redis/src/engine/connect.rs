//! Reads addresses and connects to them.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use redis::{
    IntoConnectionInfo as _, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    io::tcp::TcpSettings,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};

use super::{connection::Connection, runner::Runner, tls};
use crate::{config::Config, error::Error};

/// How many changes can wait for replicas at the same time.
const WRITERS: usize = 8;

/// The address of a store: the kind of servers, and the URLs of the nodes.
#[derive(Debug, PartialEq)]
pub(crate) struct Address {
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
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong =
            |what: &str| Error::configuration(format!("the Redis URL {what}; it may be {SCHEMES}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme"))?;
        let (base, mode) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(base, "redis" | "rediss") || !matches!(mode, "" | "cluster" | "sentinel") {
            return Err(wrong("has an unknown scheme"));
        }
        if base == "rediss" && cfg!(not(feature = "tls")) {
            return Err(Error::configuration(
                "a rediss URL needs the feature \"tls\" of passkit-store-redis",
            ));
        }
        if mode.is_empty() {
            return Ok(Self {
                mode: Mode::Node,
                nodes: vec![url.to_owned()],
            });
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or((String::new(), authority), |(u, h)| (format!("{u}@"), h));
        if hosts.split(',').any(str::is_empty) {
            return Err(wrong("has no host, or an empty one"));
        }
        let mut path = path.to_owned();
        let mode = if mode == "cluster" {
            Mode::Cluster
        } else {
            let (master, database) = path.split_once('/').unwrap_or((&path, ""));
            let master = master.to_owned();
            if master.is_empty() {
                return Err(wrong("lacks the name of the master"));
            }
            path = database.to_owned();
            Mode::Sentinel { master }
        };
        let nodes = hosts
            .split(',')
            .map(|host| format!("{base}://{user}{host}/{path}"))
            .collect();
        Ok(Self { mode, nodes })
    }
}

/// Connects to the servers. If changes wait for replicas, opens several connections.
pub(crate) async fn connect(address: &Address, config: &Config) -> Result<Runner, Error> {
    tls::prepare(address.is_tls(), config)?;
    let connection = within(config, address.connection(config)).await?;
    let count = if config.min_replicas > 0 { WRITERS } else { 0 };
    let mut writers = Vec::new();
    for _ in 0..count {
        writers.push(within(config, address.connection(config)).await?);
    }
    Ok(Runner::new(connection, writers, config))
}

async fn within<T>(
    config: &Config,
    connecting: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(config.call_timeout, connecting).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::timeout()),
    }
}

impl Address {
    /// Adds the hosts to an error. If the cause may be the set-up of TLS, also adds advice.
    pub(crate) fn explain(&self, error: Error) -> Error {
        tls::advise(error, self.is_tls()).within(format_args!("Redis at {}", self.hosts()))
    }

    /// Returns the hosts, without user and password.
    fn hosts(&self) -> String {
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

    fn connection<'a>(
        &'a self,
        config: &'a Config,
    ) -> BoxFuture<'a, Result<Connection, RedisError>> {
        async move { self.connection_inner(config).await }.boxed()
    }

    async fn connection_inner(&self, config: &Config) -> Result<Connection, RedisError> {
        // The server may wait for replicas before it answers.
        let response = config.response_timeout
            + if config.min_replicas > 0 {
                config.replica_timeout
            } else {
                Duration::ZERO
            };
        match &self.mode {
            Mode::Node => {
                let node = self.nodes[0]
                    .as_str()
                    .into_connection_info()?
                    .set_tcp_settings(tcp(config));
                let client = tls::client(node, config)?;
                let manager = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(response))
                    .set_connection_timeout(Some(config.response_timeout))
                    .set_min_delay(Duration::from_millis(20))
                    .set_max_delay(Duration::from_millis(200))
                    .set_number_of_retries(1)
                    .set_pipeline_buffer_size(1_000);
                Ok(ConnectionManager::new_with_config(client, manager)
                    .await?
                    .into())
            }
            Mode::Cluster => {
                let builder = ClusterClientBuilder::new(self.nodes.iter().map(String::as_str));
                let client = tls::for_cluster(builder, config)
                    .tcp_settings(tcp(config))
                    .connection_timeout(config.response_timeout)
                    .response_timeout(response)
                    // This limit leaves time for a retry if the driver is stuck.
                    .overall_response_timeout(Some(
                        (response * 3 / 2).min(config.call_timeout * 3 / 4),
                    ))
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
                let addresses = sentinels
                    .iter()
                    .map(|node| node.addr().clone())
                    .collect::<Vec<_>>();
                let mut builder =
                    SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
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

/// Closes a connection if the other side acknowledges nothing for [`Config::call_timeout`]. Without this, the store would keep
/// waiting for a machine that lost its power, because such a machine sends no error.
fn tcp(config: &Config) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(config.call_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = config;
    settings
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
        assert_eq!(cluster.hosts(), "a:1,b:2");
        let sentinel = address("redis+sentinel://:p@a:1,b:2/main/3");
        assert_eq!(
            sentinel.mode,
            Mode::Sentinel {
                master: "main".into()
            }
        );
        assert_eq!(sentinel.nodes, ["redis://:p@a:1/3", "redis://:p@b:2/3"]);
    }

    #[test]
    fn wrong_addresses_are_reported_in_one_line_without_the_password() {
        for url in [
            "localhost",
            "http://u:secret@h",
            "redis+x://h",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+sentinel://a:1",
        ] {
            let error = Address::parse(url).unwrap_err();
            let text = error.to_string();
            assert!(!text.contains('\n') && !text.contains("secret"), "{text}");
            assert_eq!(
                error.kind(),
                passkit_server::store::StoreErrorKind::Configuration
            );
        }
    }
}
