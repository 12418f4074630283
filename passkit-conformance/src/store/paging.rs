//! The devices of a pass, page by page.

use std::collections::HashSet;

use passkit_server::{Audience, Changed, DeviceIdentifier, PageCursor, RegistrationStore};

use crate::{Rule, Violation, violation::ensure};

use super::{
    catalogue,
    names::{Device, devices_after, devices_of, new_passes, new_push_token},
};

catalogue! {
    "store/pages-hold-every-device" Must [C11] store pages_hold_every_device,
        "130 devices register for a pass; it is read in pages of 1, 2, 7 and so on up to the greatest number, and of 0.",
        "Some phones get no push when the pass changes, or strangers do.";
    "store/unknown-pass-has-no-devices" Must [C11] store unknown_pass_has_no_devices,
        "Reads the devices of a pass that was only marked, and of one that was given up, with a cursor of another pass \
         and without.",
        "Pushes go to phones that do not have the pass.";
    "store/hostile-cursor-reads-from-the-start" Must [C11] store hostile_cursor_reads_from_the_start,
        "Reads pages from behind cursors that the store never gave: empty, endless, SQL, and what looks like a position.",
        "Pushing ends half way after an upgrade of the store, or shows the devices of others.";
    "store/pages-under-change-miss-nobody" Must [C11] store pages_under_change_miss_nobody,
        "240 devices are read in pages of 1 and of 10; between two pages devices come, go (the one at the page's end \
         first) and register again.",
        "A phone gets no push because another one deleted its pass at that moment.";
}

async fn pages_hold_every_device(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const DEVICES: usize = 130;
    let (_, passes) = new_passes(2)?;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(Device::registered_for(store, &passes[..1]).await?);
    }
    Device::registered_for(store, &passes[1..]).await?;
    for limit in [1, 2, 7, 64, DEVICES - 1, DEVICES, DEVICES + 1, 1_000, 0, usize::MAX] {
        let found = devices_of(store, Audience::Pass(&passes[0]), limit, DEVICES).await?;
        let missing = devices
            .iter()
            .filter(|device| {
                !found.iter().any(|one| one.device == device.id && one.push_token == device.push_token)
            })
            .count();
        let foreign = found.iter().filter(|one| devices.iter().all(|device| device.id != one.device)).count();
        ensure(
            Rule::C11,
            missing == 0 && foreign == 0,
            format!("all of {DEVICES} devices in pages of {limit}"),
            || format!("{missing} missing and {foreign} others"),
        )?;
    }
    Ok(())
}

async fn unknown_pass_has_no_devices(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(Device::registered_for(store, &passes[..1]).await?);
    }
    let cursor = store.devices(Audience::Pass(&passes[0]), None, 2).await?.next;
    store.mark(&type_id, Changed::Passes(std::slice::from_ref(&passes[1].serial))).await?;
    let left = Device::registered_for(store, &passes[2..]).await?;
    store.unregister(&left.id, &passes[2]).await?;
    for pass in &passes[1..] {
        for after in [None, cursor.clone()] {
            let found = devices_after(store, Audience::Pass(pass), after, 10, 10).await?;
            ensure(Rule::C11, found.is_empty(), "no devices of a pass that is on none", || {
                format!("{} devices", found.len())
            })?;
        }
    }
    Ok(())
}

async fn hostile_cursor_reads_from_the_start(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(1)?;
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.push(Device::registered_for(store, &passes).await?);
    }
    let long = "x y ".repeat(5_000);
    for text in ["", "no such page!", "\0", " \n", "'; DROP TABLE device; --", "\u{fffd}ü\u{1f3ab}", &long] {
        let after = Some(PageCursor::new(text));
        let found = devices_after(store, Audience::Pass(&passes[0]), after, 6, 20).await?;
        let seen: HashSet<_> = found.iter().map(|one| &one.device).collect();
        let missing = devices.iter().filter(|device| !seen.contains(&device.id)).count();
        ensure(
            Rule::C11,
            missing == 0,
            "all devices from behind a cursor that the store never gave",
            || format!("{missing} of 20 missing"),
        )?;
    }
    // These may look like positions to a store: whatever they skip, they must neither fail nor show strangers.
    for text in ["0", "-1", "18446744073709551616", "null", "zzzz", "%00", "0:0", "{}", "*"] {
        let after = Some(PageCursor::new(text));
        let found = devices_after(store, Audience::Pass(&passes[0]), after, 6, 20)
            .await
            .map_err(|e| e.under(Rule::C11))?;
        let foreign = found.iter().filter(|one| devices.iter().all(|device| device.id != one.device)).count();
        ensure(Rule::C11, foreign == 0, "devices of the pass only", || format!("{foreign} others"))?;
    }
    Ok(())
}

async fn pages_under_change_miss_nobody(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const DEVICES: usize = 240;
    let (_, passes) = new_passes(1)?;
    let pass = &passes[0];
    for limit in [1, 10] {
        let mut devices = Vec::new();
        for _ in 0..DEVICES {
            devices.push(Device::registered_for(store, [pass]).await?);
        }
        // A third goes, a third registers again, a third is left alone.
        let (mut going, mut renewing): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
        for (n, device) in devices.iter().enumerate() {
            match n % 3 {
                0 => going.push(device.id.clone()),
                1 => renewing.push(device.id.clone()),
                _ => {}
            }
        }
        let throughout: HashSet<DeviceIdentifier> =
            devices.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, one)| one.id.clone()).collect();
        let mut seen = HashSet::new();
        let mut after = None;
        let mut pages = 0;
        loop {
            let page = store.devices(Audience::Pass(pass), after.as_ref(), limit).await?;
            after = page.next;
            seen.extend(page.items.iter().map(|one| one.device.clone()));
            if after.is_none() {
                break;
            }
            pages += 1;
            ensure(Rule::C11, pages < 8 * DEVICES, "pages that come to an end under change", || {
                format!("{pages} pages")
            })?;
            // The end of the page first, if it is one of those that go.
            if let Some(last) = page.items.last().map(|one| &one.device)
                && let Some(at) = going.iter().position(|id| id == last)
            {
                store.unregister(&going.swap_remove(at), pass).await?;
            } else if let Some(id) = going.pop() {
                store.unregister(&id, pass).await?;
            }
            if let Some(id) = renewing.pop() {
                store.register(&id, pass, &new_push_token()?).await?;
            }
            if pages % 2 == 0 && pages < DEVICES / 2 {
                Device::registered_for(store, [pass]).await?;
            }
        }
        let missing = throughout.difference(&seen).count();
        ensure(
            Rule::C11,
            missing == 0,
            format!("the {} devices that were registered throughout", throughout.len()),
            || format!("{missing} of them missing, in pages of {limit}"),
        )?;
    }
    Ok(())
}
