//! What was asked of a store and what it answered, with begin and end of each call, and whether a store that keeps
//! the contract could have answered so.
//!
//! A [`Recorder`] is a store that writes down what another one is asked; [`History::check`] judges the whole
//! afterwards. A test of a crash or a failover wraps its store in one, breaks it while tasks are at work, goes on
//! [over](Recorder::over) the store that comes up again, and checks what both have answered:
//!
//! ```
//! # use std::sync::Arc;
//! # use passkit_conformance::store::history::Recorder;
//! # use passkit_server::{DeviceIdentifier, MemoryStore, PassId, PushToken, RegistrationStore};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (device, pass) = (DeviceIdentifier::new("d")?, PassId::new("pass.a", "1")?);
//! # let token = PushToken::new("c0ffee")?;
//! # let (before, after) = (MemoryStore::new(), MemoryStore::new());
//! let recorder = Recorder::new(Arc::new(before));
//! recorder.register(&device, &pass, &token).await?;
//! let recorder = recorder.over(Arc::new(after)); // Which has forgotten everything.
//! recorder.updated_since(&device, &pass.type_id, None).await?;
//! let breach = recorder.history().check().unwrap_err();
//! assert_eq!(breach.rule().id(), "updated_since");
//! # Ok(()) }
//! ```

mod dates;
mod lists;
mod recorder;
mod registrations;

use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, PassId, PassState, PushToken, Registered, SerialNumber,
    TypeIdentifier, UpdateTag,
};

pub use self::recorder::Recorder;
use crate::breach::Kept;

/// All calls on a store, from a time on when none of the devices in them was registered.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The calls, in the order of their begins.
    pub calls: Vec<Call>,
}

/// A call on a store.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began. Only the order of times counts: a call whose end is less than the begin of another was over
    /// before that began.
    pub begin: u64,
    /// When it was answered. A call that failed or was given up has no end: it may happen at any time, or never.
    pub end: Option<u64>,
    /// What was asked, and answered if it was.
    pub event: Event,
}

/// What a call asked for. Without an `answer` it failed or was given up.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are those of the trait's arguments")]
pub enum Event {
    /// `register`
    Register { device: DeviceIdentifier, pass: PassId, push_token: PushToken, answer: Option<Registered> },
    /// `unregister`
    Unregister { device: DeviceIdentifier, pass: PassId, answer: Option<bool> },
    /// `forget_device`
    Forget { device: DeviceIdentifier, answer: Option<bool> },
    /// `mark_updated`
    Mark { type_id: TypeIdentifier, serials: Vec<SerialNumber> },
    /// `mark_all_updated`
    MarkAll { type_id: TypeIdentifier },
    /// `updated_since`
    List {
        device: DeviceIdentifier,
        type_id: TypeIdentifier,
        since: Option<UpdateTag>,
        answer: Option<Changes>,
    },
    /// `pass_state`
    State { pass: PassId, answer: Option<PassState> },
    /// `devices_of`; `from_start` if it had no cursor
    Devices { pass: PassId, from_start: bool, answer: Option<DevicePage> },
}

impl History {
    /// Whether a store that keeps the contract could have given these answers.
    ///
    /// * The answers of `register` and `unregister` add up, for each registration, in some order that the times allow
    ///   (C10).
    /// * A device that asks with the tags it was given is told of every mark and every registration after it began,
    ///   and of nothing when nothing happened (C1, C2, C3, C9); its tags never go back (C4).
    /// * Lists and pages hold what must be registered and not what can't be, with a push token that may be the last.
    /// * Versions and dates go forward together with each mark, and never otherwise (C14).
    ///
    /// Of calls that overlap any order is allowed, so a history that passes may still hide a fault; one that fails
    /// does not come from a store that keeps the contract.
    ///
    /// # Errors
    /// The first breach.
    pub fn check(&self) -> Kept {
        let registrations = registrations::Registrations::of(self);
        registrations.add_up()?;
        registrations.pages(self)?;
        lists::check(self, &registrations)?;
        dates::check(self)
    }
}

/// When something happened: its end is open if it was never answered.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: u64,
    end: Option<u64>,
}

impl Span {
    fn over_before(self, time: u64) -> bool {
        self.end.is_some_and(|end| end < time)
    }

    /// Whether it may have happened between the two times.
    fn touches(self, begin: u64, end: u64) -> bool {
        self.begin < end && !self.over_before(begin)
    }
}

