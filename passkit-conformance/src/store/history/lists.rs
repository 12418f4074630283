//! Whether devices were given what they had to be given.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use passkit_server::{
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    store::{Changes, UpdateTag},
};

use super::{
    Event, History, Span,
    marks::{Marks, MarksOfType},
    registrations::Registrations,
};
use crate::{Rule, Violation, violation::ensure};

/// An answer with serial numbers.
struct Answered<'h> {
    begin: u64,
    end: u64,
    tag: UpdateTag,
    /// By pass, when a list last named it, on the way to this answer.
    last: Rc<HashMap<&'h SerialNumber, u64>>,
}

struct Asked<'h> {
    device: &'h DeviceIdentifier,
    type_id: &'h TypeIdentifier,
    since: Option<UpdateTag>,
    begin: u64,
    end: u64,
}

pub(super) fn check(
    history: &History,
    registrations: &Registrations<'_>,
    marks: &Marks<'_>,
) -> Result<(), Violation> {
    let mut answered: HashMap<_, Vec<Answered<'_>>> = HashMap::new();
    // In the order of their begins: an answer was there before its tag was asked with.
    let mut lists: Vec<_> = history.calls.iter().collect();
    lists.sort_by_key(|call| call.begin);
    for call in lists {
        let (Event::List { device, type_id, since, answer: Some(answer) }, Some(end)) =
            (&call.event, call.end)
        else {
            continue;
        };
        let asked = Asked { device, type_id, since: *since, begin: call.begin, end };
        let before = answered.entry((device, type_id)).or_default();
        before.extend(asked.check(answer, before, marks.of_type(type_id), registrations)?);
    }
    Ok(())
}

impl<'h> Asked<'h> {
    /// Holds the answer against what happened `before`, and returns what the device knows by it.
    fn check(
        &self,
        answer: &'h Changes,
        before: &[Answered<'h>],
        marks: &MarksOfType<'_>,
        registrations: &Registrations<'h>,
    ) -> Result<Option<Answered<'h>>, Violation> {
        let serials: HashSet<_> = answer.serials.iter().collect();
        ensure(
            Rule::CHANGES_SINCE,
            serials.len() == answer.serials.len(),
            "each serial number once",
            || format!("{} serial numbers of which {} differ", answer.serials.len(), serials.len()),
        )?;
        if !serials.is_empty() {
            self.forward(answer.tag, before)?;
        }

        // The answers that gave this tag; the device had one of them.
        let given = |answered: &&Answered<'_>| Some(answered.tag) == self.since && answered.end < self.begin;
        let mut last: HashMap<&SerialNumber, u64> = HashMap::new();
        for answered in before.iter().filter(given) {
            for (serial, time) in &*answered.last {
                let latest = last.entry(serial).or_default();
                *latest = (*latest).max(*time);
            }
        }
        last.extend(serials.iter().map(|serial| (*serial, self.end)));
        let known = before.iter().filter(given).map(|answered| answered.begin).max();
        if let Some(known) = known
            && !marks
                .all()
                .chain(registrations.registers(self.device))
                .any(|span| span.touches(known, self.end))
        {
            ensure(
                Rule::C2,
                serials.is_empty(),
                "nothing listed when nothing was marked or registered since the tag was issued",
                || format!("{} serial numbers", serials.len()),
            )?;
        }

        let registered: HashMap<_, _> = registrations
            .of_device(self.device)
            .filter(|(pass, _)| pass.type_id == *self.type_id)
            .map(|(pass, changes)| (&pass.serial, changes))
            .collect();
        for serial in &serials {
            let here =
                registered.get(serial).is_some_and(|changes| !changes.surely_absent(self.begin, self.end));
            ensure(Rule::CHANGES_SINCE, here, "only passes that are registered on the device", || {
                format!("{serial:?}, which was not registered all the while")
            })?;
        }
        for (serial, changes) in registered {
            if serials.contains(serial) || !changes.surely_present(self.begin, self.end) {
                continue;
            }
            if self.since.is_none() {
                let expected = "all passes registered on the device, asked without a tag";
                return Err(Violation::new(Rule::CHANGES_SINCE, expected, format!("no {serial:?}")));
            }
            // Asked with a tag that this device was never given, anything goes.
            if known.is_none() {
                continue;
            }
            let newest = |spans: &[Span]| {
                spans.iter().filter(|span| span.over_before(self.begin)).map(|span| span.begin).max()
            };
            let causes = [
                (changes.last_register(self.begin), Rule::C3, "registered"),
                (newest(marks.certain_of(serial)), Rule::C1, "marked"),
                (newest(&marks.whole), Rule::C9, "marked with its whole type"),
            ];
            let answered = last.get(serial).copied();
            for (since, rule, what) in causes {
                ensure(
                    rule,
                    since <= answered,
                    format!("{serial:?} listed: it was {what} before this list began"),
                    || format!("no list since names it, up to one asked with {:?}", self.since),
                )?;
            }
        }
        Ok((!serials.is_empty()).then(|| Answered {
            begin: self.begin,
            end: self.end,
            tag: answer.tag,
            last: Rc::new(last),
        }))
    }

    fn forward(&self, tag: UpdateTag, before: &[Answered<'_>]) -> Result<(), Violation> {
        ensure(
            Rule::C4,
            Some(tag) != self.since,
            "another tag than the one asked with, beside serial numbers",
            || format!("the same tag {tag}"),
        )?;
        for answered in before.iter().filter(|answered| answered.end < self.begin) {
            let last = answered.tag;
            let forward = tag.type_version >= last.type_version && tag.device_version >= last.device_version;
            ensure(Rule::C4, forward, format!("a tag not before {last}"), || tag.to_string())?;
        }
        Ok(())
    }
}
