//! Checks that marks, and only marks, change versions and dates.

use std::collections::HashMap;

use passkit_server::{PassId, PassState};

use super::{
    marks::Marks,
    record::{Event, History},
};
use crate::{Rule, Violation, store::names::shown_state, violation::ensure};

struct Read {
    begin: u64,
    end: u64,
    state: PassState,
}

pub(super) fn check(history: &History, marks: &Marks<'_>) -> Result<(), Violation> {
    let mut reads: HashMap<&PassId, Vec<Read>> = HashMap::new();
    for call in &history.calls {
        if let (
            Event::State {
                pass,
                answer: Some(state),
            },
            Some(end),
        ) = (&call.event, call.end)
        {
            reads.entry(pass).or_default().push(Read {
                begin: call.begin,
                end,
                state: *state,
            });
        }
    }
    for (pass, mut reads) in reads {
        for now in &reads {
            if let Some(before) = reads
                .iter()
                .filter(|one| one.end < now.begin)
                .max_by_key(|one| one.end)
            {
                follows(before, now, pass, marks)?;
            }
        }
        reads.sort_by_key(|read| (read.state.version, read.state.last_modified));
        for pair in reads.windows(2) {
            let (one, two) = (pair[0].state, pair[1].state);
            let together =
                one == two || (one.version < two.version && one.last_modified < two.last_modified);
            ensure(
                Rule::C14,
                together,
                "versions and dates of a pass that grow together",
                || format!("{}; and {}", shown_state(one), shown_state(two)),
            )?;
        }
    }
    Ok(())
}

fn follows(before: &Read, now: &Read, pass: &PassId, marks: &Marks<'_>) -> Result<(), Violation> {
    let (was, is) = (before.state, now.state);
    let later = is.version > was.version && is.last_modified > was.last_modified;
    if marks
        .certain(pass)
        .any(|mark| mark.begin > before.end && mark.over_before(now.begin))
    {
        ensure(
            Rule::C14,
            later,
            format!("later than {} after a mark", shown_state(was)),
            || shown_state(is),
        )
    } else if marks
        .possible(pass)
        .any(|mark| mark.touches(before.begin, now.end))
    {
        ensure(
            Rule::C14,
            later || is == was,
            format!("not before {}", shown_state(was)),
            || shown_state(is),
        )
    } else {
        ensure(
            Rule::C14,
            is == was,
            format!("unchanged {}, because nothing was marked", shown_state(was)),
            || shown_state(is),
        )
    }
}
