//! Cases about the list of a device, one call at a time.

use std::{collections::BTreeSet, slice};

use passkit_server::{
    Changed,
    store::{RegistrationStore, UpdateTag, clock},
};

use crate::{Rule, Violation, random::Random, violation::ensure};

use super::{
    case::catalogue,
    names::{Device, new_passes, new_type, pass_of, serial, serials},
};

catalogue! {
    "store/no-tag-lists-all" Must [CHANGES_SINCE C7] store no_tag_lists_all,
        "A device asks for its list without a tag, before and after some of its passes are marked \
         and registered again.",
        "A phone that lost its tag never gets updates for some of its passes again.";
    "store/list-keeps-devices-apart" Must [CHANGES_SINCE] store list_keeps_devices_apart,
        "One device has six of ten passes, another device has five, and both have one of them. All \
         ten passes are marked, and both devices ask for their lists.",
        "The list of a phone names serial numbers that belong to other people.";
    "store/list-keeps-types-apart" Must [CHANGES_SINCE] store list_keeps_types_apart,
        "A device has passes of two types. Two of them have the same serial number. Passes of each \
         type are marked, and the device asks for the list of each type.",
        "The list of a phone names passes of another type. The phone then asks for a pass that does \
         not exist, and reports the service as broken.";
    "store/unknown-device-has-no-changes" Must [CHANGES_SINCE] store unknown_device_has_no_changes,
        "An unknown device, and a device that has only passes of another type, ask for their lists \
         with and without a tag.",
        "A phone whose last pass was just removed gets an error, or passes of other phones, \
         instead of an empty list.";
    "store/marked-pass-is-listed" Must [C1 MARK] store marked_pass_is_listed,
        "Marks passes one by one, in a batch, twice in one batch, and together with unknown passes. \
         The device asks for its list after each mark, and after an empty batch.",
        "An update is lost. The phone still shows the old pass, for example at the gate of an airport.";
    "store/every-mark-counts-however-close" Must [C1 C4] store every_mark_counts_however_close,
        "Marks a pass and asks for the list, 200 times, as fast as the store allows. Tags with whole \
         seconds or milliseconds fail.",
        "The second of two updates in one second never reaches the phone.";
    "store/asking-again-gives-nothing" Must [C2] store asking_again_gives_nothing,
        "The device asks for its list after it registers, after a mark, after a mark of the type, \
         and after it unregisters. Each time, the device asks again with the tag that it got.",
        "With every push, the phone fetches passes that did not change, and complains to the log.";
    "store/new-registration-counts" Must [C3] store new_registration_counts,
        "After a tag was issued, the device registers for several passes: for passes that were \
         marked before, for a pass that was never marked, for a pass that it already has, and for a pass \
         that it unregistered earlier. Then it unregisters all passes, and comes back with its old tag.",
        "If a pass changes between its download and its registration, the change never reaches \
         the phone.";
    "store/tags-never-go-back" Must [C4] store tags_never_go_back,
        "Makes 60 marks and registrations. After each of them, the device asks for its list with its last \
         tag, with its oldest tag, and without a tag.",
        "The phone gets an older tag. Its lists then repeat or omit passes.";
    "store/tags-outlive-the-passes" Must [C4] store tags_outlive_the_passes,
        "Six times, the only pass of a device is marked and listed. Then the device replaces this pass \
         with a pass that was never marked. It registers for the new pass before or after it unregisters \
         the old one. Then it asks for its list with its oldest tag, with its last tag, and without a \
         tag, in a different order each time.",
        "A phone that replaced all its passes gets an older tag than before, and its lists name \
         the same passes again.";
    "store/tag-ahead-counts-as-none" Must [C5] store tag_ahead_counts_as_none,
        "The device asks for its list with tags that are ahead of the store's clocks, in either \
         part, up to the greatest tag.",
        "After a backup is restored, phones have tags from the future. They get no update until \
         the clock catches up.";
    "store/old-tags-miss-nothing" Must [C1 C3 C7] store old_tags_miss_nothing,
        "Makes 250 marks and registrations of eight passes. In between, the device asks for its \
         list with tags from all earlier points.",
        "A phone that was switched off for a while misses updates.";
}

