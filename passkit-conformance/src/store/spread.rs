//! A store whose calls go to several instances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId, PassState,
    delivery::{DeliveryLog, Record, Subject},
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{
        Audience, Changes, Coordination, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag,
    },
};

use super::limited::calls;

/// Passes each call to the next instance, like a load balancer.
pub(super) struct Spread<T: ?Sized> {
    first: Arc<T>,
    others: Vec<Arc<T>>,
    next: AtomicUsize,
}

impl<T: ?Sized> Spread<T> {
    pub(super) fn new(first: Arc<T>, others: Vec<Arc<T>>) -> Arc<Self> {
        let next = AtomicUsize::new(0);
        Arc::new(Self {
            first,
            others,
            next,
        })
    }

    fn next(&self) -> &T {
        let number = self.next.fetch_add(1, Relaxed) % (self.others.len() + 1);
        self.others.get(number).unwrap_or(&self.first)
    }
}

macro_rules! spread {
    ($($trait:ident { $(fn $name:ident($($argument:ident: $type:ty),*) -> $returned:ty;)+ })+) => {
        $(
            #[async_trait]
            impl<T: $trait + ?Sized> $trait for Spread<T> {
                $(
                    async fn $name(&self, $($argument: $type),*) -> Result<$returned, StoreError> {
                        self.next().$name($($argument),*).await
                    }
                )+
            }
        )+
    };
}

calls!(spread);
