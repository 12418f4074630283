//! Cases about bulk import and export, and about the counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    sync::Arc,
};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    maintenance::{Registration, StoreMaintenance, StoreStats, TypeStats},
    store::{Audience, Content, PageCursor, Registered},
};

use super::{
    case::catalogue,
    names::{
        Device, devices_of, foreign_push_tokens, has_devices, new_passes, new_push_token, new_type,
        pass_of, serials,
    },
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "store/register-many-equals-single-registers" Must [MAINTENANCE C3 C10] maintenance
        register_many_equals_single_registers,
        "Registers new and known devices and passes in bulk, some of them twice with two push tokens. \
         Then registers an empty batch. A device asks for its list with an earlier tag, and the \
         pages are read.",
        "Phones that were imported from another service get no pushes, or miss changes from the \
         meantime.";
    "store/register-many-twice-adds-nothing" Must [MAINTENANCE C10] maintenance
        register_many_twice_adds_nothing,
        "Registers the same 2,500 registrations in bulk twice. Counts the new registrations, and then \
         all registrations.",
        "If an interrupted import is repeated, registrations are counted twice.";
    "store/all-registrations-come-back" Must [MAINTENANCE] maintenance all_registrations_come_back,
        "Reads all registrations in pages of 1, 7, 1,000 and other sizes. Also reads after cursors \
         that the store never issued.",
        "Some phones are lost when a service moves to another store.";
    "store/all-registrations-come-back-under-change" Must [MAINTENANCE] maintenance
        all_registrations_come_back_under_change,
        "Reads all registrations in pages of 10. Between two pages, some devices register, some \
         unregister and some register again. The last device on a page is the next to unregister.",
        "A phone is lost because another phone deleted a pass during the move.";
    "store/all-published-passes-come-back" Must [MAINTENANCE] maintenance all_published_passes_come_back,
        "Publishes content and removals for passes of three types, and marks and registers others. \
         Reads all published passes in pages of 1, 7, 1,000 and other sizes. Also reads after \
         cursors that the store never issued.",
        "When a service moves to another store, it loses authentication tokens, and phones with \
         old copies of a pass are refused.";
    "store/stats-count-what-is-there" Must [MAINTENANCE] maintenance stats_count_what_is_there,
        "Registers, registers again, marks, unregisters and forgets. After each step, counts \
         devices, passes and registrations of each type.",
        "The owner sees a wrong number of phones.";
}

type Store = Arc<dyn StoreMaintenance>;

fn one(device: &Device, pass: &PassId) -> Registration {
    Registration {
        device: device.id.clone(),
        push_token: device.push_token.clone(),
        pass: pass.clone(),
    }
}

async fn registers(
    store: &Store,
    registrations: &[Registration],
    new: u64,
) -> Result<(), Violation> {
    let created = store.register_many(registrations).await?;
    ensure(
        Rule::MAINTENANCE,
        created == new,
        format!("{new} new registrations of {}", registrations.len()),
        || created.to_string(),
    )
}

