use std::time::SystemTime;

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Changes, Content, Page, Registered, RegisteredDevice, UpdateTag},
};

/// All calls to a store. At the start of a history, none of its devices is registered.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The calls, in the order in which they began.
    pub calls: Vec<RecordedCall>,
}

/// A call to a store.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// When the call began. Only the order of these numbers has a meaning. If the `end` of one call
    /// is lower than the `begin` of another call, the first call ended before the second call
    /// began.
    pub begin: u64,
    /// When the call was answered. A call that failed or was dropped has no end. Such a call may
    /// take effect at any later time, or never.
    pub end: Option<u64>,
    /// The arguments of the call, and its answer if there was one.
    pub event: Event,
}

/// The arguments and the answer of a call. A call has no `answer` if it failed or was dropped. The
/// registrations of a bulk call have no `answer` either.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "the fields have the names of the trait's arguments"
)]
pub enum Event {
    /// `register`
    Register {
        device: DeviceIdentifier,
        pass: PassId,
        push_token: PushToken,
        answer: Option<Registered>,
    },
    /// `unregister`
    Unregister {
        device: DeviceIdentifier,
        pass: PassId,
        answer: Option<bool>,
    },
    /// `forget_device`
    Forget {
        device: DeviceIdentifier,
        unregistered_at: SystemTime,
        answer: Option<bool>,
    },
    /// `mark`, or `mark_and_push`
    Mark {
        type_id: TypeIdentifier,
        changed: Marked,
    },
    /// `changes_since`
    List {
        device: DeviceIdentifier,
        type_id: TypeIdentifier,
        since: Option<UpdateTag>,
        answer: Option<Changes>,
    },
    /// `pass_state`
    State {
        pass: PassId,
        answer: Option<PassState>,
    },
    /// `devices` of a pass. `from_start` is true if there was no cursor.
    Devices {
        pass: PassId,
        from_start: bool,
        answer: Option<Page<RegisteredDevice>>,
    },
    /// `devices` of a type. `from_start` is true if there was no cursor.
    DevicesOfType {
        type_id: TypeIdentifier,
        from_start: bool,
        answer: Option<Page<RegisteredDevice>>,
    },
    /// `count_devices`
    Count {
        pass: PassId,
        at_most: u64,
        answer: Option<u64>,
    },
}

/// What a call marked. Like [`Changed`], with owned values.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the variants have the names in `Changed`")]
pub enum Marked {
    Passes(Vec<SerialNumber>),
    Contents(Vec<Content>),
    All,
}

impl From<Changed<'_>> for Marked {
    fn from(changed: Changed<'_>) -> Self {
        match changed {
            Changed::Passes(serials) => Self::Passes(serials.to_vec()),
            Changed::Contents(contents) => Self::Contents(contents.to_vec()),
            Changed::All => Self::All,
        }
    }
}

/// The begin and end of a call. A call without an answer has no end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
}

impl Span {
    pub(super) fn over_before(self, time: u64) -> bool {
        self.end.is_some_and(|end| end < time)
    }

    /// Returns whether the call may have taken effect between the two times.
    pub(super) fn touches(self, begin: u64, end: u64) -> bool {
        self.begin < end && !self.over_before(begin)
    }
}

/// Finds the latest begin among the spans that have ended. The pairs are sorted by end. Each pair
/// has an end, and the latest begin of all spans up to that end.
#[derive(Debug, Default)]
pub(super) struct Newest(Vec<(u64, u64)>);

impl Newest {
    pub(super) fn of(spans: impl IntoIterator<Item = Span>) -> Self {
        let ends = spans
            .into_iter()
            .filter_map(|span| Some((span.end?, span.begin)));
        let mut ends: Vec<_> = ends.collect();
        ends.sort_unstable();
        let mut latest = 0;
        for (_, begin) in &mut ends {
            latest = latest.max(*begin);
            *begin = latest;
        }
        Self(ends)
    }

    /// Returns the latest begin of the spans that ended before `time`.
    pub(super) fn before(&self, time: u64) -> Option<u64> {
        let over = self.0.partition_point(|(end, _)| *end < time);
        self.0[..over].last().map(|(_, begin)| *begin)
    }
}

impl RecordedCall {
    pub(super) fn span(&self) -> Span {
        Span {
            begin: self.begin,
            end: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_the_spans_that_are_over_is_found() {
        let span = |begin, end| Span { begin, end };
        let newest = Newest::of([
            span(3, Some(9)),
            span(0, Some(2)),
            span(1, Some(6)),
            span(4, None),
        ]);
        let found = [2, 3, 6, 7, 9, 10].map(|time| newest.before(time));
        assert_eq!(found, [None, Some(0), Some(0), Some(1), Some(1), Some(3)]);
    }
}
