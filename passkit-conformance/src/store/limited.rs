//! A time limit for each call of the store under test, and a watchdog for stores that block their
//! threads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
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
        RegistrationStore, StoreError, StoreErrorKind, UpdateTag,
    },
};

use crate::random::Random;

/// The environment variable with the longest time for a call, in seconds.
const TIMEOUT: &str = "PASSKIT_CONFORMANCE_TIMEOUT";

/// These cases have batches of many thousand items. Their calls may take ten times as long.
const BIG: [&str; 5] = [
    "delivery/batches-of-many-sizes",
    "queue/batches-of-many-sizes",
    "store/batches-of-many-sizes",
    "store/one-pass-on-many-devices",
    "store/ten-thousand-passes-on-one-device",
];

fn limit() -> Duration {
    let usual = Duration::from_secs(30);
    let Ok(text) = std::env::var(TIMEOUT) else {
        return usual;
    };
    text.trim()
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|limit| !limit.is_zero())
        .unwrap_or(usual)
}

/// The calls of one case that are running.
pub(super) struct Watch {
    case: &'static str,
    limit: Duration,
    hung: AtomicBool,
    is_delaying: AtomicBool,
    running: Mutex<HashMap<u64, (&'static str, Instant)>>,
}

impl Watch {
    /// Watches the calls of a case. A separate thread finds calls that block all threads of the
    /// runtime.
    pub(super) fn new(case: &'static str) -> Arc<Self> {
        let watch = Arc::new(Self {
            case,
            limit: limit() * if BIG.contains(&case) { 10 } else { 1 },
            hung: AtomicBool::new(false),
            is_delaying: AtomicBool::new(false),
            running: Mutex::default(),
        });
        let dog = Arc::downgrade(&watch);
        std::thread::spawn(move || watch_threads(&dog));
        watch
    }

    /// Returns whether a call took longer than the limit.
    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    /// Delays each later call a little, before and after the store makes it.
    pub(super) fn delay_calls(&self) {
        self.is_delaying.store(true, Ordering::Relaxed);
    }

