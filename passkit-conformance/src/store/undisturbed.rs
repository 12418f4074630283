//! Cases about calls that must not change pending changes and deferred pushes.

use std::{
    collections::BTreeMap,
    slice,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    push::{PendingChange, Scope},
};

use super::{
    cancelling::{Call, all_but_the_first},
    case::catalogue,
    names::{Device, new_passes, new_push_token, new_type, pass_of, serial, serials, unique},
    naming::{ALIKE, Judge, wild_serials},
    queue::{
        Deferred, Queue, at, deferred, end, expect_deferred, expect_pending, page, pending_of,
        removed, scope,
    },
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "queue/claims-leave-pushes-alone" Must [Q2 Q4] queue claims_leave_pushes_alone,
        "While changes are pending and pushes are deferred, workers claim the type, release the \
         claim, lose it and take it over. Progress is recorded with and without a claim.",
        "A worker ends in the middle of its pushes, and some phones never get their push.";
    "queue/registrations-leave-pushes-alone" Must [Q4 Q2] queue registrations_leave_pushes_alone,
        "While changes are pending and pushes are deferred, the devices register again, unregister \
         and are forgotten, and the passes are marked and published without pushes.",
        "A phone that registers again gets no push for an earlier change.";
    "queue/odd-names-are-kept-apart" Must [NAMES] queue odd_names_are_kept_apart,
        "Makes changes of passes with odd serial numbers pending, and finishes them one after the \
         other. Defers pushes of devices and types that look or start alike, and removes them one \
         after the other.",
        "When the push of one pass is sent, the pushes of another pass are lost.";
    "queue/twice-in-a-batch" Must [Q2 Q3] queue twice_in_a_batch,
        "Records the progress of one change twice in the same call: to a page and to the end, in both orders.",
        "A worker can't record its progress, and phones get the same push forever.";
    "queue/dropped-call-takes-no-other-along" Must [C12 Q1 Q4] queue
        dropped_call_takes_no_other_along,
        "Twelve calls of mark_and_push run in parallel. The first of them is dropped after 0 polls, \
         in the next round after 1 poll, and so on. The other calls run to their end. The same is \
         done with defer. All acknowledged changes must be there.",
        "If one caller ends, the store loses pushes of other callers that it was about to write \
         in the same batch.";
}

/// What is pending and deferred for a type.
struct Full {
    type_id: TypeIdentifier,
    passes: Vec<PassId>,
    devices: Vec<Device>,
    pending: BTreeMap<Scope, PendingChange>,
    deferred: Vec<Deferred>,
}

impl Full {
    async fn new(queue: &Queue) -> Result<Self, Violation> {
        let (type_id, passes) = new_passes(4)?;
        let mut devices = Vec::new();
        for _ in 0..4 {
            devices.push(Device::registered_for(queue, &passes).await?);
        }
        queue
            .mark_and_push(&type_id, Changed::Passes(&serials(&passes[..3])))
            .await?;
        queue.mark_and_push(&type_id, Changed::All).await?;
        let first = scope(&passes[0]);
        let wanted: Vec<_> = passes[..3].iter().map(scope).chain([Scope::Type]).collect();
        let pending = expect_pending(
            queue,
            &type_id,
            &wanted,
            Rule::Q1,
            "after marks with pushes",
        )
        .await?;
        let version = pending[&first].version;
        queue
            .record_progress(&type_id, &[(first, page(version, "page 2"))])
            .await?;
        let deferred: Vec<_> = devices
            .iter()
            .zip([None, Some(at(1)), Some(at(4_000_000_000_000_000)), None])
            .map(|(device, due)| deferred(device, due))
            .collect();
        queue.defer(&type_id, &deferred).await?;
        Ok(Self {
            pending: pending_of(queue, &type_id).await?,
            type_id,
            passes,
            devices,
            deferred,
        })
    }

