//! What a device is told, one call at a time.

use std::{collections::BTreeSet, slice};

use passkit_server::{RegistrationStore, UpdateTag, clock};

use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

use super::names::{Device, new_passes, new_type, pass_of, serial, serials};

/// What `updated_since` says: without a tag all passes of the type on the device, each once, however often they
/// were marked or registered.
///
/// # Errors
/// A breach of the contract.
pub async fn no_tag_lists_all<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(5)?;
    store.mark_updated(&type_id, &serials(&passes[..1])).await?;
    let device = Device::holding(store, &passes).await?;
    device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    for _ in 0..3 {
        store.mark_updated(&type_id, &serials(&passes[..2])).await?;
        store.register(&device.id, &passes[2], &device.push_token).await?;
    }
    for _ in 0..2 {
        device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    }
    Ok(())
}

/// What `updated_since` says: passes of other devices are not listed, marked or not.
///
/// # Errors
/// A breach of the contract.
pub async fn list_keeps_devices_apart<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(10)?;
    let one = Device::holding(store, &passes[..6]).await?;
    let two = Device::holding(store, &passes[5..]).await?;
    let tag_one = one.lists_exactly(store, &type_id, &passes[..6], Rule::UPDATED_SINCE).await?;
    let tag_two = two.lists_exactly(store, &type_id, &passes[5..], Rule::UPDATED_SINCE).await?;
    store.mark_updated(&type_id, &serials(&passes)).await?;
    let listed = one.list(store, &type_id, Some(tag_one)).await?;
    listed.is_within(&passes[..6])?;
    listed.has(&passes[..6], Rule::C1, "after a mark of all")?;
    let listed = two.list(store, &type_id, Some(tag_two)).await?;
    listed.is_within(&passes[5..])?;
    listed.has(&passes[5..], Rule::C1, "after a mark of all")
}

/// What `updated_since` says: passes of other types are not listed, and equal serial numbers of two types are two.
///
/// # Errors
/// A breach of the contract.
pub async fn list_keeps_types_apart<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (one, ones) = new_passes(3)?;
    let two = new_type()?;
    let twos = [
        pass_of(&two, &ones[0].serial),
        pass_of(&two, &serial("only-two")?),
        pass_of(&two, &serial("more")?),
    ];
    let device = Device::holding(store, &[&ones[..], &twos[..]].concat()).await?;
    let tag_one = device.lists_exactly(store, &one, &ones, Rule::UPDATED_SINCE).await?;
    let tag_two = device.lists_exactly(store, &two, &twos, Rule::UPDATED_SINCE).await?;
    store.mark_updated(&two, &serials(&twos)).await?;
    device.list(store, &one, Some(tag_one)).await?.is_within(&ones)?;
    let listed = device.list(store, &two, Some(tag_two)).await?;
    listed.is_within(&twos)?;
    listed.has(&twos, Rule::C1, "after a mark")?;
    // Marks of one type under the tag of the other: over-reporting at most.
    store.mark_updated(&one, slice::from_ref(&ones[0].serial)).await?;
    device.list(store, &one, Some(tag_one)).await?.has(&ones[..1], Rule::C1, "after a mark")?;
    store.unregister(&device.id, &ones[0]).await?;
    device.lists_exactly(store, &one, &ones[1..], Rule::UPDATED_SINCE).await?;
    device.lists_exactly(store, &two, &twos, Rule::UPDATED_SINCE).await?;
    device.list(store, &new_type()?, None).await?.is_empty(Rule::UPDATED_SINCE, "for a type not held")
}

/// What `updated_since` says: a device that is unknown, or holds nothing of the type, has no changes, with any tag.
///
/// # Errors
/// A breach of the contract.
pub async fn unknown_device_has_no_changes<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(2)?;
    let (_, others) = new_passes(1)?;
    let known = Device::holding(store, &passes).await?;
    let elsewhere = Device::holding(store, &others).await?;
    store.mark_updated(&type_id, &serials(&passes)).await?;
    let tag = known.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    for device in [Device::new()?, elsewhere] {
        for since in [None, Some(tag), Some(ZERO), Some(FAR)] {
            device
                .list(store, &type_id, since)
                .await?
                .is_empty(Rule::UPDATED_SINCE, "for a device that holds none of the type")?;
        }
    }
    Ok(())
}

