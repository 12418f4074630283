//! Identifiers that tests of several stores use.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::RegistrationStore,
};

/// Returns the type of all passes.
#[must_use]
pub fn type_id() -> TypeIdentifier {
    TypeIdentifier::new("pass.com.example.ticket").unwrap()
}

/// Returns a serial number with this text.
#[must_use]
pub fn serial(text: impl AsRef<str>) -> SerialNumber {
    SerialNumber::new(text.as_ref()).unwrap()
}

/// Returns the pass with this serial number.
#[must_use]
pub fn pass(text: impl AsRef<str>) -> PassId {
    PassId {
        type_id: type_id(),
        serial: serial(text),
    }
}

/// Returns a device with this text as its identifier.
#[must_use]
pub fn device(text: impl AsRef<str>) -> DeviceIdentifier {
    DeviceIdentifier::new(text.as_ref()).unwrap()
}

/// Returns a push token.
#[must_use]
pub fn token() -> PushToken {
    PushToken::new("c0ffee").unwrap()
}

/// Returns the serial numbers that a device is registered for, sorted.
pub async fn registered(store: &dyn RegistrationStore, device: &DeviceIdentifier) -> Vec<String> {
    let all = store.changes_since(device, &type_id(), None).await.unwrap();
    let mut serials: Vec<_> = all.serials.iter().map(ToString::to_string).collect();
    serials.sort();
    serials
}
