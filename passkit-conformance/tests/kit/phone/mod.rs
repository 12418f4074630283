//! Tests the phone with a scripted web service on the loopback interface.

mod service;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_archive::{ArchiveBuilder, Purpose, Signer};
use passkit_conformance::{
    Client, Limits,
    phone::{Error, Outcome, Person, Phone, Rules, State},
};
use passkit_server::{PassId, identifiers::Kind};
use service::{Answer, Asked, Service, endless, json, status};

const TYPE: &str = "pass.com.example.phone";
const TOKEN: &str = "0123456789abcdef-token";
const DATE: &str = "Fri, 18 Sep 2026 08:00:41 GMT";
const LATER: &str = "Fri, 18 Sep 2026 08:00:42 GMT";

/// Makes an unsigned pass with `text` in its content.
fn archive(serial: &str, text: &str) -> Vec<u8> {
    builder(serial, text).build_unsigned().unwrap()
}

/// Makes a pass that offers rewards enrolment.
fn offering(serial: &str, text: &str) -> Vec<u8> {
    builder(serial, text)
        .file("personalization.json", r#"{"description":"Join"}"#)
        .build_unsigned()
        .unwrap()
}

fn builder(serial: &str, text: &str) -> ArchiveBuilder {
    let description = serde_json::json!({
        "formatVersion": 1,
        "passTypeIdentifier": TYPE,
        "serialNumber": serial,
        "teamIdentifier": "TEAM123456",
        "organizationName": "Example",
        "description": text,
        "webServiceURL": "https://example.invalid/wallet/",
        "authenticationToken": TOKEN,
        "generic": {},
    });
    ArchiveBuilder::new(Kind::Pass, description.to_string())
        .file("icon.png", passkit_archive::placeholder_icon(29))
}

fn pass(serial: &str, text: &str, date: &str) -> Answer {
    sent(archive(serial, text), date)
}

fn sent(archive: Vec<u8>, date: &str) -> Answer {
    status(200)
        .with("content-type", "application/vnd.apple.pkpass")
        .with("last-modified", date)
        .body(archive)
}

fn id(serial: &str) -> PassId {
    PassId::new(TYPE, serial).unwrap()
}

fn phone() -> Phone {
    phone_within(Limits::default())
}

fn phone_within(limits: Limits) -> Phone {
    let mut phone = Phone::new(State::new().unwrap(), Client::new(limits));
    phone.set_rules(Rules::development());
    phone
}

fn lines(asked: &[Asked], phone: &Phone) -> Vec<String> {
    let device = phone.state().services()[0].device().as_str();
    asked
        .iter()
        .map(|one| one.line.replace(device, "D"))
        .collect()
}

fn texts(outcome: &Outcome) -> Vec<&str> {
    outcome
        .complaints
        .iter()
        .map(|one| one.text.as_str())
        .collect()
}

/// Gives these answers one after the other. Answers 500 after the last one.
fn in_turn(answers: Vec<Answer>) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let answers = Mutex::new(answers.into_iter());
    move |asked| {
        if asked.line == "POST /v1/log" {
            return status(200);
        }
        answers
            .lock()
            .unwrap()
            .next()
            .unwrap_or_else(|| status(500))
    }
}