    /// Ensures that nothing has changed.
    async fn is_there(&self, queue: &Queue, after: &str) -> Result<(), Violation> {
        let pending = pending_of(queue, &self.type_id).await?;
        ensure(
            Rule::Q2,
            pending == self.pending,
            format!(
                "{} pending changes as before, after {after}",
                self.pending.len()
            ),
            || format!("{} changes, or different ones", pending.len()),
        )?;
        let when = format!("after {after}");
        expect_deferred(queue, &self.type_id, &self.deferred, &when).await
    }
}

async fn claims_leave_pushes_alone(queue: &Queue) -> Result<(), Violation> {
    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(1);
    let mut full = Full::new(queue).await?;
    let name = format!("{}:{}", full.type_id, unique());
    // A claim may have the same name as a type.
    for name in [full.type_id.as_str(), &name] {
        queue.claim(name, "a", LONG).await?;
        full.is_there(queue, "a claim").await?;
        queue.claim(name, "b", LONG).await?;
        full.is_there(queue, "a refused claim").await?;
        queue.release(name, "b").await?;
        queue.release(name, "a").await?;
        full.is_there(queue, "a release").await?;
        queue.claim(name, "c", SHORT).await?;
        while !queue.claim(name, "d", SHORT).await? {
            tokio::time::sleep(SHORT).await;
        }
        full.is_there(queue, "a claim that expired and was taken over")
            .await?;
        queue.replace_note(name, None, Some("note")).await?;
        queue.replace_note(name, Some("note"), None).await?;
        full.is_there(queue, "a note of the same name").await?;
    }
    // Progress and deferred pushes are stored, whichever owner has the claim.
    queue.claim(full.type_id.as_str(), "z", LONG).await?;
    let second = scope(&full.passes[1]);
    let progress = page(full.pending[&second].version, "page 9");
    queue
        .record_progress(&full.type_id, &[(second.clone(), progress.clone())])
        .await?;
    if let Some(change) = full.pending.get_mut(&second) {
        change.progress = Some(progress);
    }
    queue
        .defer(&full.type_id, &removed(&full.deferred[..1]))
        .await?;
    full.deferred.remove(0);
    full.is_there(queue, "progress while another worker has the claim")
        .await?;
    queue.release(full.type_id.as_str(), "z").await?;
    full.is_there(queue, "the last release").await
}

async fn registrations_leave_pushes_alone(queue: &Queue) -> Result<(), Violation> {
    let full = Full::new(queue).await?;
    let Full {
        type_id,
        passes,
        devices,
        ..
    } = &full;
    queue
        .register(&devices[0].id, &passes[3], &new_push_token()?)
        .await?;
    full.is_there(queue, "a register with another push token")
        .await?;
    for pass in passes {
        queue.unregister(&devices[1].id, pass).await?;
    }
    full.is_there(queue, "a device unregistered all its passes")
        .await?;
    let soon = SystemTime::now() + Duration::from_secs(3_600);
    queue.forget_device(&devices[2].id, soon).await?;
    full.is_there(queue, "a device was forgotten").await?;
    for device in devices {
        queue.forget_device(&device.id, soon).await?;
    }
    full.is_there(queue, "all devices were forgotten").await?;
    queue
        .mark(type_id, Changed::Passes(&serials(passes)))
        .await?;
    queue.mark(type_id, Changed::All).await?;
    full.is_there(queue, "marks without pushes").await?;
    let (other, others) = new_passes(2)?;
    queue
        .mark_and_push(&other, Changed::Passes(&serials(&others)))
        .await?;
    queue.mark_and_push(&other, Changed::All).await?;
    let pending = pending_of(queue, &other).await?;
    let done: Vec<_> = pending
        .into_values()
        .map(|change| (change.scope, end(change.version)))
        .collect();
    queue.record_progress(&other, &done).await?;
    full.is_there(queue, "changes of another type were finished")
        .await?;

    // Each change is finished separately, whether its scope is a pass or the type.
    let mut left = full.pending.clone();
    for finished in [scope(&passes[1]), Scope::Type, scope(&passes[0])] {
        let Some(change) = left.remove(&finished) else {
            continue;
        };
        queue
            .record_progress(type_id, &[(finished, end(change.version))])
            .await?;
        let found = pending_of(queue, type_id).await?;
        ensure(
            Rule::Q2,
            found == left,
            format!("{} changes that are not finished", left.len()),
            || format!("{} changes, or different ones", found.len()),
        )?;
    }
    Ok(())
}

