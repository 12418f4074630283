//! The explanation as JSON, for programs. Times are in seconds since the Unix epoch.

use passkit_server::delivery::{Denial, Event, PushFailure};
use serde_json::{Value, json};

use super::{
    Cause, Explanation,
    facts::{Knows, PassFacts, Pending, Phone, Seen, Time},
    timeline::Entry,
};

impl Explanation {
    /// Returns the explanation as JSON.
    pub(crate) fn json(&self) -> Value {
        let phones = self.phones.iter();
        json!({
            "pass": pass(&self.pass),
            "phones": phones.map(|(one, cause)| phone(one, cause, &self.pass)).collect::<Vec<_>>(),
            "timeline": self.timeline.iter().map(entry).collect::<Vec<_>>(),
            "cause": self.cause.name(),
            "wrong": self.is_wrong(),
            "phones_with_cause": self.concerned,
            "sentence": self.sentence(),
        })
    }
}

fn seconds(time: Time) -> Value {
    json!(time.0 as f64 / 1e6)
}

fn maybe(time: Option<Time>) -> Value {
    time.map_or(Value::Null, seconds)
}

fn seen(seen: &Seen) -> Value {
    json!({
        "at": seconds(seen.at), "count": seen.count, "version": version(seen.version), "detail": seen.detail,
    })
}

/// Writes a version as in update tags.
fn version(version: u64) -> String {
    format!("{version:x}")
}

fn pass(pass: &PassFacts) -> Value {
    let pushes = &pass.pushes;
    let pending = match pushes.pending {
        Pending::No => "no",
        Pending::Yes { begun: false } => "yes",
        Pending::Yes { begun: true } => "partly",
        Pending::Unknown => "unknown",
    };
    let failure = |(failure, it): &(PushFailure, Seen)| json!({ "event": Event::PushFailed(*failure).name(), "last": seen(it) });
    let denial = |(denial, it): &(Denial, Seen)| json!({ "event": Event::Refused(*denial).name(), "last": seen(it) });
    let content = pass.content.as_ref().map(|content| {
        json!({
            "web_service_url": content.web_service_url,
            "fields_with_change_message": content.messages,
        })
    });
    let changes = pass.changes().map(|changes| {
        json!({
            "visible": changes.visible, "with_change_message": changes.messages, "hidden": changes.hidden,
            "names": changes.names,
        })
    });
    json!({
        "type": pass.id.type_id.as_str(),
        "serial": pass.id.serial.as_str(),
        "version": version(pass.version),
        "changed": maybe(pass.changed_at()),
        "removed": pass.removed,
        "phones": pass.registrations.count,
        "or_more_phones": pass.registrations.or_more,
        "fetched": pass.fetched.as_ref().map(seen),
        "unchanged": pass.unchanged.as_ref().map(seen),
        "refused": pass.refused.iter().map(denial).collect::<Vec<_>>(),
        "pushes": {
            "pending": pending,
            "accepted": pushes.accepted.as_ref().map(seen),
            "failed": pushes.failed.iter().map(failure).collect::<Vec<_>>(),
            "ended": pushes.ended.as_ref().map(seen),
        },
        "archive": content,
        "changes": changes,
    })
}

fn phone(phone: &Phone, cause: &Cause, pass: &PassFacts) -> Value {
    let told = match phone.knows {
        Knows::Newest { .. } => "yes",
        Knows::Older => "no",
        Knows::Unknown => "unknown",
    };
    json!({
        "phone": phone.name,
        "last_registered": maybe(phone.registered),
        "last_asked": maybe(phone.asked),
        "last_told": maybe(phone.told),
        "told_of_newest": told,
        "behind_since": maybe(phone.behind_since(pass)),
        "push_failed": phone.failure.as_ref().map(|(failure, it)| json!({
            "event": Event::PushFailed(*failure).name(), "last": seen(it),
        })),
        "push_due": maybe(phone.deferred.and_then(|deferred| deferred.due)),
        "cause": cause.name(),
        "sentence": cause.sentence(pass),
    })
}

fn entry(entry: &Entry) -> Value {
    json!({
        "at": seconds(entry.at),
        "event": entry.event.name(),
        "count": entry.count,
        "version": version(entry.version),
        "phone": entry.phone,
        "detail": entry.detail,
    })
}
