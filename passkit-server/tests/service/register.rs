//! The register call.

use std::sync::Arc;

use passkit_server::PassId;

use crate::app::{
    App, COUPON, DEVICE, OTHER_DEVICE, OTHER_PUSH, PUSH, SERIALS, TICKET, coupon, encode,
    list_path, post, push_body, registration_path, ticket,
};

async fn registered(app: &App, pass: &PassId) -> bool {
    !app.devices_of(pass).await.is_empty()
}

#[tokio::test]
async fn the_first_time_is_201_and_every_other_200() {
    let app = App::new();
    let call = || app.register_call(DEVICE, &ticket("A-1"), PUSH);
    assert_eq!(app.status(call()).await, 201);
    for _ in 0..5 {
        assert_eq!(app.status(call()).await, 200);
    }
    assert_eq!(
        app.devices_of(&ticket("A-1")).await,
        [(DEVICE.to_owned(), PUSH.to_owned())]
    );
}

#[tokio::test]
async fn every_combination_of_device_and_pass_is_new_once() {
    let app = App::new();
    for (device, pass) in [
        (DEVICE, ticket("A-1")),
        (DEVICE, ticket("A-2")),
        (DEVICE, coupon("A-1")),
        (OTHER_DEVICE, ticket("A-1")),
    ] {
        assert_eq!(app.register(device, &pass).await, 201);
        assert_eq!(app.register(device, &pass).await, 200);
    }
}

#[tokio::test]
async fn the_answers_have_content_length_0() {
    let app = App::new();
    for status in [201, 200] {
        let answer = app
            .send(app.register_call(DEVICE, &ticket("A-1"), PUSH))
            .await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (status, Some("0"))
        );
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn every_success_stores_the_push_token() {
    let app = App::new();
    for push_token in [PUSH, OTHER_PUSH, "ab", PUSH] {
        app.send(app.register_call(DEVICE, &ticket("A-1"), push_token))
            .await;
        assert_eq!(
            app.devices_of(&ticket("A-1")).await,
            [(DEVICE.to_owned(), push_token.to_owned())]
        );
    }
}

#[tokio::test]
async fn push_tokens_of_any_documented_form_are_stored_unchanged() {
    let app = App::new();
    for push_token in [
        "00".to_owned(),
        "aBcDeF0123456789".into(),
        "A".repeat(160),
        "f0".repeat(200),
    ] {
        let status = app
            .status(app.register_call(DEVICE, &ticket("A-1"), &push_token))
            .await;
        assert!(matches!(status, 200 | 201), "{push_token}: {status}");
        assert_eq!(
            app.devices_of(&ticket("A-1")).await,
            [(DEVICE.to_owned(), push_token)]
        );
    }
}

#[tokio::test]
async fn other_push_tokens_are_refused() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    for push_token in [
        "", "a", "abc", "zz", "0x12", " ab", "ab ", "ａｂ", "a\\u0000", "<ab cd>", "ab/../cd",
    ] {
        let answer = app
            .send(app.register_call(DEVICE, &ticket("A-1"), push_token))
            .await;
        assert_eq!(answer.status, 400, "{push_token}");
    }
    assert_eq!(
        app.status(app.register_call(DEVICE, &ticket("A-1"), &"ab".repeat(201)))
            .await,
        400
    );
    assert_eq!(
        app.devices_of(&ticket("A-1")).await,
        [(DEVICE.to_owned(), PUSH.to_owned())]
    );
}

#[tokio::test]
async fn a_body_without_a_push_token_is_refused_and_changes_nothing() {
    let app = App::new();
    let deep = "[".repeat(16_000);
    let deep_object = r#"{"a":"#.repeat(3_000);
    for body in [
        &b""[..],
        b" ",
        b"null",
        b"true",
        b"7",
        b"\"00\"",
        b"[]",
        b"[\"00\"]",
        b"{}",
        b"{",
        b"{\"pushToken\"}",
        b"{\"pushToken\":null}",
        b"{\"pushToken\":[\"00\"]}",
        b"{\"pushToken\":{\"pushToken\":\"00\"}}",
        b"{\"pushToken\":12}",
        b"{\"pushToken\":true}",
        b"{\"pushtoken\":\"00\"}",
        b"{\"PushToken\":\"00\"}",
        b"{\"push_token\":\"00\"}",
        b"pushToken=00",
        b"{\"pushToken\":\"00\"} and more",
        b"{'pushToken':'00'}",
        b"{\"pushToken\":\"\xff\xfe\"}",
        b"\xff\xfe\x00",
        b"\0",
        deep.as_bytes(),
        deep_object.as_bytes(),
    ] {
        let call = app
            .register_call(DEVICE, &ticket("A-1"), "")
            .body(body.to_vec());
        assert_eq!(
            app.status(call).await,
            400,
            "{}",
            String::from_utf8_lossy(body)
        );
        assert!(!registered(&app, &ticket("A-1")).await);
    }
}

