//! Reading: what the questions mean, and the threads that answer them.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use passkit_server::{
    Changes, DeviceIdentifier, DevicePage, PageCursor, PassId, PassState, RegisteredDevice, SerialNumber,
    TypeIdentifier, UpdateTag,
};
use tokio::sync::oneshot;

use crate::{
    error::Failure,
    keys::{self, DeviceRow, Held, TypeRow},
    settled::{Shared, View},
};

/// What [`RegistrationStore::updated_since`](passkit_server::RegistrationStore::updated_since) promises, over rows
/// of which each is durable but no two need be of one moment.
///
/// The order makes it right: the type's clock `c` first, then the device's clock `d`, then registrations and passes.
/// The answer carries the tag (c, d), and what is read after a clock is at least as new as the clock. So
/// * a pass marked up to `c` shows its version, and a registration made up to `d` is there: nothing that the tag
///   covers is missed;
/// * what is newer than `c` and `d` may show or not. If it shows it is reported now and again with the next tag;
///   otherwise the next tag brings it;
/// * passes count only if `c` is past the given tag, registrations only if `d` is: so an answer with serials carries
///   another tag than the one it was asked with, and newer marks that happen to be seen wait for their clock.
pub(crate) fn updated_since(
    view: &View<'_>,
    device: &DeviceIdentifier,
    type_id: &TypeIdentifier,
    since: Option<UpdateTag>,
) -> Result<Changes, Failure> {
    let clock = view.type_row(type_id)?;
    let Some(row) = view.get(&keys::device(device))? else {
        let tag = UpdateTag { type_version: clock.version, device_version: 0 };
        return Ok(Changes { serials: Vec::new(), tag });
    };
    let row = DeviceRow::decode(&row)?;
    let tag = UpdateTag { type_version: clock.version, device_version: row.version };
    let since = since.and_then(|since| since.unless_ahead_of(tag));
    let mut serials = Vec::new();
    if since == Some(tag) {
        return Ok(Changes { serials, tag });
    }

    let mut consider = |serial: &[u8], registered: u64| -> Result<(), Failure> {
        let serial = keys::read_serial(serial)?;
        if is_changed(view, type_id, &serial, registered, &clock, tag, since)? {
            serials.push(serial);
        }
        Ok(())
    };
    match row.held {
        Held::Few(few) => {
            for one in few.iter() {
                let (of_type, serial, registered) = one?;
                if of_type == type_id.as_str().as_bytes() {
                    consider(serial, registered)?;
                }
            }
        }
        Held::Many(_) => {
            let prefix = keys::registrations_of_type(device, type_id);
            for (key, value) in view.scan(&prefix, None, usize::MAX)?.rows {
                consider(&key[prefix.len()..], keys::decode_registration(&value)?)?;
            }
        }
    }
    Ok(Changes { serials, tag })
}

fn is_changed(
    view: &View<'_>,
    type_id: &TypeIdentifier,
    serial: &SerialNumber,
    registered: u64,
    clock: &TypeRow,
    tag: UpdateTag,
    since: Option<UpdateTag>,
) -> Result<bool, Failure> {
    let Some(since) = since else { return Ok(true) };
    if tag.device_version > since.device_version && registered > since.device_version {
        return Ok(true);
    }
    if tag.type_version == since.type_version {
        return Ok(false);
    }
    if clock.floor.version > since.type_version {
        return Ok(true);
    }
    let own = view.get(&keys::pass(type_id, serial))?;
    let own = own.map(|row| keys::decode_pass(&row)).transpose()?;
    Ok(own.is_some_and(|own| own.version > since.type_version))
}

pub(crate) fn pass_state(view: &View<'_>, pass: &PassId) -> Result<PassState, Failure> {
    let floor = view.type_row(&pass.type_id)?.floor;
    let own = view.get(&keys::pass(&pass.type_id, &pass.serial))?;
    let own = own.map(|row| keys::decode_pass(&row)).transpose()?;
    Ok(own.map_or(floor, |own| PassState {
        version: own.version.max(floor.version),
        last_modified: own.last_modified.max(floor.last_modified),
    }))
}

