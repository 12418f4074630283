//! Whole sequences of calls, with the exact status of each.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use passkit_server::{PassId, store::RegistrationStore as _};

use crate::{
    app::{
        App, COUPON, DEVICE, OTHER_DEVICE, OTHER_PUSH, PUSH, TICKET, coupon, device, get, head,
        latest_path, list_path, post, ticket,
    },
    phone::Phone,
    test_store::TestStore,
};

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

async fn mark(app: &App, passes: &[PassId]) {
    for pass in passes {
        app.mark(pass).await;
    }
}

#[tokio::test]
async fn the_first_pass_is_added() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    assert_eq!(phone.register(&ticket("A-1")).await, 201);
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    assert_eq!(phone.fetch(&ticket("A-1")).await, 200);
    assert_eq!(
        phone.content(&ticket("A-1")),
        Some("first version of pass.com.example.ticket A-1")
    );
}

#[tokio::test]
async fn a_second_pass_is_added() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&ticket("A-1")).await;
    phone.sync(TICKET).await;
    assert_eq!(phone.register(&ticket("A-2")).await, 201);
    assert_eq!(phone.sync(TICKET).await, [("A-2".to_owned(), 200)]);
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn an_update_is_listed_once_and_fetched_once() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    let first_date = phone.date(&pass).unwrap().to_owned();

    app.publish(&pass, "second").await;
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    assert_eq!(phone.fetch(&pass).await, 200);
    assert_eq!(phone.content(&pass), Some("second"));
    assert_ne!(phone.date(&pass).unwrap(), first_date);
    assert!(phone.list(TICKET).await.is_empty());
    assert_eq!(phone.fetch(&pass).await, 304);
    assert_eq!(phone.fetch(&pass).await, 304);
}

#[tokio::test]
async fn two_changed_passes_are_in_one_list() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    for serial in ["A-1", "A-2", "A-3"] {
        phone.register(&ticket(serial)).await;
    }
    phone.sync(TICKET).await;
    mark(&app, &[ticket("A-3"), ticket("A-1")]).await;
    assert_eq!(phone.list(TICKET).await, ["A-1", "A-3"]);
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn three_updates_before_one_list_are_all_listed() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    for serial in ["A-1", "A-2", "A-3"] {
        phone.register(&ticket(serial)).await;
    }
    phone.sync(TICKET).await;
    for serial in ["A-2", "A-1", "A-3"] {
        mark(&app, &[ticket(serial)]).await;
    }
    assert_eq!(phone.list(TICKET).await, ["A-1", "A-2", "A-3"]);
}

#[tokio::test]
async fn two_updates_of_one_pass_are_one_fetch_of_the_newest() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    app.publish(&pass, "second").await;
    app.publish(&pass, "third").await;
    assert_eq!(phone.sync(TICKET).await, [("A-1".to_owned(), 200)]);
    assert_eq!(phone.content(&pass), Some("third"));
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn an_update_between_list_and_get_is_fetched_at_once_and_listed_again() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    app.publish(&pass, "second").await;
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    app.publish(&pass, "third").await;
    app.wait_for_date(&pass).await;
    assert_eq!(phone.fetch(&pass).await, 200);
    assert_eq!(phone.content(&pass), Some("third"));
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    assert_eq!(phone.fetch(&pass).await, 304);
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn updates_within_one_second_with_lists_between_are_each_listed() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&ticket("A-1")).await;
    phone.sync(TICKET).await;
    let mut tags = Vec::new();
    for _ in 0..50 {
        mark(&app, &[ticket("A-1")]).await;
        assert_eq!(phone.list(TICKET).await, ["A-1"]);
        assert!(phone.list(TICKET).await.is_empty());
        tags.push(phone.tag(TICKET).unwrap().to_owned());
    }
    let issued = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), issued, "no tag is issued twice");
}