async fn register_many_equals_single_registers(store: &Store) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    let other = pass_of(&new_type()?, &passes[0].serial);
    store
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    let mut known = Device::registered_for(store, &passes[..2]).await?;
    let bystander = Device::registered_for(store, &passes[..1]).await?;
    let tag = known
        .lists_exactly(store, &type_id, &passes[..2], Rule::CHANGES_SINCE)
        .await?;
    registers(store, &[], 0).await?;
    known
        .list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::MAINTENANCE, "after an empty batch")?;

    let (mut new, earlier) = (Device::new()?, known.clone());
    known.push_token = new_push_token()?;
    let old = Device {
        push_token: new_push_token()?,
        ..new.clone()
    };
    let batch = [
        one(&earlier, &passes[1]),
        one(&old, &passes[0]),
        one(&known, &passes[2]),
        one(&old, &passes[0]),
        one(&new, &other),
        one(&new, &passes[3]),
        one(&known, &passes[2]),
    ];
    registers(store, &batch, 4).await?;
    let listed = known.list(store, &type_id, Some(tag)).await?;
    listed.has(
        &passes[1..3],
        Rule::C3,
        "after they were registered in bulk",
    )?;
    listed.is_within(&passes[..3])?;
    known
        .list(store, &type_id, Some(listed.tag))
        .await?
        .is_empty(Rule::C2, "when asked again with the new tag")?;
    known
        .lists_exactly(store, &type_id, &passes[..3], Rule::MAINTENANCE)
        .await?;
    new.lists_exactly(store, &type_id, [&passes[0], &passes[3]], Rule::MAINTENANCE)
        .await?;
    new.lists_exactly(store, &other.type_id, [&other], Rule::MAINTENANCE)
        .await?;
    has_devices(
        store,
        &passes[0],
        [&known, &bystander, &new],
        Rule::MAINTENANCE,
    )
    .await?;
    has_devices(store, &passes[2], [&known], Rule::MAINTENANCE).await?;
    has_devices(store, &other, [&new], Rule::MAINTENANCE).await?;

    // A known registration is imported again with another push token.
    let tag = known.list(store, &type_id, None).await?.tag;
    known.push_token = new_push_token()?;
    registers(store, &[one(&known, &passes[0])], 0).await?;
    for pass in [&passes[0], &passes[1], &passes[2]] {
        let found = devices_of(store, Audience::Pass(pass), 100, 10).await?;
        let mut of_device = found.iter().filter(|one| one.device == known.id);
        ensure(
            Rule::MAINTENANCE,
            of_device.all(|one| one.push_token.as_str() == known.push_token.as_str()),
            "the push token of the last bulk registration",
            || "another push token".into(),
        )?;
    }
    known.list(store, &type_id, Some(tag)).await?.has(
        &passes[..1],
        Rule::C3,
        "after a known registration was made in bulk again",
    )?;

    // Registrations that were made in bulk behave like all others.
    store
        .mark(
            &type_id,
            Changed::Passes(slice::from_ref(&passes[3].serial)),
        )
        .await?;
    new.push_token = new_push_token()?;
    let again = store.register(&new.id, &passes[3], &new.push_token).await?;
    ensure(
        Rule::MAINTENANCE,
        again == Registered::Existing,
        "Existing after a registration in bulk",
        || format!("{again:?}"),
    )?;
    let existed = store.unregister(&known.id, &passes[2]).await?;
    ensure(
        Rule::MAINTENANCE,
        existed,
        "a registration to unregister",
        || "none".into(),
    )?;
    has_devices(store, &passes[2], [], Rule::MAINTENANCE).await?;
    has_devices(store, &passes[3], [&new], Rule::MAINTENANCE).await
}

async fn register_many_twice_adds_nothing(store: &Store) -> Result<(), Violation> {
    const MANY: usize = 2_500;
    let (type_id, passes) = new_passes(5)?;
    let mut batch = Vec::new();
    for _ in 0..MANY / 5 {
        let device = Device::new()?;
        batch.extend(passes.iter().map(|pass| one(&device, pass)));
    }
    for (registrations, push_token) in batch.chunks_mut(5).zip(foreign_push_tokens()?) {
        registrations
            .iter_mut()
            .for_each(|one| one.push_token = push_token.clone());
    }
    for new in [MANY as u64, 0] {
        registers(store, &batch, new).await?;
        come_back(store, &batch, 1_000).await?;
        let type_stats = TypeStats {
            type_id: type_id.clone(),
            passes: 5,
            registrations: MANY as u64,
        };
        counts(
            store,
            MANY as u64 / 5,
            &[type_stats],
            "a registration in bulk",
        )
        .await?;
    }
    Ok(())
}

type Found = BTreeMap<(DeviceIdentifier, PassId), PushToken>;

