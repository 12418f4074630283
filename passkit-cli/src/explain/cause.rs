//! Why a phone may not have the newest version of a pass: a fixed list of causes, with a sentence
//! for each.

use passkit_server::{
    delivery::{Complaint, Denial, PushFailure},
    text::OneLine,
};

use super::facts::{PassFacts, Time};

/// A cause. Causes are checked in this order, from the registration of a phone to what the phone
/// shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The store knows neither the pass nor a phone that has it.
    Unknown,
    Removed,
    /// The file in the folder is not the version that was published last.
    NotPublished,
    /// The store knows of no change of the pass.
    NeverChanged,
    /// The archive names no web service.
    NoService,
    /// No phone is registered, and requests are refused.
    RegistrationRefused(Denial, Time),
    /// No phone is registered, because APNs reported that the push token is no longer in use.
    TokenGone(Time),
    /// No phone is registered, although the pass was fetched earlier.
    NoLongerRegistered(Time),
    /// No phone is registered, and no request is recorded.
    NoRequest,
    /// The pushes of the type are stopped.
    PushesStopped(PushFailure, String),
    /// No instance sends pushes of the type.
    NobodyPushes,
    /// The pushes are being sent.
    PushUnderWay,
    PushRefused(PushFailure, String, Time),
    /// The push was put off, and no longer waits.
    PushPutOff(PushFailure, String, Time),
    /// The push is tried again at this time.
    PushDeferred(Option<PushFailure>, Time),
    /// Nothing is recorded about the pushes of this change.
    PushUnrecorded,
    /// The push was sent, and the phone has not asked since.
    NeverAsked(Time),
    /// The phone registered after the change, but did not ask.
    RegisteredOnly(Time),
    /// The phone asked after the change, but was not told of it.
    AskedNotTold(Time),
    /// The phone was told of the change, but the pass has not been fetched since.
    NotFetched(Option<Time>),
    FetchRefused(Denial, Time),
    /// The fetches were answered 304.
    NotModified(Time),
    /// There were fewer fetches than phones that were told.
    FetchedBySome {
        fetches: u64,
        told: usize,
    },
    /// A phone reported that it can't use the archive.
    ArchiveRefused(Complaint, Time),
    /// Nothing that a phone shows has changed. The text names what has changed.
    NothingVisible(String),
    /// A phone reported that the content is the same.
    SameContent(Time),
    /// No field that changed has a `changeMessage`. The text names the changes, if they are known.
    NoMessage(Option<String>),
    AllIsWell(Time),
}

