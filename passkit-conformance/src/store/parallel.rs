//! The case that makes calls of all kinds at the same time. The calls are recorded, and checked
//! afterwards.

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
    maintenance::{Registration, StoreMaintenance},
    store::{Audience, Content, RegistrationStore, UpdateTag},
};
use tokio::task::JoinSet;

use super::{
    cancelling::give_up_after,
    case::catalogue,
    history::Recorder,
    names::{Device, all, new_passes, new_push_token, serials},
    queue::Queue,
    stores::Opened,
};
use crate::{
    CaseResult, Violation,
    random::{Random, seed_of_run, with_seed},
};

catalogue! {
    "store/parallel-history-adds-up" Must [C1 C2 C3 C4 C9 C10 C11 C13 C14 P1 P2 CHANGES_SINCE UNREGISTER COUNT_DEVICES] opened
        parallel_history_adds_up,
        "There are 24 passes. 16 tasks mark passes and their type, publish content, register (also \
         in bulk), unregister, forget devices, change push tokens, and read and count devices. \
         Meanwhile, eight devices ask for their lists and fetch passes. Every call is recorded with \
         its begin and end. All calls are checked afterwards. PASSKIT_CONFORMANCE_SEED=n makes the \
         same calls again, but not at the same times.",
        "Under load, a phone misses an update, its pushes go to an old push token, or its lists \
         name passes that it no longer has.";
}

const DEVICES: usize = 8;
const PASSES: usize = 24;
pub(super) const WRITERS: usize = 16;
const WRITES: usize = 50;

async fn parallel_history_adds_up(opened: &Opened) -> CaseResult {
    let seed = seed_of_run()?;
    let world = World::new(opened, WRITES).await?;
    world
        .busy(seed, false)
        .await
        .and_then(|()| world.recorder.history().check())
        .map_err(|violation| with_seed(violation, seed))?;
    Ok(())
}

/// Some passes and devices, and the store that they use. All calls are recorded.
#[derive(Clone)]
pub(super) struct World {
    pub(super) recorder: Recorder,
    maintenance: Option<Arc<dyn StoreMaintenance>>,
    queue: Option<Queue>,
    type_id: TypeIdentifier,
    passes: Arc<Vec<PassId>>,
    devices: Arc<Vec<Device>>,
    writes: usize,
}

impl World {
    /// Makes passes and devices. In each busy time, each writer makes this number of calls.
    pub(super) async fn new(opened: &Opened, writes: usize) -> Result<Self, Violation> {
        let recorder = Recorder::new(opened.registrations().clone());
        let (type_id, passes) = new_passes(PASSES)?;
        let devices = (0..DEVICES)
            .map(|_| Device::new())
            .collect::<Result<Vec<_>, _>>()?;
        for (number, device) in devices.iter().enumerate() {
            // The first half of the devices keeps exactly these passes. Writers only repeat some of
            // these registrations, with a new push token.
            for pass in passes.iter().skip(number).step_by(6) {
                recorder
                    .register(&device.id, pass, &device.push_token)
                    .await?;
            }
        }
        Ok(Self {
            recorder,
            maintenance: opened.maintenance().ok().cloned(),
            queue: opened.queue().ok().cloned(),
            type_id,
            passes: Arc::new(passes),
            devices: Arc::new(devices),
            writes,
        })
    }

