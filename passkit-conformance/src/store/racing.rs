//! Cases with many callers at once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use passkit_server::{
    Changed, PassId,
    identifiers::{SerialNumber, TypeIdentifier},
    store::{Audience, Registered, RegistrationStore, UpdateTag},
};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{Device, all, devices_of, has_devices, new_passes, new_push_token, serials},
};

catalogue! {
    "store/parallel-registers-create-once" Must [C10] store parallel_registers_create_once,
        "Registers the same device for the same pass in 24 calls at once, eight times, with known \
         and unknown devices. Reads list and pages.",
        "A phone that repeats its call is registered twice. It gets each push twice, and one \
         unregister is not enough.";
    "store/parallel-register-and-unregister" Must [C10] store parallel_register_and_unregister,
        "Calls register and unregister for one registration at once, 40 times. The answers must \
         fit the result, list and pages must agree, and the push token must be one that was sent.",
        "A phone removes a pass and adds it again at once. For this pass, it then gets lists but \
         no pushes, or pushes but no lists.";
    "store/parallel-marks-move-the-date" Must [C14] store parallel_marks_move_the_date,
        "16 tasks mark three passes. Each task reads date and version before and after each of its \
         marks.",
        "Two versions of a pass have the same date. A phone that has the first version gets a 304 \
         and keeps this version.";
    "store/no-device-goes-stale" Must [C1 C2 C3 C4] store no_device_goes_stale,
        "16 writers change and mark 200 passes in batches, while six devices ask for lists and \
         register for more of the passes. When the writers are done, each device asks twice more.",
        "A phone keeps an old pass, and never gets the new version.";
}

async fn parallel_registers_create_once(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    const AT_ONCE: usize = 24;
    let (type_id, passes) = new_passes(2)?;
    for round in 0..8 {
        let device = Device::new()?;
        if round % 2 == 1 {
            store
                .register(&device.id, &passes[1], &device.push_token)
                .await?;
        }
        let start = Arc::new(Barrier::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (store, start, device, pass) = (
                store.clone(),
                start.clone(),
                device.clone(),
                passes[0].clone(),
            );
            tasks.spawn(async move {
                start.wait().await;
                let registered = store.register(&device.id, &pass, &device.push_token).await;
                registered.map_err(|error| Violation::from(error).under(Rule::C10))
            });
        }
        let results = all(tasks).await?;
        let created = results
            .iter()
            .filter(|one| **one == Registered::Created)
            .count();
        ensure(
            Rule::C10,
            created == 1,
            format!("exactly one Created for {AT_ONCE} equal registrations"),
            || format!("{created}"),
        )?;
        has_devices(store, &passes[0], [&device], Rule::C10).await?;
        let registered = if round % 2 == 1 {
            &passes[..]
        } else {
            &passes[..1]
        };
        device
            .lists_exactly(store, &type_id, registered, Rule::C10)
            .await?;
        // One unregister must be enough after many registers.
        for pass in registered {
            store.unregister(&device.id, pass).await?;
            has_devices(store, pass, [], Rule::C10).await?;
        }
    }
    Ok(())
}

