//! Records the calls to a store and its answers, with the start and end of each call. Afterwards,
//! checks whether a store that keeps the contract could have given these answers.
//!
//! A [`Recorder`] wraps a store and records the calls. [`History::check`] checks them. To test a
//! crash or a failover, wrap a store in a recorder, and break the store while tasks use it.
//! Continue with [`Recorder::over`] on the store that was started again. Then check all answers:
//!
//! ```
//! # use std::sync::Arc;
//! # use passkit_conformance::store::history::Recorder;
//! # use passkit_server::{PassId, identifiers::{DeviceIdentifier, PushToken}, store::{MemoryStore, RegistrationStore}};
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (device, pass) = (DeviceIdentifier::new("d")?, PassId::new("pass.a", "1")?);
//! # let token = PushToken::new("c0ffee")?;
//! # let (before, after) = (MemoryStore::new(), MemoryStore::new());
//! let recorder = Recorder::new(Arc::new(before));
//! recorder.register(&device, &pass, &token).await?;
//! let recorder = recorder.over(Arc::new(after)); // This store has lost everything.
//! recorder.changes_since(&device, &pass.type_id, None).await?;
//! let violation = recorder.history().check().unwrap_err();
//! assert_eq!(violation.rule().id(), "changes_since");
//! # Ok(()) }
//! ```

mod dates;
mod lists;
mod marks;
mod record;
mod recorder;
mod registrations;

pub use self::{
    record::{Event, History, Marked, RecordedCall},
    recorder::Recorder,
};
use crate::Violation;

impl History {
    /// Checks whether a store that keeps the contract could have given these answers:
    ///
    /// * For each registration, the start and end times of the calls allow an order in which all
    ///   answers of `register` and `unregister` are correct (C10).
    /// * The lists of a device that asks with its last tags name every marked and every registered
    ///   pass. If nothing happened, the lists are empty (C1, C2, C3, C9). The tags never go back
    ///   (C4).
    /// * Lists, pages and counts contain every registration that must exist, and none that can't
    ///   exist. A push token may be the last token that the device sent.
    /// * A registered device is forgotten if the given time is more than a day in the future. It is
    ///   kept if the time is more than a day in the past (C13). Times in between are not checked.
    /// * Each mark moves both version and date forward, and nothing else moves them (C14). The
    ///   first publication of a digest marks the pass. A later publication of the same digest may
    ///   or may not mark the pass (P1, P2).
    ///
    /// Overlapping calls may have happened in any order. A history that passes may therefore still
    /// hide a fault. A history that fails proves that the store breaks the contract.
    ///
    /// # Errors
    /// Returns the first violation that is found.
    pub fn check(&self) -> Result<(), Violation> {
        let registrations = registrations::Registrations::of(self);
        registrations.add_up()?;
        registrations.pages(self)?;
        registrations.forgets(self)?;
        let marks = marks::Marks::of(self);
        lists::check(self, &registrations, &marks)?;
        dates::check(self, &marks)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use passkit_server::{
        PassId, PassState,
        identifiers::{DeviceIdentifier, PushToken},
        store::{Changes, Content, Page, Registered, RegisteredDevice, UpdateTag},
    };

    use super::*;

    fn device() -> DeviceIdentifier {
        DeviceIdentifier::new("d").unwrap()
    }

    fn pass() -> PassId {
        PassId::new("pass.a", "1").unwrap()
    }

    fn register(answer: Registered) -> Event {
        let push_token = PushToken::new("c0").unwrap();
        Event::Register {
            device: device(),
            pass: pass(),
            push_token,
            answer: Some(answer),
        }
    }

    fn unregister(answer: bool) -> Event {
        Event::Unregister {
            device: device(),
            pass: pass(),
            answer: Some(answer),
        }
    }

    fn mark() -> Event {
        Event::Mark {
            type_id: pass().type_id,
            changed: Marked::Passes(vec![pass().serial]),
        }
    }

    fn mark_all() -> Event {
        Event::Mark {
            type_id: pass().type_id,
            changed: Marked::All,
        }
    }

    fn publish(digest: Option<u8>) -> Event {
        let digest = digest.map(|digest| [digest; 32]);
        let content = Content {
            serial: pass().serial,
            digest,
            tokens: Vec::new(),
        };
        Event::Mark {
            type_id: pass().type_id,
            changed: Marked::Contents(vec![content]),
        }
    }

    fn tag(version: u64) -> UpdateTag {
        UpdateTag {
            type_version: version,
            device_version: version,
        }
    }

    /// A list for the tag `since`, whose answer has the tag `with`.
    fn list(since: Option<u64>, listed: bool, with: u64) -> Event {
        let serials = if listed {
            vec![pass().serial]
        } else {
            Vec::new()
        };
        let (type_id, answer) = (
            pass().type_id,
            Some(Changes {
                serials,
                tag: tag(with),
            }),
        );
        Event::List {
            device: device(),
            type_id,
            since: since.map(tag),
            answer,
        }
    }

    fn state(version: u64, last_modified: u64) -> Event {
        Event::State {
            pass: pass(),
            answer: Some(PassState {
                version,
                last_modified,
                published: None,
            }),
        }
    }

    /// Returns the id of the broken rule, if a rule is broken.
    fn broken(calls: impl IntoIterator<Item = (u64, Option<u64>, Event)>) -> Option<&'static str> {
        let calls = calls
            .into_iter()
            .map(|(begin, end, event)| RecordedCall { begin, end, event })
            .collect();
        History { calls }
            .check()
            .err()
            .map(|violation| violation.rule().id())
    }

