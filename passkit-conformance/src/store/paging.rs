//! Cases about the devices of a pass or a type, page by page, and about their number.

use std::{
    collections::HashSet,
    slice,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::{Audience, PageCursor, RegistrationStore},
};

use super::{
    case::catalogue,
    names::{
        Device, devices_after, expect_devices, new_passes, new_push_token, new_type, pass_of,
        serial,
    },
};
use crate::{Rule, Violation, violation::ensure};

catalogue! {
    "store/pages-hold-every-device" Must [C11] store pages_hold_every_device,
        "Registers 130 devices for a pass. Reads them in pages of many sizes: 1, 2, 7 and so on, \
         the greatest number, and 0.",
        "When the pass changes, some phones get no push, or phones without the pass get a push.";
    "store/pages-of-a-type-hold-every-device" Must [C11] store pages_of_a_type_hold_every_device,
        "Registers 130 devices for one or more of 40 passes of a type, and some also for another \
         type. Reads the devices of the type in pages of 1, 2, 7 and so on. Some devices \
         unregister, and the devices are read again.",
        "When the design of all passes changes, some phones get no push, or phones without a pass \
         get a push.";
    "store/unknown-pass-has-no-devices" Must [C11] store unknown_pass_has_no_devices,
        "Reads the devices of a pass that was only marked, of a pass that was unregistered, and of \
         types without passes. Each time, reads without a cursor and with a cursor of another \
         pass.",
        "Pushes go to phones that do not have the pass.";
    "store/hostile-cursor-reads-from-the-start" Must [C11] store
        hostile_cursor_reads_from_the_start,
        "Reads the devices of a pass and of a type after cursors that the store never issued. \
         The cursors are empty, very long, contain SQL, or look like a position.",
        "After an upgrade of the store, some phones get no push, or phones without the pass get a \
         push.";
    "store/pages-under-change-are-complete" Must [C11] store pages_under_change_are_complete,
        "Reads 240 devices in pages of 1 and of 10. Between two pages, some devices register, some \
         unregister and some register again. The last device on a page is the next to unregister.",
        "A phone gets no push, because another phone deleted its pass at the same time.";
    "store/pages-of-a-type-under-change-are-complete" Must [C11] store
        pages_of_a_type_under_change_are_complete,
        "Reads the 240 devices of a type of 12 passes in pages of 1 and of 10. Each device has one \
         or two passes. Between two pages, some devices register, some unregister and some \
         register again.",
        "When the design of all passes changes, a phone gets no push, because another phone \
         deleted its pass at the same time.";
    "store/devices-are-counted" Must [COUNT_DEVICES] store devices_are_counted,
        "Counts the devices of a pass after each change. The limit is 0, 1, less than the number \
         of devices, equal to this number, or greater.",
        "The owner sees a wrong number of phones for a pass.";
}

/// The page sizes to try for this number of devices.
fn limits(devices: usize) -> [usize; 10] {
    [
        1,
        2,
        7,
        64,
        devices - 1,
        devices,
        devices + 1,
        1_000,
        0,
        usize::MAX,
    ]
}

async fn pages_hold_every_device(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const DEVICES: usize = 130;
    let (_, passes) = new_passes(2)?;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(Device::registered_for(store, &passes[..1]).await?);
    }
    Device::registered_for(store, &passes[1..]).await?;
    for limit in limits(DEVICES) {
        expect_devices(
            store,
            Audience::Pass(&passes[0]),
            &devices,
            limit,
            Rule::C11,
        )
        .await?;
    }
    Ok(())
}

async fn pages_of_a_type_hold_every_device(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const DEVICES: usize = 130;
    let (type_id, mut passes) = new_passes(38)?;
    for odd in ["a/b", "\u{fc}:\u{1f3ab}"] {
        passes.push(pass_of(&type_id, &serial(odd)?));
    }
    let long = TypeIdentifier::new(&format!("{type_id}.b"))?;
    let order = TypeIdentifier::new(&type_id.as_str().replacen("pass.", "order.", 1))?;
    let beside = [
        pass_of(&long, &passes[0].serial),
        pass_of(&order, &passes[0].serial),
    ];
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        // One pass is on many devices, and some passes are on no device. Some devices have several
        // passes, adjacent or not.
        let first = if n % 3 == 0 { 0 } else { n % 31 };
        let mut registered: Vec<PassId> = match n % 4 {
            0 => vec![passes[first].clone()],
            1 => vec![passes[first].clone(), passes[first + 1].clone()],
            2 => vec![
                passes[38].clone(),
                passes[first].clone(),
                passes[39].clone(),
            ],
            _ => passes[first..first + 6].to_vec(),
        };
        if n % 5 == 0 {
            registered.extend_from_slice(&beside);
        }
        devices.push(Device::registered_for(store, &registered).await?);
    }
    let elsewhere = Device::registered_for(store, &beside[..1]).await?;
    for limit in limits(DEVICES) {
        expect_devices(store, Audience::Type(&type_id), &devices, limit, Rule::C11).await?;
    }
    let others = devices.iter().step_by(5);
    expect_devices(store, Audience::Type(&order), others.clone(), 7, Rule::C11).await?;
    expect_devices(
        store,
        Audience::Type(&long),
        others.chain([&elsewhere]),
        7,
        Rule::C11,
    )
    .await?;

    // A device belongs to the type until it unregisters its last pass of the type.
    for pass in &passes {
        store.unregister(&devices[0].id, pass).await?;
    }
    store.unregister(&devices[1].id, &passes[1]).await?;
    let later = SystemTime::now() + Duration::from_secs(3_600);
    store.forget_device(&devices[2].id, later).await?;
    devices[3].push_token = new_push_token()?;
    store
        .register(&devices[3].id, &beside[0], &devices[3].push_token)
        .await?;
    let left = devices[1..2].iter().chain(&devices[3..]);
    for limit in [1, 10, 1_000] {
        expect_devices(
            store,
            Audience::Type(&type_id),
            left.clone(),
            limit,
            Rule::C11,
        )
        .await?;
    }
    Ok(())
}

