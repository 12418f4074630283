//! Cases that remove everything that a store keeps about a pass.

use std::{
    collections::BTreeSet,
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{TokenDigest, TypeIdentifier},
    maintenance::StoreMaintenance,
    push::{PendingChange, Scope},
    store::{Content, Published, RegistrationStore},
};

use super::{
    case::catalogue,
    names::{Device, new_passes, new_type, pass_of, serial, serials, shown_state},
    naming::wild_serials,
    queue::{backlog_of, expect_pending, scope},
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, violation::ensure};

catalogue! {
    "store/forgotten-pass-is-unknown" Must [FORGET_PASS P2 C14] maintenance forgotten_pass_is_unknown,
        "Marks a type, publishes three passes, marks them, and registers a device for two of \
         them. Forgets the third pass, a pass that was never known, and the third pass again. \
         Then publishes the content of the third pass again.",
        "Data that were removed for privacy are still there, or a pass that comes back never \
         reaches the phones.";
    "store/forgetting-waits-for-the-date" Must [C14 FORGET_PASS] maintenance
        forgetting_waits_for_the_date,
        "Marks a pass ten times, so that its date is ahead of the clock. Forgets it at once, and \
         marks it again.",
        "A phone keeps old content, because the new content has the same date.";
    "store/forgetting-keeps-passes-apart" Must [NAMES] maintenance forgetting_keeps_passes_apart,
        "Publishes passes with odd serial numbers, and passes with equal serial numbers in types \
         that start alike. Forgets some of them. All others stay as before, and so do the \
         registrations.",
        "When the data of one pass are removed, the data of another pass go too.";
    "store/forgotten-passes-stay-forgotten" Must [C6 FORGET_PASS] opened
        forgotten_passes_stay_forgotten,
        "Publishes eight passes, and forgets every second one. Then opens the data again.",
        "Data that were removed for privacy are back after a crash.";
    "queue/forgotten-pass-is-not-pending" Must [FORGET_PASS Q2 Q3] opened
        forgotten_pass_is_not_pending,
        "Makes pushes of two passes and of their type pending, and forgets one of the passes. \
         Forgets a pass of another type, whose push was the only one.",
        "A removed pass stays in the queue forever, or other phones lose their push.";
}

