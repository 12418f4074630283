//! Makes unique identifiers. Contains the calls and checks that most cases share.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_server::{
    PassId, PassState,
    identifiers::{DeviceIdentifier, InvalidIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Audience, Changes, PageCursor, RegisteredDevice, RegistrationStore, UpdateTag},
};
use tokio::task::JoinSet;

use crate::{Rule, Violation, violation::ensure};

/// Returns 32 hexadecimal digits that no other call in any process returns.
pub(crate) fn unique() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one("process"));
    // The bits are mixed, so that devices made one after the other are not neighbours in the store.
    let count = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_add(*process);
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^= mixed >> 32;
    format!("{mixed:016x}{process:016x}")
}

/// The cases make only well-formed identifiers. An invalid identifier is a fault of the case.
impl From<InvalidIdentifier> for Violation {
    fn from(error: InvalidIdentifier) -> Self {
        Self::new(
            Rule::ERRORS,
            "well-formed identifiers from the case itself",
            error.to_string(),
        )
    }
}

pub(crate) fn new_type() -> Result<TypeIdentifier, Violation> {
    Ok(TypeIdentifier::new(&format!(
        "pass.conformance.{}",
        unique()
    ))?)
}

pub(crate) fn new_device() -> Result<DeviceIdentifier, Violation> {
    Ok(DeviceIdentifier::new(&unique())?)
}

pub(crate) fn new_push_token() -> Result<PushToken, Violation> {
    Ok(PushToken::new(&format!("{}{}", unique(), unique()))?)
}

/// Push tokens like the ones from other wallets: a UUID, FCM tokens, and a token of the greatest
/// length with all allowed characters.
pub(crate) fn foreign_push_tokens() -> Result<Vec<PushToken>, Violation> {
    let every: String = (b'!'..=b'~').map(char::from).collect();
    let id = unique();
    let texts = [
        format!("6F9619FF-8B86-D011-B42D-{}", id[..12].to_uppercase()),
        format!("cMv{}:APA91bHPRgkF3_x-y{}", &id[..8], "Zz-_9".repeat(28)),
        every.clone(),
        format!("{}:{}", "a".repeat(200), "-_".repeat(99) + "."),
        format!("AbCdEf{id}"),
        "a".into(),
    ];
    Ok(texts
        .iter()
        .map(|text| PushToken::new(text))
        .collect::<Result<_, _>>()?)
}

pub(crate) fn serial(text: &str) -> Result<SerialNumber, Violation> {
    Ok(SerialNumber::new(text)?)
}

pub(crate) fn pass_of(type_id: &TypeIdentifier, serial: &SerialNumber) -> PassId {
    PassId {
        type_id: type_id.clone(),
        serial: serial.clone(),
    }
}

/// Makes `count` passes of a new type.
pub(crate) fn new_passes(count: usize) -> Result<(TypeIdentifier, Vec<PassId>), Violation> {
    let type_id = new_type()?;
    let passes = (0..count)
        .map(|n| Ok(pass_of(&type_id, &serial(&format!("serial-{n}"))?)))
        .collect::<Result<_, Violation>>()?;
    Ok((type_id, passes))
}

pub(crate) fn serials<'a>(passes: impl IntoIterator<Item = &'a PassId>) -> Vec<SerialNumber> {
    passes.into_iter().map(|pass| pass.serial.clone()).collect()
}

/// Returns the results of all tasks, or the first violation.
pub(crate) async fn all<T: Send + 'static>(
    tasks: JoinSet<Result<T, Violation>>,
) -> Result<Vec<T>, Violation> {
    tasks.join_all().await.into_iter().collect()
}

/// A device that a case made, with its push token.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) id: DeviceIdentifier,
    pub(crate) push_token: PushToken,
}

impl Device {
    pub(crate) fn new() -> Result<Self, Violation> {
        Ok(Self {
            id: new_device()?,
            push_token: new_push_token()?,
        })
    }

    /// Makes a device and registers it for `passes`.
    pub(crate) async fn registered_for(
        store: &dyn RegistrationStore,
        passes: impl IntoIterator<Item = &PassId>,
    ) -> Result<Self, Violation> {
        let device = Self::new()?;
        for pass in passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
        Ok(device)
    }

