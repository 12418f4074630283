//! Collects delivery records without delaying answers, and writes them in batches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{Complaint, DeliveryLog, Denial, Event, ListDetail, PushFailure, Record, Subject};
use crate::{
    PassId,
    device_log::{DeviceReport, LogEntry, redacted},
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    store::{Audience, Changes, ContentDigest, RegistrationStore, StoreError, UpdateTag, clock},
    text::Chain,
};

/// How long entries are collected before they are written.
const PERIOD: Duration = Duration::from_secs(1);
/// The maximum number of waiting entries. Further entries are dropped and counted.
const WAITING: usize = 65_536;
/// The space for the types and devices of waiting lists, in bytes. If this is not enough, it grows.
const NAMES: usize = WAITING * 64;
/// The maximum number of waiting entries that strangers may have caused. Each of them needs calls of the store, and they must
/// not displace the others.
const DOUBTFUL: usize = 256;
/// How long the store is asked at most, in one flush, which passes and types it knows.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many records go into one call of the store.
const BATCH: usize = 1_000;
/// How many entries are merged before other tasks have a turn.
const TURN: usize = 4_096;
/// The shortest time between two warnings about failed writes.
const QUIET: Duration = Duration::from_secs(60);

/// Collects delivery records of a [`WalletService`](crate::WalletService) and a
/// [`Publisher`](crate::push::Publisher), and writes them into a [`DeliveryLog`].
///
/// An answer to a phone never waits for a record. Entries wait in memory, and [`run_until`](Self::run_until) merges and
/// writes them about once a second. At most 65,536 lists and 65,536 other entries wait, and further ones are dropped. If the
/// store fails, the entries of this second are dropped. [`totals`](Self::totals) counts all dropped entries.
///
/// **Strangers.** Anyone may post log messages, ask with made-up devices, and fetch with wrong tokens. A device that is not
/// registered leaves no record. Refused requests and log messages leave a record only if the pass was published or is on a
/// device. At most 256 such requests and messages are looked at in a second.
///
/// **Privacy.** If a device unregisters from its last pass of a type, or is removed, its records of the type are removed. No
/// record contains a push token, an authentication token, or free text of a device beyond its first harmless words.
///
/// Clones share their state.
#[derive(Clone)]
pub struct DeliveryRecorder(Arc<Shared>);

struct Shared {
    log: Arc<dyn DeliveryLog>,
    store: Arc<dyn RegistrationStore>,
    waiting: Mutex<Waiting>,
    /// Many entries wait.
    crowded: Notify,
    /// Empty lists, to swap with the waiting entries. Only one task writes at a time.
    writing: tokio::sync::Mutex<Waiting>,
    written: AtomicU64,
    dropped: AtomicU64,
    warned: Mutex<Option<Instant>>,
}

/// The entries that wait to be written. The lists that requests fill have their whole capacity from the start, so that no
/// request has to grow them.
struct Waiting {
    entries: Vec<Entry>,
    listed: Vec<Listed>,
    /// The types and devices of `listed`, one after the other.
    names: String,
    doubtful: Vec<Doubtful>,
}

impl Waiting {
    fn new() -> Self {
        Self {
            entries: Vec::with_capacity(WAITING),
            listed: Vec::with_capacity(WAITING),
            names: String::with_capacity(NAMES),
            doubtful: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.listed.clear();
        self.names.clear();
        self.doubtful.clear();
    }
}

/// An answered list. Lists are the most frequent calls of phones, so this value is small, and owns no memory that another
/// thread would have to free.
#[derive(Clone, Copy)]
struct Listed {
    at: SystemTime,
    since: Option<UpdateTag>,
    tag: UpdateTag,
    serials: usize,
    /// The lengths of the type and the device in `names`.
    lengths: [u8; 2],
}

/// What happened.
enum Entry {
    Fetched {
        at: SystemTime,
        pass: PassId,
        version: u64,
        unchanged: bool,
    },
    Record(Box<Record>),
    /// The device may have left its last pass of the type.
    Left(TypeIdentifier, DeviceIdentifier),
}

/// An event that counts only if the store knows the pass or the type.
struct Doubtful {
    type_id: TypeIdentifier,
    /// The pass is the first of these that the store knows.
    serials: Vec<SerialNumber>,
    event: Event,
    at: u64,
    detail: String,
}

/// How many records were written and dropped since the recorder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderTotals {
    /// Records that the store has accepted. Records that were merged in memory count once.
    pub written: u64,
    /// Entries that found no room, and records that the store did not accept.
    pub dropped: u64,
}