async fn no_tag_lists_all(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(5)?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let device = Device::registered_for(store, &passes).await?;
    device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    for _ in 0..3 {
        store
            .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
            .await?;
        store
            .register(&device.id, &passes[2], &device.push_token)
            .await?;
    }
    for _ in 0..2 {
        device
            .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
            .await?;
    }
    Ok(())
}

async fn list_keeps_devices_apart(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(10)?;
    let one = Device::registered_for(store, &passes[..6]).await?;
    let two = Device::registered_for(store, &passes[5..]).await?;
    let tag_one = one
        .lists_exactly(store, &type_id, &passes[..6], Rule::CHANGES_SINCE)
        .await?;
    let tag_two = two
        .lists_exactly(store, &type_id, &passes[5..], Rule::CHANGES_SINCE)
        .await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    let listed = one.list(store, &type_id, Some(tag_one)).await?;
    listed.is_within(&passes[..6])?;
    listed.has(&passes[..6], Rule::C1, "after a mark of the type")?;
    let listed = two.list(store, &type_id, Some(tag_two)).await?;
    listed.is_within(&passes[5..])?;
    listed.has(&passes[5..], Rule::C1, "after a mark of the type")
}

async fn list_keeps_types_apart(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (one, ones) = new_passes(3)?;
    let two = new_type()?;
    let twos = [
        pass_of(&two, &ones[0].serial),
        pass_of(&two, &serial("only-two")?),
        pass_of(&two, &serial("more")?),
    ];
    let device = Device::registered_for(store, &[&ones[..], &twos[..]].concat()).await?;
    let tag_one = device
        .lists_exactly(store, &one, &ones, Rule::CHANGES_SINCE)
        .await?;
    let tag_two = device
        .lists_exactly(store, &two, &twos, Rule::CHANGES_SINCE)
        .await?;
    store.mark(&two, Changed::Passes(&serials(&twos))).await?;
    device
        .list(store, &one, Some(tag_one))
        .await?
        .is_within(&ones)?;
    let listed = device.list(store, &two, Some(tag_two)).await?;
    listed.is_within(&twos)?;
    listed.has(&twos, Rule::C1, "after a mark")?;
    // The device asks with the tag of the other type. The list may name too many passes, but must
    // not name too few.
    store
        .mark(&one, Changed::Passes(slice::from_ref(&ones[0].serial)))
        .await?;
    device
        .list(store, &one, Some(tag_one))
        .await?
        .has(&ones[..1], Rule::C1, "after a mark")?;
    store.unregister(&device.id, &ones[0]).await?;
    device
        .lists_exactly(store, &one, &ones[1..], Rule::CHANGES_SINCE)
        .await?;
    device
        .lists_exactly(store, &two, &twos, Rule::CHANGES_SINCE)
        .await?;
    device
        .list(store, &new_type()?, None)
        .await?
        .is_empty(Rule::CHANGES_SINCE, "for a type that is not registered")
}

async fn unknown_device_has_no_changes(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let (_, others) = new_passes(1)?;
    let known = Device::registered_for(store, &passes).await?;
    let elsewhere = Device::registered_for(store, &others).await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes)))
        .await?;
    let tag = known
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    for device in [Device::new()?, elsewhere] {
        for since in [None, Some(tag), Some(ZERO), Some(FAR)] {
            device.list(store, &type_id, since).await?.is_empty(
                Rule::CHANGES_SINCE,
                "for a device without passes of the type",
            )?;
        }
    }
    Ok(())
}

const ZERO: UpdateTag = UpdateTag {
    type_version: 0,
    device_version: 0,
};
const FAR: UpdateTag = UpdateTag {
    type_version: u64::MAX,
    device_version: u64::MAX,
};