    /// Like [`registered_for`](Self::registered_for), but makes many calls in parallel.
    pub(crate) async fn registered_for_many(
        store: &Arc<dyn RegistrationStore>,
        passes: &[PassId],
    ) -> Result<Self, Violation> {
        const AT_ONCE: usize = 64;
        let device = Self::new()?;
        let mut tasks = JoinSet::new();
        for part in passes.chunks(passes.len().div_ceil(AT_ONCE).max(1)) {
            let (store, device, part) = (store.clone(), device.clone(), part.to_vec());
            tasks.spawn(async move {
                for pass in &part {
                    store.register(&device.id, pass, &device.push_token).await?;
                }
                Ok::<_, Violation>(())
            });
        }
        all(tasks).await?;
        Ok(device)
    }

    /// Asks for the list of the device. Ensures that no pass is repeated, and that the tag is new
    /// if a pass is listed (C4).
    pub(crate) async fn list(
        &self,
        store: &dyn RegistrationStore,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Listed, Violation> {
        let listed = self.ask(store, type_id, since).await?;
        ensure(
            Rule::C4,
            listed.serials.is_empty() || Some(listed.tag) != since,
            "a tag that differs from the tag in the request, because passes are listed",
            || {
                format!(
                    "{} serial numbers and the same tag {}",
                    listed.serials.len(),
                    listed.tag
                )
            },
        )?;
        Ok(listed)
    }

    /// Like [`list`](Self::list), without the check of the tag.
    pub(crate) async fn ask(
        &self,
        store: &dyn RegistrationStore,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Listed, Violation> {
        let Changes { serials, tag } = store.changes_since(&self.id, type_id, since).await?;
        let set: BTreeSet<_> = serials.iter().cloned().collect();
        ensure(
            Rule::CHANGES_SINCE,
            set.len() == serials.len(),
            "each serial number once",
            || {
                format!(
                    "{} serial numbers, of which {} are different",
                    serials.len(),
                    set.len()
                )
            },
        )?;
        Ok(Listed { serials: set, tag })
    }

    /// Asks for the list without a tag. Ensures that it names exactly `passes`, and returns the
    /// tag.
    pub(crate) async fn lists_exactly<'a>(
        &self,
        store: &dyn RegistrationStore,
        type_id: &TypeIdentifier,
        passes: impl IntoIterator<Item = &'a PassId>,
        rule: Rule,
    ) -> Result<UpdateTag, Violation> {
        let listed = self.list(store, type_id, None).await?;
        let wanted: BTreeSet<_> = passes.into_iter().map(|pass| pass.serial.clone()).collect();
        ensure(
            rule,
            listed.serials == wanted,
            format!(
                "without a tag, exactly the passes that are registered: {}",
                shown(&wanted)
            ),
            || shown(&listed.serials),
        )?;
        Ok(listed.tag)
    }
}

/// A checked answer of `changes_since`.
pub(crate) struct Listed {
    pub(crate) serials: BTreeSet<SerialNumber>,
    pub(crate) tag: UpdateTag,
}

impl Listed {
    /// Ensures that all of `passes` are listed.
    pub(crate) fn has<'a>(
        &self,
        passes: impl IntoIterator<Item = &'a PassId>,
        rule: Rule,
        when: &str,
    ) -> Result<(), Violation> {
        let missing: BTreeSet<_> = passes
            .into_iter()
            .filter(|pass| !self.serials.contains(&pass.serial))
            .map(|pass| pass.serial.clone())
            .collect();
        ensure(
            rule,
            missing.is_empty(),
            format!("{} listed {when}", shown(&missing)),
            || shown(&self.serials),
        )
    }

    /// Ensures that nothing is listed.
    pub(crate) fn is_empty(&self, rule: Rule, when: &str) -> Result<(), Violation> {
        ensure(
            rule,
            self.serials.is_empty(),
            format!("nothing listed {when}"),
            || shown(&self.serials),
        )
    }

    /// Ensures that only `passes` are listed, because only they are registered on the device.
    pub(crate) fn is_within<'a>(
        &self,
        passes: impl IntoIterator<Item = &'a PassId>,
    ) -> Result<(), Violation> {
        let registered: BTreeSet<_> = passes.into_iter().map(|pass| &pass.serial).collect();
        let foreign: BTreeSet<_> = self
            .serials
            .iter()
            .filter(|serial| !registered.contains(serial))
            .cloned()
            .collect();
        ensure(
            Rule::CHANGES_SINCE,
            foreign.is_empty(),
            "only passes of the requested type that are registered on the device",
            || format!("also {}", shown(&foreign)),
        )
    }
}

