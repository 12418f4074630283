//! Paths and methods, and the ways in which clients change them.

use crate::app::{
    App, DEVICE, ORDERS, PUSH, RequestBuilder, SERIALS, TICKET, coupon, delete, encode, get,
    latest_path, list_path, order, post, push_body, registration_path, ticket,
};

fn is_unreserved_or(text: &str, more: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._~".contains(c) || more.contains(c))
}

#[tokio::test]
async fn one_or_more_leading_slashes_are_accepted() {
    let app = App::new();
    for slashes in ["", "/", "//"] {
        let at = |path: String| format!("{slashes}{path}");
        let opened = || app.authorization(&ticket("A-1"));
        let register = post(at(registration_path(DEVICE, &ticket("A-1"))));
        let status = app
            .status(register.authorization(opened()).body(push_body(PUSH)))
            .await;
        assert!(matches!(status, 200 | 201), "{slashes}");
        assert_eq!(app.status(get(at(list_path(DEVICE, TICKET)))).await, 200);
        assert_eq!(
            app.status(get(at(latest_path(&ticket("A-1")))).authorization(opened()))
                .await,
            200
        );
        assert_eq!(app.status(post(at("/v1/log".into()))).await, 200);
        let unregister = delete(at(registration_path(DEVICE, &ticket("A-1"))));
        assert_eq!(app.status(unregister.authorization(opened())).await, 200);
    }
}