async fn unknown_pass_has_no_devices(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let mut devices = Vec::new();
    for _ in 0..4 {
        devices.push(Device::registered_for(store, &passes[..1]).await?);
    }
    let mut cursors = vec![None];
    for audience in [Audience::Pass(&passes[0]), Audience::Type(&type_id)] {
        cursors.push(store.devices(audience, None, 2).await?.next);
    }
    store
        .mark(
            &type_id,
            Changed::Passes(slice::from_ref(&passes[1].serial)),
        )
        .await?;
    let left = Device::registered_for(store, &passes[2..]).await?;
    store.unregister(&left.id, &passes[2]).await?;
    // A type that was only marked, and a type whose only device unregistered.
    let (marked, unregistered) = (new_type()?, new_type()?);
    store
        .mark(&marked, Changed::Passes(slice::from_ref(&passes[0].serial)))
        .await?;
    let of_another = pass_of(&unregistered, &passes[0].serial);
    store
        .register(&devices[0].id, &of_another, &devices[0].push_token)
        .await?;
    store.unregister(&devices[0].id, &of_another).await?;
    let nobody = [
        Audience::Pass(&passes[1]),
        Audience::Pass(&passes[2]),
        Audience::Type(&marked),
        Audience::Type(&unregistered),
    ];
    for audience in nobody {
        for after in &cursors {
            let found = devices_after(store, audience, after.clone(), 10, 10).await?;
            ensure(
                Rule::C11,
                found.is_empty(),
                "no devices, because the pass or type is on no device",
                || format!("{} devices", found.len()),
            )?;
        }
    }
    Ok(())
}

async fn hostile_cursor_reads_from_the_start(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(1)?;
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.push(Device::registered_for(store, &passes).await?);
    }
    let long = "x y ".repeat(5_000);
    for audience in [Audience::Pass(&passes[0]), Audience::Type(&type_id)] {
        for text in [
            "",
            "no such page!",
            "\0",
            " \n",
            "'; DROP TABLE device; --",
            "\u{fffd}ü\u{1f3ab}",
            &long,
        ] {
            let after = Some(PageCursor::new(text));
            let found = devices_after(store, audience, after, 6, 20).await?;
            let seen: HashSet<_> = found.iter().map(|one| &one.device).collect();
            let missing = devices
                .iter()
                .filter(|device| !seen.contains(&device.id))
                .count();
            ensure(
                Rule::C11,
                missing == 0,
                format!(
                    "all devices, because the store never issued the cursor {:?}",
                    &text[..text.len().min(40)]
                ),
                || format!("{missing} of 20 devices missing"),
            )?;
        }
        // A store may take these texts for positions and skip devices. But the store must not fail,
        // and must not return devices that are not registered.
        for text in [
            "0",
            "-1",
            "18446744073709551616",
            "null",
            "zzzz",
            "%00",
            "0:0",
            "{}",
            "*",
            "serial-0\nzz",
        ] {
            let after = Some(PageCursor::new(text));
            let found = devices_after(store, audience, after, 6, 20)
                .await
                .map_err(|e| e.under(Rule::C11))?;
            let foreign = found
                .iter()
                .filter(|one| devices.iter().all(|device| device.id != one.device))
                .count();
            ensure(Rule::C11, foreign == 0, "only registered devices", || {
                format!("{foreign} devices that are not registered")
            })?;
        }
    }
    Ok(())
}

async fn pages_under_change_are_complete(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(1)?;
    for limit in [1, 10] {
        under_change(store, Audience::Pass(&passes[0]), &passes, limit).await?;
    }
    Ok(())
}