impl DeliveryRecorder {
    /// Makes a recorder that writes into `log`. It asks `store` which passes and devices exist. Both
    /// may be the same store.
    #[must_use]
    pub fn new(log: Arc<dyn DeliveryLog>, store: Arc<dyn RegistrationStore>) -> Self {
        Self(Arc::new(Shared {
            log,
            store,
            waiting: Mutex::new(Waiting::new()),
            crowded: Notify::new(),
            writing: tokio::sync::Mutex::new(Waiting::new()),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            warned: Mutex::default(),
        }))
    }

    /// Writes records about once a second until `stop` is ready. Then writes the remaining records, and returns.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let is_over = tokio::select! {
                () = &mut stop => true,
                () = sleep(PERIOD) => false,
                () = self.0.crowded.notified() => false,
            };
            self.flush().await;
            if is_over {
                return;
            }
        }
    }

    /// Writes all records that wait now. If the store fails, they are dropped and counted.
    pub async fn flush(&self) {
        let shared = &*self.0;
        let mut writing = shared.writing.lock().await;
        // A dropped call may have left something.
        writing.clear();
        std::mem::swap(&mut *shared.waiting(), &mut *writing);
        let Waiting {
            entries,
            listed,
            names,
            doubtful,
        } = &mut *writing;
        let mut merged = Merged::default();
        let mut left = HashSet::new();
        for (number, entry) in entries.drain(..).enumerate() {
            merged.add(entry, &mut left);
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        let mut names = names.as_str();
        for (number, one) in listed.iter().enumerate() {
            merged.add_listed(one, &mut names);
            if number % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        let doubtful = std::mem::take(doubtful);
        writing.clear();
        shared.write(merged).await;
        // These cost many questions to the store, so the others are written before.
        shared.write_known(&doubtful).await;
        if let Err(error) = shared.forget(left).await {
            shared.warn(&error);
        }
    }

    /// Returns how many records were written and dropped so far.
    #[must_use]
    pub fn totals(&self) -> RecorderTotals {
        RecorderTotals {
            written: self.0.written.load(Relaxed),
            dropped: self.0.dropped.load(Relaxed),
        }
    }

    /// Drops all waiting entries, so that a bench can measure the requests alone.
    #[doc(hidden)]
    pub fn forget_waiting(&self) {
        self.0.waiting().clear();
    }

    pub(crate) fn registered(&self, type_id: &TypeIdentifier, device: DeviceIdentifier) {
        let subject = Subject::Device(type_id.clone(), device);
        self.record(subject, Event::Registered, 0, 1, String::new());
    }

    /// A list was answered. A device without a registration leaves no record. Neither does an empty
    /// list of a type without a version, because anyone may ask for made-up types.
    pub(crate) fn listed(
        &self,
        type_id: &TypeIdentifier,
        device: &DeviceIdentifier,
        since: Option<UpdateTag>,
        changes: &Changes,
    ) {
        let is_known = changes.tag.type_version > 0 || !changes.serials.is_empty();
        if changes.tag.device_version == 0 || !is_known {
            return;
        }
        let (type_id, device) = (type_id.as_str(), device.as_str());
        let one = Listed {
            at: SystemTime::now(),
            since,
            tag: changes.tag,
            serials: changes.serials.len(),
            // Both have at most 128 characters, which are ASCII.
            lengths: [type_id.len() as u8, device.len() as u8],
        };
        let mut guard = self.0.waiting();
        let waiting = &mut *guard;
        let before = waiting.listed.len();
        if before >= WAITING {
            drop(guard);
            return self.0.count_dropped(1);
        }
        waiting.names.push_str(type_id);
        waiting.names.push_str(device);
        waiting.listed.push(one);
        drop(guard);
        self.0.added(before);
    }

    pub(crate) fn fetched(&self, pass: &PassId, version: u64, unchanged: bool) {
        self.0.add(Entry::Fetched {
            at: SystemTime::now(),
            pass: pass.clone(),
            version,
            unchanged,
        });
    }

    /// A request for one of these passes was refused.
    pub(crate) fn refused(
        &self,
        type_id: TypeIdentifier,
        serials: Vec<SerialNumber>,
        denial: Denial,
    ) {
        self.0.add_doubtful(Doubtful {
            type_id,
            serials,
            event: Event::Refused(denial),
            at: clock::now_micros(),
            detail: String::new(),
        });
    }

    /// A device posted a log message. A message that names no type is ignored.
    pub(crate) fn complained(&self, entry: &LogEntry<'_>) {
        let Some(Ok(type_id)) = entry.type_id.map(TypeIdentifier::new) else {
            return;
        };
        let serial = entry.serial.and_then(|text| SerialNumber::new(text).ok());
        let (complaint, detail) = complaint(&entry.report);
        self.0.add_doubtful(Doubtful {
            type_id,
            serials: serial.into_iter().collect(),
            event: Event::Complaint(complaint),
            at: clock::now_micros(),
            detail,
        });
    }

    /// The content of a pass changed, and is published next.
    ///
    /// The detail begins with the first 16 hexadecimal digits of the digest of the new content. Then follow a blank and a
    /// summary of what differs from the previous content. The summary must have no values of the pass and no secret. A
    /// summary that is too long is cut.
    pub fn content_changed(
        &self,
        pass: &PassId,
        digest: &ContentDigest,
        summary: impl fmt::Display,
    ) {
        let digest: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let detail = format!("{digest} {summary}");
        let subject = Subject::Pass(pass.clone());
        self.record(subject, Event::ContentChanged, 0, 1, detail);
    }

    /// The device may have left its last pass of the type.
    pub(crate) fn left(&self, type_id: &TypeIdentifier, device: &DeviceIdentifier) {
        self.0.add(Entry::Left(type_id.clone(), device.clone()));
    }

    /// A push to these devices failed. A device may occur more than once.
    pub(crate) fn push_failed(
        &self,
        type_id: &TypeIdentifier,
        devices: &[DeviceIdentifier],
        failure: PushFailure,
        version: u64,
        reason: &str,
    ) {
        let devices: BTreeSet<_> = devices.iter().collect();
        for device in devices {
            let subject = Subject::Device(type_id.clone(), device.clone());
            let event = Event::PushFailed(failure);
            self.record(subject, event, version, 1, reason.to_owned());
        }
    }

    /// Something happened `count` times now.
    pub(crate) fn record(
        &self,
        subject: Subject,
        event: Event,
        version: u64,
        count: u64,
        detail: String,
    ) {
        self.0.add(Entry::Record(Box::new(Record {
            subject,
            event,
            version: version.min(Record::MAX_NUMBER),
            count,
            at: clock::now_micros(),
            detail: cut(&detail),
        })));
    }
}

impl fmt::Debug for DeliveryRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryRecorder")
            .field("totals", &self.totals())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, entry: Entry) {
        let mut waiting = self.waiting();
        let before = waiting.entries.len();
        if before >= WAITING {
            drop(waiting);
            return self.count_dropped(1);
        }
        waiting.entries.push(entry);
        drop(waiting);
        self.added(before);
    }

    /// An entry was added to a list with `before` entries.
    fn added(&self, before: usize) {
        if before == WAITING / 2 {
            self.crowded.notify_one();
        }
    }

    fn add_doubtful(&self, doubtful: Doubtful) {
        let mut waiting = self.waiting();
        let has_room = waiting.doubtful.len() < DOUBTFUL;
        if has_room {
            waiting.doubtful.push(doubtful);
        }
        drop(waiting);
        if !has_room {
            self.count_dropped(1);
        }
    }

    #[cold]
    fn count_dropped(&self, records: u64) {
        self.dropped.fetch_add(records, Relaxed);
        #[cfg(feature = "metrics")]
        crate::metrics::records_dropped(records);
    }

    async fn write(&self, merged: Merged) {
        let records: Vec<Record> = merged.0.into_values().collect();
        let mut left = records.len() as u64;
        for part in records.chunks(BATCH) {
            if let Err(error) = self.log.record(part).await {
                // A failed call must not be repeated, and the next one would fail too.
                self.warn(&error);
                return self.count_dropped(left);
            }
            let written = part.len() as u64;
            left -= written;
            self.written.fetch_add(written, Relaxed);
            #[cfg(feature = "metrics")]
            crate::metrics::records_written(written);
        }
    }

    fn warn(&self, error: &StoreError) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= QUIET) {
            *warned = Some(Instant::now());
            tracing::warn!(error = %Chain(error), "delivery records are lost");
        }
    }

    /// Removes the records of devices that have no pass of the type any more.
    async fn forget(
        &self,
        left: HashSet<(TypeIdentifier, DeviceIdentifier)>,
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for (type_id, device) in left {
            let list = self.store.changes_since(&device, &type_id, None).await?;
            if list.serials.is_empty() {
                gone.push(Subject::Device(type_id, device));
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.log.forget(&gone).await
    }

    /// Writes the events of passes and types that the store knows. If the store needs too long to
    /// say which these are, the events are dropped.
    async fn write_known(&self, doubtful: &[Doubtful]) {
        if doubtful.is_empty() {
            return;
        }
        match timeout(PATIENCE, self.known(doubtful)).await {
            Ok(Ok(merged)) => self.write(merged).await,
            Ok(Err(error)) => {
                self.warn(&error);
                self.count_dropped(doubtful.len() as u64);
            }
            Err(_) => self.count_dropped(doubtful.len() as u64),
        }
    }

    /// Returns the events of passes and types that the store knows.
    async fn known(&self, doubtful: &[Doubtful]) -> Result<Merged, StoreError> {
        let mut merged = Merged::default();
        let passes: BTreeSet<PassId> = doubtful.iter().flat_map(Doubtful::passes).collect();
        let known = self.known_passes(passes.into_iter().collect()).await?;
        let mut types: BTreeMap<TypeIdentifier, bool> = BTreeMap::new();
        for pass in &known {
            types.insert(pass.type_id.clone(), true);
        }
        for one in doubtful {
            let is_known = match types.get(&one.type_id) {
                Some(is_known) => *is_known,
                None => {
                    let of_type = Audience::Type(&one.type_id);
                    let page = self.store.devices(of_type, None, 1).await?;
                    let is_known = !page.items.is_empty();
                    types.insert(one.type_id.clone(), is_known);
                    is_known
                }
            };
            if !is_known {
                continue;
            }
            if let Some(pass) = one.passes().find(|pass| known.contains(pass)) {
                merged.merge(one.record(Subject::Pass(pass)));
            }
            merged.merge(one.record(Subject::Type(one.type_id.clone())));
        }
        Ok(merged)
    }

    /// Returns the passes that were published, or are on a device. The version of a pass does not
    /// help, because made-up passes of a type share the version of its last mark.
    async fn known_passes(&self, passes: Vec<PassId>) -> Result<HashSet<PassId>, StoreError> {
        let published = self.store.published(&passes).await?;
        let mut known = HashSet::new();
        for (pass, published) in passes.into_iter().zip(published) {
            if published.is_some() || self.store.count_devices(&pass, 1).await? > 0 {
                known.insert(pass);
            }
        }
        Ok(known)
    }
}

impl Doubtful {
    fn passes(&self) -> impl Iterator<Item = PassId> {
        self.serials.iter().map(|serial| PassId {
            type_id: self.type_id.clone(),
            serial: serial.clone(),
        })
    }

    fn record(&self, subject: Subject) -> Record {
        Record {
            subject,
            event: self.event,
            version: 0,
            count: 1,
            at: self.at,
            detail: self.detail.clone(),
        }
    }
}

/// Records that are merged in memory.
#[derive(Default)]
struct Merged(HashMap<(Subject, Event), Record>);

impl Merged {
    fn merge(&mut self, record: Record) {
        let key = (record.subject.clone(), record.event);
        match self.0.get_mut(&key) {
            Some(known) => known.merge(record),
            None => _ = self.0.insert(key, record),
        }
    }

    /// Adds an answered list. Its type and device are at the start of `names`.
    fn add_listed(&mut self, one: &Listed, names: &mut &str) {
        let mut name = |length: u8| {
            let (name, rest) = names.split_at_checked(length.into())?;
            *names = rest;
            Some(name)
        };
        let (Some(type_id), Some(device)) = (name(one.lengths[0]), name(one.lengths[1])) else {
            return;
        };
        let (Ok(type_id), Ok(device)) =
            (TypeIdentifier::new(type_id), DeviceIdentifier::new(device))
        else {
            return;
        };
        let detail = ListDetail {
            since: one.since,
            serials: one.serials as u64,
            tag: one.tag,
        };
        let record = Record {
            subject: Subject::Device(type_id, device),
            event: Event::Asked,
            version: 0,
            count: 1,
            at: clock::micros(one.at),
            detail: detail.to_string(),
        };
        if one.serials > 0 {
            self.merge(Record {
                event: Event::Told,
                ..record.clone()
            });
        }
        self.merge(record);
    }

    fn add(&mut self, entry: Entry, left: &mut HashSet<(TypeIdentifier, DeviceIdentifier)>) {
        match entry {
            Entry::Fetched {
                at,
                pass,
                version,
                unchanged,
            } => self.merge(Record {
                subject: Subject::Pass(pass),
                event: if unchanged {
                    Event::Unchanged
                } else {
                    Event::Fetched
                },
                version: version.min(Record::MAX_NUMBER),
                count: 1,
                at: clock::micros(at),
                detail: String::new(),
            }),
            Entry::Record(record) => self.merge(*record),
            Entry::Left(type_id, device) => _ = left.insert((type_id, device)),
        }
    }
}

/// Returns the kind of a message, and what to keep of it.
fn complaint(report: &DeviceReport<'_>) -> (Complaint, String) {
    let complaint = match report {
        DeviceReport::AuthenticationFailure => Complaint::AuthenticationFailure,
        DeviceReport::UnexpectedStatus(status) => {
            return (Complaint::UnexpectedStatus, format!("status {status}"));
        }
        DeviceReport::MalformedResponse => Complaint::MalformedResponse,
        DeviceReport::InvalidPass => Complaint::InvalidPass,
        DeviceReport::WrongPass => Complaint::WrongPass,
        DeviceReport::TagUnchanged => Complaint::TagUnchanged,
        DeviceReport::TagMissing => Complaint::TagMissing,
        DeviceReport::SpuriousPush => Complaint::SpuriousPush,
        DeviceReport::PassUnchanged => Complaint::PassUnchanged,
        DeviceReport::ConditionIgnored => Complaint::ConditionIgnored,
        DeviceReport::LastModifiedMissing => Complaint::LastModifiedMissing,
        DeviceReport::NotRegistered => Complaint::NotRegistered,
        DeviceReport::PersonalizationUnchanged => Complaint::PersonalizationUnchanged,
        DeviceReport::Other(message) => return (Complaint::Other, cut(&redacted(message))),
    };
    (complaint, String::new())
}

/// Cuts a text to the length of a detail, and replaces control characters.
fn cut(text: &str) -> String {
    let mut detail = String::new();
    for char in text.chars() {
        let char = if char.is_control() { ' ' } else { char };
        if detail.len() + char.len_utf8() > Record::MAX_DETAIL {
            break;
        }
        detail.push(char);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_short_and_has_no_control_characters() {
        assert_eq!(cut("a\u{7}b\nc"), "a b c");
        assert_eq!(cut(&"x".repeat(500)).len(), Record::MAX_DETAIL);
        assert_eq!(cut(&"\u{1f3ab}".repeat(500)).len(), Record::MAX_DETAIL);
        assert_eq!(
            cut(&format!("x{}", "\u{fc}".repeat(500))).len(),
            Record::MAX_DETAIL - 1
        );
    }

    #[tokio::test]
    async fn more_entries_than_there_is_room_for_are_counted_and_dropped() {
        let store = Arc::new(crate::store::MemoryStore::new());
        let recorder = DeliveryRecorder::new(store.clone(), store.clone());
        let pass = PassId::new("pass.a", "1").unwrap();
        for _ in 0..WAITING + 10 {
            recorder.fetched(&pass, 7, false);
        }
        recorder.flush().await;
        let totals = recorder.totals();
        assert_eq!((totals.written, totals.dropped), (1, 10));
        recorder.fetched(&pass, 7, false);
        recorder.flush().await;
        let records = store.records(&[Subject::Pass(pass)]).await.unwrap();
        assert_eq!(records[0][0].count, WAITING as u64 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_written_before_the_second_is_over() {
        let store = Arc::new(crate::store::MemoryStore::new());
        let recorder = DeliveryRecorder::new(store.clone(), store);
        let pass = PassId::new("pass.a", "1").unwrap();
        for _ in 0..=WAITING / 2 {
            recorder.fetched(&pass, 7, false);
        }
        let start = Instant::now();
        let written = async {
            while recorder.totals().written == 0 {
                tokio::task::yield_now().await;
            }
        };
        recorder.run_until(written).await;
        assert!(start.elapsed() < PERIOD);
    }

    #[tokio::test]
    async fn a_made_up_type_leaves_no_record() {
        use crate::identifiers::PushToken;
        let store = Arc::new(crate::store::MemoryStore::new());
        let recorder = DeliveryRecorder::new(store.clone(), store.clone());
        let device = DeviceIdentifier::new("d").unwrap();
        let pass = PassId::new("pass.a", "1").unwrap();
        let push_token = PushToken::new("aa").unwrap();
        store.register(&device, &pass, &push_token).await.unwrap();
        for type_id in ["pass.a", "pass.made-up"] {
            let type_id = TypeIdentifier::new(type_id).unwrap();
            let changes = store.changes_since(&device, &type_id, None).await.unwrap();
            recorder.listed(&type_id, &device, None, &changes);
        }
        recorder.flush().await;
        // "Asked" and "told" of the real type.
        assert_eq!(recorder.totals().written, 2);
    }

    #[test]
    fn an_unknown_message_keeps_only_its_harmless_start() {
        let text = "could not reach token 0123456789abcdef0123 of device";
        let (kind, detail) = complaint(&DeviceReport::Other(text));
        assert_eq!(kind, Complaint::Other);
        assert_eq!(detail, "could not reach token …");
    }
}
