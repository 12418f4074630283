//! What may be asked of the writer, and what each operation changes in a group that becomes durable as one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use passkit_server::{
    DeviceIdentifier, HeldPush, Owed, PassId, PassState, PushToken, Reached, Registered, Registration,
    SerialNumber, TypeIdentifier,
    clock::{self, next_last_modified, next_version},
};
use sled::IVec;
use tokio::sync::oneshot;

use crate::{
    database::Database,
    error::Failure,
    keys::{self, DebtRow, DeviceRow, FEW_BYTES, Few, Held, QueueRow, TypeRow},
    settled::{Change, Changes, Shared, scan_changed},
};

/// How many operations share a sync at most.
pub(crate) const OPERATIONS: usize = 512;

/// After how many changed rows a group is made durable. It bounds how long readers wait for a batch to be applied,
/// and how far the engine's log can run ahead of the last sync. A longer mark is made in steps of this size, and what
/// registers many at once asks for half as many each time.
pub(crate) const ROWS: usize = 1024;

pub(crate) type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// What the writing thread is asked to do, and whom to tell when it is durable.
#[derive(Debug)]
pub(crate) enum Operation {
    Register {
        device: DeviceIdentifier,
        pass: PassId,
        push_token: PushToken,
        answer: Answer<Registered>,
    },
    /// At most about half as many as there are [`ROWS`], so that they share a batch. Answers how many are new.
    RegisterMany {
        registrations: Vec<Registration>,
        answer: Answer<u64>,
    },
    Unregister {
        device: DeviceIdentifier,
        pass: PassId,
        answer: Answer<bool>,
    },
    Mark {
        type_id: TypeIdentifier,
        serials: Vec<SerialNumber>,
        owe: bool,
        answer: Answer<()>,
    },
    MarkAll {
        type_id: TypeIdentifier,
        owe: bool,
        answer: Answer<()>,
    },
    /// The time is in microseconds since the Unix epoch.
    Forget {
        device: DeviceIdentifier,
        unregistered_at: u64,
        answer: Answer<bool>,
    },
    /// Few enough to share a batch.
    Advance {
        type_id: TypeIdentifier,
        reached: Vec<(Owed, Reached)>,
        answer: Answer<()>,
    },
    /// What is held for each device from now on, or nothing; few enough to share a batch.
    Hold {
        type_id: TypeIdentifier,
        pushes: Vec<(DeviceIdentifier, Option<HeldPush>)>,
        answer: Answer<()>,
    },
    /// A reader met a closed database.
    Reopen,
}

impl Operation {
    pub(crate) fn refuse(self, failure: Failure) {
        fn tell<T>(answer: Answer<T>, failure: Failure) {
            // The caller may have gone.
            let _gone = answer.send(Err(failure));
        }
        match self {
            Self::Register { answer, .. } => tell(answer, failure),
            Self::RegisterMany { answer, .. } => tell(answer, failure),
            Self::Unregister { answer, .. } | Self::Forget { answer, .. } => tell(answer, failure),
            Self::Mark { answer, .. } | Self::MarkAll { answer, .. } => tell(answer, failure),
            Self::Advance { answer, .. } | Self::Hold { answer, .. } => tell(answer, failure),
            Self::Reopen => {}
        }
    }
}

/// What to say when the group is durable, or has failed.
type Outcome = Box<dyn FnOnce(Result<(), Failure>)>;

/// Operations that become durable together. Each sees what those before it did.
pub(crate) struct Group<'w> {
    shared: &'w Shared,
    database: &'w Database,
    changes: Changes,
    types: HashMap<TypeIdentifier, TypeRow>,
    outcomes: Vec<Outcome>,
    operations: usize,
}