    /// Like [`broken`], for calls that do not overlap.
    fn in_turn<const N: usize>(events: [Event; N]) -> Option<&'static str> {
        broken(
            events
                .into_iter()
                .zip(0..)
                .map(|(event, n)| (2 * n, Some(2 * n + 1), event)),
        )
    }

    #[test]
    fn answers_about_one_registration_add_up() {
        use Registered::{Created, Existing};
        assert_eq!(
            in_turn([
                register(Created),
                register(Existing),
                unregister(true),
                unregister(false)
            ]),
            None
        );
        assert_eq!(in_turn([register(Created), register(Created)]), Some("C10"));
        assert_eq!(in_turn([register(Existing)]), Some("C10"));
        assert_eq!(in_turn([register(Created), unregister(false)]), Some("C10"));
        // Two overlapping calls may happen in either order. A call without an answer may or may not
        // have happened.
        let both = |second| {
            broken([
                (0, Some(2), register(Created)),
                (1, Some(3), unregister(true)),
                (4, Some(5), second),
            ])
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
        // A call takes effect at some moment between its begin and its end. So a forget may remove
        // a registration that was made after the forget began.
        let far = SystemTime::now() + std::time::Duration::from_secs(9 * 86_400);
        let forget = Event::Forget {
            device: device(),
            unregistered_at: far,
            answer: Some(true),
        };
        let beside_forget = |answer| {
            broken([
                (0, Some(9), forget.clone()),
                (1, Some(2), unregister(false)),
                (3, Some(4), register(Created)),
                (5, Some(6), register(answer)),
                (7, Some(8), register(Existing)),
            ])
        };
        assert_eq!(
            (beside_forget(Created), beside_forget(Existing)),
            (None, None)
        );
        let ended = broken([
            (0, Some(3), forget.clone()),
            (1, Some(2), register(Created)),
            (4, Some(5), register(Existing)),
            (6, Some(7), register(Created)),
        ]);
        assert_eq!(ended, Some("C10"));
    }

    #[test]
    fn marks_and_registrations_are_listed() {
        use Registered::Created;
        let listed = [
            register(Created),
            list(None, true, 1),
            mark(),
            list(Some(1), true, 2),
            list(Some(2), false, 2),
        ];
        assert_eq!(in_turn(listed), None);
        assert_eq!(
            in_turn([
                register(Created),
                list(None, true, 1),
                mark(),
                list(Some(1), false, 1)
            ]),
            Some("C1")
        );
        assert_eq!(
            in_turn([
                register(Created),
                list(None, true, 1),
                mark_all(),
                list(Some(1), false, 1)
            ]),
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
        assert_eq!(
            in_turn([
                register(Created),
                list(None, true, 2),
                list(Some(2), true, 3)
            ]),
            Some("C2")
        );
        assert_eq!(
            in_turn([
                register(Created),
                list(None, true, 2),
                mark(),
                list(Some(2), true, 2)
            ]),
            Some("C4")
        );
        assert_eq!(
            in_turn([
                register(Created),
                list(None, true, 2),
                mark(),
                list(Some(2), true, 1)
            ]),
            Some("C4")
        );
        assert_eq!(
            in_turn([register(Created), list(None, false, 2)]),
            Some("changes_since")
        );
        assert_eq!(in_turn([list(None, true, 2)]), Some("changes_since"));
        // A list that overlaps the mark may name the pass or not.
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
        assert_eq!(
            in_turn([state(0, 5), mark(), state(9, 6), state(9, 6)]),
            None
        );
        assert_eq!(in_turn([state(0, 5), mark(), state(0, 5)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), state(9, 6)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), mark(), state(9, 5)]), Some("C14"));
        assert_eq!(in_turn([state(8, 5), mark(), state(7, 4)]), Some("C14"));
        // The new version with the old date.
        let torn = [
            (0, Some(1), state(8, 5)),
            (2, Some(9), mark()),
            (3, Some(4), state(9, 5)),
        ];
        assert_eq!(broken(torn), Some("C14"));
    }

    #[test]
    fn pages_show_who_is_registered() {
        let answer = |devices: &[&str], token: &str| {
            let one = |id: &&str| RegisteredDevice {
                device: DeviceIdentifier::new(id).unwrap(),
                push_token: PushToken::new(token).unwrap(),
            };
            Some(Page {
                items: devices.iter().map(one).collect(),
                next: None,
            })
        };
        let created = || register(Registered::Created);
        for of_type in [false, true] {
            let page = |devices: &[&str], token: &str| {
                let (answer, from_start) = (answer(devices, token), true);
                match of_type {
                    false => Event::Devices {
                        pass: pass(),
                        from_start,
                        answer,
                    },
                    true => Event::DevicesOfType {
                        type_id: pass().type_id,
                        from_start,
                        answer,
                    },
                }
            };
            assert_eq!(in_turn([created(), page(&["d"], "c0")]), None);
            assert_eq!(in_turn([created(), page(&[], "c0")]), Some("C11"));
            assert_eq!(
                in_turn([created(), unregister(true), page(&["d"], "c0")]),
                Some("unregister")
            );
            assert_eq!(in_turn([created(), page(&["d"], "c1")]), Some("C10"));
        }
        let count = |at_most, count| Event::Count {
            pass: pass(),
            at_most,
            answer: Some(count),
        };
        assert_eq!(
            in_turn([
                count(5, 0),
                created(),
                count(5, 1),
                count(0, 0),
                count(0, 1)
            ]),
            None
        );
        assert_eq!(in_turn([created(), count(5, 0)]), Some("count_devices"));
        assert_eq!(in_turn([created(), count(5, 2)]), Some("count_devices"));
    }

    #[test]
    fn devices_are_forgotten_in_time() {
        let forget = |days: i64, answer| {
            let day = Duration::from_secs(86_400 * days.unsigned_abs());
            let now = SystemTime::now();
            let unregistered_at = if days < 0 { now - day } else { now + day };
            Event::Forget {
                device: device(),
                unregistered_at,
                answer: Some(answer),
            }
        };
        let created = || register(Registered::Created);
        assert_eq!(
            in_turn([created(), forget(9, true), forget(9, false), created()]),
            None
        );
        assert_eq!(
            in_turn([created(), forget(-9, false), unregister(true)]),
            None
        );
        assert_eq!(in_turn([created(), forget(9, false)]), Some("C13"));
        assert_eq!(in_turn([created(), forget(-9, true)]), Some("C13"));
        assert_eq!(in_turn([forget(9, true)]), Some("C13"));
        assert_eq!(
            in_turn([created(), unregister(true), forget(9, true)]),
            Some("C13")
        );
        assert_eq!(
            in_turn([created(), forget(9, true), register(Registered::Existing)]),
            Some("C10")
        );
        // The forget overlaps all other calls. It may take effect between the two registers,
        // although the registration did not exist when the forget began.
        let other = Event::Register {
            device: device(),
            pass: PassId::new("pass.a", "2").unwrap(),
            push_token: PushToken::new("c0").unwrap(),
            answer: Some(Registered::Created),
        };
        let between = [
            (0, Some(1), other),
            (2, Some(9), forget(9, true)),
            (3, Some(4), unregister(false)),
            (5, Some(6), created()),
            (7, Some(8), created()),
        ];
        assert_eq!(broken(between), None);
        // Here the forget began before the first register and took effect after it.
        let late = [
            (0, Some(5), forget(9, true)),
            (1, Some(2), created()),
            (3, Some(4), created()),
        ];
        assert_eq!(broken(late), None);
        // Two overlapping calls of forget both removed something. The last register may or may not
        // find a registration.
        let two = |last| {
            broken([
                (0, Some(1), created()),
                (2, Some(20), forget(9, true)),
                (3, Some(21), forget(9, true)),
                (4, Some(6), created()),
                (22, Some(23), register(last)),
            ])
        };
        assert_eq!(
            (two(Registered::Created), two(Registered::Existing)),
            (None, None)
        );
        // If the time is close to now, or if the forget overlaps a register, both answers are
        // possible.
        assert_eq!(
            in_turn([created(), forget(0, false), unregister(true)]),
            None
        );
        for answer in [false, true] {
            assert_eq!(
                broken([(0, Some(2), created()), (1, Some(3), forget(9, answer))]),
                None
            );
        }
    }

    #[test]
    fn contents_mark_when_they_are_new() {
        let created = || register(Registered::Created);
        let start = || [created(), list(None, true, 1)];
        let then = |events: &[Event]| {
            let all = start().into_iter().chain(events.iter().cloned()).zip(0..);
            broken(all.map(|(event, n)| (2 * n, Some(2 * n + 1), event)))
        };
        assert_eq!(then(&[publish(Some(1)), list(Some(1), true, 2)]), None);
        assert_eq!(
            then(&[publish(Some(1)), list(Some(1), false, 1)]),
            Some("C1")
        );
        // A removal does not mark the pass. Publishing an earlier digest again may mark it.
        assert_eq!(then(&[publish(None), list(Some(1), false, 1)]), None);
        assert_eq!(then(&[publish(None), list(Some(1), true, 2)]), Some("C2"));
        for listed in [false, true] {
            let again = [
                publish(Some(1)),
                list(Some(1), true, 2),
                publish(Some(1)),
                list(Some(2), listed, 3),
            ];
            assert_eq!(then(&again), None);
        }
        assert_eq!(
            in_turn([state(0, 5), publish(Some(1)), state(0, 5)]),
            Some("C14")
        );
        assert_eq!(
            in_turn([state(0, 5), publish(None), state(1, 6)]),
            Some("C14")
        );
        assert_eq!(in_turn([state(0, 5), mark_all(), state(1, 6)]), None);
        // Of two overlapping publications, one marked the pass between the first begin and the
        // first end.
        let both = |at, until, event| {
            broken([
                (0, Some(1), state(0, 5)),
                (2, Some(7), publish(Some(1))),
                (3, Some(6), publish(Some(1))),
                (at, Some(until), event),
            ])
        };
        assert_eq!(both(8, 9, state(0, 5)), Some("C14"));
        assert_eq!(both(4, 5, state(0, 5)), None);
    }
}
