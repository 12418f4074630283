//! Cases about marks of an entire type, and about the dates of passes.

use std::{
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::TypeIdentifier,
    store::{Audience, RegistrationStore, clock},
};

use crate::{CaseResult, Rule, Stop, Violation, violation::ensure};

use super::{
    case::catalogue,
    growth,
    names::{Device, new_passes, new_type, pass_of, serials},
    stores::Opened,
};

catalogue! {
    "store/mark-all-lists-every-registration-once" Must [C9 C2] store
        mark_all_lists_every_registration_once,
        "Marks an entire type three times, with single marks in between. Two devices with some of \
         the same passes ask for their lists after each mark.",
        "After a change of the design, some phones keep the old passes, or fetch all their passes \
         with every push.";
    "store/mark-all-takes-constant-time" Must [C9] opened mark_all_takes_constant_time,
        "Marks types of 1,000, 2,000, 4,000 passes and so on, up to 256,000 or for about two \
         seconds. If a mark is suspiciously slow, the case takes more time. A device has every \
         eighth pass. The case fails if two measurements in a row show the same fault. The fault is that the best times \
         grow with four sizes in a row, and that the last time is far above the time for a single pass. The case is \
         skipped if the times are unclear.",
        "Marking a type with a million passes takes minutes, and blocks all other marks.";
    "store/every-mark-moves-the-date" Must [C14] store every_mark_moves_the_date,
        "Makes 24 marks in a row: of one pass, of a batch and of the entire type. There is more \
         than one mark in a second.",
        "Two versions of a pass have the same date. A phone that has the first version gets a 304 \
         and keeps this version.";
    "store/dates-move-with-marks-only" Must [C14] store dates_move_with_marks_only,
        "Registers, unregisters, forgets, asks for lists, reads pages, waits for a second, and \
         marks other passes and types. Reads dates and versions after each step.",
        "Phones load passes that did not change.";
    "store/never-marked-passes-share-one-date" Must [C14] store never_marked_passes_share_one_date,
        "Reads the state of passes and orders that were never marked. Some are registered, and \
         some are of unknown types.",
        "Phones load passes that never changed, or get a 304 for passes that changed.";
}

async fn mark_all_lists_every_registration_once(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(5)?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
        .await?;
    let one = Device::registered_for(store, &passes[..4]).await?;
    let two = Device::registered_for(store, &passes[3..]).await?;
    let mut tag_one = one
        .lists_exactly(store, &type_id, &passes[..4], Rule::CHANGES_SINCE)
        .await?;
    let mut tag_two = two
        .lists_exactly(store, &type_id, &passes[3..], Rule::CHANGES_SINCE)
        .await?;
    for _ in 0..3 {
        store.mark(&type_id, Changed::All).await?;
        for (device, tag, registered) in [
            (&one, &mut tag_one, &passes[..4]),
            (&two, &mut tag_two, &passes[3..]),
        ] {
            let listed = device.list(store, &type_id, Some(*tag)).await?;
            listed.has(registered, Rule::C9, "after a mark of the type")?;
            listed.is_within(registered)?;
            *tag = listed.tag;
            let again = device.list(store, &type_id, Some(*tag)).await?;
            again.is_empty(Rule::C9, "a second time after one mark of the type")?;
        }
        // A later mark of one pass is still listed. The list after that is empty again.
        store
            .mark(
                &type_id,
                Changed::Passes(slice::from_ref(&passes[0].serial)),
            )
            .await?;
        let listed = one.list(store, &type_id, Some(tag_one)).await?;
        listed.has(&passes[..1], Rule::C1, "marked after a mark of the type")?;
        tag_one = listed.tag;
        one.list(store, &type_id, Some(tag_one))
            .await?
            .is_empty(Rule::C2, "when asked again with the new tag")?;
        let listed = two.list(store, &type_id, Some(tag_two)).await?;
        if !listed.serials.is_empty() {
            tag_two = listed.tag;
        }
    }
    Ok(())
}

