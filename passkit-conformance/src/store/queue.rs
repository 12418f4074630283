//! The calls and checks of a [`PushQueue`] that several modules share.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    push::{Backlog, DeferredPush, PendingChange, Progress, PushQueue, Scope},
    store::PageCursor,
};

use super::names::Device;
use crate::{Rule, Violation, violation::ensure};

pub(super) type Queue = Arc<dyn PushQueue>;

pub(super) fn scope(pass: &PassId) -> Scope {
    Scope::Pass(pass.serial.clone())
}

pub(super) fn page(version: u64, next: &str) -> Progress {
    Progress {
        version,
        next: Some(PageCursor::new(next)),
    }
}

pub(super) fn end(version: u64) -> Progress {
    Progress {
        version,
        next: None,
    }
}

/// Returns all pending changes of a type. Ensures that no change is repeated.
pub(super) async fn pending_of(
    queue: &Queue,
    type_id: &TypeIdentifier,
) -> Result<BTreeMap<Scope, PendingChange>, Violation> {
    let pending = queue.pending(type_id, 100_000).await?;
    let count = pending.len();
    let pending: BTreeMap<_, _> = pending
        .into_iter()
        .map(|change| (change.scope.clone(), change))
        .collect();
    ensure(Rule::Q2, pending.len() == count, "each change once", || {
        format!("{} different changes of {count}", pending.len())
    })?;
    Ok(pending)
}

/// Ensures that exactly these changes are pending.
pub(super) async fn expect_pending<'a>(
    queue: &Queue,
    type_id: &TypeIdentifier,
    wanted: impl IntoIterator<Item = &'a Scope>,
    rule: Rule,
    when: &str,
) -> Result<BTreeMap<Scope, PendingChange>, Violation> {
    let wanted: Vec<_> = wanted.into_iter().collect();
    let pending = pending_of(queue, type_id).await?;
    let missing = wanted
        .iter()
        .filter(|one| !pending.contains_key(one))
        .count();
    let foreign = pending.keys().filter(|one| !wanted.contains(one)).count();
    ensure(
        rule,
        missing == 0 && foreign == 0,
        format!("{} pending changes {when}", wanted.len()),
        || format!("{missing} of them missing, and {foreign} other changes"),
    )?;
    Ok(pending)
}

/// Returns the backlog of the type, if it has one.
pub(super) async fn backlog_of(
    queue: &Queue,
    type_id: &TypeIdentifier,
) -> Result<Option<Backlog>, Violation> {
    let mut of_type = queue
        .backlog()
        .await?
        .into_iter()
        .filter(|backlog| backlog.type_id == *type_id);
    let first = of_type.next();
    ensure(Rule::Q3, of_type.next().is_none(), "each type once", || {
        "a type twice".into()
    })?;
    Ok(first)
}

/// A device with its deferred push: an argument of
/// [`defer`](passkit_server::push::PushQueue::defer).
pub(super) type Deferred = (DeviceIdentifier, Option<DeferredPush>);

pub(super) fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

pub(super) fn push(device: &Device, due: Option<SystemTime>) -> DeferredPush {
    DeferredPush {
        push_token: device.push_token.clone(),
        due,
        attempts: 1,
        bad_since: None,
    }
}

pub(super) fn deferred(device: &Device, due: Option<SystemTime>) -> Deferred {
    (device.id.clone(), Some(push(device, due)))
}

/// Returns the same devices without a push. `defer` with this list removes the deferred pushes of
/// the devices.
pub(super) fn removed(pushes: &[Deferred]) -> Vec<Deferred> {
    pushes
        .iter()
        .map(|(device, _)| (device.clone(), None))
        .collect()
}

/// Reads all pages after the cursor `after`.
pub(super) async fn read_deferred(
    queue: &Queue,
    type_id: &TypeIdentifier,
    after: Option<PageCursor>,
    limit: usize,
) -> Result<Vec<Deferred>, Violation> {
    let mut found = Vec::new();
    let mut after = after;
    for _ in 0..2_000 {
        let page = queue.deferred(type_id, after.as_ref(), limit).await?;
        let about = limit.saturating_mul(2).saturating_add(64);
        ensure(
            Rule::Q4,
            page.items.len() <= about,
            format!("a page of about {limit}"),
            || page.items.len().to_string(),
        )?;
        found.extend(
            page.items
                .into_iter()
                .map(|(device, push)| (device, Some(push))),
        );
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
    Err(Violation::new(
        Rule::Q4,
        "pages that come to an end",
        "a next cursor on every page",
    ))
}

/// Ensures that exactly these pushes are deferred.
pub(super) async fn expect_deferred<'a>(
    queue: &Queue,
    type_id: &TypeIdentifier,
    wanted: impl IntoIterator<Item = &'a Deferred>,
    when: &str,
) -> Result<(), Violation> {
    let found: BTreeMap<_, _> = read_deferred(queue, type_id, None, 50)
        .await?
        .into_iter()
        .collect();
    let wanted: BTreeMap<_, _> = wanted
        .into_iter()
        .map(|(device, push)| (device, push))
        .collect();
    let missing = wanted
        .keys()
        .filter(|device| !found.contains_key(**device))
        .count();
    let foreign = found
        .keys()
        .filter(|device| !wanted.contains_key(*device))
        .count();
    ensure(
        Rule::Q4,
        missing == 0 && foreign == 0,
        format!("{} deferred pushes {when}", wanted.len()),
        || format!("{missing} of them missing, and {foreign} other pushes"),
    )?;
    for (device, wanted) in wanted {
        let (Some(found), Some(wanted)) = (&found[device], wanted) else {
            continue;
        };
        // A report must not show identifiers and push tokens.
        let shown =
            |push: &DeferredPush| format!("{:?}", (push.due, push.attempts, push.bad_since));
        let same_token = found.push_token.as_str() == wanted.push_token.as_str();
        ensure(
            Rule::Q4,
            found == wanted && same_token,
            format!("the token of the device and {} {when}", shown(wanted)),
            || {
                if same_token {
                    shown(found)
                } else {
                    "another token".into()
                }
            },
        )?;
    }
    Ok(())
}

/// Finishes all pending changes of the type, as after their pushes were sent.
pub(super) async fn finish_all(queue: &Queue, type_id: &TypeIdentifier) -> Result<(), Violation> {
    let pending = pending_of(queue, type_id).await?;
    let done: Vec<_> = pending
        .into_values()
        .map(|change| (change.scope, end(change.version)))
        .collect();
    Ok(queue.record_progress(type_id, &done).await?)
}
