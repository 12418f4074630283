//! Cases about the data that are left when a store is opened again.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::Arc,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, SerialNumber, TokenDigest, TypeIdentifier},
    maintenance::Registration,
    push::{Backlog, PendingChange, Scope},
    store::{Audience, Content, Coordination, Published, RegistrationStore, UpdateTag},
};
use tokio::task::JoinSet;

use super::{
    case::catalogue,
    names::{
        Device, all, devices_of, has_devices, new_passes, new_push_token, new_type, serials, unique,
    },
    queue::{
        Deferred, Queue, at, backlog_of, deferred, end, page, pending_of, read_deferred, removed,
        scope,
    },
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, violation::ensure};

catalogue! {
    "store/acknowledged-changes-survive-reopening" Must [C6] opened
        acknowledged_changes_survive_reopening,
        "16 tasks register, unregister, mark and forget. The data are opened again as they are at \
         that moment. Registrations, push tokens, dates and tags must be as acknowledged. New \
         marks and registrations must get later dates and tags.",
        "After a crash, registered phones get no pushes, updates are lost, or all phones fetch \
         everything again.";
    "store/last-write-survives-reopening" Must [C6] opened last_write_survives_reopening,
        "Makes one call of each kind: marks passes and a type, publishes, registers, unregisters, \
         forgets and registers in bulk. After each call, the data are opened again as they are at \
         that moment, and everything that can be read must be the same. Then dates and tags must \
         still grow.",
        "After a crash, the last thing that happened is undone. For example, a phone misses the last \
         mark of a type.";
    "queue/last-write-survives-reopening" Must [C6] opened last_queue_write_survives_reopening,
        "Makes one call of each kind: marks with pushes, records progress to a page and to the end, \
         defers, replaces and removes pushes. After each call, the data are opened again as they \
         are at that moment, and everything that can be read must be the same.",
        "After a crash, some phones never get their push, or get it again.";
    "coordination/last-write-survives-reopening" Must [K4] opened last_note_survives_reopening,
        "Creates, replaces and removes a note, and releases a claim. After each call, the data are \
         opened again as they are at that moment.",
        "After a restart, an enrolment is accepted a second time, or a released job stays with a \
         worker that is gone.";
}

const TASKS: usize = 16;

/// What one task did, and what must be there after reopening.
struct Done {
    type_id: TypeIdentifier,
    passes: Vec<PassId>,
    states: Vec<PassState>,
    /// A device with the first three passes.
    device: Device,
    /// A tag from before the last mark. The last mark was of the first pass.
    tag: UpdateTag,
    /// A tag from after the last mark.
    newest: UpdateTag,
    forgotten: Device,
}

async fn acknowledged_changes_survive_reopening(opened: &Opened) -> CaseResult {
    let store = opened.registrations();
    // A pass of a type that is never marked has the date of the store's creation.
    let (_, never) = new_passes(1)?;
    let created = store.pass_state(&never[0]).await?;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move { work(&store, number).await });
    }
    let done = all(tasks).await?;
    let reopened = opened.reopen().await?;
    let reopened = reopened.registrations();

    let now = reopened.pass_state(&never[0]).await?;
    ensure(
        Rule::C6,
        now == created,
        format!("unchanged {created:?} for a pass that was never marked"),
        || format!("{now:?}"),
    )?;
    for done in &done {
        // Any violation here is a loss of data, so the rule is C6. An error of the store still
        // breaks its usual rule.
        done.is_there(reopened)
            .await
            .map_err(|found| found.unless_error_under(Rule::C6))?;
    }
    Ok(())
}