#[tokio::test]
async fn adding_registers_lists_and_fetches() {
    let tag = r#"t "1"+&/ü"#;
    let listed = serde_json::json!({"serialNumbers": ["A/1"], "lastUpdated": tag}).to_string();
    let service = Service::start(in_turn(vec![
        status(201),
        json(&listed),
        pass("A/1", "one", DATE),
        // The second pass is added. The list does not name it.
        status(201),
        status(204),
        pass("B", "one", DATE),
        // Then a push arrives.
        json(r#"{"serialNumbers":["A/1"],"lastUpdated":"t2"}"#),
        pass("A/1", "two", LATER),
        // A push arrives without a change, then the user pulls to refresh.
        status(204),
        status(304),
    ]))
    .await;
    let url = format!("{}/base/", service.url());
    let mut phone = phone();

    let outcome = phone.add(&archive("A/1", "one"), Some(&url)).await.unwrap();
    assert!(outcome.complaints.is_empty(), "{outcome:?}");
    assert_eq!(
        (&outcome.registered, &outcome.listed),
        (&vec![id("A/1")], &vec![id("A/1")])
    );
    assert_eq!(outcome.unchanged, [id("A/1")]);
    let asked = service.asked();
    assert_eq!(
        lines(&asked, &phone),
        [
            format!("POST /base/v1/devices/D/registrations/{TYPE}/A%2F1"),
            format!("GET /base/v1/devices/D/registrations/{TYPE}"),
            format!("GET /base/v1/passes/{TYPE}/A%2F1"),
        ]
    );
    assert_eq!(
        asked[0].header("authorization"),
        Some(&*format!("ApplePass {TOKEN}"))
    );
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    assert_eq!(
        asked[0].body,
        format!(
            r#"{{"pushToken":"{}"}}"#,
            phone.state().push_token().as_str()
        )
    );
    assert_eq!(
        (
            asked[1].header("authorization"),
            asked[1].header("content-type")
        ),
        (None, None)
    );
    assert_eq!(asked[2].header("if-modified-since"), None);
    assert_eq!(phone.state().services()[0].tag(), Some(tag));

    let outcome = phone.add(&archive("B", "one"), Some(&url)).await.unwrap();
    assert!(outcome.complaints.is_empty(), "{outcome:?}");
    let asked = service.asked();
    assert_eq!(
        lines(&asked, &phone)[1..],
        [
            format!(
                "GET /base/v1/devices/D/registrations/{TYPE}?passesUpdatedSince=t%20%221%22%2B%26%2F%C3%BC"
            ),
            format!("GET /base/v1/passes/{TYPE}/B"),
        ]
    );

    let outcome = phone.sync().await.unwrap();
    assert_eq!(
        (outcome.updated, outcome.complaints.len()),
        (vec![id("A/1")], 0)
    );
    let asked = service.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("if-modified-since"), Some(DATE));
    assert_eq!(phone.state().services()[0].tag(), Some("t2"));

    let outcome = phone.sync().await.unwrap();
    assert!(outcome.complaints.is_empty() && outcome.listed.is_empty());
    let outcome = phone.refresh(&id("A/1")).await.unwrap();
    assert_eq!(
        (outcome.unchanged, outcome.complaints.len()),
        (vec![id("A/1")], 0)
    );
    let asked = service.asked();
    assert!(
        asked[0].line.ends_with("?passesUpdatedSince=t2"),
        "{}",
        asked[0].line
    );
    assert_eq!(asked[1].header("if-modified-since"), Some(LATER));
}

#[tokio::test]
async fn a_fetch_that_fails_is_pending() {
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        status(503),
        // In the next sync, the list is empty, and the pending fetch succeeds.
        status(204),
        pass("A", "two", DATE),
        status(204),
    ]))
    .await;
    let mut phone = phone();
    let outcome = phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    assert_eq!(texts(&outcome).len(), 1);
    assert!(texts(&outcome)[0].ends_with("encountered error: Unexpected response code 503"));
    assert_eq!(
        phone.state().services()[0].tag(),
        Some("t1"),
        "the tag is stored before the fetch"
    );
    assert!(phone.list()[0].is_fetch_pending());
    let log = service.asked().pop().unwrap();
    assert_eq!(log.line, "POST /v1/log");
    assert!(
        log.body.starts_with(r#"{"logs":["[2"#) && log.body.contains("code 503"),
        "{}",
        log.body
    );

    // Pending fetches and complaints survive the process.
    let state = serde_json::to_string(phone.state()).unwrap();
    let mut phone = Phone::new(serde_json::from_str(&state).unwrap(), Client::default());
    phone.set_rules(Rules::development());
    let outcome = phone.sync().await.unwrap();
    assert_eq!(
        (outcome.updated, outcome.complaints.len()),
        (vec![id("A")], 0)
    );
    assert!(!phone.list()[0].is_fetch_pending());
    phone.sync().await.unwrap();
    assert_eq!(service.asked().len(), 3);
}

