/// What happened to a subject. There are few events, so a subject has few records.
///
/// Events of a pass: all except [`Registered`](Self::Registered), [`Asked`](Self::Asked) and
/// [`Told`](Self::Told). Events of a device: these three, and [`PushFailed`](Self::PushFailed).
/// Events of a type: [`PushAccepted`](Self::PushAccepted), [`PushFailed`](Self::PushFailed),
/// [`PushEnded`](Self::PushEnded), [`Refused`](Self::Refused) and [`Complaint`](Self::Complaint).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Event {
    /// A device registered for a pass of the type.
    Registered,
    /// A device asked which of its passes changed. The detail is a [`ListDetail`](super::ListDetail).
    Asked,
    /// A device asked which of its passes changed, and was told serial numbers. The detail is a
    /// [`ListDetail`](super::ListDetail).
    Told,
    /// The pass was fetched: this version was sent.
    Fetched,
    /// The pass was fetched, and the phone had this version already: 304.
    Unchanged,
    /// The content of the pass changed. The detail says what differs, see
    /// [`DeliveryRecorder::content_changed`](super::DeliveryRecorder::content_changed).
    ContentChanged,
    /// A request for the pass was refused with 401.
    Refused(Denial),
    /// Pushes about this version were accepted. The count is the number of devices. If all passes of
    /// the type changed at once, the type has the record, and the passes have none.
    PushAccepted,
    /// A push about this version failed. The detail is the reason that the push service gave.
    PushFailed(PushFailure),
    /// The pushes about this version ended: for each device, the push was accepted or failed.
    PushEnded,
    /// A device posted a log message about the pass. The detail has the status of
    /// [`UnexpectedStatus`](self::Complaint::UnexpectedStatus), and the first harmless words of
    /// [`Other`](self::Complaint::Other).
    Complaint(Complaint),
}

/// Why a request was refused with 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Denial {
    /// There was no `Authorization`.
    NoAuthorization,
    /// `Authorization` had another scheme, or no token.
    Scheme,
    /// The pass was removed, or has no archive yet.
    Removed,
    /// The token did not belong to the pass.
    WrongToken,
}

/// How a push failed. See [`PushOutcome`](crate::push::PushOutcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PushFailure {
    /// The token is no longer in use.
    Gone,
    /// The token is invalid, or is for another topic or environment.
    BadToken,
    /// The push service will never accept the request.
    Rejected,
    /// The push service refuses the certificate, the key or the topic.
    Misconfigured,
    /// The sender does not support this kind of token.
    Unsupported,
    /// There were too many pushes to the token.
    TooMany,
    /// The push service has a fault.
    Unavailable,
    /// There was no answer.
    Unreachable,
}

/// The meaning of a log message of a device. See
/// [`DeviceReport`](crate::device_log::DeviceReport).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Complaint {
    /// The call was answered 401.
    AuthenticationFailure,
    /// The call was answered with a status that the protocol does not allow there.
    UnexpectedStatus,
    /// The list answer was not of the documented form.
    MalformedResponse,
    /// The archive was not a validly signed pass.
    InvalidPass,
    /// The archive contained another pass.
    WrongPass,
    /// The list answer had serial numbers, but the tag that the device had sent.
    TagUnchanged,
    /// The list answer had serial numbers, but no tag.
    TagMissing,
    /// The list answer after a push was empty.
    SpuriousPush,
    /// The pass was listed as changed, but its content was the same.
    PassUnchanged,
    /// The same version was sent again, although the device showed that it has it.
    ConditionIgnored,
    /// The pass was sent without a date.
    LastModifiedMissing,
    /// A listed pass is no longer on the device.
    NotRegistered,
    /// The pass was the same after its personalization.
    PersonalizationUnchanged,
    /// Any other message.
    Other,
}

/// Every event with its name in stores. Names never change.
const NAMES: [(Event, &str); 34] = [
    (Event::Registered, "registered"),
    (Event::Asked, "asked"),
    (Event::Told, "told"),
    (Event::Fetched, "fetched"),
    (Event::Unchanged, "unchanged"),
    (Event::ContentChanged, "content-changed"),
    (
        Event::Refused(Denial::NoAuthorization),
        "refused-no-authorization",
    ),
    (Event::Refused(Denial::Scheme), "refused-scheme"),
    (Event::Refused(Denial::Removed), "refused-removed"),
    (Event::Refused(Denial::WrongToken), "refused-wrong-token"),
    (Event::PushAccepted, "push-accepted"),
    (Event::PushEnded, "push-ended"),
    (Event::PushFailed(PushFailure::Gone), "push-gone"),
    (Event::PushFailed(PushFailure::BadToken), "push-bad-token"),
    (Event::PushFailed(PushFailure::Rejected), "push-rejected"),
    (
        Event::PushFailed(PushFailure::Misconfigured),
        "push-misconfigured",
    ),
    (
        Event::PushFailed(PushFailure::Unsupported),
        "push-unsupported",
    ),
    (Event::PushFailed(PushFailure::TooMany), "push-too-many"),
    (
        Event::PushFailed(PushFailure::Unavailable),
        "push-unavailable",
    ),
    (
        Event::PushFailed(PushFailure::Unreachable),
        "push-unreachable",
    ),
    (
        Event::Complaint(Complaint::AuthenticationFailure),
        "complaint-authentication",
    ),
    (
        Event::Complaint(Complaint::UnexpectedStatus),
        "complaint-status",
    ),
    (
        Event::Complaint(Complaint::MalformedResponse),
        "complaint-malformed",
    ),
    (
        Event::Complaint(Complaint::InvalidPass),
        "complaint-invalid-pass",
    ),
    (
        Event::Complaint(Complaint::WrongPass),
        "complaint-wrong-pass",
    ),
    (
        Event::Complaint(Complaint::TagUnchanged),
        "complaint-tag-unchanged",
    ),
    (
        Event::Complaint(Complaint::TagMissing),
        "complaint-tag-missing",
    ),
    (
        Event::Complaint(Complaint::SpuriousPush),
        "complaint-spurious-push",
    ),
    (
        Event::Complaint(Complaint::PassUnchanged),
        "complaint-unchanged",
    ),
    (
        Event::Complaint(Complaint::ConditionIgnored),
        "complaint-condition",
    ),
    (
        Event::Complaint(Complaint::LastModifiedMissing),
        "complaint-no-date",
    ),
    (
        Event::Complaint(Complaint::NotRegistered),
        "complaint-not-registered",
    ),
    (
        Event::Complaint(Complaint::PersonalizationUnchanged),
        "complaint-personalization",
    ),
    (Event::Complaint(Complaint::Other), "complaint-other"),
];

impl Event {
    /// Returns the name of the event, for stores: at most 40 lower-case letters and hyphens.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find_map(|(event, name)| (*event == self).then_some(*name))
            .unwrap_or_default()
    }

    /// Returns the event of this name. `None` if a newer version wrote the name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .find_map(|(event, known)| (*known == name).then_some(*event))
    }

    /// Returns every event.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(event, _)| *event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_name_of_its_own() {
        for event in Event::all() {
            assert!(!event.name().is_empty() && event.name().len() <= 40);
            assert_eq!(Event::of(event.name()), Some(event));
        }
        assert_eq!(Event::of("newer"), None);
    }
}