/// How long a date may stay ahead of the clock.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Forgets a pass as soon as its date allows it.
async fn forget(store: &dyn StoreMaintenance, pass: &PassId) -> Result<(), Violation> {
    let start = Instant::now();
    while !store.forget_pass(pass).await? {
        ensure(
            Rule::FORGET_PASS,
            start.elapsed() < TIMEOUT,
            "true when the date of the pass is past",
            || "false for a minute".into(),
        )?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn content(pass: &PassId, digest: u8) -> Content {
    Content {
        serial: pass.serial.clone(),
        digest: Some([digest; 32]),
        tokens: vec![TokenDigest::from_bytes([digest; 32])],
    }
}

/// Publishes passes of one type. The content of each has the digest and token `digest`.
async fn publish(
    store: &dyn StoreMaintenance,
    passes: &[PassId],
    digest: u8,
) -> Result<(), Violation> {
    let contents: Vec<_> = passes.iter().map(|pass| content(pass, digest)).collect();
    if let [first, ..] = passes {
        store
            .mark(&first.type_id, Changed::Contents(&contents))
            .await?;
    }
    Ok(())
}

/// What the store knows about a pass.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    state: PassState,
    published: Option<Published>,
}

async fn known(store: &dyn RegistrationStore, pass: &PassId) -> Result<Known, Violation> {
    Ok(Known {
        state: store.pass_state(pass).await?,
        published: store
            .published(slice::from_ref(pass))
            .await?
            .pop()
            .flatten(),
    })
}

/// Ensures that the store knows no more about a pass than before the pass was first published.
async fn is_unknown(
    store: &dyn RegistrationStore,
    pass: &PassId,
    unknown: &Known,
    rule: Rule,
    when: &str,
) -> Result<(), Violation> {
    let found = known(store, pass).await?;
    ensure(
        rule,
        found == *unknown,
        format!("nothing known about the pass {when}: {}", shown(unknown)),
        || shown(&found),
    )
}

fn shown(known: &Known) -> String {
    let tokens = known.published.as_ref().map(|one| one.tokens.len());
    format!("{}, tokens {tokens:?}", shown_state(known.state))
}

/// Ensures that the store knows the same about these passes as before.
async fn are_known(
    store: &dyn RegistrationStore,
    passes: &[(PassId, Known)],
    rule: Rule,
    when: &str,
) -> Result<(), Violation> {
    for (pass, before) in passes {
        let now = known(store, pass).await?;
        ensure(
            rule,
            now == *before,
            format!("{:?} as before {when}: {}", pass.serial, shown(before)),
            || shown(&now),
        )?;
    }
    Ok(())
}

async fn all_known(
    store: &dyn RegistrationStore,
    passes: impl IntoIterator<Item = &PassId>,
) -> Result<Vec<(PassId, Known)>, Violation> {
    let mut all = Vec::new();
    for pass in passes {
        all.push((pass.clone(), known(store, pass).await?));
    }
    Ok(all)
}

/// Returns all published passes of a type.
async fn published_of(
    store: &dyn StoreMaintenance,
    type_id: &TypeIdentifier,
) -> Result<BTreeSet<PassId>, Violation> {
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.published_passes(after.as_ref(), 1_000).await?;
        found.extend(
            page.items
                .into_iter()
                .filter(|pass| pass.type_id == *type_id),
        );
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

async fn forgotten_pass_is_unknown(store: &Arc<dyn StoreMaintenance>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let device = Device::registered_for(store, &passes[1..]).await?;
    store.mark(&type_id, Changed::All).await?;
    let unknown = known(store, &passes[0]).await?;
    publish(&**store, &passes, 1).await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    let tag = device
        .lists_exactly(store, &type_id, &passes[1..], Rule::CHANGES_SINCE)
        .await?;
    let others = all_known(store, &passes[1..]).await?;
    let before = store.pass_state(&passes[0]).await?;

    forget(&**store, &passes[0]).await?;
    let when = "after it was forgotten";
    is_unknown(store, &passes[0], &unknown, Rule::FORGET_PASS, when).await?;
    let (_, never) = new_passes(1)?;
    for pass in [&never[0], &passes[0]] {
        let forgotten = store.forget_pass(pass).await?;
        ensure(
            Rule::FORGET_PASS,
            forgotten,
            "true for an unknown pass",
            || "false".into(),
        )?;
    }
    let found = published_of(&**store, &type_id).await?;
    ensure(
        Rule::FORGET_PASS,
        found == passes[1..].iter().cloned().collect(),
        "only the other two among the published passes",
        || format!("{} passes", found.len()),
    )?;
    let when = "after another pass was forgotten";
    are_known(store, &others, Rule::FORGET_PASS, when).await?;
    device
        .list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::FORGET_PASS, when)?;

    publish(&**store, &passes[..1], 1).await?;
    let Known { state, published } = known(store, &passes[0]).await?;
    ensure(
        Rule::P2,
        state.version > before.version && state.published == Some([1; 32]),
        "content of a forgotten pass to count as a change",
        || shown_state(state),
    )?;
    ensure(
        Rule::C14,
        state.last_modified > before.last_modified,
        format!("a later date than before: {}", shown_state(before)),
        || shown_state(state),
    )?;
    ensure(
        Rule::FORGET_PASS,
        published.is_some_and(|one| one.tokens.len() == 1 && !one.removed),
        "one token after the pass was published again",
        || "something else".into(),
    )
}

async fn forgetting_waits_for_the_date(store: &Arc<dyn StoreMaintenance>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(1)?;
    publish(&**store, &passes, 1).await?;
    for _ in 0..10 {
        store
            .mark(&type_id, Changed::Passes(&serials(&passes)))
            .await?;
    }
    let before = all_known(store, &passes).await?;
    if !store.forget_pass(&passes[0]).await? {
        let when = "after a call that returned false";
        are_known(store, &before, Rule::FORGET_PASS, when).await?;
    }
    store
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    let [before] = &before[..] else { return Ok(()) };
    let after = store.pass_state(&passes[0]).await?;
    ensure(
        Rule::C14,
        after.last_modified > before.1.state.last_modified,
        format!("a later date than {}", shown(&before.1)),
        || shown_state(after),
    )
}

async fn forgetting_keeps_passes_apart(store: &Arc<dyn StoreMaintenance>) -> Result<(), Violation> {
    let type_id = new_type()?;
    let (_, never) = new_passes(1)?;
    let unknown = known(store, &never[0]).await?;
    let longer = TypeIdentifier::new(&format!("{type_id}.a"))?;
    let mut passes = Vec::new();
    for text in wild_serials() {
        passes.push(pass_of(&type_id, &serial(&text)?));
    }
    publish(&**store, &passes, 1).await?;
    let of_longer: Vec<_> = passes
        .iter()
        .map(|pass| pass_of(&longer, &pass.serial))
        .collect();
    publish(&**store, &of_longer, 2).await?;
    passes.extend(of_longer);
    let device = Device::registered_for(store, &passes).await?;
    let mut others = all_known(store, &passes).await?;
    for n in (0..passes.len()).step_by(7) {
        let pass = &passes[n];
        forget(&**store, pass).await?;
        let when = "after it was forgotten";
        is_unknown(store, pass, &unknown, Rule::FORGET_PASS, when).await?;
        others.retain(|(other, _)| other != pass);
    }
    let when = "after passes with other names were forgotten";
    are_known(store, &others, Rule::NAMES, when).await?;
    let mut found = published_of(&**store, &type_id).await?;
    found.extend(published_of(&**store, &longer).await?);
    ensure(
        Rule::NAMES,
        found.len() == others.len() && others.iter().all(|(pass, _)| found.contains(pass)),
        format!("{} published passes", others.len()),
        || found.len().to_string(),
    )?;
    // Registrations stay.
    for type_id in [&type_id, &longer] {
        let of_type = passes.iter().filter(|pass| pass.type_id == *type_id);
        device
            .lists_exactly(store, type_id, of_type, Rule::FORGET_PASS)
            .await?;
    }
    Ok(())
}

async fn forgotten_passes_stay_forgotten(opened: &Opened) -> CaseResult {
    let store = opened.maintenance()?;
    let (_, passes) = new_passes(8)?;
    let unknown = known(&**store, &passes[0]).await?;
    publish(&**store, &passes, 1).await?;
    let others = all_known(store, passes.iter().step_by(2)).await?;
    for pass in passes.iter().skip(1).step_by(2) {
        forget(&**store, pass).await?;
    }
    let reopened = opened.reopen().await?;
    let reopened = reopened.registrations();
    let when = "after reopening";
    for pass in passes.iter().skip(1).step_by(2) {
        is_unknown(reopened, pass, &unknown, Rule::C6, when).await?;
    }
    are_known(reopened, &others, Rule::C6, when).await?;
    Ok(())
}

async fn forgotten_pass_is_not_pending(opened: &Opened) -> CaseResult {
    let (store, queue) = (opened.maintenance()?, opened.queue()?);
    let (type_id, passes) = new_passes(2)?;
    let (other, alone) = new_passes(1)?;
    for (type_id, passes) in [(&type_id, &passes), (&other, &alone)] {
        queue
            .mark_and_push(type_id, Changed::Passes(&serials(passes)))
            .await?;
    }
    queue.mark_and_push(&type_id, Changed::All).await?;
    let state = queue.pass_state(&passes[0]).await?;
    let [first, second] = [&passes[0], &passes[1]].map(scope);
    let wanted = [first, second.clone(), Scope::Type];
    let before = expect_pending(queue, &type_id, &wanted, Rule::Q1, "after marks").await?;
    forget(&**store, &passes[0]).await?;
    let when = "after one of the passes was forgotten";
    let after = expect_pending(queue, &type_id, &wanted[1..], Rule::FORGET_PASS, when).await?;
    let is_same = |scope: &Scope| after.get(scope) == before.get(scope);
    ensure(
        Rule::Q2,
        wanted[1..].iter().all(is_same),
        format!("the same pending changes as before {when}"),
        || format!("{:?}", after.values().collect::<Vec<&PendingChange>>()),
    )?;
    forget(&**store, &alone[0]).await?;
    let backlog = backlog_of(queue, &other).await?;
    ensure(
        Rule::Q3,
        backlog.is_none(),
        "no backlog after the only pass with a push was forgotten",
        || format!("{backlog:?}"),
    )?;
    // The mark of the type still applies.
    let after = queue.pass_state(&passes[0]).await?;
    ensure(
        Rule::FORGET_PASS,
        after.version == state.version,
        format!(
            "the version of the last mark of the type: {}",
            shown_state(state)
        ),
        || shown_state(after),
    )?;
    Ok(())
}