async fn pages_of_a_type_under_change_are_complete(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(12)?;
    for limit in [1, 10] {
        under_change(store, Audience::Type(&type_id), &passes, limit).await?;
    }
    Ok(())
}

/// Reads the devices of an audience. The audience consists of the devices of these passes. Between
/// two pages, devices register and unregister.
async fn under_change(
    store: &dyn RegistrationStore,
    audience: Audience<'_>,
    passes: &[PassId],
    limit: usize,
) -> Result<(), Violation> {
    const DEVICES: usize = 240;
    // Some devices have two adjacent passes, others have two that are far apart.
    let of = |n: usize| {
        let (first, second) = (n % passes.len(), (n + 1 + n % 7) % passes.len());
        if n % 5 < 2 && first != second {
            vec![first, second]
        } else {
            vec![first]
        }
    };
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        devices.push(
            Device::registered_for(store, of(n).into_iter().map(|pass| &passes[pass])).await?,
        );
    }
    // One third of the devices unregisters, one third registers again, and one third does nothing.
    let (mut going, mut renewing): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for n in 0..DEVICES {
        match n % 3 {
            0 => going.push(n),
            1 => renewing.push(n),
            _ => {}
        }
    }
    let throughout: HashSet<DeviceIdentifier> = devices
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 3 != 0)
        .map(|(_, one)| one.id.clone())
        .collect();
    let mut seen = HashSet::new();
    let mut after = None;
    let mut pages = 0;
    loop {
        let page = store.devices(audience, after.as_ref(), limit).await?;
        after = page.next;
        seen.extend(page.items.iter().map(|one| one.device.clone()));
        if after.is_none() {
            break;
        }
        pages += 1;
        ensure(
            Rule::C11,
            pages < 16 * DEVICES,
            "pages that come to an end, although registrations change",
            || format!("{pages} pages"),
        )?;
        // If the last device on the page is one of the devices that unregister, it is the next to
        // do so.
        let last = page.items.last().map(|one| &one.device);
        let at_the_end = going.iter().position(|n| Some(&devices[*n].id) == last);
        if let Some(n) = at_the_end
            .map(|at| going.swap_remove(at))
            .or_else(|| going.pop())
        {
            for pass in of(n) {
                store.unregister(&devices[n].id, &passes[pass]).await?;
            }
        }
        if let Some(n) = renewing.pop() {
            store
                .register(
                    &devices[n].id,
                    &passes[n % passes.len()],
                    &new_push_token()?,
                )
                .await?;
        }
        if pages % 2 == 0 && pages < DEVICES / 2 {
            Device::registered_for(store, [&passes[pages % passes.len()]]).await?;
        }
    }
    let missing = throughout.difference(&seen).count();
    ensure(
        Rule::C11,
        missing == 0,
        format!(
            "the {} devices that were registered the whole time",
            throughout.len()
        ),
        || format!("{missing} of them missing, in pages of {limit}"),
    )
}

async fn devices_are_counted(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let beside = pass_of(&new_type()?, &passes[0].serial);
    let count = async |pass: &PassId, there: u64, when: &str| -> Result<(), Violation> {
        for at_most in [
            0,
            1,
            there.saturating_sub(1),
            there,
            there + 1,
            1_000,
            u64::MAX,
        ] {
            let counted = store.count_devices(pass, at_most).await?;
            ensure(
                Rule::COUNT_DEVICES,
                (there.min(at_most)..=there).contains(&counted),
                format!("{there} devices {when}, counted up to {at_most}"),
                || counted.to_string(),
            )?;
        }
        Ok(())
    };
    count(&passes[0], 0, "of an unknown type").await?;
    store
        .mark(
            &type_id,
            Changed::Passes(slice::from_ref(&passes[0].serial)),
        )
        .await?;
    count(&passes[0], 0, "of a pass that was only marked").await?;
    let mut devices = Vec::new();
    for _ in 0..40 {
        devices.push(Device::registered_for(store, [&passes[0], &beside]).await?);
    }
    Device::registered_for(store, &passes[1..]).await?;
    count(&passes[0], 40, "after they registered").await?;
    for device in &devices[..5] {
        store
            .register(&device.id, &passes[0], &new_push_token()?)
            .await?;
    }
    count(&passes[0], 40, "after some registered again").await?;
    for device in &devices[..10] {
        store.unregister(&device.id, &passes[0]).await?;
        store.unregister(&device.id, &passes[0]).await?;
    }
    count(&passes[0], 30, "after ten unregistered").await?;
    store
        .forget_device(
            &devices[20].id,
            SystemTime::now() + Duration::from_secs(3_600),
        )
        .await?;
    count(&passes[0], 29, "after one was forgotten").await?;
    count(&passes[1], 1, "of another pass").await?;
    count(&beside, 39, "of an equal serial number in another type").await
}
