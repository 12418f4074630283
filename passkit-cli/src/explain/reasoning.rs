//! From the facts to the causes.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use passkit_server::{
    delivery::{Complaint, PushFailure},
    identifiers::Kind,
};

use super::{
    Cause, Explanation,
    facts::{Knows, PassFacts, Pending, Phone, Seen, Time},
    timeline,
};

/// The clocks of instances and of the store may differ by this much.
const SKEW: Duration = Duration::from_secs(2);
/// An instance that runs begins with a push within this time.
const SOON: Duration = Duration::from_secs(5);

/// Finds the cause for each phone, and for the pass.
pub(super) fn conclude(pass: PassFacts, phones: Vec<Phone>) -> Explanation {
    let timeline = timeline::of(&pass, &phones);
    let told = phones
        .iter()
        .filter(|phone| matches!(phone.knows, Knows::Newest { .. }))
        .count();
    let mut phones: Vec<(Phone, Cause)> = phones
        .into_iter()
        .map(|phone| {
            let cause = of_phone(&pass, &phone, told);
            (phone, cause)
        })
        .collect();
    let groups = groups(&phones);
    phones.sort_by_key(|(phone, cause)| {
        let size = groups.get(cause.name()).copied().unwrap_or_default();
        (
            !cause.is_wrong(),
            Reverse(size),
            cause.name(),
            phone.name.clone(),
        )
    });
    let (cause, concerned) = match (of_pass(&pass), phones.first()) {
        (Some(cause), _) => (cause, None),
        (None, Some((_, cause))) => {
            let phones = groups.get(cause.name()).copied().unwrap_or_default();
            (cause.clone(), Some(phones))
        }
        (None, None) => (without_phones(&pass), None),
    };
    Explanation {
        pass,
        phones,
        timeline,
        cause,
        concerned,
    }
}

/// Counts the phones with each cause.
fn groups(phones: &[(Phone, Cause)]) -> BTreeMap<&'static str, usize> {
    let mut groups = BTreeMap::new();
    for (_, cause) in phones {
        *groups.entry(cause.name()).or_default() += 1;
    }
    groups
}

/// Returns a cause that concerns all phones.
fn of_pass(pass: &PassFacts) -> Option<Cause> {
    let has_phones = pass.registrations.count > 0;
    let content = pass.content.as_ref();
    let is_known = pass.version > 0 || pass.published.is_some() || pass.removed || has_phones;
    if !is_known && content.is_none() && !pass.has_records() {
        return Some(Cause::Unknown);
    }
    if pass.removed {
        return Some(Cause::Removed);
    }
    if let (Some(content), Some(published)) = (content, pass.published)
        && content.digest != published
    {
        return Some(Cause::NotPublished);
    }
    if !has_phones && content.is_some_and(|content| !content.has_service()) {
        return Some(Cause::NoService);
    }
    (has_phones && pass.version == 0).then_some(Cause::NeverChanged)
}

/// Returns why no phone is registered.
fn without_phones(pass: &PassFacts) -> Cause {
    let fetched = [&pass.fetched, &pass.unchanged]
        .into_iter()
        .flatten()
        .map(|seen| seen.at)
        .max();
    let gone = pass
        .pushes
        .failed
        .iter()
        .find(|(failure, _)| *failure == PushFailure::Gone);
    if let Some((denial, seen)) = pass.last_refused()
        && fetched.is_none_or(|fetched| fetched < seen.at)
    {
        return Cause::RegistrationRefused(*denial, seen.at);
    }
    match (gone, fetched) {
        (Some((_, gone)), fetched) if fetched.is_none_or(|fetched| fetched < gone.at) => {
            Cause::TokenGone(gone.at)
        }
        (_, Some(fetched)) => Cause::NoLongerRegistered(fetched),
        _ => Cause::NoRequest,
    }
}

/// Returns why a phone may not have the newest version. `told` is the number of phones that were
/// told of it.
fn of_phone(pass: &PassFacts, phone: &Phone, told: usize) -> Cause {
    let changed = Time(pass.version);
    if let Knows::Newest { told_at } = phone.knows {
        return of_fetches(pass, told_at, told);
    }
    let asked = phone.asked.max(phone.told);
    if let Some(registered) = phone.registered
        && registered >= changed
        && asked.is_none_or(|asked| asked < registered)
    {
        return Cause::RegisteredOnly(registered);
    }
    match asked {
        Some(asked) if phone.knows == Knows::Older && asked > changed.plus(SKEW) => {
            Cause::AskedNotTold(asked)
        }
        _ => of_push(pass, phone),
    }
}