/// Reads all pages after the cursor `after`.
async fn read(
    store: &Store,
    after: Option<PageCursor>,
    limit: usize,
    at_most: usize,
) -> Result<Found, Violation> {
    let mut found = Found::new();
    let mut after = after;
    for _ in 0..=(4 * at_most + 1_000) {
        let page = store.registrations(after.as_ref(), limit).await?;
        // A page may end with all registrations of its last device. No device of this case has more
        // than five.
        let about = limit.saturating_mul(2).saturating_add(64);
        ensure(
            Rule::MAINTENANCE,
            page.items.len() <= about,
            format!("a page of about {limit} registrations"),
            || page.items.len().to_string(),
        )?;
        found.extend(
            page.items
                .into_iter()
                .map(|one| ((one.device, one.pass), one.push_token)),
        );
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
    Err(Violation::new(
        Rule::MAINTENANCE,
        "pages that come to an end",
        "a next cursor on every page",
    ))
}

/// Ensures that the store returns exactly these registrations.
async fn come_back(store: &Store, wanted: &[Registration], limit: usize) -> Result<(), Violation> {
    let found = read(store, None, limit, wanted.len()).await?;
    holds(&found, wanted, limit)?;
    ensure(
        Rule::MAINTENANCE,
        found.len() == wanted.len(),
        format!("{} registrations in pages of {limit}", wanted.len()),
        || found.len().to_string(),
    )
}

fn holds(found: &Found, wanted: &[Registration], limit: usize) -> Result<(), Violation> {
    let lost = |one: &&Registration| {
        found
            .get(&(one.device.clone(), one.pass.clone()))
            .is_none_or(|token| token.as_str() != one.push_token.as_str())
    };
    let missing = wanted.iter().filter(lost).count();
    ensure(
        Rule::MAINTENANCE,
        missing == 0,
        format!(
            "all of {} registrations with their push tokens, in pages of {limit}",
            wanted.len()
        ),
        || format!("{missing} registrations missing or with another push token"),
    )
}

async fn all_registrations_come_back(store: &Store) -> Result<(), Violation> {
    come_back(store, &[], 10).await?;
    let (_, mut passes) = new_passes(4)?;
    passes[2].type_id = new_type()?;
    passes[3] = PassId::new("order.conformance", "A/1 \u{fc}")?;
    let mut wanted = Vec::new();
    let mut foreign = foreign_push_tokens()?.into_iter();
    for number in 0..90 {
        let mut device = Device::new()?;
        device.push_token = foreign.next().unwrap_or(device.push_token);
        for pass in passes.iter().skip(number % 4) {
            store.register(&device.id, pass, &device.push_token).await?;
            wanted.push(one(&device, pass));
        }
    }
    for limit in [1, 2, 7, 64, 1_000, 0, usize::MAX] {
        come_back(store, &wanted, limit).await?;
    }
    let long = "x y ".repeat(5_000);
    for text in ["", "no such page!", "\0", "\u{fffd}ü\u{1f3ab}", &long] {
        let found = read(store, Some(PageCursor::new(text)), 50, wanted.len()).await?;
        holds(&found, &wanted, 50)?;
    }
    Ok(())
}

async fn all_registrations_come_back_under_change(store: &Store) -> Result<(), Violation> {
    let (_, passes) = new_passes(3)?;
    let mut devices = Vec::new();
    for _ in 0..240 {
        devices.push(Device::registered_for(store, &passes[..2]).await?);
    }
    // One third of the devices unregisters, one third registers for one more pass, and one third
    // does nothing.
    let (mut going, mut growing, mut throughout) = (Vec::new(), Vec::new(), Vec::new());
    for (n, device) in devices.iter().enumerate() {
        match n % 3 {
            0 => going.push(device),
            1 => growing.push(device),
            _ => {}
        }
        if n % 3 != 0 {
            throughout.extend(passes[..2].iter().map(|pass| one(device, pass)));
        }
    }
    let mut found = Found::new();
    let mut after = None;
    for pages in 0..2_000 {
        let page = store.registrations(after.as_ref(), 10).await?;
        let last = page.items.last().map(|one| one.device.clone());
        found.extend(
            page.items
                .into_iter()
                .map(|one| ((one.device, one.pass), one.push_token)),
        );
        after = page.next;
        if after.is_none() {
            return holds(&found, &throughout, 10);
        }
        let at_the_end = going
            .iter()
            .position(|device| Some(&device.id) == last.as_ref());
        let goes = at_the_end
            .map(|at| going.swap_remove(at))
            .or_else(|| going.pop());
        if let Some(device) = goes {
            for pass in &passes[..2] {
                store.unregister(&device.id, pass).await?;
            }
        }
        if let Some(device) = growing.pop() {
            store
                .register(&device.id, &passes[2], &device.push_token)
                .await?;
        }
        if pages < 60 {
            Device::registered_for(store, &passes).await?;
        }
    }
    Err(Violation::new(
        Rule::MAINTENANCE,
        "pages that come to an end, although registrations change",
        "2,000 pages",
    ))
}

/// Reads all pages of published passes after the cursor `after`.
async fn read_published(
    store: &Store,
    after: Option<PageCursor>,
    limit: usize,
) -> Result<BTreeSet<PassId>, Violation> {
    let mut found = BTreeSet::new();
    let mut after = after;
    for _ in 0..2_000 {
        let page = store.published_passes(after.as_ref(), limit).await?;
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
    Err(Violation::new(
        Rule::MAINTENANCE,
        "pages of published passes that come to an end",
        "2,000 pages",
    ))
}

async fn all_published_passes_come_back(store: &Store) -> Result<(), Violation> {
    let (first, others) = (new_passes(60)?, new_passes(4)?);
    let third = PassId::new("order.conformance", "A/1 \u{fc}")?;
    let content = |pass: &PassId, digest| Content {
        serial: pass.serial.clone(),
        digest,
        tokens: Vec::new(),
    };
    let mut published = BTreeSet::new();
    for (type_id, passes, digest) in [
        (&first.0, &first.1[..50], Some([1; 32])),
        (&others.0, &others.1[..2], None),
        (&third.type_id, slice::from_ref(&third), Some([2; 32])),
    ] {
        let contents: Vec<Content> = passes.iter().map(|pass| content(pass, digest)).collect();
        store.mark(type_id, Changed::Contents(&contents)).await?;
        published.extend(passes.iter().cloned());
    }
    // The store knows these passes, but they were never published.
    store
        .mark(&first.0, Changed::Passes(&serials(&first.1[45..])))
        .await?;
    store.mark(&others.0, Changed::All).await?;
    Device::registered_for(store, &others.1).await?;

    let text = |passes: usize| format!("{passes} published passes");
    for limit in [1, 2, 7, 64, 1_000, 0, usize::MAX] {
        let found = read_published(store, None, limit).await?;
        ensure(
            Rule::MAINTENANCE,
            found == published,
            format!("{} in pages of {limit}", text(published.len())),
            || {
                let wrong = found.symmetric_difference(&published).count();
                format!(
                    "{}, of which {wrong} are missing or wrong",
                    text(found.len())
                )
            },
        )?;
    }
    for cursor in ["", "no such page!", "\0", "\u{fffd}ü\u{1f3ab}"] {
        let found = read_published(store, Some(PageCursor::new(cursor)), 50).await?;
        ensure(
            Rule::MAINTENANCE,
            found == published,
            format!(
                "{} after a cursor that the store never issued",
                text(published.len())
            ),
            || text(found.len()),
        )?;
    }
    Ok(())
}

/// Expects these counts. Only this case may use the store.
async fn counts(
    store: &Store,
    devices: u64,
    types: &[TypeStats],
    after: &str,
) -> Result<(), Violation> {
    let StoreStats {
        devices: counted,
        types: found,
        ..
    } = store.stats().await?;
    ensure(
        Rule::MAINTENANCE,
        counted == devices && found == types,
        format!("{devices} devices and {types:?} after {after}"),
        || format!("{counted} devices and {found:?}"),
    )
}

async fn stats_count_what_is_there(store: &Store) -> Result<(), Violation> {
    counts(store, 0, &[], "nothing").await?;
    let (two, mut passes) = new_passes(3)?;
    let one = TypeIdentifier::new(&format!("order.{}", two.as_str()))?;
    passes[0].type_id = one.clone();
    let of = |type_id: &TypeIdentifier, passes, registrations| TypeStats {
        type_id: type_id.clone(),
        passes,
        registrations,
    };
    let first = Device::registered_for(store, &passes).await?;
    let second = Device::registered_for(store, &passes[1..2]).await?;
    counts(store, 2, &[of(&one, 1, 1), of(&two, 2, 3)], "registering").await?;
    store
        .register(&second.id, &passes[1], &second.push_token)
        .await?;
    store.mark(&two, Changed::Passes(&serials(&passes))).await?;
    store.mark(&two, Changed::All).await?;
    counts(
        store,
        2,
        &[of(&one, 1, 1), of(&two, 2, 3)],
        "registering again and marks",
    )
    .await?;
    store.unregister(&first.id, &passes[0]).await?;
    counts(store, 2, &[of(&two, 2, 3)], "unregistering").await?;
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3_600);
    store.forget_device(&first.id, later).await?;
    counts(store, 1, &[of(&two, 1, 1)], "forgetting a device").await?;
    store.unregister(&second.id, &passes[1]).await?;
    counts(store, 0, &[], "unregistering all").await
}
