//! Cases with many passes on one device, and with many devices of one pass.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::{
    Changed, PassId,
    identifiers::DeviceIdentifier,
    maintenance::{Registration, StoreMaintenance},
    store::{Audience, RegistrationStore},
};
use tokio::task::JoinSet;

use crate::{CaseResult, Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{Device, all, devices_of, new_device, new_passes, new_push_token, serials},
    stores::Opened,
};

catalogue! {
    "store/ten-thousand-passes-on-one-device" Must [C1 C2 C9] store
        ten_thousand_passes_on_one_device,
        "A device with 10,007 passes asks for its list after it registered, after a batch of \
         marks, and after a mark of the type.",
        "A device with very many passes, such as the phone of a tester, gets updates for only some \
         of them.";
    "store/one-pass-on-many-devices" Must [C11 COUNT_DEVICES MAINTENANCE] opened one_pass_on_many_devices,
        "Registers 10,007 devices for a pass. If the store has bulk registration, registers them in \
         batches of 501, 1,000, 1,001 and 21,847. Counts the devices. Reads the devices of the \
         pass, then the devices of its type, in pages of 1,000. Meanwhile, other devices register \
         and unregister. At the end, exports all registrations.",
        "Some phones with a popular pass get no push, or are lost when the service moves.";
}

async fn ten_thousand_passes_on_one_device(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(10_007)?;
    let device = Device::registered_for_many(store, &passes).await?;
    let tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    device
        .list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::C2, "when asked again with the new tag")?;
    let some: Vec<PassId> = passes.iter().step_by(97).cloned().collect();
    store
        .mark(&type_id, Changed::Passes(&serials(&some)))
        .await?;
    let listed = device.list(store, &type_id, Some(tag)).await?;
    listed.has(&some, Rule::C1, "after a batch of marks")?;
    device
        .list(store, &type_id, Some(listed.tag))
        .await?
        .is_empty(Rule::C2, "when asked again with the new tag")?;
    store.mark(&type_id, Changed::All).await?;
    let all = device.list(store, &type_id, Some(listed.tag)).await?;
    all.has(&passes, Rule::C9, "after a mark of the type")?;
    device
        .list(store, &type_id, Some(all.tag))
        .await?
        .is_empty(Rule::C2, "when asked again with the new tag")
}

/// The number of devices to register if the store has no bulk registration.
const MANY: usize = 10_007;

async fn one_pass_on_many_devices(opened: &Opened) -> CaseResult {
    let (_, passes) = new_passes(1)?;
    let (store, pass) = (opened.registrations(), &passes[0]);
    let devices = match opened.maintenance() {
        Ok(store) => crowd_in_bulk(&**store, pass).await?,
        Err(_) => crowd(store, pass).await?,
    };
    let there = devices.len() as u64;
    for at_most in [1_000, there - 1, there, u64::MAX] {
        let counted = store.count_devices(pass, at_most).await?;
        ensure(
            Rule::COUNT_DEVICES,
            (there.min(at_most)..=there).contains(&counted),
            format!("{there} devices, counted up to {at_most}"),
            || counted.to_string(),
        )?;
    }
    for audience in [Audience::Pass(pass), Audience::Type(&pass.type_id)] {
        read_under_change(store, audience, pass, &devices, 1_000).await?;
    }
    if let Ok(store) = opened.maintenance() {
        come_back(&**store, pass, devices).await?;
    }
    Ok(())
}

/// Registers devices for `pass` in batches of growing sizes. With three parameters for each
/// registration, the last batch has more parameters than PostgreSQL allows.
async fn crowd_in_bulk(
    store: &dyn StoreMaintenance,
    pass: &PassId,
) -> Result<HashSet<DeviceIdentifier>, Violation> {
    let mut devices = HashSet::new();
    for size in [501, 1_000, 1_001, 21_847] {
        let push_token = new_push_token()?;
        let one = |device| Registration {
            device,
            push_token: push_token.clone(),
            pass: pass.clone(),
        };
        let batch = (0..size)
            .map(|_| new_device().map(one))
            .collect::<Result<Vec<_>, Violation>>()?;
        let created = store.register_many(&batch).await?;
        ensure(
            Rule::MAINTENANCE,
            created == size as u64,
            format!("{size} new registrations of {size}"),
            || created.to_string(),
        )?;
        devices.extend(batch.into_iter().map(|one| one.device));
    }
    Ok(devices)
}

