use std::sync::Arc;

use passkit_server::store::{StoreError, clock};

use crate::{
    config::Config,
    dirty::DirtyBuckets,
    engine::{self, Address, Command, Connection, Runner, one, read, scripts},
    error::Error,
    layout::{FORMAT, Keys},
};

/// A store in Redis. It implements [`RegistrationStore`](passkit_server::store::RegistrationStore),
/// [`PushQueue`](passkit_server::push::PushQueue), [`Coordination`](passkit_server::store::Coordination) and
/// [`StoreMaintenance`](passkit_server::maintenance::StoreMaintenance). Cloning is cheap. Clones share their connections.
///
/// # Cancel safety
/// If a call that writes in several steps is dropped, it runs to its end in the background.
///
/// # Errors
/// During a failover, the store retries a call for [`call_timeout`](Config::call_timeout). After that time, the call fails as
/// [`Unavailable`](passkit_server::store::StoreErrorKind::Unavailable). If a
/// [`mark`](passkit_server::store::RegistrationStore::mark) fails, some of its passes may be marked. The source of each error
/// is an [`Error`].
#[derive(Clone, Debug)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runner: Runner,
    pub(crate) keys: Keys,
    /// The date of a pass that was never marked, in seconds.
    pub(crate) created: u64,
    pub(crate) dirty: DirtyBuckets,
}

impl RedisStore {
    /// Connects, checks the server, and opens the store. Makes the store if there is none.
    ///
    /// * `redis://[user:password@]host[:port][/database]`: one node
    /// * `redis+cluster://[user:password@]host:port,host:port`: a Cluster. One reachable node is enough.
    /// * `redis+sentinel://[user:password@]host:port,host:port/mastername[/database]`: the current master of these
    ///   Sentinels. User and password are the ones for the master, not for the Sentinels.
    ///
    /// With the feature `tls`, `rediss` in place of `redis` uses TLS.
    ///
    /// # Errors
    /// * [`Configuration`](passkit_server::store::StoreErrorKind::Configuration) if the URL is wrong; if the server refuses
    ///   the user, the password, the database or a command; if the server runs in another mode than the URL says, or may evict
    ///   keys; or if the store has another format or number of buckets.
    /// * [`Unavailable`](passkit_server::store::StoreErrorKind::Unavailable) if the server can't be reached.
    pub async fn connect(url: &str, config: Config) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let opening = async {
            let runner = engine::connect(&address, &config).await?;
            open(runner, &config).await
        };
        let shared = opening.await.map_err(|error| address.explain(error))?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Opens the store over a connection of your own. The timeouts of the connection apply. If `min_replicas` is above 0, use
    /// the connection for nothing else, because each change makes later commands on the connection wait for replicas too.
    ///
    /// # Errors
    /// Same errors as [`connect`](Self::connect).
    pub async fn new(
        connection: impl Into<Connection>,
        config: Config,
    ) -> Result<Self, StoreError> {
        let runner = Runner::new(connection.into(), Vec::new(), &config);
        Ok(Self {
            shared: Arc::new(open(runner, &config).await?),
        })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Runs `work` to its end, even if the caller drops the future.
    pub(crate) async fn run_to_completion<T, F>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match tokio::spawn(work(Arc::clone(&self.shared))).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Error::runtime_ended().into()),
        }
    }
}

/// Checks the server and opens the store. Makes the store if there is none.
async fn open(runner: Runner, config: &Config) -> Result<Shared, Error> {
    let prefix = &config.prefix;
    if prefix.is_empty()
        || !prefix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":._-".contains(&b))
    {
        return Err(Error::configuration(
            "the prefix of the keys must be letters, digits, and any of \":._-\", and must not be empty",
        ));
    }
    if config
        .buckets
        .is_some_and(|buckets| !(1..=4_096).contains(&buckets))
    {
        return Err(Error::configuration(
            "the number of buckets must be 1 to 4,096",
        ));
    }
    check(&runner, config).await?;

    let key = Keys::store(prefix);
    // This script changes nothing. The call fails if the user may not run scripts.
    runner
        .read(vec![Command::script(&scripts::INDEX_REMOVE, key.clone())])
        .await?;
    let now = clock::now_micros() / 1_000_000;
    let set = |field, value: u64| Command::plain("HSETNX", key.clone()).arg(field).arg(value);
    runner
        .write(vec![
            set("format", FORMAT),
            set("created", now),
            set("buckets", u64::from(config.buckets.unwrap_or(64))),
        ])
        .await?;
    let get = Command::plain("HMGET", key).arg(&["format", "created", "buckets"]);
    let (format, created, buckets): (u64, u64, u64) =
        read(one(runner.read(vec![get]).await?), "description")?;
    if format != FORMAT {
        return Err(Error::configuration(format!(
            "the store {prefix:?} has format {format}, and this version reads format {FORMAT}; use the version that made it"
        )));
    }
    if config
        .buckets
        .is_some_and(|number| u64::from(number) != buckets)
        || buckets == 0
    {
        return Err(Error::configuration(format!(
            "the store {prefix:?} has {buckets} buckets, which can't be changed; leave the number out"
        )));
    }
    let keys = Keys {
        prefix: prefix.clone(),
        buckets,
    };
    Ok(Shared {
        runner,
        keys,
        created,
        dirty: DirtyBuckets::default(),
    })
}

/// Refuses settings that would lose data, and logs a warning about settings that may lose data.
async fn check(runner: &Runner, config: &Config) -> Result<(), Error> {
    let connection = runner.connection();
    runner
        .read(vec![Command::anywhere(redis::cmd("PING"))])
        .await?;
    for info in connection.on_masters(redis::cmd("INFO")).await? {
        let info: String = read(info, "server's INFO")?;
        let value = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        if let Some(policy) = value("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            return Err(Error::configuration(format!(
                "Redis evicts keys (maxmemory-policy {policy}), which loses registrations; set it to noeviction"
            )));
        }
        if value("cluster_enabled") == Some("1") && !connection.is_cluster() {
            return Err(Error::configuration(
                "the server is part of a Cluster; use a redis+cluster:// URL, or a connection to the Cluster",
            ));
        }
        if value("role") == Some("slave") {
            return Err(Error::configuration(
                "the server is a replica; use the address of its master, or a redis+sentinel:// URL",
            ));
        }
        let replicas = value("connected_slaves")
            .and_then(|n| n.parse::<u16>().ok())
            .unwrap_or(0);
        if replicas < config.min_replicas {
            tracing::warn!(
                replicas,
                needed = config.min_replicas,
                "a Redis master has fewer replicas than min_replicas, so changes will fail"
            );
        }
        if replicas == 0 && value("aof_enabled") != Some("1") {
            tracing::warn!(
                "Redis has neither an append-only file nor replicas: acknowledged changes are lost when it stops"
            );
        }
    }
    Ok(())
}
