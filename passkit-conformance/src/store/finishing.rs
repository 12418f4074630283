//! Cases about pending pushes under load, after dropped calls, and after the data are opened again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use passkit_server::{
    Changed, PassId,
    identifiers::TypeIdentifier,
    push::{PendingChange, Scope},
    store::clock,
};
use tokio::task::JoinSet;

use super::{
    cancelling::{MOST_POLLS, comes_to_rest, give_up_after, states},
    case::catalogue,
    names::{Device, all, new_passes, new_type, pass_of, serial, serials},
    queue::{
        Deferred, Queue, at, backlog_of, deferred, end, expect_deferred, expect_pending,
        finish_all, page, pending_of, removed, scope,
    },
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, random::Random, violation::ensure};

catalogue! {
    "queue/nothing-pending-is-lost" Must [Q1 Q2 Q3] queue nothing_pending_is_lost,
        "16 tasks mark 24 passes and an entire type. All marks make pushes pending. Meanwhile, workers read the \
         pending changes, and record progress to a page or to the end. Afterwards, the last mark \
         of each pass must be pending or finished. Then it must be possible to finish all changes.",
        "Under load, a phone never gets a push for the last change of its pass.";
    "queue/dropped-mark-and-push-is-all-or-nothing" Must [C12 Q1] queue
        dropped_mark_and_push_is_all_or_nothing,
        "A mark_and_push of 20 passes is dropped after 0 polls, in the next round after 1 poll, \
         and so on. Soon after each drop, each pass must be marked and pending, or neither marked nor pending.",
        "A pass has changed, and its phones never get a push.";
    "queue/dropped-mark-all-and-push-is-all-or-nothing" Must [C12 Q1] queue
        dropped_mark_all_and_push_is_all_or_nothing,
        "A mark_and_push of a type is dropped after 0 polls, in the next round after 1 poll, and \
         so on. Soon after each drop, the type must be marked and pending, or neither marked nor pending.",
        "All passes of a type have changed, and no phone ever gets a push.";
    "queue/pending-pushes-survive-reopening" Must [C6 Q1 Q2 Q3 Q4] opened
        pending_pushes_survive_reopening,
        "16 tasks mark passes with pushes, record progress, finish changes and defer pushes. Then \
         the data are opened again, as after a crash. The pending changes, their versions and \
         progress, and the deferred pushes must be as acknowledged. New marks must get greater \
         versions.",
        "After a restart, some phones never get their push, or all phones get it again.";
}

const WRITERS: usize = 16;
const MARKS: usize = 40;

/// The greatest finished version of each change.
type Finished = BTreeMap<Scope, u64>;

