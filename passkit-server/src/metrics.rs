//! Counters and timers for the recorder of the crate `metrics`. No label contains anything that a
//! device sent.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::{Method, StatusCode};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::{
    Changed, PassId, PassState,
    delivery::{DeliveryLog, Record, Subject},
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats},
    push::{
        Backlog, DeferredPush, PendingChange, Progress, PushOutcome, PushQueue, PushSender, Scope,
    },
    route::Route,
    store::{
        Audience, Changes, Coordination, Page, PageCursor, Published, Registered, RegisteredDevice,
        RegistrationStore, StoreError, UpdateTag, clock,
    },
};

const REQUESTS: &str = "passkit_requests_total";
const REQUEST_SECONDS: &str = "passkit_request_seconds";
const STORE_SECONDS: &str = "passkit_store_seconds";
const STORE_ERRORS: &str = "passkit_store_errors_total";
const PUSHES: &str = "passkit_pushes_total";
const PUSH_SECONDS: &str = "passkit_push_seconds";
const DELIVERY_RECORDS: &str = "passkit_delivery_records_total";
const FETCHED_AFTER: &str = "passkit_fetched_after_seconds";

/// Describes the metrics of this crate to the recorder. Call this function after the recorder was
/// installed.
pub fn describe_metrics() {
    describe_counter!(REQUESTS, "Requests answered, by call and status.");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from a request's head to the head of its answer."
    );
    describe_histogram!(
        STORE_SECONDS,
        Unit::Seconds,
        "Time of a store call, by method."
    );
    describe_counter!(STORE_ERRORS, "Store calls that failed, by method.");
    describe_counter!(PUSHES, "Pushes, by outcome.");
    describe_histogram!(
        PUSH_SECONDS,
        Unit::Seconds,
        "Time until a push was answered."
    );
    describe_counter!(
        DELIVERY_RECORDS,
        "Delivery records, by outcome: written or dropped."
    );
    describe_histogram!(
        FETCHED_AFTER,
        Unit::Seconds,
        "Time from the change of a pass to each fetch of it."
    );
}

/// The measurement of one request.
pub(crate) struct Request {
    call: &'static str,
    started: Instant,
}

impl Request {
    pub(crate) fn new(method: &Method, route: Option<&Route<'_>>) -> Self {
        let call = match (route, method) {
            (Some(Route::Registration { .. }), &Method::POST) => "register",
            (Some(Route::Registration { .. }), &Method::DELETE) => "unregister",
            (Some(Route::Updatable { .. }), &Method::GET | &Method::HEAD) => "list",
            (Some(Route::Latest { .. }), &Method::GET | &Method::HEAD) => "get",
            (Some(Route::Log), &Method::POST) => "log",
            _ => "other",
        };
        Self {
            call,
            started: Instant::now(),
        }
    }

    pub(crate) fn answered(self, status: StatusCode) {
        histogram!(REQUEST_SECONDS, "call" => self.call).record(self.started.elapsed());
        counter!(REQUESTS, "call" => self.call, "status" => label(status)).increment(1);
    }
}

/// The label of a status, without an allocation.
fn label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        404 => "404",
        405 => "405",
        408 => "408",
        413 => "413",
        503 => "503",
        _ => "500",
    }
}

/// Records that a pass was sent in this state. A pass that never changed has no age.
pub(crate) fn fetched(state: PassState) {
    if state.version > 0 {
        // A version may be ahead of this machine's clock. The age then counts as zero.
        let age = Duration::from_micros(clock::now_micros().saturating_sub(state.version));
        histogram!(FETCHED_AFTER).record(age);
    }
}

/// Counts delivery records that the store has accepted.
pub(crate) fn records_written(records: u64) {
    counter!(DELIVERY_RECORDS, "outcome" => "written").increment(records);
}

/// Counts delivery records that are lost.
pub(crate) fn records_dropped(records: u64) {
    counter!(DELIVERY_RECORDS, "outcome" => "dropped").increment(records);
}

/// A store or a push sender whose calls are counted and timed.
#[derive(Clone, Debug)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// Counts and times the calls of `inner`.
    pub fn new(inner: T) -> Self {
        Self(inner)
    }
}

async fn store_call<T>(
    method: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let started = Instant::now();
    let result = call.await;
    histogram!(STORE_SECONDS, "method" => method).record(started.elapsed());
    if result.is_err() {
        counter!(STORE_ERRORS, "method" => method).increment(1);
    }
    result
}

