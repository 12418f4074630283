//! Cases about registering and unregistering, one call at a time.

use std::time::{Duration, SystemTime};

use passkit_server::{
    Changed,
    store::{Audience, Registered, RegistrationStore},
};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{
        Device, expect_devices, foreign_push_tokens, has_devices, new_passes, new_push_token,
        new_type,
    },
};

catalogue! {
    "store/first-register-creates" Must [C10] store first_register_creates,
        "Two devices register for passes, three times for each pass. The first answer must be \
         Created, the others Existing.",
        "The service confuses 201 and 200. Counts of installed passes are wrong, and so is \
         anything that happens once for each new pass on a phone.";
    "store/every-register-stores-the-push-token" Must [C10] store
        every_register_stores_the_push_token,
        "A device registers again with another push token, first for a known pass, then for a new \
         pass. The devices of all its passes are read.",
        "Pushes go to a push token that is no longer in use. The phone never gets an update again.";
    "store/push-tokens-come-back" Must [C10] store push_tokens_come_back,
        "Registers push tokens of up to 400 characters: UUIDs, FCM tokens, and all printable characters. \
         Each token replaces the previous one. Reads the devices of the pass and of its type.",
        "A phone with another wallet can't register, or a bad push token stops the pushes to all \
         phones.";
    "store/devices-may-share-a-push-token" Must [C10] store devices_may_share_a_push_token,
        "Two devices register with the same push token, because a phone has a separate device \
         identifier for each type. One of them unregisters.",
        "A phone with passes of two types gets pushes for only one of them.";
    "store/unregister-removes-the-registration" Must [UNREGISTER] store
        unregister_removes_the_registration,
        "Two devices have the same three passes. One device unregisters one pass and registers for \
         it again, several times. Lists and pages are read in between.",
        "A phone gets pushes and lists forever for a pass that was deleted. Or another pass or \
         another phone gets no more updates.";
    "store/unregister-removes-the-device-with-its-last-registration" Must [UNREGISTER] store
        unregister_removes_the_device_with_its_last_registration,
        "One device unregisters all its passes, which are of two types. Another device unregisters \
         all its passes except one. Then both devices are forgotten.",
        "The store keeps push tokens of phones without passes for no reason, and collects more and \
         more of them.";
    "store/unregistering-nothing-is-no-error" Must [UNREGISTER] store
        unregistering_nothing_is_no_error,
        "Unregisters passes that the device does not have, and unknown devices.",
        "A phone that unregisters twice gets an error, and tries again forever.";
}

async fn first_register_creates(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let (one, two) = (Device::new()?, Device::new()?);
    for (device, pass) in [(&one, 0), (&two, 0), (&one, 1)] {
        for attempt in 0..3 {
            let registered = store
                .register(&device.id, &passes[pass], &device.push_token)
                .await?;
            let expected = if attempt == 0 {
                Registered::Created
            } else {
                Registered::Existing
            };
            ensure(
                Rule::C10,
                registered == expected,
                format!(
                    "{expected:?} from register number {} of a device for a pass",
                    attempt + 1
                ),
                || format!("{registered:?}"),
            )?;
        }
    }
    one.lists_exactly(store, &type_id, &passes, Rule::C10)
        .await?;
    has_devices(store, &passes[0], [&one, &two], Rule::C10).await?;
    has_devices(store, &passes[1], [&one], Rule::C10).await
}

async fn every_register_stores_the_push_token(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (_, passes) = new_passes(3)?;
    let mut device = Device::registered_for(store, &passes[..2]).await?;
    let other = Device::registered_for(store, &passes).await?;
    has_devices(store, &passes[0], [&device, &other], Rule::C10).await?;
    // The device registers first for a known pass, and then for a new pass.
    for pass in [0, 2] {
        device.push_token = new_push_token()?;
        store
            .register(&device.id, &passes[pass], &device.push_token)
            .await?;
        for pass in &passes[..2] {
            has_devices(store, pass, [&device, &other], Rule::C10).await?;
        }
    }
    has_devices(store, &passes[2], [&device, &other], Rule::C10).await
}

async fn push_tokens_come_back(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(1)?;
    let mut devices = Vec::new();
    for push_token in foreign_push_tokens()? {
        let device = Device {
            push_token,
            ..Device::new()?
        };
        store
            .register(&device.id, &passes[0], &device.push_token)
            .await?;
        devices.push(device);
    }
    let mut changing = Device::registered_for(store, &passes).await?;
    let last = new_push_token()?;
    for push_token in foreign_push_tokens()?.into_iter().chain([last]) {
        changing.push_token = push_token;
        store
            .register(&changing.id, &passes[0], &changing.push_token)
            .await?;
        let all = devices.iter().chain([&changing]);
        for audience in [Audience::Pass(&passes[0]), Audience::Type(&type_id)] {
            expect_devices(store, audience, all.clone(), 3, Rule::C10).await?;
        }
    }
    Ok(())
}

