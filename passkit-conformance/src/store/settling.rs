//! What is owed when much happens at once, when calls are given up, and when the storage is opened anew.

use std::{
    collections::BTreeMap,
    slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::{Debt, HeldPush, Owed, PassId, TypeIdentifier, clock};
use tokio::task::JoinSet;

use super::{
    Stores,
    cancelling::{MOST_POLLS, give_up_after, settles, states},
    catalogue,
    holding::{at, holds, push},
    names::{Device, all, new_passes, new_type, pass_of, serial, serials},
    not_opened, open_queued,
    owing::{Queue, debts, end, owed, owes, page, sum},
    random::Random,
};
use crate::{
    Breach, Rule, Stop, Verdict,
    breach::{Kept, demand},
};

catalogue! {
    "queue/nothing-owed-is-lost" Must [Q1 Q2 Q3] queue nothing_owed_is_lost,
        "16 tasks mark and owe 24 passes and a type while a worker reads debts and advances them to pages and to the end; \
         then each last mark must be owed or settled after it, and all can be settled.",
        "Under load a phone is never told of the last change of its pass.";
    "queue/dropped-mark-and-owe-is-whole" Must [C12 Q1] queue dropped_mark_and_owe_is_whole,
        "Polls a mark_and_owe of 20 passes 0, 1, 2, ... times and drops it; each pass must come to be marked and owed, or \
         neither.",
        "A pass has changed, and its phones are never told.";
    "queue/dropped-mark-all-and-owe-is-whole" Must [C12 Q1] queue dropped_mark_all_and_owe_is_whole,
        "Polls a mark_all_and_owe 0, 1, 2, ... times and drops it; the type must come to be marked and owed, or neither.",
        "All passes of a type have changed, and no phone is ever told.";
    "queue/what-is-owed-survives-reopening" Must [C6 Q1 Q2 Q3 Q5] stores what_is_owed_survives_reopening,
        "16 tasks owe, advance, settle, hold and unhold; the storage is opened anew as it lies; debts, their versions, \
         how far they came, and held pushes must be as acknowledged, and go on from there.",
        "A restart forgets whom to tell, or has every phone told again.";
}

const WRITERS: usize = 16;
const MARKS: usize = 40;

/// For each debt the greatest version that was settled.
type Settled = BTreeMap<Owed, u64>;

async fn nothing_owed_is_lost(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(24)?;
    // A type of its own for marks of all: they would hide the versions of the passes.
    let whole = new_type()?;
    let marking = Arc::new(AtomicUsize::new(WRITERS));
    let mut markers = JoinSet::new();
    for writer in 0..WRITERS {
        let (queue, passes, whole, marking) = (queue.clone(), passes.clone(), whole.clone(), marking.clone());
        markers.spawn(async move {
            let mut random = Random::new(Random::from_time() ^ writer as u64);
            let mut result = Ok(());
            for _ in 0..MARKS {
                let some: Vec<_> =
                    (0..1 + random.below(4)).map(|_| passes[random.below(passes.len())].clone()).collect();
                result = match random.below(10) {
                    0 => queue.mark_all_and_owe(&whole).await,
                    _ => queue.mark_and_owe(&some[0].type_id, &serials(&some)).await,
                };
                if result.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            marking.fetch_sub(1, SeqCst);
            Ok::<_, Breach>(result?)
        });
    }
    let mut workers = JoinSet::new();
    for type_id in [&type_id, &whole] {
        let (queue, type_id, marking) = (queue.clone(), type_id.clone(), marking.clone());
        workers.spawn(async move {
            let mut random = Random::new(Random::from_time());
            let mut settled = Settled::new();
            while marking.load(SeqCst) > 0 {
                work(&queue, &type_id, &mut settled, |_| random.below(2) == 0).await?;
                tokio::task::yield_now().await;
            }
            Ok((type_id, settled))
        });
    }
    all(markers).await?;
    for (type_id, settled) in all(workers).await? {
        let left = debts(queue, &type_id).await?;
        let last: Vec<_> = if type_id == whole {
            vec![(Owed::Type, pass_of(&whole, &serial("any")?))]
        } else {
            passes.iter().map(|pass| (owed(pass), pass.clone())).collect()
        };
        for (owed, pass) in last {
            let marked = queue.pass_state(&pass).await?.version;
            let kept = left.get(&owed).map(|debt| debt.version);
            let done = settled.get(&owed).copied();
            demand(
                Rule::Q2,
                kept.max(done) >= Some(marked),
                format!("the mark {marked} owed, or settled"),
                || format!("owed {kept:?}, settled {done:?}"),
            )?;
        }
        // Each in two rounds at most: what was begun with an older version is read once more from the start.
        let mut settled = settled;
        for _ in 0..20 {
            work(queue, &type_id, &mut settled, |_| true).await?;
        }
        owes(queue, &type_id, [], Rule::Q3, "after all were settled").await?;
    }
    Ok(())
}

/// Does what a worker does with the debts at hand: to a page, or to the end if `ends` says so, of the version that was
/// begun with.
async fn work(
    queue: &Queue,
    type_id: &TypeIdentifier,
    settled: &mut Settled,
    mut ends: impl FnMut(&Debt) -> bool,
) -> Kept {
    let mut reached = Vec::new();
    for debt in queue.debts(type_id, 10).await? {
        let version = debt.reached.as_ref().map_or(debt.version, |reached| reached.version);
        demand(Rule::Q2, version <= debt.version, "a debt at least as new as what was begun with", || {
            format!("{debt:?}")
        })?;
        let before = settled.get(&debt.owed).copied();
        demand(
            Rule::Q3,
            Some(debt.version) > before,
            format!("a debt beyond {before:?}, which is settled"),
            || format!("{debt:?}"),
        )?;
        let to = if ends(&debt) { end(version) } else { page(version, "somewhere") };
        reached.push((debt.owed, to));
    }
    queue.advance(type_id, &reached).await?;
    for (owed, reached) in reached {
        if reached.next.is_none() {
            settled.insert(owed, reached.version);
        }
    }
    Ok(())
}

/// Whether each pass is marked since `before` just where it is owed with that version.
async fn halves(
    queue: &Queue,
    before: &[u64],
    passes: &[PassId],
    owed: impl Fn(&PassId) -> Owed,
) -> Result<Option<String>, Breach> {
    let after = states(&**queue, passes).await?;
    let debts = debts(queue, &passes[0].type_id).await?;
    let (mut owed_only, mut marked_only) = (0, 0);
    for ((pass, before), after) in passes.iter().zip(before).zip(&after) {
        let debt = debts.get(&owed(pass)).map(|debt| debt.version);
        marked_only += usize::from(after.version != *before && debt != Some(after.version));
        owed_only += usize::from(debt.is_some_and(|version| version != after.version));
    }
    Ok((owed_only + marked_only > 0)
        .then(|| format!("{marked_only} marked and not owed, {owed_only} owed and not marked")))
}

async fn settle_all(queue: &Queue, type_id: &TypeIdentifier) -> Kept {
    let debts = debts(queue, type_id).await?;
    let done: Vec<_> = debts.into_values().map(|debt| (debt.owed, end(debt.version))).collect();
    Ok(queue.advance(type_id, &done).await?)
}

async fn dropped_mark_and_owe_is_whole(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(20)?;
    let all = serials(&passes);
    for polls in 0..MOST_POLLS {
        let before: Vec<_> = states(&**queue, &passes).await?.iter().map(|state| state.version).collect();
        let done = give_up_after(polls, queue.mark_and_owe(&type_id, &all)).await;
        settles("a mark_and_owe that was given up", || {
            Box::pin(async { halves(queue, &before, &passes, owed).await })
        })
        .await?;
        // Again, as its caller would.
        queue.mark_and_owe(&type_id, &all).await?;
        let every: Vec<_> = passes.iter().map(owed).collect();
        owes(queue, &type_id, &every, Rule::C12, "after marking again").await?;
        if done {
            break;
        }
        settle_all(queue, &type_id).await?;
    }
    Ok(())
}

async fn dropped_mark_all_and_owe_is_whole(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(1)?;
    for polls in 0..MOST_POLLS {
        let before = [queue.pass_state(&passes[0]).await?.version];
        let done = give_up_after(polls, queue.mark_all_and_owe(&type_id)).await;
        settles("a mark_all_and_owe that was given up", || {
            Box::pin(async { halves(queue, &before, &passes, |_| Owed::Type).await })
        })
        .await?;
        queue.mark_all_and_owe(&type_id).await?;
        owes(queue, &type_id, [&Owed::Type], Rule::C12, "after marking again").await?;
        if done {
            break;
        }
        settle_all(queue, &type_id).await?;
    }
    Ok(())
}

/// What one task did, and so what must be there.
struct Done {
    type_id: TypeIdentifier,
    passes: Vec<PassId>,
    debts: BTreeMap<Owed, Debt>,
    held: Vec<HeldPush>,
    /// A type of which nothing is left.
    settled: TypeIdentifier,
}

async fn what_is_owed_survives_reopening(stores: Arc<dyn Stores>) -> Verdict {
    const LACKING: &str =
        "Stores::reopen_queued gives nothing: implement it where the storage outlives a process";
    let queue = open_queued(stores.clone()).await?;
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let queue = queue.clone();
        tasks.spawn(async move { fill(&queue, number).await });
    }
    let done = all(tasks).await?;
    let reopened = stores.reopen_queued(queue).await.ok_or_else(|| Stop::Skip(LACKING.into()))?;
    let reopened = reopened.map_err(not_opened)?;
    for done in &done {
        done.is_there(&reopened)
            .await
            .map_err(|breach| if breach.rule() == Rule::ERRORS { breach } else { breach.under(Rule::C6) })?;
    }
    Ok(())
}

async fn fill(queue: &Queue, number: usize) -> Result<Done, Breach> {
    let (type_id, passes) = new_passes(6)?;
    let settled = new_type()?;
    queue.mark_and_owe(&type_id, &serials(&passes)).await?;
    queue.mark_and_owe(&settled, &serials(&passes)).await?;
    if number.is_multiple_of(2) {
        queue.mark_all_and_owe(&type_id).await?;
    }
    let first = debts(queue, &type_id).await?;
    let version = |pass: &PassId| first.get(&owed(pass)).map_or(0, |debt| debt.version);
    let reached = [
        (owed(&passes[0]), page(version(&passes[0]), "page 2")),
        (owed(&passes[1]), page(version(&passes[1]), "page 3")),
        (owed(&passes[2]), page(version(&passes[2]), "page 4")),
        (owed(&passes[4]), end(version(&passes[4]))),
    ];
    queue.advance(&type_id, &reached).await?;
    queue.mark_and_owe(&type_id, &serials(&passes[1..4])).await?;
    queue.advance(&type_id, &[(owed(&passes[2]), end(version(&passes[2])))]).await?;

    let now = clock::now_micros();
    let mut held = Vec::new();
    for n in 0..5 {
        let due = (n > 0).then(|| at(now + n));
        held.push(HeldPush { bad_since: due, ..push(&Device::new()?, due) });
    }
    queue.hold(&type_id, &held).await?;
    held[1].attempts = 9;
    queue.hold(&type_id, slice::from_ref(&held[1])).await?;
    queue.unhold(&type_id, &[held.remove(4).device]).await?;

    let gone = push(&Device::new()?, Some(at(now)));
    queue.hold(&settled, slice::from_ref(&gone)).await?;
    queue.unhold(&settled, &[gone.device]).await?;
    settle_all(queue, &settled).await?;
    let debts = debts(queue, &type_id).await?;
    Ok(Done { type_id, passes, debts, held, settled })
}

impl Done {
    async fn is_there(&self, queue: &Queue) -> Kept {
        let Self { type_id, passes, debts: before, held, settled } = self;
        let now = debts(queue, type_id).await?;
        demand(Rule::C6, now == *before, format!("{before:?}"), || format!("{now:?}"))?;
        holds(queue, type_id, held, "as before").await?;
        let of_type = sum(queue, type_id).await?;
        let next = held.iter().filter_map(|push| push.due).min();
        let whole = of_type.as_ref().is_some_and(|sum| {
            sum.debts == before.len() as u64 && sum.since.is_some() && sum.next_held == next
        });
        demand(Rule::C6, whole, format!("{} debts, and {next:?} as the next", before.len()), || {
            format!("{of_type:?}")
        })?;
        let of_settled = sum(queue, settled).await?;
        demand(Rule::C6, of_settled.is_none(), "nothing of what was settled", || format!("{of_settled:?}"))?;

        // And all goes on from there.
        queue.mark_and_owe(type_id, &serials(&passes[..1])).await?;
        let after = owes(queue, type_id, before.keys(), Rule::C6, "after one was owed again").await?;
        let (old, new) = (&before[&owed(&passes[0])], &after[&owed(&passes[0])]);
        let newer = new.version > old.version && new.reached == old.reached;
        demand(Rule::C6, newer, format!("a version beyond {old:?}"), || format!("{new:?}"))?;
        settle_all(queue, type_id).await?;
        let devices: Vec<_> = held.iter().map(|push| push.device.clone()).collect();
        queue.unhold(type_id, &devices).await?;
        let nothing = sum(queue, type_id).await?;
        demand(Rule::C6, nothing.is_none(), "nothing after all was settled", || format!("{nothing:?}"))?;
        for worker in ["before", "after"] {
            let given = queue.lease(type_id, worker, Duration::from_secs(60)).await?;
            let wanted = worker == "before";
            demand(Rule::Q4, given == wanted, format!("{wanted} for the lease"), || given.to_string())?;
        }
        Ok(())
    }
}
