//! Cases about deferred pushes.

use std::slice;

use passkit_server::{
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::DeferredPush,
    store::{PageCursor, clock},
};

use super::{
    case::catalogue,
    names::{Device, foreign_push_tokens, new_push_token, new_type},
    queue::{
        Deferred, Queue, at, backlog_of, deferred, expect_deferred, push, read_deferred, removed,
    },
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "queue/deferred-pushes-come-back" Must [Q4 NAMES] queue deferred_pushes_come_back,
        "Defers pushes with many different times, attempts and push tokens, for two types whose \
         names start alike. Replaces all pushes, and removes some. Reads the deferred pushes after \
         each step.",
        "A push that failed for a while is never sent again, or is sent at the wrong time.";
    "queue/last-entry-for-a-device-counts" Must [Q4] queue last_entry_for_a_device_counts,
        "Defers and removes pushes in calls that name a device twice, and in a call that removes \
         some pushes and defers others.",
        "A deferred push is sent although the phone needs none, or is never sent.";
    "queue/pages-hold-every-deferred-push" Must [Q4] queue pages_hold_every_deferred_push,
        "Reads 137 deferred pushes in pages of 1, 7, 1,000 and other sizes. Also starts from \
         cursors that the store never issued.",
        "Some deferred pushes are never sent.";
    "queue/next-deferred-is-the-earliest" Must [Q4] queue next_deferred_is_the_earliest,
        "Defers pushes with and without a time, changes their times and removes them. After each \
         step, reads when the first push is due.",
        "A push that is due waits until something else changes.";
}

async fn deferred_pushes_come_back(queue: &Queue) -> Result<(), Violation> {
    let type_id = new_type()?;
    let beside = TypeIdentifier::new(&format!("{type_id}.b"))?;
    expect_deferred(queue, &type_id, [], "of a new type").await?;
    queue.defer(&type_id, &[]).await?;
    let now = clock::now_micros();
    let times = [
        None,
        Some(at(now)),
        Some(at(now + 3_600_000_001)),
        Some(at(1)),
        Some(at(4_102_444_799_999_999)),
    ];
    let mut pushes = Vec::new();
    for (n, due) in times.into_iter().enumerate() {
        for (bad_since, attempts) in [(None, 0), (times[4 - n], 3), (Some(at(now + 7)), u32::MAX)] {
            let device = Device::new()?;
            pushes.push((
                device.id.clone(),
                DeferredPush {
                    attempts,
                    bad_since,
                    ..push(&device, due)
                },
            ));
        }
    }
    for ((_, push), token) in pushes.iter_mut().zip(foreign_push_tokens()?) {
        push.push_token = token;
    }
    let all = |pushes: &[(DeviceIdentifier, DeferredPush)]| -> Vec<Deferred> {
        pushes
            .iter()
            .map(|(device, push)| (device.clone(), Some(push.clone())))
            .collect()
    };
    queue.defer(&type_id, &all(&pushes)).await?;
    expect_deferred(
        queue,
        &type_id,
        &all(&pushes),
        "after pushes with all sorts of times were deferred",
    )
    .await?;
    expect_deferred(queue, &beside, [], "of a type that starts like another").await?;

    // Defers pushes to the same devices again, some with another push token. One device also gets a
    // push of another type.
    for (n, (_, push)) in pushes.iter_mut().enumerate() {
        push.due = times[(n + 1) % times.len()];
        push.attempts = 7;
        push.bad_since = times[(n + 2) % times.len()];
        if n % 2 == 0 {
            push.push_token = new_push_token()?;
        }
    }
    let all = all(&pushes);
    let (device, first) = &pushes[0];
    let other = (
        device.clone(),
        Some(DeferredPush {
            attempts: 1,
            ..first.clone()
        }),
    );
    queue.defer(&beside, slice::from_ref(&other)).await?;
    queue.defer(&type_id, &all[..9]).await?;
    queue.defer(&type_id, &all[9..]).await?;
    expect_deferred(queue, &type_id, &all, "after they were replaced").await?;

    for _ in 0..2 {
        queue.defer(&type_id, &removed(&all[..5])).await?;
    }
    queue.defer(&type_id, &[(Device::new()?.id, None)]).await?;
    expect_deferred(queue, &type_id, &all[5..], "after others were removed").await?;
    expect_deferred(
        queue,
        &beside,
        [&other],
        "after a push to the same device for another type was removed",
    )
    .await?;
    queue.defer(&beside, &removed(&all[..5])).await?;
    expect_deferred(queue, &beside, [], "after all were removed").await
}

