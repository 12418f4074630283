//! Many passes on one device, and many devices on one pass.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use passkit_server::{DeviceIdentifier, PassId, Registration, RegistrationStore};
use tokio::task::JoinSet;

use crate::{
    Breach, Rule, Verdict,
    breach::{Kept, demand},
};

use super::{
    Stores, catalogue,
    names::{Device, all, devices_of, new_device, new_passes, new_push_token, serials},
    not_opened,
};

catalogue! {
    "store/ten-thousand-passes-on-one-device" Must [C1 C2 C9] store ten_thousand_passes_on_one_device,
        "A device with 10,000 passes asks after registering, after a batch of marks, and after a mark of all.",
        "The device of a tester, or of a wallet that collects, is told of some of its passes only.";
    "store/one-pass-on-many-devices" Must [C11] stores one_pass_on_many_devices,
        "Registers 100,000 devices for a pass, or as many as the store takes in 20 seconds, in bulk where the store \
         can; reads them in pages of 1,000 while others come and go.",
        "Of the phones with a popular pass some get no push.";
}

async fn ten_thousand_passes_on_one_device(store: &Arc<dyn RegistrationStore>) -> Kept {
    let (type_id, passes) = new_passes(10_000)?;
    let device = Device::holding_many(store, &passes).await?;
    let tag = device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    device.list(store, &type_id, Some(tag)).await?.is_empty(Rule::C2, "when asked again")?;
    let some: Vec<PassId> = passes.iter().step_by(97).cloned().collect();
    store.mark_updated(&type_id, &serials(&some)).await?;
    let listed = device.list(store, &type_id, Some(tag)).await?;
    listed.has(&some, Rule::C1, "after a batch of marks")?;
    device.list(store, &type_id, Some(listed.tag)).await?.is_empty(Rule::C2, "when asked again")?;
    store.mark_all_updated(&type_id).await?;
    let all = device.list(store, &type_id, Some(listed.tag)).await?;
    all.has(&passes, Rule::C9, "after a mark of all")?;
    device.list(store, &type_id, Some(all.tag)).await?.is_empty(Rule::C2, "when asked again")
}

/// How many devices there are to be, and how long registering them may take.
const MANY: usize = 100_000;
const BUDGET: Duration = Duration::from_secs(20);

async fn one_pass_on_many_devices(stores: Arc<dyn Stores>) -> Verdict {
    let (_, passes) = new_passes(1)?;
    let pass = &passes[0];
    let (store, devices): (Arc<dyn RegistrationStore>, _) = match stores.maintained().await {
        Some(store) => {
            let store = store.map_err(not_opened)?;
            let start = Instant::now();
            let mut devices = HashSet::new();
            while devices.len() < MANY && start.elapsed() < BUDGET {
                let push_token = new_push_token()?;
                let one =
                    |device| Registration { device, push_token: push_token.clone(), pass: pass.clone() };
                let batch = (0..1_000).map(|_| new_device().map(one)).collect::<Result<Vec<_>, Breach>>()?;
                store.register_many(&batch).await.map_err(Breach::from)?;
                devices.extend(batch.into_iter().map(|one| one.device));
            }
            (store, devices)
        }
        None => {
            let store = stores.open().await.map_err(not_opened)?;
            let devices = crowd(&store, pass).await?;
            (store, devices)
        }
    };
    Ok(read_under_change(&store, pass, &devices, 1_000).await?)
}

/// Registers devices for `pass`, 64 at a time.
async fn crowd(
    store: &Arc<dyn RegistrationStore>,
    pass: &PassId,
) -> Result<HashSet<DeviceIdentifier>, Breach> {
    const AT_ONCE: usize = 64;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (store, pass) = (store.clone(), pass.clone());
        tasks.spawn(async move {
            let mut devices = Vec::new();
            for _ in (worker..MANY).step_by(AT_ONCE) {
                if start.elapsed() > BUDGET {
                    break;
                }
                devices.push(Device::holding(&store, [&pass]).await?.id);
            }
            Ok::<_, Breach>(devices)
        });
    }
    Ok(all(tasks).await?.into_iter().flatten().collect())
}

/// Reads all pages of `pass`, which `throughout` hold, while four other devices keep coming and going.
async fn read_under_change(
    store: &Arc<dyn RegistrationStore>,
    pass: &PassId,
    throughout: &HashSet<DeviceIdentifier>,
    limit: usize,
) -> Kept {
    let (reading, others) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(HashSet::new())));
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (store, pass, reading, others) = (store.clone(), pass.clone(), reading.clone(), others.clone());
        tasks.spawn(async move {
            while reading.load(SeqCst) {
                let device = Device::new()?;
                others.lock().unwrap_or_else(PoisonError::into_inner).insert(device.id.clone());
                store.register(&device.id, &pass, &device.push_token).await?;
                tokio::task::yield_now().await;
                store.unregister(&device.id, &pass).await?;
                // A pace that leaves the reader its turn.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Breach>(())
        });
    }
    let found = devices_of(store, pass, limit, throughout.len() / limit).await;
    reading.store(false, SeqCst);
    all(tasks).await?;
    let others = others.lock().unwrap_or_else(PoisonError::into_inner);
    let seen: HashSet<_> = found?.into_iter().map(|one| one.device).collect();
    let missing = throughout.difference(&seen).count();
    let foreign = seen.iter().filter(|one| !throughout.contains(one) && !others.contains(one)).count();
    demand(
        Rule::C11,
        missing == 0 && foreign == 0,
        format!("all of {} devices in pages of {limit}, others coming and going", throughout.len()),
        || format!("{missing} missing and {foreign} that never registered"),
    )
}
