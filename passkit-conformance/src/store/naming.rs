//! Cases about names that a store may confuse. A store may join keys, use patterns, ignore case, or
//! trim spaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    time::{Duration, SystemTime},
};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    store::{Audience, Content, Registered, RegistrationStore},
};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{
        Device, expect_devices, has_devices, new_device, new_passes, new_push_token, new_type,
        pass_of, serial, unique,
    },
};

catalogue! {
    "store/unusual-serial-numbers" Must [NAMES] store unusual_serial_numbers,
        "Registers, lists, marks and unregisters passes, and reads their devices. Their serial \
         numbers contain slashes, spaces, patterns and letters of all scripts, and have up to 512 \
         bytes. No two passes may be mixed up.",
        "A boarding pass whose serial number contains a slash is never updated, or an update of \
         another pass goes to its owner.";
    "store/letters-that-look-alike" Must [NAMES] store letters_that_look_alike,
        "Registers, lists, marks, publishes and unregisters passes whose serial numbers differ only \
         in case, accents, normal form, width, trailing spaces or invisible characters, in scripts \
         of all kinds.",
        "Passes of two customers are mixed up, because the database compares texts by the rules of a \
         language.";
    "store/joined-names-are-kept-apart" Must [NAMES] store joined_names_are_kept_apart,
        "Registers, lists and unregisters devices and passes. Device, type and serial number give \
         equal texts if they are joined with a dot, a dash, an underscore, a tilde or nothing, in any \
         order.",
        "One phone sees and unregisters the passes of another.";
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
        "The update of an order is listed as the update of a pass, or is never listed.";
}

