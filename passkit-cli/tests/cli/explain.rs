//! `passkit explain`: typical support cases, over a service with phones and a push service.

use std::{fs, path::Path, time::SystemTime};

use passkit_apns::local::Answer;
use passkit_conformance::{
    Client,
    phone::{Phone, State},
};
use serde_json::{Value, json};

use crate::{
    archives::{self, order, pass, replace, token_of, with_json},
    postgres,
    program::{Service, eventually, passkit, run},
    push::{Local, METRICS, TYPE, quiet},
};

const ORDERS: &str = "order.com.example.pushed";

/// What `passkit explain` says about a pass.
struct Explained {
    code: Option<i32>,
    json: Value,
    /// The last line of the text.
    sentence: String,
}

impl Explained {
    fn cause(&self) -> &str {
        self.json["cause"].as_str().unwrap()
    }
}

fn explain(service: &Service, type_id: &str, serial: &str, arguments: &[&str]) -> Explained {
    let ask = |format: &str| {
        let mut command = passkit();
        command
            .args(["explain", type_id, serial, "--format", format, "--store"])
            .arg(service.store_url())
            .args(arguments);
        let (code, out, said) = run(&mut command);
        assert!(code == Some(0) || code == Some(1), "{said}");
        for secret in [&*token_of(type_id, serial), "5ec2e7"] {
            assert!(!out.contains(secret), "{secret} in {out}");
        }
        (code, out)
    };
    let (code, json) = ask("json");
    let (_, text) = ask("text");
    Explained {
        code,
        json: serde_json::from_str(&json).unwrap(),
        sentence: text.lines().last().unwrap().to_owned(),
    }
}

/// Waits until the answer has this cause, because records are written a little later. Returns the
/// sentence.
fn wait_for(
    service: &Service,
    (type_id, serial): (&str, &str),
    arguments: &[&str],
    cause: &str,
) -> String {
    let mut last = String::new();
    let mut found = None;
    eventually_or(&mut last, |last| {
        let explained = explain(service, type_id, serial, arguments);
        *last = format!("{}: {}", explained.cause(), explained.sentence);
        if explained.cause() == cause {
            let is_wrong = explained.json["wrong"].as_bool().unwrap();
            assert_eq!(explained.code, Some(i32::from(is_wrong)));
            found = Some(explained.sentence);
        }
        found.is_some()
    });
    found.unwrap_or_else(|| {
        panic!(
            "no answer with {cause}; the last was {last}; {}",
            service.said()
        )
    })
}

