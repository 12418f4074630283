//! Cases about changes that are pending until their pushes are sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
};

use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    push::{Backlog, PendingChange, Progress, Scope},
};

use super::{
    case::catalogue,
    names::{Device, new_passes, new_type, pass_of, serial, serials},
    queue::{Queue, backlog_of, end, expect_pending, page, pending_of, push, scope},
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "queue/marked-passes-are-pending" Must [Q1 C1 MARK] queue marked_passes_are_pending,
        "Marks passes with their pushes: one pass, several passes, a pass twice in a batch, and an empty batch. A \
         device asks for its list with an earlier tag, and the pending changes are read.",
        "Phones get no push for an update, or a push for an update that does not exist.";
    "queue/marked-types-are-pending" Must [Q1 C9] queue marked_types_are_pending,
        "Marks an entire type and one of its passes, both with pushes. A device asks for its list \
         with an earlier tag, and the pending changes are read.",
        "A new design reaches only phones that happen to ask for changes without a push.";
    "queue/plain-marks-push-nothing" Must [Q1] queue plain_marks_push_nothing,
        "Marks passes and a type without pushes, while the change of one pass is already pending. \
         Reads the pending changes.",
        "Phones get a push for a change that should not have one.";
    "queue/marked-again-is-one-change" Must [Q2] queue marked_again_is_one_change,
        "Marks passes and their type with pushes several times, and reads the pending changes each \
         time.",
        "A phone gets a push for each of many changes, or no push for the last change.";
    "queue/progress-is-remembered" Must [Q2] queue progress_is_remembered,
        "Records progress to a page and then to a later page, and marks one of the passes again. \
         Reads the pending changes each time.",
        "After a restart, a million phones get the same push again, or some phones never get it.";
    "queue/finished-changes-are-gone" Must [Q3] queue finished_changes_are_gone,
        "Records progress to the end for passes and a type. Some of the passes already had progress to a \
         page. Reads the pending changes, and marks one of the passes again.",
        "Phones get pushes forever for a change that they already have.";
    "queue/old-versions-finish-nothing" Must [Q2] queue old_versions_finish_nothing,
        "Marks changes again before their progress to the end is recorded. Some of them already had progress to a \
         page.",
        "A phone misses an update that was made while the pushes for the previous update were sent.";
    "queue/progress-makes-nothing-pending" Must [Q3] queue progress_makes_nothing_pending,
        "Records progress to a page, and to the end, for changes that were never pending or are \
         finished.",
        "Pushes are sent forever without a change.";
    "queue/backlog-sums-up" Must [Q3 Q4] queue backlog_sums_up,
        "Makes changes of several types pending, finishes some, and defers pushes. Reads the \
         backlog after each step.",
        "A worker never looks at a type with pending pushes, or keeps looking at a type without \
         pending pushes.";
    "queue/changes-keep-types-apart" Must [Q2 Q3 NAMES] queue changes_keep_types_apart,
        "Marks passes with equal and odd serial numbers in types that start alike, and the types \
         too. Finishes some of the changes.",
        "The changes of two passes are mixed up, and the phones of one pass get no push.";
    "queue/every-change-gets-its-turn" Must [Q2] queue every_change_gets_its_turn,
        "170 changes are pending. Each round reads ten of them, marks 20 passes again, and \
         finishes the ten changes.",
        "If a few passes change all the time, the phones of all other passes get no pushes.";
}

/// Ensures that a change has the version of the pass, and no progress.
async fn is_of_the_last_mark(
    queue: &Queue,
    change: &PendingChange,
    pass: &PassId,
) -> Result<(), Violation> {
    let state = queue.pass_state(pass).await?;
    ensure(
        Rule::Q1,
        change.version == state.version,
        format!("a change with the version of the mark, {}", state.version),
        || change.version.to_string(),
    )?;
    ensure(
        Rule::Q1,
        change.progress.is_none(),
        "a change without progress",
        || format!("{:?}", change.progress),
    )
}

