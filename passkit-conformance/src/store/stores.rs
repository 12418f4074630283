use std::{fmt, sync::Arc};

use async_trait::async_trait;
use passkit_server::{
    delivery::DeliveryLog,
    maintenance::StoreMaintenance,
    push::PushQueue,
    store::{Coordination, RegistrationStore},
};

use super::{
    limited::{Limited, Watch},
    spread::Spread,
};
use crate::Stop;

/// Any error. Reports show its text.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens a store for each case. An async closure that returns an `Arc` of a store, or a
/// [`TestStore`], implements this trait.
///
/// ```
/// # use std::sync::Arc;
/// # use passkit_conformance::store::{BoxError, Stores, TestStore};
/// # use passkit_server::{async_trait, store::MemoryStore};
/// # struct MyStore;
/// # impl MyStore {
/// #     async fn open(_: &str) -> Result<Arc<MemoryStore>, BoxError> { Ok(Arc::new(MemoryStore::new())) }
/// # }
/// struct Folders;
///
/// #[async_trait]
/// impl Stores for Folders {
///     type Place = String;
///
///     async fn open(&self) -> Result<(TestStore, String), BoxError> {
///         let folder = "a new one".to_owned();
///         Ok((TestStore::with_all(MyStore::open(&folder).await?), folder))
///     }
///
///     async fn reopen(&self, folder: &String) -> Option<Result<TestStore, BoxError>> {
///         Some(MyStore::open(folder).await.map(TestStore::with_all))
///     }
/// }
/// ```
#[async_trait]
pub trait Stores: Send + Sync {
    /// The place of a store's data, such as a folder or an address. Use `()` if the data can't be
    /// opened again.
    ///
    /// The place is dropped at the end of a case, after the store. A temporary folder may therefore
    /// remove itself then.
    type Place: Send + Sync + 'static;

    /// Opens a store to test, and returns it with the place of its data. All cases may use the same
    /// store, because they don't disturb each other. Only the cases of [`StoreMaintenance`] need an
    /// empty store.
    async fn open(&self) -> Result<(TestStore, Self::Place), BoxError>;

    /// Opens the data as they are now, as if the process of the store had been killed. Changes that
    /// the store has not acknowledged may be missing. The first store is still open. If it locks
    /// its files, copy the files. A case may call this method several times. Each call opens the
    /// data as they are at the time of the call. If this method returns `None`, the cases that need
    /// it are skipped.
    async fn reopen(&self, place: &Self::Place) -> Option<Result<TestStore, BoxError>> {
        let _ = place;
        None
    }
}

#[async_trait]
impl<F, R> Stores for F
where
    F: Fn() -> R + Send + Sync,
    R: Future<Output: Into<TestStore>> + Send,
{
    type Place = ();

    async fn open(&self) -> Result<(TestStore, ()), BoxError> {
        Ok((self().await.into(), ()))
    }
}

/// A store to test, with the traits that it implements. The cases of other traits are skipped.
#[derive(Clone)]
pub struct TestStore {
    registrations: Arc<dyn RegistrationStore>,
    coordination: Option<Arc<dyn Coordination>>,
    queue: Option<Arc<dyn PushQueue>>,
    maintenance: Option<Arc<dyn StoreMaintenance>>,
    delivery: Option<Arc<dyn DeliveryLog>>,
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestStore")
            .field("coordination", &self.coordination.is_some())
            .field("queue", &self.queue.is_some())
            .field("maintenance", &self.maintenance.is_some())
            .field("delivery", &self.delivery.is_some())
            .finish_non_exhaustive()
    }
}

impl TestStore {
    /// Makes a test store that implements only [`RegistrationStore`].
    #[must_use]
    pub fn new<S: RegistrationStore + ?Sized + 'static>(store: Arc<S>) -> Self {
        Self {
            registrations: Arc::new(store),
            coordination: None,
            queue: None,
            maintenance: None,
            delivery: None,
        }
    }

    /// Makes a test store that implements all traits.
    #[must_use]
    pub fn with_all<S: PushQueue + StoreMaintenance + 'static>(store: Arc<S>) -> Self {
        Self::new(store.clone())
            .with_queue(store.clone())
            .with_maintenance(store)
    }

    /// Adds [`Coordination`].
    #[must_use]
    pub fn with_coordination<S: Coordination + 'static>(self, store: Arc<S>) -> Self {
        Self {
            coordination: Some(store),
            ..self
        }
    }

    /// Adds [`PushQueue`] and also [`Coordination`], because every push queue implements it.
    #[must_use]
    pub fn with_queue<S: PushQueue + 'static>(self, store: Arc<S>) -> Self {
        Self {
            coordination: Some(store.clone()),
            queue: Some(store),
            ..self
        }
    }

    /// Adds [`StoreMaintenance`].
    #[must_use]
    pub fn with_maintenance<S: StoreMaintenance + 'static>(self, store: Arc<S>) -> Self {
        Self {
            maintenance: Some(store),
            ..self
        }
    }

    /// Adds [`DeliveryLog`].
    #[must_use]
    pub fn with_delivery<S: DeliveryLog + 'static>(self, store: Arc<S>) -> Self {
        Self {
            delivery: Some(store),
            ..self
        }
    }
}