#[tokio::test]
async fn a_registration_that_fails_is_tried_again() {
    let service = Service::start(in_turn(vec![
        status(401),
        status(200),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        pass("A", "one", DATE),
    ]))
    .await;
    let mut phone = phone();
    let outcome = phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    assert!(texts(&outcome)[0].starts_with("Register task (for device <device>, pass type"));
    assert!(texts(&outcome)[0].ends_with("Authentication failure"));
    assert!(!phone.list()[0].is_registered());
    let log = service.asked().pop().unwrap().body;
    assert!(
        log.contains(phone.state().services()[0].device().as_str()),
        "{log}"
    );
    let outcome = phone.sync().await.unwrap();
    assert_eq!(
        (outcome.registered, outcome.complaints.len()),
        (vec![id("A")], 0)
    );
    assert!(phone.list()[0].is_registered());
}

#[tokio::test]
async fn only_documented_statuses_are_accepted() {
    for (at, answers, text) in [
        (0, vec![status(202)], "Unexpected response code 202"),
        (0, vec![status(204)], "Unexpected response code 204"),
        (
            0,
            vec![status(302).with("location", "/v1/elsewhere")],
            "Unexpected response code 302",
        ),
        (
            1,
            vec![status(201), status(401)],
            "Unexpected response code 401",
        ),
        (
            1,
            vec![status(201), status(404)],
            "Unexpected response code 404",
        ),
        (
            1,
            vec![status(201), status(200)],
            "Server response was malformed",
        ),
        (
            2,
            vec![
                status(201),
                json(r#"{"serialNumbers":["A"],"lastUpdated":"1"}"#),
                status(304),
            ],
            "code 304",
        ),
        (
            2,
            vec![
                status(201),
                json(r#"{"serialNumbers":["A"],"lastUpdated":"1"}"#),
                status(204),
            ],
            "code 204",
        ),
        (
            2,
            vec![
                status(201),
                json(r#"{"serialNumbers":["A"],"lastUpdated":"1"}"#),
                pass("B", "", DATE),
            ],
            "Requested serial number A, received serial number B",
        ),
        (
            2,
            vec![
                status(201),
                json(r#"{"serialNumbers":["A"],"lastUpdated":"1"}"#),
                pass("A", "", DATE).body("no archive"),
            ],
            "Received invalid pass data (",
        ),
    ] {
        let service = Service::start(in_turn(answers)).await;
        let mut phone = phone();
        let outcome = phone
            .add(&archive("A", "one"), Some(&service.url()))
            .await
            .unwrap();
        assert!(
            outcome.complaints.len() == 1
                && outcome.complaints[0].is_logged
                && texts(&outcome)[0].contains(text),
            "{text}: {:?}",
            texts(&outcome)
        );
        assert!(!texts(&outcome)[0].contains('\n'));
        assert_eq!(
            service.asked().len(),
            at + 2,
            "{text}: the phone makes only one more call, to the log"
        );
        assert_eq!(phone.list()[0].is_registered(), at > 0);
    }
}

#[tokio::test]
async fn a_malformed_list_is_dropped_and_the_tag_kept() {
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        pass("A", "one", DATE),
        json(r#"{"serialNumbers":["A"],"lastUpdated":1790000000}"#),
        json(r#"{"serialNumbers":["A"]}"#),
        status(304),
        json(r#"{"serialNumbers":["A","Z"],"lastUpdated":"t1"}"#).with("content-type", "text/html"),
        status(304),
    ]))
    .await;
    let mut phone = phone();
    phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    let expected: [&[&str]; 3] = [
        &["Server response was malformed"],
        &["included 1 serial numbers but omitted a lastUpdated tag."],
        &[
            "the content-type is text/html",
            "included 2 serial numbers but the lastUpdated tag (t1) remained the same.",
            "Update requested for unregistered serial number 'Z'",
        ],
    ];
    for expected in expected {
        let outcome = phone.sync().await.unwrap();
        assert_eq!(
            outcome.complaints.len(),
            expected.len(),
            "{:?}",
            texts(&outcome)
        );
        for (text, expected) in texts(&outcome).iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(phone.state().services()[0].tag(), Some("t1"));
    }
}

#[tokio::test]
async fn dates_are_required_and_echoed() {
    let without = || {
        status(200)
            .with("content-type", "application/vnd.apple.pkpass")
            .body(archive("A", "one"))
    };
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        without(),
        // This text is not a date, but the phone sends it back anyway.
        pass("A", "one", "1790000000"),
        pass("A", "one", "1790000000"),
        pass("A", "two", "1790000000").with("content-type", "application/octet-stream"),
        without(),
        pass("A", "one", DATE),
    ]))
    .await;
    let mut phone = phone();
    let outcome = phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    assert!(texts(&outcome)[0].ends_with("but did not provide a 'last-modified' header."));
    assert_eq!(phone.list()[0].last_modified(), None);
    service.asked();
    let expected: [(Option<&str>, &[&str]); 5] = [
        (
            None,
            &["the last-modified header (1790000000) is not an HTTP date"],
        ),
        (
            Some("1790000000"),
            &[
                "is not an HTTP date",
                "Server ignored the 'if-modified-since' header (1790000000)",
            ],
        ),
        (
            Some("1790000000"),
            &[
                "the content-type is application/octet-stream",
                "is not an HTTP date",
                "did not",
            ],
        ),
        (Some("1790000000"), &["did not provide"]),
        (None, &[]),
    ];
    for (since, expected) in expected {
        let outcome = phone.refresh(&id("A")).await.unwrap();
        assert_eq!(
            outcome.complaints.len(),
            expected.len(),
            "{:?}",
            texts(&outcome)
        );
        for (text, expected) in texts(&outcome).iter().zip(expected) {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(service.asked()[0].header("if-modified-since"), since);
    }
}

#[tokio::test]
async fn opening_a_newer_file_fetches_without_registering() {
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        pass("A", "one", DATE),
        pass("A", "two", DATE),
    ]))
    .await;
    let mut phone = phone();
    phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    service.asked();
    let outcome = phone
        .add(&archive("A", "two"), Some(&service.url()))
        .await
        .unwrap();
    assert!(outcome.complaints.is_empty());
    let asked = service.asked();
    assert_eq!(lines(&asked, &phone), [format!("GET /v1/passes/{TYPE}/A")]);
    assert_eq!(asked[0].header("if-modified-since"), None);
    assert_eq!(phone.list().len(), 1);
}

