//! The explanation as text for a terminal.

use std::fmt::Write as _;

use passkit_server::{
    delivery::{Complaint, Denial, Event, PushFailure},
    text::OneLine,
};

pub(crate) use super::cause::times;
use super::{
    Explanation,
    cause::in_brackets,
    facts::{Knows, PassFacts, Pending, Phone, Seen, Time},
    timeline::{Entry, What},
};

impl Explanation {
    /// Returns the answer in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let sentence = self.cause.sentence(&self.pass);
        let (read, all) = (self.phones.len(), self.pass.registrations.count);
        match self.concerned {
            Some(concerned) if all > 1 && !self.cause.counts_phones() => {
                let were_read = if read < all { " that were read" } else { "" };
                format!("For {concerned} of {read} phones{were_read}, {sentence}.")
            }
            _ => self::sentence(&sentence),
        }
    }

    /// Returns the explanation in lines. The last line is the answer in one sentence.
    pub(crate) fn text(&self) -> String {
        let mut text = pass(&self.pass);
        if !self.phones.is_empty() {
            text += &phones(self);
        }
        if !self.timeline.is_empty() {
            text += "\nWhat happened, with the last time of each:\n";
        }
        for entry in &self.timeline {
            let _ = writeln!(text, "  {}  {}", entry.at, described(entry, &self.pass));
        }
        let _ = write!(text, "\n{}", self.sentence());
        text
    }
}

/// Makes a sentence with a capital letter and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    format!("{}.", capitalized(text))
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn pass(pass: &PassFacts) -> String {
    let mut text = format!("{}\n", OneLine::of(&pass.id.to_string()));
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<14}{value}");
    };
    let changed = match (pass.changed_at(), pass.removed) {
        (Some(at), false) => at.to_string(),
        (Some(at), true) => format!("{at}, and removed since"),
        (None, false) => "never, as far as the store knows".into(),
        (None, true) => "never, and removed".into(),
    };
    line("changed", changed);
    line("phones", pass.registrations.to_string());
    line("pushes", pushes(pass));
    line("fetched", fetches(pass));
    if let Some((denial, seen)) = pass.last_refused() {
        let count: u64 = pass.refused.iter().map(|(_, seen)| seen.count).sum();
        line(
            "refused",
            format!(
                "{}, the last at {}: {}",
                times(count),
                seen.at,
                denial_text(*denial)
            ),
        );
    }
    if let Some((complaint, seen)) = pass.complaints.iter().max_by_key(|(_, seen)| seen.at) {
        let count: u64 = pass.complaints.iter().map(|(_, seen)| seen.count).sum();
        line(
            "complaints",
            format!(
                "{count}, the last at {}: {}",
                seen.at,
                complaint_text(*complaint)
            ),
        );
    }
    text
}

pub(crate) fn pushes(pass: &PassFacts) -> String {
    let pushes = &pass.pushes;
    let of_newest = |seen: &&Seen| seen.version >= pass.version;
    let accepted = pushes.accepted.as_ref().filter(of_newest);
    let mut parts = vec![match accepted {
        Some(seen) => format!("{} accepted", seen.count),
        None => "none is known to be accepted".into(),
    }];
    let failed = pushes.failed.iter().filter(|(_, seen)| of_newest(&seen));
    parts.extend(failed.map(|(failure, seen)| {
        format!(
            "{} {}{}",
            seen.count,
            failure_text(*failure),
            in_brackets(&seen.detail)
        )
    }));
    match pushes.pending {
        Pending::No => {}
        Pending::Yes { begun: false } => parts.push("pending".into()),
        Pending::Yes { begun: true } => parts.push("the rest is pending".into()),
        Pending::Unknown => parts.push("perhaps pending, behind 1000 other changes".into()),
    }
    format!("for this change: {}", parts.join(", "))
}

pub(crate) fn fetches(pass: &PassFacts) -> String {
    let [fetched, unchanged] = pass.of_newest();
    let newest = match (fetched, unchanged) {
        (None, None) => "the newest version: no fetch is known".into(),
        (None, Some(seen)) => format!("the newest version: answered 304 {}", times(seen.count)),
        (Some(seen), None) => {
            format!(
                "the newest version: {}, the last at {}",
                times(seen.count),
                seen.at
            )
        }
        (Some(seen), Some(unchanged)) => format!(
            "the newest version: {}, the last at {}; answered 304 {}",
            times(seen.count),
            seen.at,
            times(unchanged.count)
        ),
    };
    match &pass.fetched {
        Some(seen) if fetched.is_none() => {
            format!("{newest}; an older version at {}", seen.at)
        }
        _ => newest,
    }
}