impl Call {
    fn span(&self) -> Span {
        Span { begin: self.begin, end: self.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceIdentifier {
        DeviceIdentifier::new("d").unwrap()
    }

    fn pass() -> PassId {
        PassId::new("pass.a", "1").unwrap()
    }

    fn register(answer: Registered) -> Event {
        let push_token = PushToken::new("c0").unwrap();
        Event::Register { device: device(), pass: pass(), push_token, answer: Some(answer) }
    }

    fn unregister(answer: bool) -> Event {
        Event::Unregister { device: device(), pass: pass(), answer: Some(answer) }
    }

    fn mark() -> Event {
        Event::Mark { type_id: pass().type_id, serials: vec![pass().serial] }
    }

    fn tag(version: u64) -> UpdateTag {
        UpdateTag { type_version: version, device_version: version }
    }

    /// A list asked with one tag, and what it answered with another.
    fn list(since: Option<u64>, listed: bool, with: u64) -> Event {
        let serials = if listed { vec![pass().serial] } else { Vec::new() };
        let (type_id, answer) = (pass().type_id, Some(Changes { serials, tag: tag(with) }));
        Event::List { device: device(), type_id, since: since.map(tag), answer }
    }

    fn state(version: u64, last_modified: u64) -> Event {
        Event::State { pass: pass(), answer: Some(PassState { version, last_modified }) }
    }

    /// The id of the rule that is broken, if one is.
    fn broken(calls: impl IntoIterator<Item = (u64, Option<u64>, Event)>) -> Option<&'static str> {
        let calls = calls.into_iter().map(|(begin, end, event)| Call { begin, end, event }).collect();
        History { calls }.check().err().map(|breach| breach.rule().id())
    }

    /// One call after the other.
    fn in_turn<const N: usize>(events: [Event; N]) -> Option<&'static str> {
        broken(events.into_iter().zip(0..).map(|(event, n)| (2 * n, Some(2 * n + 1), event)))
    }

    #[test]
    fn answers_about_one_registration_add_up() {
        use Registered::{Created, Existing};
        assert_eq!(
            in_turn([register(Created), register(Existing), unregister(true), unregister(false)]),
            None
        );
        assert_eq!(in_turn([register(Created), register(Created)]), Some("C10"));
        assert_eq!(in_turn([register(Existing)]), Some("C10"));
        assert_eq!(in_turn([register(Created), unregister(false)]), Some("C10"));
        // At once, in either order; what was never answered explains either.
        let both = |second| {
            broken([(0, Some(2), register(Created)), (1, Some(3), unregister(true)), (4, Some(5), second)])
        };
        assert_eq!(both(register(Created)), None);
        assert_eq!(both(register(Existing)), Some("C10"));
        let unanswered = |answer| {
            broken([
                (0, Some(1), register(Created)),
                (2, None, unregister(true)),
                (3, Some(4), register(answer)),
            ])
        };
        assert_eq!((unanswered(Created), unanswered(Existing)), (None, None));
    }

    #[test]
    fn marks_and_registrations_are_told() {
        use Registered::Created;
        let told =
            [register(Created), list(None, true, 1), mark(), list(Some(1), true, 2), list(Some(2), false, 2)];
        assert_eq!(in_turn(told), None);
        assert_eq!(
            in_turn([register(Created), list(None, true, 1), mark(), list(Some(1), false, 1)]),
            Some("C1")
        );
        let all = Event::MarkAll { type_id: pass().type_id };
        assert_eq!(
            in_turn([register(Created), list(None, true, 1), all, list(Some(1), false, 1)]),
            Some("C9")
        );
        let back = [
            register(Created),
            list(None, true, 1),
            unregister(true),
            register(Created),
            list(Some(1), false, 1),
        ];
        assert_eq!(in_turn(back), Some("C3"));
        assert_eq!(in_turn([register(Created), list(None, true, 2), list(Some(2), true, 3)]), Some("C2"));
        assert_eq!(
            in_turn([register(Created), list(None, true, 2), mark(), list(Some(2), true, 2)]),
            Some("C4")
        );
        assert_eq!(
            in_turn([register(Created), list(None, true, 2), mark(), list(Some(2), true, 1)]),
            Some("C4")
        );
        assert_eq!(in_turn([register(Created), list(None, false, 2)]), Some("updated_since"));
        assert_eq!(in_turn([list(None, true, 2)]), Some("updated_since"));
        // A list beside the mark may name the pass for it, or not.
        for listed in [false, true] {
            let since = if listed { 2 } else { 1 };
            let beside = broken([
                (0, Some(1), register(Created)),
                (2, Some(3), list(None, true, 1)),
                (4, Some(7), mark()),
                (5, Some(6), list(Some(1), listed, since)),
                (8, Some(9), list(Some(since), !listed, 3)),
            ]);
            assert_eq!(beside, None);
        }
    }

    #[test]
    fn dates_follow_marks() {
        assert_eq!(in_turn([state(0, 5), mark(), state(9, 6), state(9, 6)]), None);
        assert_eq!(in_turn([state(0, 5), mark(), state(0, 5)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), state(9, 6)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), mark(), state(9, 5)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), mark(), state(7, 4)]), Some("C14"));
        // Torn: the new version beside the old date.
        let torn = [(0, Some(1), state(8, 5)), (2, Some(9), mark()), (3, Some(4), state(9, 5))];
        assert_eq!(broken(torn), Some("C14"));
    }

    #[test]
    fn pages_show_who_is_registered() {
        let page = |devices: &[&str], token: &str| {
            let one = |id: &&str| passkit_server::RegisteredDevice {
                device: DeviceIdentifier::new(id).unwrap(),
                push_token: PushToken::new(token).unwrap(),
            };
            let answer = Some(DevicePage { devices: devices.iter().map(one).collect(), next: None });
            Event::Devices { pass: pass(), from_start: true, answer }
        };
        let created = || register(Registered::Created);
        assert_eq!(in_turn([created(), page(&["d"], "c0")]), None);
        assert_eq!(in_turn([created(), page(&[], "c0")]), Some("C11"));
        assert_eq!(in_turn([created(), unregister(true), page(&["d"], "c0")]), Some("unregister"));
        assert_eq!(in_turn([created(), page(&["d"], "c1")]), Some("C10"));
    }
}
