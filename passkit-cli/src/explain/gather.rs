//! Reads the facts from a store. The number of calls depends on the number of phones to show, and
//! not on the number of phones that have the pass.

use std::{
    collections::{HashMap, HashSet},
    slice,
};

use passkit_server::{
    PassId,
    delivery::{Complaint, DeliveryLog, Denial, Event, PushFailure, Record, Subject},
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{PendingChange, Scope},
    store::{Audience, PageCursor, StoreError, UpdateTag},
};

use super::{
    content::Content,
    facts::{
        Deferred, Knows, PassFacts, Pending, Phone, Pushes, Registrations, Seen, Time, name_of,
    },
};
use crate::store::Store;

/// Registrations are counted up to this number.
const COUNTED: u64 = 10_000;
/// How many pending changes of the type are searched for the pass.
const PENDING: usize = 1_000;
/// How many deferred pushes of the type are searched for the phones.
const DEFERRED: usize = 1_000;
/// The records of this many subjects are read at once.
const SUBJECTS: usize = 1_000;
/// At most this many pages of phones are read, because a store may return short pages.
const PAGES: usize = 100;

/// Reads what is known about a pass, and about a page of at most about `most_phones` of its phones.
/// Also returns where the next page begins.
pub(super) async fn gather(
    store: &dyn Store,
    log: Option<&dyn DeliveryLog>,
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
        records.extend(match log {
            Some(log) => log.records(subjects).await?,
            None => vec![Vec::new(); subjects.len()],
        });
    }
    let mut records = records.into_iter();
    let of_pass = Records(records.next().unwrap_or_default());
    let of_type = Records(records.next().unwrap_or_default());
    let deferred = deferred(store, &pass.type_id).await?;
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
        keeps_records: log.is_some(),
        fetched: of_pass.seen(Event::Fetched),
        unchanged: of_pass.seen(Event::Unchanged),
        refused: of_pass.refused(),
        complaints: of_pass.complaints(),
        pushes: Pushes {
            pending: pending(store, pass).await?,
            accepted: of_pass.seen(Event::PushAccepted),
            failed: of_pass.failed(),
            ended: ended(&of_pass, &of_type, state.version),
            type_accepted: of_type.seen(Event::PushAccepted).map(|seen| seen.at),
            type_failed: of_type.last_failed(),
        },
        content,
        recorded_changes: None,
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

async fn deferred(
    store: &dyn Store,
    type_id: &TypeIdentifier,
) -> Result<HashMap<DeviceIdentifier, Deferred>, StoreError> {
    let page = store.deferred(type_id, None, DEFERRED).await?;
    let pushes = page.items.into_iter().map(|(device, push)| {
        let deferred = Deferred {
            due: push.due.map(Time::of),
            attempts: push.attempts,
        };
        (device, deferred)
    });
    Ok(pushes.collect())
}

/// Returns the end of the pushes of the pass. If all passes of the type changed at once, only the
/// type has a record of it.
fn ended(of_pass: &Records, of_type: &Records, version: u64) -> Option<Seen> {
    let of_type = of_type.seen(Event::PushEnded);
    let of_all = of_type.filter(|seen| version > 0 && seen.version == version);
    let of_pass = of_pass.seen(Event::PushEnded);
    of_pass
        .filter(|seen| seen.version >= version || of_all.is_none())
        .or(of_all)
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
    let tags_told = told.as_ref().map_or(Vec::new(), |told| tags(&told.detail));
    let held = if told_at >= asked_at {
        tags_told.last().copied()
    } else {
        asked
            .as_ref()
            .and_then(|asked| tags(&asked.detail).first().copied())
    };
    // The phone was told of this version by its last answer with changes, unless it had the change
    // before.
    let was_told_then = tags_told.len() < 2 || tags_told[0].type_version < version;
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

/// Returns the update tags in a detail: the tag that the phone sent, and then the tag that it got.
fn tags(detail: &str) -> Vec<UpdateTag> {
    let is_of_tag = |c: char| c.is_ascii_hexdigit() || c == '-';
    detail
        .split(|c| !is_of_tag(c))
        .filter_map(UpdateTag::parse)
        .collect()
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

    fn last_failed(&self) -> Option<(PushFailure, Seen)> {
        self.failed().into_iter().next()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use passkit_server::{
        Changed,
        identifiers::PushToken,
        push::{DeferredPush, Progress, PushQueue as _},
        store::{Content, MemoryStore, RegistrationStore as _},
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
        let told = !changes.serials.is_empty();
        let record = Record {
            subject: Subject::Device(type_id, device),
            event: if told { Event::Told } else { Event::Asked },
            version: 0,
            count: 1,
            at: Time::now().0,
            detail: detail(since, told.then_some(changes.tag)),
        };
        store.record(&[record]).await.unwrap();
        changes.tag
    }

    fn detail(since: Option<UpdateTag>, tag: Option<UpdateTag>) -> String {
        let since = since.map(|tag| format!("since={tag}"));
        let tag = tag.map(|tag| format!("tag={tag}"));
        since.into_iter().chain(tag).collect::<Vec<_>>().join(" ")
    }

    async fn facts(store: &MemoryStore, most: usize) -> (PassFacts, Vec<Phone>) {
        let gathered = gather(store, Some(store), &pass("A"), None, None, most).await;
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
        assert_eq!(facts.pushes.type_failed, None);
        assert_eq!((facts.unchanged, facts.pushes.accepted), (None, None));
    }
}
