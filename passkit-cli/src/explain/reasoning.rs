//! From the facts to the causes.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use passkit_server::{
    delivery::{Complaint, PushFailure},
    identifiers::Kind,
};

use super::{
    Cause, Explanation,
    facts::{Knows, PassFacts, Pending, Phone, SKEW, Seen, Time},
    timeline,
};

/// A running instance begins to send a push within this time.
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
    if let Some(due) = phone.deferred.and_then(|deferred| deferred.due) {
        let failure = phone.failure.as_ref();
        return Cause::PushDeferred(failure.map(|(failure, _)| *failure), due);
    }
    if pushes.pending != Pending::No {
        return of_pending(pass);
    }
    if let Some(cause) = of_failure(pass, phone) {
        return cause;
    }
    let [accepted, ended] = of_newest(pass);
    let of_this =
        |(failure, seen): &&(PushFailure, Seen)| seen.version >= pass.version && is_final(*failure);
    match (
        [accepted, ended].into_iter().flatten().next(),
        pushes.failed.iter().find(of_this),
    ) {
        // No push of this change was accepted, so this one was refused too.
        (_, Some((failure, seen))) if accepted.is_none() => {
            Cause::PushRefused(*failure, seen.detail.clone(), seen.at)
        }
        (Some(sent), _) => Cause::NeverAsked(sent.at),
        (None, _) => Cause::PushUnrecorded,
    }
}

/// Returns the accepted pushes of the newest version, and their end.
fn of_newest(pass: &PassFacts) -> [Option<&Seen>; 2] {
    [&pass.pushes.accepted, &pass.pushes.ended]
        .map(|seen| seen.as_ref().filter(|seen| seen.version >= pass.version))
}

/// Returns whether a push that failed in this way is not tried again for the same change.
fn is_final(failure: PushFailure) -> bool {
    !matches!(
        failure,
        PushFailure::Misconfigured
            | PushFailure::TooMany
            | PushFailure::Unavailable
            | PushFailure::Unreachable
    )
}

/// Returns the cause if the last failed push to a phone was about this change, and was not accepted
/// later.
fn of_failure(pass: &PassFacts, phone: &Phone) -> Option<Cause> {
    let (failure, seen) = phone.failure.as_ref()?;
    let is_quarantined = phone.deferred.is_some();
    if seen.version < pass.version && seen.at.0 < pass.version && !is_quarantined {
        return None;
    }
    let [accepted, ended] = of_newest(pass);
    let is_before = |later: Option<&Seen>| later.is_some_and(|later| seen.at < later.at);
    let refused = Cause::PushRefused(*failure, seen.detail.clone(), seen.at);
    match failure {
        // A device with a bad token stays among the deferred pushes until a push is accepted.
        PushFailure::BadToken
            if pass.pushes.knows_deferred && !is_quarantined && is_before(accepted) =>
        {
            None
        }
        // The pushes end only after this one was tried again.
        PushFailure::Misconfigured if is_before(ended) => None,
        _ if is_final(*failure) || *failure == PushFailure::Misconfigured => Some(refused),
        _ => {
            let all = !pass.registrations.or_more
                && accepted.is_some_and(|seen| seen.count >= pass.registrations.count as u64);
            (!all).then(|| Cause::PushPutOff(*failure, seen.detail.clone(), seen.at))
        }
    }
}

/// Returns why pushes are pending.
fn of_pending(pass: &PassFacts) -> Cause {
    let [accepted, _] = of_newest(pass);
    let stops = |failure: PushFailure| match failure {
        PushFailure::Misconfigured | PushFailure::Unreachable | PushFailure::Unavailable => true,
        // A few tokens may be bad while others are accepted.
        PushFailure::BadToken => accepted.is_none(),
        _ => false,
    };
    let mut failed = pass.pushes.failed.iter();
    let stopped = failed.find(|(failure, seen)| {
        seen.version >= pass.version
            && stops(*failure)
            && accepted.is_none_or(|accepted| accepted.at < seen.at)
    });
    if let Some((failure, seen)) = stopped {
        return Cause::PushesStopped(*failure, seen.detail.clone());
    }
    let begun = matches!(pass.pushes.pending, Pending::Yes { begun: true });
    if begun || accepted.is_some() || Time(pass.version).until(pass.now) < SOON {
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