    /// Runs writers and polling devices until all writers are done. Then every device asks twice
    /// more, and all data are read. If `drops` is true, some of the first calls are dropped.
    pub(super) async fn busy(&self, seed: u64, drops: bool) -> Result<(), Violation> {
        let writing = Arc::new(AtomicUsize::new(WRITERS));
        let mut tasks = JoinSet::new();
        for device in self.devices.iter() {
            let (world, device, writing) = (self.clone(), device.clone(), writing.clone());
            tasks.spawn(async move {
                let World {
                    recorder, type_id, ..
                } = &world;
                let mut tag = None;
                loop {
                    let last_round = writing.load(SeqCst) == 0;
                    poll(recorder, type_id, &device, &mut tag).await?;
                    if last_round {
                        return poll(recorder, type_id, &device, &mut tag).await;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        for writer in 0..WRITERS as u64 {
            let (world, writing) = (self.clone(), writing.clone());
            tasks.spawn(async move {
                let mut random = Random::new(seed ^ (writer << 40));
                let mut result = Ok(());
                for number in 0..world.writes {
                    // The data may be opened again after this. By then, dropped calls should have
                    // ended.
                    let dropped = drops && number < world.writes / 2 && random.below(8) == 0;
                    let polls = random.below(6);
                    let call = world.write(&mut random);
                    if dropped {
                        give_up_after(polls, call).await;
                    } else {
                        result = call.await;
                    }
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
        self.read().await
    }

    /// Reads the states and the devices of all passes.
    pub(super) async fn read(&self) -> Result<(), Violation> {
        for pass in self.passes.iter() {
            self.recorder.pass_state(pass).await?;
            self.recorder
                .devices(Audience::Pass(pass), None, 2 * DEVICES)
                .await?;
        }
        self.recorder
            .devices(Audience::Type(&self.type_id), None, 2 * DEVICES * PASSES)
            .await?;
        Ok(())
    }

    /// Returns the same passes and devices over another store with the same data. Only reads use
    /// the result.
    pub(super) async fn read_over(
        &self,
        store: Arc<dyn RegistrationStore>,
    ) -> Result<(), Violation> {
        let world = Self {
            recorder: self.recorder.over(store),
            ..self.clone()
        };
        for device in self.devices.iter() {
            poll(&world.recorder, &self.type_id, device, &mut None).await?;
        }
        world.read().await
    }

    /// Returns the same world over a store that was opened again. From now on, all calls go to it.
    pub(super) fn moved_to(&self, opened: &Opened) -> Self {
        Self {
            recorder: self.recorder.over(opened.registrations().clone()),
            maintenance: opened.maintenance().ok().cloned(),
            queue: opened.queue().ok().cloned(),
            ..self.clone()
        }
    }

    async fn mark(&self, changed: Changed<'_>, push: bool) -> Result<(), Violation> {
        match &self.queue {
            Some(queue) if push => {
                let marking = queue.mark_and_push(&self.type_id, changed);
                self.recorder
                    .mark_by(&self.type_id, changed, marking)
                    .await?;
            }
            _ => self.recorder.mark(&self.type_id, changed).await?,
        }
        Ok(())
    }

    /// Makes one random call.
    async fn write(&self, random: &mut Random) -> Result<(), Violation> {
        let Self {
            recorder,
            passes,
            devices,
            ..
        } = self;
        let pass = &passes[random.below(passes.len())];
        let half = devices.len() / 2;
        // The first half of the devices never unregisters.
        let device = &devices[half + random.below(half)];
        let push = random.below(4) == 0;
        match random.below(27) {
            0..=5 => {
                let one = slice::from_ref(&pass.serial);
                self.mark(Changed::Passes(one), push).await?;
            }
            6..=7 => {
                let batch: Vec<_> = (0..5)
                    .map(|_| passes[random.below(passes.len())].clone())
                    .collect();
                self.mark(Changed::Passes(&serials(&batch)), push).await?;
            }
            8 => self.mark(Changed::All, push).await?,
            9..=11 => drop(
                recorder
                    .register(&device.id, pass, &device.push_token)
                    .await?,
            ),
            12..=13 => {
                // Any device may change its push token. It registers again for a pass that it had
                // at the start.
                let at = random.below(devices.len());
                recorder
                    .register(&devices[at].id, &passes[at], &new_push_token()?)
                    .await
                    .map(drop)?;
            }
            14..=16 => drop(recorder.unregister(&device.id, pass).await?),
            17..=18 => {
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
            19..=20 => {
                // There are only a few digests, so that several callers publish the same digest.
                let digest = (random.below(8) > 0).then(|| [random.below(3) as u8; 32]);
                let (tokens, serial) = (Vec::new(), pass.serial.clone());
                let content = Content {
                    serial,
                    digest,
                    tokens,
                };
                self.mark(Changed::Contents(&[content]), push).await?;
            }
            21..=22 => {
                let Some(store) = &self.maintenance else {
                    return Ok(());
                };
                let mut batch = Vec::new();
                for _ in 0..1 + random.below(6) {
                    let device = &devices[half + random.below(half)];
                    batch.push(Registration {
                        device: device.id.clone(),
                        push_token: device.push_token.clone(),
                        pass: passes[random.below(passes.len())].clone(),
                    });
                }
                recorder
                    .register_by(&batch, store.register_many(&batch))
                    .await?;
            }
            23 => drop(
                recorder
                    .devices(Audience::Pass(pass), None, 2 * devices.len())
                    .await?,
            ),
            24 => {
                let limit = 2 * devices.len() * passes.len();
                drop(
                    recorder
                        .devices(Audience::Type(&pass.type_id), None, limit)
                        .await?,
                );
            }
            25 => recorder.count_devices(pass, u64::MAX).await.map(drop)?,
            _ => drop(recorder.pass_state(pass).await?),
        }
        Ok(())
    }
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
