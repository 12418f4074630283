//! Authorization.

use passkit_server::PassId;

use crate::app::{
    Answer, App, DEVICE, OTHER_DEVICE, PUSH, RequestBuilder, TICKET, coupon, encode, latest_path,
    order, push_body, registration_path, ticket,
};

/// The four calls that need the token of a pass.
fn guarded(pass: &PassId) -> [RequestBuilder; 4] {
    [
        RequestBuilder::new("POST", registration_path(DEVICE, pass)).body(push_body(PUSH)),
        RequestBuilder::new("GET", latest_path(pass)),
        RequestBuilder::new("HEAD", latest_path(pass)),
        RequestBuilder::new("DELETE", registration_path(DEVICE, pass)),
    ]
}

/// Makes each call of `guarded` with this `Authorization`, and returns the statuses in the same
/// order.
async fn statuses(app: &App, pass: &PassId, authorization: impl AsRef<[u8]>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for call in guarded(pass) {
        statuses.push(app.status(call.authorization(&authorization)).await);
    }
    statuses
}

const ALLOWED: [u16; 4] = [201, 200, 200, 200];
const REFUSED: [u16; 4] = [401; 4];

#[tokio::test]
async fn the_token_of_the_pass_opens_it() {
    let app = App::new();
    for pass in [ticket("A-1"), coupon("A-1"), order("O1")] {
        assert_eq!(
            statuses(&app, &pass, app.authorization(&pass)).await,
            ALLOWED,
            "{pass}"
        );
    }
}

#[tokio::test]
async fn the_token_of_another_pass_does_not() {
    let app = App::new();
    let pass = ticket("A-1");
    for other in [ticket("A-2"), coupon("A-1"), coupon("A-2")] {
        assert_eq!(
            statuses(&app, &pass, app.authorization(&other)).await,
            REFUSED,
            "{other}"
        );
    }
    let order_token = app.desk.token(&order("O1"));
    assert_eq!(
        statuses(&app, &pass, format!("ApplePass {order_token}")).await,
        REFUSED
    );
    assert_eq!(app.desk.archives_asked(), 0);
    assert_eq!(app.devices_of(&pass).await, []);
}

#[tokio::test]
async fn one_token_is_shared_by_all_devices_with_the_pass() {
    let app = App::new();
    for device in [DEVICE, OTHER_DEVICE, "watch-1"] {
        assert_eq!(app.register(device, &ticket("A-1")).await, 201);
    }
}

#[tokio::test]
async fn the_scheme_ignores_case_and_the_token_does_not() {
    let app = App::new();
    let pass = ticket("A-1");
    let token = app.desk.token(&pass);
    for authorization in [
        format!("ApplePass {token}"),
        format!("applepass {token}"),
        format!("APPLEPASS {token}"),
        format!("ApplePass    {token}"),
        format!(" ApplePass {token}"),
        format!("ApplePass {token} "),
        format!("ApplePass {token}\t"),
    ] {
        assert_eq!(
            statuses(&app, &pass, &authorization).await,
            ALLOWED,
            "{authorization:?}"
        );
    }
    for authorization in [
        format!("ApplePass {}", token.to_uppercase()),
        format!("ApplePass {token}x"),
        format!("ApplePass x{token}"),
        format!("ApplePass {}", &token[1..]),
        format!("ApplePass {}", &token[..token.len() - 1]),
        format!("ApplePass \"{token}\""),
        format!("ApplePass {token},"),
        format!("ApplePass {token} {token}"),
        format!("ApplePass token={token}"),
    ] {
        assert_eq!(
            statuses(&app, &pass, &authorization).await,
            REFUSED,
            "{authorization:?}"
        );
    }
}

