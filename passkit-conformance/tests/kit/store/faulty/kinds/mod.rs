//! Kinds of faults that many calls can have. Each faulty store has one fault, in one kind of call.

mod coordination;
mod maintenance;
mod queue;
mod registrations;

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use passkit_conformance::store::TestStore;
use passkit_server::{
    Changed, PassId, PassState,
    delivery::{DeliveryLog, Record, Subject},
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::{
        Audience, Changes, Content, Coordination, MemoryStore, Page, PageCursor, Published,
        Registered, RegisteredDevice, RegistrationStore, StoreError, StoreErrorKind, UpdateTag,
        clock,
    },
};
use tokio::task::yield_now;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Register,
    Unregister,
    List,
    State,
    Mark,
    MarkAll,
    Publish,
    Published,
    Devices,
    DevicesOfType,
    Count,
    Forget,
    RegisterMany,
    Registrations,
    PublishedPasses,
    ForgetPass,
    Stats,
    Push,
    PushAll,
    PushContents,
    Backlog,
    Pending,
    Progress,
    /// `record_progress` to the end.
    Finish,
    Defer,
    Undefer,
    Deferred,
    Claim,
    Release,
    Note,
    ReplaceNote,
    RemoveNote,
}

/// A text that a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Type,
    Serial,
    Device,
    PushToken,
    DeferredToken,
    DeferredDevice,
    Scope,
    Cursor,
    Claim,
    Owner,
    NoteName,
    Note,
}

/// How a store compares texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folding {
    Case,
    AsciiCase,
    /// Letters with accents are equal to letters with combining accents.
    NormalForm,
    Accents,
    Width,
    TrailingSpace,
    Invisible,
    Ligatures,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Prefix,
    Like,
    Glob,
}

/// Two names that are joined to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    TypeSerial,
    SerialType,
    DeviceType,
    TypeDevice,
    DeviceSerial,
    SerialDevice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Uses only the first items of a batch.
    KeepsTheFirst(Call, usize),
    /// Fails if a batch has more items.
    Refuses(Call, usize),
    /// Works in chunks of this size, and loses the rest.
    LosesTheRest(Call, usize),
    /// Advances the clock first, and then writes chunks of this size.
    ShowsTheTagFirst(usize),
    /// Fails if an item occurs twice in a batch.
    RefusesTwice(Call),
    /// Ignores an item that was already in the batch.
    IgnoresTheSecond(Call),
    /// Lists or pages end after this many items.
    EndsAt(Call, usize),
    /// Finds names that match a pattern, not only equal names.
    Matches(Call, Field, Pattern),
    Joins(Pair, &'static str),
    Cuts(Field, usize),
    Folds(Field, Folding),
    /// The last call of this kind is lost when the data are opened again.
    Forgets(Call),
    /// The clocks go back when the data are opened again.
    ClocksGoBack,
    /// Claims come back when the data are opened again.
    ClaimsComeBack,
    /// Fails if another call of this kind is running.
    Busy(Call),
    /// Reads the registrations of a device, and writes them back later.
    WritesBack(Call),
    /// Reads when a device last registered, and removes the device later.
    ForgetChecksFirst,
    /// A mark of a type does nothing if another mark is made at the same time.
    MarkAllLosesRaces,
    /// Reads the deferred pushes, and writes them back later.
    DeferWritesBack,
    /// Reads the pending changes, and later finishes all changes that are then pending.
    ProgressChecksFirst,
    /// If a call is dropped, the other calls of the same batch are lost.
    Group(Call),
    ReleaseFinishes,
    ReleaseForgetsProgress,
    ReleaseForgetsDeferred,
    ExpiryFinishes,
    ProgressNeedsTheClaim,
    DeferNeedsTheClaim,
    ForgetRemovesDeferred,
    UnregisterRemovesDeferred,
    ForgetFinishes,
    RegisterReplacesDeferredToken,
    MarkRemovesDeferred,
    MarkAllAbsorbsPasses,
    FinishedTypeFinishesPasses,
    FinishedPassFinishesType,
    AttemptsAreSigned,
    BadSinceIsLost,
    DueIsInMilliseconds,
    BacklogRepeatsTypes,
    PendingRepeats,
    TokenOfEachRegistration,
    TypeIndexLosesDevices,
    CountsRegistersTwice,
    DigestsAreTexts,
    DigestsCut(usize),
    ZeroDigestIsNone,
    TokensCut(usize),
    KnownKeepsItsToken,
    KnownIsNotRenewed,
    ForgetComparesSeconds,
    ForgetsNoPass,
    /// Forgets a pass although its date is not past.
    ForgetsPassesEarly,
    ForgottenKeepsItsTokens,
    ForgottenStaysPending,
    ForgetsThePushesOfTheType,
}