async fn work(store: &Arc<dyn RegistrationStore>, number: usize) -> Result<Done, Violation> {
    let (type_id, passes) = new_passes(5)?;
    let mut device = Device::registered_for(store, &passes).await?;
    let forgotten = Device::registered_for(store, &passes).await?;
    for round in 0..6 {
        let pass = &passes[(number + round) % passes.len()];
        store
            .mark(&type_id, Changed::Passes(slice::from_ref(&pass.serial)))
            .await?;
        store.unregister(&device.id, pass).await?;
        store.register(&device.id, pass, &new_push_token()?).await?;
    }
    store.mark(&type_id, Changed::All).await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
        .await?;
    for pass in &passes[3..] {
        store.unregister(&device.id, pass).await?;
    }
    device.push_token = new_push_token()?;
    store
        .register(&device.id, &passes[2], &device.push_token)
        .await?;
    store
        .forget_device(
            &forgotten.id,
            SystemTime::now() + Duration::from_secs(3_600),
        )
        .await?;
    let tag = device
        .lists_exactly(store, &type_id, &passes[..3], Rule::CHANGES_SINCE)
        .await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let newest = device.list(store, &type_id, Some(tag)).await?.tag;
    let mut states = Vec::new();
    for pass in &passes {
        states.push(store.pass_state(pass).await?);
    }
    Ok(Done {
        type_id,
        passes,
        states,
        device,
        tag,
        newest,
        forgotten,
    })
}

impl Done {
    async fn is_there(&self, store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
        let Self {
            type_id,
            passes,
            states,
            device,
            tag,
            newest,
            forgotten,
        } = self;
        device
            .lists_exactly(store, type_id, &passes[..3], Rule::C6)
            .await?;
        for pass in &passes[..3] {
            has_devices(store, pass, [device], Rule::C6).await?;
        }
        for pass in &passes[3..] {
            has_devices(store, pass, [], Rule::C6).await?;
        }
        forgotten
            .list(store, type_id, None)
            .await?
            .is_empty(Rule::C6, "for a device that was forgotten")?;
        for (pass, state) in passes.iter().zip(states) {
            let now = store.pass_state(pass).await?;
            ensure(
                Rule::C6,
                now == *state,
                format!("unchanged {state:?}"),
                || format!("{now:?}"),
            )?;
        }

        // Earlier tags must still work. A list names exactly the later changes.
        let since = device.list(store, type_id, Some(*newest)).await?;
        since.is_empty(Rule::C6, "for the newest earlier tag")?;
        let since = device.list(store, type_id, Some(*tag)).await?;
        since.has(&passes[..1], Rule::C6, "for a tag from before its mark")?;

        // New dates and tags must be later than the earlier ones.
        let last = &passes[2];
        store
            .mark(type_id, Changed::Passes(slice::from_ref(&last.serial)))
            .await?;
        let now = store.pass_state(last).await?;
        let later = now.version > states[2].version && now.last_modified > states[2].last_modified;
        ensure(
            Rule::C6,
            later,
            format!("a state later than {:?} after a mark", states[2]),
            || format!("{now:?}"),
        )?;
        let since = device.list(store, type_id, Some(*newest)).await?;
        since.has([last], Rule::C6, "after a mark, for an earlier tag")?;
        let forward = since.tag.type_version > newest.type_version
            && since.tag.device_version >= newest.device_version;
        ensure(
            Rule::C6,
            forward,
            format!("a tag later than {newest}"),
            || since.tag.to_string(),
        )?;
        store
            .register(&device.id, &passes[3], &device.push_token)
            .await?;
        let since = device.list(store, type_id, Some(since.tag)).await?;
        since.has(
            [&passes[3]],
            Rule::C6,
            "after a registration, for the earlier tag",
        )?;
        device
            .list(store, &new_type()?, None)
            .await?
            .is_empty(Rule::C6, "of a type that is not registered")
    }
}

/// Everything that can be read about some devices and passes of a type.
struct Picture {
    /// The list of each device without a tag.
    registered: Vec<BTreeSet<SerialNumber>>,
    /// The list of each device for a tag from before the last call.
    changed: Vec<BTreeSet<SerialNumber>>,
    states: Vec<PassState>,
    published: Vec<Option<Published>>,
    /// The push tokens of the devices of each pass.
    devices: Vec<BTreeMap<DeviceIdentifier, String>>,
}