#[tokio::test]
async fn other_schemes_are_refused() {
    let app = App::new();
    let pass = ticket("A-1");
    let token = app.desk.token(&pass);
    for scheme in [
        "Bearer",
        "Basic",
        "Digest",
        "AndroidPass",
        "AppleOrder",
        "Apple",
        "ApplePasses",
        "Pass",
        "",
        "-",
    ] {
        assert_eq!(
            statuses(&app, &pass, format!("{scheme} {token}")).await,
            REFUSED,
            "{scheme}"
        );
    }
    let token = app.desk.token(&order("O1"));
    for scheme in ["ApplePass", "AndroidPass", "Bearer", "AppleOrders"] {
        assert_eq!(
            statuses(&app, &order("O1"), format!("{scheme} {token}")).await,
            REFUSED,
            "{scheme}"
        );
    }
}

#[tokio::test]
async fn requests_without_a_token_are_refused() {
    let app = App::new();
    let pass = ticket("A-1");
    let token = app.desk.token(&pass);
    for authorization in [
        "".to_owned(),
        " ".into(),
        "ApplePass".into(),
        "ApplePass ".into(),
        "ApplePass \t ".into(),
        token.clone(),
        format!("ApplePass{token}"),
        format!("ApplePass:{token}"),
    ] {
        assert_eq!(
            statuses(&app, &pass, &authorization).await,
            REFUSED,
            "{authorization:?}"
        );
    }
    for call in guarded(&pass) {
        assert_eq!(app.status(call).await, 401);
    }
    assert_eq!(
        statuses(&app, &pass, b"ApplePass \xff\xfe\xfd").await,
        REFUSED
    );
    assert_eq!(statuses(&app, &pass, "x".repeat(60_000)).await, REFUSED);
}

/// The two answers are the same in every detail.
#[tokio::test]
async fn an_unknown_pass_and_a_wrong_token_are_answered_alike() {
    async fn refused(app: &App, pass: &PassId, authorization: Option<&str>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for call in guarded(pass) {
            let call = authorization
                .into_iter()
                .fold(call, |call, value| call.authorization(value));
            answers.push(app.send(call).await);
        }
        answers
    }
    let app = App::new();
    let wrong = Some("ApplePass some-other-token-01");
    let expected = refused(&app, &ticket("A-1"), wrong).await;
    assert!(
        expected
            .iter()
            .all(|answer| answer.status == 401 && answer.body.is_empty())
    );
    let unknown_type = PassId::new("pass.com.example.unknown", "A-1").unwrap();
    for authorization in [None, wrong, Some("ApplePass"), Some("Bearer x")] {
        for pass in [&ticket("A-1"), &ticket("nobody"), &unknown_type] {
            assert_eq!(
                refused(&app, pass, authorization).await,
                expected,
                "{pass} {authorization:?}"
            );
        }
    }
    app.desk.withdraw(&ticket("A-2"));
    let authorization = app.authorization(&ticket("A-2"));
    assert_eq!(
        refused(&app, &ticket("A-2"), Some(&authorization)).await[..3],
        expected[..3],
        "withdrawn"
    );
}

#[tokio::test]
async fn a_removed_pass_is_unknown() {
    let app = App::new();
    let pass = ticket("A-1");
    let authorization = app.authorization(&pass);
    assert_eq!(statuses(&app, &pass, &authorization).await, ALLOWED);
    app.desk.remove(&pass);
    assert_eq!(statuses(&app, &pass, &authorization).await, REFUSED);
}

#[tokio::test]
async fn malformed_types_are_refused_like_unknown_ones() {
    let app = App::new();
    let token = app.desk.token(&ticket("A-1"));
    for type_id in [
        "com.example",
        "pass.",
        "PASS.com.example.ticket",
        "x",
        "pass.a%2Fb",
        "pass.%20",
        "pass.%00",
    ] {
        for (method, path) in [
            (
                "POST",
                format!("/v1/devices/{DEVICE}/registrations/{type_id}/A-1"),
            ),
            (
                "DELETE",
                format!("/v1/devices/{DEVICE}/registrations/{type_id}/A-1"),
            ),
            ("GET", format!("/v1/passes/{type_id}/A-1")),
        ] {
            let call = RequestBuilder::new(method, path)
                .authorization(format!("ApplePass {token}"))
                .body(push_body(PUSH));
            assert_eq!(app.status(call).await, 401, "{method} {type_id}");
        }
    }
}