async fn parallel_register_and_unregister(
    store: &Arc<dyn RegistrationStore>,
) -> Result<(), Violation> {
    const AT_ONCE: usize = 6;
    let (type_id, passes) = new_passes(2)?;
    for round in 0..40_usize {
        let (contested, other) = (&passes[0], &passes[1]);
        let mut device = Device::new()?;
        // The rounds differ: the registration may exist at the start, and the device may have
        // another registration.
        let there = round % 2 == 1;
        let has_other = round % 4 >= 2;
        if there {
            store
                .register(&device.id, contested, &device.push_token)
                .await?;
        }
        if has_other {
            store
                .register(&device.id, other, &device.push_token)
                .await?;
        }
        let callers = if round % 3 == 0 { 2 } else { AT_ONCE };
        let start = Arc::new(Barrier::new(callers));
        let mut tokens = vec![device.push_token.clone()];
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (store, start, id, pass) = (
                store.clone(),
                start.clone(),
                device.id.clone(),
                contested.clone(),
            );
            let token = new_push_token()?;
            if caller % 2 == 0 {
                tokens.push(token.clone());
            }
            tasks.spawn(async move {
                start.wait().await;
                let change = if caller % 2 == 0 {
                    i32::from(store.register(&id, &pass, &token).await? == Registered::Created)
                } else {
                    -i32::from(store.unregister(&id, &pass).await?)
                };
                Ok::<_, Violation>(change)
            });
        }
        let changes: i32 = all(tasks)
            .await
            .map_err(|violation| violation.under(Rule::C10))?
            .iter()
            .sum();
        let listed = device.list(store, &type_id, None).await?.serials;
        let found = devices_of(store, Audience::Pass(contested), 10, 10).await?;
        let now = listed.contains(&contested.serial);
        ensure(
            Rule::C10,
            found.iter().any(|one| one.device == device.id) == now
                && listed.contains(&other.serial) == has_other,
            "list and pages to agree after parallel register and unregister",
            || format!("{} listed, {} in pages", listed.len(), found.len()),
        )?;
        ensure(
            Rule::C10,
            i32::from(there) + changes == i32::from(now),
            "answers of register and unregister that fit the result",
            || {
                format!(
                    "{} registrations at the start, {changes:+} according to the answers, {} at \
                     the end",
                    i32::from(there),
                    i32::from(now)
                )
            },
        )?;
        let mut shown = found;
        shown.extend(devices_of(store, Audience::Pass(other), 10, 10).await?);
        if let Some(one) = shown.iter().find(|one| one.device == device.id) {
            let one_token = shown.iter().all(|other| other.push_token == one.push_token);
            ensure(
                Rule::C10,
                one_token && tokens.contains(&one.push_token),
                "one of the push tokens that were sent",
                || "another push token, or several".into(),
            )?;
            device.push_token = one.push_token.clone();
        }
        for pass in &passes {
            store.unregister(&device.id, pass).await?;
            has_devices(store, pass, [], Rule::C10).await?;
        }
    }
    Ok(())
}

async fn parallel_marks_move_the_date(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let mut tasks = JoinSet::new();
    for caller in 0..16 {
        let (store, type_id, passes) = (store.clone(), type_id.clone(), passes.clone());
        tasks.spawn(async move {
            for round in 0..12 {
                let pass = &passes[(caller + round) % 3];
                let before = store.pass_state(pass).await?;
                if (caller, round) == (0, 6) {
                    store.mark(&type_id, Changed::All).await?;
                } else {
                    store
                        .mark(
                            &type_id,
                            Changed::Passes(std::slice::from_ref(&pass.serial)),
                        )
                        .await?;
                }
                let after = store.pass_state(pass).await?;
                ensure(
                    Rule::C14,
                    after.last_modified > before.last_modified && after.version > before.version,
                    format!("a date and version later than {before:?} after a mark in parallel with others"),
                    || format!("{after:?}"),
                )?;
            }
            Ok::<_, Violation>(())
        });
    }
    all(tasks).await.map(drop)
}

const PASSES: usize = 200;
const WRITERS: usize = 16;
const BATCHES: usize = 40;

/// The passes, with the version number of the newest content of each.
struct Content {
    type_id: TypeIdentifier,
    passes: Vec<PassId>,
    numbers: BTreeMap<SerialNumber, AtomicU64>,
    writing: AtomicUsize,
}

impl Content {
    fn of(&self, serial: &SerialNumber) -> Result<u64, Violation> {
        self.numbers
            .get(serial)
            .map(|number| number.load(SeqCst))
            .ok_or_else(|| {
                Violation::new(
                    Rule::CHANGES_SINCE,
                    "only passes that are registered on the device",
                    "a pass that was never registered",
                )
            })
    }
}

/// A device that asks for lists as after pushes. It has its tag, and the version of each of its
/// passes.
struct Poller {
    device: Device,
    seen: BTreeMap<SerialNumber, u64>,
    tag: Option<UpdateTag>,
}