/// Lists the phones with their causes.
fn phones(explanation: &Explanation) -> String {
    let mut text =
        String::from("\nPhones, the worst first (a fetch does not say which phone it is from):\n");
    let _ = writeln!(
        text,
        "  {:<8}  {:<23}  {:<23}  {:<16}  cause",
        "phone", "last registered", "last asked", "told of it"
    );
    for (phone, cause) in &explanation.phones {
        let _ = writeln!(
            text,
            "  {:<8}  {:<23}  {:<23}  {:<16}  {}",
            phone.name,
            time_or_unknown(phone.registered),
            time_or_unknown(phone.asked),
            told(phone),
            cause.name()
        );
    }
    let (shown, all) = (explanation.phones.len(), explanation.pass.registrations);
    if shown < all.count {
        let _ = writeln!(
            text,
            "  {shown} of {all} phones were read; --devices N reads more"
        );
    }
    text
}

pub(crate) fn time_or_unknown(time: Option<Time>) -> String {
    time.map_or_else(|| "unknown".into(), |time| time.to_string())
}

pub(crate) fn told(phone: &Phone) -> &'static str {
    match phone.knows {
        Knows::Newest { .. } => "yes",
        Knows::Older => "no",
        Knows::Unknown => "unknown",
    }
}

pub(crate) fn described(entry: &Entry, pass: &PassFacts) -> String {
    let phone = entry.phone.as_deref().unwrap_or("a phone");
    let version = match entry.version {
        0 => "",
        version if version >= pass.version => " of the newest version",
        _ => " of an older version",
    };
    let count = entry.count;
    let What::Recorded(event) = entry.event else {
        return "the pass changed".into();
    };
    match event {
        Event::Registered => format!("{phone} registered"),
        Event::Asked => format!("{phone} asked, and nothing had changed for it"),
        Event::Told => format!("{phone} asked, and was told of changes"),
        Event::Fetched => format!("fetch{version}, {}", times(count)),
        Event::Unchanged => format!("fetch{version}, answered 304, {}", times(count)),
        Event::Refused(denial) => format!("refused, {}: {}", times(count), denial_text(denial)),
        Event::ContentChanged => {
            format!("the content changed{}", in_brackets(names(&entry.detail)))
        }
        Event::PushAccepted => format!("pushes{version} accepted: {count}"),
        Event::PushEnded => format!("the pushes{version} ended"),
        Event::PushFailed(failure) => {
            let whom = entry.phone.as_ref().map_or_else(
                || format!("{count} pushes{version}"),
                |phone| format!("push{version} to {phone}"),
            );
            format!(
                "{whom} {}{}",
                failure_text(failure),
                in_brackets(&entry.detail)
            )
        }
        Event::Complaint(complaint) => format!(
            "{} reported that {}",
            if count == 1 {
                "a phone".into()
            } else {
                format!("phones, {},", times(count))
            },
            complaint_text(complaint)
        ),
        _ => event.name().into(),
    }
}

/// Returns the names in the detail of a change of the content.
fn names(detail: &str) -> &str {
    detail.split_once(": ").map_or("", |(_, names)| names)
}

pub(crate) fn denial_text(denial: Denial) -> &'static str {
    match denial {
        Denial::NoAuthorization => "no Authorization header",
        Denial::Scheme => "another scheme, or no token",
        Denial::Removed => "the pass was removed, or has no archive yet",
        Denial::WrongToken => "the token of another pass, or a wrong token",
        _ => "another reason",
    }
}

pub(crate) fn failure_text(failure: PushFailure) -> &'static str {
    match failure {
        PushFailure::Gone => "failed, because the push token is no longer in use",
        PushFailure::BadToken => "failed, because APNs does not know the push token",
        PushFailure::Rejected => "failed, because APNs will never accept it",
        PushFailure::Misconfigured => "failed, because APNs refuses the certificate, key or topic",
        PushFailure::Unsupported => "not sent, because the phone has another wallet",
        PushFailure::TooMany => "put off, because there were too many",
        PushFailure::Unavailable => "put off, because APNs had a fault",
        PushFailure::Unreachable => "put off, because APNs did not answer",
        _ => "failed for another reason",
    }
}

pub(crate) fn complaint_text(complaint: Complaint) -> &'static str {
    match complaint {
        Complaint::AuthenticationFailure => "it was answered 401",
        Complaint::UnexpectedStatus => "it got a status that phones don't understand there",
        Complaint::MalformedResponse => "the answer to its list call was malformed",
        Complaint::InvalidPass => "the archive is not a validly signed pass",
        Complaint::WrongPass => "it got another pass than it asked for",
        Complaint::TagUnchanged => "it was told of changes with the tag that it had sent",
        Complaint::TagMissing => "it was told of changes without a tag",
        Complaint::SpuriousPush => "it got a push, and nothing had changed",
        Complaint::PassUnchanged => "a pass that was listed as changed is the same as before",
        Complaint::ConditionIgnored => "it got the version again that it has",
        Complaint::LastModifiedMissing => "it got a pass without a date",
        Complaint::NotRegistered => "it was told of a pass that it no longer has",
        Complaint::PersonalizationUnchanged => "the pass is the same after its personalization",
        _ => "something else is wrong",
    }
}
