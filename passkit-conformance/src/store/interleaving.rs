//! Runs two calls in a chosen order of their steps, so that finding a race does not depend on luck.
//! Contains the cases for pairs of calls.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    slice,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::TokenDigest,
    maintenance::{Registration, StoreMaintenance},
    store::{
        Audience, Content, Coordination, Published, Registered, RegistrationStore, StoreError,
    },
};

use super::{
    case::catalogue,
    forgetting::last_registered,
    names::{
        Device, devices_of, has_devices, new_device, new_passes, new_push_token, serials,
        shown_state, unique,
    },
    queue::{Queue, deferred, end, expect_deferred, page, pending_of, scope},
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "store/interleaved-registrations" Must [C10] store interleaved_registrations,
        "Starts a register or an unregister, pauses it after 0 polls, 1 poll and so on, makes a \
         second call, and continues. The two calls are for two passes of a device, for two devices \
         of a pass, or for one registration. Answers, lists and pages must fit one of the two \
         orders.",
        "Two phones add a pass at the same moment, or one phone adds two passes, and one of the \
         registrations is lost.";
    "store/interleaved-forget-and-register" Must [C13] store interleaved_forget_and_register,
        "Starts a forget_device for a device that is gone, pauses it after 0 polls, 1 poll and so \
         on, registers the device with a new push token, and continues. Then swaps the two calls. The \
         new registration must stay.",
        "A phone comes back while its old push token is removed, and never gets an update again.";
    "store/interleaved-marks" Must [C14 C1 C9] store interleaved_marks,
        "Starts a mark of passes or of their type, pauses it after 0 polls, 1 poll and so on, makes \
         another mark and a list, and continues. Dates must grow with the versions, and every mark \
         must be in a list.",
        "Two versions of a pass have the same date, or a phone misses one of two updates.";
    "store/interleaved-publications" Must [P1 P5] store interleaved_publications,
        "Starts a publication, pauses it after 0 polls, 1 poll and so on, publishes the same pass, \
         and continues. The same content must mark the pass once, and the tokens of both calls \
         must stay.",
        "If two instances notice a change, all phones fetch the pass twice, or an old copy of the \
         pass is refused.";
    "store/interleaved-bulk-registrations" Must [MAINTENANCE C10] maintenance
        interleaved_bulk_registrations,
        "Starts a bulk registration, pauses it after 0 polls, 1 poll and so on, registers or \
         unregisters other passes of the same devices, and continues. Both changes must be there.",
        "A phone that adds a pass during an import gets no updates of it.";
    "coordination/interleaved-claims-and-notes" Must [K1 K3] coordination
        interleaved_claims_and_notes,
        "Starts a claim or the replacement of a note, pauses it after 0 polls, 1 poll and so on, \
         makes the same call as another owner, and continues. One of the two must succeed.",
        "Two workers send the same phones a push for the same change.";
    "queue/interleaved-calls-lose-nothing" Must [Q2 Q1 Q4] queue interleaved_queue_calls,
        "Starts a call of the queue, pauses it after 0 polls, 1 poll and so on, makes another call \
         for the same type, and continues. Every mark must be pending, and every deferred push \
         must be there.",
        "A pass changes while a worker records its progress, and no phone gets a push for the last \
         change.";
}

/// The greatest number of polls before the pause. If a call needs more polls, pauses during its
/// last steps are not tested.
pub(super) const MOST_POLLS: usize = 12;

/// The time that the second call gets before the first call continues. The first call may hold a
/// lock that the second call needs.
const HEAD_START: Duration = Duration::from_millis(20);