impl TestStore {
    /// Makes a test store from several instances that share their data. Each call goes to the next
    /// instance, as behind a load balancer. The store has the traits that all instances have.
    ///
    /// Use this for a store that several processes share. Give each instance a separate connection.
    #[must_use]
    pub fn spread(first: Self, others: Vec<Self>) -> Self {
        fn all<T: ?Sized>(
            first: Option<Arc<T>>,
            others: impl Iterator<Item = Option<Arc<T>>>,
        ) -> Option<Arc<Spread<T>>> {
            Some(Spread::new(first?, others.collect::<Option<_>>()?))
        }
        Self {
            coordination: all(
                first.coordination,
                others.iter().map(|one| one.coordination.clone()),
            )
            .map(|store| store as _),
            queue: all(first.queue, others.iter().map(|one| one.queue.clone()))
                .map(|store| store as _),
            maintenance: all(
                first.maintenance,
                others.iter().map(|one| one.maintenance.clone()),
            )
            .map(|store| store as _),
            delivery: all(
                first.delivery,
                others.iter().map(|one| one.delivery.clone()),
            )
            .map(|store| store as _),
            registrations: Spread::new(
                first.registrations,
                others.into_iter().map(|one| one.registrations).collect(),
            ),
        }
    }

    /// Returns the same store with a time limit for each call.
    fn watched(self, watch: &Arc<Watch>) -> Self {
        Self {
            registrations: Limited::new(watch, self.registrations),
            coordination: self
                .coordination
                .map(|store| Limited::new(watch, store) as _),
            queue: self.queue.map(|store| Limited::new(watch, store) as _),
            maintenance: self
                .maintenance
                .map(|store| Limited::new(watch, store) as _),
            delivery: self.delivery.map(|store| Limited::new(watch, store) as _),
        }
    }
}

impl<S: RegistrationStore + ?Sized + 'static> From<Arc<S>> for TestStore {
    fn from(store: Arc<S>) -> Self {
        Self::new(store)
    }
}

/// [`Stores`] as a trait object, so that the cases are compiled only once.
#[async_trait]
pub(super) trait AnyStores: Send + Sync {
    async fn open(self: Arc<Self>) -> Result<Opened, BoxError>;
}

#[async_trait]
impl<S: Stores + 'static> AnyStores for S {
    async fn open(self: Arc<Self>) -> Result<Opened, BoxError> {
        let (store, place) = Stores::open(&*self).await?;
        Ok(Opened {
            store,
            place: Arc::new(Placed {
                stores: self,
                place,
            }),
            watch: None,
        })
    }
}

/// A store for one case.
pub(super) struct Opened {
    // The store is dropped before the place.
    store: TestStore,
    place: Arc<dyn AnyPlace>,
    watch: Option<Arc<Watch>>,
}

#[async_trait]
trait AnyPlace: Send + Sync {
    async fn reopen(&self) -> Option<Result<TestStore, BoxError>>;
}

struct Placed<S: Stores> {
    stores: Arc<S>,
    place: S::Place,
}

#[async_trait]
impl<S: Stores + 'static> AnyPlace for Placed<S> {
    async fn reopen(&self) -> Option<Result<TestStore, BoxError>> {
        self.stores.reopen(&self.place).await
    }
}

impl Opened {
    /// Returns the same store with a time limit for each call, even after the data are opened
    /// again.
    pub(super) fn watched(self, watch: &Arc<Watch>) -> Self {
        Self {
            store: self.store.watched(watch),
            watch: Some(watch.clone()),
            ..self
        }
    }

    /// Delays each later call a little, before and after the store makes it.
    pub(super) fn delay_calls(&self) {
        if let Some(watch) = &self.watch {
            watch.delay_calls();
        }
    }

    pub(super) fn registrations(&self) -> &Arc<dyn RegistrationStore> {
        &self.store.registrations
    }

    pub(super) fn coordination(&self) -> Result<&Arc<dyn Coordination>, Stop> {
        self.store
            .coordination
            .as_ref()
            .ok_or_else(|| lacks("Coordination", "with_coordination"))
    }

    pub(super) fn queue(&self) -> Result<&Arc<dyn PushQueue>, Stop> {
        self.store
            .queue
            .as_ref()
            .ok_or_else(|| lacks("PushQueue", "with_queue"))
    }

    pub(super) fn maintenance(&self) -> Result<&Arc<dyn StoreMaintenance>, Stop> {
        self.store
            .maintenance
            .as_ref()
            .ok_or_else(|| lacks("StoreMaintenance", "with_maintenance"))
    }

    pub(super) fn delivery(&self) -> Result<&Arc<dyn DeliveryLog>, Stop> {
        self.store
            .delivery
            .as_ref()
            .ok_or_else(|| lacks("DeliveryLog", "with_delivery"))
    }

    /// Opens the data as they are now, while the first store stays open.
    pub(super) async fn reopen(&self) -> Result<Self, Stop> {
        const LACKING: &str = "Stores::reopen returns None: implement it if the data outlive the process of the store";
        let store = self
            .place
            .reopen()
            .await
            .ok_or_else(|| Stop::Skip(LACKING.into()))?;
        let opened = Self {
            store: store.map_err(not_opened)?,
            place: self.place.clone(),
            watch: None,
        };
        Ok(match &self.watch {
            Some(watch) => opened.watched(watch),
            None => opened,
        })
    }
}

fn lacks(name: &str, method: &str) -> Stop {
    Stop::Skip(format!(
        "the store has no {name}: if it implements the trait, call TestStore::{method}"
    ))
}

pub(super) fn not_opened(error: BoxError) -> Stop {
    Stop::Error(format!("the store can't be opened: {error}"))
}