/// Every operation reads all that it needs before it changes the first row, so that one which fails changes none.
impl<'w> Group<'w> {
    pub(crate) fn new(shared: &'w Shared, database: &'w Database) -> Self {
        Self {
            shared,
            database,
            changes: Changes::new(),
            types: HashMap::new(),
            outcomes: Vec::new(),
            operations: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.operations >= OPERATIONS || self.changes.len() >= ROWS
    }

    /// Does the operation, or as much of it as there is room for; returns the rest.
    pub(crate) fn add(&mut self, operation: Operation) -> Option<Operation> {
        self.operations += 1;
        match operation {
            Operation::Register { device, pass, push_token, answer } => {
                let done = self.register(&device, &pass, &push_token);
                self.answer(answer, done);
            }
            Operation::RegisterMany { registrations, answer } => {
                let done = self.register_many(&registrations);
                self.answer(answer, done);
            }
            Operation::Unregister { device, pass, answer } => {
                let done = self.unregister(&device, &pass);
                self.answer(answer, done);
            }
            Operation::Mark { type_id, mut serials, owe, answer } => {
                // One that is owed changes three rows.
                let room = ROWS.saturating_sub(self.changes.len()) / if owe { 3 } else { 1 };
                let room = room.max(1);
                let rest = if serials.len() > room { serials.split_off(room) } else { Vec::new() };
                let done = self.mark(&type_id, &serials, owe);
                if done.is_ok() && !rest.is_empty() {
                    return Some(Operation::Mark { type_id, serials: rest, owe, answer });
                }
                self.answer(answer, done);
            }
            Operation::MarkAll { type_id, owe, answer } => {
                let done = self.mark_all(&type_id, owe);
                self.answer(answer, done);
            }
            Operation::Forget { device, unregistered_at, answer } => {
                let done = self.forget(&device, unregistered_at);
                self.answer(answer, done);
            }
            Operation::Advance { type_id, reached, answer } => {
                let done = reached.iter().try_for_each(|(owed, to)| self.advance(&type_id, owed, to));
                self.answer(answer, done);
            }
            Operation::Hold { type_id, pushes, answer } => {
                let mut pushes = pushes.iter();
                let done = pushes.try_for_each(|(device, push)| self.hold(&type_id, device, push.as_ref()));
                self.answer(answer, done);
            }
            Operation::Reopen => {}
        }
        None
    }

    fn answer<T: Send + 'static>(&mut self, answer: Answer<T>, done: Result<T, Failure>) {
        self.outcomes.push(Box::new(move |durable| {
            // The caller may have gone.
            let _gone = answer.send(durable.and(done));
        }));
    }

    /// A row as it is after the operations so far.
    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Failure> {
        match self.changes.get(key) {
            Some(change) => Ok(change.after.as_deref().map(IVec::from)),
            None => self.database.get(key),
        }
    }

    /// Changes a row that held `before`.
    fn put(&mut self, key: Vec<u8>, before: Option<IVec>, after: Option<Vec<u8>>) {
        self.changes.entry(key).or_insert(Change { before, after: None }).after = after;
    }

    fn type_row(&self, type_id: &TypeIdentifier) -> TypeRow {
        self.types.get(type_id).copied().unwrap_or_else(|| self.shared.state().type_row(type_id))
    }

    fn put_type(&mut self, type_id: &TypeIdentifier, row: TypeRow) {
        // Nobody reads this row while the database is open, so what it held does not matter.
        self.put(keys::type_row(type_id), None, Some(row.encode()));
        self.types.insert(type_id.clone(), row);
    }

    fn register(
        &mut self,
        device: &DeviceIdentifier,
        pass: &PassId,
        push_token: &PushToken,
    ) -> Result<Registered, Failure> {
        let device_key = keys::device(device);
        let device_before = self.get(&device_key)?;
        let row = device_before.as_deref().map(DeviceRow::decode).transpose()?;
        let version = next_version(row.map_or(0, |row| row.version), clock::now_micros());

        let mut few = Vec::new();
        let (held, existed) = match row.map_or(Held::Few(Few::default()), |row| row.held) {
            Held::Few(now) => {
                let (others, existed) = now.without(pass)?;
                few = others;
                Few::add(&mut few, pass, version);
                if few.len() <= FEW_BYTES {
                    (Held::Few(Few::new(&few)), existed)
                } else {
                    (Held::Many(self.spread(device, Few::new(&few))?), existed)
                }
            }
            Held::Many(count) => {
                let key = keys::registration(device, pass);
                let before = self.get(&key)?;
                let existed = before.is_some();
                self.put(key, before, Some(keys::encode_registration(version)));
                (Held::Many(count.saturating_add(u32::from(!existed))), existed)
            }
        };
        let after = DeviceRow { version, push_token: push_token.as_str().as_bytes(), held }.encode();
        drop(few);
        self.put(device_key, device_before, Some(after));
        if existed {
            return Ok(Registered::Existing);
        }
        self.put(keys::device_of(pass, device), None, Some(Vec::new()));
        Ok(Registered::Created)
    }

    fn register_many(&mut self, registrations: &[Registration]) -> Result<u64, Failure> {
        let mut created = 0;
        for Registration { device, push_token, pass } in registrations {
            // One that fails leaves those before it, each of them whole.
            created += u64::from(self.register(device, pass, push_token)? == Registered::Created);
        }
        Ok(created)
    }

    /// Gives each registration of the device its own row, and returns how many there are.
    fn spread(&mut self, device: &DeviceIdentifier, few: Few<'_>) -> Result<u32, Failure> {
        let prefix = keys::registrations(device);
        let mut rows = Vec::new();
        for one in few.iter() {
            let (type_id, serial, version) = one?;
            rows.push(([&prefix[..], type_id, &[0], serial].concat(), keys::encode_registration(version)));
        }
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        for (key, row) in rows {
            self.put(key, None, Some(row));
        }
        Ok(count)
    }

