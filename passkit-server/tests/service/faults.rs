//! Failures of the store and the source, and the state after them.

use std::sync::Arc;

use passkit_server::store::StoreErrorKind;

use crate::{
    app::{
        Answer, App, DEVICE, OTHER_PUSH, PUSH, RequestBuilder, TICKET, get, head, latest_path,
        list_path, order, post, ticket,
    },
    phone::Phone,
    test_store::{Fault, TestStore},
};

const KINDS: [(StoreErrorKind, u16); 5] = [
    (StoreErrorKind::Unavailable, 503),
    (StoreErrorKind::Conflict, 503),
    (StoreErrorKind::Corrupt, 500),
    (StoreErrorKind::Configuration, 500),
    (StoreErrorKind::Other, 500),
];

fn app() -> App<TestStore> {
    App::over(Arc::new(TestStore::backdated(1000)))
}

fn says_nothing(answer: &Answer, expected: u16) {
    assert_eq!(answer.status, expected);
    assert!(answer.body.is_empty());
    assert!(!format!("{:?}", answer.headers).contains("secret-detail"));
    let retry_after = answer.header("retry-after");
    if expected == 503 {
        assert!(
            retry_after
                .unwrap()
                .parse::<u32>()
                .is_ok_and(|seconds| seconds > 0),
            "{retry_after:?}"
        );
    } else {
        assert_eq!(retry_after, None);
    }
}

#[tokio::test]
async fn every_failure_shows_only_whether_a_retry_may_help() {
    let app = app();
    app.register(DEVICE, &ticket("A-1")).await;
    for (kind, expected) in KINDS {
        app.store.set_fault(Some(Fault::Before(kind)));
        for call in [
            app.register_call(DEVICE, &ticket("A-2"), PUSH),
            app.unregister_call(DEVICE, &ticket("A-1")),
            get(list_path(DEVICE, TICKET)),
            app.get_call(&ticket("A-1")),
            head(latest_path(&ticket("A-1"))).authorization(app.authorization(&ticket("A-1"))),
            app.get_call(&order("O1")),
        ] {
            says_nothing(&app.send(call).await, expected);
        }
    }
    app.store.set_fault(None);
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-1"]);
    assert_eq!(
        app.desk.archives_asked(),
        0,
        "the state comes before the content"
    );
}

#[tokio::test]
async fn requests_that_need_no_store_work_without_one() {
    let app = app();
    app.store
        .set_fault(Some(Fault::Before(StoreErrorKind::Unavailable)));
    assert_eq!(
        app.status(post("/v1/log").body(r#"{"logs":["x"]}"#)).await,
        200
    );
    assert_eq!(
        app.status(app.register_call(DEVICE, &ticket("A-1"), "bad"))
            .await,
        400
    );
    assert_eq!(app.status(get(latest_path(&ticket("A-1")))).await, 401);
    assert_eq!(app.status(get("/nothing")).await, 404);
    assert_eq!(app.status(get("/v1/log")).await, 405);
}

#[tokio::test]
async fn after_a_failure_the_same_tag_finds_everything() {
    let app = app();
    for (kind, expected) in KINDS {
        let mut phone = Phone::new(&app, DEVICE);
        phone.register(&ticket("A-1")).await;
        phone.sync(TICKET).await;
        app.publish(&ticket("A-1"), "new").await;
        app.store.set_fault(Some(Fault::Before(kind)));
        let tag = phone.tag(TICKET).unwrap();
        let list = get(format!(
            "{}?passesUpdatedSince={tag}",
            list_path(DEVICE, TICKET)
        ));
        for _ in 0..3 {
            assert_eq!(app.status(list.clone()).await, expected);
        }
        assert_eq!(
            app.status(post("/v1/log").body(r#"{"logs":["Unexpected response code"]}"#))
                .await,
            200
        );
        app.store.set_fault(None);
        assert_eq!(phone.sync(TICKET).await, [("A-1".to_owned(), 200)]);
        assert_eq!(phone.content(&ticket("A-1")), Some("new"));
        assert!(phone.list(TICKET).await.is_empty());
    }
}

#[tokio::test]
async fn a_registration_that_failed_is_new_when_it_succeeds() {
    let app = app();
    app.store
        .set_fault(Some(Fault::Before(StoreErrorKind::Unavailable)));
    assert_eq!(app.register(DEVICE, &ticket("A-1")).await, 503);
    app.store.set_fault(None);
    assert_eq!(app.devices_of(&ticket("A-1")).await, []);
    assert_eq!(app.register(DEVICE, &ticket("A-1")).await, 201);
}

/// The store made the change, but its answer was lost. It is safe to repeat the call.
#[tokio::test]
async fn calls_whose_outcome_is_unknown_can_be_repeated() {
    let app = app();
    let lost = Some(Fault::After(StoreErrorKind::Unavailable));
    app.store.set_fault(lost);
    assert_eq!(
        app.status(app.register_call(DEVICE, &ticket("A-1"), PUSH))
            .await,
        503
    );
    app.store.set_fault(None);
    assert_eq!(
        app.status(app.register_call(DEVICE, &ticket("A-1"), OTHER_PUSH))
            .await,
        200
    );
    assert_eq!(
        app.devices_of(&ticket("A-1")).await,
        [(DEVICE.to_owned(), OTHER_PUSH.to_owned())]
    );
    app.store.set_fault(lost);
    assert_eq!(app.unregister(DEVICE, &ticket("A-1")).await, 503);
    app.store.set_fault(None);
    assert_eq!(app.unregister(DEVICE, &ticket("A-1")).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
}

#[tokio::test]
async fn a_source_that_fails_to_give_credentials_is_503() {
    let app = App::new();
    app.desk.fail_credentials(true);
    for call in [
        app.register_call(DEVICE, &ticket("A-1"), PUSH),
        app.unregister_call(DEVICE, &ticket("A-1")),
        app.get_call(&ticket("A-1")),
    ] {
        says_nothing(&app.send(call).await, 503);
    }
    assert_eq!(app.status(get(list_path(DEVICE, TICKET))).await, 204);
    app.desk.fail_credentials(false);
    assert_eq!(app.register(DEVICE, &ticket("A-1")).await, 201);
}

#[tokio::test]
async fn a_source_that_fails_to_build_is_503_and_the_update_is_not_lost() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    app.publish(&pass, "new").await;
    app.desk.fail_archive(true);
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    says_nothing(&app.send(app.get_call(&pass)).await, 503);
    assert_eq!(phone.fetch(&pass).await, 503);
    app.desk.fail_archive(false);
    assert_eq!(phone.fetch(&pass).await, 200);
    assert_eq!(phone.content(&pass), Some("new"));
}

/// A request without a token learns nothing from a fault.
#[tokio::test]
async fn a_request_without_a_token_is_401_while_the_source_fails() {
    let app = App::new();
    app.desk.fail_credentials(true);
    for pass in [ticket("A-1"), ticket("nobody")] {
        for method in ["GET", "HEAD"] {
            assert_eq!(
                app.status(RequestBuilder::new(method, latest_path(&pass)))
                    .await,
                401
            );
        }
    }
}
