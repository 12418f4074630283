//! Identifiers that no other check has, and short forms for the calls that most checks make.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use passkit_server::{
    Changes, DeviceIdentifier, InvalidIdentifier, PageCursor, PassId, PushToken, RegisteredDevice,
    RegistrationStore, SerialNumber, TypeIdentifier, UpdateTag,
};
use tokio::task::JoinSet;

use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

/// 32 hexadecimal digits that no other call of any process gives.
pub(crate) fn unique() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one("process"));
    // Mixed, so that devices made one after another are not neighbours in the store's order.
    let count = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_add(*process);
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^= mixed >> 32;
    format!("{mixed:016x}{process:016x}")
}

/// The checks make no identifier that is not well-formed; if one did, that would be their own fault.
impl From<InvalidIdentifier> for Breach {
    fn from(error: InvalidIdentifier) -> Self {
        Self::new(Rule::ERRORS, "a check that makes well-formed identifiers", error.to_string())
    }
}

pub(crate) fn new_type() -> Result<TypeIdentifier, Breach> {
    Ok(TypeIdentifier::new(&format!("pass.conformance.{}", unique()))?)
}

pub(crate) fn new_device() -> Result<DeviceIdentifier, Breach> {
    Ok(DeviceIdentifier::new(&unique())?)
}

pub(crate) fn new_push_token() -> Result<PushToken, Breach> {
    Ok(PushToken::new(&format!("{}{}", unique(), unique()))?)
}

pub(crate) fn serial(text: &str) -> Result<SerialNumber, Breach> {
    Ok(SerialNumber::new(text)?)
}

pub(crate) fn pass_of(type_id: &TypeIdentifier, serial: &SerialNumber) -> PassId {
    PassId { type_id: type_id.clone(), serial: serial.clone() }
}

/// `count` passes of a new type.
pub(crate) fn new_passes(count: usize) -> Result<(TypeIdentifier, Vec<PassId>), Breach> {
    let type_id = new_type()?;
    let passes = (0..count)
        .map(|n| Ok(pass_of(&type_id, &serial(&format!("serial-{n}"))?)))
        .collect::<Result<_, Breach>>()?;
    Ok((type_id, passes))
}

pub(crate) fn serials<'a>(passes: impl IntoIterator<Item = &'a PassId>) -> Vec<SerialNumber> {
    passes.into_iter().map(|pass| pass.serial.clone()).collect()
}

/// The results of all tasks, or the first breach among them.
pub(crate) async fn all<T: Send + 'static>(tasks: JoinSet<Result<T, Breach>>) -> Result<Vec<T>, Breach> {
    tasks.join_all().await.into_iter().collect()
}

/// A device with its push token, as a check holds it.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) id: DeviceIdentifier,
    pub(crate) push_token: PushToken,
}

impl Device {
    pub(crate) fn new() -> Result<Self, Breach> {
        Ok(Self { id: new_device()?, push_token: new_push_token()? })
    }

    /// A device that is registered for `passes`.
    pub(crate) async fn holding<S: RegistrationStore + ?Sized>(
        store: &S,
        passes: impl IntoIterator<Item = &PassId>,
    ) -> Result<Self, Breach> {
        let device = Self::new()?;
        for pass in passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
        Ok(device)
    }

    /// The same, many registrations at a time.
    pub(crate) async fn holding_many(
        store: &Arc<dyn RegistrationStore>,
        passes: &[PassId],
    ) -> Result<Self, Breach> {
        const AT_ONCE: usize = 64;
        let device = Self::new()?;
        let mut tasks = JoinSet::new();
        for part in passes.chunks(passes.len().div_ceil(AT_ONCE).max(1)) {
            let (store, device, part) = (store.clone(), device.clone(), part.to_vec());
            tasks.spawn(async move {
                for pass in &part {
                    store.register(&device.id, pass, &device.push_token).await?;
                }
                Ok::<_, Breach>(())
            });
        }
        all(tasks).await?;
        Ok(device)
    }

    /// Asks what changed. Demands an answer without repetitions, and (C4) a tag that moves when something is listed.
    pub(crate) async fn list<S: RegistrationStore + ?Sized>(
        &self,
        store: &S,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Listed, Breach> {
        let listed = self.ask(store, type_id, since).await?;
        demand(
            Rule::C4,
            listed.serials.is_empty() || Some(listed.tag) != since,
            "another tag than the one asked with, beside serial numbers",
            || format!("{} serial numbers and the same tag {}", listed.serials.len(), listed.tag),
        )?;
        Ok(listed)
    }

    /// The same, whatever the tag.
    pub(crate) async fn ask<S: RegistrationStore + ?Sized>(
        &self,
        store: &S,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
    ) -> Result<Listed, Breach> {
        let Changes { serials, tag } = store.updated_since(&self.id, type_id, since).await?;
        let set: BTreeSet<_> = serials.iter().cloned().collect();
        demand(Rule::UPDATED_SINCE, set.len() == serials.len(), "each serial number once", || {
            format!("{} serial numbers of which {} differ", serials.len(), set.len())
        })?;
        Ok(Listed { serials: set, tag })
    }

    /// Lists without a tag, which must give exactly `passes`; returns the tag.
    pub(crate) async fn lists_exactly<'a, S: RegistrationStore + ?Sized>(
        &self,
        store: &S,
        type_id: &TypeIdentifier,
        passes: impl IntoIterator<Item = &'a PassId>,
        rule: Rule,
    ) -> Result<UpdateTag, Breach> {
        let listed = self.list(store, type_id, None).await?;
        let wanted: BTreeSet<_> = passes.into_iter().map(|pass| pass.serial.clone()).collect();
        demand(
            rule,
            listed.serials == wanted,
            format!("without a tag exactly the passes registered: {}", shown(&wanted)),
            || shown(&listed.serials),
        )?;
        Ok(listed.tag)
    }
}