pub(crate) struct Kinds {
    inner: MemoryStore,
    durable: Mutex<Option<MemoryStore>>,
    kind: Kind,
    known: Mutex<Known>,
    running: Mutex<Vec<Call>>,
    /// How many items of a list were read.
    read: AtomicUsize,
    is_reopened: bool,
}

#[derive(Default)]
struct Known {
    hidden: BTreeSet<SerialNumber>,
    passes: BTreeSet<PassId>,
    devices: BTreeSet<DeviceIdentifier>,
    names: BTreeSet<String>,
    joined: BTreeMap<String, (String, String)>,
    folded: BTreeMap<String, String>,
    tokens: BTreeMap<(DeviceIdentifier, PassId), PushToken>,
    claims: BTreeMap<String, String>,
    registers: BTreeMap<PassId, u64>,
    lost: BTreeSet<(DeviceIdentifier, TypeIdentifier)>,
    waiting: Vec<Waiting>,
    is_written: bool,
    /// Passes that were forgotten although their dates were not past.
    forgotten_early: BTreeSet<PassId>,
    left: BTreeMap<PassId, Left>,
}

/// What a faulty store does not forget.
struct Left {
    published: Option<Published>,
    pending: Option<PendingChange>,
}

struct Waiting {
    type_id: TypeIdentifier,
    serials: Vec<SerialNumber>,
    pushes: Vec<(DeviceIdentifier, Option<DeferredPush>)>,
    push: bool,
    done: Arc<AtomicUsize>,
}

/// Ends a call, or a group, when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn failed(text: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Other, text)
}

fn matches(pattern: Pattern, wanted: &str, text: &str) -> bool {
    let wild = |any: char, one: char| {
        let (wanted, text): (Vec<char>, Vec<char>) =
            (wanted.chars().collect(), text.chars().collect());
        // The positions in the pattern that the text may have reached so far.
        let skip = |mut at: BTreeSet<usize>| {
            for (n, letter) in wanted.iter().enumerate() {
                if at.contains(&n) && *letter == any {
                    at.insert(n + 1);
                }
            }
            at
        };
        let mut at = skip(BTreeSet::from([0]));
        for letter in text {
            let next = at.iter().filter_map(|n| match wanted.get(*n) {
                Some(c) if *c == any => Some(*n),
                Some(c) if *c == one || *c == letter => Some(n + 1),
                _ => None,
            });
            at = skip(next.collect());
        }
        at.contains(&wanted.len())
    };
    match pattern {
        Pattern::Prefix => text.starts_with(wanted),
        Pattern::Like => wild('%', '_'),
        Pattern::Glob => wild('*', '?'),
    }
}

/// Folds a text. A store with this folding treats texts as equal if their folded forms are equal.
fn folded(folding: Folding, text: &str) -> String {
    let pairs: &[(&str, &str)] = match folding {
        Folding::Case => return text.to_uppercase(),
        Folding::AsciiCase => return text.to_ascii_lowercase(),
        Folding::TrailingSpace => return text.trim_end().to_owned(),
        Folding::NormalForm => &[
            ("a\u{308}", "\u{e4}"),
            ("A\u{308}", "\u{c4}"),
            ("e\u{301}", "\u{e9}"),
            ("A\u{30a}", "\u{c5}"),
            ("\u{212b}", "\u{c5}"),
            ("\u{438}\u{306}", "\u{439}"),
            ("\u{1100}\u{1161}", "\u{ac00}"),
        ],
        Folding::Accents => &[
            ("\u{e4}", "a"),
            ("\u{c4}", "A"),
            ("\u{e9}", "e"),
            ("\u{308}", ""),
        ],
        Folding::Width => &[
            ("\u{ff41}", "a"),
            ("\u{ff11}", "1"),
            ("\u{ff76}", "\u{30ab}"),
        ],
        Folding::Invisible => &[
            ("\u{200b}", ""),
            ("\u{ad}", ""),
            ("\u{feff}", ""),
            ("\u{200d}", ""),
        ],
        Folding::Ligatures => &[("\u{fb01}", "fi"), ("\u{df}", "ss"), ("\u{e6}", "ae")],
    };
    let mut text = text.to_owned();
    for (from, to) in pairs {
        text = text.replace(from, to);
    }
    text
}