async fn marked_passes_are_pending(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(30)?;
    let device = Device::registered_for(queue, &passes).await?;
    let mut tag = device
        .lists_exactly(queue, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    queue.mark_and_push(&type_id, Changed::Passes(&[])).await?;
    expect_pending(queue, &type_id, [], Rule::Q1, "after an empty batch").await?;
    device
        .list(queue, &type_id, Some(tag))
        .await?
        .is_empty(Rule::MARK, "after an empty batch")?;

    let mut so_far = Vec::new();
    let twice = [
        passes[1].serial.clone(),
        passes[2].serial.clone(),
        passes[1].serial.clone(),
    ];
    let batches = [serials(&passes[..1]), twice.to_vec(), serials(&passes[3..])];
    for batch in batches {
        queue
            .mark_and_push(&type_id, Changed::Passes(&batch))
            .await?;
        let marked: Vec<_> = batch
            .iter()
            .map(|serial| pass_of(&type_id, serial))
            .collect();
        so_far.extend(marked.iter().map(scope));
        let pending = expect_pending(
            queue,
            &type_id,
            &so_far,
            Rule::Q1,
            "after passes were marked with their pushes",
        )
        .await?;
        for pass in &marked {
            is_of_the_last_mark(queue, &pending[&scope(pass)], pass).await?;
        }
        let listed = device.list(queue, &type_id, Some(tag)).await?;
        listed.has(
            &marked,
            Rule::Q1,
            "after they were marked with their pushes",
        )?;
        tag = listed.tag;
    }
    // A pass without devices is marked too.
    let unknown = pass_of(&type_id, &serial("unknown")?);
    queue
        .mark_and_push(&type_id, Changed::Passes(slice::from_ref(&unknown.serial)))
        .await?;
    so_far.push(scope(&unknown));
    expect_pending(
        queue,
        &type_id,
        &so_far,
        Rule::Q1,
        "after an unknown pass was marked",
    )
    .await?;
    Ok(())
}

async fn marked_types_are_pending(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let device = Device::registered_for(queue, &passes).await?;
    let tag = device
        .lists_exactly(queue, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    queue.mark_and_push(&type_id, Changed::All).await?;
    device.list(queue, &type_id, Some(tag)).await?.has(
        &passes,
        Rule::Q1,
        "after the type was marked",
    )?;
    let both = [scope(&passes[0]), Scope::Type];
    let pending = expect_pending(
        queue,
        &type_id,
        &both,
        Rule::Q1,
        "after a pass and its type were marked",
    )
    .await?;
    is_of_the_last_mark(queue, &pending[&Scope::Type], &passes[2]).await
}

async fn plain_marks_push_nothing(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    queue
        .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
        .await?;
    queue.mark(&type_id, Changed::All).await?;
    expect_pending(queue, &type_id, [], Rule::Q1, "after plain marks").await?;
    let backlog = backlog_of(queue, &type_id).await?;
    ensure(
        Rule::Q1,
        backlog.is_none(),
        "no backlog after plain marks",
        || format!("{backlog:?}"),
    )?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let before = pending_of(queue, &type_id).await?;
    queue
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    queue.mark(&type_id, Changed::All).await?;
    let after = pending_of(queue, &type_id).await?;
    ensure(
        Rule::Q1,
        before == after,
        "what was pending before the plain marks",
        || format!("{after:?}"),
    )
}

async fn marked_again_is_one_change(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    let mut all: Vec<_> = passes.iter().map(scope).collect();
    all.push(Scope::Type);
    let mut before: BTreeMap<Scope, PendingChange> = BTreeMap::new();
    for _ in 0..5 {
        queue
            .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
            .await?;
        queue.mark_and_push(&type_id, Changed::All).await?;
        let after = expect_pending(
            queue,
            &type_id,
            &all,
            Rule::Q2,
            "after they were marked again",
        )
        .await?;
        for (scope, change) in &after {
            let before = before.get(scope).map_or(0, |change| change.version);
            ensure(
                Rule::Q2,
                change.version > before,
                format!("a version greater than {before}"),
                || change.version.to_string(),
            )?;
        }
        before = after;
    }
    Ok(())
}

/// Ensures that the pending change has this progress.
async fn has_progress(
    queue: &Queue,
    type_id: &TypeIdentifier,
    scope: &Scope,
    wanted: Option<&Progress>,
) -> Result<(), Violation> {
    let pending = pending_of(queue, type_id).await?;
    let change = pending.get(scope);
    ensure(
        Rule::Q2,
        change.is_some_and(|change| change.progress.as_ref() == wanted),
        format!("a change with the progress {wanted:?}"),
        || format!("{change:?}"),
    )
}

async fn progress_is_remembered(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    queue.mark_and_push(&type_id, Changed::All).await?;
    let [first, second, all] = [scope(&passes[0]), scope(&passes[1]), Scope::Type];
    let versions = pending_of(queue, &type_id).await?;
    let version = |scope: &Scope| versions.get(scope).map_or(0, |change| change.version);
    // One cursor has unusual characters, the other is very long.
    let [near, far] =
        ["device 1/ü\u{fffd} \n\"{}", &"x".repeat(900)].map(|next| page(version(&first), next));
    let of_all = page(version(&all), "device\u{1f3ab}");
    queue
        .record_progress(
            &type_id,
            &[(first.clone(), near.clone()), (all.clone(), of_all.clone())],
        )
        .await?;
    has_progress(queue, &type_id, &first, Some(&near)).await?;
    has_progress(queue, &type_id, &second, None).await?;
    has_progress(queue, &type_id, &all, Some(&of_all)).await?;
    queue
        .record_progress(&type_id, &[(first.clone(), far.clone())])
        .await?;
    has_progress(queue, &type_id, &first, Some(&far)).await?;
    queue.record_progress(&type_id, &[]).await?;

    // A change that is marked again keeps its progress. The progress still has the older version.
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    queue.mark_and_push(&type_id, Changed::All).await?;
    has_progress(queue, &type_id, &first, Some(&far)).await?;
    has_progress(queue, &type_id, &all, Some(&of_all)).await?;
    let later = pending_of(queue, &type_id).await?;
    let newer = later
        .iter()
        .all(|(scope, change)| change.version > version(scope));
    ensure(
        Rule::Q2,
        newer,
        "greater versions of changes that have progress",
        || format!("{later:?}"),
    )
}

async fn finished_changes_are_gone(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(12)?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    queue.mark_and_push(&type_id, Changed::All).await?;
    let versions = pending_of(queue, &type_id).await?;
    let version = |scope: &Scope| versions.get(scope).map_or(0, |change| change.version);
    let finished: Vec<_> = passes[..6].iter().map(scope).chain([Scope::Type]).collect();
    let begun: Vec<_> = finished
        .iter()
        .map(|scope| (scope.clone(), page(version(scope), "somewhere")))
        .collect();
    queue.record_progress(&type_id, &begun[..3]).await?;
    let done: Vec<_> = finished
        .iter()
        .map(|scope| (scope.clone(), end(version(scope))))
        .collect();
    queue.record_progress(&type_id, &done).await?;
    let left: Vec<_> = passes[6..].iter().map(scope).collect();
    expect_pending(
        queue,
        &type_id,
        &left,
        Rule::Q3,
        "after the others were finished",
    )
    .await?;

    // The next mark makes a finished change pending again.
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let again = expect_pending(
        queue,
        &type_id,
        left.iter().chain([&finished[0]]),
        Rule::Q2,
        "after one was marked again",
    )
    .await?;
    is_of_the_last_mark(queue, &again[&finished[0]], &passes[0]).await?;
    let rest: Vec<_> = again
        .values()
        .map(|change| (change.scope.clone(), end(change.version)))
        .collect();
    queue.record_progress(&type_id, &rest).await?;
    expect_pending(queue, &type_id, [], Rule::Q3, "after all were finished").await?;
    let backlog = backlog_of(queue, &type_id).await?;
    ensure(
        Rule::Q3,
        backlog.is_none(),
        "no backlog after all was finished",
        || format!("{backlog:?}"),
    )
}

async fn old_versions_finish_nothing(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let all: Vec<_> = passes.iter().map(scope).chain([Scope::Type]).collect();
    let mark = async || -> Result<(), Violation> {
        queue
            .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
            .await?;
        Ok(queue.mark_and_push(&type_id, Changed::All).await?)
    };
    mark().await?;
    let versions = pending_of(queue, &type_id).await?;
    let version = |scope: &Scope| versions.get(scope).map_or(0, |change| change.version);
    let begun: Vec<_> = all[1..]
        .iter()
        .map(|scope| (scope.clone(), page(version(scope), "somewhere")))
        .collect();
    queue.record_progress(&type_id, &begun).await?;
    mark().await?;
    let newer = pending_of(queue, &type_id).await?;
    let done: Vec<_> = all
        .iter()
        .map(|scope| (scope.clone(), end(version(scope))))
        .collect();
    queue.record_progress(&type_id, &done).await?;
    let after = expect_pending(
        queue,
        &type_id,
        &all,
        Rule::Q2,
        "after older versions of them were finished",
    )
    .await?;
    for scope in &all {
        has_progress(queue, &type_id, scope, None).await?;
        let (newer, after) = (&newer[scope], &after[scope]);
        ensure(
            Rule::Q2,
            newer.version == after.version,
            format!("still {newer:?}"),
            || format!("{after:?}"),
        )?;
    }
    // Progress with the newest versions finishes the changes.
    let done: Vec<_> = after
        .values()
        .map(|change| (change.scope.clone(), end(change.version)))
        .collect();
    queue.record_progress(&type_id, &done).await?;
    expect_pending(
        queue,
        &type_id,
        [],
        Rule::Q3,
        "after the newest versions were finished",
    )
    .await?;
    Ok(())
}

async fn progress_makes_nothing_pending(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let never = [
        (scope(&passes[1]), page(7, "x")),
        (Scope::Type, page(7, "x")),
        (scope(&passes[2]), end(7)),
    ];
    queue.record_progress(&type_id, &never).await?;
    expect_pending(
        queue,
        &type_id,
        [],
        Rule::Q3,
        "of a type that was never marked",
    )
    .await?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes[..2])))
        .await?;
    let versions = pending_of(queue, &type_id).await?;
    let finished = scope(&passes[1]);
    let version = versions.get(&finished).map_or(0, |change| change.version);
    queue
        .record_progress(&type_id, &[(finished.clone(), end(version))])
        .await?;
    for progress in [
        page(version, "x"),
        end(version),
        page(version + 1, "x"),
        end(version + 1),
    ] {
        queue
            .record_progress(
                &type_id,
                &[
                    (finished.clone(), progress.clone()),
                    (Scope::Type, progress),
                ],
            )
            .await?;
        expect_pending(
            queue,
            &type_id,
            [&scope(&passes[0])],
            Rule::Q3,
            "after progress of a change that is not pending",
        )
        .await?;
    }
    let backlog = backlog_of(queue, &type_id).await?;
    let one = backlog.as_ref().is_some_and(|backlog| backlog.pending == 1);
    ensure(Rule::Q3, one, "a backlog of one change", || {
        format!("{backlog:?}")
    })
}

