//! The list call, which asks what changed.

use passkit_server::{Changed, store::RegistrationStore};

use crate::{
    app::{
        App, COUPON, DEVICE, OTHER_DEVICE, PUSH, SERIALS, TICKET, coupon, delete, encode, get,
        list_path, post, push_body, registration_path, ticket, type_id,
    },
    phone::Phone,
};

async fn mark(app: &App, serials: &[&str]) {
    let serials: Vec<_> = serials.iter().map(|serial| ticket(serial).serial).collect();
    app.store
        .mark(&type_id(TICKET), Changed::Passes(&serials))
        .await
        .unwrap();
}

/// Makes a device with three passes that has seen everything. Returns its tag.
async fn followed(app: &App) -> String {
    for serial in ["A-1", "A-2", "A-3"] {
        app.register(DEVICE, &ticket(serial)).await;
    }
    app.list(DEVICE, TICKET, None).await.unwrap().tag
}

#[tokio::test]
async fn without_a_tag_all_passes_of_the_type_are_listed() {
    let app = App::new();
    followed(&app).await;
    app.register(DEVICE, &coupon("A-1")).await;
    for query in [
        "",
        "?",
        "?passesUpdatedSince=",
        "?passesUpdatedSince",
        "?x=1",
        "?passesUpdatedSince=&x=1",
    ] {
        let listed = app.list_with(DEVICE, TICKET, query).await.unwrap();
        assert_eq!(listed.serials, ["A-1", "A-2", "A-3"], "{query}");
    }
}

#[tokio::test]
async fn with_a_tag_only_what_changed_after_it_is_listed() {
    let app = App::new();
    let tag = followed(&app).await;
    assert_eq!(app.list(DEVICE, TICKET, Some(&tag)).await, None);
    mark(&app, &["A-2"]).await;
    let second = app.list(DEVICE, TICKET, Some(&tag)).await.unwrap();
    assert_eq!(second.serials, ["A-2"]);
    assert_eq!(app.list(DEVICE, TICKET, Some(&second.tag)).await, None);
    mark(&app, &["A-1"]).await;
    assert_eq!(
        app.serials(DEVICE, TICKET, Some(&second.tag)).await,
        ["A-1"]
    );
    assert_eq!(
        app.serials(DEVICE, TICKET, Some(&tag)).await,
        ["A-1", "A-2"],
        "an older tag has both"
    );
}

#[tokio::test]
async fn update_list_update_list() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&ticket("A-1")).await;
    phone.list(TICKET).await;
    for _ in 0..10 {
        mark(&app, &["A-1"]).await;
        assert_eq!(phone.list(TICKET).await, ["A-1"]);
        assert!(phone.list(TICKET).await.is_empty());
    }
}

#[tokio::test]
async fn asking_changes_nothing() {
    let app = App::new();
    let tag = followed(&app).await;
    mark(&app, &["A-1"]).await;
    let first = app.list(DEVICE, TICKET, Some(&tag)).await;
    for _ in 0..5 {
        assert_eq!(app.list(DEVICE, TICKET, Some(&tag)).await, first);
        assert_eq!(
            app.list(DEVICE, TICKET, None).await.unwrap().tag,
            first.as_ref().unwrap().tag
        );
    }
}

/// The tag depends on the passes, not on the time of the call.
#[tokio::test]
async fn the_tag_stays_the_same_while_nothing_changes() {
    let app = App::new();
    let tag = followed(&app).await;
    for _ in 0..5 {
        assert_eq!(app.list(DEVICE, TICKET, None).await.unwrap().tag, tag);
    }
}

#[tokio::test]
async fn only_what_this_device_registered_is_listed() {
    let app = App::new();
    for (number, serial) in SERIALS.iter().enumerate() {
        let device = if number % 2 == 0 {
            DEVICE
        } else {
            OTHER_DEVICE
        };
        app.register(device, &ticket(serial)).await;
    }
    let serials: Vec<_> = SERIALS.iter().map(|serial| ticket(serial).serial).collect();
    app.store
        .mark(&type_id(TICKET), Changed::Passes(&serials))
        .await
        .unwrap();
    for (parity, device) in [DEVICE, OTHER_DEVICE].into_iter().enumerate() {
        let mut expected: Vec<&str> = SERIALS.into_iter().skip(parity).step_by(2).collect();
        expected.sort_unstable();
        assert_eq!(app.serials(device, TICKET, None).await, expected);
    }
}