/// Ensures that the export and the counts have all these devices of `pass`.
async fn come_back(
    store: &dyn StoreMaintenance,
    pass: &PassId,
    devices: HashSet<DeviceIdentifier>,
) -> Result<(), Violation> {
    let stats = store.stats().await?;
    let of_type = stats.types.iter().find(|one| one.type_id == pass.type_id);
    let counted = of_type.map_or(0, |one| one.registrations);
    ensure(
        Rule::MAINTENANCE,
        counted == devices.len() as u64,
        format!("{} registrations in the counts", devices.len()),
        || counted.to_string(),
    )?;
    let mut left = devices;
    let mut after = None;
    loop {
        let page = store.registrations(after.as_ref(), 1_000).await?;
        for one in page.items.iter().filter(|one| one.pass == *pass) {
            left.remove(&one.device);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ensure(
        Rule::MAINTENANCE,
        left.is_empty(),
        "all registrations in an export in pages of 1,000",
        || format!("{} missing", left.len()),
    )
}

/// Registers up to [`MANY`] devices for `pass`, with 64 calls in parallel.
async fn crowd(
    store: &Arc<dyn RegistrationStore>,
    pass: &PassId,
) -> Result<HashSet<DeviceIdentifier>, Violation> {
    const AT_ONCE: usize = 64;
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (store, pass) = (store.clone(), pass.clone());
        tasks.spawn(async move {
            let mut devices = Vec::new();
            for _ in (worker..MANY).step_by(AT_ONCE) {
                devices.push(Device::registered_for(&store, [&pass]).await?.id);
            }
            Ok::<_, Violation>(devices)
        });
    }
    Ok(all(tasks).await?.into_iter().flatten().collect())
}

/// Reads all pages of an audience. Meanwhile, four tasks keep registering and unregistering other
/// devices for `pass`. Ensures that the pages contain all devices of `throughout`.
async fn read_under_change(
    store: &Arc<dyn RegistrationStore>,
    audience: Audience<'_>,
    pass: &PassId,
    throughout: &HashSet<DeviceIdentifier>,
    limit: usize,
) -> Result<(), Violation> {
    let (reading, others) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(Mutex::new(HashSet::new())),
    );
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (store, pass, reading, others) =
            (store.clone(), pass.clone(), reading.clone(), others.clone());
        tasks.spawn(async move {
            while reading.load(SeqCst) {
                let device = Device::new()?;
                others
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(device.id.clone());
                store
                    .register(&device.id, &pass, &device.push_token)
                    .await?;
                tokio::task::yield_now().await;
                store.unregister(&device.id, &pass).await?;
                // The pause lets the reading task run.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Violation>(())
        });
    }
    let found = devices_of(store, audience, limit, throughout.len() / limit).await;
    reading.store(false, SeqCst);
    all(tasks).await?;
    let others = others.lock().unwrap_or_else(PoisonError::into_inner);
    let seen: HashSet<_> = found?.into_iter().map(|one| one.device).collect();
    let missing = throughout.difference(&seen).count();
    let foreign = seen
        .iter()
        .filter(|one| !throughout.contains(one) && !others.contains(one))
        .count();
    ensure(
        Rule::C11,
        missing == 0 && foreign == 0,
        format!(
            "all of {} devices in pages of {limit}, while others register and unregister",
            throughout.len()
        ),
        || format!("{missing} missing devices and {foreign} devices that never registered"),
    )
}