async fn odd_names_are_kept_apart(queue: &Queue) -> Result<(), Violation> {
    let mut texts = wild_serials();
    texts.extend(
        ALIKE
            .iter()
            .flat_map(|group| *group)
            .map(|text| format!("n{text}")),
    );
    let odd = texts
        .iter()
        .map(|text| serial(text))
        .collect::<Result<Vec<_>, _>>()?;
    let plain = [serial("1")?, serial("2")?, serial("3")?];
    scopes_are_apart(queue, &plain, Judge::Plain).await?;
    scopes_are_apart(queue, &odd, Judge::Odd).await?;

    // Devices and types that start or look alike.
    let base = unique();
    let long = "x".repeat(127 - base.len());
    let ends = [
        "",
        "0",
        ".1",
        "-1",
        "_1",
        "~1",
        "x1",
        "_",
        "A",
        "a",
        &format!("{long}a"),
        &format!("{long}b"),
    ];
    let devices = ends
        .iter()
        .map(|end| {
            Ok(Device {
                id: DeviceIdentifier::new(&format!("{base}{end}"))?,
                push_token: new_push_token()?,
            })
        })
        .collect::<Result<Vec<_>, Violation>>()?;
    let types = ["", ".b", "_b", "xb", "B", "b"]
        .map(|end| TypeIdentifier::new(&format!("pass.{base}{end}")));
    let types = types.into_iter().collect::<Result<Vec<_>, _>>()?;
    let plain = [Device::new()?, Device::new()?];
    deferred_are_apart(queue, &[new_type()?, new_type()?], &plain, Judge::Plain).await?;
    deferred_are_apart(queue, &types, &devices, Judge::Odd).await
}

/// Makes changes of these passes pending, and finishes them one after the other.
async fn scopes_are_apart(
    queue: &Queue,
    serials: &[SerialNumber],
    judge: Judge,
) -> Result<(), Violation> {
    let type_id = new_type()?;
    queue
        .mark_and_push(&type_id, Changed::Passes(serials))
        .await?;
    let mut left: Vec<_> = serials.iter().cloned().map(Scope::Pass).collect();
    let mut pending =
        expect_pending(queue, &type_id, &left, judge.rule(Rule::Q1), "at first").await?;
    while let Some(finished) = left.pop() {
        // A new mark of one pass must change only the version of that pass.
        let again = left.last().unwrap_or(&finished);
        if let Scope::Pass(serial) = again {
            let changed = Changed::Passes(slice::from_ref(serial));
            queue.mark_and_push(&type_id, changed).await?;
            let pass = pass_of(&type_id, serial);
            let version = queue.pass_state(&pass).await?.version;
            if let Some(change) = pending.get_mut(again) {
                change.version = version;
            }
        }
        let version = pending[&finished].version;
        pending.remove(&finished);
        queue
            .record_progress(&type_id, &[(finished.clone(), end(version))])
            .await?;
        let found = pending_of(queue, &type_id).await?;
        let wanted = if left.is_empty() { 0 } else { pending.len() };
        ensure(
            judge.rule(Rule::Q3),
            found.len() == wanted && found == pending,
            format!("{wanted} changes, without the finished one {finished:?}"),
            || format!("{} changes, or other versions", found.len()),
        )?;
    }
    Ok(())
}

/// Defers pushes of these devices for each type, and removes them one after the other.
async fn deferred_are_apart(
    queue: &Queue,
    types: &[TypeIdentifier],
    devices: &[Device],
    judge: Judge,
) -> Result<(), Violation> {
    let under = |found: Violation| found.unless_error_under(judge.rule(Rule::Q4));
    let of = |n: usize| -> Vec<Deferred> {
        let all = devices.iter();
        all.map(|device| deferred(device, Some(at(n as u64 + 1))))
            .collect()
    };
    for (n, type_id) in types.iter().enumerate() {
        queue.defer(type_id, &of(n)).await?;
    }
    for (n, type_id) in types.iter().enumerate() {
        let mut pushes = of(n);
        expect_deferred(queue, type_id, &pushes, "that this type has")
            .await
            .map_err(under)?;
        while let Some((device, _)) = pushes.pop() {
            queue.defer(type_id, &[(device, None)]).await?;
            expect_deferred(queue, type_id, &pushes, "after others were removed")
                .await
                .map_err(under)?;
        }
    }
    Ok(())
}