#[tokio::test]
async fn removing_unregisters_and_forgets() {
    for (code, complaints) in [(200, 0), (204, 1), (401, 1), (404, 1)] {
        let service = Service::start(in_turn(vec![
            status(201),
            json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
            pass("A", "one", DATE),
            status(code),
        ]))
        .await;
        let mut phone = phone();
        phone
            .add(&archive("A", "one"), Some(&service.url()))
            .await
            .unwrap();
        service.asked();
        let outcome = phone.remove(&id("A")).await.unwrap();
        assert_eq!(
            (outcome.complaints.len(), outcome.unregistered.len()),
            (complaints, 1 - complaints)
        );
        let asked = service.asked();
        assert_eq!(
            lines(&asked, &phone)[0],
            format!("DELETE /v1/devices/D/registrations/{TYPE}/A")
        );
        assert_eq!(
            asked[0].header("authorization"),
            Some(&*format!("ApplePass {TOKEN}"))
        );
        assert_eq!(
            (asked[0].body.as_str(), asked[0].header("content-type")),
            ("", None)
        );
        assert!(phone.list().is_empty());
        assert_eq!(
            phone.state().services()[0].tag(),
            Some("t1"),
            "the phone keeps the tag of the service"
        );
        assert!(matches!(
            phone.remove(&id("A")).await,
            Err(Error::NotHeld(_))
        ));
        phone.sync().await.unwrap();
        assert!(service.asked().is_empty(), "no request without a pass");
    }
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let mut limits = Limits::default();
    limits.response_bytes = 100_000;
    for (time, pause, reason) in [
        (
            Duration::from_secs(60),
            Duration::ZERO,
            "longer than 100000 bytes",
        ),
        (
            Duration::from_millis(300),
            Duration::from_millis(50),
            "within 300ms",
        ),
    ] {
        limits.time = time;
        let (url, server) = endless(pause).await;
        let mut phone = phone_within(limits);
        let outcome = phone.add(&archive("A", "one"), Some(&url)).await.unwrap();
        assert!(
            texts(&outcome)[0].ends_with(reason),
            "{:?}",
            texts(&outcome)
        );
        assert!(
            !outcome.complaints[0].is_logged,
            "connection problems are not logged"
        );
        server.abort();
    }
    let outcome = phone_within(limits)
        .add(&archive("A", "one"), Some("http://127.0.0.1:1"))
        .await
        .unwrap();
    assert_eq!(outcome.complaints.len(), 1, "{:?}", texts(&outcome));
}

