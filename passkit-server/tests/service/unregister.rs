//! The unregister call.

use std::sync::Arc;

use crate::app::{App, DEVICE, OTHER_DEVICE, TICKET, coupon, delete, registration_path, ticket};

#[tokio::test]
async fn every_repetition_is_200_without_a_body() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    for _ in 0..3 {
        let answer = app.send(app.unregister_call(DEVICE, &ticket("A-1"))).await;
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (200, Some("0"))
        );
        assert!(answer.body.is_empty());
        assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    }
}

#[tokio::test]
async fn a_missing_registration_is_200_too() {
    let app = App::new();
    assert_eq!(app.unregister(DEVICE, &ticket("A-1")).await, 200);
    app.register(DEVICE, &ticket("A-2")).await;
    assert_eq!(app.unregister(DEVICE, &ticket("A-1")).await, 200);
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-2"]);
}

#[tokio::test]
async fn only_the_named_registration_is_removed() {
    let app = App::new();
    for device in [DEVICE, OTHER_DEVICE] {
        for pass in [ticket("A-1"), ticket("A-2"), coupon("A-1")] {
            app.register(device, &pass).await;
        }
    }
    assert_eq!(app.unregister(DEVICE, &ticket("A-1")).await, 200);
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-2"]);
    assert_eq!(
        app.serials(DEVICE, coupon("A-1").type_id.as_str(), None)
            .await,
        ["A-1"]
    );
    assert_eq!(
        app.serials(OTHER_DEVICE, TICKET, None).await,
        ["A-1", "A-2"]
    );
    assert_eq!(app.devices_of(&ticket("A-1")).await.len(), 1);
}

#[tokio::test]
async fn a_body_and_a_content_type_change_nothing() {
    let app = App::new();
    for body in ["{}", "not json", r#"{"pushToken":"00"}"#] {
        app.register(DEVICE, &ticket("A-1")).await;
        let call = app
            .unregister_call(DEVICE, &ticket("A-1"))
            .header("content-type", "text/plain")
            .body(body);
        assert_eq!(app.status(call).await, 200);
        assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    }
}

#[tokio::test]
async fn a_wrong_token_unregisters_nothing() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    for pass in [ticket("A-2"), coupon("A-1")] {
        let call = delete(registration_path(DEVICE, &ticket("A-1")))
            .authorization(app.authorization(&pass));
        assert_eq!(app.status(call).await, 401);
    }
    assert_eq!(
        app.status(delete(registration_path(DEVICE, &ticket("A-1"))))
            .await,
        401
    );
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-1"]);
}

#[tokio::test]
async fn a_withdrawn_pass_can_be_unregistered_and_nothing_else() {
    let app = App::new();
    let pass = ticket("A-1");
    app.register(DEVICE, &pass).await;
    app.desk.withdraw(&pass);
    assert_eq!(app.status(app.get_call(&pass)).await, 401);
    assert_eq!(app.register(OTHER_DEVICE, &pass).await, 401);
    assert_eq!(app.desk.archives_asked(), 0);
    let wrong =
        delete(registration_path(DEVICE, &pass)).authorization("ApplePass another-token-0123");
    assert_eq!(app.status(wrong).await, 401);
    assert_eq!(app.unregister(DEVICE, &pass).await, 200);
    assert_eq!(app.unregister(DEVICE, &pass).await, 200);
    assert_eq!(app.devices_of(&pass).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_parallel_calls_are_all_200() {
    let app = Arc::new(App::new());
    app.register(DEVICE, &ticket("A-1")).await;
    app.register(DEVICE, &ticket("A-2")).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.unregister(DEVICE, &ticket("A-1")).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-2"]);
}