#[tokio::test]
async fn a_refusal_repeats_nothing_that_was_sent() {
    let app = App::new();
    for body in [
        "{\"pushToken\":\"not-hex-but-secret\"}",
        "secret",
        "{\"secret\":1}",
    ] {
        let answer = app
            .send(app.register_call(DEVICE, &ticket("A-1"), "").body(body))
            .await;
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("secret"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn unknown_keys_and_white_space_are_ignored() {
    let app = App::new();
    for (body, push_token) in [
        (
            r#"{"pushToken":"00","x":{"y":[1,2,null]},"logs":["a"]}"#,
            "00",
        ),
        (r#"{"x":1.5e9,"pushToken":"01"}"#, "01"),
        (" \r\n\t{ \"pushToken\" :\n \"02\" } \n", "02"),
        (r#"{"push\u0054oken":"\u0030\u0033"}"#, "03"),
    ] {
        let status = app
            .status(app.register_call(DEVICE, &ticket("A-1"), "").body(body))
            .await;
        assert!(matches!(status, 200 | 201), "{body}: {status}");
        assert_eq!(app.devices_of(&ticket("A-1")).await[0].1, push_token);
    }
}

#[tokio::test]
async fn json_is_read_whatever_the_content_type_says() {
    let app = App::new();
    let pass = ticket("A-1");
    let call = || post(registration_path(DEVICE, &pass)).authorization(app.authorization(&pass));
    for content_type in [
        None,
        Some("application/json"),
        Some("application/json; charset=UTF-8"),
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data"),
        Some("\u{fc}"),
        Some(""),
    ] {
        let call = call().body(push_body(PUSH));
        let call = content_type
            .into_iter()
            .fold(call, |call, value| call.header("content-type", value));
        assert!(
            matches!(app.status(call).await, 200 | 201),
            "{content_type:?}"
        );
    }
}

#[tokio::test]
async fn device_identifiers_of_unreserved_characters_are_accepted() {
    let app = App::new();
    let long = "d".repeat(128);
    for device in [
        "0",
        DEVICE,
        "D4C1-11EE_x.y~z",
        "ABCDEF",
        "not-hex",
        "..",
        "registrations",
        long.as_str(),
    ] {
        assert_eq!(app.register(device, &ticket("A-1")).await, 201, "{device}");
        assert_eq!(app.serials(device, TICKET, None).await, ["A-1"], "{device}");
    }
}

#[tokio::test]
async fn other_device_identifiers_are_refused() {
    let app = App::new();
    for device in [
        "d".repeat(129),
        "a%20b".into(),
        "a%2Fb".into(),
        "%C3%A9".into(),
        "a%00".into(),
        "a+b".into(),
    ] {
        assert_eq!(
            app.status(app.register_call(&device, &ticket("A-1"), PUSH))
                .await,
            400,
            "{device}"
        );
        assert_eq!(app.devices_of(&ticket("A-1")).await, []);
    }
}

#[tokio::test]
async fn device_identifiers_are_case_sensitive() {
    let app = App::new();
    assert_eq!(app.register("abc", &ticket("A-1")).await, 201);
    assert_eq!(app.register("ABC", &ticket("A-1")).await, 201);
    assert_eq!(app.devices_of(&ticket("A-1")).await.len(), 2);
}

#[tokio::test]
async fn an_encoded_device_identifier_is_the_same_device() {
    let app = App::new();
    assert_eq!(app.register("a-b", &ticket("A-1")).await, 201);
    assert_eq!(app.register("%61%2Db", &ticket("A-1")).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    assert_eq!(app.serials("%61-b", TICKET, None).await, ["A-1"]);
}

#[tokio::test]
async fn every_serial_number_of_the_wild_registers_lists_and_unregisters() {
    let app = App::new();
    for pass in SERIALS
        .iter()
        .flat_map(|serial| [ticket(serial), coupon(serial)])
    {
        assert_eq!(app.register(DEVICE, &pass).await, 201, "{pass}");
        assert_eq!(app.register(DEVICE, &pass).await, 200, "{pass}");
        assert_eq!(app.devices_of(&pass).await.len(), 1, "{pass}");
    }
    let mut all: Vec<String> = SERIALS.map(str::to_owned).into();
    all.sort();
    assert_eq!(app.serials(DEVICE, TICKET, None).await, all);
    assert_eq!(app.serials(DEVICE, COUPON, None).await, all);
    for serial in SERIALS {
        assert_eq!(
            app.unregister(DEVICE, &ticket(serial)).await,
            200,
            "{serial}"
        );
        assert!(!registered(&app, &ticket(serial)).await, "{serial}");
        assert!(registered(&app, &coupon(serial)).await, "{serial}");
    }
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    assert_eq!(app.serials(DEVICE, COUPON, None).await, all);
}

#[tokio::test]
async fn a_registration_needs_no_user_agent_and_takes_any() {
    let app = App::new();
    for agent in [
        "passd/1.0 CFNetwork/1399 Darwin/22.1.0",
        "curl/8",
        "",
        "\u{1f4f1}",
    ] {
        let call = app
            .register_call(DEVICE, &ticket("A-1"), PUSH)
            .header("user-agent", agent);
        assert!(matches!(app.status(call).await, 200 | 201), "{agent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_parallel_registrations_exactly_one_is_new() {
    let app = Arc::new(App::new());
    for round in 0..20 {
        let device = format!("device-{round}");
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let (app, device) = (app.clone(), device.clone());
                tokio::spawn(async move { app.register(&device, &ticket("A-1")).await })
            })
            .collect();
        let mut statuses = Vec::new();
        for call in calls {
            statuses.push(call.await.unwrap());
        }
        statuses.sort();
        assert_eq!(
            (statuses[0], statuses[18], statuses[19]),
            (200, 200, 201),
            "{statuses:?}"
        );
        assert_eq!(app.serials(&device, TICKET, None).await, ["A-1"]);
    }
    assert_eq!(app.devices_of(&ticket("A-1")).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_registrations_of_one_device_for_many_passes_are_all_kept() {
    let app = Arc::new(App::new());
    let calls: Vec<_> = SERIALS
        .into_iter()
        .map(|serial| {
            let app = app.clone();
            tokio::spawn(async move { app.register(DEVICE, &ticket(serial)).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 201);
    }
    assert_eq!(app.serials(DEVICE, TICKET, None).await.len(), SERIALS.len());
}

/// In either order, the answers are documented ones, and the two tables agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_registering_and_unregistering_ends_as_one_of_the_two() {
    let app = Arc::new(App::new());
    for _ in 0..50 {
        let (one, two) = (app.clone(), app.clone());
        let on = tokio::spawn(async move { one.register(DEVICE, &ticket("A-1")).await });
        let off = tokio::spawn(async move { two.unregister(DEVICE, &ticket("A-1")).await });
        assert!(matches!(on.await.unwrap(), 200 | 201));
        assert_eq!(off.await.unwrap(), 200);
        let listed = app.list(DEVICE, TICKET, None).await.is_some();
        assert_eq!(registered(&app, &ticket("A-1")).await, listed);
    }
}

#[tokio::test]
async fn registering_without_a_serial_number_is_an_error() {
    let app = App::new();
    let call = post(list_path(DEVICE, TICKET)).authorization(app.authorization(&ticket("A-1")));
    assert_eq!(app.status(call.body(push_body(PUSH))).await, 405);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
}

#[tokio::test]
async fn a_pass_of_the_desk_is_found_by_its_exact_serial_number_only() {
    let app = App::new();
    for serial in ["a-1", "A-1 ", "A-10", "A-", "A"] {
        let path = format!(
            "/v1/devices/{DEVICE}/registrations/{TICKET}/{}",
            encode(serial)
        );
        let call = post(path)
            .authorization(app.authorization(&ticket("A-1")))
            .body(push_body(PUSH));
        assert_eq!(app.status(call).await, 401, "{serial}");
    }
}
