//! The case that makes all calls at once. The calls are recorded, and checked afterwards.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId,
    identifiers::TypeIdentifier,
    store::{Audience, Content, RegistrationStore, UpdateTag},
};
use tokio::task::JoinSet;

use super::{
    case::catalogue,
    history::Recorder,
    names::{Device, all, new_passes, new_push_token, serials},
    random::Random,
};
use crate::Violation;

catalogue! {
    "store/parallel-history-adds-up" Must [C1 C2 C3 C4 C9 C10 C11 C13 C14 P1 P2 CHANGES_SINCE UNREGISTER COUNT_DEVICES] store
        parallel_history_adds_up,
        "There are 24 passes. 16 tasks mark passes and their type, publish content, register, \
         unregister, forget devices, change push tokens, and read and count devices. Meanwhile, \
         eight devices ask for their lists and fetch passes. Every call is recorded with its begin \
         and end. All calls are checked afterwards.",
        "Under load, a phone misses an update, or its pushes go to an old push token, or its lists \
         name passes that it no longer has.";
}

const DEVICES: usize = 8;
const PASSES: usize = 24;
const WRITERS: usize = 16;
const WRITES: usize = 50;

async fn parallel_history_adds_up(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let recorder = Recorder::new(store.clone());
    busy(&recorder).await?;
    recorder.history().check()
}

/// Runs writers and polling devices until all writers are done. Then every device asks twice more,
/// and everything is read.
async fn busy(recorder: &Recorder) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(PASSES)?;
    let passes = Arc::new(passes);
    let devices = (0..DEVICES)
        .map(|_| Device::new())
        .collect::<Result<Vec<_>, _>>()?;
    let writing = Arc::new(AtomicUsize::new(WRITERS));
    let mut tasks = JoinSet::new();
    for (number, device) in devices.iter().enumerate() {
        // The first half of the devices keeps exactly these passes. Writers only repeat some of these
        // registrations, with a new push token.
        for pass in passes.iter().skip(number).step_by(6) {
            recorder
                .register(&device.id, pass, &device.push_token)
                .await?;
        }
        let (recorder, type_id, device) = (recorder.clone(), type_id.clone(), device.clone());
        let writing = writing.clone();
        tasks.spawn(async move {
            let mut tag = None;
            loop {
                let last_round = writing.load(SeqCst) == 0;
                poll(&recorder, &type_id, &device, &mut tag).await?;
                if last_round {
                    return poll(&recorder, &type_id, &device, &mut tag).await;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    for writer in 0..WRITERS {
        let (recorder, passes, devices) = (recorder.clone(), passes.clone(), devices.clone());
        let writing = writing.clone();
        tasks.spawn(async move {
            let mut random = Random::new(Random::from_time() ^ writer as u64);
            let mut result = Ok(());
            for _ in 0..WRITES {
                result = write(&recorder, &passes, &devices, &mut random).await;
                if result.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            writing.fetch_sub(1, SeqCst);
            result
        });
    }
    all(tasks).await?;
    for pass in passes.iter() {
        recorder.pass_state(pass).await?;
        recorder
            .devices(Audience::Pass(pass), None, 2 * DEVICES)
            .await?;
    }
    recorder
        .devices(Audience::Type(&type_id), None, 2 * DEVICES * PASSES)
        .await?;
    Ok(())
}

/// Asks for a list, and fetches some of the listed passes.
async fn poll(
    recorder: &Recorder,
    type_id: &TypeIdentifier,
    device: &Device,
    tag: &mut Option<UpdateTag>,
) -> Result<(), Violation> {
    let changes = recorder.changes_since(&device.id, type_id, *tag).await?;
    if changes.serials.is_empty() {
        return Ok(());
    }
    *tag = Some(changes.tag);
    for serial in changes.serials.into_iter().take(4) {
        recorder
            .pass_state(&PassId {
                type_id: type_id.clone(),
                serial,
            })
            .await?;
    }
    Ok(())
}

/// Makes one random call.
async fn write(
    recorder: &Recorder,
    passes: &[PassId],
    devices: &[Device],
    random: &mut Random,
) -> Result<(), Violation> {
    let pass = &passes[random.below(passes.len())];
    // The first half of the devices never unregisters.
    let device = &devices[devices.len() / 2 + random.below(devices.len() / 2)];
    match random.below(24) {
        0..=5 => {
            recorder
                .mark(
                    &pass.type_id,
                    Changed::Passes(slice::from_ref(&pass.serial)),
                )
                .await?
        }
        6..=7 => {
            let batch: Vec<_> = (0..5)
                .map(|_| passes[random.below(passes.len())].clone())
                .collect();
            recorder
                .mark(&pass.type_id, Changed::Passes(&serials(&batch)))
                .await?;
        }
        8 if random.below(3) == 0 => recorder.mark(&pass.type_id, Changed::All).await?,
        8..=10 => drop(
            recorder
                .register(&device.id, pass, &device.push_token)
                .await?,
        ),
        11..=12 => {
            // Any device may change its push token. It registers again for a pass that it had at
            // the start.
            let at = random.below(devices.len());
            recorder
                .register(&devices[at].id, &passes[at], &new_push_token()?)
                .await
                .map(drop)?
        }
        13..=15 => drop(recorder.unregister(&device.id, pass).await?),
        16 => {
            let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
            let unregistered_at = if random.below(2) == 0 {
                now + 2 * day
            } else {
                now - 2 * day
            };
            recorder
                .forget_device(&device.id, unregistered_at)
                .await
                .map(drop)?;
        }
        17..=18 => {
            // There are only a few digests, so that several callers publish the same one.
            let digest = (random.below(8) > 0).then(|| [random.below(3) as u8; 32]);
            let (tokens, serial) = (Vec::new(), pass.serial.clone());
            recorder
                .mark(
                    &pass.type_id,
                    Changed::Contents(&[Content {
                        serial,
                        digest,
                        tokens,
                    }]),
                )
                .await?;
        }
        19 => drop(
            recorder
                .devices(Audience::Pass(pass), None, 2 * devices.len())
                .await?,
        ),
        20 => {
            let limit = 2 * devices.len() * passes.len();
            drop(
                recorder
                    .devices(Audience::Type(&pass.type_id), None, limit)
                    .await?,
            );
        }
        21 => recorder.count_devices(pass, u64::MAX).await.map(drop)?,
        _ => drop(recorder.pass_state(pass).await?),
    }
    Ok::<_, Violation>(())
}
