//! What the publisher records about the pushes of a round.

use std::collections::{BTreeMap, HashMap};

use super::{feedback::Stop, recent::Pushed};
use crate::{
    PassId,
    delivery::{DeliveryRecorder, Event, PushFailure, Subject},
    identifiers::TypeIdentifier,
    push::Scope,
};

fn subject(type_id: &TypeIdentifier, scope: &Scope) -> Subject {
    match scope {
        Scope::Type => Subject::Type(type_id.clone()),
        Scope::Pass(serial) => Subject::Pass(PassId {
            type_id: type_id.clone(),
            serial: serial.clone(),
        }),
    }
}

/// Records that the pushes of these changes were stopped.
pub(super) fn record_stop<'a>(
    recorder: &DeliveryRecorder,
    type_id: &TypeIdentifier,
    changes: impl Iterator<Item = (&'a Scope, u64)>,
    stop: &Stop,
) {
    let Some((failure, reason)) = stop.failure() else {
        return;
    };
    for (scope, version) in changes {
        let event = Event::PushFailed(failure);
        recorder.record(
            subject(type_id, scope),
            event,
            version,
            1,
            reason.to_owned(),
        );
    }
}

/// Records the pushes to a page of devices of a change that was done. A push counts for each change
/// that it covers.
pub(super) fn record_page(
    recorder: &DeliveryRecorder,
    type_id: &TypeIdentifier,
    (scope, version, is_last): (&Scope, u64, bool),
    pushes: impl Iterator<Item = Pushed>,
    reasons: &HashMap<PushFailure, String>,
) {
    let mut accepted = 0;
    let mut failed: BTreeMap<PushFailure, u64> = BTreeMap::new();
    for push in pushes {
        match push.failure {
            None => accepted += 1,
            Some(failure) => *failed.entry(failure).or_default() += 1,
        }
    }
    let record = |event, count, detail: &str| {
        let detail = detail.to_owned();
        recorder.record(subject(type_id, scope), event, version, count, detail);
    };
    if accepted > 0 {
        record(Event::PushAccepted, accepted, "");
    }
    for (failure, count) in failed {
        let reason = reasons.get(&failure).map_or("", String::as_str);
        record(Event::PushFailed(failure), count, reason);
    }
    if is_last {
        record(Event::PushEnded, 1, "");
    }
}