impl Cause {
    /// Returns the name of the cause, for programs and for the documentation.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown-pass",
            Self::Removed => "removed",
            Self::NotPublished => "not-published",
            Self::NeverChanged => "never-changed",
            Self::NoService => "no-web-service",
            Self::RegistrationRefused(..) => "registration-refused",
            Self::TokenGone(_) => "push-token-gone",
            Self::NoLongerRegistered(_) => "no-longer-registered",
            Self::NoRequest => "no-request",
            Self::PushesStopped(..) => "pushes-stopped",
            Self::NobodyPushes => "nobody-pushes",
            Self::PushUnderWay => "push-under-way",
            Self::PushRefused(..) => "push-refused",
            Self::PushPutOff(..) => "push-put-off",
            Self::PushDeferred(..) => "push-deferred",
            Self::PushUnrecorded => "push-unrecorded",
            Self::NeverAsked(_) => "never-asked",
            Self::RegisteredOnly(_) => "registered-only",
            Self::AskedNotTold(_) => "asked-not-told",
            Self::NotFetched(_) => "not-fetched",
            Self::FetchRefused(..) => "fetch-refused",
            Self::NotModified(_) => "not-modified",
            Self::FetchedBySome { .. } => "fetched-by-some",
            Self::ArchiveRefused(..) => "archive-refused",
            Self::NothingVisible(_) => "nothing-visible",
            Self::SameContent(_) => "same-content",
            Self::NoMessage(_) => "no-message",
            Self::AllIsWell(_) => "all-is-well",
        }
    }

    /// Returns whether the phone lacks the newest version, or its owner does not see the change. A
    /// pass without a `changeMessage` is not wrong, because its issuer chose silent updates.
    pub(crate) fn is_wrong(&self) -> bool {
        !matches!(
            self,
            Self::PushUnderWay | Self::NoMessage(_) | Self::AllIsWell(_)
        )
    }

    /// Returns whether the sentence itself says how many phones it is about.
    pub(crate) fn counts_phones(&self) -> bool {
        matches!(self, Self::FetchedBySome { .. })
    }

    /// Returns one sentence for an operator, without a full stop.
    pub(crate) fn sentence(&self, pass: &PassFacts) -> String {
        let id = OneLine::of(&pass.id.to_string()).to_string();
        let type_id = &pass.id.type_id;
        let changed = pass
            .changed_at()
            .map_or_else(String::new, |at| at.to_string());
        match self {
            Self::Unknown => format!(
                "this store knows neither {id} nor a phone that has it: check the type, the serial number and --store"
            ),
            Self::Removed => "the pass was removed from the service, so phones keep the last version that they fetched: put its \
                 file back to update it, and void a pass instead of removing it"
                .into(),
            Self::NotPublished => "the file in the folder is not the version that was published last: passkit serve does not \
                 run, does not serve this folder, refuses the file, or has not noticed it yet"
                .into(),
            Self::NeverChanged => "this store knows of no change of the pass, so phones have nothing to fetch: publish the \
                 change (with another --passes folder than the one of passkit serve, nothing is published)"
                .into(),
            Self::NoService => "the pass has no webServiceURL and authenticationToken that phones can use, so phones never \
                 register and never ask for updates: add both, and give the pass to its owners again"
                .into(),
            Self::RegistrationRefused(denial, at) => format!(
                "no phone is registered for this pass, and requests for it are refused, the last at {at}, because {}",
                denied(*denial, pass)
            ),
            Self::TokenGone(at) => format!(
                "no phone is registered for this pass any more: APNs reported at {at} that the last push token went out of \
                 use, because the pass was deleted or the phone was erased; it registers again when the pass is added again"
            ),
            Self::NoLongerRegistered(at) => format!(
                "no phone is registered for this pass now, although it was fetched at {at}: the pass was deleted from the \
                 phone, its automatic updates were switched off, or the phone could not register"
            ),
            Self::NoRequest => no_request(pass),
            Self::PushesStopped(failure, reason) => format!(
                "the push has been pending since {changed}, because {}",
                stopped(*failure, reason)
            ),
            Self::NobodyPushes => nobody_pushes(pass, &changed),
            Self::PushUnderWay => format!(
                "the change of {changed} is new, or its pushes are still being sent: run this again in a minute"
            ),
            Self::PushRefused(failure, reason, at) => {
                format!("the push was refused at {at}: {}", refused(*failure, reason, pass))
            }
            Self::PushDeferred(failure, due) => format!(
                "the push could not be delivered yet and is tried again at {due}, because {}",
                put_off(*failure)
            ),
            Self::PushPutOff(failure, reason, at) => format!(
                "the push was put off at {at}, because {}{}, and does not wait any more: it was accepted later, or given up \
                 after about a day, and the phone has not asked for changes since",
                put_off(Some(*failure)),
                in_brackets(reason)
            ),
            Self::PushUnrecorded => format!(
                "the phone is not known to have asked since the change of {changed}, and whether a push was sent is unknown: \
                 no instance had a push certificate for {type_id}, delivery records were off, or they are older than their \
                 retention"
            ),
            Self::NeverAsked(at) => format!(
                "the push was accepted by APNs, at {at} or before, and the phone has not asked for changes since: it is off \
                 or offline, in low power mode, or automatic updates of the pass are switched off (phones also ask by \
                 themselves, about once a day)"
            ),
            Self::RegisteredOnly(at) => format!(
                "the phone registered at {at}, after the change, and has not asked for changes since, which phones do right \
                 after they register: its request did not arrive"
            ),
            Self::AskedNotTold(at) => format!(
                "the phone asked for changes at {at}, after the change of {changed}, and was not told of it, which should not \
                 happen: please report this fault with the output of --format json"
            ),
            Self::NotFetched(told) => format!(
                "the phone was told of the change{}, and no phone has fetched the pass since: it lost its connection, or its \
                 requests for /v1/passes do not arrive at the service",
                told.map_or_else(String::new, |at| format!(" at {at}"))
            ),
            Self::FetchRefused(denial, at) => format!(
                "the phone was told of the change, but requests for the pass are refused since then, the last at {at}, \
                 because {}",
                denied(*denial, pass)
            ),
            Self::NotModified(at) => format!(
                "the fetches since the change were answered 304, the last at {at}: the phone sent a date that is not older than \
                 the change, so it has this version already, or the date is from another service"
            ),
            Self::FetchedBySome { fetches, told } => format!(
                "{told} phones were told of the change, but the newest version was fetched only {}, and a fetch does not say \
                 which phone it is from",
                times(*fetches)
            ),
            Self::ArchiveRefused(complaint, at) => format!(
                "the newest version was fetched, but a phone reported at {at} that {}: run passkit check on its file",
                match complaint {
                    Complaint::WrongPass => "it got another pass than it asked for",
                    _ => "the archive is not a validly signed pass",
                }
            ),
            Self::NothingVisible(what) => format!(
                "the newest version was fetched, but phones show nothing on the pass of what changed since the previous version: \
                 {what}"
            ),
            Self::SameContent(at) => format!(
                "the newest version was fetched, but a phone reported at {at} that its content is the same as before: the pass \
                 was published without a change"
            ),
            Self::NoMessage(Some(what)) => format!(
                "the newest version was fetched, but phones show it without a notification, because no field that changed has \
                 a changeMessage: {what}"
            ),
            Self::NoMessage(None) => "the newest version was fetched, but phones show it without a notification, because no \
                 field of the pass has a changeMessage; whether a visible field changed is unknown, because the previous \
                 version is not kept (--previous names a copy of it)"
                .into(),
            Self::AllIsWell(at) => format!(
                "all is well: the phone was told of the change of {changed}, and the newest version was fetched, the last \
                 time at {at}{}",
                shown(pass)
            ),
        }
    }
}

