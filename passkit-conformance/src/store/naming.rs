//! Cases about names that a store may confuse, because it joins keys, uses patterns, ignores case
//! or trims.

use std::slice;

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::{Registered, RegistrationStore},
};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{
        Device, has_devices, new_device, new_passes, new_push_token, new_type, pass_of, serial,
        unique,
    },
};

catalogue! {
    "store/unusual-serial-numbers" Must [NAMES] store unusual_serial_numbers,
        "Registers, lists, marks and unregisters passes, and reads their devices. Their serial \
         numbers contain slashes, spaces, patterns and letters of all scripts, and have up to 512 \
         bytes. No two passes may be mixed up.",
        "A boarding pass whose serial number contains a slash is never updated, or an update of \
         another pass goes to its owner.";
    "store/types-that-start-alike" Must [NAMES] store types_that_start_alike,
        "Registers, lists, marks and unregisters passes of types that differ only in case, or \
         where one is the start of another. The types have up to 128 characters. With some serial \
         numbers, type and serial number joined give equal texts.",
        "Passes of two types are mixed up.";
    "store/devices-that-start-alike" Must [NAMES] store devices_that_start_alike,
        "Registers and unregisters devices whose identifiers differ only in case, or where one is \
         the start of another.",
        "One phone sees and unregisters the passes of another.";
    "store/orders-and-passes-with-equal-serials" Must [NAMES] store
        orders_and_passes_with_equal_serials,
        "Registers, marks and unregisters passes and orders. Their serial numbers are equal, and \
         their types differ only in the first word.",
        "The update of an order is listed as the update of a pass, or never.";
}

/// Serial numbers that issuers use, and serial numbers that are special in keys and patterns.
fn wild_serials() -> Vec<String> {
    let mut serials: Vec<String> = [
        "A",
        "A/B",
        "A/B/C",
        "A/",
        "/A",
        "/",
        "//",
        "a",
        "A ",
        " A",
        "A B",
        "A  B",
        "A+B",
        "A%2FB",
        "A%252FB",
        "%",
        "%00",
        "_",
        "A_",
        "A%",
        "*",
        "?",
        "[A-Z]",
        "..",
        ".",
        "../A",
        "A:B",
        "A|B",
        "A,B",
        "{A}",
        "A}{",
        "A\\B",
        "A'B",
        "A\"B",
        "A#B",
        "A?B=C",
        "A&B",
        "0",
        "00",
        "-1",
        "1e3",
        "null",
        "NULL",
        "zwölf Stück",
        "\u{c4}",
        "A\u{308}",
        "\u{df}",
        "SS",
        "\u{131}",
        "\u{fb01}",
        "fi",
        "\u{1f3ab}",
        "\u{1f3ab}\u{fe0f}",
        "チケット",
        "تذكرة",
        "A\u{200b}",
        "A\u{2028}B",
        "\u{feff}A",
        "\u{10ffff}",
        "H8JP44-ORD07/09/25-MARTINEZ/LANI-UA987-en",
        "ABC.123_x~1",
    ]
    .map(String::from)
    .to_vec();
    // Serial numbers of the greatest length that differ only in the last byte.
    serials.push("x".repeat(512));
    serials.push(format!("{}y", "x".repeat(511)));
    serials.push("x".repeat(511));
    serials.push("\u{fc}".repeat(256));
    serials
}

async fn unusual_serial_numbers(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let type_id = new_type()?;
    let mut passes = Vec::new();
    for text in wild_serials() {
        passes.push(pass_of(&type_id, &serial(&text)?));
    }
    each_is_itself(store, &passes).await
}

/// Registers all `passes` on one common device, and each pass also on a separate device. Then marks
/// and unregisters the passes one after the other. Ensures that this never affects another pass.
async fn each_is_itself(store: &dyn RegistrationStore, passes: &[PassId]) -> Result<(), Violation> {
    let all = Device::new()?;
    let mut own = Vec::new();
    for pass in passes {
        for device in [&all, &Device::registered_for(store, [pass]).await?] {
            let again = device.id != all.id;
            let registered = store.register(&device.id, pass, &device.push_token).await?;
            ensure(
                Rule::NAMES,
                (registered == Registered::Existing) == again,
                format!("a separate registration for {}", brief(pass)),
                || format!("{registered:?}"),
            )?;
            if again {
                own.push(device.clone());
            }
        }
    }
    for (n, pass) in passes.iter().enumerate() {
        // A mark must change only this pass.
        let neighbour = &passes[(n + 1) % passes.len()];
        let before = (
            store.pass_state(pass).await?,
            store.pass_state(neighbour).await?,
        );
        let tag = all
            .lists_exactly(
                store,
                &pass.type_id,
                of_type(&passes[n..], &pass.type_id),
                Rule::NAMES,
            )
            .await?;
        store
            .mark(
                &pass.type_id,
                Changed::Passes(slice::from_ref(&pass.serial)),
            )
            .await?;
        let after = (
            store.pass_state(pass).await?,
            store.pass_state(neighbour).await?,
        );
        ensure(
            Rule::NAMES,
            after.0 != before.0 && after.1 == before.1,
            format!(
                "a mark of {} that changes only the date of that pass",
                brief(pass)
            ),
            || {
                format!(
                    "{before:?} became {after:?}; the second state belongs to {}",
                    brief(neighbour)
                )
            },
        )?;
        all.list(store, &pass.type_id, Some(tag)).await?.has(
            [pass],
            Rule::NAMES,
            "after its mark",
        )?;
        own[n]
            .lists_exactly(store, &pass.type_id, [pass], Rule::NAMES)
            .await?;
        has_devices(store, pass, [&all, &own[n]], Rule::NAMES).await?;
        let existed = store.unregister(&all.id, pass).await?;
        ensure(
            Rule::NAMES,
            existed,
            format!("a registration for {}", brief(pass)),
            || "none".into(),
        )?;
        has_devices(store, pass, [&own[n]], Rule::NAMES).await?;
        own[n]
            .lists_exactly(store, &pass.type_id, [pass], Rule::NAMES)
            .await?;
        let rest = of_type(&passes[n + 1..], &pass.type_id);
        all.lists_exactly(store, &pass.type_id, rest, Rule::NAMES)
            .await?;
    }
    Ok(())
}

