//! Cases that forget devices whose push token is no longer in use.

use std::{
    slice,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use passkit_server::{
    Changed, PassId,
    store::{Registered, RegistrationStore},
};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{Device, has_devices, new_passes, new_type},
};

catalogue! {
    "store/forget-respects-the-time" Must [C13] store forget_respects_the_time,
        "Calls forget_device with times before, at and after the last registration of a device. \
         Then registers the device again.",
        "A phone that came back a minute ago gets no more pushes, or pushes are sent forever to a \
         phone that is gone.";
    "store/forget-counts-from-the-last-register" Must [C13] store
        forget_counts_from_the_last_register,
        "A device registers again, first for a known pass and then for a new one. After each \
         registration, forget_device is called with the time of the previous registration.",
        "APNs reports late that an old push token is gone. The phone is removed, although it \
         already sent its new push token.";
    "store/forget-leaves-others-alone" Must [C13] store forget_leaves_others_alone,
        "Two devices have the same passes, and one of them is forgotten. Also calls forget_device for unknown devices. The \
         times range from before 1970 to the year 9999.",
        "When one wiped phone is forgotten, others are removed too.";
}

/// Returns the time at which `device` last registered. The time comes from a tag, so it is a
/// reading of the store's clock.
pub(super) async fn last_registered(
    store: &dyn RegistrationStore,
    device: &Device,
    passes: &[PassId],
) -> Result<SystemTime, Violation> {
    let tag = device
        .lists_exactly(store, &passes[0].type_id, passes, Rule::CHANGES_SINCE)
        .await?;
    Ok(UNIX_EPOCH + Duration::from_micros(tag.device_version))
}

async fn forgets(
    store: &dyn RegistrationStore,
    device: &Device,
    time: SystemTime,
    expected: bool,
    when: &str,
) -> Result<(), Violation> {
    let forgotten = store.forget_device(&device.id, time).await?;
    ensure(
        Rule::C13,
        forgotten == expected,
        format!("{expected} for {when}"),
        || forgotten.to_string(),
    )
}

async fn forget_respects_the_time(store: &dyn RegistrationStore) -> Result<(), Violation> {
    // APNs reports times in milliseconds.
    let step = Duration::from_millis(1);
    let (type_id, passes) = new_passes(2)?;
    for after in [Duration::ZERO, step, Duration::from_secs(3_600)] {
        let device = Device::registered_for(store, &passes).await?;
        let stays = Device::registered_for(store, &passes).await?;
        let registered = last_registered(store, &device, &passes).await?;
        for before in [
            registered - step,
            registered - Duration::from_secs(3_600),
            UNIX_EPOCH,
        ] {
            forgets(
                store,
                &device,
                before,
                false,
                "a time before the last register",
            )
            .await?;
            device
                .lists_exactly(store, &type_id, &passes, Rule::C13)
                .await?;
            has_devices(store, &passes[0], [&device, &stays], Rule::C13).await?;
        }
        forgets(
            store,
            &device,
            registered + after,
            true,
            "a time at or after the last register",
        )
        .await?;
        let none: [&PassId; 0] = [];
        device
            .lists_exactly(store, &type_id, none, Rule::C13)
            .await?;
        for pass in &passes {
            has_devices(store, pass, [&stays], Rule::C13).await?;
            let existed = store.unregister(&device.id, pass).await?;
            ensure(
                Rule::C13,
                !existed,
                "no registration of a forgotten device",
                || "one".into(),
            )?;
        }
        forgets(
            store,
            &device,
            registered + after,
            false,
            "a device that is already forgotten",
        )
        .await?;
        let back = store
            .register(&device.id, &passes[0], &device.push_token)
            .await?;
        ensure(
            Rule::C13,
            back == Registered::Created,
            "Created for a forgotten device",
            || format!("{back:?}"),
        )?;
        device
            .lists_exactly(store, &type_id, &passes[..1], Rule::C13)
            .await?;
        for (device, pass) in [(&device, 0), (&stays, 0), (&stays, 1)] {
            store.unregister(&device.id, &passes[pass]).await?;
        }
    }
    Ok(())
}

async fn forget_counts_from_the_last_register(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, mut passes) = new_passes(3)?;
    let device = Device::registered_for(store, &passes[..2]).await?;
    let mut last = last_registered(store, &device, &passes[..2]).await?;
    // First a known pass, then a pass of another type.
    passes[2].type_id = new_type()?;
    for pass in [0, 2] {
        let gap = Duration::from_millis(3);
        while SystemTime::now() < last + gap {
            tokio::time::sleep(gap).await;
        }
        store
            .register(&device.id, &passes[pass], &device.push_token)
            .await?;
        forgets(
            store,
            &device,
            last,
            false,
            "a device that registered after the time",
        )
        .await?;
        device
            .lists_exactly(store, &type_id, &passes[..2], Rule::C13)
            .await?;
        last = last_registered(store, &device, &passes[..2]).await?;
    }
    has_devices(store, &passes[2], [&device], Rule::C13).await?;
    store.unregister(&device.id, &passes[1]).await?;
    forgets(
        store,
        &device,
        last,
        true,
        "the time of its last register, after an unregister",
    )
    .await?;
    has_devices(store, &passes[2], [], Rule::C13).await
}

async fn forget_leaves_others_alone(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let (one, two) = (
        Device::registered_for(store, &passes).await?,
        Device::registered_for(store, &passes).await?,
    );
    // These times are in the years 2255, 2264 and 9999. Nanoseconds in 64 bits end in the year
    // 2262, and the dates of some databases end in 9999.
    let far = [9_000_000_000, 9_300_000_000, 253_402_300_799]
        .map(|s| UNIX_EPOCH + Duration::from_secs(s));
    let early = [
        UNIX_EPOCH,
        UNIX_EPOCH - Duration::from_secs(1),
        UNIX_EPOCH - Duration::from_secs(1 << 32),
    ];
    for time in far.into_iter().chain(early) {
        forgets(store, &Device::new()?, time, false, "an unknown device").await?;
    }
    for time in early {
        forgets(store, &one, time, false, "a time before all devices").await?;
    }
    let tag = two
        .lists_exactly(store, &type_id, &passes, Rule::C13)
        .await?;
    forgets(store, &one, far[2], true, "a time far in the future").await?;
    two.list(store, &type_id, Some(tag))
        .await?
        .is_empty(Rule::C13, "for a device after another one was forgotten")?;
    store
        .mark(
            &type_id,
            Changed::Passes(slice::from_ref(&passes[0].serial)),
        )
        .await?;
    two.list(store, &type_id, Some(tag))
        .await?
        .has(&passes[..1], Rule::C1, "after its mark")?;
    two.lists_exactly(store, &type_id, &passes, Rule::C13)
        .await?;
    for time in far {
        let device = Device::registered_for(store, &passes).await?;
        forgets(store, &device, time, true, "a time far in the future").await?;
    }
    has_devices(store, &passes[1], [&two], Rule::C13).await
}