#[tokio::test]
async fn a_spurious_push_finds_nothing_and_its_log_message_is_accepted() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&ticket("A-1")).await;
    phone.sync(TICKET).await;
    assert!(phone.list(TICKET).await.is_empty());
    let complaint = format!(
        "Web service error for {TICKET} (https://a.example/): Device received spurious push. \
         Request for passesUpdatedSince 'T' returned no serial numbers. (Device = {DEVICE})"
    );
    let complaint = serde_json::json!({ "logs": [complaint] }).to_string();
    assert_eq!(app.status(post("/v1/log").body(complaint)).await, 200);
    assert_eq!(app.log.take()[0].report, "SpuriousPush");
}

#[tokio::test]
async fn registering_again_changes_nothing_but_may_report_the_pass_again() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    assert_eq!(phone.register(&ticket("A-1")).await, 201);
    phone.sync(TICKET).await;
    assert_eq!(phone.register(&ticket("A-1")).await, 200);
    assert_eq!(
        app.devices_of(&ticket("A-1")).await,
        pairs(&[(DEVICE, PUSH)])
    );
    let fetched = phone.sync(TICKET).await;
    assert!(
        fetched
            .iter()
            .all(|(serial, status)| serial == "A-1" && *status == 304),
        "{fetched:?}"
    );
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn a_new_push_token_applies_to_all_passes_of_the_device() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    for pass in [ticket("A-1"), ticket("A-2"), coupon("A-1")] {
        phone.register(&pass).await;
    }
    phone.push_token = OTHER_PUSH.to_owned();
    assert_eq!(phone.register(&ticket("A-1")).await, 200);
    for pass in [ticket("A-1"), ticket("A-2"), coupon("A-1")] {
        assert_eq!(
            app.devices_of(&pass).await,
            pairs(&[(DEVICE, OTHER_PUSH)]),
            "{pass}"
        );
    }
}

#[tokio::test]
async fn a_new_device_identifier_exists_beside_the_old_one_until_that_is_forgotten() {
    let app = App::new();
    let pass = ticket("A-1");
    assert_eq!(app.register(DEVICE, &pass).await, 201);
    assert_eq!(
        app.status(app.register_call(OTHER_DEVICE, &pass, OTHER_PUSH))
            .await,
        201
    );
    assert_eq!(
        app.devices_of(&pass).await,
        pairs(&[(DEVICE, PUSH), (OTHER_DEVICE, OTHER_PUSH)])
    );
    // The publisher makes this call after a 410 of APNs.
    assert!(
        app.store
            .forget_device(&device(DEVICE), SystemTime::now())
            .await
            .unwrap()
    );
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    assert_eq!(app.serials(OTHER_DEVICE, TICKET, None).await, ["A-1"]);
    assert_eq!(
        app.devices_of(&pass).await,
        pairs(&[(OTHER_DEVICE, OTHER_PUSH)])
    );
}

#[tokio::test]
async fn a_device_registered_after_its_token_expired_is_not_forgotten() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    let before = SystemTime::now() - Duration::from_secs(5);
    assert!(
        !app.store
            .forget_device(&device(DEVICE), before)
            .await
            .unwrap()
    );
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-1"]);
}

#[tokio::test]
async fn a_deleted_pass_is_gone_from_the_device_and_still_there_to_fetch() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    assert_eq!(phone.unregister(&pass).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    mark(&app, std::slice::from_ref(&pass)).await;
    assert!(phone.list(TICKET).await.is_empty());
    assert_eq!(app.devices_of(&pass).await, []);
    assert_eq!(app.status(app.get_call(&pass)).await, 200);
}

