//! Reads the facts from a store. The number of calls depends on the number of phones to show, and
//! not on the number of phones that have the pass.

use std::{
    collections::{HashMap, HashSet},
    slice,
    time::Duration,
};

use passkit_archive::ChangeSummary;
use passkit_server::{
    PassId,
    delivery::{Complaint, Denial, Event, ListDetail, PushFailure, Record, Subject},
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{PendingChange, Scope},
    store::{Audience, PageCursor, PassState, StoreError},
};

use super::{
    content::Content,
    facts::{
        Deferred, Knows, PassFacts, Pending, Phone, Pushes, Registrations, SKEW, Seen, Time,
        name_of,
    },
};
use crate::store::Store;

/// Registrations are counted up to this number.
const COUNTED: u64 = 10_000;
/// How many pending changes of the type are searched for the pass.
const PENDING: usize = 1_000;
/// How many deferred pushes of the type are searched for the phones.
const DEFERRED: usize = 1_000;
/// A service marks changed content within this time, unless its store fails.
const MARKED_WITHIN: Duration = Duration::from_secs(60);
/// The records of this many subjects are read at once.
const SUBJECTS: usize = 1_000;
/// At most this many pages of phones are read, because a store may return short pages.
const PAGES: usize = 100;

/// Reads what is known about a pass, and about a page of at most about `most_phones` of its phones.
/// Also returns where the next page begins.
pub(super) async fn gather(
    store: &dyn Store,
    pass: &PassId,
    content: Option<Content>,
    after: Option<&PageCursor>,
    most_phones: usize,
) -> Result<(PassFacts, Vec<Phone>, Option<PageCursor>), StoreError> {
    let state = store.pass_state(pass).await?;
    let published = store.published(slice::from_ref(pass)).await?;
    let removed = published.iter().flatten().any(|known| known.removed);
    let (devices, next) = devices(store, pass, after, most_phones).await?;
    let counted = store.count_devices(pass, COUNTED).await?;
    let subjects: Vec<Subject> = [
        Subject::Pass(pass.clone()),
        Subject::Type(pass.type_id.clone()),
    ]
    .into_iter()
    .chain(
        devices
            .iter()
            .map(|device| Subject::Device(pass.type_id.clone(), device.clone())),
    )
    .collect();
    let mut records = Vec::new();
    for subjects in subjects.chunks(SUBJECTS) {
        records.extend(store.records(subjects).await?);
    }
    let mut records = records.into_iter();
    let of_pass = Records(records.next().unwrap_or_default());
    let of_type = Records(records.next().unwrap_or_default());
    let (deferred, knows_deferred) = deferred(store, &pass.type_id).await?;
    let pushes = Pushes {
        pending: pending(store, pass).await?,
        knows_deferred,
        ..pushes(&of_pass, &of_type, state.version)
    };
    let mut phones = Vec::new();
    for (device, records) in devices.iter().zip(records) {
        let deferred = deferred.get(device).copied();
        phones.push(
            phone(
                store,
                pass,
                state.version,
                device,
                Records(records),
                deferred,
            )
            .await?,
        );
    }
    let facts = PassFacts {
        id: pass.clone(),
        now: Time::now(),
        version: state.version,
        published: state.published,
        removed,
        registrations: Registrations {
            // A phone may have registered between the two calls.
            count: usize::try_from(counted)
                .unwrap_or(usize::MAX)
                .max(phones.len()),
            or_more: counted >= COUNTED,
        },
        fetched: of_pass.seen(Event::Fetched),
        unchanged: of_pass.seen(Event::Unchanged),
        refused: of_pass.refused(),
        complaints: of_pass.complaints(),
        pushes,
        content,
        content_changed: of_pass.seen(Event::ContentChanged),
        recorded_changes: recorded_changes(&of_pass, state),
    };
    Ok((facts, phones, next))
}

/// Returns about `most` phones that have the pass, each once, and where the next ones begin.
async fn devices(
    store: &dyn Store,
    pass: &PassId,
    after: Option<&PageCursor>,
    most: usize,
) -> Result<(Vec<DeviceIdentifier>, Option<PageCursor>), StoreError> {
    let (mut devices, mut known) = (Vec::new(), HashSet::new());
    let mut after = after.cloned();
    for _ in 0..PAGES {
        let left = most.saturating_sub(devices.len());
        let audience = Audience::Pass(pass);
        let page = store.devices(audience, after.as_ref(), left).await?;
        let new = page.items.into_iter().map(|registered| registered.device);
        devices.extend(new.filter(|device| known.insert(device.clone())));
        after = page.next;
        if after.is_none() || devices.len() >= most {
            break;
        }
    }
    Ok((devices, after))
}

