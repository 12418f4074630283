use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::Registration,
    store::{
        Audience, Changes, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag,
    },
};

use super::record::{Event, History, RecordedCall};

/// A store that passes all calls to another store, and records the calls and answers.
#[derive(Clone)]
pub struct Recorder {
    store: Arc<dyn RegistrationStore>,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    time: u64,
    calls: Vec<RecordedCall>,
}

impl Recorder {
    /// Makes a recorder for `store`, with an empty history.
    #[must_use]
    pub fn new(store: Arc<dyn RegistrationStore>) -> Self {
        Self {
            store,
            log: Arc::default(),
        }
    }

    /// Continues the history with another store, for example with a store that opened the same data
    /// again.
    #[must_use]
    pub fn over(&self, store: Arc<dyn RegistrationStore>) -> Self {
        Self {
            store,
            log: self.log.clone(),
        }
    }

    /// Returns all calls so far.
    #[must_use]
    pub fn history(&self) -> History {
        History {
            calls: self.log().calls.clone(),
        }
    }

    /// Awaits `marking` and records it as a mark. Use this for marks by other methods, such as
    /// `mark_and_push` or a mark in the caller's transaction.
    ///
    /// # Errors
    /// Fails if `marking` fails, with the same error.
    pub async fn mark_by(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
        marking: impl Future<Output = Result<(), StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let at = self.begin(Event::Mark {
            type_id: type_id.clone(),
            changed: changed.into(),
        });
        self.end(at, marking.await, |_, ()| {})
    }

    /// Awaits `registering`, and records a call of `register` for each of these registrations. Use
    /// this for `register_many`.
    ///
    /// # Errors
    /// Fails if `registering` fails, with the same error.
    pub async fn register_by(
        &self,
        registrations: &[Registration],
        registering: impl Future<Output = Result<u64, StoreError>> + Send,
    ) -> Result<u64, StoreError> {
        let begun: Vec<_> = registrations
            .iter()
            .map(|one| {
                self.begin(Event::Register {
                    device: one.device.clone(),
                    pass: one.pass.clone(),
                    push_token: one.push_token.clone(),
                    answer: None,
                })
            })
            .collect();
        let mut result = registering.await;
        for at in begun {
            result = self.end(at, result, |_, _| {});
        }
        result
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of a call. Must run before the call.
    fn begin(&self, event: Event) -> usize {
        let mut log = self.log();
        log.time += 1;
        let begin = log.time;
        log.calls.push(RecordedCall {
            begin,
            end: None,
            event,
        });
        log.calls.len() - 1
    }

    /// Records the end and the answer of a call, unless the call failed.
    fn end<T>(
        &self,
        at: usize,
        result: Result<T, StoreError>,
        answered: impl FnOnce(&mut Event, &T),
    ) -> Result<T, StoreError> {
        if let Ok(answer) = &result {
            let mut log = self.log();
            log.time += 1;
            let end = log.time;
            if let Some(call) = log.calls.get_mut(at) {
                call.end = Some(end);
                answered(&mut call.event, answer);
            }
        }
        result
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("calls", &self.log().calls.len())
            .finish_non_exhaustive()
    }
}

/// Makes a function that puts the answer into an event of the given kind.
macro_rules! answer {
    ($kind:ident) => {
        |event, given| {
            if let Event::$kind { answer, .. } = event {
                *answer = Some(given.clone());
            }
        }
    };
}

#[async_trait]
impl RegistrationStore for Recorder {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        let at = self.begin(Event::Register {
            device: device.clone(),
            pass: pass.clone(),
            push_token: push_token.clone(),
            answer: None,
        });
        let result = self.store.register(device, pass, push_token).await;
        self.end(at, result, answer!(Register))
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        let event = Event::Unregister {
            device: device.clone(),
            pass: pass.clone(),
            answer: None,
        };
        let at = self.begin(event);
        let result = self.store.unregister(device, pass).await;
        self.end(at, result, answer!(Unregister))
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        let (of, type_of) = (device.clone(), type_id.clone());
        let at = self.begin(Event::List {
            device: of,
            type_id: type_of,
            since,
            answer: None,
        });
        let result = self.store.changes_since(device, type_id, since).await;
        self.end(at, result, answer!(List))
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        let at = self.begin(Event::State {
            pass: pass.clone(),
            answer: None,
        });
        let result = self.store.pass_state(pass).await;
        self.end(at, result, answer!(State))
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        self.mark_by(type_id, changed, self.store.mark(type_id, changed))
            .await
    }

    /// This call is not recorded.
    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        self.store.published(passes).await
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        let from_start = after.is_none();
        let at = self.begin(match audience {
            Audience::Pass(pass) => Event::Devices {
                pass: pass.clone(),
                from_start,
                answer: None,
            },
            Audience::Type(type_id) => Event::DevicesOfType {
                type_id: type_id.clone(),
                from_start,
                answer: None,
            },
        });
        let result = self.store.devices(audience, after, limit).await;
        self.end(at, result, |event, given| {
            if let Event::Devices { answer, .. } | Event::DevicesOfType { answer, .. } = event {
                *answer = Some(given.clone());
            }
        })
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        let at = self.begin(Event::Count {
            pass: pass.clone(),
            at_most,
            answer: None,
        });
        let result = self.store.count_devices(pass, at_most).await;
        self.end(at, result, answer!(Count))
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        let at = self.begin(Event::Forget {
            device: device.clone(),
            unregistered_at,
            answer: None,
        });
        let result = self.store.forget_device(device, unregistered_at).await;
        self.end(at, result, answer!(Forget))
    }
}