impl Picture {
    async fn of(
        store: &dyn RegistrationStore,
        devices: &[Device],
        passes: &[PassId],
        tags: &[UpdateTag],
    ) -> Result<Self, Violation> {
        let mut picture = Self {
            registered: Vec::new(),
            changed: Vec::new(),
            states: Vec::new(),
            published: store.published(passes).await?,
            devices: Vec::new(),
        };
        for (device, tag) in devices.iter().zip(tags) {
            let type_id = &passes[0].type_id;
            let all = device.ask(store, type_id, None).await?;
            picture.registered.push(all.serials);
            let changed = device.ask(store, type_id, Some(*tag)).await?;
            picture.changed.push(changed.serials);
        }
        for pass in passes {
            picture.states.push(store.pass_state(pass).await?);
            let found = devices_of(store, Audience::Pass(pass), 100, 10).await?;
            let found = found
                .into_iter()
                .map(|one| (one.device, one.push_token.as_str().to_owned()));
            picture.devices.push(found.collect());
        }
        Ok(picture)
    }

    /// Names the parts that differ from an earlier picture.
    fn differs_from(&self, before: &Self) -> Vec<&'static str> {
        // A store may list passes that did not change (C7), but must not leave out passes that did.
        let missed = before
            .changed
            .iter()
            .zip(&self.changed)
            .any(|(before, now)| !before.is_subset(now));
        let parts = [
            (self.registered != before.registered, "registrations"),
            (missed, "changes for an earlier tag"),
            (self.states != before.states, "versions, dates or digests"),
            (self.published != before.published, "published contents"),
            (self.devices != before.devices, "devices or push tokens"),
        ];
        let differing = parts.into_iter().filter(|(differs, _)| *differs);
        differing.map(|(_, name)| name).collect()
    }
}