/// Describes the state of a pass, with the start of its digest.
pub(crate) fn shown_state(state: PassState) -> String {
    let PassState {
        version,
        last_modified,
        published,
    } = state;
    let digest = published.map_or("none".into(), |digest| {
        digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    });
    format!("version {version}, date {last_modified}, digest {digest}")
}

/// Describes a set of serial numbers, with the beginnings of the first few.
pub(crate) fn shown(serials: &BTreeSet<SerialNumber>) -> String {
    let mut text = format!("{} serial numbers", serials.len());
    for (n, serial) in serials.iter().take(5).enumerate() {
        let start: String = serial.as_str().chars().take(40).collect();
        text.push_str(if n == 0 { ": " } else { ", " });
        text.push_str(&format!("{start:?}"));
    }
    if serials.len() > 5 {
        text.push_str(", ...");
    }
    text
}

/// Reads the devices of an audience, in pages of `limit`.
///
/// Ensures that pages have about this length, and that the last page has no cursor.
pub(crate) async fn devices_of(
    store: &dyn RegistrationStore,
    audience: Audience<'_>,
    limit: usize,
    at_most: usize,
) -> Result<Vec<RegisteredDevice>, Violation> {
    devices_after(store, audience, None, limit, at_most).await
}

/// Like [`devices_of`], but starts after a cursor.
pub(crate) async fn devices_after(
    store: &dyn RegistrationStore,
    audience: Audience<'_>,
    after: Option<PageCursor>,
    limit: usize,
    at_most: usize,
) -> Result<Vec<RegisteredDevice>, Violation> {
    let mut devices = Vec::new();
    let mut after = after;
    // Pages may be empty, but there must be a last page.
    for _ in 0..=(4 * at_most + 1_000) {
        let page = store.devices(audience, after.as_ref(), limit).await?;
        ensure(
            Rule::C11,
            page.items.len() <= limit.saturating_mul(2).saturating_add(64),
            format!("a page of about {limit} devices"),
            || format!("{} devices", page.items.len()),
        )?;
        devices.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(devices);
        }
    }
    Err(Violation::new(
        Rule::C11,
        format!("pages of {limit} that come to an end"),
        "a next cursor on every page",
    ))
}

/// Ensures that the devices of `pass` are exactly `devices`, each with its push token.
pub(crate) async fn has_devices<'a>(
    store: &dyn RegistrationStore,
    pass: &PassId,
    devices: impl IntoIterator<Item = &'a Device>,
    rule: Rule,
) -> Result<(), Violation> {
    expect_devices(store, Audience::Pass(pass), devices, 100, rule).await
}

/// Ensures that pages of `limit` have exactly `devices`, each with its push token.
pub(crate) async fn expect_devices<'a>(
    store: &dyn RegistrationStore,
    audience: Audience<'_>,
    devices: impl IntoIterator<Item = &'a Device>,
    limit: usize,
    rule: Rule,
) -> Result<(), Violation> {
    let wanted: HashMap<_, _> = devices
        .into_iter()
        .map(|one| (&one.id, &one.push_token))
        .collect();
    let found = devices_of(store, audience, limit, wanted.len()).await?;
    let seen: HashSet<_> = found.iter().map(|one| &one.device).collect();
    let missing = wanted
        .keys()
        .filter(|device| !seen.contains(**device))
        .count();
    let foreign = seen
        .iter()
        .filter(|device| !wanted.contains_key(**device))
        .count();
    ensure(
        rule,
        missing == 0 && foreign == 0,
        format!(
            "exactly the {} devices that are registered for {}, in pages of {limit}",
            wanted.len(),
            shown_audience(audience)
        ),
        || format!("{missing} of them missing, and {foreign} other devices"),
    )?;
    // The comparison is exact, because a push token must be stored as it was received.
    let is_other = |one: &&RegisteredDevice| {
        wanted
            .get(&one.device)
            .is_some_and(|token| token.as_str() != one.push_token.as_str())
    };
    let stale = found.iter().filter(is_other).count();
    ensure(
        Rule::C10,
        stale == 0,
        "each device with the push token of its last register",
        || format!("{stale} devices with another push token"),
    )
}

fn shown_audience(audience: Audience<'_>) -> &'static str {
    match audience {
        Audience::Pass(_) => "the pass",
        Audience::Type(_) => "a pass of the type",
    }
}