/// Returns what phones show after a change has arrived.
fn shown(pass: &PassFacts) -> String {
    match pass.changes() {
        Some(changes) if changes.messages > 0 => {
            format!(", and phones show a notification ({})", changes.names)
        }
        Some(changes) => format!(", and phones show it ({})", changes.names),
        None => "; whether phones show a change is unknown, because the previous version is not kept (--previous names a \
                 copy of it)"
            .into(),
    }
}

/// Says how often something happened.
pub(crate) fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

fn no_request(pass: &PassFacts) -> String {
    let url = pass
        .content
        .as_ref()
        .and_then(|content| content.web_service_url.as_deref());
    let url = url.map_or_else(
        || "the webServiceURL of the pass does not lead".to_owned(),
        |url| format!("its webServiceURL, {}, does not lead", OneLine::url(url)),
    );
    format!(
        "no phone is registered for this pass, and no refused request for it is recorded: {url} to this service, phones don't trust the certificate chain at \
         that address, or automatic updates of the pass are switched off"
    )
}

fn nobody_pushes(pass: &PassFacts, changed: &str) -> String {
    let type_id = &pass.id.type_id;
    let last = pass
        .pushes
        .accepted
        .as_ref()
        .map_or_else(String::new, |seen| {
            format!("; the last push of this pass was accepted at {}", seen.at)
        });
    format!(
        "the push has been pending since {changed}, because no running instance has a push certificate for {type_id} (a \
         certificate for another type can't be used){last}"
    )
}

/// Says why a push was put off, after "because".
fn put_off(failure: Option<PushFailure>) -> &'static str {
    match failure {
        Some(PushFailure::TooMany) => "there were too many pushes to this phone",
        Some(PushFailure::Unreachable) => "APNs did not answer it",
        _ => "APNs had a fault",
    }
}

/// Returns the reason of the push service in brackets, if there is one.
pub(super) fn in_brackets(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(" ({})", OneLine::of(reason)),
    }
}

/// Says why a request was refused, after "because".
fn denied(denial: Denial, pass: &PassFacts) -> String {
    let scheme = pass.id.type_id.kind().auth_scheme();
    match denial {
        Denial::NoAuthorization => {
            "they have no Authorization header: a proxy in front of the service removes it, or the caller is not a phone".into()
        }
        Denial::Scheme => format!(
            "their Authorization is not `{scheme}` with a token: another wallet sends them, or a proxy changes the header"
        ),
        Denial::Removed => "the pass was removed from the service, or has no archive yet".into(),
        _ => "their authenticationToken is not the token of this pass: the phone has a file that was made with another \
              token, such as that of another pass"
            .into(),
    }
}

/// Says why no push of the type is sent, after "because".
fn stopped(failure: PushFailure, reason: &str) -> String {
    let said = in_brackets(reason);
    match failure {
        PushFailure::Unreachable => {
            format!(
                "APNs can't be reached{said}: allow connections to api.push.apple.com, port 443 or 2197"
            )
        }
        PushFailure::Unavailable => format!("APNs has a fault{said}: the pushes are tried again"),
        PushFailure::BadToken => format!(
            "APNs refuses every push token{said}: the push certificate is for another type than the pass, or the service at \
             --apns-endpoint is not the production one"
        ),
        _ => format!(
            "APNs refuses the push certificate, the key or the topic{said}: renew the certificate, and check that it is for \
             this type"
        ),
    }
}

/// Says why a push was refused.
fn refused(failure: PushFailure, reason: &str, pass: &PassFacts) -> String {
    let said = in_brackets(reason);
    let type_id = &pass.id.type_id;
    match (failure, reason) {
        (_, "DeviceTokenNotForTopic") => format!(
            "the push token does not belong to {type_id}{said}, because the certificate is for another type, or the phone \
             registered the token for another type"
        ),
        (PushFailure::BadToken, _) => format!(
            "APNs does not know the push token{said}, because the token is of another environment than production, or another \
             wallet than Apple's registered it"
        ),
        (PushFailure::Gone, _) => format!(
            "the push token is no longer in use{said}, because the pass was deleted or the phone was erased; the phone registers \
             again when the pass is added again"
        ),
        (PushFailure::Misconfigured, _) => format!(
            "APNs refuses the push certificate, the key or the topic{said}: renew the certificate, and check that it is for \
             {type_id}"
        ),
        (PushFailure::Unsupported, _) => {
            "the phone uses another wallet than Apple's, which gets no pushes and asks by itself"
                .into()
        }
        _ => format!("APNs will never accept a push like this{said}: please report this fault"),
    }
}