async fn last_write_survives_reopening(opened: &Opened) -> CaseResult {
    const STEPS: [&str; 11] = [
        "register",
        "a mark of passes",
        "a mark of the type",
        "a publication",
        "a publication of equal content with another token",
        "a publication of a removal",
        "a register with another push token",
        "an unregister of the last registration",
        "forget_device",
        "an unregister of all registrations",
        "a bulk registration",
    ];
    let store = opened.registrations();
    let (type_id, passes) = new_passes(4)?;
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(Device::registered_for(store, &passes[..3]).await?);
    }
    let mark = async |changed: Changed<'_>| store.mark(&type_id, changed).await;
    let content = |digest, token| {
        [Content {
            serial: passes[0].serial.clone(),
            digest,
            tokens: vec![TokenDigest::from_bytes([token; 32])],
        }]
    };
    let soon = SystemTime::now() + Duration::from_secs(3_600);
    for (step, what) in STEPS.into_iter().enumerate() {
        let mut tags = Vec::new();
        for device in &devices {
            tags.push(device.ask(store, &type_id, None).await?.tag);
        }
        match step {
            0 => {
                let Device { id, push_token } = &devices[0];
                store.register(id, &passes[3], push_token).await?;
            }
            1 => mark(Changed::Passes(&serials(&passes[..2]))).await?,
            2 => mark(Changed::All).await?,
            3 => mark(Changed::Contents(&content(Some([1; 32]), 1))).await?,
            4 => mark(Changed::Contents(&content(Some([1; 32]), 2))).await?,
            5 => mark(Changed::Contents(&content(None, 3))).await?,
            6 => {
                devices[0].push_token = new_push_token()?;
                let Device { id, push_token } = &devices[0];
                store.register(id, &passes[3], push_token).await?;
            }
            7 => drop(store.unregister(&devices[0].id, &passes[3]).await?),
            8 => drop(store.forget_device(&devices[1].id, soon).await?),
            9 => {
                for pass in &passes[..3] {
                    store.unregister(&devices[2].id, pass).await?;
                }
            }
            _ => {
                if let Ok(store) = opened.maintenance() {
                    let Device { id, push_token } = &devices[0];
                    let one = Registration {
                        device: id.clone(),
                        push_token: push_token.clone(),
                        pass: passes[3].clone(),
                    };
                    store.register_many(slice::from_ref(&one)).await?;
                }
            }
        }
        let before = Picture::of(&**store, &devices, &passes, &tags).await?;
        let mut newest = Vec::new();
        for device in &devices {
            newest.push(device.ask(store, &type_id, None).await?.tag);
        }
        let reopened = opened.reopen().await?;
        let reopened = reopened.registrations();
        let after = Picture::of(&**reopened, &devices, &passes, &tags)
            .await
            .map_err(|found| found.unless_error_under(Rule::C6))?;
        let differing = after.differs_from(&before);
        ensure(
            Rule::C6,
            differing.is_empty(),
            format!("the same data after {what} and opening again"),
            || format!("other {}", differing.join(", ")),
        )?;
        // A device without registrations has no clock that must be kept.
        for (device, newest) in devices.iter().zip(&newest) {
            let listed = device.ask(reopened, &type_id, Some(*newest)).await?;
            let here = after.devices.iter().any(|of| of.contains_key(&device.id));
            // Nothing is lost if the store lists passes that it also listed before it was opened
            // again.
            let before = device.ask(store, &type_id, Some(*newest)).await?;
            let forward = listed.tag.type_version >= newest.type_version
                && listed.tag.device_version >= newest.device_version;
            ensure(
                Rule::C6,
                !here || (forward && listed.serials.is_subset(&before.serials)),
                format!("nothing listed and no earlier tag than {newest}, after {what}"),
                || format!("{} listed, tag {}", listed.serials.len(), listed.tag),
            )?;
        }
    }
    // Several marks make the dates run ahead of the wall clock. The store must remember the dates,
    // so that the next mark of the type gets a later date.
    for changed in [Changed::All, Changed::Passes(&serials(&passes[..1]))] {
        for _ in 0..3 {
            let before = store.pass_state(&passes[0]).await?;
            mark(changed).await?;
            let after = store.pass_state(&passes[0]).await?;
            ensure(
                Rule::C14,
                after.version > before.version && after.last_modified > before.last_modified,
                format!("a state later than {before:?} after a mark"),
                || format!("{after:?}"),
            )?;
        }
    }
    let reopened = opened.reopen().await?;
    let reopened = reopened.registrations();
    for changed in [Changed::All, Changed::Passes(&serials(&passes))] {
        let before = reopened.pass_state(&passes[0]).await?;
        reopened.mark(&type_id, changed).await?;
        let after = reopened.pass_state(&passes[0]).await?;
        ensure(
            Rule::C6,
            after.version > before.version && after.last_modified > before.last_modified,
            format!("a state later than {before:?} after a mark"),
            || format!("{after:?}"),
        )?;
    }
    Ok(())
}

/// Everything that can be read about the queue of a type.
type QueuePicture = (
    BTreeMap<Scope, PendingChange>,
    BTreeMap<DeviceIdentifier, Deferred>,
    Option<(u64, bool, Option<SystemTime>)>,
);

async fn queue_picture(queue: &Queue, type_id: &TypeIdentifier) -> Result<QueuePicture, Violation> {
    let deferred = read_deferred(queue, type_id, None, 100).await?.into_iter();
    // A store need not return the exact time since which the oldest change is pending.
    let summary = |one: Backlog| (one.pending, one.since.is_some(), one.next_deferred);
    Ok((
        pending_of(queue, type_id).await?,
        deferred.map(|one| (one.0.clone(), one)).collect(),
        backlog_of(queue, type_id).await?.map(summary),
    ))
}

