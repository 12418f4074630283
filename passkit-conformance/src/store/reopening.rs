//! Cases about what is there when the data are opened again.

use std::{
    slice,
    sync::Arc,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::TypeIdentifier,
    store::{RegistrationStore, UpdateTag},
};
use tokio::task::JoinSet;

use super::{
    case::catalogue,
    names::{Device, all, has_devices, new_passes, new_push_token, new_type, serials},
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
    /// A tag from after that mark.
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
        // Any violation here is a loss of data, so the rule is C6. An error of the store keeps its
        // rule.
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

        // Earlier tags must still work. The list names exactly what came after them.
        let since = device.list(store, type_id, Some(*newest)).await?;
        since.is_empty(Rule::C6, "for the newest tag from before")?;
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
            "after a registration, for the tag from before it",
        )?;
        device
            .list(store, &new_type()?, None)
            .await?
            .is_empty(Rule::C6, "of a type that is not registered")
    }
}
