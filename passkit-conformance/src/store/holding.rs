//! Pushes that are kept for later.

use std::{
    collections::BTreeMap,
    slice,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use passkit_server::{DeviceIdentifier, HeldPush, PageCursor, TypeIdentifier, clock};

use super::{
    catalogue,
    names::{Device, new_push_token, new_type},
    owing::{Queue, sum},
};
use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

catalogue! {
    "queue/held-pushes-come-back" Must [Q5 NAMES] queue held_pushes_come_back,
        "Holds pushes with all sorts of times and attempts, again in place of those, and for types that start alike; \
         drops some, and reads after each step.",
        "A phone that could not be pushed for a while is never tried again, or at the wrong time.";
    "queue/pages-hold-every-held-push" Must [Q5] queue pages_hold_every_held_push,
        "Reads 137 held pushes in pages of 1, 7, 1,000 and others, from behind cursors that the store never gave too.",
        "Some phones that could not be pushed are never tried again.";
    "queue/next-held-is-the-earliest" Must [Q5] queue next_held_is_the_earliest,
        "Holds pushes with times and without, moves them and drops them; asks when the first comes due after each step.",
        "A push that is due waits until something else changes.";
}

pub(super) fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

pub(super) fn push(device: &Device, due: Option<SystemTime>) -> HeldPush {
    HeldPush {
        device: device.id.clone(),
        push_token: device.push_token.clone(),
        due,
        attempts: 1,
        bad_since: None,
    }
}

/// Reads pages from behind `after` to the end.
async fn read(
    queue: &Queue,
    type_id: &TypeIdentifier,
    after: Option<PageCursor>,
    limit: usize,
) -> Result<Vec<HeldPush>, Breach> {
    let mut found = Vec::new();
    let mut after = after;
    for _ in 0..2_000 {
        let page = queue.held(type_id, after.as_ref(), limit).await?;
        let about = limit.saturating_mul(2).saturating_add(64);
        demand(Rule::Q5, page.pushes.len() <= about, format!("a page of about {limit}"), || {
            page.pushes.len().to_string()
        })?;
        found.extend(page.pushes);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
    Err(Breach::new(Rule::Q5, "pages that come to an end", "a cursor after every page"))
}

/// Demands that exactly these are held.
pub(super) async fn holds<'a>(
    queue: &Queue,
    type_id: &TypeIdentifier,
    wanted: impl IntoIterator<Item = &'a HeldPush>,
    when: &str,
) -> Kept {
    let found = read(queue, type_id, None, 50).await?;
    let found: BTreeMap<&DeviceIdentifier, _> = found.iter().map(|push| (&push.device, push)).collect();
    let wanted: BTreeMap<_, _> = wanted.into_iter().map(|push| (&push.device, push)).collect();
    let missing = wanted.keys().filter(|device| !found.contains_key(*device)).count();
    let foreign = found.keys().filter(|device| !wanted.contains_key(*device)).count();
    demand(Rule::Q5, missing == 0 && foreign == 0, format!("{} held pushes {when}", wanted.len()), || {
        format!("{missing} of them missing and {foreign} others")
    })?;
    for (device, push) in wanted {
        let found = found[device];
        // Without the identifier and the token, which no report shows.
        let shown = |push: &HeldPush| format!("{:?}", (push.due, push.attempts, push.bad_since));
        demand(Rule::Q5, found == push, format!("its own token and {} {when}", shown(push)), || {
            if found.push_token == push.push_token { shown(found) } else { "another token".into() }
        })?;
    }
    Ok(())
}

async fn held_pushes_come_back(queue: &Queue) -> Kept {
    let type_id = new_type()?;
    let beside = TypeIdentifier::new(&format!("{type_id}.b"))?;
    holds(queue, &type_id, [], "of a new type").await?;
    queue.hold(&type_id, &[]).await?;
    queue.unhold(&type_id, &[]).await?;
    let now = clock::now_micros();
    let times =
        [None, Some(at(now)), Some(at(now + 3_600_000_001)), Some(at(1)), Some(at(4_102_444_799_999_999))];
    let mut pushes = Vec::new();
    for (n, due) in times.into_iter().enumerate() {
        for (bad_since, attempts) in [(None, 0), (times[4 - n], 3), (Some(at(now + 7)), u32::MAX)] {
            pushes.push(HeldPush { attempts, bad_since, ..push(&Device::new()?, due) });
        }
    }
    queue.hold(&type_id, &pushes).await?;
    holds(queue, &type_id, &pushes, "with all sorts of times").await?;
    holds(queue, &beside, [], "of a type that starts as another").await?;

    // The same devices again, some with another token, and one that has another type too.
    for (n, push) in pushes.iter_mut().enumerate() {
        push.due = times[(n + 1) % times.len()];
        push.attempts = 7;
        push.bad_since = times[(n + 2) % times.len()];
        if n % 2 == 0 {
            push.push_token = new_push_token()?;
        }
    }
    let other = HeldPush { attempts: 1, ..pushes[0].clone() };
    queue.hold(&beside, slice::from_ref(&other)).await?;
    queue.hold(&type_id, &pushes[..9]).await?;
    queue.hold(&type_id, &pushes[9..]).await?;
    holds(queue, &type_id, &pushes, "in place of those before").await?;

    let devices: Vec<_> = pushes[..5].iter().map(|push| push.device.clone()).collect();
    queue.unhold(&type_id, &devices).await?;
    queue.unhold(&type_id, &devices).await?;
    queue.unhold(&type_id, &[Device::new()?.id]).await?;
    holds(queue, &type_id, &pushes[5..], "after others were dropped").await?;
    holds(queue, &beside, [&other], "after that device was dropped for another type").await?;
    queue.unhold(&beside, &devices).await?;
    holds(queue, &beside, [], "after all were dropped").await
}

async fn pages_hold_every_held_push(queue: &Queue) -> Kept {
    let type_id = new_type()?;
    let now = clock::now_micros();
    let mut pushes = Vec::new();
    for n in 0..137 {
        pushes.push(push(&Device::new()?, (n % 3 > 0).then(|| at(now + n * 1_000))));
    }
    queue.hold(&type_id, &pushes).await?;
    let every = |found: &[HeldPush], limit| {
        let missing = pushes.iter().filter(|push| !found.contains(push)).count();
        demand(Rule::Q5, missing == 0, format!("137 held pushes in pages of {limit}"), || {
            format!("{missing} of them missing")
        })
    };
    for limit in [1, 2, 7, 64, 137, 1_000, 0, usize::MAX] {
        let found = read(queue, &type_id, None, limit).await?;
        every(&found, limit)?;
        demand(Rule::Q5, found.len() == pushes.len(), "each held push once", || found.len().to_string())?;
    }
    let long = "x y ".repeat(5_000);
    for text in ["", "no such page!", "\0", "\u{fffd}ü\u{1f3ab}", &long] {
        every(&read(queue, &type_id, Some(PageCursor::new(text)), 50).await?, 50)?;
    }
    Ok(())
}

async fn next_held_is_the_earliest(queue: &Queue) -> Kept {
    let type_id = new_type()?;
    let is = async |wanted: Option<Option<u64>>, when: &str| -> Kept {
        let next = sum(queue, &type_id).await?.map(|sum| sum.next_held);
        let wanted = wanted.map(|wanted| wanted.map(at));
        demand(Rule::Q5, next == wanted, format!("{wanted:?} as the next {when}"), || format!("{next:?}"))
    };
    let now = clock::now_micros();
    let devices = (0..4).map(|_| Device::new()).collect::<Result<Vec<_>, _>>()?;
    is(None, "of a new type").await?;
    queue.hold(&type_id, &[push(&devices[0], None)]).await?;
    is(Some(None), "with a push that has no time").await?;
    queue.hold(&type_id, &[push(&devices[1], Some(at(now + 2_000_000)))]).await?;
    is(Some(Some(now + 2_000_000)), "beside one without a time").await?;
    let more = [push(&devices[2], Some(at(now + 3_000_000))), push(&devices[3], Some(at(now - 1_000_000)))];
    queue.hold(&type_id, &more).await?;
    is(Some(Some(now - 1_000_000)), "after one whose time is past").await?;
    queue.hold(&type_id, &[push(&devices[3], Some(at(now + 5_000_000)))]).await?;
    is(Some(Some(now + 2_000_000)), "after the first was put off").await?;
    queue.unhold(&type_id, slice::from_ref(&devices[1].id)).await?;
    is(Some(Some(now + 3_000_000)), "after the first was dropped").await?;
    queue.hold(&type_id, &[push(&devices[2], None)]).await?;
    is(Some(Some(now + 5_000_000)), "after the first lost its time").await?;
    queue.hold(&type_id, &[push(&devices[3], None)]).await?;
    is(Some(None), "after all lost their times").await?;
    let devices: Vec<_> = devices.into_iter().map(|device| device.id).collect();
    queue.unhold(&type_id, &devices).await?;
    is(None, "after all were dropped").await
}