/// Serial numbers that issuers use, and serial numbers that are special in keys and patterns.
pub(super) fn wild_serials() -> Vec<String> {
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

/// Decides which rule a wrong answer breaks. For plain names, which no store confuses, a wrong
/// answer breaks the rule of the call. If the answers for plain names are right, a wrong answer for
/// odd names breaks [`Rule::NAMES`].
#[derive(Clone, Copy)]
pub(super) enum Judge {
    Plain,
    Odd,
}

impl Judge {
    pub(super) fn rule(self, of_call: Rule) -> Rule {
        match self {
            Self::Plain => of_call,
            Self::Odd => Rule::NAMES,
        }
    }
}

/// Checks some plain names first, and then `passes`.
async fn each_is_itself(store: &dyn RegistrationStore, passes: &[PassId]) -> Result<(), Violation> {
    let (_, mut plain) = new_passes(3)?;
    plain[2].type_id = new_type()?;
    each_is_apart(store, &plain, Judge::Plain).await?;
    each_is_apart(store, passes, Judge::Odd).await
}

/// Registers each pass on two devices, and each device for some passes. Then makes every kind of
/// call for one name after the other. Ensures that a call affects only the names in its arguments.
///
/// The number of calls grows with the number of names, not with the number of pairs. Each mark gets
/// a greater version than all earlier marks. A mark that affects another pass therefore breaks the
/// order of the versions.
async fn each_is_apart(
    store: &dyn RegistrationStore,
    passes: &[PassId],
    judge: Judge,
) -> Result<(), Violation> {
    let all = Device::new()?;
    let mut own = Vec::new();
    for pass in passes {
        own.push(Device::registered_for(store, [pass]).await?);
        let again = [
            (&all, Registered::Created),
            (&own[own.len() - 1], Registered::Existing),
        ];
        for (device, wanted) in again {
            let registered = store.register(&device.id, pass, &device.push_token).await?;
            ensure(
                judge.rule(Rule::C10),
                registered == wanted,
                format!("a separate registration for {}", brief(pass)),
                || format!("{registered:?}"),
            )?;
        }
    }
    marks_are_apart(store, passes, judge).await?;
    contents_are_apart(store, passes, judge).await?;
    for (n, pass) in passes.iter().enumerate() {
        let tag = all
            .lists_exactly(
                store,
                &pass.type_id,
                of_type(&passes[n..], &pass.type_id),
                judge.rule(Rule::CHANGES_SINCE),
            )
            .await?;
        store
            .mark(
                &pass.type_id,
                Changed::Passes(slice::from_ref(&pass.serial)),
            )
            .await?;
        all.ask(store, &pass.type_id, Some(tag)).await?.has(
            [pass],
            judge.rule(Rule::C1),
            "after its mark",
        )?;
        own[n]
            .lists_exactly(
                store,
                &pass.type_id,
                [pass],
                judge.rule(Rule::CHANGES_SINCE),
            )
            .await?;
        has_devices(store, pass, [&all, &own[n]], judge.rule(Rule::C11)).await?;
        counts(store, pass, 2, judge).await?;
        let existed = store.unregister(&all.id, pass).await?;
        ensure(
            judge.rule(Rule::UNREGISTER),
            existed,
            format!("a registration for {}", brief(pass)),
            || "none".into(),
        )?;
        has_devices(store, pass, [&own[n]], judge.rule(Rule::UNREGISTER)).await?;
        counts(store, pass, 1, judge).await?;
        own[n]
            .lists_exactly(
                store,
                &pass.type_id,
                [pass],
                judge.rule(Rule::CHANGES_SINCE),
            )
            .await?;
        let rest = of_type(&passes[n + 1..], &pass.type_id);
        all.lists_exactly(store, &pass.type_id, rest, judge.rule(Rule::CHANGES_SINCE))
            .await?;
    }
    let types: BTreeSet<_> = passes.iter().map(|pass| &pass.type_id).collect();
    types_are_apart(store, &types, passes, &own, judge).await
}

async fn counts(
    store: &dyn RegistrationStore,
    pass: &PassId,
    wanted: u64,
    judge: Judge,
) -> Result<(), Violation> {
    let counted = store.count_devices(pass, 1_000).await?;
    ensure(
        judge.rule(Rule::COUNT_DEVICES),
        counted == wanted,
        format!("{wanted} devices of {}", brief(pass)),
        || counted.to_string(),
    )
}

/// Marks all passes, one after the other, forwards and backwards. Ensures that the versions have
/// the order of the marks.
async fn marks_are_apart(
    store: &dyn RegistrationStore,
    passes: &[PassId],
    judge: Judge,
) -> Result<(), Violation> {
    let mut passes: Vec<_> = passes.iter().collect();
    for _ in 0..2 {
        for pass in &passes {
            let changed = Changed::Passes(slice::from_ref(&pass.serial));
            store.mark(&pass.type_id, changed).await?;
        }
        let mut last: BTreeMap<&TypeIdentifier, u64> = BTreeMap::new();
        for pass in &passes {
            let version = store.pass_state(pass).await?.version;
            let before = last.insert(&pass.type_id, version).unwrap_or(0);
            ensure(
                judge.rule(Rule::C14),
                version > before,
                format!(
                    "the version of the last mark of {}, which is greater than {before}",
                    brief(pass)
                ),
                || version.to_string(),
            )?;
        }
        passes.reverse();
    }
    Ok(())
}

/// Publishes all passes, one after the other, and ensures that each has its own digest.
async fn contents_are_apart(
    store: &dyn RegistrationStore,
    passes: &[PassId],
    judge: Judge,
) -> Result<(), Violation> {
    let digest = |number: usize| {
        let mut digest = [7; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        Some(digest)
    };
    for (number, pass) in passes.iter().enumerate() {
        let content = Content {
            serial: pass.serial.clone(),
            digest: digest(number),
            tokens: Vec::new(),
        };
        let changed = Changed::Contents(slice::from_ref(&content));
        store.mark(&pass.type_id, changed).await?;
    }
    let published = store.published(passes).await?;
    for (number, (pass, one)) in passes.iter().zip(&published).enumerate() {
        let of_state = store.pass_state(pass).await?.published;
        let of_published = one.as_ref().and_then(|one| one.digest);
        ensure(
            judge.rule(Rule::P2),
            of_state == digest(number) && of_published == digest(number),
            format!("the digest of {}", brief(pass)),
            || "another digest".into(),
        )?;
    }
    Ok(())
}

/// Marks the types, reads their devices, and forgets all devices, one after the other.
async fn types_are_apart(
    store: &dyn RegistrationStore,
    types: &BTreeSet<&TypeIdentifier>,
    passes: &[PassId],
    own: &[Device],
    judge: Judge,
) -> Result<(), Violation> {
    let mut before = Vec::new();
    for type_id in types {
        for pass in passes
            .iter()
            .filter(|pass| pass.type_id == **type_id)
            .take(1)
        {
            before.push((pass, store.pass_state(pass).await?));
        }
        let devices = passes.iter().zip(own);
        let devices = devices.filter(|(pass, _)| pass.type_id == **type_id);
        expect_devices(
            store,
            Audience::Type(type_id),
            devices.map(|(_, device)| device),
            1_000,
            judge.rule(Rule::C11),
        )
        .await?;
    }
    for (n, (marked, _)) in before.iter().enumerate() {
        store.mark(&marked.type_id, Changed::All).await?;
        for (at, (pass, before)) in before.iter().enumerate() {
            let later = store.pass_state(pass).await?.version > before.version;
            ensure(
                judge.rule(Rule::C9),
                later == (at <= n),
                format!("only {} and the types before it marked", marked.type_id),
                || format!("{} of {} is marked: {later}", pass.type_id, types.len()),
            )?;
        }
    }
    for device in own {
        forget(store, device, judge).await?;
    }
    Ok(())
}

/// Forgets a device that is registered.
async fn forget(
    store: &dyn RegistrationStore,
    device: &Device,
    judge: Judge,
) -> Result<(), Violation> {
    let soon = SystemTime::now() + Duration::from_secs(3_600);
    let forgotten = store.forget_device(&device.id, soon).await?;
    ensure(
        judge.rule(Rule::C13),
        forgotten,
        "a device that is registered until it is forgotten",
        || "none".into(),
    )
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
    // In a pattern, an underscore stands for any letter.
    for end in ["_a", "xa", "_", "x"] {
        passes.push(PassId::new(&format!("{base}{end}"), "1")?);
    }
    // Types of the greatest length, which differ only in the last byte.
    let longest = format!("{base}{}", "u".repeat(128 - base.as_str().len()));
    passes.push(PassId::new(&longest, "1")?);
    passes.push(PassId::new(&longest[..127], "1")?);
    passes.push(PassId::new(&format!("{}v", &longest[..127]), "1")?);
    passes.sort();
    passes.dedup();
    // The order is mixed by length, so that passes with short names and passes with long names are
    // neighbours.
    passes.sort_by_key(|pass| {
        (pass.serial.as_str().len() * 7 + pass.type_id.as_str().len() * 3) % 11
    });
    each_is_itself(store, &passes).await
}

/// Groups of texts that some collation or normal form treats as equal.
pub(super) const ALIKE: &[&[&str]] = &[
    &[
        "a", "A", "\u{e4}", "\u{c4}", "a\u{308}", "A\u{308}", "\u{ff41}", "\u{430}", "ae", "\u{e6}",
    ],
    &["\u{c5}", "A\u{30a}", "\u{212b}", "\u{e5}", "aa"],
    &["\u{e9}", "\u{c9}", "e\u{301}", "e", "\u{435}"],
    &["ss", "SS", "\u{df}", "\u{1e9e}", "sS"],
    &["i", "I", "\u{130}", "\u{131}", "i\u{307}", "\u{ec}"],
    &[
        "\u{3c3}",
        "\u{3c2}",
        "\u{3a3}",
        "\u{3ac}",
        "\u{3b1}\u{301}",
        "\u{1f71}",
    ],
    &["\u{436}", "\u{416}", "\u{439}", "\u{438}\u{306}", "\u{438}"],
    &["k", "K", "\u{212a}"],
    &["fi", "\u{fb01}", "FI"],
    &[
        "1", "\u{661}", "\u{ff11}", "\u{b9}", "\u{2460}", "01", "1.0",
    ],
    &["\u{ac00}", "\u{1100}\u{1161}"],
    &[
        "\u{304b}",
        "\u{30ab}",
        "\u{ff76}",
        "\u{304c}",
        "\u{304b}\u{3099}",
    ],
    &["\u{10428}", "\u{10400}", "\u{1f3ab}", "\u{1f39f}"],
    &[
        "x",
        "x ",
        " x",
        "x\u{a0}",
        "x\u{3000}",
        "x\u{200b}",
        "x\u{ad}",
        "x\u{feff}",
        "x\u{200d}",
        "x\u{2028}",
    ],
    &["x-y", "xy", "x\u{2010}y", "x\u{2212}y", "x_y", "x.y"],
];

async fn letters_that_look_alike(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let type_id = new_type()?;
    let mut passes = Vec::new();
    for text in ALIKE.iter().flat_map(|group| *group) {
        passes.push(pass_of(&type_id, &serial(&format!("n{text}"))?));
    }
    each_is_itself(store, &passes).await
}

async fn joined_names_are_kept_apart(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(3)?;
    let plain = [(0, 0), (0, 1), (1, 1), (1, 2)];
    let devices = [new_device()?, new_device()?];
    let plain =
        plain.map(|(device, pass): (usize, usize)| (devices[device].clone(), passes[pass].clone()));
    let plain = BTreeSet::from(plain);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|end| format!("{}{end}", unique()));
    let [first, second] = [format!("pass.{a}"), format!("pass.{b}")];
    let mut registrations: BTreeSet<(DeviceIdentifier, PassId)> = BTreeSet::new();
    for joint in ["", ".", "-", "_", "~", "/", ":", "|", "#", " ", ","] {
        let joined = |one: &str, two: &str| format!("{one}{joint}{two}");
        // Device, type and serial number of pairs that give the same text if they are joined. Types
        // and devices may contain only few characters, so some joints are possible only in serial
        // numbers.
        let pairs = [
            // Type and serial number, and the reverse.
            [
                (d.clone(), first.clone(), joined(&b, &c)),
                (d.clone(), joined(&first, &b), c.clone()),
            ],
            [
                (d.clone(), joined(&first, &second), c.clone()),
                (d.clone(), second.clone(), joined(&c, &first)),
            ],
            // Device and type, and the reverse.
            [
                (d.clone(), joined(&first, &second), c.clone()),
                (joined(&d, &first), second.clone(), c.clone()),
            ],
            [
                (joined(&b, &c), first.clone(), c.clone()),
                (c.clone(), joined(&first, &b), c.clone()),
            ],
            // Device and serial number, and the reverse.
            [
                (a.clone(), first.clone(), joined(&b, &c)),
                (joined(&a, &b), first.clone(), c.clone()),
            ],
            [
                (joined(&b, &c), first.clone(), a.clone()),
                (c.clone(), first.clone(), joined(&a, &b)),
            ],
        ];
        for (device, type_id, serial) in pairs.into_iter().flatten() {
            let (device, type_id) = (
                DeviceIdentifier::new(&device),
                TypeIdentifier::new(&type_id),
            );
            if let (Ok(device), Ok(type_id)) = (device, type_id) {
                registrations.insert((device, pass_of(&type_id, &SerialNumber::new(&serial)?)));
            }
        }
    }
    registrations_are_apart(store, &plain, Judge::Plain).await?;
    registrations_are_apart(store, &registrations, Judge::Odd).await
}

/// Makes these registrations, then reads and removes them one after the other. Ensures that no call
/// affects another registration.
async fn registrations_are_apart(
    store: &dyn RegistrationStore,
    registrations: &BTreeSet<(DeviceIdentifier, PassId)>,
    judge: Judge,
) -> Result<(), Violation> {
    let mut tokens = BTreeMap::new();
    for (device, pass) in registrations {
        if !tokens.contains_key(device) {
            tokens.insert(device, new_push_token()?);
        }
        let registered = store.register(device, pass, &tokens[device]).await?;
        ensure(
            judge.rule(Rule::C10),
            registered == Registered::Created,
            format!("a separate registration of a device for {}", brief(pass)),
            || format!("{registered:?}"),
        )?;
    }
    let mut left = registrations.clone();
    // All registrations exist now. The first round only reads each of them. The second round
    // removes them.
    for removing in [false, true] {
        for (device, pass) in registrations {
            if removing {
                let existed = store.unregister(device, pass).await?;
                left.remove(&(device.clone(), pass.clone()));
                ensure(
                    judge.rule(Rule::UNREGISTER),
                    existed,
                    format!("a registration of the device for {}", brief(pass)),
                    || "none".into(),
                )?;
            }
            let device = Device {
                id: device.clone(),
                push_token: tokens[device].clone(),
            };
            let listed = left
                .iter()
                .filter(|(one, of)| *one == device.id && of.type_id == pass.type_id);
            device
                .lists_exactly(
                    store,
                    &pass.type_id,
                    listed.map(|(_, pass)| pass),
                    judge.rule(Rule::CHANGES_SINCE),
                )
                .await?;
            let of_pass = left.iter().filter(|(_, of)| of == pass);
            let of_pass: Vec<_> = of_pass
                .map(|(id, _)| Device {
                    id: id.clone(),
                    push_token: tokens[id].clone(),
                })
                .collect();
            has_devices(store, pass, &of_pass, judge.rule(Rule::C11)).await?;
            counts(store, pass, of_pass.len() as u64, judge).await?;
        }
    }
    Ok(())
}

async fn devices_that_start_alike(store: &dyn RegistrationStore) -> Result<(), Violation> {
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
        format!("{base}x1"),
        format!("{}_", &base[..base.len() - 1]),
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
    let plain = [Device::new()?, Device::new()?];
    devices_are_apart(store, &plain, Judge::Plain).await?;
    devices_are_apart(store, &devices, Judge::Odd).await
}

/// Registers, unregisters and forgets these devices, one after the other.
async fn devices_are_apart(
    store: &dyn RegistrationStore,
    devices: &[Device],
    judge: Judge,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(2)?;
    for device in devices {
        for pass in &passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
    }
    has_devices(store, &passes[0], devices, judge.rule(Rule::C11)).await?;
    for (n, device) in devices.iter().enumerate() {
        let existed = store.unregister(&device.id, &passes[0]).await?;
        ensure(
            judge.rule(Rule::UNREGISTER),
            existed,
            "a separate registration for each device",
            || "none".into(),
        )?;
        has_devices(store, &passes[0], &devices[n + 1..], judge.rule(Rule::C11)).await?;
        has_devices(store, &passes[1], devices, judge.rule(Rule::C11)).await?;
        device
            .lists_exactly(
                store,
                &type_id,
                &passes[1..],
                judge.rule(Rule::CHANGES_SINCE),
            )
            .await?;
    }
    for (n, device) in devices.iter().enumerate() {
        forget(store, device, judge).await?;
        has_devices(store, &passes[1], &devices[n + 1..], judge.rule(Rule::C11)).await?;
    }
    let stranger = Device {
        id: new_device()?,
        push_token: new_push_token()?,
    };
    stranger.list(store, &type_id, None).await?.is_empty(
        judge.rule(Rule::CHANGES_SINCE),
        "for a device without passes",
    )
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