#[tokio::test]
async fn one_trailing_slash_is_accepted_everywhere() {
    let app = App::new();
    let opened = || app.authorization(&ticket("A-1"));
    let slash = |path: String| format!("{path}/");
    let register = || {
        post(slash(registration_path(DEVICE, &ticket("A-1"))))
            .authorization(opened())
            .body(push_body(PUSH))
    };
    assert_eq!(app.status(register()).await, 201);
    assert_eq!(app.status(register()).await, 200);
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-1"]);
    assert_eq!(app.status(get(slash(list_path(DEVICE, TICKET)))).await, 200);
    assert_eq!(
        app.status(get(slash(latest_path(&ticket("A-1")))).authorization(opened()))
            .await,
        200
    );
    assert_eq!(app.status(post("/v1/log/")).await, 200);
    let unregister = delete(slash(registration_path(DEVICE, &ticket("A-1"))));
    assert_eq!(app.status(unregister.authorization(opened())).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
}

#[tokio::test]
async fn a_trailing_slash_is_not_part_of_a_serial() {
    let app = App::new();
    for serial in SERIALS {
        let opened = app.authorization(&ticket(serial));
        let raw: Vec<String> = serial.split('/').map(encode).collect();
        for path in [encode(serial), raw.join("/"), encode(&encode(serial))] {
            let call = get(format!("/v1/passes/{TICKET}/{path}/")).authorization(&opened);
            let answer = app.send(call).await;
            assert_eq!(
                (answer.status, answer.body),
                (200, format!("first version of {}", ticket(serial)).into())
            );
        }
    }
}

/// The slashes are sent raw. The other characters are allowed in a path unchanged.
#[tokio::test]
async fn serials_with_raw_slashes_are_the_same_passes() {
    let app = App::new();
    for serial in SERIALS.into_iter().filter(|serial| serial.contains('/')) {
        let raw: Vec<String> = serial.split('/').map(encode).collect();
        let raw = raw.join("/");
        let pass = ticket(serial);
        let path = format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{raw}");
        let opened = || app.authorization(&pass);
        assert_eq!(
            app.status(post(&path).authorization(opened()).body(push_body(PUSH)))
                .await,
            201,
            "{raw}"
        );
        assert_eq!(app.register(DEVICE, &pass).await, 200, "{raw}");
        assert_eq!(app.serials(DEVICE, TICKET, None).await, [serial]);
        let latest = app
            .send(get(format!("/v1/passes/{TICKET}/{raw}")).authorization(opened()))
            .await;
        assert_eq!(
            (latest.status, latest.body),
            (200, format!("first version of {pass}").into()),
            "{raw}"
        );
        assert_eq!(
            app.status(delete(&path).authorization(opened())).await,
            200,
            "{raw}"
        );
        assert_eq!(app.list(DEVICE, TICKET, None).await, None, "{raw}");
    }
}

#[tokio::test]
async fn order_identifiers_may_have_slashes_too() {
    let app = App::new();
    for identifier in ORDERS {
        let raw: Vec<String> = identifier.split('/').map(encode).collect();
        let path = format!("/v1/orders/{}/{}", order(identifier).type_id, raw.join("/"));
        assert_eq!(
            app.status(get(path).authorization(app.authorization(&order(identifier))))
                .await,
            200
        );
    }
}

#[tokio::test]
async fn reserved_characters_may_be_in_a_path_unescaped() {
    let app = App::new();
    for serial in SERIALS
        .into_iter()
        .filter(|serial| is_unreserved_or(serial, "+&=;:@,!$'()*/"))
    {
        let path = format!("/v1/passes/{TICKET}/{serial}");
        assert_eq!(
            app.status(get(path).authorization(app.authorization(&ticket(serial))))
                .await,
            200,
            "{serial}"
        );
    }
}

#[tokio::test]
async fn a_segment_is_decoded_once_and_a_plus_stays() {
    let app = App::new();
    for (raw, serial, expected) in [
        ("%41%2D1", "A-1", 200),
        ("a+b", "a+b", 200),
        ("a%2Bb", "a+b", 200),
        ("a%2bb", "a+b", 200),
        ("two%20words", "two words", 200),
        ("two+words", "two words", 401),
        ("100%25", "100%", 200),
        ("50%2520off", "50%20off", 200),
        ("50%20off", "50%20off", 200),
        ("50%20off", "50 off", 200),
        // Some clients do not encode.
        ("AN%2bg8", "AN%2bg8", 200),
        ("AN%2bg8", "AN+g8", 200),
        ("AN%2bg8", "AN%2Bg8", 401),
        ("100%", "100%", 200),
        ("100%/", "100%", 200),
        ("100%", "A-1", 400),
        ("%zz", "A-1", 400),
        ("%E5%88%97%E8%BB%8A%2012", "列車 12", 200),
        ("%e5%88%97%e8%bb%8a%2012", "列車 12", 200),
    ] {
        let path = format!("/v1/passes/{TICKET}/{raw}");
        let status = app
            .status(get(path).authorization(app.authorization(&ticket(serial))))
            .await;
        assert_eq!(status, expected, "{raw}");
    }
}

#[tokio::test]
async fn a_segment_encoded_twice_is_found_as_well() {
    let app = App::new();
    for serial in SERIALS {
        let pass = ticket(serial);
        let twice = encode(&encode(serial));
        let path = format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{twice}");
        let opened = || app.authorization(&pass);
        assert_eq!(
            app.status(post(&path).authorization(opened()).body(push_body(PUSH)))
                .await,
            201,
            "{twice}"
        );
        assert_eq!(app.serials(DEVICE, TICKET, None).await, [serial]);
        let latest = get(format!("/v1/passes/{TICKET}/{twice}")).authorization(opened());
        assert_eq!(app.status(latest).await, 200, "{twice}");
        assert_eq!(
            app.status(delete(&path).authorization(opened())).await,
            200,
            "{twice}"
        );
        assert_eq!(app.list(DEVICE, TICKET, None).await, None, "{twice}");
    }
}

#[tokio::test]
async fn an_encoded_type_is_the_same_type() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    assert_eq!(
        app.status(get(list_path(DEVICE, &TICKET.replace('.', "%2E"))))
            .await,
        200
    );
    let path = format!("/v1/passes/{}/A-1", TICKET.replace('.', "%2e"));
    assert_eq!(
        app.status(get(path).authorization(app.authorization(&ticket("A-1"))))
            .await,
        200
    );
}