#[tokio::test]
async fn the_log_is_best_effort_but_its_status_counts() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let service = Service::start(move |asked| {
        calls.fetch_add(1, SeqCst);
        status(if asked.line == "POST /v1/log" {
            201
        } else {
            500
        })
    })
    .await;
    let outcome = phone()
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    assert_eq!(texts(&outcome).len(), 2);
    assert!(texts(&outcome)[1].starts_with("the log call was answered 201"));
    assert_eq!(seen.load(SeqCst), 2, "a failure of the log is not logged");
}

#[tokio::test]
async fn exchanges_are_shown_without_secrets() {
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        pass("A", "one", DATE),
        status(404),
    ]))
    .await;
    let mut phone = phone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let transcript = seen.clone();
    phone.observe(move |exchange| {
        transcript
            .lock()
            .unwrap()
            .push(format!("{exchange}\n{exchange:?}"))
    });
    phone
        .add(&archive("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    phone.remove(&id("A")).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5, "four calls and the log");
    let all = seen.join("\n");
    let state = phone.state();
    for secret in [
        TOKEN,
        state.push_token().as_str(),
        state.services()[0].device().as_str(),
    ] {
        assert!(!all.contains(secret), "{all}");
    }
    for text in [
        "/v1/devices/<device>/registrations/",
        "authorization: ApplePass <token>",
        r#"{"pushToken":"<push token>"}"#,
        r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#,
        "last-modified: Fri, 18 Sep 2026 08:00:41 GMT",
        "< 404 in ",
        "Unregister task (for device <device>",
    ] {
        assert!(all.contains(text), "{text} in\n{all}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_pass_is_refused_in_one_line() {
    let mut phone = phone();
    let errors = [
        phone.add(b"PK no", Some("http://h")).await.unwrap_err(),
        phone
            .add(&archive("A", "one"), Some("h?x"))
            .await
            .unwrap_err(),
        phone.refresh(&id("A")).await.unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(
            !text.contains('\n') && text.starts_with(char::is_lowercase),
            "{text}"
        );
    }
    assert!(phone.list().is_empty());
    phone.set_rules(Rules::strict());
    let error = phone.add(&archive("A", "one"), None).await.unwrap_err();
    assert!(
        matches!(&error, Error::Archive(_)) && error.to_string().contains("signature"),
        "{error}"
    );
}

/// A phone that enrols gets this answer to a fetch, after this answer to its enrolment. Returns the
/// outcome and the requests.
async fn enrolled(
    signing: impl Fn(&str) -> Answer + Send + Sync + 'static,
    fetched: fn() -> Answer,
) -> (Outcome, Vec<Asked>) {
    let service = Service::start(move |asked| match asked.line.split(' ').next() {
        Some("GET") if asked.line.contains("/registrations/") => {
            json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#)
        }
        Some("GET") if asked.header("if-modified-since").is_some() => fetched(),
        Some("GET") => sent(offering("A", "one"), DATE),
        _ if asked.line.ends_with("/personalize") => {
            let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
            signing(body["personalizationToken"].as_str().unwrap())
        }
        _ => status(200),
    })
    .await;
    let mut phone = phone();
    let added = phone
        .add(&offering("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    assert_eq!(texts(&added), [""; 0]);
    service.asked();
    let mut person = Person::default();
    person.full_name = Some("Ada".into());
    let outcome = phone.personalize(&id("A"), &person).await.unwrap();
    (outcome, service.asked())
}

fn octets(body: Vec<u8>) -> Answer {
    status(200)
        .with("content-type", "application/octet-stream")
        .body(body)
}

#[tokio::test]
async fn enrolling_sends_the_data_and_fetches_the_personal_version() {
    let signer = Signer::throwaway(&TYPE.parse().unwrap(), "TEAM123456").unwrap();
    let signer = Arc::new(signer);
    let signed = || {
        let signer = signer.clone();
        move |token: &str| {
            let signature = signer.sign(Purpose::PersonalizationToken, token.as_bytes());
            octets(signature.unwrap())
        }
    };
    let (outcome, asked) = enrolled(signed(), || pass("A", "two", LATER)).await;
    assert_eq!(texts(&outcome), [""; 0]);
    assert_eq!(
        (&outcome.enrolled, &outcome.updated),
        (&vec![id("A")], &vec![id("A")])
    );
    let lines: Vec<&str> = asked.iter().map(|one| &*one.line).collect();
    let path = format!("/v1/passes/{TYPE}/A");
    assert_eq!(
        lines,
        [format!("POST {path}/personalize"), format!("GET {path}")]
    );
    assert_eq!(
        (
            asked[0].header("authorization"),
            asked[0].header("content-type")
        ),
        (
            Some(&*format!("ApplePass {TOKEN}")),
            Some("application/json")
        )
    );
    let body: serde_json::Value = serde_json::from_str(&asked[0].body).unwrap();
    let info = serde_json::json!({ "fullName": "Ada" });
    assert_eq!(body["requiredPersonalizationInfo"], info);

    // What is wrong after a good signature.
    let unchanged =
        "Personalization request was issued for serial number 'A', but the pass was unchanged.";
    for (fetched, complaint, is_logged) in [
        ((|| status(304)) as fn() -> Answer, unchanged, true),
        (|| sent(offering("A", "one"), LATER), unchanged, true),
        (
            || sent(offering("A", "two"), LATER),
            "still has personalization.json",
            false,
        ),
    ] {
        let (outcome, asked) = enrolled(signed(), fetched).await;
        assert_eq!(outcome.enrolled, [id("A")]);
        let [text] = texts(&outcome)[..] else {
            panic!("{outcome:?}");
        };
        assert!(text.contains(complaint), "{text}");
        let logged = asked.iter().any(|one| one.body.contains(complaint));
        assert_eq!(logged, is_logged, "{asked:?}");
    }

    // What is wrong with the answer itself. A phone then fetches nothing.
    let mistyped = signer
        .sign(Purpose::PersonalizationToken, b"another")
        .unwrap();
    let bad = "Received invalid personalizaiton token signature (";
    for (signing, complaint) in [
        (
            Box::new(|_: &str| status(404)) as Box<dyn Fn(&str) -> Answer + Send + Sync>,
            "Unexpected response code 404",
        ),
        (Box::new(|_: &str| status(401)), "Authentication failure"),
        (Box::new(|token: &str| octets(token.into())), bad),
        (Box::new(move |_: &str| octets(mistyped.clone())), bad),
    ] {
        let (outcome, asked) = enrolled(signing, || status(500)).await;
        let start = format!(
            "Personalize pass task (pass type {TYPE}, serial number A, if-modified-since {DATE}; with web service url "
        );
        let [text] = texts(&outcome)[..] else {
            panic!("{outcome:?}");
        };
        assert!(
            text.starts_with(&start) && text.contains(&format!(") encountered error: {complaint}")),
            "{text}"
        );
        assert!(
            outcome.enrolled.is_empty() && asked.iter().all(|one| !one.line.starts_with("GET "))
        );
        assert!(
            asked
                .iter()
                .any(|one| one.line == "POST /v1/log" && one.body.contains(complaint))
        );
    }
}

#[tokio::test]
async fn a_pass_without_a_form_is_not_enrolled() {
    let service = Service::start(in_turn(vec![
        status(201),
        json(r#"{"serialNumbers":["A"],"lastUpdated":"t1"}"#),
        pass("A", "one", DATE),
    ]))
    .await;
    let mut phone = phone();
    phone
        .add(&offering("A", "one"), Some(&service.url()))
        .await
        .unwrap();
    service.asked();
    let error = phone.personalize(&id("A"), &Person::default()).await;
    assert!(matches!(error, Err(Error::NoEnrolment(_))), "{error:?}");
    assert!(service.asked().is_empty());
}
