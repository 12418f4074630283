//! The causes, each with facts that lead to it.

use passkit_archive::ChangeSummary;
use passkit_server::{
    PassId,
    delivery::{Complaint, Denial, PushFailure},
};

use super::{
    content::Content,
    facts::{Deferred, Knows, PassFacts, Pending, Phone, Pushes, Registrations, Seen, Time},
    reasoning::conclude,
};

const CHANGED: u64 = 1_795_858_860_000_000;
const OLDER: u64 = CHANGED - 86_400_000_000;

/// The time a few seconds after the change.
fn after(seconds: i64) -> Time {
    Time(CHANGED.saturating_add_signed(seconds * 1_000_000))
}

fn seen(seconds: i64, count: u64, detail: &str) -> Seen {
    Seen {
        at: after(seconds),
        count,
        version: CHANGED,
        detail: detail.into(),
    }
}

fn older(seen: Seen) -> Seen {
    Seen {
        version: OLDER,
        ..seen
    }
}

/// A pass whose change was pushed and fetched.
fn pass() -> PassFacts {
    PassFacts {
        id: PassId::new("pass.com.example.explained", "A-1").unwrap(),
        now: after(3_600),
        version: CHANGED,
        published: Some([1; 32]),
        removed: false,
        registrations: Registrations {
            count: 1,
            or_more: false,
        },
        fetched: Some(seen(20, 1, "")),
        unchanged: None,
        refused: Vec::new(),
        complaints: Vec::new(),
        pushes: Pushes {
            pending: Pending::No,
            accepted: Some(seen(1, 1, "")),
            failed: Vec::new(),
            ended: Some(seen(2, 1, "")),
            knows_deferred: true,
        },
        content: None,
        content_changed: None,
        recorded_changes: None,
    }
}

fn content() -> Content {
    Content {
        digest: [1; 32],
        web_service_url: Some("https://wallet.example.com/".into()),
        has_token: true,
        messages: vec!["balance".into()],
        changes: None,
    }
}

fn summary(text: &str) -> Option<ChangeSummary> {
    Some(text.parse().unwrap())
}

/// A phone that came after the push.
fn phone() -> Phone {
    Phone {
        name: "c0ffee00".into(),
        registered: Some(after(-86_400)),
        asked: Some(after(10)),
        told: Some(after(10)),
        knows: Knows::Newest {
            told_at: Some(after(10)),
        },
        failure: None,
        deferred: None,
    }
}

/// A phone that has not come since the change.
fn away() -> Phone {
    Phone {
        asked: Some(after(-60)),
        told: Some(after(-60)),
        knows: Knows::Older,
        ..phone()
    }
}

fn without_phone(pass: &mut PassFacts, phones: &mut Vec<Phone>) {
    phones.clear();
    pass.registrations.count = 0;
    pass.fetched = None;
}

type Change = fn(&mut PassFacts, &mut Vec<Phone>);

