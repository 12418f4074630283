//! Reads the facts from a store. The number of calls depends on the number of phones to show, and
//! not on the number of phones that have the pass.

use std::{collections::HashMap, slice};

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
/// At most this many pages of phones are read, because a store may return short pages.
const PAGES: usize = 100;

/// Reads what is known about a pass, and about a page of at most about `most_phones` of its phones. Also
/// returns where the next page begins.
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
    let mut records = match log {
        Some(log) => log.records(&subjects).await?,
        None => vec![Vec::new(); subjects.len()],
    }
    .into_iter();
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
    let mut devices = Vec::new();
    let mut after = after.cloned();
    for _ in 0..PAGES {
        let left = most.saturating_sub(devices.len());
        let audience = Audience::Pass(pass);
        let page = store.devices(audience, after.as_ref(), left).await?;
        for registered in page.items {
            if !devices.contains(&registered.device) {
                devices.push(registered.device);
            }
        }
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
