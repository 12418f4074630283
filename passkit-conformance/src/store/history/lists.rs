//! Checks the content of lists.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use passkit_server::{
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    store::{Changes, UpdateTag},
};

use super::{
    marks::{Marks, MarksOfType},
    record::{Event, History},
    registrations::Registrations,
};
use crate::{Rule, Violation, violation::ensure};

/// The part of an answer with serial numbers that later checks need.
struct Answered<'h> {
    begin: u64,
    end: u64,
    tag: UpdateTag,
    /// For each pass, the time of the last list that named it. Only the lists that led to this tag
    /// count.
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
    // The lists are checked in the order in which they began. An answer is therefore checked before
    // any call that uses its tag.
    let mut lists: Vec<_> = history.calls.iter().collect();
    lists.sort_by_key(|call| call.begin);
    for call in lists {
        let (
            Event::List {
                device,
                type_id,
                since,
                answer: Some(answer),
            },
            Some(end),
        ) = (&call.event, call.end)
        else {
            continue;
        };
        let asked = Asked {
            device,
            type_id,
            since: *since,
            begin: call.begin,
            end,
        };
        let before = answered.entry((device, type_id)).or_default();
        before.extend(asked.check(answer, before, marks.of_type(type_id), registrations)?);
    }
    Ok(())
}

impl<'h> Asked<'h> {
    /// Checks the answer against the answers in `before`. Returns what later checks need to know
    /// about this answer.
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
            || {
                format!(
                    "{} serial numbers, of which {} are different",
                    answer.serials.len(),
                    serials.len()
                )
            },
        )?;
        if !serials.is_empty() {
            self.forward(answer.tag, before)?;
        }

        // The earlier answers with this tag. The device got one of them.
        let given = |answered: &&Answered<'_>| {
            Some(answered.tag) == self.since && answered.end < self.begin
        };
        let mut last: HashMap<&SerialNumber, u64> = HashMap::new();
        for answered in before.iter().filter(given) {
            for (serial, time) in &*answered.last {
                let latest = last.entry(serial).or_default();
                *latest = (*latest).max(*time);
            }
        }
        last.extend(serials.iter().map(|serial| (*serial, self.end)));
        let known = before
            .iter()
            .filter(given)
            .map(|answered| answered.begin)
            .max();
        if let Some(known) = known
            && !serials.is_empty()
            && !marks
                .all()
                .chain(registrations.registers(self.device))
                .any(|span| span.touches(known, self.end))
        {
            let expected =
                "nothing listed, because nothing was marked or registered since the tag was issued";
            return Err(Violation::new(
                Rule::C2,
                expected,
                format!("{} serial numbers", serials.len()),
            ));
        }

        let registered = || {
            let of_type = registrations
                .of_device(self.device)
                .filter(|(pass, _)| pass.type_id == *self.type_id);
            of_type.map(|(pass, changes)| (&pass.serial, changes))
        };
        for serial in &serials {
            let here = registered().any(|(one, changes)| {
                one == *serial && !changes.surely_absent(self.begin, self.end)
            });
            ensure(
                Rule::CHANGES_SINCE,
                here,
                "only passes that are registered on the device",
                || format!("{serial:?}, which was never registered during the call"),
            )?;
        }
        // If the device never got this tag, any answer is correct.
        if self.since.is_some() && known.is_none() {
            return Ok(self.answered(answer, last));
        }
        let whole = marks.newest_whole.before(self.begin);
        for (serial, changes) in registered().filter(|(serial, _)| !serials.contains(serial)) {
            let causes = [
                (changes.last_register(self.begin), Rule::C3, "registered"),
                (marks.newest_of(serial, self.begin), Rule::C1, "marked"),
                (whole, Rule::C9, "marked with its entire type"),
            ];
            let named = last.get(serial).copied();
            let missed = causes.into_iter().find(|(cause, ..)| *cause > named);
            let is_missing = self.since.is_none() || missed.is_some();
            if !is_missing || !changes.surely_present(self.begin, self.end) {
                continue;
            }
            return Err(match missed {
                Some((_, rule, what)) if self.since.is_some() => Violation::new(
                    rule,
                    format!("{serial:?} listed, because it was {what} before this list began"),
                    format!(
                        "no later list up to the list with tag {:?} names this pass",
                        self.since
                    ),
                ),
                _ => {
                    let expected = "all passes registered on the device in a list without a tag";
                    Violation::new(Rule::CHANGES_SINCE, expected, format!("no {serial:?}"))
                }
            });
        }
        Ok(self.answered(answer, last))
    }

    /// Returns what later checks need to know about an answer with serial numbers. For an answer
    /// without serial numbers, returns `None`.
    fn answered(
        &self,
        answer: &Changes,
        last: HashMap<&'h SerialNumber, u64>,
    ) -> Option<Answered<'h>> {
        let Self { begin, end, .. } = *self;
        let tag = answer.tag;
        (!answer.serials.is_empty()).then(|| Answered {
            begin,
            end,
            tag,
            last: Rc::new(last),
        })
    }

    fn forward(&self, tag: UpdateTag, before: &[Answered<'_>]) -> Result<(), Violation> {
        ensure(
            Rule::C4,
            Some(tag) != self.since,
            "a tag that differs from the tag in the request, because passes are listed",
            || format!("the same tag {tag}"),
        )?;
        for answered in before.iter().filter(|answered| answered.end < self.begin) {
            let last = answered.tag;
            let forward =
                tag.type_version >= last.type_version && tag.device_version >= last.device_version;
            ensure(
                Rule::C4,
                forward,
                format!("a tag that is not before {last}"),
                || tag.to_string(),
            )?;
        }
        Ok(())
    }
}