/// An answer of `updated_since` that was found in order.
pub(crate) struct Listed {
    pub(crate) serials: BTreeSet<SerialNumber>,
    pub(crate) tag: UpdateTag,
}

impl Listed {
    /// Demands that all of `passes` are listed.
    pub(crate) fn has<'a>(
        &self,
        passes: impl IntoIterator<Item = &'a PassId>,
        rule: Rule,
        when: &str,
    ) -> Kept {
        let missing: BTreeSet<_> = passes
            .into_iter()
            .filter(|pass| !self.serials.contains(&pass.serial))
            .map(|pass| pass.serial.clone())
            .collect();
        demand(rule, missing.is_empty(), format!("{} listed {when}", shown(&missing)), || {
            shown(&self.serials)
        })
    }

    /// Demands that nothing is listed.
    pub(crate) fn is_empty(&self, rule: Rule, when: &str) -> Kept {
        demand(rule, self.serials.is_empty(), format!("nothing listed {when}"), || shown(&self.serials))
    }

    /// Demands that nothing but `passes` is listed: a list holds what is registered on that device.
    pub(crate) fn is_within<'a>(&self, passes: impl IntoIterator<Item = &'a PassId>) -> Kept {
        let held: BTreeSet<_> = passes.into_iter().map(|pass| &pass.serial).collect();
        let foreign: BTreeSet<_> =
            self.serials.iter().filter(|serial| !held.contains(serial)).cloned().collect();
        demand(
            Rule::UPDATED_SINCE,
            foreign.is_empty(),
            "only passes registered on the device, of the type asked for",
            || format!("also {}", shown(&foreign)),
        )
    }
}

/// The first few of a set of serial numbers, cut to a readable length.
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

/// All pages of the devices of `pass`, read `limit` at a time.
///
/// Demands that pages are about as long as asked for and come to an end.
pub(crate) async fn devices_of<S: RegistrationStore + ?Sized>(
    store: &S,
    pass: &PassId,
    limit: usize,
    at_most: usize,
) -> Result<Vec<RegisteredDevice>, Breach> {
    devices_after(store, pass, None, limit, at_most).await
}

/// The same, from behind a page.
pub(crate) async fn devices_after<S: RegistrationStore + ?Sized>(
    store: &S,
    pass: &PassId,
    after: Option<PageCursor>,
    limit: usize,
    at_most: usize,
) -> Result<Vec<RegisteredDevice>, Breach> {
    let mut devices = Vec::new();
    let mut after = after;
    // Empty pages are allowed, endless ones are not.
    for _ in 0..=(4 * at_most + 1_000) {
        let page = store.devices_of(pass, after.as_ref(), limit).await?;
        demand(
            Rule::C11,
            page.devices.len() <= limit.saturating_mul(2).saturating_add(64),
            format!("a page of about {limit} devices"),
            || format!("{} devices", page.devices.len()),
        )?;
        devices.extend(page.devices);
        after = page.next;
        if after.is_none() {
            return Ok(devices);
        }
    }
    Err(Breach::new(Rule::C11, format!("pages of {limit} that come to an end"), "a cursor after every page"))
}

/// Demands that exactly `devices` are registered for `pass`, each with its push token.
pub(crate) async fn has_devices<'a, S: RegistrationStore + ?Sized>(
    store: &S,
    pass: &PassId,
    devices: impl IntoIterator<Item = &'a Device>,
    rule: Rule,
) -> Kept {
    has_devices_in_pages(store, pass, devices, 100, rule).await
}

/// The same, reading `limit` at a time.
pub(crate) async fn has_devices_in_pages<'a, S: RegistrationStore + ?Sized>(
    store: &S,
    pass: &PassId,
    devices: impl IntoIterator<Item = &'a Device>,
    limit: usize,
    rule: Rule,
) -> Kept {
    let wanted: Vec<&Device> = devices.into_iter().collect();
    let found = devices_of(store, pass, limit, wanted.len()).await?;
    let missing = wanted.iter().filter(|device| found.iter().all(|one| one.device != device.id)).count();
    let foreign = found.iter().filter(|one| wanted.iter().all(|device| device.id != one.device)).count();
    demand(
        rule,
        missing == 0 && foreign == 0,
        format!("the {} devices that are registered for the pass", wanted.len()),
        || format!("{missing} of them missing and {foreign} others"),
    )?;
    let stale = found
        .iter()
        .filter(|one| {
            wanted.iter().any(|device| device.id == one.device && device.push_token != one.push_token)
        })
        .count();
    demand(Rule::C10, stale == 0, "each device with the push token of its last register", || {
        format!("{stale} devices with another push token")
    })
}
