//! Tokens that the store knows, but the source of this instance does not.

use passkit_server::{
    AuthToken, Changed, PassId,
    store::{Content, RegistrationStore},
};

use crate::{
    app::{
        Answer, App, DEVICE, PUSH, RequestBuilder, TICKET, latest_path, push_body,
        registration_path, ticket,
    },
    test_store::TestStore,
};

const OLD: &str = "token-of-the-first-year";

fn content(pass: &PassId, digest: Option<u8>, tokens: &[&str]) -> Content {
    Content {
        serial: pass.serial.clone(),
        digest: digest.map(|byte| [byte; 32]),
        tokens: tokens
            .iter()
            .map(|token| AuthToken::new(token).unwrap().digest())
            .collect(),
    }
}

/// Returns a register, a get and an unregister call with a token.
fn calls(pass: &PassId, token: &str) -> [RequestBuilder; 3] {
    [
        RequestBuilder::new("POST", registration_path(DEVICE, pass)).body(push_body(PUSH)),
        RequestBuilder::new("GET", latest_path(pass)),
        RequestBuilder::new("DELETE", registration_path(DEVICE, pass)),
    ]
    .map(|call| call.authorization(format!("ApplePass {token}")))
}

async fn statuses(app: &App<TestStore>, pass: &PassId, token: &str) -> [u16; 3] {
    let [register, get, unregister] = calls(pass, token);
    [
        app.status(register).await,
        app.status(get).await,
        app.status(unregister).await,
    ]
}

async fn app(pass: &PassId, digest: Option<u8>, tokens: &[&str]) -> App<TestStore> {
    let app = App::over(TestStore::default().into());
    let contents = [content(pass, digest, tokens)];
    app.store
        .mark(&pass.type_id, Changed::Contents(&contents))
        .await
        .unwrap();
    app
}

#[tokio::test]
async fn an_earlier_token_is_accepted_where_the_source_has_a_newer_one() {
    let pass = ticket("A-1");
    let app = app(&pass, Some(1), &[OLD]).await;
    let newer = app.desk.token(&pass);
    for token in [OLD, &newer] {
        assert_eq!(
            statuses(&app, &pass, token).await,
            [201, 200, 200],
            "{token}"
        );
    }
    assert_eq!(
        statuses(&app, &pass, "token-of-nobody-at-all").await,
        [401; 3]
    );
    assert_eq!(
        statuses(&app, &ticket("A-2"), OLD).await,
        [401; 3],
        "the token of another pass"
    );
}

#[tokio::test]
async fn a_pass_that_the_source_does_not_have_yet_is_unavailable_and_can_be_unregistered() {
    let pass = ticket("new");
    let app = app(&pass, Some(1), &[OLD]).await;
    assert_eq!(statuses(&app, &pass, OLD).await, [201, 503, 200]);
    let [_, get, _] = calls(&pass, OLD);
    assert_eq!(app.send(get).await.header("retry-after"), Some("30"));
    assert_eq!(
        statuses(&app, &pass, "token-of-nobody-at-all").await,
        [401; 3]
    );
}

#[tokio::test]
async fn a_removed_pass_can_be_unregistered_and_nothing_else() {
    let pass = ticket("gone");
    let app = app(&pass, Some(1), &[OLD]).await;
    let contents = [content(&pass, None, &[])];
    app.store
        .mark(&pass.type_id, Changed::Contents(&contents))
        .await
        .unwrap();
    assert_eq!(statuses(&app, &pass, OLD).await, [401, 401, 200]);

    let withdrawn = ticket("A-1");
    app.store
        .mark(
            &pass.type_id,
            Changed::Contents(&[content(&withdrawn, Some(1), &[OLD])]),
        )
        .await
        .unwrap();
    app.desk.withdraw(&withdrawn);
    assert_eq!(
        statuses(&app, &withdrawn, OLD).await,
        [401, 401, 200],
        "withdrawn by the source"
    );
}

/// An unknown pass and a wrong token cause the same answer and the same store calls.
#[tokio::test]
async fn an_unknown_pass_and_a_wrong_token_ask_the_store_alike() {
    let pass = ticket("A-1");
    let app = app(&pass, Some(1), &[OLD]).await;
    let mut seen: Vec<(u64, Vec<Answer>)> = Vec::new();
    for pass in [
        &pass,
        &ticket("nobody"),
        &ticket("A-2"),
        &PassId::new(TICKET, "nobody/").unwrap(),
    ] {
        app.store.take_calls();
        let mut answers = Vec::new();
        for call in calls(pass, "token-of-nobody-at-all") {
            answers.push(app.send(call).await);
        }
        seen.push((app.store.take_calls(), answers));
    }
    assert_eq!(seen[0].0, 3, "one question for each call");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn the_source_s_own_token_asks_the_store_nothing_more() {
    let pass = ticket("A-1");
    let app = app(&pass, Some(1), &[OLD]).await;
    for call in calls(&pass, &app.desk.token(&pass)) {
        app.store.take_calls();
        app.send(call).await;
        assert_eq!(app.store.take_calls(), 1);
    }
}