#[tokio::test]
async fn malformed_escapes_are_400() {
    let app = App::new();
    let opened = app.authorization(&ticket("A-1"));
    for bad in [
        "%",
        "%4",
        "%zz",
        "%ff",
        "%C3",
        "A-1%",
        "%%20",
        "%-1",
        "%+1",
        "%C0%AF",
        "%ED%A0%80",
        "A-1/%",
    ] {
        for (method, path) in [
            (
                "POST",
                format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{bad}"),
            ),
            (
                "DELETE",
                format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{bad}"),
            ),
            ("GET", format!("/v1/passes/{TICKET}/{bad}")),
            ("HEAD", format!("/v1/passes/{TICKET}/{bad}")),
        ] {
            let call = RequestBuilder::new(method, &path)
                .authorization(&opened)
                .body(push_body(PUSH));
            assert_eq!(app.status(call).await, 400, "{method} {path}");
        }
    }
    for path in [
        "/v1/devices/%zz/registrations/{T}/A-1",
        "/v1/devices/%ff/registrations/{T}/A-1",
    ] {
        let call = post(path.replace("{T}", TICKET))
            .authorization(&opened)
            .body(push_body(PUSH));
        assert_eq!(app.status(call).await, 400, "{path}");
    }
    assert_eq!(app.status(get(list_path("%zz", TICKET))).await, 400);
    assert_eq!(app.status(get(list_path(DEVICE, "pass.%ff"))).await, 400);
    assert_eq!(app.devices_of(&ticket("A-1")).await, []);
}

/// Hostile paths get a 4xx answer and change nothing.
#[tokio::test]
async fn hostile_paths_are_refused_and_nothing_more() {
    let app = App::new();
    let long = "x".repeat(60_000);
    let slashes = "/".repeat(30_000);
    let escapes = "%2F".repeat(10_000);
    let nested = format!("%{}zz", "25".repeat(10_000));
    for hostile in [
        "%",
        "%zz",
        "%00",
        "A-1%00",
        "%ff",
        "..",
        "../..",
        "../../log",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%252e%252e%252f",
        ".",
        "/",
        "//",
        "%2F",
        "%20",
        "%0d%0aX-Injected:%201",
        "%E2%80%AE",
        "%F0%9F%92%A9",
        "*",
        "'%20OR%20'1'='1",
        "${jndi:ldap://x}",
        "{{7*7}}",
        long.as_str(),
        slashes.as_str(),
        escapes.as_str(),
        nested.as_str(),
    ] {
        for (method, path) in [
            (
                "POST",
                format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{hostile}"),
            ),
            (
                "POST",
                format!("/v1/devices/{DEVICE}/registrations/{hostile}/A-1"),
            ),
            (
                "POST",
                format!("/v1/devices/{hostile}/registrations/{TICKET}/A-1"),
            ),
            (
                "DELETE",
                format!("/v1/devices/{DEVICE}/registrations/{TICKET}/{hostile}"),
            ),
            (
                "DELETE",
                format!("/v1/devices/{hostile}/registrations/{TICKET}/A-1"),
            ),
            (
                "GET",
                format!("/v1/devices/{DEVICE}/registrations/{hostile}"),
            ),
            (
                "GET",
                format!("/v1/devices/{hostile}/registrations/{TICKET}"),
            ),
            ("GET", format!("/v1/passes/{TICKET}/{hostile}")),
            ("GET", format!("/v1/passes/{hostile}/A-1")),
            ("GET", format!("/v1/orders/{hostile}")),
            ("GET", format!("/v1/{hostile}")),
            ("GET", format!("/{hostile}")),
            ("POST", format!("/v1/log/{hostile}")),
        ] {
            for authorization in ["", "ApplePass wrong-token-012345"] {
                let call = RequestBuilder::new(method, &path)
                    .authorization(authorization)
                    .body(push_body(PUSH));
                let answer = app.send(call).await;
                assert!(
                    matches!(answer.status, 204 | 400 | 401 | 404 | 405),
                    "{method} {path:.120}: {answer:?}"
                );
                assert!(!answer.headers.contains_key("x-injected"));
            }
        }
    }
    assert_eq!(app.desk.archives_asked(), 0);
}

#[tokio::test]
async fn hostile_paths_with_a_good_token_open_no_other_pass() {
    let app = App::new();
    let opened = app.authorization(&ticket("A-1"));
    for path in [
        "A-2",
        "A-1%00",
        "A-1%0a",
        "A-1%20",
        "A-1/../A-2",
        "../pass.com.example.coupon/A-1",
        "A-1//",
        "A-1;x",
        "A-1%3Fx",
    ] {
        let path = format!("/v1/passes/{TICKET}/{path}");
        assert_eq!(
            app.status(get(&path).authorization(&opened)).await,
            401,
            "{path}"
        );
    }
    let path = latest_path(&coupon("A-1"));
    assert_eq!(app.status(get(path).authorization(&opened)).await, 401);
}