async fn backlog_sums_up(queue: &Queue) -> Result<(), Violation> {
    let is = async |type_id: &TypeIdentifier,
                    pending: Option<u64>,
                    when: &str|
           -> Result<Option<Backlog>, Violation> {
        let backlog = backlog_of(queue, type_id).await?;
        let found = backlog.as_ref().map(|backlog| backlog.pending);
        ensure(
            Rule::Q3,
            found == pending,
            format!("{pending:?} pending changes {when}"),
            || format!("{found:?}"),
        )?;
        let dated = backlog
            .as_ref()
            .is_none_or(|backlog| backlog.since.is_some() == (backlog.pending > 0));
        ensure(
            Rule::Q3,
            dated,
            "a time if changes are pending, and none otherwise",
            || format!("{backlog:?}"),
        )?;
        Ok(backlog)
    };
    let (first, passes) = new_passes(20)?;
    let second = TypeIdentifier::new(&format!("{first}.b"))?;
    let third = new_type()?;
    for type_id in [&first, &second, &third] {
        is(type_id, None, "of a new type").await?;
    }
    queue
        .mark_and_push(&first, Changed::Passes(&serials(&passes)))
        .await?;
    queue.mark_and_push(&second, Changed::All).await?;
    let first_since = is(&first, Some(20), "after 20 passes were marked")
        .await?
        .and_then(|backlog| backlog.since);
    is(&second, Some(1), "after a type was marked").await?;
    is(&third, None, "while other types have a backlog").await?;

    // Later marks must not move the time while the oldest change is pending.
    queue
        .mark_and_push(&first, Changed::Passes(&serials(&passes[5..])))
        .await?;
    queue.mark_and_push(&first, Changed::All).await?;
    let since = is(
        &first,
        Some(21),
        "after some passes and their type were marked again",
    )
    .await?;
    let since = since.and_then(|backlog| backlog.since);
    ensure(
        Rule::Q3,
        since <= first_since,
        format!("since {first_since:?} or earlier"),
        || format!("{since:?}"),
    )?;

    let versions = pending_of(queue, &first).await?;
    let done: Vec<_> = versions
        .values()
        .map(|change| (change.scope.clone(), end(change.version)))
        .collect();
    queue.record_progress(&first, &done[..15]).await?;
    is(&first, Some(6), "after 15 of 21 were finished").await?;
    let device = Device::new()?;
    queue
        .defer(&first, &[(device.id.clone(), Some(push(&device, None)))])
        .await?;
    queue
        .defer(&third, &[(device.id.clone(), Some(push(&device, None)))])
        .await?;
    is(&third, Some(0), "of a type with only deferred pushes").await?;
    queue.record_progress(&first, &done[15..]).await?;
    is(
        &first,
        Some(0),
        "after all were finished and one push was deferred",
    )
    .await?;
    is(&second, Some(1), "after others were finished").await?;
    for type_id in [&first, &third] {
        queue.defer(type_id, &[(device.id.clone(), None)]).await?;
        is(type_id, None, "after nothing was left").await?;
    }
    Ok(())
}