async fn devices_may_share_a_push_token(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(2)?;
    let one = Device::new()?;
    let two = Device {
        push_token: one.push_token.clone(),
        ..Device::new()?
    };
    for device in [&one, &two] {
        for pass in &passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
    }
    store.unregister(&one.id, &passes[0]).await?;
    has_devices(store, &passes[0], [&two], Rule::C10).await?;
    has_devices(store, &passes[1], [&one, &two], Rule::C10).await
}

async fn unregister_removes_the_registration(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let one = Device::registered_for(store, &passes).await?;
    let two = Device::registered_for(store, &passes).await?;
    for expected in [true, false, false] {
        let existed = store.unregister(&one.id, &passes[1]).await?;
        ensure(
            Rule::UNREGISTER,
            existed == expected,
            format!(
                "{expected}, because the registration {}",
                if expected { "exists" } else { "does not exist" }
            ),
            || existed.to_string(),
        )?;
        one.lists_exactly(store, &type_id, [&passes[0], &passes[2]], Rule::UNREGISTER)
            .await?;
        two.lists_exactly(store, &type_id, &passes, Rule::UNREGISTER)
            .await?;
        has_devices(store, &passes[1], [&two], Rule::UNREGISTER).await?;
        has_devices(store, &passes[0], [&one, &two], Rule::UNREGISTER).await?;
    }
    store
        .mark(
            &type_id,
            Changed::Passes(std::slice::from_ref(&passes[1].serial)),
        )
        .await?;
    one.lists_exactly(store, &type_id, [&passes[0], &passes[2]], Rule::UNREGISTER)
        .await?;
    let again = store.register(&one.id, &passes[1], &one.push_token).await?;
    ensure(
        Rule::UNREGISTER,
        again == Registered::Created,
        "Created after unregister",
        || format!("{again:?}"),
    )?;
    one.lists_exactly(store, &type_id, &passes, Rule::UNREGISTER)
        .await?;
    has_devices(store, &passes[1], [&one, &two], Rule::UNREGISTER).await
}

async fn unregister_removes_the_device_with_its_last_registration(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let later = SystemTime::now() + Duration::from_secs(86_400);
    // The last registration is of another type.
    let (_, mut passes) = new_passes(2)?;
    passes[1].type_id = new_type()?;
    let gone = Device::registered_for(store, &passes).await?;
    let left = Device::registered_for(store, &passes).await?;
    for pass in &passes {
        store.unregister(&gone.id, pass).await?;
    }
    store.unregister(&left.id, &passes[0]).await?;
    for (device, expected) in [(&gone, false), (&left, true)] {
        let forgotten = store.forget_device(&device.id, later).await?;
        ensure(
            Rule::UNREGISTER,
            forgotten == expected,
            format!(
                "{expected} from forget_device, registrations left: {}",
                if expected { "one" } else { "no" }
            ),
            || forgotten.to_string(),
        )?;
    }
    let back = store
        .register(&gone.id, &passes[0], &gone.push_token)
        .await?;
    ensure(
        Rule::UNREGISTER,
        back == Registered::Created,
        "Created for a device that was removed",
        || format!("{back:?}"),
    )?;
    has_devices(store, &passes[0], [&gone], Rule::UNREGISTER).await
}

async fn unregistering_nothing_is_no_error(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(3)?;
    let (known, unknown) = (
        Device::registered_for(store, &passes[..1]).await?,
        Device::new()?,
    );
    let other = Device::registered_for(store, &passes[1..2]).await?;
    for (device, pass) in [(&unknown, 0), (&unknown, 2), (&known, 1), (&known, 2)] {
        let existed = store.unregister(&device.id, &passes[pass]).await?;
        ensure(
            Rule::UNREGISTER,
            !existed,
            "false, because no registration exists",
            || existed.to_string(),
        )?;
    }
    known
        .lists_exactly(store, &type_id, &passes[..1], Rule::UNREGISTER)
        .await?;
    has_devices(store, &passes[0], [&known], Rule::UNREGISTER).await?;
    has_devices(store, &passes[1], [&other], Rule::UNREGISTER).await
}
