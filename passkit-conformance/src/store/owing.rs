//! What is owed for passes and types, until it is settled.

use std::{collections::BTreeMap, slice, sync::Arc, time::SystemTime};

use passkit_server::{
    Debt, Owed, Owing, PageCursor, PassId, PushQueue, Reached, SerialNumber, TypeIdentifier,
};

use super::{
    catalogue,
    names::{Device, new_passes, new_type, pass_of, serial, serials},
};
use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

catalogue! {
    "queue/marked-passes-are-owed" Must [Q1 C1 MARK_UPDATED] queue marked_passes_are_owed,
        "Marks and owes one pass, several, one twice in a batch, and none at all; asks with a tag from before, and reads \
         the debts.",
        "Phones are not told of an update, or are told of one that they can't find.";
    "queue/marked-types-are-owed" Must [Q1 C9] queue marked_types_are_owed,
        "Marks and owes a whole type, beside one of its passes; asks with a tag from before, and reads the debts.",
        "A new design reaches only the phones that ask for it on their own.";
    "queue/plain-marks-owe-nothing" Must [Q1] queue plain_marks_owe_nothing,
        "Marks passes and a type without owing, one of them owed before; reads the debts.",
        "Phones are pushed for what their owner did not want announced.";
    "queue/owed-again-is-one-debt" Must [Q2] queue owed_again_is_one_debt,
        "Marks and owes passes and their type again and again, and reads the debts each time.",
        "A phone gets a push for each of many changes, or none for the last of them.";
    "queue/reached-pages-are-remembered" Must [Q2] queue reached_pages_are_remembered,
        "Advances debts to pages and on to others, and owes one of them again; reads the debts each time.",
        "After a restart a million phones are pushed once more from the start, or some of them never.";
    "queue/settled-debts-are-gone" Must [Q3] queue settled_debts_are_gone,
        "Advances debts to the end, some by way of a page, one of a type; reads what is owed, and owes one of them again.",
        "Phones are pushed for ever for a change that they have long had.";
    "queue/old-versions-settle-nothing" Must [Q2] queue old_versions_settle_nothing,
        "Advances debts to the end that were owed again meanwhile, from the start and from a page.",
        "A phone misses an update that came while the pushes for the one before it went out.";
    "queue/what-is-not-owed-stays-so" Must [Q3] queue what_is_not_owed_stays_so,
        "Advances to a page, and to the end, what was never owed and what was settled.",
        "Pushes go out that nobody owes, and do not stop.";
    "queue/owing-sums-up" Must [Q3 Q5] queue owing_sums_up,
        "Owes, settles and holds pushes of several types; reads what is owed of each after each step.",
        "A worker never looks at a type whose phones wait, or looks at one without end.";
    "queue/debts-keep-types-apart" Must [Q2 Q3 NAMES] queue debts_keep_types_apart,
        "Owes passes with equal and odd serial numbers in types that start alike, and the types too; settles some.",
        "The change of one pass is taken for that of another, and its phones are not told.";
    "queue/every-debt-has-its-turn" Must [Q2] queue every_debt_has_its_turn,
        "Reads ten debts at a time of 170, of which 20 are owed again in each round, and settles what it read.",
        "A few passes that change all the time keep the phones of all others from being told.";
}

pub(super) type Queue = Arc<dyn PushQueue>;

pub(super) fn owed(pass: &PassId) -> Owed {
    Owed::Pass(pass.serial.clone())
}

pub(super) fn page(version: u64, next: &str) -> Reached {
    Reached { version, next: Some(PageCursor::new(next)) }
}

pub(super) fn end(version: u64) -> Reached {
    Reached { version, next: None }
}

/// All debts of a type; each stands once.
pub(super) async fn debts(queue: &Queue, type_id: &TypeIdentifier) -> Result<BTreeMap<Owed, Debt>, Breach> {
    let debts = queue.debts(type_id, 100_000).await?;
    let count = debts.len();
    let debts: BTreeMap<_, _> = debts.into_iter().map(|debt| (debt.owed.clone(), debt)).collect();
    demand(Rule::Q2, debts.len() == count, "each debt once", || format!("{} of {count}", debts.len()))?;
    Ok(debts)
}