/// Polls `first` `polls` times, then gives `second` time to end, then runs both calls to their end.
pub(super) async fn interleave<A, B>(
    polls: usize,
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut two) = (None, None);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 || one.is_some() {
            return Poll::Ready(());
        }
        left -= 1;
        poll_into(&mut one, || first.as_mut().poll(context));
        if left == 0 || one.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    if polls > 0 {
        two = tokio::time::timeout(HEAD_START, &mut second).await.ok();
    }
    poll_fn(|context: &mut Context<'_>| {
        poll_into(&mut one, || first.as_mut().poll(context));
        poll_into(&mut two, || second.as_mut().poll(context));
        match (one.take(), two.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (one, two) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls unless there is already a result.
fn poll_into<T>(result: &mut Option<T>, poll: impl FnOnce() -> Poll<T>) {
    if result.is_none()
        && let Poll::Ready(value) = poll()
    {
        *result = Some(value);
    }
}

fn token_of(found: &[passkit_server::store::RegisteredDevice], device: &Device) -> Option<String> {
    let mut of_device = found.iter().filter(|one| one.device == device.id);
    of_device
        .next()
        .map(|one| one.push_token.as_str().to_owned())
}

async fn interleaved_registrations(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let register = async |device: &Device, pass: &PassId| {
        store.register(&device.id, pass, &device.push_token).await
    };
    for polls in 0..MOST_POLLS {
        // Two passes of one device, with and without an earlier pass.
        let device = Device::new()?;
        let registered = if polls % 2 == 0 {
            &passes[..2]
        } else {
            &passes[..]
        };
        for pass in &registered[2..] {
            register(&device, pass).await?;
        }
        let (one, two) = interleave(
            polls,
            register(&device, &passes[0]),
            register(&device, &passes[1]),
        )
        .await;
        one?;
        two?;
        device
            .lists_exactly(store, &type_id, registered, Rule::C10)
            .await?;
        for pass in registered {
            has_devices(store, pass, [&device], Rule::C10).await?;
        }

        // The same registration twice, and another device of the same pass.
        let (first, second) = (Device::new()?, Device::new()?);
        let again = async {
            let registered = register(&first, &passes[0]).await?;
            register(&second, &passes[0]).await?;
            Ok::<_, StoreError>(registered)
        };
        let (one, two) = interleave(polls, register(&first, &passes[0]), again).await;
        let answers = [one?, two?];
        let created = answers.iter().filter(|one| **one == Registered::Created);
        ensure(
            Rule::C10,
            created.count() == 1,
            "exactly one Created for two equal registrations",
            || format!("{answers:?}"),
        )?;
        has_devices(store, &passes[0], [&device, &first, &second], Rule::C10).await?;

        // A device removes a pass, and adds another pass or the same pass again.
        for added in [0, 1] {
            let there = store.unregister(&first.id, &passes[0]);
            let (gone, back) = interleave(polls, there, register(&first, &passes[added])).await;
            let (gone, back) = (gone?, back?);
            let listed = first.list(store, &type_id, None).await?.serials;
            let found = devices_of(store, Audience::Pass(&passes[added]), 100, 10).await?;
            let is_listed = listed.contains(&passes[added].serial);
            let wanted = added == 1 || back == Registered::Created;
            ensure(
                Rule::C10,
                gone && is_listed == wanted && token_of(&found, &first).is_some() == wanted,
                format!(
                    "registered: {wanted}, after an unregister that removed something and {back:?}"
                ),
                || format!("unregister {gone}, registered according to the list: {is_listed}"),
            )?;
            ensure(
                Rule::C10,
                added == 0 || !listed.contains(&passes[0].serial),
                "no registration that was removed",
                || "one".into(),
            )?;
            if added == 0 {
                register(&first, &passes[0]).await?;
            }
        }
        for device in [&device, &first, &second] {
            for pass in &passes {
                store.unregister(&device.id, pass).await?;
            }
        }
    }
    Ok(())
}

async fn interleaved_forget_and_register(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    for round in 0..2 * MOST_POLLS {
        let mut device = Device::registered_for(store, &passes[..2]).await?;
        let last = last_registered(&**store, &device, &passes[..2]).await?;
        device.push_token = new_push_token()?;
        let forget = store.forget_device(&device.id, last);
        let register = store.register(&device.id, &passes[2], &device.push_token);
        let (forgotten, registered) = if round % 2 == 0 {
            interleave(round / 2, forget, register).await
        } else {
            let (registered, forgotten) = interleave(round / 2, register, forget).await;
            (forgotten, registered)
        };
        let (forgotten, registered) = (forgotten?, registered?);
        ensure(
            Rule::C13,
            registered == Registered::Created,
            "Created for a new pass",
            || format!("{registered:?}"),
        )?;
        let left = if forgotten { &passes[2..] } else { &passes[..] };
        device
            .lists_exactly(&**store, &type_id, left, Rule::C13)
            .await?;
        for pass in left {
            has_devices(&**store, pass, [&device], Rule::C13).await?;
        }
        for pass in &passes {
            store.unregister(&device.id, pass).await?;
        }
    }
    Ok(())
}

/// Ensures that a later version of a pass has a later date.
fn grew(before: PassState, after: PassState) -> Result<(), Violation> {
    let together = (after.version, after.last_modified) == (before.version, before.last_modified)
        || (after.version > before.version && after.last_modified > before.last_modified);
    ensure(
        Rule::C14,
        together,
        format!("{}, or a later version and date", shown_state(before)),
        || shown_state(after),
    )
}

async fn interleaved_marks(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let device = Device::registered_for(store, &passes).await?;
    let mut tag = device.list(store, &type_id, None).await?.tag;
    let first = serials(&passes[..1]);
    let both = serials(&passes);
    for round in 0..3 * MOST_POLLS {
        let (outer, inner) = match round % 3 {
            0 => (Changed::All, Changed::Passes(&first)),
            1 => (Changed::Passes(&both), Changed::All),
            _ => (Changed::Passes(&first), Changed::Passes(&both)),
        };
        let before = store.pass_state(&passes[0]).await?;
        let between = async {
            // There are several marks, so that the dates run ahead of the clock.
            for _ in 0..3 {
                store.mark(&type_id, inner).await?;
            }
            let state = store.pass_state(&passes[0]).await?;
            let listed = device.list(store, &type_id, Some(tag)).await?;
            Ok::<_, Violation>((state, listed))
        };
        let (marked, between) = interleave(round / 3, store.mark(&type_id, outer), between).await;
        marked?;
        let (middle, listed) = between?;
        let after = store.pass_state(&passes[0]).await?;
        grew(before, middle)?;
        grew(middle, after)?;
        let later = device.list(store, &type_id, Some(listed.tag)).await?;
        let seen: BTreeSet<_> = listed.serials.union(&later.serials).cloned().collect();
        let rule = if matches!(outer, Changed::All) {
            Rule::C9
        } else {
            Rule::C1
        };
        ensure(
            rule,
            both.iter().all(|serial| seen.contains(serial)),
            "both marked passes in two lists",
            || seen.len().to_string(),
        )?;
        tag = device.list(store, &type_id, None).await?.tag;
        device
            .list(store, &type_id, Some(tag))
            .await?
            .is_empty(Rule::C2, "when asked again with the new tag")?;
    }
    Ok(())
}

async fn interleaved_publications(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let publish = async |pass: &PassId, digest: u8, token: u8| {
        let content = Content {
            serial: pass.serial.clone(),
            digest: Some([digest; 32]),
            tokens: vec![TokenDigest::from_bytes([token; 32])],
        };
        store
            .mark(&pass.type_id, Changed::Contents(slice::from_ref(&content)))
            .await
    };
    let (_, passes) = new_passes(2 * MOST_POLLS)?;
    for (round, pass) in passes.iter().enumerate() {
        let equal = round % 2 == 0;
        let before = store.pass_state(pass).await?;
        let between = async {
            publish(pass, if equal { 1 } else { 2 }, 2).await?;
            store.pass_state(pass).await
        };
        let (published, middle) = interleave(round / 2, publish(pass, 1, 1), between).await;
        published?;
        let (middle, after) = (middle?, store.pass_state(pass).await?);
        if equal {
            ensure(
                Rule::P1,
                before.version < middle.version && middle.version == after.version,
                format!("one mark, {}", shown_state(middle)),
                || shown_state(after),
            )?;
        }
        let found = store.published(slice::from_ref(pass)).await?;
        let Some(Some(Published { tokens, .. })) = found.first() else {
            return Err(Violation::new(Rule::P5, "what was published", "nothing"));
        };
        ensure(
            Rule::P5,
            tokens.len() == 2,
            "the tokens of both calls",
            || tokens.len().to_string(),
        )?;
        // The content that the store remembers must be the content of the last mark.
        let known = after.published.map_or(0, |digest| digest[0]);
        publish(pass, known, 1).await?;
        let again = store.pass_state(pass).await?;
        ensure(
            Rule::P1,
            again == after,
            format!(
                "no mark when the last content is published again, {}",
                shown_state(after)
            ),
            || shown_state(again),
        )?;
    }
    Ok(())
}

async fn interleaved_bulk_registrations(
    store: &Arc<dyn StoreMaintenance>,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    for round in 0..2 * MOST_POLLS {
        let device = Device::registered_for(store, &passes[..1]).await?;
        let other = Device::new()?;
        let batch: Vec<_> = [&device, &other]
            .map(|one| Registration {
                device: one.id.clone(),
                push_token: one.push_token.clone(),
                pass: passes[1].clone(),
            })
            .into();
        let bulk = store.register_many(&batch);
        let single = async {
            store
                .register(&device.id, &passes[2], &device.push_token)
                .await?;
            store.unregister(&device.id, &passes[0]).await
        };
        let (created, removed) = if round % 2 == 0 {
            interleave(round / 2, bulk, single).await
        } else {
            let (removed, created) = interleave(round / 2, single, bulk).await;
            (created, removed)
        };
        let (created, removed) = (created?, removed?);
        ensure(
            Rule::MAINTENANCE,
            created == 2 && removed,
            "two new registrations in bulk, and a removed one",
            || format!("{created} new registrations, removed {removed}"),
        )?;
        device
            .lists_exactly(store, &type_id, &passes[1..3], Rule::MAINTENANCE)
            .await?;
        other
            .lists_exactly(store, &type_id, &passes[1..2], Rule::MAINTENANCE)
            .await?;
        has_devices(store, &passes[1], [&device, &other], Rule::MAINTENANCE).await?;
        has_devices(store, &passes[2], [&device], Rule::MAINTENANCE).await?;
        has_devices(store, &passes[0], [], Rule::MAINTENANCE).await?;
        for (one, pass) in [(&device, 1), (&device, 2), (&other, 1)] {
            store.unregister(&one.id, &passes[pass]).await?;
        }
    }
    Ok(())
}

async fn interleaved_claims_and_notes(store: &Arc<dyn Coordination>) -> Result<(), Violation> {
    const LONG: Duration = Duration::from_secs(600);
    for polls in 0..MOST_POLLS {
        let name = format!("conformance:{}", unique());
        let (one, two) = interleave(
            polls,
            store.claim(&name, "a", LONG),
            store.claim(&name, "b", LONG),
        )
        .await;
        let (one, two) = (one?, two?);
        ensure(
            Rule::K1,
            one != two,
            "one of two owners with the claim",
            || format!("{one} and {two}"),
        )?;
        let loser = if one { "b" } else { "a" };
        let given = store.claim(&name, loser, LONG).await?;
        ensure(Rule::K1, !given, "the same owner afterwards", || {
            "the other owner".into()
        })?;
        let mut expected: Option<&str> = None;
        for (first, second) in [(Some("1"), Some("2")), (Some("3"), None)] {
            let (one, two) = interleave(
                polls,
                store.replace_note(&name, expected, first),
                store.replace_note(&name, expected, second),
            )
            .await;
            let (one, two) = (one?, two?);
            let found = store.note(&name).await?;
            let wanted = if one { first } else { second };
            ensure(
                Rule::K3,
                one != two && found.as_deref() == wanted,
                "one of two callers that replaces the note",
                || format!("{one} and {two}, and the note {found:?}"),
            )?;
            expected = wanted;
        }
    }
    Ok(())
}

async fn interleaved_queue_calls(queue: &Queue) -> Result<(), Violation> {
    for polls in 0..MOST_POLLS {
        let (type_id, passes) = new_passes(3)?;
        let mark = async |passes: &[PassId]| {
            let serials = serials(passes);
            queue
                .mark_and_push(&type_id, Changed::Passes(&serials))
                .await
        };
        let (one, two) = interleave(polls, mark(&passes[..2]), mark(&passes[1..])).await;
        one?;
        two?;
        let pending = pending_of(queue, &type_id).await?;
        ensure(
            Rule::Q1,
            pending.len() == 3,
            "three pending changes after two calls of mark_and_push",
            || pending.len().to_string(),
        )?;
        // The pass is marked again while a worker records progress to the end, or to a page.
        for ends in [true, false] {
            let version = queue.pass_state(&passes[0]).await?.version;
            let progress = if ends {
                end(version)
            } else {
                page(version, "page 2")
            };
            let progress = [(scope(&passes[0]), progress)];
            for marked_first in [false, true] {
                let record = queue.record_progress(&type_id, &progress);
                let (one, two) = if marked_first {
                    interleave(polls, mark(&passes[..1]), record).await
                } else {
                    let (two, one) = interleave(polls, record, mark(&passes[..1])).await;
                    (one, two)
                };
                one?;
                two?;
                let state = queue.pass_state(&passes[0]).await?;
                let pending = pending_of(queue, &type_id).await?;
                let found = pending.get(&scope(&passes[0])).map(|change| change.version);
                ensure(
                    Rule::Q2,
                    found == Some(state.version),
                    format!("the last mark {} to be pending", state.version),
                    || format!("{found:?}"),
                )?;
            }
        }
        let devices = [Device::new()?, Device::new()?, Device::new()?];
        let pushes = devices.each_ref().map(|device| deferred(device, None));
        queue.defer(&type_id, &pushes[2..]).await?;
        let gone = [(pushes[2].0.clone(), None), (new_device()?, None)];
        let others = async {
            queue.defer(&type_id, &pushes[1..2]).await?;
            queue.defer(&type_id, &gone).await
        };
        let (one, two) = interleave(polls, queue.defer(&type_id, &pushes[..1]), others).await;
        one?;
        two?;
        expect_deferred(queue, &type_id, &pushes[..2], "after calls at once").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn the_second_call_runs_between_two_steps_of_the_first() {
        for polls in 0..4 {
            let order = Mutex::new(String::new());
            let push = |step| order.lock().unwrap().push(step);
            let first = async {
                push('a');
                yield_now().await;
                push('b');
                yield_now().await;
                push('c');
            };
            interleave(polls, first, async { push('-') }).await;
            let wanted = ["a-bc", "a-bc", "ab-c", "abc-"][polls];
            assert_eq!(*order.lock().unwrap(), wanted);
        }
    }

    #[tokio::test]
    async fn a_lock_of_the_first_call_stops_nothing() {
        let lock = tokio::sync::Mutex::new(0);
        let add = async || {
            let mut number = lock.lock().await;
            yield_now().await;
            *number += 1;
        };
        interleave(1, add(), add()).await;
        assert_eq!(*lock.lock().await, 2);
    }
}
