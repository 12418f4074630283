//! Marks passes, lists what changed, and reads the state and the published content of a pass.

use std::{collections::HashSet, vec::IntoIter};

use passkit_server::{
    Changed, PassId, PassState,
    identifiers::{DeviceIdentifier, SerialNumber, TypeIdentifier},
    push::Scope,
    store::{
        Changes, Content, ContentDigest, Published, UpdateTag,
        clock::{self, next_last_modified, next_version},
    },
};

use crate::{
    engine::{Group, Unanswered, View},
    error::SledError,
    layout::{self, DeviceRow, Mark, Registrations, TypeRow},
};

/// What is left to mark. A long mark has several steps.
#[derive(Debug)]
pub(crate) enum Marking {
    Passes(IntoIter<SerialNumber>),
    Contents(IntoIter<Content>),
    All,
}

impl Marking {
    /// Returns `None` if there is nothing to do.
    pub(crate) fn new(changed: Changed<'_>) -> Option<Self> {
        match changed {
            Changed::Passes([]) | Changed::Contents([]) => None,
            Changed::Passes(serials) => Some(Self::Passes(Vec::from(serials).into_iter())),
            Changed::Contents(contents) => Some(Self::Contents(Vec::from(contents).into_iter())),
            Changed::All => Some(Self::All),
        }
    }
}

/// What one step of a mark did.
#[derive(Debug)]
pub(crate) struct Marked {
    /// The version of the mark.
    pub(crate) version: u64,
    pub(crate) scopes: Vec<Scope>,
    /// Whether another step is needed.
    pub(crate) more: bool,
}

/// Marks as many passes as the group has room for. For each pass, the caller changes `other_rows` more rows.
pub(crate) fn mark(
    group: &mut Group<'_>,
    type_id: &TypeIdentifier,
    marking: &mut Marking,
    other_rows: usize,
) -> Result<Marked, SledError> {
    let now = clock::now_micros();
    let mut clock = group.type_row(type_id);
    clock.version = next_version(clock.version, now);
    let mut step = Step {
        group,
        type_id,
        clock,
        now,
    };
    let mut scopes = Vec::new();
    let more = match marking {
        Marking::Passes(serials) => {
            let room = step.room(1 + other_rows);
            let mut seen = HashSet::with_capacity(room.min(serials.len()));
            for serial in serials
                .by_ref()
                .take(room)
                .filter(|serial| seen.insert(serial.clone()))
            {
                step.mark(&serial, None)?;
                scopes.push(Scope::Pass(serial));
            }
            serials.len() > 0
        }
        Marking::Contents(contents) => {
            let room = step.room(2 + other_rows);
            for content in contents.by_ref().take(room) {
                if let Some(digest) = step.publish(&content)? {
                    step.mark(&content.serial, Some(digest))?;
                    scopes.push(Scope::Pass(content.serial));
                }
            }
            contents.len() > 0
        }
        Marking::All => {
            step.mark_all();
            scopes.push(Scope::Type);
            false
        }
    };
    let clock = step.clock;
    if !scopes.is_empty() {
        group.put_type(type_id, clock);
    }
    Ok(Marked {
        version: clock.version,
        scopes,
        more,
    })
}

/// A step of a mark. All passes of a step get the same value of the type's clock as their version.
struct Step<'g, 'w> {
    group: &'g mut Group<'w>,
    type_id: &'g TypeIdentifier,
    clock: TypeRow,
    /// The current time in microseconds since the Unix epoch.
    now: u64,
}

impl Step<'_, '_> {
    /// Returns how many passes fit into the group if each changes this number of rows.
    fn room(&self, rows: usize) -> usize {
        (self.group.room() / rows).max(1)
    }

    /// Marks a pass. Stores the digest if there is one.
    fn mark(
        &mut self,
        serial: &SerialNumber,
        digest: Option<ContentDigest>,
    ) -> Result<(), SledError> {
        let key = layout::pass(self.type_id, serial);
        let before = self.group.get(&key)?;
        let own = before.as_deref().map(layout::decode_pass).transpose()?;
        let last_date = own
            .map_or(0, |own| own.last_modified)
            .max(self.clock.floor.last_modified);
        let last_modified = next_last_modified(last_date, self.now);
        self.clock.latest_date = self.clock.latest_date.max(last_modified);
        let published = digest.or(own.and_then(|own| own.published));
        let state = PassState {
            version: self.clock.version,
            last_modified,
            published,
        };
        self.group
            .put(key, before, Some(layout::encode_pass(&state)));
        Ok(())
    }

    fn mark_all(&mut self) {
        self.clock.latest_date = next_last_modified(self.clock.latest_date, self.now);
        self.clock.floor = Mark {
            version: self.clock.version,
            last_modified: self.clock.latest_date,
        };
    }

    /// Stores the published content of a pass. Returns the digest if it differs from the one published last.
    fn publish(&mut self, content: &Content) -> Result<Option<ContentDigest>, SledError> {
        let key = layout::published(self.type_id, &content.serial);
        let before = self.group.get(&key)?;
        let mut published = before
            .as_deref()
            .map(layout::decode_published)
            .transpose()?
            .unwrap_or_default();
        let is_new = published.update(content);
        self.group
            .put(key, before, Some(layout::encode_published(&published)));
        Ok(published.digest.filter(|_| is_new))
    }
}