#[tokio::test]
async fn a_query_is_not_part_of_a_path() {
    let app = App::new();
    let opened = app.authorization(&ticket("A-1"));
    for query in [
        "?",
        "?x=1",
        "?%zz",
        "?%ff",
        "?a/b?c",
        "?passesUpdatedSince=1",
    ] {
        let path = format!("{}{query}", latest_path(&ticket("A-1")));
        assert_eq!(
            app.status(get(path).authorization(&opened)).await,
            200,
            "{query}"
        );
        assert_eq!(
            app.status(post(format!("/v1/log{query}"))).await,
            200,
            "{query}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_405_with_the_allowed_ones() {
    let app = App::new();
    for (path, allowed) in [
        (
            registration_path(DEVICE, &ticket("A-1")),
            &["DELETE", "POST"][..],
        ),
        (list_path(DEVICE, TICKET), &["GET", "HEAD"]),
        (latest_path(&ticket("A-1")), &["GET", "HEAD"]),
        (latest_path(&order("O1")), &["GET", "HEAD"]),
        ("/v1/log".to_owned(), &["POST"]),
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW",
        ] {
            if allowed.contains(&method) {
                continue;
            }
            for authorization in [app.authorization(&ticket("A-1")), String::new()] {
                let call = RequestBuilder::new(method, &path)
                    .authorization(authorization)
                    .body(push_body(PUSH));
                let answer = app.send(call).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                let mut listed: Vec<&str> = answer
                    .header("allow")
                    .unwrap()
                    .split(',')
                    .map(str::trim)
                    .collect();
                listed.sort_unstable();
                assert_eq!(listed, allowed, "{path}");
            }
        }
    }
    assert_eq!(app.devices_of(&ticket("A-1")).await, []);
    assert_eq!(app.desk.archives_asked(), 0);
}

#[tokio::test]
async fn unknown_paths_and_versions_are_404() {
    let app = App::new();
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/log",
        "/v0/log",
        "/V1/log",
        "/v1/logs",
        "/v1/Log",
        "/v1/log/x",
        "/v11/log",
        "/x/v1/log",
        "/v1/v1/log",
        "/v1/devices",
        "/v1/devices/D",
        "/v1/devices/D/registrations",
        "/v1/devices/D/registrations/",
        "/v1/devices/D/passes/T",
        "/v1/devices//registrations/T",
        "/v1/passes",
        "/v1/passes/T",
        "/v1/passes/T/",
        "/v1/pass/T/S",
        "/v1/Passes/T/S",
        "/v1/orders",
        "/v1/orders/T",
        "/%76%31%2Flog",
        "/favicon.ico",
        "/robots.txt",
        "/.env",
        "*",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "PUT"] {
            let answer = app.send(RequestBuilder::new(method, path)).await;
            assert_eq!(answer.status, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_complete_url_or_a_bare_authority_is_accepted_as_target() {
    let app = App::new();
    assert_eq!(
        app.status(post("https://wallet.example:8443/v1/log")).await,
        200
    );
    assert_eq!(
        app.status(post("https://wallet.example//v1/log/")).await,
        200
    );
    assert_eq!(app.status(get("https://wallet.example")).await, 404);
    assert_eq!(
        app.status(RequestBuilder::new("CONNECT", "wallet.example:443"))
            .await,
        404
    );
}

#[tokio::test]
async fn a_head_of_a_list_is_accepted() {
    let app = App::new();
    assert_eq!(
        app.status(RequestBuilder::new("HEAD", list_path(DEVICE, TICKET)))
            .await,
        204
    );
    app.register(DEVICE, &ticket("A-1")).await;
    let answer = app
        .send(RequestBuilder::new("HEAD", list_path(DEVICE, TICKET)))
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
}

#[tokio::test]
async fn nothing_is_ever_redirected() {
    let app = App::new();
    for path in [
        "//v1/log",
        "/v1/log/",
        "/v1//log",
        "/v1/./log",
        "/wallet/v1/log",
    ] {
        let answer = app.send(post(path)).await;
        assert!(matches!(answer.status, 200 | 404), "{path}: {answer:?}");
    }
}
