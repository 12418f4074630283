//! Finds out when passes were marked, or may have been marked.

use std::collections::{BTreeMap, HashMap};

use passkit_server::{
    PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    store::ContentDigest,
};

use super::record::{Event, History, Marked, Newest, Span};

/// All marks of a history.
pub(super) struct Marks<'h> {
    types: HashMap<&'h TypeIdentifier, MarksOfType<'h>>,
    none: MarksOfType<'h>,
}

/// The marks of a type.
#[derive(Default)]
pub(super) struct MarksOfType<'h> {
    /// Marks of the entire type.
    whole: Vec<Span>,
    /// Marks of single passes that were certainly made.
    certain: HashMap<&'h SerialNumber, Vec<Span>>,
    /// Publications of passes. A publication may or may not have marked its pass.
    possible: HashMap<&'h SerialNumber, Vec<Span>>,
    newest: HashMap<&'h SerialNumber, Newest>,
    pub(super) newest_whole: Newest,
}

impl<'h> Marks<'h> {
    pub(super) fn of(history: &'h History) -> Self {
        let mut types: HashMap<_, MarksOfType<'h>> = HashMap::new();
        let mut contents: BTreeMap<(&TypeIdentifier, &SerialNumber, ContentDigest), Vec<Span>> =
            BTreeMap::new();
        for call in &history.calls {
            let Event::Mark { type_id, changed } = &call.event else {
                continue;
            };
            let marks = types.entry(type_id).or_default();
            match changed {
                Marked::All => marks.whole.push(call.span()),
                Marked::Passes(serials) => {
                    for serial in serials {
                        marks.certain.entry(serial).or_default().push(call.span());
                    }
                }
                Marked::Contents(all) => {
                    for content in all {
                        let Some(digest) = content.digest else {
                            continue;
                        };
                        contents
                            .entry((type_id, &content.serial, digest))
                            .or_default()
                            .push(call.span());
                        marks
                            .possible
                            .entry(&content.serial)
                            .or_default()
                            .push(call.span());
                    }
                }
            }
        }
        // If several calls publish the same digest, one of them marks the pass before any of them
        // returns.
        for ((type_id, serial, _), calls) in contents {
            let first = Span {
                begin: calls.iter().map(|call| call.begin).min().unwrap_or(0),
                end: calls.iter().filter_map(|call| call.end).min(),
            };
            types
                .entry(type_id)
                .or_default()
                .certain
                .entry(serial)
                .or_default()
                .push(first);
        }
        for marks in types.values_mut() {
            marks.newest_whole = Newest::of(marks.whole.iter().copied());
            let certain = marks.certain.iter();
            marks.newest = certain
                .map(|(serial, spans)| (*serial, Newest::of(spans.iter().copied())))
                .collect();
        }
        Self {
            types,
            none: MarksOfType::default(),
        }
    }

    pub(super) fn of_type(&self, type_id: &TypeIdentifier) -> &MarksOfType<'h> {
        self.types.get(type_id).unwrap_or(&self.none)
    }

    /// The certain marks of a pass, including the marks of its type.
    pub(super) fn certain(&self, pass: &PassId) -> impl Iterator<Item = Span> {
        let of_type = self.of_type(&pass.type_id);
        of_type
            .certain_of(&pass.serial)
            .iter()
            .chain(&of_type.whole)
            .copied()
    }

    /// The certain and the possible marks of a pass.
    pub(super) fn possible(&self, pass: &PassId) -> impl Iterator<Item = Span> {
        let possible = self.of_type(&pass.type_id).possible.get(&pass.serial);
        self.certain(pass)
            .chain(possible.into_iter().flatten().copied())
    }
}

impl<'h> MarksOfType<'h> {
    /// All certain and possible marks of the type.
    pub(super) fn all(&self) -> impl Iterator<Item = Span> {
        let single = self.certain.values().chain(self.possible.values());
        single.flatten().chain(&self.whole).copied()
    }

    /// Returns the latest begin among the certain marks of this pass alone that ended before
    /// `time`.
    pub(super) fn newest_of(&self, serial: &SerialNumber, time: u64) -> Option<u64> {
        self.newest.get(serial)?.before(time)
    }

    /// The certain marks of this pass alone.
    fn certain_of(&self, serial: &SerialNumber) -> &[Span] {
        self.certain.get(serial).map_or(&[], Vec::as_slice)
    }
}
