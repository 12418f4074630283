use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, PushToken, Registered,
    Registration, RegistrationStore, SerialNumber, StoreError, TypeIdentifier, UpdateTag, clock,
};

use crate::{
    config::Config,
    connect::{self, Meta},
    connection::{Connection, Runner},
    error::Failure,
    keys::Keys,
    queue::Notes,
};

/// A [`RegistrationStore`] in Redis, which remembers owed pushes as well. Cheap to clone; clones share their connections.
///
/// # Cancel safety
/// A call that writes goes on when it is dropped, and so ends in one of the two states.
///
/// # Errors
/// While a server is away, or another takes over, calls go on trying for
/// [`call_timeout`](Config::call_timeout), then fail as [`Unavailable`](passkit_server::StoreErrorKind::Unavailable).
/// A [`mark_updated`](RegistrationStore::mark_updated) that failed may have marked some of its passes.
#[derive(Clone, Debug)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) runner: Runner,
    pub(crate) keys: Keys,
    /// The date of a pass that was never marked.
    pub(crate) created: u64,
    pub(crate) notes: Notes,
}

impl RedisStore {
    /// Connects, checks the server, and makes the store or finds it.
    ///
    /// * `redis://[user:password@]host[:port][/database]`: one node
    /// * `redis+cluster://[user:password@]host:port,host:port`: a Cluster, found from any of these nodes
    /// * `redis+sentinel://[user:password@]host:port,host:port/mastername[/database]`: the master that the Sentinels
    ///   name; user and password are those of the master
    ///
    /// With `rediss` for `redis` the same over TLS, where the feature `tls` is on.
    ///
    /// # Errors
    /// [`Configuration`](passkit_server::StoreErrorKind::Configuration) if the URL is wrong, the server refuses the
    /// user, the password, the database or a command, is of another mode than the URL says, may evict keys, or holds a
    /// store of another format or number of buckets; [`Unavailable`](passkit_server::StoreErrorKind::Unavailable) if
    /// it can't be reached.
    pub async fn connect(url: &str, config: Config) -> Result<Self, StoreError> {
        let (runner, meta) = connect::connect(url, &config).await?;
        Ok(Self::with(runner, meta))
    }

    /// Over a connection of your own, with its time-outs. Where `config` waits for replicas give it a connection that
    /// nothing else uses: everything behind a change on it waits as well.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn new(connection: impl Into<Connection>, config: Config) -> Result<Self, StoreError> {
        let runner = Runner::new(connection.into(), Vec::new(), &config);
        let meta = connect::open(&runner, &config).await?;
        Ok(Self::with(runner, meta))
    }

    fn with(runner: Runner, Meta { keys, created }: Meta) -> Self {
        Self { inner: Arc::new(Inner { runner, keys, created, notes: Notes::default() }) }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Does something that goes on when the caller gives up.
    pub(crate) async fn whole<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        match tokio::spawn(work(Arc::clone(&self.inner))).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Failure::stopped().into()),
        }
    }
}

#[async_trait]
impl RegistrationStore for RedisStore {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let one = Registration { device: device.clone(), push_token: push_token.clone(), pass: pass.clone() };
        let created = self.whole(|inner| async move { inner.register(&[one]).await }).await?;
        Ok(if created == [true] { Registered::Created } else { Registered::Existing })
    }

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        let (device, pass) = (device.clone(), pass.clone());
        self.whole(|inner| async move { inner.unregister(&device, &pass).await }).await
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        Ok(self.inner.updated_since(device, type_id, since).await?)
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        if serials.is_empty() {
            return Ok(());
        }
        let (type_id, serials) = (type_id.clone(), serials.to_vec());
        self.whole(|inner| async move { inner.mark(&type_id, &serials, false).await }).await
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let type_id = type_id.clone();
        self.whole(|inner| async move { inner.mark_all(&type_id).await }).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        Ok(self.inner.pass_state(pass).await?)
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        Ok(self.inner.devices_of(pass, after, limit).await?)
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let (device, unregistered_at) = (device.clone(), clock::micros(unregistered_at));
        self.whole(|inner| async move { inner.forget(&device, unregistered_at).await }).await
    }
}
