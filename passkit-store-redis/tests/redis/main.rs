//! Tests the store on real servers: under load, during failovers, and with wrong settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

/// Repeats a call until it succeeds, for at most a minute, because a busy machine may exceed the
/// short timeouts of a store.
macro_rules! in_time {
    ($call:expr) => {{
        let start = std::time::Instant::now();
        loop {
            match $call.await {
                Ok(done) => break done,
                Err(error) => {
                    assert!(
                        start.elapsed().as_secs() < 60,
                        "{}",
                        crate::support::chain(&error)
                    );
                }
            }
        }
    }};
}

mod changes;
mod coordination;
mod delivery;
mod durability;
mod errors;
mod failover;
mod interleavings;
mod load;
mod maintenance;
mod partition;
mod queue;
mod registrations;
mod scripts;
mod set_up;

mod support {
    use std::sync::atomic::{AtomicU64, Ordering};

    use passkit_server::{
        Changed, PassId,
        identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
        store::{Audience, Content, ContentDigest, RegistrationStore, StoreError},
    };
    use passkit_store_redis::redis;

    pub(crate) fn type_id() -> TypeIdentifier {
        TypeIdentifier::new("pass.com.example.ticket").unwrap()
    }

    pub(crate) fn serial(text: impl AsRef<str>) -> SerialNumber {
        SerialNumber::new(text.as_ref()).unwrap()
    }

    pub(crate) fn pass(text: impl AsRef<str>) -> PassId {
        PassId {
            type_id: type_id(),
            serial: serial(text),
        }
    }

    pub(crate) fn device(text: impl AsRef<str>) -> DeviceIdentifier {
        DeviceIdentifier::new(text.as_ref()).unwrap()
    }

    pub(crate) fn token() -> PushToken {
        PushToken::new("c0ffee").unwrap()
    }

    /// Returns a new prefix, so that tests can share a server.
    pub(crate) fn prefix() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let time = passkit_server::store::clock::now_micros();
        format!("test-{time}-{}:", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn mark(
        store: &(impl RegistrationStore + ?Sized),
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        store.mark(&type_id(), Changed::Passes(serials)).await
    }

    /// Returns content without tokens.
    pub(crate) fn content(text: impl AsRef<str>, digest: ContentDigest) -> Content {
        Content {
            serial: serial(text),
            digest: Some(digest),
            tokens: Vec::new(),
        }
    }

    /// Returns the serial numbers that a device is registered for, sorted.
    pub(crate) async fn registered(
        store: &(impl RegistrationStore + ?Sized),
        device: &DeviceIdentifier,
    ) -> Vec<String> {
        let all = store.changes_since(device, &type_id(), None).await.unwrap();
        let mut serials = all
            .serials
            .iter()
            .map(|s| s.as_str().to_owned())
            .collect::<Vec<_>>();
        serials.sort();
        serials
    }

    /// Returns the devices of a pass or a type from all pages, sorted, each once.
    pub(crate) async fn devices(
        store: &(impl RegistrationStore + ?Sized),
        audience: Audience<'_>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.devices(audience, after.as_ref(), 100).await.unwrap();
            found.extend(
                page.items
                    .into_iter()
                    .map(|one| one.device.as_str().to_owned()),
            );
            after = page.next;
            if after.is_none() {
                found.sort();
                found.dedup();
                return found;
            }
        }
    }

    pub(crate) async fn devices_of(
        store: &(impl RegistrationStore + ?Sized),
        pass: &PassId,
    ) -> Vec<String> {
        devices(store, Audience::Pass(pass)).await
    }

    pub(crate) async fn devices_of_type(store: &(impl RegistrationStore + ?Sized)) -> Vec<String> {
        devices(store, Audience::Type(&type_id())).await
    }

    /// Makes a connection that the store does not use.
    pub(crate) async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
        // A busy machine may exceed the short timeouts of the driver.
        let minute = Some(std::time::Duration::from_secs(60));
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(minute)
            .set_response_timeout(minute);
        let client = redis::Client::open(url).unwrap();
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .unwrap()
    }

    /// Returns the text of an error and its causes, in one line.
    pub(crate) fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