const ZERO: UpdateTag = UpdateTag { type_version: 0, device_version: 0 };
const FAR: UpdateTag = UpdateTag { type_version: u64::MAX, device_version: u64::MAX };

/// C1: a marked pass is in the next list, be it marked alone or in a batch, twice in one, or beside passes that are
/// unknown. An empty batch does nothing.
///
/// # Errors
/// A breach of the contract.
pub async fn marked_pass_is_listed<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(6)?;
    store.mark_updated(&type_id, &serials(&passes[..1])).await?;
    let device = Device::holding(store, &passes).await?;
    let mut tag = device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    store.mark_updated(&type_id, &[]).await?;
    device.list(store, &type_id, Some(tag)).await?.is_empty(Rule::MARK_UPDATED, "after an empty batch")?;

    let unknown = serial("on-no-device")?;
    let batches = [
        vec![passes[0].serial.clone()],
        vec![passes[5].serial.clone()],
        serials(&passes[1..4]),
        vec![passes[4].serial.clone(), unknown.clone(), passes[4].serial.clone()],
        serials(&passes),
    ];
    for batch in &batches {
        store.mark_updated(&type_id, batch).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has(passes.iter().filter(|pass| batch.contains(&pass.serial)), Rule::C1, "after its mark")?;
        listed.is_within(&passes)?;
        tag = listed.tag;
    }
    store.mark_updated(&type_id, slice::from_ref(&unknown)).await?;
    store.mark_updated(&new_type()?, slice::from_ref(&unknown)).await?;
    device.list(store, &type_id, Some(tag)).await?.is_within(&passes)
}

/// C1, C4: marks that follow one another as fast as the store takes them, with a list after each, are all listed.
/// Tags of whole seconds or milliseconds fail here.
///
/// # Errors
/// A breach of the contract.
pub async fn every_mark_counts_however_close<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(2)?;
    let device = Device::holding(store, &passes).await?;
    let mut tag = device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
    for round in 0..200 {
        let pass = &passes[round % 3 % 2];
        store.mark_updated(&type_id, slice::from_ref(&pass.serial)).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has([pass], Rule::C1, "right after its mark")?;
        demand(Rule::C4, listed.tag.type_version > tag.type_version, "a later tag after a mark", || {
            format!("{} after {tag}", listed.tag)
        })?;
        tag = listed.tag;
    }
    Ok(())
}

/// C2: asking with the returned tag gives nothing, as often as one asks: after registering, marking, marking all, and
/// unregistering.
///
/// # Errors
/// A breach of the contract.
pub async fn asking_again_gives_nothing<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(4)?;
    let device = Device::holding(store, &passes).await?;
    let mut since = None;
    for step in 0..6 {
        let what = match step {
            0 => "registering",
            1 => {
                store.mark_updated(&type_id, &serials(&passes[..2])).await?;
                "a mark"
            }
            2 => {
                store.mark_all_updated(&type_id).await?;
                "a mark of all"
            }
            3 => {
                store.register(&device.id, &passes[3], &device.push_token).await?;
                "registering again"
            }
            4 => {
                store.unregister(&device.id, &passes[3]).await?;
                "unregistering"
            }
            _ => {
                store.mark_updated(&type_id, &serials(&passes)).await?;
                "a mark that names a pass not held"
            }
        };
        let listed = device.list(store, &type_id, since).await?;
        let mut tag = listed.tag;
        if listed.serials.is_empty() {
            // A device keeps its tag when nothing is listed.
            tag = since.unwrap_or(tag);
        }
        for _ in 0..3 {
            let again = device.ask(store, &type_id, Some(tag)).await?;
            again.is_empty(Rule::C2, &format!("when asked again after {what}"))?;
        }
        since = Some(tag);
    }
    Ok(())
}