impl Poller {
    /// Asks for one list, and fetches the listed passes. Returns the number of listed passes.
    async fn poll(
        &mut self,
        store: &Arc<dyn RegistrationStore>,
        content: &Content,
    ) -> Result<usize, Violation> {
        let listed = self.device.list(store, &content.type_id, self.tag).await?;
        if listed.serials.is_empty() {
            return Ok(0);
        }
        if let Some(last) = self.tag {
            let forward = listed.tag.type_version >= last.type_version
                && listed.tag.device_version >= last.device_version;
            ensure(
                Rule::C4,
                forward,
                format!("a tag that is not before {last}"),
                || listed.tag.to_string(),
            )?;
        }
        self.tag = Some(listed.tag);
        for serial in &listed.serials {
            self.seen.insert(serial.clone(), content.of(serial)?);
        }
        Ok(listed.serials.len())
    }

    /// Fetches a pass, then registers for it. If the pass changed in between, the next list must
    /// name it (C3).
    async fn add(
        &mut self,
        store: &Arc<dyn RegistrationStore>,
        content: &Content,
        pass: &PassId,
    ) -> Result<(), Violation> {
        self.seen
            .insert(pass.serial.clone(), content.of(&pass.serial)?);
        tokio::task::yield_now().await;
        store
            .register(&self.device.id, pass, &self.device.push_token)
            .await?;
        Ok(())
    }
}

async fn no_device_goes_stale(store: &Arc<dyn RegistrationStore>) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(PASSES)?;
    let numbers = passes
        .iter()
        .map(|pass| (pass.serial.clone(), AtomicU64::new(0)))
        .collect();
    let content = Arc::new(Content {
        type_id,
        passes,
        numbers,
        writing: AtomicUsize::new(WRITERS),
    });

    let mut devices = JoinSet::new();
    for number in 0..6 {
        let mut poller = Poller {
            device: Device::new()?,
            seen: BTreeMap::new(),
            tag: None,
        };
        // Some devices have all passes from the start. The other devices add passes while they ask
        // for lists.
        let registered = if number < 3 { PASSES } else { 5 };
        for pass in &content.passes[..registered] {
            poller.add(store, &content, pass).await?;
        }
        let (store, content) = (store.clone(), content.clone());
        devices.spawn(async move {
            let mut to_add = content.passes[registered..].iter();
            loop {
                let last_round = content.writing.load(SeqCst) == 0 && to_add.len() == 0;
                poller.poll(&store, &content).await?;
                if last_round {
                    break;
                }
                if let Some(pass) = to_add.next() {
                    poller.add(&store, &content, pass).await?;
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, Violation>(poller)
        });
    }

    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, content) = (store.clone(), content.clone());
        writers.spawn(async move {
            let result = write(&store, &content, writer).await;
            content.writing.fetch_sub(1, SeqCst);
            result
        });
    }
    all(writers).await?;

    for mut poller in all(devices).await? {
        let stale: Vec<_> = poller
            .seen
            .iter()
            .filter(|(serial, seen)| content.of(serial).is_ok_and(|newest| newest != **seen))
            .collect();
        ensure(
            Rule::C1,
            stale.is_empty(),
            "no device with old passes after all writers are done",
            || {
                format!(
                    "{} of {} passes are old, and no list will name them",
                    stale.len(),
                    poller.seen.len()
                )
            },
        )?;
        let again = poller.poll(store, &content).await?;
        ensure(
            Rule::C2,
            again == 0,
            "nothing listed after all writers are done",
            || format!("{again} passes"),
        )?;
    }
    Ok(())
}

/// Changes and marks passes, in batches of one to nine. One of the writers sometimes marks the
/// entire type.
async fn write(
    store: &Arc<dyn RegistrationStore>,
    content: &Content,
    writer: usize,
) -> Result<(), Violation> {
    for batch in 0..BATCHES {
        let size = 1 + (writer + batch) % 9;
        let first = (writer * 37 + batch * 61) % PASSES;
        let chosen: Vec<_> = (0..size)
            .map(|n| content.passes[(first + n * 13) % PASSES].clone())
            .collect();
        let whole_type = writer == 0 && batch % 20 == 7;
        let changed = if whole_type { &content.passes } else { &chosen };
        // The content changes first, then the pass is marked.
        for pass in changed {
            if let Some(number) = content.numbers.get(&pass.serial) {
                number.fetch_add(1, SeqCst);
            }
        }
        if whole_type {
            store.mark(&content.type_id, Changed::All).await?;
        } else {
            store
                .mark(&content.type_id, Changed::Passes(&serials(&chosen)))
                .await?;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