async fn last_entry_for_a_device_counts(queue: &Queue) -> Result<(), Violation> {
    let type_id = new_type()?;
    let now = clock::now_micros();
    let devices = (0..4)
        .map(|_| Device::new())
        .collect::<Result<Vec<_>, _>>()?;
    let due = |device: usize, after: u64| deferred(&devices[device], Some(at(now + after)));
    let none = |device: usize| (devices[device].id.clone(), None);
    queue
        .defer(
            &type_id,
            &[
                due(0, 1),
                due(1, 2),
                due(0, 3),
                due(2, 4),
                none(2),
                none(3),
                due(3, 5),
            ],
        )
        .await?;
    expect_deferred(
        queue,
        &type_id,
        &[due(0, 3), due(1, 2), due(3, 5)],
        "after one call",
    )
    .await?;
    queue
        .defer(
            &type_id,
            &[due(2, 6), none(0), due(1, 7), none(1), due(1, 8), none(3)],
        )
        .await?;
    expect_deferred(
        queue,
        &type_id,
        &[due(1, 8), due(2, 6)],
        "after a call that removed others",
    )
    .await
}

async fn pages_hold_every_deferred_push(queue: &Queue) -> Result<(), Violation> {
    let type_id = new_type()?;
    let now = clock::now_micros();
    let mut pushes = Vec::new();
    for n in 0..137 {
        pushes.push(deferred(
            &Device::new()?,
            (n % 3 > 0).then(|| at(now + n * 1_000)),
        ));
    }
    queue.defer(&type_id, &pushes).await?;
    let every = |found: &[Deferred], limit| {
        let missing = pushes.iter().filter(|push| !found.contains(push)).count();
        ensure(
            Rule::Q4,
            missing == 0,
            format!("137 deferred pushes in pages of {limit}"),
            || format!("{missing} deferred pushes missing"),
        )
    };
    for limit in [1, 2, 7, 64, 137, 1_000, 0, usize::MAX] {
        every(&read_deferred(queue, &type_id, None, limit).await?, limit)?;
    }
    let long = "x y ".repeat(5_000);
    for text in ["", "no such page!", "\0", "\u{fffd}ü\u{1f3ab}", &long] {
        every(
            &read_deferred(queue, &type_id, Some(PageCursor::new(text)), 50).await?,
            50,
        )?;
    }
    Ok(())
}

async fn next_deferred_is_the_earliest(queue: &Queue) -> Result<(), Violation> {
    let type_id = new_type()?;
    let is = async |wanted: Option<Option<u64>>, when: &str| -> Result<(), Violation> {
        let next = backlog_of(queue, &type_id)
            .await?
            .map(|backlog| backlog.next_deferred);
        let wanted = wanted.map(|wanted| wanted.map(at));
        ensure(
            Rule::Q4,
            next == wanted,
            format!("{wanted:?} as the time of the next push {when}"),
            || format!("{next:?}"),
        )
    };
    let now = clock::now_micros();
    let devices = (0..4)
        .map(|_| Device::new())
        .collect::<Result<Vec<_>, _>>()?;
    let due = |device: usize, micros| deferred(&devices[device], Some(at(micros)));
    let whenever = |device: usize| deferred(&devices[device], None);
    is(None, "of a new type").await?;
    queue.defer(&type_id, &[whenever(0)]).await?;
    is(Some(None), "of a type with one push, which has no time").await?;
    queue.defer(&type_id, &[due(1, now + 2_000_000)]).await?;
    is(
        Some(Some(now + 2_000_000)),
        "of a type that also has a push without a time",
    )
    .await?;
    queue
        .defer(
            &type_id,
            &[due(2, now + 3_000_000), due(3, now - 1_000_000)],
        )
        .await?;
    is(
        Some(Some(now - 1_000_000)),
        "after a push was deferred to a time in the past",
    )
    .await?;
    queue.defer(&type_id, &[due(3, now + 5_000_000)]).await?;
    is(
        Some(Some(now + 2_000_000)),
        "after the first push was deferred again",
    )
    .await?;
    queue.defer(&type_id, &removed(&[whenever(1)])).await?;
    is(
        Some(Some(now + 3_000_000)),
        "after the first push was removed",
    )
    .await?;
    queue.defer(&type_id, &[whenever(2)]).await?;
    is(
        Some(Some(now + 5_000_000)),
        "after the first push lost its time",
    )
    .await?;
    queue.defer(&type_id, &[whenever(3)]).await?;
    is(Some(None), "after all pushes lost their times").await?;
    queue
        .defer(
            &type_id,
            &removed(&[whenever(0), whenever(1), whenever(2), whenever(3)]),
        )
        .await?;
    is(None, "after all were removed").await
}