async fn pending(store: &dyn Store, pass: &PassId) -> Result<Pending, StoreError> {
    let changes = store.pending(&pass.type_id, PENDING).await?;
    let is_of_pass = |change: &&PendingChange| match &change.scope {
        Scope::Pass(serial) => *serial == pass.serial,
        Scope::Type => true,
    };
    Ok(match changes.iter().find(is_of_pass) {
        Some(change) => Pending::Yes {
            begun: change.progress.is_some(),
        },
        None if changes.len() >= PENDING => Pending::Unknown,
        None => Pending::No,
    })
}

/// Returns the first deferred pushes of the type, and whether these are all.
async fn deferred(
    store: &dyn Store,
    type_id: &TypeIdentifier,
) -> Result<(HashMap<DeviceIdentifier, Deferred>, bool), StoreError> {
    let page = store.deferred(type_id, None, DEFERRED).await?;
    let is_all = page.next.is_none();
    let pushes = page.items.into_iter().map(|(device, push)| {
        let deferred = Deferred {
            due: push.due.map(Time::of),
            attempts: push.attempts,
        };
        (device, deferred)
    });
    Ok((pushes.collect(), is_all))
}

/// Returns what changed with the newest version. A version may also be new because the pass was
/// marked, without a change of its content.
fn recorded_changes(of_pass: &Records, state: PassState) -> Option<ChangeSummary> {
    let changed = of_pass.seen(Event::ContentChanged)?;
    let (digest, summary) = changed.detail.split_once(' ')?;
    let published: String = state
        .published?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let marked = Time(state.version);
    let is_newest = published.starts_with(digest)
        && marked.plus(SKEW) >= changed.at
        && changed.at.plus(MARKED_WITHIN) >= marked;
    summary.parse().ok().filter(|_| is_newest)
}

/// Returns the records of the pushes of the pass. If all passes of the type changed at once, only
/// the type has these records.
fn pushes(of_pass: &Records, of_type: &Records, version: u64) -> Pushes {
    let is_of_all = !of_pass.has_push(|of| of >= version) && of_type.has_push(|of| of == version);
    let records = if is_of_all { of_type } else { of_pass };
    Pushes {
        accepted: records.seen(Event::PushAccepted),
        failed: records.failed(),
        ended: records.seen(Event::PushEnded),
        ..Pushes::default()
    }
}

async fn phone(
    store: &dyn Store,
    pass: &PassId,
    version: u64,
    device: &DeviceIdentifier,
    records: Records,
    deferred: Option<Deferred>,
) -> Result<Phone, StoreError> {
    let (asked, told) = (records.seen(Event::Asked), records.seen(Event::Told));
    let at = |seen: &Option<Seen>| seen.as_ref().map(|seen| seen.at);
    let (asked_at, told_at) = (at(&asked), at(&told));
    let detail = |seen: &Option<Seen>| {
        let detail = seen.as_ref().map(|seen| ListDetail::parse(&seen.detail));
        detail.flatten()
    };
    // An empty answer has no tag, so the phone keeps its tag. A phone that sent no tag had no
    // passes.
    let last = detail(if told_at >= asked_at { &told } else { &asked });
    let held = last.map(|list| match list.since {
        Some(since) if list.serials == 0 => since,
        _ => list.tag,
    });
    // The last answer with changes told the phone of this version, unless the phone had been told
    // before.
    let was_told_then = detail(&told)
        .and_then(|list| list.since)
        .is_none_or(|since| since.type_version < version);
    let knows = match held {
        None => Knows::Unknown,
        Some(tag) => {
            let changes = store
                .changes_since(device, &pass.type_id, Some(tag))
                .await?;
            if changes.serials.contains(&pass.serial) {
                Knows::Older
            } else {
                Knows::Newest {
                    told_at: told_at.filter(|_| was_told_then),
                }
            }
        }
    };
    Ok(Phone {
        name: name_of(&pass.type_id, device),
        registered: records.seen(Event::Registered).map(|seen| seen.at),
        asked: asked_at.max(told_at),
        told: told_at,
        knows,
        failure: records.last_failed(),
        deferred,
    })
}