#[async_trait]
impl<S: RegistrationStore> RegistrationStore for Measured<S> {
    async fn register(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, StoreError> {
        store_call("register", self.0.register(device, pass, push_token)).await
    }

    async fn unregister(
        &self,
        device: &DeviceIdentifier,
        pass: &PassId,
    ) -> Result<bool, StoreError> {
        store_call("unregister", self.0.unregister(device, pass)).await
    }

    async fn changes_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        store_call(
            "changes_since",
            self.0.changes_since(device, type_id, since),
        )
        .await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        store_call("pass_state", self.0.pass_state(pass)).await
    }

    async fn mark(&self, type_id: &TypeIdentifier, changed: Changed<'_>) -> Result<(), StoreError> {
        store_call("mark", self.0.mark(type_id, changed)).await
    }

    async fn published(&self, passes: &[PassId]) -> Result<Vec<Option<Published>>, StoreError> {
        store_call("published", self.0.published(passes)).await
    }

    async fn devices(
        &self,
        audience: Audience<'_>,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<RegisteredDevice>, StoreError> {
        store_call("devices", self.0.devices(audience, after, limit)).await
    }

    async fn count_devices(&self, pass: &PassId, at_most: u64) -> Result<u64, StoreError> {
        store_call("count_devices", self.0.count_devices(pass, at_most)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        store_call(
            "forget_device",
            self.0.forget_device(device, unregistered_at),
        )
        .await
    }
}

#[async_trait]
impl<S: Coordination> Coordination for Measured<S> {
    async fn claim(&self, name: &str, owner: &str, time: Duration) -> Result<bool, StoreError> {
        store_call("claim", self.0.claim(name, owner, time)).await
    }

    async fn release(&self, name: &str, owner: &str) -> Result<(), StoreError> {
        store_call("release", self.0.release(name, owner)).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        store_call("note", self.0.note(name)).await
    }

    async fn replace_note(
        &self,
        name: &str,
        expected: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, StoreError> {
        store_call("replace_note", self.0.replace_note(name, expected, new)).await
    }
}

#[async_trait]
impl<S: PushQueue> PushQueue for Measured<S> {
    async fn mark_and_push(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
    ) -> Result<(), StoreError> {
        store_call("mark_and_push", self.0.mark_and_push(type_id, changed)).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>, StoreError> {
        store_call("backlog", self.0.backlog()).await
    }

    async fn pending(
        &self,
        type_id: &TypeIdentifier,
        limit: usize,
    ) -> Result<Vec<PendingChange>, StoreError> {
        store_call("pending", self.0.pending(type_id, limit)).await
    }

    async fn record_progress(
        &self,
        type_id: &TypeIdentifier,
        progress: &[(Scope, Progress)],
    ) -> Result<(), StoreError> {
        store_call("record_progress", self.0.record_progress(type_id, progress)).await
    }

    async fn defer(
        &self,
        type_id: &TypeIdentifier,
        pushes: &[(DeviceIdentifier, Option<DeferredPush>)],
    ) -> Result<(), StoreError> {
        store_call("defer", self.0.defer(type_id, pushes)).await
    }

    async fn deferred(
        &self,
        type_id: &TypeIdentifier,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<(DeviceIdentifier, DeferredPush)>, StoreError> {
        store_call("deferred", self.0.deferred(type_id, after, limit)).await
    }
}

#[async_trait]
impl<S: DeliveryLog> DeliveryLog for Measured<S> {
    async fn record(&self, records: &[Record]) -> Result<(), StoreError> {
        store_call("record", self.0.record(records)).await
    }

    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError> {
        store_call("records", self.0.records(subjects)).await
    }

    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError> {
        store_call("forget", self.0.forget(subjects)).await
    }

    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError> {
        store_call("discard_before", self.0.discard_before(time, limit)).await
    }
}

#[async_trait]
impl<S: StoreMaintenance> StoreMaintenance for Measured<S> {
    async fn register_many(&self, registrations: &[Registration]) -> Result<u64, StoreError> {
        store_call("register_many", self.0.register_many(registrations)).await
    }

    async fn registrations(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<Registration>, StoreError> {
        store_call("registrations", self.0.registrations(after, limit)).await
    }

    async fn published_passes(
        &self,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<Page<PassId>, StoreError> {
        store_call("published_passes", self.0.published_passes(after, limit)).await
    }

    async fn forget_pass(&self, pass: &PassId) -> Result<bool, StoreError> {
        store_call("forget_pass", self.0.forget_pass(pass)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        store_call("stats", self.0.stats()).await
    }
}

#[async_trait]
impl<S: PushSender> PushSender for Measured<S> {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        self.0.covers(topic)
    }

    fn credentials(&self, topic: &TypeIdentifier) -> String {
        self.0.credentials(topic)
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        let started = Instant::now();
        let outcome = self.0.push(topic, token).await;
        histogram!(PUSH_SECONDS).record(started.elapsed());
        counter!(PUSHES, "outcome" => outcome.name()).increment(1);
        outcome
    }
}
