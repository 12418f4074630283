//! The service inside an axum application, under several paths.

use axum::{Router, body::Body, routing::get as axum_get};
use http::Response;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::app::{
    App, DEVICE, PUSH, RequestBuilder, SERIALS, TICKET, delete, encode, get, head, latest_path,
    list_path, post, push_body, registration_path, ticket,
};

async fn ask(router: &Router, call: RequestBuilder) -> Response<Body> {
    router.clone().oneshot(call.request()).await.unwrap()
}

async fn status(router: &Router, call: RequestBuilder) -> u16 {
    ask(router, call).await.status().as_u16()
}

/// Returns every way to mount the service in an application, with its path.
fn mounts(app: &App) -> Vec<(&'static str, Router)> {
    let service = || app.service.clone();
    vec![
        ("", Router::new().fallback_service(service())),
        ("/wallet", Router::new().nest_service("/wallet", service())),
        ("/a/b", Router::new().nest_service("/a/b", service())),
        (
            "/a/b",
            Router::new().nest("/a", Router::new().nest_service("/b", service())),
        ),
        (
            "/a/b",
            Router::new().nest("/a/b", Router::new().fallback_service(service())),
        ),
        (
            "/tenant-7",
            Router::new().nest_service("/{tenant}", service()),
        ),
        (
            "",
            Router::new()
                .route("/health", axum_get(async || "ok"))
                .fallback_service(service()),
        ),
    ]
}

#[tokio::test]
async fn the_whole_sequence_works_under_every_mount() {
    for base_number in 0..7 {
        let app = App::new();
        let (base, router) = mounts(&app).remove(base_number);
        let opened = app.authorization(&ticket("A-1"));
        let at = |path: String| format!("{base}{path}");
        let register = post(at(registration_path(DEVICE, &ticket("A-1")))).authorization(&opened);
        assert_eq!(
            status(&router, register.clone().body(push_body(PUSH))).await,
            201,
            "{base}"
        );
        assert_eq!(
            status(&router, register.body(push_body(PUSH))).await,
            200,
            "{base}"
        );
        assert_eq!(
            status(&router, get(at(list_path(DEVICE, TICKET)))).await,
            200,
            "{base}"
        );
        let latest = ask(
            &router,
            get(at(latest_path(&ticket("A-1")))).authorization(&opened),
        )
        .await;
        assert_eq!(latest.status(), 200, "{base}");
        let date = latest.headers()["last-modified"].clone();
        let body = latest.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "first version of pass.com.example.ticket A-1");
        let again = get(at(latest_path(&ticket("A-1"))))
            .authorization(&opened)
            .header("if-modified-since", &date);
        assert_eq!(status(&router, again).await, 304, "{base}");
        assert_eq!(
            status(&router, post(at("/v1/log".into())).body("{}")).await,
            200,
            "{base}"
        );
        let unregister =
            delete(at(registration_path(DEVICE, &ticket("A-1")))).authorization(&opened);
        assert_eq!(status(&router, unregister).await, 200, "{base}");
        assert_eq!(
            status(&router, get(at(list_path(DEVICE, TICKET)))).await,
            204,
            "{base}"
        );
    }
}

#[tokio::test]
async fn doubled_and_trailing_slashes_work_under_every_mount() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    for (base, router) in mounts(&app) {
        for (before, after) in [("/", ""), ("", "/"), ("/", "/")] {
            let at = |path: String| format!("{base}{before}{path}{after}");
            assert_eq!(
                status(&router, post(at("/v1/log".into())).body("{}")).await,
                200,
                "{base} {before} {after}"
            );
            assert_eq!(
                status(&router, get(at(list_path(DEVICE, TICKET)))).await,
                200,
                "{base} {before} {after}"
            );
            let latest = get(at(latest_path(&ticket("A-1"))))
                .authorization(app.authorization(&ticket("A-1")));
            assert_eq!(
                status(&router, latest).await,
                200,
                "{base} {before} {after}"
            );
        }
    }
}

#[tokio::test]
async fn serials_of_any_text_come_through_every_mount() {
    let app = App::new();
    for (base, router) in mounts(&app) {
        for serial in SERIALS {
            let opened = app.authorization(&ticket(serial));
            let raw: Vec<String> = serial.split('/').map(encode).collect();
            for path in [encode(serial), raw.join("/"), encode(&encode(serial))] {
                let latest =
                    get(format!("{base}/v1/passes/{TICKET}/{path}")).authorization(&opened);
                assert_eq!(status(&router, latest).await, 200, "{base} {path}");
            }
        }
    }
}

#[tokio::test]
async fn refusals_come_through_every_mount() {
    let app = App::new();
    for (base, router) in mounts(&app) {
        for (method, path, expected) in [
            ("GET", format!("/v1/passes/{TICKET}/A-1"), 401),
            ("GET", format!("/v1/passes/{TICKET}/nobody"), 401),
            ("GET", "/v1/nothing".into(), 404),
            ("GET", "/v2/log".into(), 404),
            ("PUT", "/v1/log".into(), 405),
            ("OPTIONS", format!("/v1/passes/{TICKET}/A-1"), 405),
            ("GET", list_path("%zz", TICKET), 400),
        ] {
            let answer = ask(
                &router,
                RequestBuilder::new(method, format!("{base}{path}")),
            )
            .await;
            assert_eq!(answer.status(), expected, "{base} {method} {path}");
            assert_eq!(answer.headers().contains_key("allow"), expected == 405);
        }
    }
}

#[tokio::test]
async fn what_is_not_below_the_mount_is_not_the_service() {
    let app = App::new();
    let router = Router::new().nest_service("/wallet", app.service.clone());
    for path in [
        "/v1/log",
        "/walletv1/log",
        "/wallet",
        "/wallet/",
        "/wallets/v1/log",
        "/x/wallet/v1/log",
    ] {
        assert_eq!(status(&router, post(path).body("{}")).await, 404, "{path}");
    }
}

#[tokio::test]
async fn routes_beside_a_fallback_stay_reachable() {
    let app = App::new();
    let router = Router::new()
        .route("/health", axum_get(async || "ok"))
        .fallback_service(app.service.clone());
    assert_eq!(status(&router, get("/health")).await, 200);
    assert_eq!(status(&router, post("/v1/log")).await, 200);
}

#[tokio::test]
async fn a_head_keeps_its_length_inside_a_router() {
    let app = App::new();
    for (base, router) in mounts(&app) {
        let call = head(format!("{base}{}", latest_path(&ticket("A-1"))));
        let answer = ask(
            &router,
            call.authorization(app.authorization(&ticket("A-1"))),
        )
        .await;
        assert_eq!(answer.headers()["content-length"], "44", "{base}");
        assert!(
            answer
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
}