async fn mark_all_takes_constant_time(opened: &Opened) -> CaseResult {
    const FIRST: usize = 1_000;
    const SIZES: usize = 9;
    /// The time must grow with this many sizes in a row. At least this many sizes are tried, even
    /// if the store is slow.
    const GROWING: usize = 4;
    /// The time limit for all sizes. `LONGEST` applies instead if a time is suspicious.
    const BUDGET: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_secs(60);
    let store = opened.registrations();
    let start = Instant::now();
    let mut types = vec![type_of(store, 1).await?];
    let mut unclear = None;
    for size in (0..SIZES).map(|doublings| FIRST << doublings) {
        let budget = if unclear.is_some() { LONGEST } else { BUDGET };
        if types.len() > GROWING && start.elapsed() > budget {
            break;
        }
        types.push(type_of(store, size).await?);
        let (small, large) = (&types[0], &types[types.len() - 1]);
        let times = best_times(store, &[small, large], 7).await?;
        unclear = growth::stands_out(times[0], times[1]).then_some((size, times));
        if unclear.is_none() || types.len() <= GROWING {
            continue;
        }
        let growing: Vec<_> = types[..1]
            .iter()
            .chain(&types[types.len() - GROWING..])
            .collect();
        let mut times = best_times(store, &growing, 15).await?;
        // A busy machine sometimes hides a walk, so an unclear result is measured again.
        for _ in 0..6 {
            let before = growth::is_walk(times[0], &times[1..]);
            times = best_times(store, &growing, 15).await?;
            ensure(
                Rule::C9,
                !(before && growth::is_walk(times[0], &times[1..])),
                format!(
                    "a mark of {size} passes about as fast as a mark of one pass, which takes {:?}",
                    times[0]
                ),
                || {
                    format!(
                        "{:?} for the last {GROWING} sizes, each twice as large as the previous one",
                        &times[1..]
                    )
                },
            )?;
        }
        unclear = Some((size, times));
    }
    match unclear {
        None => Ok(()),
        Some((size, times)) => Err(Stop::Skip(format!(
            "the times are unclear: a mark of {size} passes is slower than a mark of one pass, but \
             the times don't grow with the number of passes: {times:?}"
        ))),
    }
}

/// Makes a type with this many marked passes. A device has every eighth pass.
async fn type_of(
    store: &Arc<dyn RegistrationStore>,
    count: usize,
) -> Result<TypeIdentifier, Violation> {
    let (type_id, passes) = new_passes(count)?;
    for part in passes.chunks(1_000) {
        store
            .mark(&type_id, Changed::Passes(&serials(part)))
            .await?;
    }
    let every_eighth: Vec<PassId> = passes.into_iter().step_by(8).collect();
    Device::registered_for_many(store, &every_eighth).await?;
    Ok(type_id)
}

/// Returns for each type the shortest time of a mark. The types take turns, so that other processes
/// slow down all of them equally.
async fn best_times(
    store: &Arc<dyn RegistrationStore>,
    types: &[&TypeIdentifier],
    rounds: usize,
) -> Result<Vec<Duration>, Violation> {
    let mut best = vec![Duration::MAX; types.len()];
    for _ in 0..rounds {
        for (type_id, best) in types.iter().zip(&mut best) {
            let start = Instant::now();
            store.mark(type_id, Changed::All).await?;
            *best = start.elapsed().min(*best);
        }
    }
    Ok(best)
}

async fn every_mark_moves_the_date(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let serial = &passes[0].serial;
    let batch = [serial.clone(), passes[1].serial.clone(), serial.clone()];
    let start = clock::now_micros() / 1_000_000;
    let mut last = store.pass_state(&passes[0]).await?;
    // The second pass is sometimes marked in a batch, the third only with the entire type.
    let mut others = [
        store.pass_state(&passes[1]).await?,
        store.pass_state(&passes[2]).await?,
    ];
    for round in 0..24 {
        let what = match round % 4 {
            0 | 1 => {
                store
                    .mark(&type_id, Changed::Passes(slice::from_ref(serial)))
                    .await?;
                "a mark"
            }
            2 => {
                store.mark(&type_id, Changed::Passes(&batch)).await?;
                others[0] = moved_on(store, &passes[1], others[0], "a mark in a batch").await?;
                "a mark in a batch"
            }
            _ => {
                store.mark(&type_id, Changed::All).await?;
                for (pass, last) in passes[1..].iter().zip(&mut others) {
                    *last = moved_on(store, pass, *last, "a mark of the type").await?;
                }
                "a mark of the type"
            }
        };
        last = moved_on(store, &passes[0], last, what).await?;
        ensure(
            Rule::C14,
            last.last_modified >= start,
            "a date that is not before the mark",
            || format!("a date {} s before the mark", start - last.last_modified),
        )?;
    }
    Ok(())
}