    async fn delay(&self) {
        if self.is_delaying.load(Ordering::Relaxed) {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let seed = NUMBER.fetch_add(1, Ordering::Relaxed);
            match Random::new(seed).below(16) {
                0 => tokio::time::sleep(Duration::from_millis(2)).await,
                1..=4 => tokio::task::yield_now().await,
                _ => {}
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, (&'static str, Instant)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Awaits a call. Fails if the call takes longer than the limit.
    pub(super) async fn limited<T, E>(
        &self,
        call: &'static str,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<TooSlow>,
    {
        let _running = Running::begin(self, call);
        self.delay().await;
        match tokio::time::timeout(self.limit, future).await {
            Ok(answer) => {
                self.delay().await;
                answer
            }
            Err(_) => {
                self.hung.store(true, Ordering::Relaxed);
                Err(TooSlow(call, self.limit).into())
            }
        }
    }
}

/// A call took longer than the limit.
#[derive(Debug)]
pub(super) struct TooSlow(&'static str, Duration);

impl std::fmt::Display for TooSlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(call, limit) = self;
        write!(
            f,
            "{call} did not return within {limit:?} ({TIMEOUT} sets this limit)"
        )
    }
}

impl std::error::Error for TooSlow {}

impl From<TooSlow> for StoreError {
    fn from(error: TooSlow) -> Self {
        Self::new(StoreErrorKind::Other, error)
    }
}

/// A running call. Dropping this value ends it.
struct Running<'a>(&'a Watch, u64);

impl<'a> Running<'a> {
    fn begin(watch: &'a Watch, call: &'static str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        watch.running().insert(number, (call, Instant::now()));
        Self(watch, number)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self(watch, number) = self;
        watch.running().remove(number);
    }
}

/// Ends the process if a call still runs long after its limit. All threads of the runtime are then
/// blocked, so that no thread is left to end the call.
fn watch_threads(watch: &Weak<Watch>) {
    while let Some(watch) = watch.upgrade() {
        let late = watch.limit * 2 + Duration::from_secs(5);
        let blocking = watch
            .running()
            .values()
            .find(|(_, since)| since.elapsed() > late)
            .map(|(call, _)| *call);
        if let Some(call) = blocking {
            eprintln!(
                "passkit-conformance: {}: the store blocks its threads: {call} did not return within {late:?}, and no \
                 other code runs. Await instead of blocking, or use spawn_blocking. The run ends here.",
                watch.case
            );
            #[expect(clippy::exit, reason = "nothing else can run")]
            std::process::exit(101);
        }
        drop(watch);
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A store whose calls are watched.
pub(super) struct Limited<T: ?Sized> {
    watch: Arc<Watch>,
    store: Arc<T>,
}

impl<T: ?Sized> Limited<T> {
    pub(super) fn new(watch: &Arc<Watch>, store: Arc<T>) -> Arc<Self> {
        let watch = watch.clone();
        Arc::new(Self { watch, store })
    }
}

/// Passes the signatures of all calls of a store to the macro `$then`.
macro_rules! calls {
    ($then:ident) => {
        $then! {
            RegistrationStore {
                fn register(device: &DeviceIdentifier, pass: &PassId, push_token: &PushToken) -> Registered;
                fn unregister(device: &DeviceIdentifier, pass: &PassId) -> bool;
                fn changes_since(
                    device: &DeviceIdentifier, type_id: &TypeIdentifier, since: Option<UpdateTag>
                ) -> Changes;
                fn pass_state(pass: &PassId) -> PassState;
                fn mark(type_id: &TypeIdentifier, changed: Changed<'_>) -> ();
                fn published(passes: &[PassId]) -> Vec<Option<Published>>;
                fn devices(
                    audience: Audience<'_>, after: Option<&PageCursor>, limit: usize
                ) -> Page<RegisteredDevice>;
                fn count_devices(pass: &PassId, at_most: u64) -> u64;
                fn forget_device(device: &DeviceIdentifier, unregistered_at: SystemTime) -> bool;
            }
            Coordination {
                fn claim(name: &str, owner: &str, time: Duration) -> bool;
                fn release(name: &str, owner: &str) -> ();
                fn note(name: &str) -> Option<String>;
                fn replace_note(name: &str, expected: Option<&str>, new: Option<&str>) -> bool;
            }
            PushQueue {
                fn mark_and_push(type_id: &TypeIdentifier, changed: Changed<'_>) -> ();
                fn backlog() -> Vec<Backlog>;
                fn pending(type_id: &TypeIdentifier, limit: usize) -> Vec<PendingChange>;
                fn record_progress(type_id: &TypeIdentifier, progress: &[(Scope, Progress)]) -> ();
                fn defer(
                    type_id: &TypeIdentifier, pushes: &[(DeviceIdentifier, Option<DeferredPush>)]
                ) -> ();
                fn deferred(
                    type_id: &TypeIdentifier, after: Option<&PageCursor>, limit: usize
                ) -> Page<(DeviceIdentifier, DeferredPush)>;
            }
            StoreMaintenance {
                fn register_many(registrations: &[Registration]) -> u64;
                fn registrations(after: Option<&PageCursor>, limit: usize) -> Page<Registration>;
                fn published_passes(after: Option<&PageCursor>, limit: usize) -> Page<PassId>;
                fn forget_pass(pass: &PassId) -> bool;
                fn stats() -> StoreStats;
            }
            DeliveryLog {
                fn record(records: &[Record]) -> ();
                fn records(subjects: &[Subject]) -> Vec<Vec<Record>>;
                fn forget(subjects: &[Subject]) -> ();
                fn discard_before(time: SystemTime, limit: usize) -> bool;
            }
        }
    };
}
pub(super) use calls;

macro_rules! limited {
    ($($trait:ident { $(fn $name:ident($($argument:ident: $type:ty),*) -> $returned:ty;)+ })+) => {
        $(
            #[async_trait]
            impl<T: $trait + ?Sized> $trait for Limited<T> {
                $(
                    async fn $name(&self, $($argument: $type),*) -> Result<$returned, StoreError> {
                        let call = self.store.$name($($argument),*);
                        self.watch.limited(stringify!($name), call).await
                    }
                )+
            }
        )+
    };
}

calls!(limited);
