//! What happened to a pass, in the order of time.

use passkit_server::delivery::Event;

use super::facts::{PassFacts, Phone, Seen, Time};

/// At most this many of the last events are kept.
const ENTRIES: usize = 100;

/// Something that happened. If it happened more than once, the time is the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Time,
    pub(crate) event: What,
    pub(crate) count: u64,
    /// The version that the event was about. 0 if the event was not about a version.
    pub(crate) version: u64,
    /// The phone, if it is known.
    pub(crate) phone: Option<String>,
    /// More about it. The text may come from a stranger, and must be escaped.
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The pass changed.
    Changed,
    Recorded(Event),
}

impl What {
    /// Returns the name of the event, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Recorded(event) => event.name(),
        }
    }
}

/// Lists the last events of the pass and of these phones, the oldest first.
pub(super) fn of(pass: &PassFacts, phones: &[Phone]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = of_pass(pass)
        .chain(phones.iter().flat_map(of_phone))
        .collect();
    entries.sort_by(|one, other| {
        let key = |entry: &Entry| (entry.at, entry.event != What::Changed, entry.phone.clone());
        key(one).cmp(&key(other))
    });
    let surplus = entries.len().saturating_sub(ENTRIES);
    entries.drain(..surplus);
    entries
}

fn of_pass(pass: &PassFacts) -> impl Iterator<Item = Entry> {
    let changed = pass.changed_at().map(|at| Entry {
        at,
        event: What::Changed,
        count: 1,
        version: pass.version,
        phone: None,
        detail: String::new(),
    });
    let pushes = &pass.pushes;
    let single = [
        (Event::Fetched, &pass.fetched),
        (Event::Unchanged, &pass.unchanged),
        (Event::ContentChanged, &pass.content_changed),
        (Event::PushAccepted, &pushes.accepted),
        (Event::PushEnded, &pushes.ended),
    ];
    let single = single
        .into_iter()
        .filter_map(|(event, seen)| Some((event, seen.as_ref()?)));
    let refused = pass
        .refused
        .iter()
        .map(|(it, seen)| (Event::Refused(*it), seen));
    let failed = pushes
        .failed
        .iter()
        .map(|(it, seen)| (Event::PushFailed(*it), seen));
    let complaints = pass
        .complaints
        .iter()
        .map(|(it, seen)| (Event::Complaint(*it), seen));
    let recorded = single.chain(refused).chain(failed).chain(complaints);
    changed
        .into_iter()
        .chain(recorded.map(|(event, seen)| entry(event, seen, None)))
}

fn of_phone(phone: &Phone) -> impl Iterator<Item = Entry> {
    let seen = |at: Time| Seen {
        at,
        count: 1,
        version: 0,
        detail: String::new(),
    };
    let times = [
        (Event::Registered, phone.registered),
        // A call whose answer has a change is both.
        (
            Event::Asked,
            phone.asked.filter(|asked| phone.told != Some(*asked)),
        ),
        (Event::Told, phone.told),
    ];
    let times = times
        .into_iter()
        .filter_map(move |(event, at)| Some(entry(event, &seen(at?), Some(&phone.name))));
    let failure = phone.failure.iter();
    let failure = failure.map(|(it, seen)| entry(Event::PushFailed(*it), seen, Some(&phone.name)));
    times.chain(failure)
}

fn entry(event: Event, seen: &Seen, phone: Option<&str>) -> Entry {
    Entry {
        at: seen.at,
        event: What::Recorded(event),
        count: seen.count,
        version: seen.version,
        phone: phone.map(str::to_owned),
        detail: seen.detail.clone(),
    }
}
