//! The spans `publish`, `push`, `list` and `fetch`, which follow a change until a phone has it. The
//! level of these spans is `debug`.
//!
//! If no subscriber listens, a span costs no more than reading a flag. Its fields are neither
//! formatted nor digested.

use std::{
    fmt,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::LazyLock,
};

use http::StatusCode;
use tracing::{
    Span, debug_span,
    field::{Empty, display},
};

use crate::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    push::PushOutcome,
    store::{Changes, UpdateTag},
};

/// A span names at most this many of the devices that share a token.
const DEVICES: usize = 4;

/// Returns a digest of a secret. Within this process, equal secrets have equal digests. The digest
/// does not reveal the secret.
fn fingerprint(secret: &impl Hash) -> impl fmt::Display {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let hash = KEY.hash_one(secret);
    fmt::from_fn(move |f| write!(f, "{hash:016x}"))
}

/// Shows a version as in update tags and entity tags.
fn hex(version: u64) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "{version:x}"))
}

fn fingerprints(devices: &[DeviceIdentifier]) -> impl fmt::Display {
    let devices: Vec<String> = devices
        .iter()
        .take(DEVICES)
        .map(|device| fingerprint(device).to_string())
        .collect();
    devices.join(",")
}

/// The span of marking a change. If all passes of the type changed, the span has no number of
/// passes.
pub(crate) fn publish(type_id: &TypeIdentifier, changed: Changed<'_>) -> Span {
    let passes = match changed {
        Changed::Passes(serials) => Some(serials.len()),
        Changed::Contents(contents) => Some(contents.len()),
        Changed::All => None,
    };
    debug_span!("publish", %type_id, passes)
}

/// The span of sending a push. `version` is the newest change that the push covers, or `None` for a
/// deferred push.
pub(crate) fn push(
    type_id: &TypeIdentifier,
    token: &PushToken,
    devices: &[DeviceIdentifier],
    version: Option<u64>,
) -> Span {
    debug_span!(
        "push",
        %type_id,
        token = %fingerprint(token),
        devices = %fingerprints(devices),
        version = version.map(|version| display(hex(version))),
        outcome = Empty
    )
}

pub(crate) fn pushed(span: &Span, outcome: &PushOutcome) {
    span.record("outcome", outcome.name());
}

/// The span of a list call.
pub(crate) struct List(Span);

impl List {
    pub(crate) fn new(
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Self {
        Self(debug_span!(
            "list",
            %type_id,
            device = %fingerprint(device),
            since = since.map(display),
            serials = Empty,
            tag = Empty
        ))
    }

    pub(crate) fn answered(self, changes: &Changes) {
        if self.0.is_disabled() {
            return;
        }
        self.0.record("serials", changes.serials.len());
        if !changes.serials.is_empty() {
            self.0.record("tag", display(changes.tag));
        }
    }
}

/// The span of a fetch.
pub(crate) struct Fetch(Span);

impl Fetch {
    pub(crate) fn new(pass: &PassId) -> Self {
        let PassId { type_id, serial } = pass;
        Self(debug_span!("fetch", %type_id, %serial, version = Empty, status = Empty))
    }

    pub(crate) fn answered(self, state: PassState, status: StatusCode) {
        if !self.0.is_disabled() {
            self.0.record("version", display(hex(state.version)));
            self.0.record("status", status.as_u16());
        }
    }
}