async fn changes_keep_types_apart(queue: &Queue) -> Result<(), Violation> {
    let short = new_type()?;
    let long = TypeIdentifier::new(&format!("{short}.b"))?;
    let order = TypeIdentifier::new(&short.as_str().replacen("pass.", "order.", 1))?;
    let long_serial = "ü".repeat(256);
    let odd = [
        "a",
        "A",
        ".b",
        "*",
        "%",
        "type",
        "0",
        "a ",
        " a",
        "a/b",
        "a:b",
        "{a}",
        "\"a\"",
        "\\",
        &long_serial,
    ];
    let odd: Vec<SerialNumber> = odd
        .iter()
        .map(|text| serial(text))
        .collect::<Result<_, _>>()?;
    let mut all: Vec<_> = odd.iter().cloned().map(Scope::Pass).collect();
    all.push(Scope::Type);
    queue.mark_and_push(&short, Changed::Passes(&odd)).await?;
    queue.mark_and_push(&short, Changed::All).await?;
    expect_pending(
        queue,
        &short,
        &all,
        Rule::NAMES,
        "for passes with odd serial numbers and their type",
    )
    .await?;
    for other in [&long, &order] {
        expect_pending(
            queue,
            other,
            [],
            Rule::NAMES,
            "of a type that starts like another",
        )
        .await?;
        queue.mark_and_push(other, Changed::Passes(&odd)).await?;
    }
    let versions = pending_of(queue, &short).await?;
    let done: Vec<_> = versions
        .values()
        .map(|change| (change.scope.clone(), end(change.version)))
        .collect();
    // The clocks of two types may have the same reading. A version of one type would then also
    // finish the change of the other type.
    let of_long = pending_of(queue, &long).await?;
    let is_older = |(scope, progress): &&(Scope, Progress)| {
        of_long
            .get(scope)
            .is_some_and(|change| progress.version < change.version)
    };
    let older: Vec<_> = done.iter().filter(is_older).cloned().collect();
    queue.record_progress(&long, &older).await?;
    queue.record_progress(&short, &done).await?;
    expect_pending(
        queue,
        &short,
        [],
        Rule::Q3,
        "after all changes of the type were finished",
    )
    .await?;
    for other in [&long, &order] {
        let passes = &all[..odd.len()];
        expect_pending(
            queue,
            other,
            passes,
            Rule::NAMES,
            "after another type was finished",
        )
        .await?;
    }
    Ok(())
}