/// Demands that exactly this is owed.
pub(super) async fn owes<'a>(
    queue: &Queue,
    type_id: &TypeIdentifier,
    wanted: impl IntoIterator<Item = &'a Owed>,
    rule: Rule,
    when: &str,
) -> Result<BTreeMap<Owed, Debt>, Breach> {
    let wanted: Vec<_> = wanted.into_iter().collect();
    let debts = debts(queue, type_id).await?;
    let missing = wanted.iter().filter(|one| !debts.contains_key(one)).count();
    let foreign = debts.keys().filter(|one| !wanted.contains(one)).count();
    demand(rule, missing == 0 && foreign == 0, format!("{} debts {when}", wanted.len()), || {
        format!("{missing} of them missing and {foreign} others")
    })?;
    Ok(debts)
}

/// What is owed for the type, as a sum.
pub(super) async fn sum(queue: &Queue, type_id: &TypeIdentifier) -> Result<Option<Owing>, Breach> {
    let mut of_type = queue.owing().await?.into_iter().filter(|owing| owing.type_id == *type_id);
    let first = of_type.next();
    demand(Rule::Q3, of_type.next().is_none(), "each type once", || "one twice".into())?;
    Ok(first)
}

/// Demands that a debt has the version that the pass has from its last mark.
async fn is_of_the_last_mark(queue: &Queue, debt: &Debt, pass: &PassId) -> Kept {
    let state = queue.pass_state(pass).await?;
    demand(
        Rule::Q1,
        debt.version == state.version,
        format!("a debt with the version of the mark, {}", state.version),
        || debt.version.to_string(),
    )?;
    demand(Rule::Q1, debt.reached.is_none(), "a debt that nobody has begun with", || {
        format!("{:?}", debt.reached)
    })
}