/// Waits for a condition, for at most a minute. Does not fail.
fn eventually_or(state: &mut String, mut condition: impl FnMut(&mut String) -> bool) {
    let started = SystemTime::now();
    while !condition(state) && started.elapsed().is_ok_and(|time| time.as_secs() < 60) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn phone() -> Phone {
    Phone::new(State::new().unwrap(), Client::default())
}

fn folder(path: &Path) -> Vec<&str> {
    vec!["--passes", path.to_str().unwrap()]
}

/// Adds a pass to a phone, and waits until everything is quiet.
fn with_phone(local: &Local, service: &Service, archive: &[u8]) -> Phone {
    quiet(service);
    let mut phone = phone();
    let added = local
        .runtime
        .block_on(phone.add(archive, Some(&service.url())));
    let added = added.unwrap();
    assert!(added.complaints.is_empty(), "{:?}", added.complaints);
    phone
}

#[test]
fn a_wrong_web_service_url() {
    let mut service = Service::new();
    let passes = service.passes();
    fs::write(passes.join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    // The phone asks at the address in the pass, which is not the service.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut phone = phone();
    let elsewhere = Some("http://127.0.0.1:1/");
    let added = runtime.block_on(phone.add(&pass(TYPE, "A-1", "one"), elsewhere));
    assert!(added.is_err() || !phone.list()[0].is_registered());
    let sentence = wait_for(&service, (TYPE, "A-1"), &folder(&passes), "no-request");
    assert!(
        sentence.contains(
            "its webServiceURL, https://wallet.example.com/, does not lead to this service"
        ),
        "{sentence}"
    );
}

#[test]
fn a_phone_that_is_off() {
    phone_is_off(Service::new());
}

#[test]
fn a_phone_that_is_off_over_postgres() {
    phone_is_off(Service::over(&postgres::migrated()));
}

fn phone_is_off(service: Service) {
    let local = Local::start();
    let certificate = |type_id: &str| {
        let file = local.certificate(type_id);
        json!({ "type": type_id, "cert": file }).to_string()
    };
    let topics = [TYPE, ORDERS].map(|type_id| {
        let Value::Object(topic) = serde_json::from_str(&certificate(type_id)).unwrap() else {
            unreachable!()
        };
        format!(
            "[[topic]]\ntype = {}\ncert = {}\n",
            topic["type"], topic["cert"]
        )
    });
    let config = local.file("apns.toml", &topics.concat());
    let root = local.file("root.pem", local.apns.root_pem());
    let endpoint = format!("127.0.0.1:{}", local.apns.port());
    let mut service = service.given(&METRICS).given(&[
        "--apns-config",
        config.to_str().unwrap(),
        "--apns-root",
        root.to_str().unwrap(),
        "--apns-endpoint",
        &endpoint,
        "--push-spacing",
        "0.1",
    ]);
    type Make = fn(&str, &str, &str) -> Vec<u8>;
    let made: [(&str, Make, _); 2] = [
        (TYPE, pass, service.passes().join("a.pkpass")),
        (ORDERS, order, service.orders().join("a.order")),
    ];
    for (type_id, make, file) in &made {
        fs::write(file, make(type_id, "A-1", "one")).unwrap();
    }
    service.start();
    for (type_id, make, file) in &made {
        let mut phone = with_phone(&local, &service, &make(type_id, "A-1", "one"));
        let changed = SystemTime::now();
        replace(file, &make(type_id, "A-1", "two"));
        eventually("the push is accepted", || {
            let pushes = local.apns.pushes().into_iter();
            pushes.filter(|push| push.at >= changed).count() == 1
        });
        let sentence = wait_for(&service, (type_id, "A-1"), &[], "never-asked");
        assert!(sentence.contains("off or offline"), "{sentence}");
        let folder = file.parent().unwrap().to_str().unwrap();
        let arguments = ["--passes", folder, "--orders", folder];
        wait_for(&service, (type_id, "A-1"), &arguments, "never-asked");

        // The phone is switched on.
        let synced = local.runtime.block_on(phone.sync()).unwrap();
        assert_eq!(synced.updated.len(), 1, "{:?}", synced.complaints);
        let sentence = wait_for(&service, (type_id, "A-1"), &arguments, "all-is-well");
        assert!(sentence.starts_with("All is well: "), "{sentence}");
        let explained = explain(&service, type_id, "A-1", &[]);
        let events: Vec<&str> = explained.json["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["event"].as_str().unwrap())
            .collect();
        let place = |event: &str| {
            let found = events.iter().rposition(|other| *other == event);
            found.unwrap_or_else(|| panic!("no {event} in {events:?}"))
        };
        let steps = ["changed", "push-accepted", "told", "fetched"].map(place);
        assert!(steps.is_sorted(), "{events:?}");
        for secret in [
            phone.state().push_token().as_str(),
            phone.state().services()[0].device().as_str(),
        ] {
            assert!(!explained.json.to_string().contains(secret));
        }
    }
    local.no_violation();
}

#[test]
fn a_token_of_another_pass() {
    let mut service = Service::new();
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    fs::write(service.passes().join("b.pkpass"), pass(TYPE, "B-1", "one")).unwrap();
    service.start();
    let given = archives::with_token(TYPE, "A-1", &token_of(TYPE, "B-1"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut phone = phone();
    phone.set_rules(passkit_archive::Rules::development());
    let added = runtime.block_on(phone.add(&given, Some(&service.url())));
    assert!(!added.unwrap().complaints.is_empty());
    let sentence = wait_for(&service, (TYPE, "A-1"), &[], "registration-refused");
    assert!(
        sentence.contains("requests for it are refused")
            && sentence.contains("their authenticationToken is not the token of this pass"),
        "{sentence}"
    );
    wait_for(&service, (TYPE, "B-1"), &[], "no-request");
}

#[test]
fn a_certificate_of_another_type() {
    let local = Local::start();
    let other = local.certificate("pass.com.example.other");
    let mut service = Service::new().given(&local.arguments_with(&other, local.apns.port()));
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    let mut phone = phone();
    let one = pass(TYPE, "A-1", "one");
    let added = local
        .runtime
        .block_on(phone.add(&one, Some(&service.url())));
    assert!(added.unwrap().complaints.is_empty());
    replace(&file, &pass(TYPE, "A-1", "two"));
    let sentence = wait_for(&service, (TYPE, "A-1"), &[], "nobody-pushes");
    assert!(
        sentence.contains(&format!(
            "no running instance has a push certificate for {TYPE}"
        )),
        "{sentence}"
    );
}

#[test]
fn a_push_token_for_another_topic() {
    let local = Local::start();
    let mut service = Service::new().given(&local.arguments()).given(&METRICS);
    let file = service.passes().join("a.pkpass");
    let one = pass(TYPE, "A-1", "one");
    fs::write(&file, &one).unwrap();
    service.start();
    let phone = with_phone(&local, &service, &one);
    local.apns.answer_token(
        phone.state().push_token().as_str(),
        Answer::refuse(400, "DeviceTokenNotForTopic"),
    );
    replace(&file, &pass(TYPE, "A-1", "two"));
    let sentence = wait_for(&service, (TYPE, "A-1"), &[], "push-refused");
    assert!(
        sentence.contains(&format!(
            "the push token does not belong to {TYPE} (DeviceTokenNotForTopic)"
        )),
        "{sentence}"
    );
}

/// A pass with this `userInfo` and this balance.
fn with(user_info: &str, balance: &str) -> Vec<u8> {
    let fields = json!([{ "key": "balance", "value": balance, "changeMessage": "now %@" }]);
    with_json(
        TYPE,
        &json!({ "userInfo": { "order": user_info }, "generic": { "primaryFields": fields } }),
    )
}

#[test]
fn a_change_of_nothing_that_phones_show() {
    let local = Local::start();
    let mut service = Service::new()
        .given(&local.arguments())
        .given(&METRICS)
        .given(&["--allow-unsigned"]);
    let passes = service.passes();
    let file = passes.join("a.pkpass");
    let (one, two) = (with("1", "10"), with("2", "10"));
    fs::write(&file, &one).unwrap();
    service.start();
    quiet(&service);
    let mut phone = phone();
    phone.set_rules(passkit_archive::Rules::development());
    let added = local
        .runtime
        .block_on(phone.add(&one, Some(&service.url())));
    assert!(added.unwrap().complaints.is_empty());
    let sentence = wait_for(&service, (TYPE, "A"), &folder(&passes), "all-is-well");
    assert!(
        sentence.contains("whether phones show a change is unknown"),
        "{sentence}"
    );
    replace(&file, &two);
    eventually("the phone gets the change", || {
        let synced = local.runtime.block_on(phone.sync()).unwrap();
        synced.updated.len() == 1
    });
    let ends_rightly = |sentence: &str| {
        let end =
            "phones show nothing on the pass of what changed since the previous version: userInfo.";
        assert!(sentence.ends_with(end), "{sentence}");
    };
    ends_rightly(&wait_for(&service, (TYPE, "A"), &[], "nothing-visible"));

    // A copy says what changed since another version.
    let previous = local.folder.path().join("previous.pkpass");
    fs::write(&previous, with("1", "9")).unwrap();
    let mut arguments = folder(&passes);
    arguments.extend(["--previous", previous.to_str().unwrap()]);
    let sentence = wait_for(&service, (TYPE, "A"), &arguments, "all-is-well");
    assert!(
        sentence.ends_with("and phones show a notification (balance, userInfo)."),
        "{sentence}"
    );
}

#[test]
fn a_file_that_is_not_published() {
    let mut service = Service::new();
    let passes = service.passes();
    let file = passes.join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    assert_eq!(service.register("5ec2e7", TYPE, "A-1"), 201);
    service.stop("TERM");
    replace(&file, &pass(TYPE, "A-1", "two"));
    let explained = explain(&service, TYPE, "A-1", &folder(&passes));
    assert_eq!(
        (explained.code, explained.cause()),
        (Some(1), "not-published")
    );
    let explained = explain(&service, TYPE, "nobody", &[]);
    assert_eq!(
        (explained.code, explained.cause()),
        (Some(1), "unknown-pass")
    );
}

#[test]
fn a_question_that_is_wrong_is_one_line() {
    let mut service = Service::new();
    let passes = service.passes();
    let file = passes.join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    fs::write(passes.join("b.pkpass"), pass(TYPE, "B-1", "one")).unwrap();
    service.start();
    let (folder, other) = (passes.to_str().unwrap(), passes.join("b.pkpass"));
    let missing = service.folder.path().join("missing");
    let (other, missing) = (other.to_str().unwrap(), missing.to_str().unwrap());
    for (arguments, why) in [
        (&["explain", TYPE][..], "<SERIAL>"),
        (&["explain", "nothing", "A-1"], "nothing"),
        (&["explain", TYPE, ""], "serial number"),
        (&["explain", TYPE, "A-1", "--devices", "0"], "--devices"),
        (&["explain", TYPE, "A-1", "--format", "xml"], "--format"),
        (&["explain", TYPE, "A-1", "--passes", missing], "missing"),
        (
            &["explain", TYPE, "A-1", "--previous", other],
            "--passes DIR",
        ),
        (
            &[
                "explain",
                TYPE,
                "A-1",
                "--passes",
                folder,
                "--previous",
                other,
            ],
            "b.pkpass holds",
        ),
        (
            &[
                "explain",
                TYPE,
                "A-1",
                "--passes",
                folder,
                "--previous",
                missing,
            ],
            "can't be read",
        ),
    ] {
        let mut command = passkit();
        command
            .args(arguments)
            .args(["--store", service.store_url()]);
        let (code, out, said) = run(&mut command);
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    let (code, _, said) =
        run(passkit().args(["explain", TYPE, "A-1", "--store", "sqlite:./none.db"]));
    assert!(
        code == Some(2) && said.contains("there is no store"),
        "{said}"
    );
}