#[tokio::test]
async fn a_pass_registered_later_is_in_the_next_answer_although_it_is_older() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    mark(&app, &["A-1"]).await;
    mark(&app, &["A-2"]).await;
    phone.register(&ticket("A-2")).await;
    phone.list(TICKET).await;
    phone.register(&ticket("A-1")).await;
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
    assert!(phone.list(TICKET).await.is_empty());
}

#[tokio::test]
async fn only_passes_of_the_type_are_listed() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&ticket("A-1")).await;
    phone.register(&coupon("A-1")).await;
    phone.list(TICKET).await;
    phone.list(COUPON).await;
    mark(&app, &["A-1"]).await;
    assert!(phone.list(COUPON).await.is_empty());
    assert_eq!(phone.list(TICKET).await, ["A-1"]);
}

#[tokio::test]
async fn nothing_new_is_204_without_a_body() {
    let app = App::new();
    let tag = followed(&app).await;
    let answer = app
        .send(get(format!(
            "{}?passesUpdatedSince={tag}",
            list_path(DEVICE, TICKET)
        )))
        .await;
    assert_eq!(answer.status, 204);
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header("content-type"), None);
}

#[tokio::test]
async fn unknown_devices_and_types_have_nothing_new() {
    let app = App::new();
    followed(&app).await;
    for (device, type_id) in [
        (OTHER_DEVICE, TICKET),
        ("x", TICKET),
        (DEVICE, COUPON),
        (DEVICE, "pass.com.example.unknown"),
        (DEVICE, "pass.com.example.ticke"),
        (DEVICE, "PASS.com.example.ticket"),
        (DEVICE, "com.example"),
        (DEVICE, "pass."),
        (DEVICE, "x"),
        (DEVICE, "order.com.example.unknown"),
        (DEVICE, "pass.z%C3%BCrich"),
        (DEVICE, "pass.a%2Fb"),
        (DEVICE, "pass.%00"),
    ] {
        for query in [
            "",
            "?passesUpdatedSince=",
            "?passesUpdatedSince=0-0",
            "?passesUpdatedSince=x",
        ] {
            let answer = app
                .send(get(format!("{}{query}", list_path(device, type_id))))
                .await;
            assert_eq!(answer.status, 204, "{device} {type_id} {query}");
        }
    }
}

#[tokio::test]
async fn an_invalid_tag_counts_as_no_tag() {
    let app = App::new();
    let tag = followed(&app).await;
    let very_long = "9".repeat(50_000);
    let mut tags: Vec<String> = [
        "garbage",
        "0",
        "-1",
        "1500000000",
        "99999999999999999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "ffffffffffffffff-ffffffffffffffff",
        "NaN",
        "null",
        "1e9",
        "0x10",
        "2024-01-01T00:00:00+01:00",
        "2024-01-01T00:00:00Z",
        "Fri,%2018%20Sep%202026%2008:00:41%20GMT",
        "%D9%A1%D9%A2",
        "%00",
        "%",
        "%z",
        "%zz",
        "%ff",
        "%C3",
        "'%20OR%201=1--",
        "../../etc",
        "+",
        "-",
        "a-b-c",
        very_long.as_str(),
    ]
    .map(str::to_owned)
    .into();
    // Tags that are almost valid.
    tags.extend([
        format!("{tag}0"),
        format!("{tag}x"),
        format!("{tag}%20"),
        format!("%20{tag}"),
        format!("+{tag}"),
        format!("{tag}-"),
        format!("{tag}%00"),
        format!("0{tag}"),
        tag.to_uppercase(),
    ]);
    for bad in tags.iter().filter(|bad| **bad != tag) {
        assert_eq!(
            app.serials(DEVICE, TICKET, Some(bad)).await,
            ["A-1", "A-2", "A-3"],
            "{bad:.80}"
        );
    }
}

#[tokio::test]
async fn a_tag_of_another_store_counts_as_no_tag() {
    let (older, newer) = (App::new(), App::new());
    let old_tag = followed(&older).await;
    let new_tag = followed(&newer).await;
    // The tag is from the future, as after a backup was restored.
    assert_eq!(
        older.serials(DEVICE, TICKET, Some(&new_tag)).await,
        ["A-1", "A-2", "A-3"]
    );
    // The device registered again in an empty store.
    assert_eq!(
        newer.serials(DEVICE, TICKET, Some(&old_tag)).await,
        ["A-1", "A-2", "A-3"]
    );
}