async fn last_queue_write_survives_reopening(opened: &Opened) -> CaseResult {
    const STEPS: [&str; 10] = [
        "passes were marked",
        "their type was marked",
        "progress to a page",
        "progress of the type",
        "a pass was marked again",
        "progress to the end",
        "pushes were deferred",
        "a push was deferred again",
        "a deferred push was removed",
        "content was published",
    ];
    let queue = opened.queue()?;
    let (type_id, passes) = new_passes(3)?;
    let first = serials(&passes[..1]);
    let pushes = [Device::new()?, Device::new()?].map(|device| deferred(&device, Some(at(1))));
    let content = [Content {
        serial: passes[2].serial.clone(),
        digest: Some([1; 32]),
        tokens: Vec::new(),
    }];
    for (step, what) in STEPS.into_iter().enumerate() {
        let pending = pending_of(queue, &type_id).await?;
        let version = |scope: &Scope| pending.get(scope).map_or(0, |change| change.version);
        let progress = async |scope: Scope, ends: bool| {
            let version = version(&scope);
            let to = if ends {
                end(version)
            } else {
                page(version, "page 2")
            };
            queue.record_progress(&type_id, &[(scope, to)]).await
        };
        match step {
            0 => {
                let two = serials(&passes[..2]);
                queue.mark_and_push(&type_id, Changed::Passes(&two)).await?;
            }
            1 => queue.mark_and_push(&type_id, Changed::All).await?,
            2 => progress(scope(&passes[0]), false).await?,
            3 => progress(Scope::Type, false).await?,
            4 => {
                queue
                    .mark_and_push(&type_id, Changed::Passes(&first))
                    .await?;
            }
            5 => progress(scope(&passes[1]), true).await?,
            6 => queue.defer(&type_id, &pushes).await?,
            7 => {
                let mut again = pushes[0].clone();
                if let (_, Some(push)) = &mut again {
                    push.attempts = 7;
                }
                queue.defer(&type_id, &[again]).await?;
            }
            8 => queue.defer(&type_id, &removed(&pushes[1..])).await?,
            _ => {
                queue
                    .mark_and_push(&type_id, Changed::Contents(&content))
                    .await?;
            }
        }
        let before = queue_picture(queue, &type_id).await?;
        let reopened = opened.reopen().await?;
        let after = queue_picture(reopened.queue()?, &type_id)
            .await
            .map_err(|found| found.unless_error_under(Rule::C6))?;
        ensure(
            Rule::C6,
            before == after,
            format!(
                "{} pending changes and {} deferred pushes as before, after {what}",
                before.0.len(),
                before.1.len()
            ),
            || {
                format!(
                    "{} pending changes and {} deferred pushes, or different ones",
                    after.0.len(),
                    after.1.len()
                )
            },
        )?;
    }
    Ok(())
}

async fn last_note_survives_reopening(opened: &Opened) -> CaseResult {
    const LONG: Duration = Duration::from_secs(600);
    let store: &Arc<dyn Coordination> = opened.coordination()?;
    let name = format!("conformance:{}", unique());
    let steps = [(None, Some("1")), (Some("1"), Some("2")), (Some("2"), None)];
    for (expected, new) in steps {
        store.replace_note(&name, expected, new).await?;
        let found = opened.reopen().await?.coordination()?.note(&name).await?;
        ensure(
            Rule::K4,
            found.as_deref() == new,
            format!("the note {new:?}"),
            || format!("{found:?}"),
        )?;
    }
    // A claim may be lost when its process ends, but a released claim must not come back.
    store.claim(&name, "a", LONG).await?;
    store.release(&name, "a").await?;
    let reopened = opened.reopen().await?;
    let given = reopened.coordination()?.claim(&name, "b", LONG).await?;
    ensure(
        Rule::K4,
        given,
        "a claim after another owner released it",
        || "the former owner still has it".into(),
    )?;
    Ok(())
}