/// What differs from a pass that was delivered, the cause, and words of its sentence.
const CASES: &[(&str, Change, &str, &str)] = &[
    (
        "all went well",
        |_, _| {},
        "all-is-well",
        "was fetched, the last time at 2026-11-28 09:41:20 UTC; whether phones show a change is unknown",
    ),
    (
        "an unknown pass",
        |pass, phones| {
            without_phone(pass, phones);
            (pass.version, pass.published, pass.pushes) = (0, None, Pushes::default());
        },
        "unknown-pass",
        "check the type, the serial number and --store",
    ),
    (
        "a removed pass",
        |pass, _| pass.removed = true,
        "removed",
        "put its file back",
    ),
    (
        "a file that is not published",
        |pass, _| {
            pass.content = Some(Content {
                digest: [2; 32],
                ..content()
            });
        },
        "not-published",
        "refuses the file",
    ),
    (
        "a pass that never changed",
        |pass, _| pass.version = 0,
        "never-changed",
        "publish the change",
    ),
    (
        "an archive without a web service",
        |pass, phones| {
            without_phone(pass, phones);
            pass.content = Some(Content {
                web_service_url: None,
                ..content()
            });
        },
        "no-web-service",
        "phones never register",
    ),
    (
        "nothing ever arrived",
        without_phone,
        "no-request",
        "the webServiceURL of the pass does not lead to this service",
    ),
    (
        "nothing arrived at a known address",
        |pass, phones| {
            without_phone(pass, phones);
            pass.content = Some(content());
        },
        "no-request",
        "its webServiceURL, https://wallet.example.com/, does not lead to this service",
    ),
    (
        "the token of another pass",
        |pass, phones| {
            without_phone(pass, phones);
            pass.refused = vec![(Denial::WrongToken, seen(30, 4, ""))];
        },
        "registration-refused",
        "not the token of this pass",
    ),
    (
        "a proxy that removes the token",
        |pass, phones| {
            without_phone(pass, phones);
            pass.refused = vec![
                (Denial::NoAuthorization, seen(30, 4, "")),
                (Denial::WrongToken, seen(20, 9, "")),
            ];
        },
        "registration-refused",
        "no Authorization header",
    ),
    (
        "another wallet",
        |pass, phones| {
            without_phone(pass, phones);
            pass.refused = vec![(Denial::Scheme, seen(30, 4, ""))];
        },
        "registration-refused",
        "is not `ApplePass` with a token",
    ),
    (
        "the pass was deleted, and APNs said so",
        |pass, phones| {
            without_phone(pass, phones);
            pass.pushes.failed = vec![(PushFailure::Gone, seen(3, 1, "Unregistered"))];
        },
        "push-token-gone",
        "the pass was deleted or the phone was erased",
    ),
    (
        "the phone unregistered",
        |pass, phones| {
            phones.clear();
            pass.registrations.count = 0;
        },
        "no-longer-registered",
        "its automatic updates were switched off",
    ),
    (
        "refused before it was fetched",
        |pass, phones| {
            phones.clear();
            pass.registrations.count = 0;
            pass.refused = vec![(Denial::WrongToken, seen(5, 1, ""))];
        },
        "no-longer-registered",
        "fetched at",
    ),
    (
        "the certificate is refused",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.pending = Pending::Yes { begun: false };
            pass.pushes.failed =
                vec![(PushFailure::Misconfigured, seen(2, 1, "ExpiredCertificate"))];
        },
        "pushes-stopped",
        "refuses the push certificate, the key or the topic (ExpiredCertificate)",
    ),
    (
        "APNs can't be reached",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.pending = Pending::Yes { begun: false };
            pass.pushes.failed = vec![(PushFailure::Unreachable, seen(2, 1, "timed out"))];
        },
        "pushes-stopped",
        "port 443 or 2197",
    ),
    (
        "every token is refused",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.pending = Pending::Yes { begun: true };
            pass.pushes.accepted = None;
            pass.pushes.failed =
                vec![(PushFailure::BadToken, seen(2, 5, "DeviceTokenNotForTopic"))];
        },
        "pushes-stopped",
        "for another type than the pass",
    ),
    (
        "no certificate for the type",
        |pass, phones| {
            phones[0] = away();
            pass.pushes = Pushes {
                pending: Pending::Yes { begun: false },
                ..Pushes::default()
            };
        },
        "nobody-pushes",
        "no running instance has a push certificate for pass.com.example.explained",
    ),
    (
        "no instance with the certificate runs",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.pending = Pending::Yes { begun: false };
            pass.pushes.accepted = Some(older(seen(-86_400, 1, "")));
        },
        "nobody-pushes",
        "the last push of this pass was accepted at 2026-11-27 09:41:00 UTC",
    ),
    (
        "a change of a moment ago",
        |pass, phones| {
            phones[0] = away();
            pass.pushes = Pushes {
                pending: Pending::Yes { begun: false },
                ..Pushes::default()
            };
            pass.now = after(1);
        },
        "push-under-way",
        "run this again",
    ),
    (
        "half of the pushes are sent",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.pending = Pending::Yes { begun: true };
        },
        "push-under-way",
        "are still being sent",
    ),
    (
        "a token for another topic",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::BadToken, seen(1, 1, "DeviceTokenNotForTopic")));
        },
        "push-refused",
        "the push token does not belong to pass.com.example.explained",
    ),
    (
        "a token of another environment",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::BadToken, seen(1, 1, "BadDeviceToken")));
        },
        "push-refused",
        "another environment than production",
    ),
    (
        "a token that is out of use",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Gone, seen(1, 1, "Unregistered")));
        },
        "push-refused",
        "no longer in use (Unregistered)",
    ),
    (
        "another wallet's token",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Unsupported, seen(1, 1, "")));
        },
        "push-refused",
        "another wallet than Apple's",
    ),
    (
        "a reason that is new",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Rejected, seen(1, 1, "Brand\nNew")));
        },
        "push-refused",
        "(Brand\\nNew)",
    ),
    (
        "a failure that is known of the pass alone",
        |pass, phones| {
            phones[0] = away();
            pass.pushes.accepted = None;
            pass.pushes.failed = vec![(PushFailure::BadToken, seen(1, 1, "BadDeviceToken"))];
        },
        "push-refused",
        "another environment than production",
    ),
    (
        "a token that was bad before",
        |_, phones| {
            phones[0] = away();
            phones[0].deferred = Some(Deferred {
                due: None,
                attempts: 0,
            });
            phones[0].failure = Some((PushFailure::BadToken, older(seen(-9, 1, "BadDeviceToken"))));
        },
        "push-refused",
        "BadDeviceToken",
    ),
    (
        "a token that was bad until the certificate was renewed",
        |pass, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::BadToken, seen(0, 1, "BadDeviceToken")));
            pass.pushes.failed = vec![(PushFailure::BadToken, seen(0, 1, "BadDeviceToken"))];
        },
        "never-asked",
        "off or offline",
    ),
    (
        "a token that may still be bad",
        |pass, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::BadToken, seen(0, 1, "BadDeviceToken")));
            pass.pushes.knows_deferred = false;
        },
        "push-refused",
        "BadDeviceToken",
    ),
    (
        "a certificate that was renewed",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Misconfigured, seen(0, 1, "BadCertificate")));
        },
        "never-asked",
        "off or offline",
    ),
    (
        "a certificate that was refused at last",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Misconfigured, seen(9, 1, "BadCertificate")));
        },
        "push-refused",
        "check that it is for pass.com.example.explained",
    ),
    (
        "a push that was put off",
        |pass, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::TooMany, seen(1, 1, "TooManyRequests")));
            pass.registrations.count = 2;
        },
        "push-put-off",
        "because there were too many pushes to this phone (TooManyRequests), and does not wait any more",
    ),
    (
        "a push that was put off, and all pushes were accepted",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::Unreachable, seen(1, 1, "")));
        },
        "never-asked",
        "off or offline",
    ),
    (
        "a failure of an earlier change alone",
        |_, phones| {
            phones[0] = away();
            phones[0].failure = Some((PushFailure::BadToken, older(seen(-9, 1, "BadDeviceToken"))));
        },
        "never-asked",
        "off or offline",
    ),
    (
        "a push that is tried again",
        |_, phones| {
            phones[0] = away();
            phones[0].deferred = Some(Deferred {
                due: Some(after(7_200)),
                attempts: 1,
            });
            phones[0].failure = Some((PushFailure::TooMany, seen(1, 1, "TooManyRequests")));
        },
        "push-deferred",
        "tried again at 2026-11-28 11:41:00 UTC, because there were too many",
    ),
    (
        "nothing is recorded",
        |pass, phones| {
            phones[0] = Phone {
                registered: None,
                asked: None,
                told: None,
                knows: Knows::Unknown,
                ..phone()
            };
            (pass.pushes, pass.fetched) = (Pushes::default(), None);
        },
        "push-unrecorded",
        "whether a push was sent is unknown",
    ),
    (
        "a phone that is off",
        |_, phones| phones[0] = away(),
        "never-asked",
        "accepted by APNs, at 2026-11-28 09:41:01 UTC or before, and the phone has not asked for changes since",
    ),
    (
        "a phone that never asked",
        |_, phones| {
            phones[0] = Phone {
                asked: None,
                told: None,
                knows: Knows::Unknown,
                ..phone()
            };
        },
        "never-asked",
        "about once a day",
    ),
    (
        "a phone that asked while the pass changed",
        |_, phones| {
            phones[0] = Phone {
                asked: Some(after(1)),
                ..away()
            };
        },
        "never-asked",
        "off or offline",
    ),
    (
        "a phone that only registered",
        |_, phones| {
            phones[0] = Phone {
                registered: Some(after(5)),
                ..away()
            };
        },
        "registered-only",
        "its request did not arrive",
    ),
    (
        "a phone that was not told",
        |_, phones| {
            phones[0] = Phone {
                asked: Some(after(30)),
                ..away()
            };
        },
        "asked-not-told",
        "please report this fault",
    ),
    (
        "a phone that does not fetch",
        |pass, _| pass.fetched = None,
        "not-fetched",
        "told of the change at 2026-11-28 09:41:10 UTC, and no phone has fetched",
    ),
    (
        "a phone that fetched an older version",
        |pass, _| {
            pass.fetched = Some(older(seen(-30, 3, "")));
        },
        "not-fetched",
        "/v1/passes",
    ),
    (
        "a phone that was told after the last fetch",
        |_, phones| {
            phones[0].knows = Knows::Newest {
                told_at: Some(after(60)),
            };
        },
        "not-fetched",
        "no phone has fetched",
    ),
    (
        "a phone of which nobody knows when it was told",
        |_, phones| {
            phones[0].knows = Knows::Newest { told_at: None };
        },
        "all-is-well",
        "All is well",
    ),
    (
        "a fetch with another token",
        |pass, _| {
            pass.fetched = None;
            pass.refused = vec![(Denial::WrongToken, seen(11, 1, ""))];
        },
        "fetch-refused",
        "not the token of this pass",
    ),
    (
        "a fetch that was refused long ago",
        |pass, _| {
            pass.fetched = None;
            pass.refused = vec![(Denial::WrongToken, seen(-11, 1, ""))];
        },
        "not-fetched",
        "no phone has fetched",
    ),
    (
        "a fetch that was answered 304",
        |pass, _| {
            (pass.fetched, pass.unchanged) = (None, Some(seen(20, 1, "")));
        },
        "not-modified",
        "answered 304, the last at 2026-11-28 09:41:20 UTC",
    ),
    (
        "fewer fetches than phones",
        |pass, phones| {
            phones.push(phone());
            pass.registrations.count = 2;
        },
        "fetched-by-some",
        "2 phones were told of the change, but the newest version was fetched only once",
    ),
    (
        "as many fetches as phones",
        |pass, phones| {
            phones.push(phone());
            pass.registrations.count = 2;
            pass.fetched = Some(seen(20, 2, ""));
        },
        "all-is-well",
        "For 2 of 2 phones, all is well",
    ),
    (
        "an archive that a phone refuses",
        |pass, _| {
            pass.complaints = vec![(Complaint::InvalidPass, seen(21, 1, ""))];
        },
        "archive-refused",
        "not a validly signed pass",
    ),
    (
        "an archive of another pass",
        |pass, _| {
            pass.complaints = vec![(Complaint::WrongPass, seen(21, 1, ""))];
        },
        "archive-refused",
        "another pass than it asked for",
    ),
    (
        "the same content again",
        |pass, _| {
            pass.complaints = vec![(Complaint::PassUnchanged, seen(21, 1, ""))];
        },
        "same-content",
        "published without a change",
    ),
    (
        "a complaint about an earlier change",
        |pass, _| {
            pass.complaints = vec![(Complaint::PassUnchanged, seen(-21, 1, ""))];
        },
        "all-is-well",
        "All is well",
    ),
    (
        "a change that nobody sees",
        |pass, _| pass.recorded_changes = summary("visible=0 messages=0 hidden=1: userInfo"),
        "nothing-visible",
        "show nothing on the pass of what changed since the previous version: userInfo",
    ),
    (
        "a change without a message",
        |pass, _| pass.recorded_changes = summary("visible=1 messages=0 hidden=0: name"),
        "no-message",
        "no field that changed has a changeMessage: name",
    ),
    (
        "a change with a message",
        |pass, _| pass.recorded_changes = summary("visible=1 messages=1 hidden=0: balance"),
        "all-is-well",
        "and phones show a notification (balance)",
    ),
    (
        "a version that was compared with another copy",
        |pass, _| {
            pass.recorded_changes = summary("visible=0 messages=0 hidden=1: userInfo");
            pass.content = Some(Content {
                changes: summary("visible=1 messages=1 hidden=0: balance"),
                ..content()
            });
        },
        "all-is-well",
        "and phones show a notification (balance)",
    ),
    (
        "an order that changed",
        |pass, _| {
            pass.id = PassId::new("order.com.example.explained", "O-1").unwrap();
            pass.recorded_changes = summary("visible=1 messages=0 hidden=1: status, updatedAt");
        },
        "all-is-well",
        "and phones show it (status, updatedAt)",
    ),
    (
        "a pass without any message",
        |pass, _| {
            pass.content = Some(Content {
                messages: Vec::new(),
                ..content()
            });
        },
        "no-message",
        "whether a visible field changed is unknown",
    ),
    (
        "an order, which has no fields",
        |pass, _| {
            pass.id = PassId::new("order.com.example.explained", "O-1").unwrap();
            pass.content = Some(Content {
                messages: Vec::new(),
                ..content()
            });
        },
        "all-is-well",
        "All is well",
    ),
    (
        "a pass with messages",
        |pass, _| pass.content = Some(content()),
        "all-is-well",
        "All is well",
    ),
];