#[tokio::test]
async fn a_marked_type_in_another_store_has_a_tag_from_the_future() {
    let (restored, lost) = (App::new(), App::new());
    followed(&restored).await;
    followed(&lost).await;
    mark(&lost, &["A-1"]).await;
    let tag = lost.list(DEVICE, TICKET, None).await.unwrap().tag;
    let mut phone_tag = tag.clone();
    for expected in [vec!["A-1", "A-2", "A-3"], vec![]] {
        let listed = restored.list(DEVICE, TICKET, Some(&phone_tag)).await;
        if let Some(listed) = &listed {
            phone_tag.clone_from(&listed.tag);
        }
        assert_eq!(
            listed.map(|listed| listed.serials).unwrap_or_default(),
            expected
        );
    }
}

#[tokio::test]
async fn queries_of_every_kind_are_read() {
    let app = App::new();
    let tag = followed(&app).await;
    let encoded = encode(&tag).replace('-', "%2D");
    for query in [
        format!("?passesUpdatedSince={tag}"),
        format!("?passesUpdatedSince={encoded}"),
        format!("?passesUpdatedSince={tag}&x=1"),
        format!("?x=1&passesUpdatedSince={tag}"),
        format!("?x&&=&passesUpdatedSince={tag}&"),
        format!("?%zz=%ff&passesUpdatedSince={tag}"),
        format!("?passesUpdatedSince={tag}&passesUpdatedSince=garbage"),
        format!("?passesUpdatedSince={tag}&passesUpdatedSince="),
        format!("?ordersModifiedSince=garbage&passesUpdatedSince={tag}"),
    ] {
        assert_eq!(app.list_with(DEVICE, TICKET, &query).await, None, "{query}");
    }
    for query in [
        format!("?passesUpdatedSince=garbage&passesUpdatedSince={tag}"),
        format!("?passesUpdatedSince=&passesUpdatedSince={tag}"),
        format!("?passesupdatedsince={tag}"),
        format!("?xpassesUpdatedSince={tag}"),
        format!("?passesUpdatedSinceX={tag}"),
        format!("?ordersModifiedSince={tag}"),
        format!("?x=passesUpdatedSince={tag}"),
    ] {
        assert!(
            app.list_with(DEVICE, TICKET, &query).await.is_some(),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let app = App::new();
    let tag = followed(&app).await;
    let answer = app
        .send(get(format!("{}/", list_path(DEVICE, TICKET))))
        .await;
    assert_eq!(answer.status, 200);
    let path = format!("{}/?passesUpdatedSince={tag}", list_path(DEVICE, TICKET));
    assert_eq!(app.status(get(path)).await, 204);
}

#[tokio::test]
async fn a_list_is_not_kept_by_proxies() {
    let app = App::new();
    followed(&app).await;
    let answer = app.send(get(list_path(DEVICE, TICKET))).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_serial_number_of_any_text_comes_back_unchanged() {
    let app = App::new();
    for serial in SERIALS {
        app.register(DEVICE, &ticket(serial)).await;
        assert_eq!(app.serials(DEVICE, TICKET, None).await, [serial]);
        app.unregister(DEVICE, &ticket(serial)).await;
    }
}

#[tokio::test]
async fn many_passes_are_listed_at_once() {
    let app = App::new();
    for serial in SERIALS {
        app.register(DEVICE, &ticket(serial)).await;
    }
    assert_eq!(app.serials(DEVICE, TICKET, None).await.len(), SERIALS.len());
}

#[tokio::test]
async fn an_unregistered_pass_does_not_come_back_by_an_update() {
    let app = App::new();
    let tag = followed(&app).await;
    app.unregister(DEVICE, &ticket("A-2")).await;
    mark(&app, &["A-1", "A-2", "A-3"]).await;
    assert_eq!(
        app.serials(DEVICE, TICKET, Some(&tag)).await,
        ["A-1", "A-3"]
    );
}

#[tokio::test]
async fn refused_calls_and_reads_report_nothing() {
    let app = App::new();
    let tag = followed(&app).await;
    assert_eq!(
        app.status(app.register_call(DEVICE, &ticket("A-1"), "bad"))
            .await,
        400
    );
    let stolen = post(registration_path(DEVICE, &ticket("A-1")))
        .authorization(app.authorization(&ticket("A-2")));
    assert_eq!(app.status(stolen.body(push_body(PUSH))).await, 401);
    assert_eq!(
        app.status(delete(registration_path(DEVICE, &ticket("A-1"))))
            .await,
        401
    );
    assert_eq!(app.status(app.get_call(&ticket("A-1"))).await, 200);
    assert_eq!(app.list(DEVICE, TICKET, Some(&tag)).await, None);
}