/// Returns what became of the push to a phone that has not asked since the change.
fn of_push(pass: &PassFacts, phone: &Phone) -> Cause {
    let pushes = &pass.pushes;
    let is_about_this = |seen: &Seen| seen.version >= pass.version || seen.at.0 >= pass.version;
    let failure = phone
        .failure
        .as_ref()
        .filter(|(_, seen)| is_about_this(seen) || phone.deferred.is_some());
    if let Some(due) = phone.deferred.and_then(|deferred| deferred.due) {
        return Cause::PushDeferred(failure.map(|(failure, _)| *failure), due);
    }
    let refused = |(failure, seen): &(PushFailure, Seen)| {
        Cause::PushRefused(*failure, seen.detail.clone(), seen.at)
    };
    // A failure that stops the type is not the fault of this phone.
    if let Some(failure) = failure.filter(|_| pushes.pending == Pending::No) {
        return refused(failure);
    }
    if pushes.pending != Pending::No {
        return of_pending(pass);
    }
    let sent = [&pushes.accepted, &pushes.ended]
        .into_iter()
        .flatten()
        .filter(|seen| seen.version >= pass.version)
        .map(|seen| seen.at)
        .min();
    let accepted = pushes
        .accepted
        .as_ref()
        .is_some_and(|seen| seen.version >= pass.version);
    let of_this = |failed: &&(PushFailure, Seen)| failed.1.version >= pass.version;
    match (sent, pushes.failed.iter().find(of_this)) {
        // No push of this change was accepted, so this one was refused too.
        (_, Some(failed)) if !accepted => refused(failed),
        (Some(sent), _) => Cause::NeverAsked(sent),
        (None, _) => Cause::PushUnrecorded,
    }
}

/// Returns why pushes are pending.
fn of_pending(pass: &PassFacts) -> Cause {
    let pushes = &pass.pushes;
    let changed = Time(pass.version);
    let stops = |failure: PushFailure| {
        matches!(
            failure,
            PushFailure::Misconfigured
                | PushFailure::Unreachable
                | PushFailure::Unavailable
                | PushFailure::BadToken
        )
    };
    if let Some((failure, seen)) = &pushes.type_failed
        && stops(*failure)
        && pushes
            .type_accepted
            .is_none_or(|accepted| accepted < seen.at)
    {
        return Cause::PushesStopped(*failure, seen.detail.clone());
    }
    let begun = matches!(pushes.pending, Pending::Yes { begun: true });
    let sends = pushes.type_accepted.is_some_and(|at| at >= changed);
    if begun || sends || changed.until(pass.now) < SOON {
        return Cause::PushUnderWay;
    }
    Cause::NobodyPushes
}

/// Returns what became of the fetch of a phone that was told of the newest version.
fn of_fetches(pass: &PassFacts, told_at: Option<Time>, told: usize) -> Cause {
    let [fetched, unchanged] = pass.of_newest();
    let last = [fetched, unchanged]
        .into_iter()
        .flatten()
        .max_by_key(|seen| seen.at);
    let is_since = |seen: &Seen| told_at.is_none_or(|told| seen.at.plus(SKEW) >= told);
    let Some(last) = last.filter(|seen| is_since(seen)) else {
        return match pass.last_refused() {
            Some((denial, seen)) if seen.at >= told_at.unwrap_or(Time(pass.version)) => {
                Cause::FetchRefused(*denial, seen.at)
            }
            _ => Cause::NotFetched(told_at),
        };
    };
    if fetched.is_none() {
        return Cause::NotModified(last.at);
    }
    let fetches = [fetched, unchanged]
        .into_iter()
        .flatten()
        .map(|seen| seen.count)
        .sum();
    if fetches < told as u64 {
        return Cause::FetchedBySome { fetches, told };
    }
    of_content(pass, last.at)
}

/// Returns what phones show of the newest version, which was fetched.
fn of_content(pass: &PassFacts, fetched: Time) -> Cause {
    let complaint = |complaints: &[Complaint]| {
        pass.complaints
            .iter()
            .find(|(complaint, seen)| complaints.contains(complaint) && seen.at.0 >= pass.version)
            .map(|(complaint, seen)| (*complaint, seen.at))
    };
    if let Some((complaint, at)) = complaint(&[Complaint::InvalidPass, Complaint::WrongPass]) {
        return Cause::ArchiveRefused(complaint, at);
    }
    if let Some((_, at)) = complaint(&[Complaint::PassUnchanged, Complaint::ConditionIgnored]) {
        return Cause::SameContent(at);
    }
    let is_pass = pass.id.type_id.kind() == Kind::Pass;
    match (pass.changes(), &pass.content) {
        (Some(changes), _) if changes.visible == 0 => Cause::NothingVisible(changes.names.clone()),
        (Some(changes), _) if is_pass && changes.messages == 0 => {
            Cause::NoMessage(Some(changes.names.clone()))
        }
        (None, Some(content)) if is_pass && content.messages.is_empty() => Cause::NoMessage(None),
        _ => Cause::AllIsWell(fetched),
    }
}