#[test]
fn each_case_has_its_cause_and_its_sentence() {
    let mut wrong = Vec::new();
    for (case, change, cause, words) in CASES {
        let (mut pass, mut phones) = (pass(), vec![phone()]);
        change(&mut pass, &mut phones);
        let explanation = conclude(pass, phones);
        let sentence = explanation.sentence();
        let is_right = explanation.cause.name() == *cause && sentence.contains(words);
        let is_sentence = sentence.ends_with('.')
            && !sentence.contains(". ")
            && !sentence.contains('\n')
            && !sentence.contains("  ")
            && !sentence.starts_with(char::is_lowercase);
        if !is_right || !is_sentence {
            wrong.push(format!("{case}: {}: {sentence}", explanation.cause.name()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

const PAGE: &str = include_str!("../../../docs/why-does-my-phone-not-update.md");

#[test]
fn every_cause_has_a_case_and_a_place_in_the_documentation() {
    let names = include_str!("cause.rs").lines();
    let names = names.filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","));
    let tested: Vec<&str> = CASES.iter().map(|(_, _, cause, _)| *cause).collect();
    let mut count = 0;
    for name in names.filter(|name| !name.contains(' ')) {
        assert!(tested.contains(&name), "{name} has no case");
        let heading = format!("\n### {name}\n");
        assert!(
            PAGE.contains(&heading),
            "{name} is not in the documentation"
        );
        count += 1;
    }
    assert!(count > 20, "only {count} causes were found");
}

#[test]
fn the_most_frequent_fault_is_the_answer() {
    let refused = || Phone {
        failure: Some((PushFailure::BadToken, seen(1, 1, "BadDeviceToken"))),
        ..away()
    };
    let mut pass = pass();
    pass.registrations.count = 4;
    let explanation = conclude(pass.clone(), vec![phone(), refused(), away(), away()]);
    let sentence = explanation.sentence();
    assert!(
        sentence.starts_with("For 2 of 4 phones, the push was accepted"),
        "{sentence}"
    );
    let order: Vec<_> = explanation
        .phones
        .iter()
        .map(|(_, cause)| cause.name())
        .collect();
    assert_eq!(
        order,
        ["never-asked", "never-asked", "push-refused", "all-is-well"]
    );
    assert!(explanation.is_wrong());

    pass.registrations.count = 10_000;
    pass.registrations.or_more = true;
    let explanation = conclude(pass, vec![phone(), away()]);
    let sentence = explanation.sentence();
    assert!(
        sentence.starts_with("For 1 of 2 phones that were read, the push"),
        "{sentence}"
    );
    let text = explanation.text();
    assert!(
        text.contains("2 of 10000 or more phones were read; --devices N"),
        "{text}"
    );
    assert_eq!(text.lines().last(), Some(&*sentence));
}