/// A page ends with a device, and the next begins behind it: one that stays registered is in its place whatever
/// comes and goes around it.
pub(crate) fn devices_of(
    view: &View<'_>,
    pass: &PassId,
    after: Option<&PageCursor>,
    limit: usize,
) -> Result<DevicePage, Failure> {
    let after = after.and_then(|cursor| DeviceIdentifier::new(cursor.as_str()).ok());
    let after = after.map(|device| keys::device_of(pass, &device));
    let prefix = keys::devices_of(pass);
    let found = view.scan(&prefix, after.as_deref(), limit.max(1))?;
    let mut devices = Vec::with_capacity(found.rows.len());
    for (key, _) in &found.rows {
        let device = keys::read_device(&key[prefix.len()..])?;
        // A device may have gone since the scan.
        if let Some(row) = view.get(&keys::device(&device))? {
            devices.push(RegisteredDevice { push_token: DeviceRow::decode(&row)?.push_token()?, device });
        }
    }
    let next = found.more_after.map(|key| keys::read_device(&key[prefix.len()..])).transpose()?;
    Ok(DevicePage { devices, next: next.map(|device| PageCursor::new(device.as_str())) })
}

type Job = Box<dyn FnOnce(&Shared) + Send>;

/// How many questions a thread takes at once: enough to make waking it cheap, few enough to share out.
const AT_ONCE: usize = 16;

/// The threads that read, and what waits for them.
#[derive(Debug)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    something_new: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    sleeping: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.lock().jobs.len()).finish_non_exhaustive()
    }
}

impl Readers {
    pub(crate) fn start(shared: &Arc<Shared>, threads: usize) -> io::Result<Self> {
        let mut readers = Self { shared: Arc::clone(shared), queue: Arc::default(), threads: Vec::new() };
        for _ in 0..threads {
            let (queue, shared) = (Arc::clone(&readers.queue), Arc::clone(shared));
            let thread = thread::Builder::new()
                .name("passkit-sled-read".into())
                .spawn(move || queue.work_off(&shared))?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Asks `question` of the rows in memory, and if the answer is not there has a thread ask the disk, unless nobody
    /// waits for it any more when its turn comes.
    pub(crate) async fn ask<T, F>(&self, question: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(&View<'_>) -> Result<T, Failure> + Send + 'static,
    {
        match question(&self.shared.view_in_memory()) {
            Err(failure) if failure.on_disk => {}
            known => return known,
        }
        let (answer, answered) = oneshot::channel();
        self.queue.push(Box::new(move |shared| {
            if !answer.is_closed() {
                let _gone = answer.send(shared.view().and_then(|view| question(&view)));
            }
        }));
        answered.await.unwrap_or_else(|_| Err(Failure::stopped()))
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        let wake = waiting.sleeping > 0;
        drop(waiting);
        if wake {
            self.something_new.notify_one();
        }
    }

    /// Until the end, and then until nothing waits.
    fn work_off(&self, shared: &Shared) {
        let mut taken = Vec::with_capacity(AT_ONCE);
        loop {
            let mut waiting = self.lock();
            while waiting.jobs.is_empty() {
                if waiting.closed {
                    return;
                }
                waiting.sleeping += 1;
                waiting = self.something_new.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                waiting.sleeping -= 1;
                // Under load the threads that ask have more at hand, and one turn for all costs far less than one
                // each; otherwise nobody wants the processor, and it comes straight back.
                drop(waiting);
                thread::yield_now();
                waiting = self.lock();
            }
            let share = waiting.jobs.len().div_ceil(2).min(AT_ONCE);
            taken.extend(waiting.jobs.drain(..share));
            drop(waiting);
            for job in taken.drain(..) {
                // The asker learns of a panic from the answer that never comes.
                if catch_unwind(AssertUnwindSafe(|| job(shared))).is_err() {
                    tracing::error!("the storage engine failed in the middle of reading");
                }
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.something_new.notify_all();
        for thread in self.threads.drain(..) {
            // It catches panics; were one to escape, there is nobody left to tell.
            let _ended = thread.join();
        }
    }
}
