//! What is counted, for the recorder of the crate `metrics`. No label has anything in it that a device sends.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::{Method, StatusCode};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, PushOutcome, PushSender, PushToken,
    Registered, RegistrationStore, SerialNumber, StoreError, TypeIdentifier, UpdateTag, clock, route::Route,
};

const REQUESTS: &str = "passkit_requests_total";
const REQUEST_SECONDS: &str = "passkit_request_seconds";
const STORE_SECONDS: &str = "passkit_store_seconds";
const STORE_ERRORS: &str = "passkit_store_errors_total";
const PUSHES: &str = "passkit_pushes_total";
const PUSH_SECONDS: &str = "passkit_push_seconds";
const FETCHED_AFTER: &str = "passkit_fetched_after_seconds";

/// Tells the recorder what the numbers of this crate mean. Call it once the recorder is installed.
pub fn describe_metrics() {
    describe_counter!(REQUESTS, "Requests answered, by call and status.");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time from a request's head to the head of its answer."
    );
    describe_histogram!(STORE_SECONDS, Unit::Seconds, "Time that a call of the store took, by method.");
    describe_counter!(STORE_ERRORS, "Calls of the store that failed, by method.");
    describe_counter!(PUSHES, "Pushes, by what came of them.");
    describe_histogram!(PUSH_SECONDS, Unit::Seconds, "Time until a push was answered.");
    describe_histogram!(
        FETCHED_AFTER,
        Unit::Seconds,
        "Time from a change of a pass to each fetch of it, by phones that came for it and by those that are new."
    );
}

/// A request that is being answered.
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
        Self { call, started: Instant::now() }
    }

    pub(crate) fn answered(self, status: StatusCode) {
        histogram!(REQUEST_SECONDS, "call" => self.call).record(self.started.elapsed());
        counter!(REQUESTS, "call" => self.call, "status" => label(status)).increment(1);
    }
}

/// The statuses that the service answers, without making a text of each.
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

/// A pass was sent in this state. One that never changed has no age.
pub(crate) fn fetched(state: PassState) {
    if state.version > 0 {
        // A version may be ahead of this machine's clock.
        let age = Duration::from_micros(clock::now_micros().saturating_sub(state.version));
        histogram!(FETCHED_AFTER).record(age);
    }
}

/// A store, or a sender of pushes, whose calls are counted and timed.
#[derive(Clone, Debug)]
pub struct Measured<T>(T);

impl<T> Measured<T> {
    /// Counts the calls of `inner`.
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

    async fn unregister(&self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, StoreError> {
        store_call("unregister", self.0.unregister(device, pass)).await
    }

    async fn updated_since(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Changes, StoreError> {
        store_call("updated_since", self.0.updated_since(device, type_id, since)).await
    }

    async fn mark_updated(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        store_call("mark_updated", self.0.mark_updated(type_id, serials)).await
    }

    async fn mark_all_updated(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        store_call("mark_all_updated", self.0.mark_all_updated(type_id)).await
    }

    async fn pass_state(&self, pass: &PassId) -> Result<PassState, StoreError> {
        store_call("pass_state", self.0.pass_state(pass)).await
    }

    async fn devices_of(
        &self,
        pass: &PassId,
        after: Option<&PageCursor>,
        limit: usize,
    ) -> Result<DevicePage, StoreError> {
        store_call("devices_of", self.0.devices_of(pass, after, limit)).await
    }

    async fn forget_device(
        &self,
        device: &DeviceIdentifier,
        unregistered_at: SystemTime,
    ) -> Result<bool, StoreError> {
        store_call("forget_device", self.0.forget_device(device, unregistered_at)).await
    }
}

#[async_trait]
impl<S: PushSender> PushSender for Measured<S> {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        self.0.covers(topic)
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        let started = Instant::now();
        let outcome = self.0.push(topic, token).await;
        histogram!(PUSH_SECONDS).record(started.elapsed());
        counter!(PUSHES, "outcome" => outcome.name()).increment(1);
        outcome
    }
}
