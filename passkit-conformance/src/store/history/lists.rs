//! Whether devices were told what they had to be told.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use passkit_server::{Changes, DeviceIdentifier, SerialNumber, TypeIdentifier, UpdateTag};

use super::{Event, History, Span, registrations::Registrations};
use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

/// The marks of a type.
#[derive(Default)]
struct Marks<'h> {
    /// Of any kind.
    all: Vec<Span>,
    whole: Vec<Span>,
    by_serial: HashMap<&'h SerialNumber, Vec<Span>>,
}

/// An answer with serial numbers.
struct Told<'h> {
    begin: u64,
    end: u64,
    tag: UpdateTag,
    /// By pass, when the device was last told of it, on the way to this answer.
    last: Rc<HashMap<&'h SerialNumber, u64>>,
}

struct Asked<'h> {
    device: &'h DeviceIdentifier,
    type_id: &'h TypeIdentifier,
    since: Option<UpdateTag>,
    begin: u64,
    end: u64,
}

pub(super) fn check(history: &History, registrations: &Registrations<'_>) -> Kept {
    let mut marks: HashMap<&TypeIdentifier, Marks<'_>> = HashMap::new();
    for call in &history.calls {
        match &call.event {
            Event::Mark { type_id, serials } => {
                let marks = marks.entry(type_id).or_default();
                marks.all.push(call.span());
                for serial in serials {
                    marks.by_serial.entry(serial).or_default().push(call.span());
                }
            }
            Event::MarkAll { type_id } => {
                let marks = marks.entry(type_id).or_default();
                marks.all.push(call.span());
                marks.whole.push(call.span());
            }
            _ => {}
        }
    }
    let unmarked = Marks::default();
    let mut told: HashMap<_, Vec<Told<'_>>> = HashMap::new();
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
        let before = told.entry((device, type_id)).or_default();
        let marks = marks.get(type_id).unwrap_or(&unmarked);
        before.extend(asked.check(answer, before, marks, registrations)?);
    }
    Ok(())
}

impl<'h> Asked<'h> {
    /// Holds the answer against what happened `before`, and returns what the device knows by it.
    fn check(
        &self,
        answer: &'h Changes,
        before: &[Told<'h>],
        marks: &Marks<'h>,
        registrations: &Registrations<'h>,
    ) -> Result<Option<Told<'h>>, Breach> {
        let serials: HashSet<_> = answer.serials.iter().collect();
        demand(
            Rule::UPDATED_SINCE,
            serials.len() == answer.serials.len(),
            "each serial number once",
            || format!("{} serial numbers of which {} differ", answer.serials.len(), serials.len()),
        )?;
        if !serials.is_empty() {
            self.forward(answer.tag, before)?;
        }

        // The answers that gave this tag; the device had one of them.
        let given = |told: &&Told<'_>| Some(told.tag) == self.since && told.end < self.begin;
        let mut last: HashMap<&SerialNumber, u64> = HashMap::new();
        for told in before.iter().filter(given) {
            for (serial, time) in &*told.last {
                let latest = last.entry(serial).or_default();
                *latest = (*latest).max(*time);
            }
        }
        last.extend(serials.iter().map(|serial| (*serial, self.end)));
        let known = before.iter().filter(given).map(|told| told.begin).max();
        if let Some(known) = known
            && !marks
                .all
                .iter()
                .copied()
                .chain(registrations.registers(self.device))
                .any(|span| span.touches(known, self.end))
        {
            demand(
                Rule::C2,
                serials.is_empty(),
                "nothing listed when nothing was marked or registered since the tag was issued",
                || format!("{} serial numbers", serials.len()),
            )?;
        }

        let held: HashMap<_, _> = registrations
            .of_device(self.device)
            .filter(|(pass, _)| pass.type_id == *self.type_id)
            .map(|(pass, changes)| (&pass.serial, changes))
            .collect();
        for serial in &serials {
            let here = held.get(serial).is_some_and(|changes| !changes.surely_absent(self.begin, self.end));
            demand(Rule::UPDATED_SINCE, here, "only passes that are registered on the device", || {
                format!("{serial:?}, which was not registered all the while")
            })?;
        }
        for (serial, changes) in held {
            if serials.contains(serial) || !changes.surely_present(self.begin, self.end) {
                continue;
            }
            if self.since.is_none() {
                let expected = "all passes registered on the device, asked without a tag";
                return Err(Breach::new(Rule::UPDATED_SINCE, expected, format!("no {serial:?}")));
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
                (marks.by_serial.get(serial).and_then(|spans| newest(spans)), Rule::C1, "marked"),
                (newest(&marks.whole), Rule::C9, "marked with its whole type"),
            ];
            let told = last.get(serial).copied();
            for (since, rule, what) in causes {
                demand(
                    rule,
                    since <= told,
                    format!("{serial:?} listed: it was {what} before this list began"),
                    || format!("no list since names it, up to one asked with {:?}", self.since),
                )?;
            }
        }
        Ok((!serials.is_empty()).then(|| Told {
            begin: self.begin,
            end: self.end,
            tag: answer.tag,
            last: Rc::new(last),
        }))
    }

    fn forward(&self, tag: UpdateTag, before: &[Told<'_>]) -> Kept {
        demand(
            Rule::C4,
            Some(tag) != self.since,
            "another tag than the one asked with, beside serial numbers",
            || format!("the same tag {tag}"),
        )?;
        for told in before.iter().filter(|told| told.end < self.begin) {
            let last = told.tag;
            let forward = tag.type_version >= last.type_version && tag.device_version >= last.device_version;
            demand(Rule::C4, forward, format!("a tag not before {last}"), || tag.to_string())?;
        }
        Ok(())
    }
}