async fn twice_in_a_batch(queue: &Queue) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let mark = async || {
        let all = serials(&passes);
        queue.mark_and_push(&type_id, Changed::Passes(&all)).await
    };
    mark().await?;
    let versions = pending_of(queue, &type_id).await?;
    let version = |pass: &PassId| versions.get(&scope(pass)).map_or(0, |one| one.version);
    let to = |pass: usize, next: Option<&str>| {
        let version = version(&passes[pass]);
        let progress = next.map_or(end(version), |next| page(version, next));
        (scope(&passes[pass]), progress)
    };
    let progress = [
        to(0, Some("page 2")),
        to(1, None),
        to(0, None),
        to(2, Some("page 2")),
        to(1, Some("page 3")),
        to(2, Some("page 4")),
    ];
    queue.record_progress(&type_id, &progress).await?;
    let pending = expect_pending(
        queue,
        &type_id,
        [&scope(&passes[2])],
        Rule::Q3,
        "after two other changes were finished in a call that names each twice",
    )
    .await?;
    let found = &pending[&scope(&passes[2])].progress;
    ensure(
        Rule::Q2,
        *found == Some(page(version(&passes[2]), "page 4")),
        "the last progress of the call",
        || format!("{found:?}"),
    )?;
    // The changes are marked again. The first report of the old version starts the change again
    // from the first page, and the second report must not finish the change.
    mark().await?;
    let old = [to(2, None), to(2, None)];
    queue.record_progress(&type_id, &old).await?;
    let every: Vec<_> = passes.iter().map(scope).collect();
    expect_pending(
        queue,
        &type_id,
        &every,
        Rule::Q2,
        "after an old version was finished twice in a call",
    )
    .await
    .map(drop)
}

async fn dropped_call_takes_no_other_along(queue: &Queue) -> Result<(), Violation> {
    const AT_ONCE: usize = 12;
    for polls in 0..8 {
        let (type_id, passes) = new_passes(AT_ONCE)?;
        let mark = |pass| -> Call<'_> {
            let pass: &PassId = pass;
            Box::pin(async move {
                let changed = Changed::Passes(slice::from_ref(&pass.serial));
                Ok(queue.mark_and_push(&pass.type_id, changed).await?)
            })
        };
        all_but_the_first(polls, passes.iter().map(mark).collect()).await?;
        let pending = pending_of(queue, &type_id).await?;
        let lost = passes[1..]
            .iter()
            .filter(|pass| !pending.contains_key(&scope(pass)))
            .count();
        ensure(
            Rule::C12,
            lost == 0,
            "pending changes that were acknowledged while another call was dropped",
            || format!("{lost} of {} changes missing", AT_ONCE - 1),
        )?;
        let pushes = (0..AT_ONCE)
            .map(|_| Ok(deferred(&Device::new()?, None)))
            .collect::<Result<Vec<_>, Violation>>()?;
        let defer = |push| -> Call<'_> {
            let (push, type_id) = (slice::from_ref(push), &type_id);
            Box::pin(async move { Ok(queue.defer(type_id, push).await?) })
        };
        all_but_the_first(polls, pushes.iter().map(defer).collect()).await?;
        // The dropped call may still end. Its push is then deferred too.
        let page = queue.deferred(&type_id, None, 1_000).await?;
        let lost = pushes[1..]
            .iter()
            .filter(|(device, _)| page.items.iter().all(|(one, _)| one != device))
            .count();
        ensure(
            Rule::C12,
            lost == 0 || page.next.is_some(),
            "deferred pushes that were acknowledged while another call was dropped",
            || format!("{lost} of {} deferred pushes missing", AT_ONCE - 1),
        )?;
    }
    Ok(())
}