async fn every_change_gets_its_turn(queue: &Queue) -> Result<(), Violation> {
    const LIMIT: usize = 10;
    let type_id = new_type()?;
    let named = |count, name: &str| {
        (0..count)
            .map(|n| serial(&format!("{name}-{n}")))
            .collect::<Result<Vec<_>, _>>()
    };
    // In the order of serial numbers, half of these passes come before all others, and half come
    // after them.
    let busy = [named(LIMIT, "0")?, named(LIMIT, "z")?].concat();
    let quiet = named(150, "m")?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&busy))
        .await?;
    for batch in quiet.chunks(30) {
        queue
            .mark_and_push(&type_id, Changed::Passes(batch))
            .await?;
    }
    let mut left: BTreeSet<_> = quiet.iter().cloned().map(Scope::Pass).collect();
    for _ in 0..500 {
        let pending = queue.pending(&type_id, LIMIT).await?;
        ensure(
            Rule::Q2,
            pending.len() <= 2 * LIMIT + 64,
            format!("about {LIMIT} changes"),
            || format!("{} changes", pending.len()),
        )?;
        queue
            .mark_and_push(&type_id, Changed::Passes(&busy))
            .await?;
        let done: Vec<_> = pending
            .into_iter()
            .map(|change| (change.scope, end(change.version)))
            .collect();
        queue.record_progress(&type_id, &done).await?;
        for (scope, _) in done {
            left.remove(&scope);
        }
        if left.is_empty() {
            let busy: Vec<_> = busy.iter().cloned().map(Scope::Pass).collect();
            expect_pending(
                queue,
                &type_id,
                &busy,
                Rule::Q2,
                "that were marked again in each round",
            )
            .await?;
            return Ok(());
        }
    }
    Err(Violation::new(
        Rule::Q2,
        "every change within 500 reads of ten",
        format!("{} of 150 changes were never returned", left.len()),
    ))
}