async fn nothing_pending_is_lost(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(24)?;
    // The test marks single passes of the first type, and marks the second type as a whole. Marks
    // of the whole first type would hide the versions of its passes.
    let whole = new_type()?;
    let marking = Arc::new(AtomicUsize::new(WRITERS));
    let marks = Arc::new(AtomicUsize::new(0));
    let mut markers = JoinSet::new();
    for writer in 0..WRITERS {
        let (queue, passes, whole) = (queue.clone(), passes.clone(), whole.clone());
        let (marking, marks) = (marking.clone(), marks.clone());
        markers.spawn(async move {
            let mut random = Random::new(Random::from_time() ^ writer as u64);
            let mut result = Ok(());
            for _ in 0..MARKS {
                let some: Vec<_> = (0..1 + random.below(4))
                    .map(|_| passes[random.below(passes.len())].clone())
                    .collect();
                result = match random.below(10) {
                    0 => queue.mark_and_push(&whole, Changed::All).await,
                    _ => {
                        queue
                            .mark_and_push(&some[0].type_id, Changed::Passes(&serials(&some)))
                            .await
                    }
                };
                if result.is_err() {
                    break;
                }
                marks.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
            marking.fetch_sub(1, SeqCst);
            Ok::<_, Violation>(result?)
        });
    }
    let mut workers = JoinSet::new();
    for type_id in [&type_id, &whole] {
        let (queue, type_id) = (queue.clone(), type_id.clone());
        let (marking, marks) = (marking.clone(), marks.clone());
        workers.spawn(async move {
            let mut random = Random::new(Random::from_time());
            let mut finished = Finished::new();
            // Another worker is slow. It reads the changes after half of the marks, and records
            // that it finished them after all marks.
            let mut slow = None;
            while marking.load(SeqCst) > 0 {
                if slow.is_none() && marks.load(SeqCst) > WRITERS * MARKS / 2 {
                    slow = Some(queue.pending(&type_id, 100).await?);
                }
                work(&queue, &type_id, &mut finished, |_| random.below(2) == 0).await?;
                tokio::task::yield_now().await;
            }
            let done = slow.unwrap_or_default().into_iter();
            let done: Vec<_> = done
                .map(|change| (change.scope, end(change.version)))
                .collect();
            queue.record_progress(&type_id, &done).await?;
            Ok((type_id, finished))
        });
    }
    all(markers).await?;
    for (type_id, finished) in all(workers).await? {
        let left = pending_of(queue, &type_id).await?;
        let last: Vec<_> = if type_id == whole {
            vec![(Scope::Type, pass_of(&whole, &serial("any")?))]
        } else {
            passes
                .iter()
                .map(|pass| (scope(pass), pass.clone()))
                .collect()
        };
        for (scope, pass) in last {
            let marked = queue.pass_state(&pass).await?.version;
            let still = left.get(&scope).map(|change| change.version);
            let done = finished.get(&scope).copied();
            ensure(
                Rule::Q2,
                still.max(done) >= Some(marked),
                format!("the mark {marked} to be pending or finished"),
                || format!("pending {still:?}, finished {done:?}"),
            )?;
        }
        // A few rounds are enough. If the stored progress of a change has an older version, the
        // change is pending once more after that version is finished.
        let mut finished = finished;
        for _ in 0..20 {
            work(queue, &type_id, &mut finished, |_| true).await?;
        }
        expect_pending(queue, &type_id, [], Rule::Q3, "after all were finished").await?;
    }
    Ok(())
}

/// Does what a worker does with pending changes. If `ends` returns true for a change, records
/// progress to the end. For all other changes, records progress to a page. If a change already has
/// progress, the new progress keeps the version of the earlier progress.
async fn work(
    queue: &Queue,
    type_id: &TypeIdentifier,
    finished: &mut Finished,
    mut ends: impl FnMut(&PendingChange) -> bool,
) -> Result<(), Violation> {
    let mut progress = Vec::new();
    for change in queue.pending(type_id, 10).await? {
        let version = change
            .progress
            .as_ref()
            .map_or(change.version, |progress| progress.version);
        ensure(
            Rule::Q2,
            version <= change.version,
            "a change that is not older than its progress",
            || format!("{change:?}"),
        )?;
        let before = finished.get(&change.scope).copied();
        ensure(
            Rule::Q3,
            Some(change.version) > before,
            format!("a change newer than {before:?}, which is finished"),
            || format!("{change:?}"),
        )?;
        let to = if ends(&change) {
            end(version)
        } else {
            page(version, "somewhere")
        };
        progress.push((change.scope, to));
    }
    queue.record_progress(type_id, &progress).await?;
    for (scope, progress) in progress {
        if progress.next.is_none() {
            finished.insert(scope, progress.version);
        }
    }
    Ok(())
}

/// Reports passes that were marked since `before`, and are either not pending or pending with
/// another version. Returns `None` if there are no such passes.
async fn halves(
    queue: &Queue,
    before: &[u64],
    passes: &[PassId],
    scope_of: impl Fn(&PassId) -> Scope,
) -> Result<Option<String>, Violation> {
    let after = states(queue, passes).await?;
    let pending = pending_of(queue, &passes[0].type_id).await?;
    let (mut pending_only, mut marked_only) = (0, 0);
    for ((pass, before), after) in passes.iter().zip(before).zip(&after) {
        let change = pending.get(&scope_of(pass)).map(|change| change.version);
        marked_only += usize::from(after.version != *before && change != Some(after.version));
        pending_only += usize::from(change.is_some_and(|version| version != after.version));
    }
    Ok((pending_only + marked_only > 0).then(|| {
        format!("{marked_only} marked but not pending, {pending_only} pending but not marked")
    }))
}

async fn dropped_mark_and_push_is_all_or_nothing(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(20)?;
    let all = serials(&passes);
    for polls in 0..MOST_POLLS {
        let before: Vec<_> = states(queue, &passes)
            .await?
            .iter()
            .map(|state| state.version)
            .collect();
        let done = give_up_after(polls, queue.mark_and_push(&type_id, Changed::Passes(&all))).await;
        comes_to_rest("a dropped mark_and_push", || {
            Box::pin(async { halves(queue, &before, &passes, scope).await })
        })
        .await?;
        // A caller would repeat the call.
        queue.mark_and_push(&type_id, Changed::Passes(&all)).await?;
        let every: Vec<_> = passes.iter().map(scope).collect();
        expect_pending(queue, &type_id, &every, Rule::C12, "after a second mark").await?;
        if done {
            break;
        }
        finish_all(queue, &type_id).await?;
    }
    Ok(())
}

async fn dropped_mark_all_and_push_is_all_or_nothing(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(1)?;
    for polls in 0..MOST_POLLS {
        let before = [queue.pass_state(&passes[0]).await?.version];
        let done = give_up_after(polls, queue.mark_and_push(&type_id, Changed::All)).await;
        comes_to_rest("a dropped mark_and_push of a type", || {
            Box::pin(async { halves(queue, &before, &passes, |_| Scope::Type).await })
        })
        .await?;
        queue.mark_and_push(&type_id, Changed::All).await?;
        expect_pending(
            queue,
            &type_id,
            [&Scope::Type],
            Rule::C12,
            "after a second mark",
        )
        .await?;
        if done {
            break;
        }
        finish_all(queue, &type_id).await?;
    }
    Ok(())
}

/// What one task did, and what must be there after reopening.
struct Done {
    type_id: TypeIdentifier,
    passes: Vec<PassId>,
    pending: BTreeMap<Scope, PendingChange>,
    deferred: Vec<Deferred>,
    /// A type without pending changes and deferred pushes.
    finished: TypeIdentifier,
}

async fn pending_pushes_survive_reopening(opened: &Opened) -> CaseResult {
    let queue = opened.queue()?;
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let queue = queue.clone();
        tasks.spawn(async move { fill(&queue, number).await });
    }
    let done = all(tasks).await?;
    let reopened = opened.reopen().await?;
    for done in &done {
        done.is_there(reopened.queue()?)
            .await
            .map_err(|found| found.unless_error_under(Rule::C6))?;
    }
    Ok(())
}