/// C3: a pass registered after a tag was issued is listed for that tag, be it older, never marked, registered again,
/// or back after unregistering.
///
/// # Errors
/// A breach of the contract.
pub async fn new_registration_counts<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(4)?;
    store.mark_updated(&type_id, &serials(&passes[2..])).await?;
    let device = Device::holding(store, &passes[..1]).await?;
    store.mark_updated(&type_id, &serials(&passes[..1])).await?;
    let mut tag = device.lists_exactly(store, &type_id, &passes[..1], Rule::UPDATED_SINCE).await?;
    let registers = [
        (1, "after its first registration, never marked"),
        (2, "after its first registration, marked before the tag"),
        (0, "after registering again"),
        (0, "after registering again"),
        (3, "after its first registration, marked before the tag"),
    ];
    for (pass, when) in registers {
        store.register(&device.id, &passes[pass], &device.push_token).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has([&passes[pass]], Rule::C3, when)?;
        listed.is_within(&passes)?;
        tag = listed.tag;
    }
    store.unregister(&device.id, &passes[1]).await?;
    store.register(&device.id, &passes[1], &device.push_token).await?;
    device.list(store, &type_id, Some(tag)).await?.has([&passes[1]], Rule::C3, "after it came back")
}

/// C4: over a history of marks and registrations no part of the tags given to a device goes back, whatever tag it
/// asks with, and reading moves nothing.
///
/// # Errors
/// A breach of the contract.
pub async fn tags_never_go_back<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(12)?;
    let device = Device::holding(store, &passes[..1]).await?;
    let bystander = Device::holding(store, &passes).await?;
    let mut last = device.lists_exactly(store, &type_id, &passes[..1], Rule::UPDATED_SINCE).await?;
    let mut tags = vec![last];
    for round in 0..60 {
        match round % 6 {
            0 => store.mark_updated(&type_id, slice::from_ref(&passes[0].serial)).await?,
            1 => drop(store.register(&device.id, &passes[round % 12], &device.push_token).await?),
            2 => store.mark_updated(&type_id, &serials(&passes[round % 10..])).await?,
            3 => drop(store.register(&bystander.id, &passes[0], &bystander.push_token).await?),
            4 if round % 12 == 4 => store.mark_all_updated(&type_id).await?,
            4 => drop(store.unregister(&bystander.id, &passes[1]).await?),
            _ => {}
        }
        let oldest = tags.first().copied();
        for since in [Some(last), oldest, None] {
            let listed = device.list(store, &type_id, since).await?;
            if listed.serials.is_empty() {
                continue;
            }
            let forward = listed.tag.type_version >= last.type_version
                && listed.tag.device_version >= last.device_version;
            demand(Rule::C4, forward, format!("a tag not before {last}"), || listed.tag.to_string())?;
            last = listed.tag;
            tags.push(last);
        }
    }
    Ok(())
}