async fn marked_pass_is_listed(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(6)?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let device = Device::registered_for(store, &passes).await?;
    let mut tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    store.mark(&type_id, Changed::Passes(&[])).await?;
    device
        .list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::MARK, "after an empty batch")?;

    let unknown = serial("on-no-device")?;
    let batches = [
        vec![passes[0].serial.clone()],
        vec![passes[5].serial.clone()],
        serials(&passes[1..4]),
        vec![
            passes[4].serial.clone(),
            unknown.clone(),
            passes[4].serial.clone(),
        ],
        serials(&passes),
    ];
    for batch in &batches {
        store.mark(&type_id, Changed::Passes(batch)).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has(
            passes.iter().filter(|pass| batch.contains(&pass.serial)),
            Rule::C1,
            "after its mark",
        )?;
        listed.is_within(&passes)?;
        tag = listed.tag;
    }
    store
        .mark(&type_id, Changed::Passes(slice::from_ref(&unknown)))
        .await?;
    store
        .mark(&new_type()?, Changed::Passes(slice::from_ref(&unknown)))
        .await?;
    device
        .list(store, &type_id, Some(tag))
        .await?
        .is_within(&passes)
}

async fn every_mark_counts_however_close(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let device = Device::registered_for(store, &passes).await?;
    let mut tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    for round in 0..200 {
        let pass = &passes[round % 3 % 2];
        store
            .mark(&type_id, Changed::Passes(slice::from_ref(&pass.serial)))
            .await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has([pass], Rule::C1, "right after its mark")?;
        ensure(
            Rule::C4,
            listed.tag.type_version > tag.type_version,
            "a later tag after a mark",
            || format!("{} after {tag}", listed.tag),
        )?;
        tag = listed.tag;
    }
    Ok(())
}

async fn asking_again_gives_nothing(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    let device = Device::registered_for(store, &passes).await?;
    let mut since = None;
    for step in 0..6 {
        let what = match step {
            0 => "registering",
            1 => {
                store
                    .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
                    .await?;
                "a mark"
            }
            2 => {
                store.mark(&type_id, Changed::All).await?;
                "a mark of the type"
            }
            3 => {
                store
                    .register(&device.id, &passes[3], &device.push_token)
                    .await?;
                "registering again"
            }
            4 => {
                store.unregister(&device.id, &passes[3]).await?;
                "unregistering"
            }
            _ => {
                store
                    .mark(&type_id, Changed::Passes(&serials(&passes)))
                    .await?;
                "a mark that also names a pass that is not registered"
            }
        };
        let listed = device.list(store, &type_id, since).await?;
        let mut tag = listed.tag;
        if listed.serials.is_empty() {
            // A device keeps its tag if nothing is listed.
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

async fn new_registration_counts(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(4)?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[2..])))
        .await?;
    let device = Device::registered_for(store, &passes[..1]).await?;
    store
        .mark(&type_id, Changed::Passes(&serials(&passes[..1])))
        .await?;
    let mut tag = device
        .lists_exactly(store, &type_id, &passes[..1], Rule::CHANGES_SINCE)
        .await?;
    let registers = [
        (1, "after its first registration, never marked"),
        (2, "after its first registration, marked before the tag"),
        (0, "after registering again"),
        (0, "after registering again"),
        (3, "after its first registration, marked before the tag"),
    ];
    for (pass, when) in registers {
        store
            .register(&device.id, &passes[pass], &device.push_token)
            .await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has([&passes[pass]], Rule::C3, when)?;
        listed.is_within(&passes)?;
        tag = listed.tag;
    }
    store.unregister(&device.id, &passes[1]).await?;
    store
        .register(&device.id, &passes[1], &device.push_token)
        .await?;
    device.list(store, &type_id, Some(tag)).await?.has(
        [&passes[1]],
        Rule::C3,
        "after it came back",
    )?;
    // The device unregisters all passes, and is gone. Then it comes back with its old tag.
    tag = device.list(store, &type_id, None).await?.tag;
    for pass in &passes {
        store.unregister(&device.id, pass).await?;
    }
    store
        .register(&device.id, &passes[0], &device.push_token)
        .await?;
    device.list(store, &type_id, Some(tag)).await?.has(
        &passes[..1],
        Rule::C3,
        "after the device had unregistered all passes and came back",
    )
}