async fn fill(queue: &Queue, number: usize) -> Result<Done, Violation> {
    let (type_id, passes) = new_passes(6)?;
    let finished = new_type()?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    queue
        .mark_and_push(&finished, Changed::Passes(&serials(&passes)))
        .await?;
    if number.is_multiple_of(2) {
        queue.mark_and_push(&type_id, Changed::All).await?;
    }
    let first = pending_of(queue, &type_id).await?;
    let version = |pass: &PassId| first.get(&scope(pass)).map_or(0, |change| change.version);
    let progress = [
        (scope(&passes[0]), page(version(&passes[0]), "page 2")),
        (scope(&passes[1]), page(version(&passes[1]), "page 3")),
        (scope(&passes[2]), page(version(&passes[2]), "page 4")),
        (scope(&passes[4]), end(version(&passes[4]))),
    ];
    queue.record_progress(&type_id, &progress).await?;
    queue
        .mark_and_push(&type_id, Changed::Passes(&serials(&passes[1..4])))
        .await?;
    queue
        .record_progress(&type_id, &[(scope(&passes[2]), end(version(&passes[2])))])
        .await?;

    let now = clock::now_micros();
    let mut pushes = Vec::new();
    for n in 0..5 {
        let due = (n > 0).then(|| at(now + n));
        let (device, push) = deferred(&Device::new()?, due);
        pushes.push((
            device,
            push.map(|push| passkit_server::push::DeferredPush {
                bad_since: due,
                ..push
            }),
        ));
    }
    queue.defer(&type_id, &pushes).await?;
    if let (_, Some(push)) = &mut pushes[1] {
        push.attempts = 9;
    }
    let gone = pushes.split_off(4);
    queue
        .defer(&type_id, &[&pushes[1..2], &removed(&gone)].concat())
        .await?;

    let gone = [deferred(&Device::new()?, Some(at(now)))];
    queue.defer(&finished, &gone).await?;
    queue.defer(&finished, &removed(&gone)).await?;
    finish_all(queue, &finished).await?;
    let pending = pending_of(queue, &type_id).await?;
    ensure(
        Rule::Q1,
        pending.contains_key(&scope(&passes[0])),
        "a pending change of a marked pass",
        || "none".into(),
    )?;
    Ok(Done {
        type_id,
        passes,
        pending,
        deferred: pushes,
        finished,
    })
}

impl Done {
    async fn is_there(&self, queue: &Queue) -> Result<(), Violation> {
        let Self {
            type_id,
            passes,
            pending: before,
            deferred,
            finished,
        } = self;
        let now = pending_of(queue, type_id).await?;
        ensure(Rule::C6, now == *before, format!("{before:?}"), || {
            format!("{now:?}")
        })?;
        expect_deferred(queue, type_id, deferred, "as before").await?;
        let backlog = backlog_of(queue, type_id).await?;
        let next = deferred
            .iter()
            .filter_map(|(_, push)| push.as_ref()?.due)
            .min();
        let whole = backlog.as_ref().is_some_and(|backlog| {
            backlog.pending == before.len() as u64
                && backlog.since.is_some()
                && backlog.next_deferred == next
        });
        ensure(
            Rule::C6,
            whole,
            format!(
                "{} pending changes, and {next:?} as the time of the next deferred push",
                before.len()
            ),
            || format!("{backlog:?}"),
        )?;
        let nothing = backlog_of(queue, finished).await?;
        ensure(
            Rule::C6,
            nothing.is_none(),
            "no backlog for a type without pending changes and deferred pushes",
            || format!("{nothing:?}"),
        )?;

        // New marks get greater versions.
        queue
            .mark_and_push(type_id, Changed::Passes(&serials(&passes[..1])))
            .await?;
        let after = expect_pending(
            queue,
            type_id,
            before.keys(),
            Rule::C6,
            "after one was marked again",
        )
        .await?;
        let (old, new) = (&before[&scope(&passes[0])], &after[&scope(&passes[0])]);
        let newer = new.version > old.version && new.progress == old.progress;
        ensure(
            Rule::C6,
            newer,
            format!("a version greater than {old:?}"),
            || format!("{new:?}"),
        )?;
        finish_all(queue, type_id).await?;
        queue.defer(type_id, &removed(deferred)).await?;
        let nothing = backlog_of(queue, type_id).await?;
        ensure(
            Rule::C6,
            nothing.is_none(),
            "no backlog after all was finished",
            || format!("{nothing:?}"),
        )
    }
}