/// Removes the mark and the published content of a pass. If the date of the pass is not past, changes nothing and returns
/// `false`.
pub(crate) fn forget_pass(group: &mut Group<'_>, pass: &PassId) -> Result<bool, SledError> {
    let state_key = layout::pass(&pass.type_id, &pass.serial);
    let state = group.get(&state_key)?;
    let own = state.as_deref().map(layout::decode_pass).transpose()?;
    if own.is_some_and(|own| own.last_modified >= clock::now_micros() / 1_000_000) {
        return Ok(false);
    }
    let published_key = layout::published(&pass.type_id, &pass.serial);
    let published = group.get(&published_key)?;
    group.put(state_key, state, None);
    group.put(published_key, published, None);
    Ok(true)
}

/// Implements [`RegistrationStore::changes_since`](passkit_server::store::RegistrationStore::changes_since). Each row that it
/// reads is durable, but the rows may be from different moments.
///
/// The function reads the type's clock `c` first, then the device's clock `d`, then registrations and passes. The answer has
/// the tag (c, d). A row that is read after a clock is at least as new as the clock. Therefore:
/// * The function sees all marks up to `c` and all registrations up to `d`, so the answer misses nothing that its tag covers.
/// * The function may see a change after `c` or `d`. If it does, this answer and a later answer have the change. If not,
///   only a later answer has the change.
/// * Marks count only if `c` is after the tag of the request, and registrations only if `d` is. So the tag in an answer with
///   serial numbers differs from the tag in its request.
pub(crate) fn changes_since(
    view: &View<'_>,
    device: &DeviceIdentifier,
    type_id: &TypeIdentifier,
    since: Option<UpdateTag>,
) -> Result<Changes, Unanswered> {
    let clock = view.type_row(type_id)?;
    let Some(row) = view.get(&layout::device(device))? else {
        let tag = UpdateTag {
            type_version: clock.version,
            device_version: 0,
        };
        return Ok(Changes {
            serials: Vec::new(),
            tag,
        });
    };
    let row = DeviceRow::decode(&row)?;
    let tag = UpdateTag {
        type_version: clock.version,
        device_version: row.version,
    };
    let since = since.and_then(|since| since.unless_ahead_of(tag));
    let mut serials = Vec::new();
    if since == Some(tag) {
        return Ok(Changes { serials, tag });
    }

    let mut consider = |serial: &[u8], registered: u64| -> Result<(), Unanswered> {
        let serial = layout::read_serial(serial)?;
        if is_changed(view, type_id, &serial, registered, &clock, tag, since)? {
            serials.push(serial);
        }
        Ok(())
    };
    match row.registrations {
        Registrations::Few(few) => {
            for one in few.iter() {
                let (of_type, serial, registered) = one?;
                if of_type == type_id.as_str().as_bytes() {
                    consider(serial, registered)?;
                }
            }
        }
        Registrations::Many(_) => {
            let prefix = layout::registrations_of_type(device, type_id);
            for (key, value) in view.scan(&prefix, None, usize::MAX)?.rows {
                consider(&key[prefix.len()..], layout::decode_registration(&value)?)?;
            }
        }
    }
    Ok(Changes { serials, tag })
}

fn is_changed(
    view: &View<'_>,
    type_id: &TypeIdentifier,
    serial: &SerialNumber,
    registered: u64,
    clock: &TypeRow,
    tag: UpdateTag,
    since: Option<UpdateTag>,
) -> Result<bool, Unanswered> {
    let Some(since) = since else { return Ok(true) };
    if tag.device_version > since.device_version && registered > since.device_version {
        return Ok(true);
    }
    if tag.type_version == since.type_version {
        return Ok(false);
    }
    if clock.floor.version > since.type_version {
        return Ok(true);
    }
    let own = view.get(&layout::pass(type_id, serial))?;
    let own = own.map(|row| layout::decode_pass(&row)).transpose()?;
    Ok(own.is_some_and(|own| own.version > since.type_version))
}

pub(crate) fn pass_state(view: &View<'_>, pass: &PassId) -> Result<PassState, Unanswered> {
    let Mark {
        version,
        last_modified,
    } = view.type_row(&pass.type_id)?.floor;
    let own = view.get(&layout::pass(&pass.type_id, &pass.serial))?;
    let own = own.map(|row| layout::decode_pass(&row)).transpose()?;
    Ok(PassState {
        version: own.map_or(0, |own| own.version).max(version),
        last_modified: own.map_or(0, |own| own.last_modified).max(last_modified),
        published: own.and_then(|own| own.published),
    })
}

pub(crate) fn published(
    view: &View<'_>,
    passes: &[PassId],
) -> Result<Vec<Option<Published>>, Unanswered> {
    let published = |pass: &PassId| {
        let row = view.get(&layout::published(&pass.type_id, &pass.serial))?;
        Ok(row.map(|row| layout::decode_published(&row)).transpose()?)
    };
    passes.iter().map(published).collect()
}