/// The records of a subject.
struct Records(Vec<Record>);

impl Records {
    fn all<T>(&self, of: impl Fn(Event) -> Option<T>) -> Vec<(T, Seen)> {
        let seen = |record: &Record| Seen {
            at: Time(record.at),
            count: record.count,
            version: record.version,
            detail: record.detail.clone(),
        };
        let records = self.0.iter();
        let mut all: Vec<_> = records
            .filter_map(|record| Some((of(record.event)?, seen(record))))
            .collect();
        // The newest come first.
        all.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.at));
        all
    }

    fn seen(&self, event: Event) -> Option<Seen> {
        let mut found = self.all(|other| (other == event).then_some(()));
        found.pop().map(|((), seen)| seen)
    }

    fn refused(&self) -> Vec<(Denial, Seen)> {
        self.all(|event| match event {
            Event::Refused(denial) => Some(denial),
            _ => None,
        })
    }

    fn complaints(&self) -> Vec<(Complaint, Seen)> {
        self.all(|event| match event {
            Event::Complaint(complaint) => Some(complaint),
            _ => None,
        })
    }

    fn failed(&self) -> Vec<(PushFailure, Seen)> {
        self.all(|event| match event {
            Event::PushFailed(failure) => Some(failure),
            _ => None,
        })
    }

    /// Returns whether there is a record about pushes of a version that fulfils the condition.
    fn has_push(&self, condition: impl Fn(u64) -> bool) -> bool {
        self.0.iter().any(|record| {
            let is_push = matches!(
                record.event,
                Event::PushAccepted | Event::PushFailed(_) | Event::PushEnded
            );
            is_push && condition(record.version)
        })
    }

    fn last_failed(&self) -> Option<(PushFailure, Seen)> {
        self.failed().into_iter().next()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use passkit_server::{
        Changed,
        delivery::DeliveryLog as _,
        identifiers::PushToken,
        push::{DeferredPush, Progress, PushQueue as _},
        store::{Content, MemoryStore, RegistrationStore as _, UpdateTag},
    };

    use super::*;

    fn pass(serial: &str) -> PassId {
        PassId::new("pass.com.example.gathered", serial).unwrap()
    }

    fn device(number: usize) -> DeviceIdentifier {
        DeviceIdentifier::new(&format!("D-{number}")).unwrap()
    }

    async fn register(store: &MemoryStore, number: usize, serial: &str) {
        let token = PushToken::new("c0ffee").unwrap();
        let (device, pass) = (device(number), pass(serial));
        store.register(&device, &pass, &token).await.unwrap();
    }

    async fn publish(store: &MemoryStore, serial: &str, digest: u8) {
        let pass = pass(serial);
        let content = Content {
            serial: pass.serial,
            digest: Some([digest; 32]),
            tokens: Vec::new(),
        };
        let changed = Changed::Contents(slice::from_ref(&content));
        store.mark_and_push(&pass.type_id, changed).await.unwrap();
    }

    /// The phone asks, and the call is recorded as the service does it.
    async fn ask(store: &MemoryStore, number: usize, since: Option<UpdateTag>) -> UpdateTag {
        let (device, type_id) = (device(number), pass("A").type_id);
        let changes = store.changes_since(&device, &type_id, since);
        let changes = changes.await.unwrap();
        let detail = ListDetail {
            since,
            serials: changes.serials.len() as u64,
            tag: changes.tag,
        };
        let record = |event| Record {
            subject: Subject::Device(type_id.clone(), device.clone()),
            event,
            version: 0,
            count: 1,
            at: Time::now().0,
            detail: detail.to_string(),
        };
        let told = detail.serials > 0;
        let records = [
            told.then(|| record(Event::Told)),
            Some(record(Event::Asked)),
        ];
        let records: Vec<Record> = records.into_iter().flatten().collect();
        store.record(&records).await.unwrap();
        changes.tag
    }

    async fn facts(store: &MemoryStore, most: usize) -> (PassFacts, Vec<Phone>) {
        let gathered = gather(store, &pass("A"), None, None, most).await;
        let (facts, phones, _) = gathered.unwrap();
        (facts, phones)
    }

    async fn knows(store: &MemoryStore) -> Knows {
        facts(store, 1).await.1[0].knows
    }

    #[tokio::test]
    async fn a_phone_knows_what_the_tag_covers_that_it_holds() {
        let store = MemoryStore::new();
        publish(&store, "A", 1).await;
        register(&store, 0, "A").await;
        assert_eq!(knows(&store).await, Knows::Unknown);
        let first = ask(&store, 0, None).await;
        let is_newest = |knows| matches!(knows, Knows::Newest { told_at: Some(_) });
        assert!(is_newest(knows(&store).await));
        publish(&store, "A", 2).await;
        assert_eq!(knows(&store).await, Knows::Older);
        let second = ask(&store, 0, Some(first)).await;
        assert!(is_newest(knows(&store).await));
        ask(&store, 0, Some(second)).await;
        assert!(is_newest(knows(&store).await));

        // The phone is told of another pass. So it is unknown when it was told of this one.
        publish(&store, "B", 1).await;
        register(&store, 0, "B").await;
        ask(&store, 0, Some(second)).await;
        assert_eq!(knows(&store).await, Knows::Newest { told_at: None });
        // The phone lost its last answers.
        ask(&store, 0, Some(first)).await;
        assert!(is_newest(knows(&store).await));
    }

    #[tokio::test]
    async fn a_tag_from_before_the_registration_covers_no_pass() {
        let store = MemoryStore::new();
        publish(&store, "A", 1).await;
        register(&store, 0, "B").await;
        ask(&store, 0, None).await;
        register(&store, 0, "A").await;
        assert_eq!(knows(&store).await, Knows::Older);
    }

    #[tokio::test]
    async fn pushes_are_pending_until_they_end() {
        let store = MemoryStore::new();
        let type_id = pass("A").type_id;
        assert_eq!(facts(&store, 1).await.0.pushes.pending, Pending::No);
        publish(&store, "A", 1).await;
        let pending = facts(&store, 1).await.0.pushes.pending;
        assert_eq!(pending, Pending::Yes { begun: false });
        let change = store.pending(&type_id, 1).await.unwrap().remove(0);
        let progress = |next| Progress {
            version: change.version,
            next,
        };
        let begun = progress(Some(passkit_server::store::PageCursor::new("D-0")));
        for (progress, expected) in [
            (begun, Pending::Yes { begun: true }),
            (progress(None), Pending::No),
        ] {
            let progress = [(change.scope.clone(), progress)];
            store.record_progress(&type_id, &progress).await.unwrap();
            assert_eq!(facts(&store, 1).await.0.pushes.pending, expected);
        }
        store.mark_and_push(&type_id, Changed::All).await.unwrap();
        let pending = facts(&store, 1).await.0.pushes.pending;
        assert_eq!(pending, Pending::Yes { begun: false });
    }

    #[tokio::test]
    async fn a_change_of_the_whole_type_is_recorded_of_the_type() {
        let store = MemoryStore::new();
        let type_id = pass("A").type_id;
        store.mark_and_push(&type_id, Changed::All).await.unwrap();
        let version = store.pass_state(&pass("A")).await.unwrap().version;
        let of = |subject, event, version, count| Record {
            subject,
            event,
            version,
            count,
            at: version,
            detail: String::new(),
        };
        let (of_type, of_pass) = (Subject::Type(type_id), Subject::Pass(pass("A")));
        let records = [
            of(of_type.clone(), Event::PushAccepted, version, 9),
            of(of_pass.clone(), Event::PushAccepted, version - 1, 1),
        ];
        store.record(&records).await.unwrap();
        let accepted = facts(&store, 1).await.0.pushes.accepted.unwrap();
        assert_eq!((accepted.version, accepted.count), (version, 9));
        // The pass has changed alone since then.
        publish(&store, "A", 1).await;
        let version = store.pass_state(&pass("A")).await.unwrap().version;
        let accepted = facts(&store, 1).await.0.pushes.accepted.unwrap();
        assert_eq!(accepted.count, 1);
        store
            .record(&[of(of_pass, Event::PushAccepted, version, 2)])
            .await
            .unwrap();
        let accepted = facts(&store, 1).await.0.pushes.accepted.unwrap();
        assert_eq!((accepted.version, accepted.count), (version, 2));
    }

    #[tokio::test]
    async fn recorded_changes_count_if_they_are_about_the_newest_version() {
        let store = MemoryStore::new();
        publish(&store, "A", 7).await;
        let version = store.pass_state(&pass("A")).await.unwrap().version;
        let (second, summary) = (1_000_000, "visible=1 messages=0 hidden=0: balance");
        for (at, digest, is_known) in [
            (version, "0707070707070707", true),
            (version + second, "0707070707070707", true),
            (version - 50 * second, "0707070707070707", true),
            (version - 70 * second, "0707070707070707", false),
            (version + 70 * second, "0707070707070707", false),
            (version, "0707070707070708", false),
        ] {
            let subject = Subject::Pass(pass("A"));
            store.forget(slice::from_ref(&subject)).await.unwrap();
            let record = Record {
                subject,
                event: Event::ContentChanged,
                version: 0,
                count: 1,
                at,
                detail: format!("{digest} {summary}"),
            };
            store.record(&[record]).await.unwrap();
            let changes = facts(&store, 1).await.0.recorded_changes;
            let expected = is_known.then(|| summary.to_owned());
            assert_eq!(
                changes.map(|changes| changes.to_string()),
                expected,
                "{at} {digest}"
            );
        }
    }

    #[tokio::test]
    async fn a_pass_behind_many_others_may_be_pending() {
        let store = MemoryStore::new();
        for number in 0..PENDING {
            publish(&store, &format!("other-{number}"), 1).await;
        }
        publish(&store, "A", 1).await;
        let pending = facts(&store, 1).await.0.pushes.pending;
        assert_eq!(pending, Pending::Unknown);
    }

    #[tokio::test]
    async fn few_of_many_phones_are_read_with_what_is_theirs() {
        let store = MemoryStore::new();
        let type_id = pass("A").type_id;
        for number in 0..250 {
            register(&store, number, "A").await;
            ask(&store, number, None).await;
        }
        let due = SystemTime::now() + Duration::from_secs(60);
        let deferred = DeferredPush {
            push_token: PushToken::new("c0ffee").unwrap(),
            due: Some(due),
            attempts: 2,
            bad_since: None,
        };
        let push = [(device(7), Some(deferred))];
        store.defer(&type_id, &push).await.unwrap();
        let (pass, phones) = facts(&store, 100).await;
        assert_eq!((pass.registrations.count, phones.len()), (250, 100));
        let (_, phones) = facts(&store, 1_000).await;
        let names: HashSet<&str> = phones.iter().map(|phone| &*phone.name).collect();
        assert_eq!((phones.len(), names.len()), (250, 250));
        let with_push: Vec<&Phone> = phones
            .iter()
            .filter(|phone| phone.deferred.is_some())
            .collect();
        assert_eq!(with_push.len(), 1);
        assert_eq!(with_push[0].name, name_of(&type_id, &device(7)));
        assert_eq!(with_push[0].deferred.unwrap().due, Some(Time::of(due)));
        assert!(phones.iter().all(|phone| phone.asked.is_some()));
    }

    #[tokio::test]
    async fn records_are_kept_apart_by_version_and_kind() {
        let store = MemoryStore::new();
        let of = |event, version, detail: &str| Record {
            subject: Subject::Pass(pass("A")),
            event,
            version,
            count: 3,
            at: 5,
            detail: detail.into(),
        };
        let failed = Event::PushFailed(PushFailure::BadToken);
        let records = [
            of(Event::Fetched, 7, ""),
            of(Event::Refused(Denial::Scheme), 0, ""),
            of(failed, 7, "BadDeviceToken"),
            of(Event::Complaint(Complaint::SpuriousPush), 0, "said"),
        ];
        store.record(&records).await.unwrap();
        let (facts, phones) = facts(&store, 1).await;
        assert!(phones.is_empty());
        let fetched = facts.fetched.unwrap();
        assert_eq!(
            (fetched.version, fetched.count, fetched.at),
            (7, 3, Time(5))
        );
        assert_eq!(facts.refused[0].0, Denial::Scheme);
        assert_eq!(facts.complaints[0].1.detail, "said");
        assert_eq!(facts.pushes.failed[0].1.detail, "BadDeviceToken");
        assert_eq!((facts.unchanged, facts.pushes.accepted), (None, None));
    }
}