fn start(text: &str, length: usize) -> &str {
    let mut end = text.len().min(length);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Kinds {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::over(kind, MemoryStore::new())
    }

    fn over(kind: Kind, inner: MemoryStore) -> Self {
        Self {
            durable: Mutex::new(Some(inner.snapshot())),
            inner,
            kind,
            known: Mutex::default(),
            running: Mutex::default(),
            read: AtomicUsize::new(0),
            is_reopened: false,
        }
    }

    pub(crate) async fn reopen(&self) -> TestStore {
        let inner = match self.kind {
            Kind::Forgets(_) => {
                let durable = self.durable.lock().unwrap();
                durable.as_ref().unwrap().snapshot()
            }
            _ => self.inner.snapshot(),
        };
        if self.kind == Kind::ClaimsComeBack {
            for (name, owner) in self.known(|known| known.claims.clone()) {
                inner
                    .claim(&name, &owner, Duration::from_secs(600))
                    .await
                    .unwrap();
            }
        }
        let mut reopened = Self::over(self.kind, inner);
        reopened.is_reopened = true;
        TestStore::with_all(Arc::new(reopened))
    }

    fn known<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.lock().unwrap())
    }

    /// Remembers that a call was made. Its effect survives reopening, unless the store has the
    /// fault of losing it.
    fn wrote(&self, call: Call) {
        if let Kind::Forgets(forgotten) = self.kind
            && forgotten != call
        {
            *self.durable.lock().unwrap() = Some(self.inner.snapshot());
        }
    }

    /// With the fault `Busy`, fails if a call of this kind is already running.
    async fn turn(&self, call: Call) -> Result<OnDrop<impl FnMut()>, StoreError> {
        let busy = self.kind == Kind::Busy(call);
        if busy {
            let mut running = self.running.lock().unwrap();
            if running.contains(&call) {
                return Err(failed("the table is locked"));
            }
            running.push(call);
        }
        let turn = OnDrop(move || {
            if busy {
                self.running.lock().unwrap().retain(|one| *one != call);
            }
        });
        if busy {
            yield_now().await;
        }
        Ok(turn)
    }

    fn text(&self, field: Field, text: &str) -> String {
        match self.kind {
            Kind::Cuts(cut, length) if cut == field => start(text, length).to_owned(),
            // Of several equal texts, the store keeps the first.
            Kind::Folds(folds, folding) if folds == field => self.known(|known| {
                let key = folded(folding, text);
                known.folded.entry(key).or_insert(text.to_owned()).clone()
            }),
            _ => text.to_owned(),
        }
    }

    fn serial(&self, serial: &SerialNumber) -> SerialNumber {
        SerialNumber::new(&self.text(Field::Serial, serial.as_str())).unwrap()
    }

    fn type_id(&self, type_id: &TypeIdentifier) -> TypeIdentifier {
        let text = self.text(Field::Type, type_id.as_str());
        TypeIdentifier::new(&text).unwrap_or(type_id.clone())
    }

    fn device(&self, device: &DeviceIdentifier) -> DeviceIdentifier {
        DeviceIdentifier::new(&self.text(Field::Device, device.as_str())).unwrap()
    }

    fn pass(&self, pass: &PassId) -> PassId {
        let pass = PassId {
            type_id: self.type_id(&pass.type_id),
            serial: self.serial(&pass.serial),
        };
        match self.kind {
            Kind::Joins(pair @ (Pair::TypeSerial | Pair::SerialType), joint) => {
                let (type_id, serial) = (pass.type_id.as_str(), pass.serial.as_str());
                let (type_id, serial) = if pair == Pair::TypeSerial {
                    self.joined(type_id, joint, serial)
                } else {
                    let (serial, type_id) = self.joined(serial, joint, type_id);
                    (type_id, serial)
                };
                PassId::new(&type_id, &serial).unwrap()
            }
            _ => pass,
        }
    }

    /// Returns the pair of names that was first joined to this text. This may differ from the given
    /// pair.
    fn joined(&self, one: &str, joint: &str, two: &str) -> (String, String) {
        let key = format!("{one}{joint}{two}");
        self.known(|known| {
            let names = (one.to_owned(), two.to_owned());
            known.joined.entry(key).or_insert(names).clone()
        })
    }

    /// Returns the names under which the store finds the device and the pass.
    fn names(&self, device: &DeviceIdentifier, pass: &PassId) -> (DeviceIdentifier, PassId) {
        let (mut device, mut pass) = (self.device(device), self.pass(pass));
        let Kind::Joins(pair, joint) = self.kind else {
            return (device, pass);
        };
        let (of_device, of_type) = (device.as_str(), pass.type_id.as_str());
        let of_serial = pass.serial.as_str();
        let (new_device, other) = match pair {
            Pair::DeviceType => self.joined(of_device, joint, of_type),
            Pair::TypeDevice => {
                let (other, device) = self.joined(of_type, joint, of_device);
                (device, other)
            }
            Pair::DeviceSerial => self.joined(of_device, joint, of_serial),
            Pair::SerialDevice => {
                let (other, device) = self.joined(of_serial, joint, of_device);
                (device, other)
            }
            _ => return (device, pass),
        };
        device = DeviceIdentifier::new(&new_device).unwrap();
        if matches!(pair, Pair::DeviceType | Pair::TypeDevice) {
            pass.type_id = TypeIdentifier::new(&other).unwrap();
        } else {
            pass.serial = SerialNumber::new(&other).unwrap();
        }
        (device, pass)
    }

    fn pattern(&self, call: Call, field: Field) -> Option<Pattern> {
        match self.kind {
            Kind::Matches(of, in_field, pattern) if (of, in_field) == (call, field) => {
                Some(pattern)
            }
            _ => None,
        }
    }

    /// Returns the passes that a call finds: the pass alone, or all known passes that match.
    fn found(&self, call: Call, pass: &PassId) -> Vec<PassId> {
        let of_serial = self.pattern(call, Field::Serial);
        let of_type = self.pattern(call, Field::Type);
        if of_serial.is_none() && of_type.is_none() {
            return vec![pass.clone()];
        }
        let equals = |pattern: Option<Pattern>, wanted: &str, text: &str| match pattern {
            Some(pattern) => wanted == text || matches(pattern, wanted, text),
            None => wanted == text,
        };
        let mut found = self.known(|known| known.passes.clone());
        found.insert(pass.clone());
        found.retain(|one| {
            equals(of_serial, pass.serial.as_str(), one.serial.as_str())
                && equals(of_type, pass.type_id.as_str(), one.type_id.as_str())
        });
        found.into_iter().collect()
    }

    fn found_types(&self, call: Call, type_id: &TypeIdentifier) -> Vec<TypeIdentifier> {
        let pass = PassId {
            type_id: type_id.clone(),
            serial: SerialNumber::new("-").unwrap(),
        };
        match self.pattern(call, Field::Type) {
            None => vec![type_id.clone()],
            Some(pattern) => {
                let mut types = self.known(|known| {
                    let types = known.passes.iter().map(|pass| pass.type_id.clone());
                    types.collect::<BTreeSet<_>>()
                });
                types.insert(pass.type_id);
                types.retain(|one| {
                    one == type_id || matches(pattern, type_id.as_str(), one.as_str())
                });
                types.into_iter().collect()
            }
        }
    }

    fn found_devices(&self, call: Call, device: &DeviceIdentifier) -> Vec<DeviceIdentifier> {
        match self.pattern(call, Field::Device) {
            None => vec![device.clone()],
            Some(pattern) => {
                let mut devices = self.known(|known| known.devices.clone());
                devices.insert(device.clone());
                let is_found = |one: &DeviceIdentifier| {
                    one == device || matches(pattern, device.as_str(), one.as_str())
                };
                devices.into_iter().filter(is_found).collect()
            }
        }
    }

    fn found_names(&self, call: Call, field: Field, name: &str) -> Vec<String> {
        let name = self.text(field, name);
        let mut names = vec![name.clone()];
        if let Some(pattern) = self.pattern(call, field) {
            names = self.known(|known| {
                known.names.insert(name.clone());
                let others = known.names.iter().filter(|one| **one != name);
                let others = others.filter(|one| matches(pattern, &name, one));
                others.cloned().chain([name.clone()]).collect()
            });
        }
        names
    }

    /// Returns the items of a batch that the call uses.
    fn batch<T: Clone + PartialEq>(
        &self,
        call: Call,
        items: &[T],
        same: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, StoreError> {
        let is_twice = |n: usize| items[..n].iter().any(|one| same(one, &items[n]));
        match self.kind {
            Kind::KeepsTheFirst(of, most) if of == call => {
                Ok(items[..items.len().min(most)].to_vec())
            }
            Kind::Refuses(of, most) if of == call && items.len() > most => Err(failed("too many")),
            Kind::LosesTheRest(of, chunk) if of == call && items.len() > chunk => {
                Ok(items.chunks_exact(chunk).flatten().cloned().collect())
            }
            Kind::RefusesTwice(of) if of == call && (0..items.len()).any(is_twice) => {
                Err(failed("a row can't be changed twice"))
            }
            Kind::IgnoresTheSecond(of) if of == call => {
                let first = (0..items.len()).filter(|n| !is_twice(*n));
                Ok(first.map(|n| items[n].clone()).collect())
            }
            _ => Ok(items.to_vec()),
        }
    }

    /// With the fault `EndsAt`, ends a list after this many items.
    fn ended<T>(&self, call: Call, after: Option<&PageCursor>, mut page: Page<T>) -> Page<T> {
        let Kind::EndsAt(of, most) = self.kind else {
            return page;
        };
        if of != call {
            return page;
        }
        if after.is_none() {
            self.read.store(0, SeqCst);
        }
        let before = self.read.fetch_add(page.items.len(), SeqCst);
        if before + page.items.len() >= most {
            page.items.truncate(most.saturating_sub(before));
            page.next = None;
        }
        page
    }

    async fn backlog_types(&self) -> Vec<TypeIdentifier> {
        let backlog = self.inner.backlog().await.unwrap();
        backlog.into_iter().map(|one| one.type_id).collect()
    }

    /// Finishes all pending changes of all types.
    async fn finish_everything(&self) {
        for type_id in self.backlog_types().await {
            let pending = self.inner.pending(&type_id, usize::MAX).await.unwrap();
            self.inner
                .record_progress(&type_id, &ends(pending))
                .await
                .unwrap();
        }
    }

    async fn remove_deferred(&self, of: impl Fn(&DeviceIdentifier) -> bool) {
        for type_id in self.backlog_types().await {
            let page = self
                .inner
                .deferred(&type_id, None, usize::MAX)
                .await
                .unwrap();
            let devices = page.items.into_iter().map(|(device, _)| device);
            let gone: Vec<_> = devices.filter(&of).map(|device| (device, None)).collect();
            self.inner.defer(&type_id, &gone).await.unwrap();
        }
    }

    /// One of the waiting callers writes the calls of all waiting callers.
    async fn in_a_group(&self, waiting: Waiting) -> Result<(), StoreError> {
        let done = waiting.done.clone();
        self.known(|known| known.waiting.push(waiting));
        loop {
            if done.load(SeqCst) > 0 {
                return Ok(());
            }
            if self.known(|known| std::mem::replace(&mut known.is_written, true)) {
                yield_now().await;
                continue;
            }
            let group = Mutex::new(Vec::new());
            // If the writing caller is dropped, its batch is lost. The other callers treat their
            // calls as written.
            let _writing = OnDrop(|| {
                self.known(|known| known.is_written = false);
                let group: Vec<Waiting> = std::mem::take(&mut *group.lock().unwrap());
                group.iter().for_each(|one| one.done.store(1, SeqCst));
            });
            yield_now().await;
            *group.lock().unwrap() = self.known(|known| std::mem::take(&mut known.waiting));
            yield_now().await;
            let written = std::mem::take(&mut *group.lock().unwrap());
            for one in written {
                let changed = Changed::Passes(&one.serials);
                match one.push {
                    true => self.inner.mark_and_push(&one.type_id, changed).await?,
                    false => self.inner.mark(&one.type_id, changed).await?,
                }
                self.inner.defer(&one.type_id, &one.pushes).await?;
                one.done.store(1, SeqCst);
            }
        }
    }

    async fn change(
        &self,
        type_id: &TypeIdentifier,
        changed: Changed<'_>,
        push: bool,
    ) -> Result<(), StoreError> {
        let call = match (changed, push) {
            (Changed::Passes(_), false) => Call::Mark,
            (Changed::Contents(_), false) => Call::Publish,
            (Changed::All, false) => Call::MarkAll,
            (Changed::Passes(_), true) => Call::Push,
            (Changed::Contents(_), true) => Call::PushContents,
            (Changed::All, true) => Call::PushAll,
        };
        let _turn = self.turn(call).await?;
        let write = async |type_id: &TypeIdentifier, changed: Changed<'_>| match push {
            true => self.inner.mark_and_push(type_id, changed).await,
            false => self.inner.mark(type_id, changed).await,
        };
        if self.kind == Kind::MarkRemovesDeferred {
            self.remove_deferred(|_| true).await;
        }
        match changed {
            Changed::Passes(serials) => {
                let serials = self.batch(call, serials, PartialEq::eq)?;
                if self.kind == Kind::Group(call) {
                    let waiting = Waiting {
                        type_id: type_id.clone(),
                        serials,
                        pushes: Vec::new(),
                        push,
                        done: Arc::default(),
                    };
                    return self.in_a_group(waiting).await;
                }
                if let Kind::ShowsTheTagFirst(chunk) = self.kind
                    && serials.len() > chunk
                {
                    // The clock advances with the first chunk, and the other chunks get the same
                    // reading. A tag that is issued in between therefore covers all chunks.
                    self.known(|known| known.hidden.extend(serials[chunk..].iter().cloned()));
                    let _hidden = OnDrop(|| self.known(|known| known.hidden.clear()));
                    write(type_id, Changed::Passes(&serials)).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(());
                }
                let mut groups: BTreeMap<TypeIdentifier, Vec<SerialNumber>> = BTreeMap::new();
                for serial in &serials {
                    let pass = self.pass(&PassId {
                        type_id: type_id.clone(),
                        serial: self.text_of_scope(serial),
                    });
                    if matches!(self.kind, Kind::Matches(..)) {
                        self.known(|known| known.passes.insert(pass.clone()));
                    }
                    for pass in self.found(call, &pass) {
                        groups.entry(pass.type_id).or_default().push(pass.serial);
                    }
                }
                for (type_id, serials) in &groups {
                    write(type_id, Changed::Passes(serials)).await?;
                }
            }
            Changed::Contents(contents) => {
                let same = |one: &Content, other: &Content| one.serial == other.serial;
                let mut contents = self.batch(call, contents, same)?;
                let mut groups: BTreeMap<TypeIdentifier, Vec<Content>> = BTreeMap::new();
                for content in &mut contents {
                    let pass = self.pass(&PassId {
                        type_id: type_id.clone(),
                        serial: content.serial.clone(),
                    });
                    self.alter(content);
                    for pass in self.found(call, &pass) {
                        groups.entry(pass.type_id).or_default().push(Content {
                            serial: pass.serial,
                            ..content.clone()
                        });
                    }
                }
                for (type_id, contents) in &groups {
                    write(type_id, Changed::Contents(contents)).await?;
                }
            }
            Changed::All => {
                let type_id = self.type_id(type_id);
                if push && self.kind == Kind::MarkAllAbsorbsPasses {
                    let pending = self.inner.pending(&type_id, usize::MAX).await?;
                    self.inner.record_progress(&type_id, &ends(pending)).await?;
                }
                for type_id in self.found_types(call, &type_id) {
                    write(&type_id, Changed::All).await?;
                }
            }
        }
        self.wrote(call);
        Ok(())
    }

    fn text_of_scope(&self, serial: &SerialNumber) -> SerialNumber {
        SerialNumber::new(&self.text(Field::Scope, serial.as_str())).unwrap()
    }

    /// Alters digest and tokens, as a store does that stores them wrongly.
    fn alter(&self, content: &mut Content) {
        use passkit_server::identifiers::TokenDigest;
        let cut = |all: &[u8; 32], length: usize| {
            let mut cut = [0; 32];
            cut[..length].copy_from_slice(&all[..length]);
            cut
        };
        match self.kind {
            Kind::DigestsCut(length) => {
                content.digest = content.digest.map(|all| cut(&all, length));
            }
            Kind::TokensCut(length) => {
                for token in &mut content.tokens {
                    *token = TokenDigest::from_bytes(cut(token.as_bytes(), length));
                }
            }
            Kind::ZeroDigestIsNone => content.digest = content.digest.filter(|all| *all != [0; 32]),
            // All bytes that are not valid text are replaced by the same character.
            Kind::DigestsAreTexts => {
                content.digest = content
                    .digest
                    .map(|all| all.map(|byte| if byte < 0x80 { byte } else { b'?' }));
            }
            _ => {}
        }
    }
}

fn ends(pending: Vec<PendingChange>) -> Vec<(Scope, Progress)> {
    let end = |change: PendingChange| {
        let progress = Progress {
            version: change.version,
            next: None,
        };
        (change.scope, progress)
    };
    pending.into_iter().map(end).collect()
}