async fn marked_passes_are_owed(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(30)?;
    let device = Device::holding(queue, &passes).await?;
    let mut tag = device.lists_exactly(queue, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    queue.mark_and_owe(&type_id, &[]).await?;
    owes(queue, &type_id, [], Rule::Q1, "after an empty batch").await?;
    device.list(queue, &type_id, Some(tag)).await?.is_empty(Rule::MARK_UPDATED, "after an empty batch")?;

    let mut so_far = Vec::new();
    let twice = [passes[1].serial.clone(), passes[2].serial.clone(), passes[1].serial.clone()];
    let batches = [serials(&passes[..1]), twice.to_vec(), serials(&passes[3..])];
    for batch in batches {
        queue.mark_and_owe(&type_id, &batch).await?;
        let marked: Vec<_> = batch.iter().map(|serial| pass_of(&type_id, serial)).collect();
        so_far.extend(marked.iter().map(owed));
        let debts = owes(queue, &type_id, &so_far, Rule::Q1, "after passes were marked and owed").await?;
        for pass in &marked {
            is_of_the_last_mark(queue, &debts[&owed(pass)], pass).await?;
        }
        let listed = device.list(queue, &type_id, Some(tag)).await?;
        listed.has(&marked, Rule::Q1, "after they were marked and owed")?;
        tag = listed.tag;
    }
    // Nobody holds it and nobody has registered for it, yet it is marked.
    let unknown = pass_of(&type_id, &serial("unknown")?);
    queue.mark_and_owe(&type_id, slice::from_ref(&unknown.serial)).await?;
    so_far.push(owed(&unknown));
    owes(queue, &type_id, &so_far, Rule::Q1, "after an unknown pass was marked and owed").await?;
    Ok(())
}

async fn marked_types_are_owed(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(3)?;
    let device = Device::holding(queue, &passes).await?;
    let tag = device.lists_exactly(queue, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    queue.mark_and_owe(&type_id, &serials(&passes[..1])).await?;
    queue.mark_all_and_owe(&type_id).await?;
    device.list(queue, &type_id, Some(tag)).await?.has(&passes, Rule::Q1, "after the type was marked")?;
    let both = [owed(&passes[0]), Owed::Type];
    let debts = owes(queue, &type_id, &both, Rule::Q1, "after a pass and its type were owed").await?;
    is_of_the_last_mark(queue, &debts[&Owed::Type], &passes[2]).await
}

async fn plain_marks_owe_nothing(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(3)?;
    queue.mark_updated(&type_id, &serials(&passes[..2])).await?;
    queue.mark_all_updated(&type_id).await?;
    owes(queue, &type_id, [], Rule::Q1, "after plain marks").await?;
    let sum = sum(queue, &type_id).await?;
    demand(Rule::Q1, sum.is_none(), "nothing owed after plain marks", || format!("{sum:?}"))?;
    queue.mark_and_owe(&type_id, &serials(&passes[..1])).await?;
    let before = debts(queue, &type_id).await?;
    queue.mark_updated(&type_id, &serials(&passes)).await?;
    queue.mark_all_updated(&type_id).await?;
    let after = debts(queue, &type_id).await?;
    demand(Rule::Q1, before == after, "the debts as before plain marks", || format!("{after:?}"))
}

async fn owed_again_is_one_debt(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(4)?;
    let mut all: Vec<_> = passes.iter().map(owed).collect();
    all.push(Owed::Type);
    let mut before: BTreeMap<Owed, Debt> = BTreeMap::new();
    for _ in 0..5 {
        queue.mark_and_owe(&type_id, &serials(&passes)).await?;
        queue.mark_all_and_owe(&type_id).await?;
        let after = owes(queue, &type_id, &all, Rule::Q2, "after it was owed again").await?;
        for (owed, debt) in &after {
            let before = before.get(owed).map_or(0, |debt| debt.version);
            demand(Rule::Q2, debt.version > before, format!("a version beyond {before}"), || {
                debt.version.to_string()
            })?;
        }
        before = after;
    }
    Ok(())
}

/// Demands that a debt says that this was reached.
async fn reached(queue: &Queue, type_id: &TypeIdentifier, owed: &Owed, wanted: Option<&Reached>) -> Kept {
    let debts = debts(queue, type_id).await?;
    let debt = debts.get(owed);
    demand(
        Rule::Q2,
        debt.is_some_and(|debt| debt.reached.as_ref() == wanted),
        format!("a debt that reached {wanted:?}"),
        || format!("{debt:?}"),
    )
}

async fn reached_pages_are_remembered(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(2)?;
    queue.mark_and_owe(&type_id, &serials(&passes)).await?;
    queue.mark_all_and_owe(&type_id).await?;
    let [first, second, all] = [owed(&passes[0]), owed(&passes[1]), Owed::Type];
    let versions = debts(queue, &type_id).await?;
    let version = |owed: &Owed| versions.get(owed).map_or(0, |debt| debt.version);
    // As the pages of this store end, and as they never do.
    let [near, far] = ["device 1/ü\u{fffd} \n\"{}", &"x".repeat(900)].map(|next| page(version(&first), next));
    let of_all = page(version(&all), "device\u{1f3ab}");
    queue.advance(&type_id, &[(first.clone(), near.clone()), (all.clone(), of_all.clone())]).await?;
    reached(queue, &type_id, &first, Some(&near)).await?;
    reached(queue, &type_id, &second, None).await?;
    reached(queue, &type_id, &all, Some(&of_all)).await?;
    queue.advance(&type_id, &[(first.clone(), far.clone())]).await?;
    reached(queue, &type_id, &first, Some(&far)).await?;
    queue.advance(&type_id, &[]).await?;

    // Owed again, it is where it was, and known to be about the older version.
    queue.mark_and_owe(&type_id, &serials(&passes)).await?;
    queue.mark_all_and_owe(&type_id).await?;
    reached(queue, &type_id, &first, Some(&far)).await?;
    reached(queue, &type_id, &all, Some(&of_all)).await?;
    let later = debts(queue, &type_id).await?;
    let newer = later.iter().all(|(owed, debt)| debt.version > version(owed));
    demand(Rule::Q2, newer, "greater versions of debts that were begun with", || format!("{later:?}"))
}

async fn settled_debts_are_gone(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(12)?;
    queue.mark_and_owe(&type_id, &serials(&passes)).await?;
    queue.mark_all_and_owe(&type_id).await?;
    let versions = debts(queue, &type_id).await?;
    let version = |owed: &Owed| versions.get(owed).map_or(0, |debt| debt.version);
    let settled: Vec<_> = passes[..6].iter().map(owed).chain([Owed::Type]).collect();
    let begun: Vec<_> = settled.iter().map(|owed| (owed.clone(), page(version(owed), "somewhere"))).collect();
    queue.advance(&type_id, &begun[..3]).await?;
    let done: Vec<_> = settled.iter().map(|owed| (owed.clone(), end(version(owed)))).collect();
    queue.advance(&type_id, &done).await?;
    let left: Vec<_> = passes[6..].iter().map(owed).collect();
    owes(queue, &type_id, &left, Rule::Q3, "after the others were settled").await?;

    // What comes after that is a debt like a first one.
    queue.mark_and_owe(&type_id, &serials(&passes[..1])).await?;
    let again =
        owes(queue, &type_id, left.iter().chain([&settled[0]]), Rule::Q2, "after one came back").await?;
    is_of_the_last_mark(queue, &again[&settled[0]], &passes[0]).await?;
    let rest: Vec<_> = again.values().map(|debt| (debt.owed.clone(), end(debt.version))).collect();
    queue.advance(&type_id, &rest).await?;
    owes(queue, &type_id, [], Rule::Q3, "after all were settled").await?;
    let sum = sum(queue, &type_id).await?;
    demand(Rule::Q3, sum.is_none(), "nothing owed after all was settled", || format!("{sum:?}"))
}

async fn old_versions_settle_nothing(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(3)?;
    let all: Vec<_> = passes.iter().map(owed).chain([Owed::Type]).collect();
    let owe = async || -> Kept {
        queue.mark_and_owe(&type_id, &serials(&passes)).await?;
        Ok(queue.mark_all_and_owe(&type_id).await?)
    };
    owe().await?;
    let versions = debts(queue, &type_id).await?;
    let version = |owed: &Owed| versions.get(owed).map_or(0, |debt| debt.version);
    let begun: Vec<_> =
        all[1..].iter().map(|owed| (owed.clone(), page(version(owed), "somewhere"))).collect();
    queue.advance(&type_id, &begun).await?;
    owe().await?;
    let newer = debts(queue, &type_id).await?;
    let done: Vec<_> = all.iter().map(|owed| (owed.clone(), end(version(owed)))).collect();
    queue.advance(&type_id, &done).await?;
    let after = owes(queue, &type_id, &all, Rule::Q2, "after older versions of them were settled").await?;
    for owed in &all {
        reached(queue, &type_id, owed, None).await?;
        let (newer, after) = (&newer[owed], &after[owed]);
        demand(Rule::Q2, newer.version == after.version, format!("still {newer:?}"), || {
            format!("{after:?}")
        })?;
    }
    // And the newer ones do.
    let done: Vec<_> = after.values().map(|debt| (debt.owed.clone(), end(debt.version))).collect();
    queue.advance(&type_id, &done).await?;
    owes(queue, &type_id, [], Rule::Q3, "after the newest versions were settled").await?;
    Ok(())
}

async fn what_is_not_owed_stays_so(queue: &Queue) -> Kept {
    let (type_id, passes) = new_passes(3)?;
    let never = [(owed(&passes[1]), page(7, "x")), (Owed::Type, page(7, "x")), (owed(&passes[2]), end(7))];
    queue.advance(&type_id, &never).await?;
    owes(queue, &type_id, [], Rule::Q3, "of a type that was never marked").await?;
    queue.mark_and_owe(&type_id, &serials(&passes[..2])).await?;
    let versions = debts(queue, &type_id).await?;
    let settled = owed(&passes[1]);
    let version = versions.get(&settled).map_or(0, |debt| debt.version);
    queue.advance(&type_id, &[(settled.clone(), end(version))]).await?;
    for reached in [page(version, "x"), end(version), page(version + 1, "x"), end(version + 1)] {
        queue.advance(&type_id, &[(settled.clone(), reached.clone()), (Owed::Type, reached)]).await?;
        owes(queue, &type_id, [&owed(&passes[0])], Rule::Q3, "beside what is not owed").await?;
    }
    let sum = sum(queue, &type_id).await?;
    let one = sum.as_ref().is_some_and(|sum| sum.debts == 1);
    demand(Rule::Q3, one, "one debt in the sum", || format!("{sum:?}"))
}

async fn owing_sums_up(queue: &Queue) -> Kept {
    let is =
        async |type_id: &TypeIdentifier, debts: Option<u64>, when: &str| -> Result<Option<Owing>, Breach> {
            let sum = sum(queue, type_id).await?;
            let found = sum.as_ref().map(|sum| sum.debts);
            demand(Rule::Q3, found == debts, format!("{debts:?} debts {when}"), || format!("{found:?}"))?;
            let dated = sum.as_ref().is_none_or(|sum| sum.since.is_some() == (sum.debts > 0));
            demand(Rule::Q3, dated, "a time with debts, and none without", || format!("{sum:?}"))?;
            Ok(sum)
        };
    let (first, passes) = new_passes(20)?;
    let second = TypeIdentifier::new(&format!("{first}.b"))?;
    let third = new_type()?;
    for type_id in [&first, &second, &third] {
        is(type_id, None, "of a new type").await?;
    }
    queue.mark_and_owe(&first, &serials(&passes)).await?;
    let marked = SystemTime::now();
    queue.mark_all_and_owe(&second).await?;
    is(&first, Some(20), "after 20 passes were owed").await?;
    is(&second, Some(1), "after a type was owed").await?;
    is(&third, None, "while others are owed").await?;

    // As long as the oldest is owed, nothing that comes later moves the time.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    queue.mark_and_owe(&first, &serials(&passes[5..])).await?;
    queue.mark_all_and_owe(&first).await?;
    let since = is(&first, Some(21), "after some were owed again, and their type").await?;
    let since = since.and_then(|sum| sum.since);
    demand(Rule::Q3, since.is_some_and(|since| since <= marked), "since the first mark or before", || {
        format!("{since:?}, and the mark was made before {marked:?}")
    })?;

    let versions = debts(queue, &first).await?;
    let done: Vec<_> = versions.values().map(|debt| (debt.owed.clone(), end(debt.version))).collect();
    queue.advance(&first, &done[..15]).await?;
    is(&first, Some(6), "after 15 of 21 were settled").await?;
    let device = Device::new()?;
    queue.hold(&first, &[super::holding::push(&device, None)]).await?;
    queue.hold(&third, &[super::holding::push(&device, None)]).await?;
    is(&third, Some(0), "of a type with held pushes only").await?;
    queue.advance(&first, &done[15..]).await?;
    is(&first, Some(0), "after all were settled, and one push is held").await?;
    is(&second, Some(1), "after others were settled").await?;
    for type_id in [&first, &third] {
        queue.unhold(type_id, slice::from_ref(&device.id)).await?;
        is(type_id, None, "after nothing was left").await?;
    }
    Ok(())
}

async fn debts_keep_types_apart(queue: &Queue) -> Kept {
    let short = new_type()?;
    let long = TypeIdentifier::new(&format!("{short}.b"))?;
    let order = TypeIdentifier::new(&short.as_str().replacen("pass.", "order.", 1))?;
    let long_serial = "ü".repeat(256);
    let odd =
        ["a", "A", ".b", "*", "%", "type", "0", "a ", " a", "a/b", "a:b", "{a}", "\"a\"", "\\", &long_serial];
    let odd: Vec<SerialNumber> = odd.iter().map(|text| serial(text)).collect::<Result<_, _>>()?;
    let mut all: Vec<_> = odd.iter().cloned().map(Owed::Pass).collect();
    all.push(Owed::Type);
    queue.mark_and_owe(&short, &odd).await?;
    queue.mark_all_and_owe(&short).await?;
    owes(queue, &short, &all, Rule::NAMES, "for passes with odd serial numbers and their type").await?;
    for other in [&long, &order] {
        owes(queue, other, [], Rule::NAMES, "of a type that starts as another").await?;
        queue.mark_and_owe(other, &odd).await?;
    }
    let versions = debts(queue, &short).await?;
    let done: Vec<_> = versions.values().map(|debt| (debt.owed.clone(), end(debt.version))).collect();
    queue.advance(&long, &done[..3]).await?;
    queue.advance(&short, &done).await?;
    owes(queue, &short, [], Rule::Q3, "after all of the type were settled").await?;
    for other in [&long, &order] {
        let passes = &all[..odd.len()];
        owes(queue, other, passes, Rule::NAMES, "after another type was settled").await?;
    }
    Ok(())
}

async fn every_debt_has_its_turn(queue: &Queue) -> Kept {
    const LIMIT: usize = 10;
    let type_id = new_type()?;
    let named =
        |count, name: &str| (0..count).map(|n| serial(&format!("{name}-{n}"))).collect::<Result<Vec<_>, _>>();
    // Before and behind the others, whatever the order.
    let busy = [named(LIMIT, "0")?, named(LIMIT, "z")?].concat();
    let quiet = named(150, "m")?;
    queue.mark_and_owe(&type_id, &busy).await?;
    for batch in quiet.chunks(30) {
        queue.mark_and_owe(&type_id, batch).await?;
    }
    let mut left: std::collections::BTreeSet<_> = quiet.iter().cloned().map(Owed::Pass).collect();
    for _ in 0..500 {
        let debts = queue.debts(&type_id, LIMIT).await?;
        demand(Rule::Q2, debts.len() <= 2 * LIMIT + 64, format!("about {LIMIT} debts"), || {
            format!("{} debts", debts.len())
        })?;
        queue.mark_and_owe(&type_id, &busy).await?;
        let done: Vec<_> = debts.into_iter().map(|debt| (debt.owed, end(debt.version))).collect();
        queue.advance(&type_id, &done).await?;
        for (owed, _) in done {
            left.remove(&owed);
        }
        if left.is_empty() {
            let busy: Vec<_> = busy.iter().cloned().map(Owed::Pass).collect();
            owes(queue, &type_id, &busy, Rule::Q2, "that were owed again in each round").await?;
            return Ok(());
        }
    }
    Err(Breach::new(
        Rule::Q2,
        "every debt within 500 readings of ten",
        format!("{} of 150 never given", left.len()),
    ))
}