    fn unregister(&mut self, device: &DeviceIdentifier, pass: &PassId) -> Result<bool, Failure> {
        let device_key = keys::device(device);
        let Some(device_before) = self.get(&device_key)? else { return Ok(false) };
        let row = DeviceRow::decode(&device_before)?;
        let few;
        let (held, is_last) = match row.held {
            Held::Few(now) => {
                let (others, existed) = now.without(pass)?;
                if !existed {
                    return Ok(false);
                }
                few = others;
                (Held::Few(Few::new(&few)), few.is_empty())
            }
            Held::Many(count) => {
                let key = keys::registration(device, pass);
                let Some(before) = self.get(&key)? else { return Ok(false) };
                self.put(key, Some(before), None);
                (Held::Many(count.saturating_sub(1)), count <= 1)
            }
        };
        let after = (!is_last).then(|| DeviceRow { held, ..row }.encode());
        self.put(device_key, Some(device_before.clone()), after);
        self.put(keys::device_of(pass, device), Some(IVec::default()), None);
        Ok(true)
    }

    fn mark(&mut self, type_id: &TypeIdentifier, serials: &[SerialNumber], owe: bool) -> Result<(), Failure> {
        let mut clock = self.type_row(type_id);
        let mut seen = HashSet::with_capacity(serials.len());
        let mut passes = Vec::with_capacity(serials.len());
        let mut debts = Vec::new();
        for serial in serials.iter().filter(|serial| seen.insert(*serial)) {
            let key = keys::pass(type_id, serial);
            let before = self.get(&key)?;
            let own = before.as_deref().map(keys::decode_pass).transpose()?;
            passes.push((key, before, own.map_or(0, |own| own.last_modified)));
            if owe {
                let owed = Owed::Pass(serial.clone());
                debts.push((self.debt(type_id, &owed)?, owed));
            }
        }
        let queue = if owe { Some(self.queue(type_id)?) } else { None };

        let now = clock::now_micros();
        clock.version = next_version(clock.version, now);
        for (key, before, own_date) in passes {
            let last_modified = next_last_modified(own_date.max(clock.floor.last_modified), now);
            clock.latest_date = clock.latest_date.max(last_modified);
            let state = PassState { version: clock.version, last_modified };
            self.put(key, before, Some(keys::encode_pass(state)));
        }
        self.put_type(type_id, clock);
        if let Some(queue) = queue {
            self.owe(type_id, debts, queue, clock.version);
        }
        Ok(())
    }

    fn mark_all(&mut self, type_id: &TypeIdentifier, owe: bool) -> Result<(), Failure> {
        let debt = if owe { Some((self.debt(type_id, &Owed::Type)?, self.queue(type_id)?)) } else { None };
        let now = clock::now_micros();
        let mut clock = self.type_row(type_id);
        clock.version = next_version(clock.version, now);
        clock.latest_date = next_last_modified(clock.latest_date, now);
        clock.floor = PassState { version: clock.version, last_modified: clock.latest_date };
        self.put_type(type_id, clock);
        if let Some((debt, queue)) = debt {
            self.owe(type_id, vec![(debt, Owed::Type)], queue, clock.version);
        }
        Ok(())
    }

    fn debt(&self, type_id: &TypeIdentifier, owed: &Owed) -> Result<Option<DebtRow>, Failure> {
        self.get(&keys::debt(type_id, owed))?.as_deref().map(DebtRow::decode).transpose()
    }

    fn put_debt(
        &mut self,
        type_id: &TypeIdentifier,
        owed: &Owed,
        before: Option<&DebtRow>,
        after: Option<&DebtRow>,
    ) {
        let row = |row: &DebtRow| row.encode();
        self.put(keys::debt(type_id, owed), before.map(row).map(IVec::from), after.map(row));
        let (old, new) = (before.map(|row| row.since), after.map(|row| row.since));
        if old != new {
            let place = |since| keys::debt_by_age(type_id, since, owed);
            if let Some(since) = old {
                self.put(place(since), Some(IVec::default()), None);
            }
            if let Some(since) = new {
                self.put(place(since), None, Some(Vec::new()));
            }
        }
    }

    /// How much is owed and held for the type.
    fn queue(&self, type_id: &TypeIdentifier) -> Result<QueueRow, Failure> {
        let row = self.get(&keys::queue(type_id))?;
        Ok(row.as_deref().map(QueueRow::decode).transpose()?.unwrap_or_default())
    }

    fn put_queue(&mut self, type_id: &TypeIdentifier, before: QueueRow, after: QueueRow) {
        let row = |row: QueueRow| (row != QueueRow::default()).then(|| row.encode());
        self.put(keys::queue(type_id), row(before).map(IVec::from), row(after));
    }