#[tokio::test]
async fn every_token_that_was_ever_valid_is_accepted() {
    let app = App::new();
    let pass = ticket("A-1");
    app.desk.set_tokens(
        &pass,
        &["token-of-the-first-year", "token-of-the-second-year"],
    );
    for token in ["token-of-the-first-year", "token-of-the-second-year"] {
        assert_eq!(
            statuses(&app, &pass, format!("ApplePass {token}")).await,
            ALLOWED
        );
    }
    assert_eq!(
        statuses(&app, &pass, "ApplePass token-of-the-third-year").await,
        REFUSED
    );
}

#[tokio::test]
async fn a_pass_without_any_token_accepts_no_request() {
    let app = App::new();
    let pass = ticket("A-1");
    app.desk.set_tokens(&pass, &[]);
    for authorization in [
        "",
        "ApplePass",
        "ApplePass ",
        "ApplePass  ",
        "ApplePass key-of-entry-0000",
        "ApplePass null",
    ] {
        assert_eq!(
            statuses(&app, &pass, authorization).await,
            REFUSED,
            "{authorization}"
        );
    }
}

#[tokio::test]
async fn tokens_of_any_length_and_text_are_compared_completely() {
    let app = App::new();
    let pass = ticket("A-1");
    let long = "t".repeat(1024);
    for token in [
        "with spaces and, commas",
        "ümlaut-token-0123",
        "=====+/////~~~~~",
        long.as_str(),
    ] {
        app.desk.set_tokens(&pass, &[token]);
        assert_eq!(
            statuses(&app, &pass, format!("ApplePass {token}")).await,
            ALLOWED,
            "{token:.40}"
        );
        let cut: String = token.chars().take(token.chars().count() - 1).collect();
        assert_eq!(
            statuses(&app, &pass, format!("ApplePass {cut}")).await,
            REFUSED,
            "{token:.40}"
        );
    }
}

#[tokio::test]
async fn a_challenge_has_the_scheme_of_the_requested_kind() {
    let app = App::new();
    for (pass, scheme) in [(ticket("A-1"), "ApplePass"), (order("O1"), "AppleOrder")] {
        for call in guarded(&pass) {
            let answer = app.send(call).await;
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, Some(scheme))
            );
        }
    }
}

#[tokio::test]
async fn credentials_are_checked_before_the_body_is_read() {
    let app = App::new();
    let path = registration_path(DEVICE, &ticket("A-1"));
    for body in ["", "garbage", "{}", "[]"] {
        let call = RequestBuilder::new("POST", path.clone()).body(body);
        assert_eq!(app.status(call.clone()).await, 401);
        assert_eq!(
            app.status(call.authorization(app.authorization(&ticket("A-1"))))
                .await,
            400
        );
    }
}

#[tokio::test]
async fn the_token_decides_between_two_readings_of_a_serial() {
    let app = App::new();
    // `50%2520off` is `50%20off` after one decoding. There is no pass `50 off`.
    let path = |serial: &str| format!("/v1/passes/{TICKET}/{}", encode(serial));
    let owner = app.authorization(&ticket("50%20off"));
    assert_eq!(
        app.status(RequestBuilder::new("GET", path("50%20off")).authorization(&owner))
            .await,
        200
    );
    assert_eq!(
        app.status(RequestBuilder::new("GET", path("50 off")).authorization(&owner))
            .await,
        200,
        "some clients do not encode"
    );
    let other = app.authorization(&ticket("two words"));
    assert_eq!(
        app.status(RequestBuilder::new("GET", path("50%20off")).authorization(&other))
            .await,
        401
    );
}