#[tokio::test]
async fn of_two_passes_one_is_deleted_then_the_other() {
    let app = App::new();
    let phone = Phone::new(&app, DEVICE);
    for serial in ["A-1", "A-2"] {
        phone.register(&ticket(serial)).await;
    }
    assert_eq!(phone.unregister(&ticket("A-1")).await, 200);
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-2"]);
    assert_eq!(
        app.devices_of(&ticket("A-2")).await,
        pairs(&[(DEVICE, PUSH)])
    );
    assert_eq!(phone.unregister(&ticket("A-2")).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    // The device had no other registration, so it was removed too.
    assert!(
        !app.store
            .forget_device(&device(DEVICE), SystemTime::now())
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_pass_is_added_again_after_it_was_deleted() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    phone.unregister(&pass).await;
    app.publish(&pass, "while away").await;
    assert_eq!(phone.register(&pass).await, 201);
    phone.forget_date(&pass);
    assert_eq!(
        phone.list(TICKET).await,
        ["A-1"],
        "what changed while it was away is not missed"
    );
    assert_eq!(phone.fetch(&pass).await, 200);
    assert_eq!(phone.content(&pass), Some("while away"));
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn updates_are_switched_off_and_on() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    assert_eq!(phone.unregister(&pass).await, 200);
    assert_eq!(phone.register(&pass).await, 201);
    phone.list(TICKET).await;
    assert_eq!(phone.fetch(&pass).await, 304);
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn bad_register_bodies_are_refused_and_then_a_good_one_is_taken() {
    let app = App::new();
    let pass = ticket("A-1");
    for body in [
        "",
        "[]",
        "{}",
        r#"{"pushToken":1}"#,
        r#"{"pushToken":""}"#,
        "not json",
    ] {
        assert_eq!(
            app.status(app.register_call(DEVICE, &pass, "").body(body))
                .await,
            400,
            "{body}"
        );
        assert_eq!(app.devices_of(&pass).await, [], "{body}");
        assert_eq!(app.list(DEVICE, TICKET, None).await, None, "{body}");
    }
    assert_eq!(app.register(DEVICE, &pass).await, 201);
}

#[tokio::test]
async fn equal_serials_of_two_types_are_two_passes() {
    let app = App::new();
    assert_eq!(app.register(DEVICE, &ticket("A-1")).await, 201);
    assert_eq!(app.list(DEVICE, COUPON, None).await, None);
    for method in ["GET", "HEAD"] {
        let call = crate::app::RequestBuilder::new(method, latest_path(&coupon("A-1")));
        assert_eq!(
            app.status(call.authorization(app.authorization(&ticket("A-1"))))
                .await,
            401
        );
    }
    assert_eq!(app.register(DEVICE, &coupon("A-1")).await, 201);
    app.unregister(DEVICE, &coupon("A-1")).await;
    assert_eq!(app.serials(DEVICE, TICKET, None).await, ["A-1"]);
}

#[tokio::test]
async fn two_devices_share_a_pass() {
    let app = App::new();
    let pass = ticket("A-1");
    let (mut first, mut second) = (Phone::new(&app, DEVICE), Phone::new(&app, OTHER_DEVICE));
    assert_eq!(
        (first.register(&pass).await, second.register(&pass).await),
        (201, 201)
    );
    first.sync(TICKET).await;
    second.sync(TICKET).await;
    app.publish(&pass, "second").await;
    assert_eq!(app.devices_of(&pass).await.len(), 2);
    for phone in [&mut first, &mut second] {
        assert_eq!(phone.list(TICKET).await, ["A-1"]);
        assert_eq!(phone.fetch(&pass).await, 200);
    }
    assert_eq!(first.unregister(&pass).await, 200);
    assert_eq!(app.devices_of(&pass).await, pairs(&[(OTHER_DEVICE, PUSH)]));
    app.publish(&pass, "third").await;
    assert!(first.list(TICKET).await.is_empty());
    assert_eq!(second.list(TICKET).await, ["A-1"]);
}

#[tokio::test]
async fn pull_to_refresh() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    assert_eq!(phone.fetch(&pass).await, 304);
    app.publish(&pass, "second").await;
    assert_eq!(phone.fetch(&pass).await, 200);
    assert_eq!(phone.content(&pass), Some("second"));
}

#[tokio::test]
async fn a_voided_pass_is_an_ordinary_update() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&pass).await;
    phone.sync(TICKET).await;
    app.publish(&pass, r#"{"voided":true}"#).await;
    assert_eq!(phone.sync(TICKET).await, [("A-1".to_owned(), 200)]);
    assert_eq!(phone.content(&pass), Some(r#"{"voided":true}"#));
    assert!(phone.list(TICKET).await.is_empty());
    assert_eq!(phone.fetch(&pass).await, 304);
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let app = App::new();
    let pass = ticket("A-1");
    let full = app.send(app.get_call(&pass)).await;
    let call = || head(latest_path(&pass));
    let headers = app
        .send(call().authorization(app.authorization(&pass)))
        .await;
    assert_eq!((headers.status, &headers.headers), (200, &full.headers));
    assert!(headers.body.is_empty());
    let date = full.header("last-modified").unwrap();
    let call_with_date = call()
        .authorization(app.authorization(&pass))
        .header("if-modified-since", date);
    assert_eq!(app.status(call_with_date).await, 304);
    assert_eq!(app.status(call()).await, 401);
}

#[tokio::test]
async fn a_change_of_the_whole_type_reaches_every_registration_once() {
    let app = App::new();
    let (mut first, mut second) = (Phone::new(&app, DEVICE), Phone::new(&app, OTHER_DEVICE));
    for pass in [ticket("A-1"), ticket("A-2")] {
        first.register(&pass).await;
    }
    first.register(&coupon("A-1")).await;
    second.register(&ticket("A-3")).await;
    for phone in [&mut first, &mut second] {
        phone.sync(TICKET).await;
        phone.sync(COUPON).await;
    }
    app.mark_all(TICKET).await;
    assert_eq!(first.list(TICKET).await, ["A-1", "A-2"]);
    assert_eq!(second.list(TICKET).await, ["A-3"]);
    assert!(first.list(COUPON).await.is_empty());
    assert!(first.list(TICKET).await.is_empty() && second.list(TICKET).await.is_empty());
    for pass in [ticket("A-1"), ticket("A-2")] {
        assert_eq!(first.fetch(&pass).await, 200);
    }
    assert_eq!(first.fetch(&coupon("A-1")).await, 304);
}

/// A stranger gets the same answers before and after an authorized request.
#[tokio::test]
async fn requests_do_not_affect_each_other() {
    let app = App::new();
    let pass = ticket("A-1");
    let before = app.send(get(latest_path(&pass))).await;
    assert_eq!(app.status(app.get_call(&pass)).await, 200);
    assert_eq!(app.send(get(latest_path(&pass))).await, before);
    assert_eq!(before.status, 401);
}

/// Phones that sync while others write end with the newest content, and then find no more changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_others_write() {
    let app = Arc::new(App::over(Arc::new(TestStore::backdated(1_000_000))));
    let serials = ["A-1", "A-2", "A-3"];
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let app = app.clone();
            tokio::spawn(async move {
                for round in 0..1000 {
                    let pass = ticket(serials[(writer + round) % serials.len()]);
                    app.publish(&pass, &format!("{writer}.{round}")).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut phone = Phone::new(&app, DEVICE);
    for serial in serials {
        assert_eq!(phone.register(&ticket(serial)).await, 201);
    }
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        phone.sync(TICKET).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    phone.sync(TICKET).await;
    assert!(phone.list(TICKET).await.is_empty());
    for serial in serials {
        let newest = app.send(app.get_call(&ticket(serial))).await;
        assert_eq!(
            phone.content(&ticket(serial)).unwrap().as_bytes(),
            newest.body
        );
    }
}

#[tokio::test]
async fn the_list_needs_no_credentials_and_takes_any() {
    let app = App::new();
    app.register(DEVICE, &ticket("A-1")).await;
    let bare = app.send(get(list_path(DEVICE, TICKET))).await;
    assert_eq!(bare.status, 200);
    for authorization in [
        "ApplePass wrong-token-0123456",
        "Bearer x",
        "Basic dTpw",
        "",
        "\u{fc}",
    ] {
        let answer = app
            .send(get(list_path(DEVICE, TICKET)).authorization(authorization))
            .await;
        assert_eq!(answer, bare, "{authorization}");
    }
}