    fn owe(
        &mut self,
        type_id: &TypeIdentifier,
        debts: Vec<(Option<DebtRow>, Owed)>,
        before: QueueRow,
        version: u64,
    ) {
        let mut queue = before;
        for (debt, owed) in debts {
            let after = match debt.clone() {
                Some(debt) => DebtRow { version, ..debt },
                None => {
                    queue.debts += 1;
                    DebtRow { since: version, version, reached: None }
                }
            };
            self.put_debt(type_id, &owed, debt.as_ref(), Some(&after));
        }
        self.put_queue(type_id, before, queue);
    }

    fn advance(&mut self, type_id: &TypeIdentifier, owed: &Owed, reached: &Reached) -> Result<(), Failure> {
        let Some(before) = self.debt(type_id, owed)? else { return Ok(()) };
        if reached.next.is_some() {
            let after = DebtRow { reached: Some(reached.clone()), ..before.clone() };
            self.put_debt(type_id, owed, Some(&before), Some(&after));
        } else if before.version == reached.version {
            let queue = self.queue(type_id)?;
            let debts = queue.debts.saturating_sub(1);
            self.put_debt(type_id, owed, Some(&before), None);
            self.put_queue(type_id, queue, QueueRow { debts, ..queue });
        } else {
            let after = DebtRow { since: before.version, version: before.version, reached: None };
            self.put_debt(type_id, owed, Some(&before), Some(&after));
        }
        Ok(())
    }

    fn hold(
        &mut self,
        type_id: &TypeIdentifier,
        device: &DeviceIdentifier,
        push: Option<&HeldPush>,
    ) -> Result<(), Failure> {
        let key = keys::held(type_id, device);
        let before = self.get(&key)?;
        let old = before.as_deref().map(|row| keys::decode_held(device.clone(), row)).transpose()?;
        let queue = self.queue(type_id)?;

        let held = queue.held + u64::from(push.is_some());
        let held = held.saturating_sub(u64::from(old.is_some()));
        self.put_queue(type_id, queue, QueueRow { held, ..queue });
        self.put(key, before, push.map(keys::encode_held));
        let due = |push: &HeldPush| push.due.map(clock::micros);
        let (old, new) = (old.as_ref().and_then(due), push.and_then(due));
        if old != new {
            let place = |due| keys::held_at(type_id, due, device);
            if let Some(due) = old {
                self.put(place(due), Some(IVec::default()), None);
            }
            if let Some(due) = new {
                self.put(place(due), None, Some(Vec::new()));
            }
        }
        Ok(())
    }

    fn forget(&mut self, device: &DeviceIdentifier, unregistered_at: u64) -> Result<bool, Failure> {
        let device_key = keys::device(device);
        let Some(device_before) = self.get(&device_key)? else { return Ok(false) };
        let row = DeviceRow::decode(&device_before)?;
        if row.version > unregistered_at {
            return Ok(false);
        }
        let mut passes = Vec::new();
        let mut registrations = Vec::new();
        match row.held {
            Held::Few(few) => {
                for one in few.iter() {
                    let (type_id, serial, _) = one?;
                    passes.push(PassId {
                        type_id: keys::read_type(type_id)?,
                        serial: keys::read_serial(serial)?,
                    });
                }
            }
            Held::Many(_) => {
                let prefix = keys::registrations(device);
                for (key, before) in scan_changed(self.database, &prefix, &self.changes)? {
                    passes.push(keys::read_pass(&key[prefix.len()..])?);
                    registrations.push((key, before));
                }
            }
        }

        self.put(device_key, Some(device_before.clone()), None);
        for (key, before) in registrations {
            self.put(key, Some(before.into()), None);
        }
        for pass in passes {
            self.put(keys::device_of(&pass, device), Some(IVec::default()), None);
        }
        Ok(true)
    }

    /// Makes everything durable, and only then shows it and answers.
    pub(crate) fn commit(mut self) -> Result<(), Failure> {
        // One operation may have undone another.
        self.changes.retain(|_, change| change.before.as_deref() != change.after.as_deref());
        let result = if self.changes.is_empty() { Ok(()) } else { self.write() };
        for outcome in self.outcomes {
            outcome(result.clone());
        }
        result
    }

    fn write(&mut self) -> Result<(), Failure> {
        let mut batch = sled::Batch::default();
        for (key, change) in &self.changes {
            match &change.after {
                Some(after) => batch.insert(&key[..], &after[..]),
                None => batch.remove(&key[..]),
            }
        }
        self.shared.applying(Arc::new(std::mem::take(&mut self.changes)));
        self.database.apply(batch)?;
        self.database.sync()?;
        self.shared.settled(std::mem::take(&mut self.types));
        Ok(())
    }
}