fn of_type<'a>(passes: &'a [PassId], type_id: &TypeIdentifier) -> Vec<&'a PassId> {
    passes
        .iter()
        .filter(|pass| pass.type_id == *type_id)
        .collect()
}

fn brief(pass: &PassId) -> String {
    let start: String = pass.serial.as_str().chars().take(40).collect();
    format!("{start:?} of {}", pass.type_id)
}

async fn types_that_start_alike(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let base = new_type()?;
    let mut passes = vec![pass_of(&base, &serial("1")?)];
    let upper = format!("pass.{}", base.as_str()[5..].to_uppercase());
    passes.push(PassId::new(&upper, "1")?);
    for joint in ["", ".", "-", "_", "~"] {
        let long = format!("{base}{joint}u");
        passes.push(PassId::new(&long, "1")?);
        for behind in ["/", ":", "1", "", "\u{1f}"] {
            // For example, `pass.t` and `.u/1` joined give the same text as `pass.t.u` and `/1`.
            let tail = format!("{behind}1");
            if let (Ok(one), Ok(two)) = (
                PassId::new(base.as_str(), &format!("{joint}u{tail}")),
                PassId::new(&long, &tail),
            ) {
                passes.extend([one, two]);
            }
        }
    }
    // Types of the greatest length, which differ only in the last byte.
    let longest = format!("{base}{}", "u".repeat(128 - base.as_str().len()));
    passes.push(PassId::new(&longest, "1")?);
    passes.push(PassId::new(&longest[..127], "1")?);
    passes.push(PassId::new(&format!("{}v", &longest[..127]), "1")?);
    passes.sort();
    passes.dedup();
    // The order is mixed by length, so that passes with short and long names are neighbours.
    passes.sort_by_key(|pass| {
        (pass.serial.as_str().len() * 7 + pass.type_id.as_str().len() * 3) % 11
    });
    each_is_itself(store, &passes).await
}

async fn devices_that_start_alike(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    let base = unique();
    let long = format!("{base}{}", "x".repeat(128 - base.len()));
    let texts = [
        base.clone(),
        base.to_uppercase(),
        format!("{base}0"),
        format!("{base}.1"),
        format!("{base}-1"),
        format!("{base}_1"),
        format!("{base}~"),
        base[1..].to_owned(),
        long.clone(),
        long[..127].to_owned(),
        format!("{}y", &long[..127]),
    ];
    let mut devices = Vec::new();
    for text in &texts {
        let id = DeviceIdentifier::new(text)?;
        // An identifier without letters is equal to its upper case.
        if devices.iter().any(|device: &Device| device.id == id) {
            continue;
        }
        devices.push(Device {
            id,
            push_token: new_push_token()?,
        });
    }
    for device in &devices {
        for pass in &passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
    }
    has_devices(store, &passes[0], &devices, Rule::NAMES).await?;
    for (n, device) in devices.iter().enumerate() {
        let existed = store.unregister(&device.id, &passes[0]).await?;
        ensure(
            Rule::NAMES,
            existed,
            "a separate registration for each device",
            || "none".into(),
        )?;
        has_devices(store, &passes[0], &devices[n + 1..], Rule::NAMES).await?;
        has_devices(store, &passes[1], &devices, Rule::NAMES).await?;
        device
            .lists_exactly(store, &type_id, &passes[1..], Rule::NAMES)
            .await?;
    }
    let stranger = Device {
        id: new_device()?,
        push_token: new_push_token()?,
    };
    stranger
        .list(store, &type_id, None)
        .await?
        .is_empty(Rule::NAMES, "to a stranger")
}

async fn orders_and_passes_with_equal_serials(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let rest = unique();
    let both = ["pass", "order"].map(|kind| format!("{kind}.conformance.{rest}"));
    let mut passes = Vec::new();
    for number in ["1", "A/1"] {
        for type_id in &both {
            passes.push(PassId::new(type_id, number)?);
        }
    }
    each_is_itself(store, &passes).await?;
    let device = Device::registered_for(store, &passes).await?;
    for pass in &passes[..2] {
        let other = TypeIdentifier::new(if pass.type_id.as_str() == both[0] {
            &both[1]
        } else {
            &both[0]
        })?;
        let tag = device.list(store, &other, None).await?.tag;
        let before = store.pass_state(&pass_of(&other, &pass.serial)).await?;
        store.mark(&pass.type_id, Changed::All).await?;
        let after = store.pass_state(&pass_of(&other, &pass.serial)).await?;
        if before != after {
            return Err(Violation::new(
                Rule::NAMES,
                format!("unchanged {before:?} after a mark of the other kind"),
                format!("{after:?}"),
            ));
        }
        device
            .list(store, &other, Some(tag))
            .await?
            .is_empty(Rule::NAMES, "of the other kind after a mark of the type")?;
    }
    Ok(())
}