/// C5: a tag ahead of the store's clocks, in either part, is answered with everything, and the tag that comes with it
/// works.
///
/// # Errors
/// A breach of the contract.
pub async fn tag_ahead_counts_as_none<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    const HOUR: u64 = 3_600_000_000;
    let (type_id, passes) = new_passes(3)?;
    let device = Device::holding(store, &passes).await?;
    // First with a type that was never marked.
    for marked in [false, true] {
        if marked {
            store.mark_updated(&type_id, &serials(&passes[..2])).await?;
        }
        let now = device.lists_exactly(store, &type_id, &passes, Rule::UPDATED_SINCE).await?;
        let ahead = clock::now_micros() + HOUR;
        for since in [
            UpdateTag { type_version: ahead, ..now },
            UpdateTag { device_version: ahead, ..now },
            UpdateTag { type_version: ahead, device_version: ahead },
            UpdateTag { type_version: ahead, device_version: 0 },
            UpdateTag { type_version: 0, device_version: ahead },
            UpdateTag { type_version: i64::MAX as u64, device_version: i64::MAX as u64 },
            UpdateTag { type_version: i64::MAX as u64 + 1, ..now },
            FAR,
        ] {
            let listed = device.list(store, &type_id, Some(since)).await?;
            listed.has(&passes, Rule::C5, "for a tag ahead of the clocks")?;
            listed.is_within(&passes)?;
            let behind = listed.tag.type_version < ahead && listed.tag.device_version < ahead;
            demand(Rule::C5, behind, "a tag of the store's own clocks", || {
                "one that is ahead as well".into()
            })?;
            device
                .list(store, &type_id, Some(listed.tag))
                .await?
                .is_empty(Rule::C2, "when asked again after a tag ahead")?;
        }
        device.list(store, &type_id, Some(ZERO)).await?.has(
            &passes,
            Rule::C3,
            "for the first of all tags",
        )?;
    }
    Ok(())
}

/// C1, C3, C7: over a history of marks and registrations, every tag ever given still gets all that came after it.
///
/// # Errors
/// A breach of the contract.
pub async fn old_tags_miss_nothing<S: RegistrationStore + ?Sized>(store: &S) -> Kept {
    let (type_id, passes) = new_passes(8)?;
    let device = Device::new()?;
    let mut random = Sequence(0x2545_f491_4f6c_dd1d);
    let mut held = BTreeSet::new();
    // Each tag with the passes that changed, or were registered, since.
    let mut tags: Vec<(UpdateTag, BTreeSet<usize>)> = Vec::new();
    for _ in 0..250 {
        let pass = random.below(passes.len());
        let changed: BTreeSet<usize> = match random.below(12) {
            0..=4 => [pass].into(),
            5 => (0..passes.len()).collect(),
            6..=7 => [pass, random.below(passes.len()), random.below(passes.len())].into(),
            8..=10 => {
                store.register(&device.id, &passes[pass], &device.push_token).await?;
                held.insert(pass);
                tags.iter_mut().for_each(|(_, since)| since.extend([pass]));
                continue;
            }
            // A device that loses its last registration starts anew; that is another history.
            _ if held.len() > 1 => {
                store.unregister(&device.id, &passes[pass]).await?;
                held.remove(&pass);
                continue;
            }
            _ => BTreeSet::new(),
        };
        if changed.len() == passes.len() {
            store.mark_all_updated(&type_id).await?;
        } else {
            let batch: Vec<_> = changed.iter().map(|pass| passes[*pass].serial.clone()).collect();
            store.mark_updated(&type_id, &batch).await?;
        }
        for (_, since) in &mut tags {
            since.extend(&changed);
        }
        let registered: Vec<_> = held.iter().map(|pass| passes[*pass].clone()).collect();
        for (tag, since) in tags.iter().rev().step_by(3).take(8) {
            let listed = device.list(store, &type_id, Some(*tag)).await?;
            let due = since.iter().filter(|pass| held.contains(pass)).map(|pass| &passes[*pass]);
            listed.has(due, Rule::C7, "as it changed after the tag")?;
            listed.is_within(&registered)?;
        }
        if let Some((tag, _)) = tags.last() {
            let listed = device.list(store, &type_id, Some(*tag)).await?;
            if !listed.serials.is_empty() {
                tags.push((listed.tag, BTreeSet::new()));
            }
        } else if !held.is_empty() {
            let tag = device.lists_exactly(store, &type_id, &registered, Rule::UPDATED_SINCE).await?;
            tags.push((tag, BTreeSet::new()));
        }
    }
    if tags.len() < 10 {
        return Err(Breach::new(Rule::C1, "a list that names passes now and then", "none"));
    }
    Ok(())
}

/// A fixed sequence of numbers (xorshift): a failing history is the same in the next run.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }
}