/// Returns the state of `pass`. Version and date must be later than in `last`.
async fn moved_on(
    store: &dyn RegistrationStore,
    pass: &PassId,
    last: PassState,
    what: &str,
) -> Result<PassState, Violation> {
    let state = store.pass_state(pass).await?;
    ensure(
        Rule::C14,
        state.last_modified > last.last_modified,
        format!("a date later than {} after {what}", last.last_modified),
        || state.last_modified.to_string(),
    )?;
    ensure(
        Rule::C14,
        state.version > last.version,
        format!("a version greater than {} after {what}", last.version),
        || state.version.to_string(),
    )?;
    Ok(state)
}

async fn dates_move_with_marks_only(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let other_type = new_type()?;
    let never = pass_of(&new_type()?, &passes[0].serial);
    let watched = [&passes[0], &passes[1], &never];
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let mut before = Vec::new();
    for pass in watched {
        before.push(store.pass_state(pass).await?);
    }
    let second = clock::now_micros() / 1_000_000;
    let device = Device::new()?;
    for step in 0..9 {
        let what = match step {
            0 => "register",
            1 => "register again",
            2 => "a list",
            3 => "unregister",
            4 => "forget_device",
            5 => "a page of devices",
            6 => "a mark of another pass",
            7 => "marks of another type",
            _ => "a wait of a second",
        };
        for pass in watched {
            match step {
                0 | 1 => drop(store.register(&device.id, pass, &device.push_token).await?),
                2 => drop(store.changes_since(&device.id, &pass.type_id, None).await?),
                3 => drop(store.unregister(&device.id, pass).await?),
                4 => {
                    let device = Device::registered_for(store, [pass]).await?;
                    let later = std::time::SystemTime::now() + Duration::from_secs(60);
                    store.forget_device(&device.id, later).await?;
                }
                5 => drop(store.devices(Audience::Pass(pass), None, 10).await?),
                _ => {}
            }
        }
        match step {
            // There are several marks, so that the dates of the marked pass run ahead of the clock.
            6 => {
                for _ in 0..6 {
                    store
                        .mark(
                            &type_id,
                            Changed::Passes(slice::from_ref(&passes[2].serial)),
                        )
                        .await?;
                }
            }
            7 => {
                for _ in 0..6 {
                    store
                        .mark(&other_type, Changed::Passes(&serials(&passes)))
                        .await?;
                    store.mark(&other_type, Changed::All).await?;
                }
            }
            8 => {
                while clock::now_micros() / 1_000_000 <= second {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {}
        }
        for (pass, before) in watched.into_iter().zip(&before) {
            let now = store.pass_state(pass).await?;
            ensure(
                Rule::C14,
                now == *before,
                format!("unchanged {before:?} after {what}"),
                || format!("{now:?}"),
            )?;
        }
    }
    Ok(())
}

async fn never_marked_passes_share_one_date(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let (_, others) = new_passes(2)?;
    let order_type = format!("order.{}", others[0].type_id.as_str());
    let order = PassId::new(&order_type, "order")?;
    Device::registered_for(store, [&passes[0], &order]).await?;
    // A marked neighbour must not change the date.
    store
        .mark(
            &type_id,
            Changed::Passes(slice::from_ref(&passes[2].serial)),
        )
        .await?;
    let first = store.pass_state(&others[0]).await?;
    for pass in [&passes[0], &passes[1], &others[1], &order] {
        let state = store.pass_state(pass).await?;
        ensure(
            Rule::C14,
            state
                == PassState {
                    version: 0,
                    ..first
                },
            format!(
                "version 0 and date {} for a pass that was never marked",
                first.last_modified
            ),
            || format!("version {} and date {}", state.version, state.last_modified),
        )?;
    }
    // The clock of the machine that created the store may be a little ahead.
    let soon = clock::now_micros() / 1_000_000 + 60;
    ensure(
        Rule::C14,
        (1_000_000_000..=soon).contains(&first.last_modified),
        "the time of the store's creation in seconds",
        || first.last_modified.to_string(),
    )
}