async fn tags_never_go_back(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(12)?;
    let device = Device::registered_for(store, &passes[..1]).await?;
    let bystander = Device::registered_for(store, &passes).await?;
    let mut last = device
        .lists_exactly(store, &type_id, &passes[..1], Rule::CHANGES_SINCE)
        .await?;
    let mut tags = vec![last];
    for round in 0..60 {
        match round % 6 {
            0 => {
                store
                    .mark(
                        &type_id,
                        Changed::Passes(slice::from_ref(&passes[0].serial)),
                    )
                    .await?
            }
            1 => drop(
                store
                    .register(&device.id, &passes[round % 12], &device.push_token)
                    .await?,
            ),
            2 => {
                store
                    .mark(&type_id, Changed::Passes(&serials(&passes[round % 10..])))
                    .await?
            }
            3 => drop(
                store
                    .register(&bystander.id, &passes[0], &bystander.push_token)
                    .await?,
            ),
            4 if round % 12 == 4 => store.mark(&type_id, Changed::All).await?,
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
            ensure(
                Rule::C4,
                forward,
                format!("a tag that is not before {last}"),
                || listed.tag.to_string(),
            )?;
            last = listed.tag;
            tags.push(last);
        }
    }
    Ok(())
}

async fn tags_outlive_the_passes(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(7)?;
    let device = Device::registered_for(store, &passes[..1]).await?;
    let oldest = device
        .lists_exactly(store, &type_id, &passes[..1], Rule::CHANGES_SINCE)
        .await?;
    let mut last = oldest;
    for (round, exchanged) in passes.windows(2).enumerate() {
        let [old, new] = exchanged else { continue };
        store
            .mark(&type_id, Changed::Passes(slice::from_ref(&old.serial)))
            .await?;
        let listed = device.list(store, &type_id, Some(last)).await?;
        listed.has([old], Rule::C1, "after its mark")?;
        last = listed.tag;
        if round % 2 == 0 {
            store.unregister(&device.id, old).await?;
            store.register(&device.id, new, &device.push_token).await?;
        } else {
            store.register(&device.id, new, &device.push_token).await?;
            store.unregister(&device.id, old).await?;
        }
        // The order changes in each round. The first call may update the store's clocks and so hide
        // a fault from the later calls.
        let mut asked = [Some(oldest), None, Some(last)];
        asked.rotate_left(round / 2);
        for since in asked {
            let listed = device.list(store, &type_id, since).await?;
            if listed.serials.is_empty() {
                continue;
            }
            let forward = listed.tag.type_version >= last.type_version
                && listed.tag.device_version >= last.device_version;
            ensure(
                Rule::C4,
                forward,
                format!("a tag that is not before {last}"),
                || listed.tag.to_string(),
            )?;
            last = listed.tag;
        }
    }
    Ok(())
}

