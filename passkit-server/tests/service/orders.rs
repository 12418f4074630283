//! Orders. They have the same rules as passes, under other names.

use crate::{
    app::{App, DEVICE, PUSH, SHOP, get, latest_path, list_path, order, registration_path, ticket},
    phone::Phone,
};

#[tokio::test]
async fn an_order_of_a_payment_is_fetched_first_and_registered_then() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    assert_eq!(phone.fetch(&order("O1")).await, 200);
    assert_eq!(phone.register(&order("O1")).await, 201);
    assert_eq!(phone.list(SHOP).await, ["O1"]);
    assert_eq!(phone.fetch(&order("O1")).await, 304);
}

#[tokio::test]
async fn an_order_is_updated() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.fetch(&order("O1")).await;
    phone.register(&order("O1")).await;
    phone.list(SHOP).await;
    app.publish(&order("O1"), "shipped").await;
    assert_eq!(phone.list(SHOP).await, ["O1"]);
    assert_eq!(phone.fetch(&order("O1")).await, 200);
    assert_eq!(phone.content(&order("O1")), Some("shipped"));
    assert_eq!(phone.fetch(&order("O1")).await, 304);
    assert!(phone.list(SHOP).await.is_empty());
}

#[tokio::test]
async fn an_order_is_unregistered_twice() {
    let app = App::new();
    let phone = Phone::new(&app, DEVICE);
    phone.register(&order("O1")).await;
    phone.register(&order("O2")).await;
    for _ in 0..2 {
        assert_eq!(phone.unregister(&order("O1")).await, 200);
        assert_eq!(app.serials(DEVICE, SHOP, None).await, ["O2"]);
    }
}

#[tokio::test]
async fn the_scheme_of_passes_does_not_open_an_order() {
    let app = App::new();
    let authorization = format!("ApplePass {}", app.desk.token(&order("O1")));
    for method in ["POST", "DELETE"] {
        let call = crate::app::RequestBuilder::new(method, registration_path(DEVICE, &order("O1")));
        assert_eq!(app.status(call.authorization(&authorization)).await, 401);
    }
    let answer = app
        .send(get(latest_path(&order("O1"))).authorization(&authorization))
        .await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some("AppleOrder"))
    );
}

#[tokio::test]
async fn passes_are_not_fetched_as_orders_nor_orders_as_passes() {
    let app = App::new();
    let order_token = app.desk.token(&order("O1"));
    let pass_token = app.desk.token(&ticket("A-1"));
    for scheme in ["ApplePass", "AppleOrder"] {
        let call =
            get(format!("/v1/passes/{SHOP}/O1")).authorization(format!("{scheme} {order_token}"));
        assert_eq!(app.status(call).await, 401);
        let call = get(format!("/v1/orders/{}/A-1", ticket("A-1").type_id));
        assert_eq!(
            app.status(call.authorization(format!("{scheme} {pass_token}")))
                .await,
            401
        );
    }
    assert_eq!(app.desk.archives_asked(), 0);
}

#[tokio::test]
async fn the_list_has_the_keys_of_orders() {
    let app = App::new();
    app.register(DEVICE, &order("O1")).await;
    let json = app.send(get(list_path(DEVICE, SHOP))).await.json();
    let tag = json["lastModified"].as_str().unwrap();
    assert_eq!(json["orderIdentifiers"], serde_json::json!(["O1"]));
    assert_eq!(json.as_object().unwrap().len(), 2);
    let since = |name: &str| format!("{}?{name}={tag}", list_path(DEVICE, SHOP));
    assert_eq!(app.status(get(since("ordersModifiedSince"))).await, 204);
    assert_eq!(
        app.status(get(since("passesUpdatedSince"))).await,
        200,
        "that is another's parameter"
    );
    assert_eq!(
        app.status(get(since("ordersModifiedSince").replace(tag, "")))
            .await,
        200
    );
    assert_eq!(
        app.status(get(since("ordersModifiedSince").replace(tag, "%zz")))
            .await,
        200
    );
}

#[tokio::test]
async fn the_media_type_is_that_of_orders() {
    let app = App::new();
    let answer = app.send(app.get_call(&order("O1"))).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.apple.finance.order")
    );
}

#[tokio::test]
async fn one_device_may_have_both() {
    let app = App::new();
    let mut phone = Phone::new(&app, DEVICE);
    phone.register(&order("O1")).await;
    phone.register(&ticket("A-1")).await;
    let passes = ticket("A-1").type_id;
    assert_eq!(phone.list(SHOP).await, ["O1"]);
    assert_eq!(phone.list(passes.as_str()).await, ["A-1"]);
    app.mark_all(SHOP).await;
    assert!(phone.list(passes.as_str()).await.is_empty());
    assert_eq!(phone.list(SHOP).await, ["O1"]);
    assert_eq!(
        app.devices_of(&order("O1")).await,
        [(DEVICE.to_owned(), PUSH.to_owned())]
    );
}