async fn tag_ahead_counts_as_none(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const HOUR: u64 = 3_600_000_000;
    let (type_id, passes) = new_passes(3)?;
    let device = Device::registered_for(store, &passes).await?;
    // In the first round, the type was never marked. In the second round, it was marked.
    for marked in [false, true] {
        if marked {
            store
                .mark(&type_id, Changed::Passes(&serials(&passes[..2])))
                .await?;
        }
        let now = device
            .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
            .await?;
        let ahead = clock::now_micros() + HOUR;
        for since in [
            UpdateTag {
                type_version: now.type_version + 1,
                ..now
            },
            UpdateTag {
                device_version: now.device_version + 1,
                ..now
            },
            UpdateTag {
                type_version: ahead,
                ..now
            },
            UpdateTag {
                device_version: ahead,
                ..now
            },
            UpdateTag {
                type_version: ahead,
                device_version: ahead,
            },
            UpdateTag {
                type_version: ahead,
                device_version: 0,
            },
            UpdateTag {
                type_version: 0,
                device_version: ahead,
            },
            UpdateTag {
                type_version: i64::MAX as u64,
                device_version: i64::MAX as u64,
            },
            UpdateTag {
                type_version: i64::MAX as u64 + 1,
                ..now
            },
            FAR,
        ] {
            let listed = device.list(store, &type_id, Some(since)).await?;
            listed.has(&passes, Rule::C5, "for a tag ahead of the clocks")?;
            listed.is_within(&passes)?;
            let behind = listed.tag.type_version < ahead && listed.tag.device_version < ahead;
            ensure(Rule::C5, behind, "a tag of the store's own clocks", || {
                "a tag that is ahead too".into()
            })?;
            device
                .list(store, &type_id, Some(listed.tag))
                .await?
                .is_empty(Rule::C2, "when asked again after a tag that is ahead")?;
        }
        device.list(store, &type_id, Some(ZERO)).await?.has(
            &passes,
            Rule::C3,
            "for the first of all tags",
        )?;
    }
    Ok(())
}

async fn old_tags_miss_nothing(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(8)?;
    let device = Device::new()?;
    // The seed is fixed, so that every run makes the same calls.
    let mut random = Random::new(0x2545_f491_4f6c_dd1d);
    let mut registered = BTreeSet::new();
    // Each tag, with the passes that changed or were registered after it.
    let mut tags: Vec<(UpdateTag, BTreeSet<usize>)> = Vec::new();
    for _ in 0..250 {
        let pass = random.below(passes.len());
        let changed: BTreeSet<usize> = match random.below(12) {
            0..=4 => [pass].into(),
            5 => (0..passes.len()).collect(),
            6..=7 => [pass, random.below(passes.len()), random.below(passes.len())].into(),
            8..=10 => {
                store
                    .register(&device.id, &passes[pass], &device.push_token)
                    .await?;
                registered.insert(pass);
                tags.iter_mut().for_each(|(_, since)| since.extend([pass]));
                continue;
            }
            // The last registration stays, because a removed device starts again from nothing.
            _ if registered.len() > 1 => {
                store.unregister(&device.id, &passes[pass]).await?;
                registered.remove(&pass);
                continue;
            }
            _ => BTreeSet::new(),
        };
        if changed.len() == passes.len() {
            store.mark(&type_id, Changed::All).await?;
        } else {
            let batch: Vec<_> = changed
                .iter()
                .map(|pass| passes[*pass].serial.clone())
                .collect();
            store.mark(&type_id, Changed::Passes(&batch)).await?;
        }
        for (_, since) in &mut tags {
            since.extend(&changed);
        }
        let all: Vec<_> = registered.iter().map(|pass| &passes[*pass]).collect();
        for (tag, since) in tags.iter().rev().step_by(3).take(8) {
            let listed = device.list(store, &type_id, Some(*tag)).await?;
            let due = since
                .iter()
                .filter(|pass| registered.contains(pass))
                .map(|pass| &passes[*pass]);
            listed.has(due, Rule::C7, "because it changed after the tag")?;
            listed.is_within(all.iter().copied())?;
        }
        if let Some((tag, _)) = tags.last() {
            let listed = device.list(store, &type_id, Some(*tag)).await?;
            if !listed.serials.is_empty() {
                tags.push((listed.tag, BTreeSet::new()));
            }
        } else if !registered.is_empty() {
            let tag = device
                .lists_exactly(store, &type_id, all, Rule::CHANGES_SINCE)
                .await?;
            tags.push((tag, BTreeSet::new()));
        }
    }
    if tags.len() < 10 {
        return Err(Violation::new(
            Rule::C1,
            "a list that sometimes names passes",
            "none",
        ));
    }
    Ok(())
}
