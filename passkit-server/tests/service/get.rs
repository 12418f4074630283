//! Fetching the newest version.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    store::{MemoryStore, RegistrationStore},
};
use tower::ServiceExt;

use crate::{
    app::{
        App, Content, RequestBuilder, SERIALS, coupon, get, head, latest_path, now_seconds, order,
        ticket,
    },
    phone::Phone,
    test_store::TestStore,
};

/// Friday, 14 July 2017, 02:40:00.
const DATE: u64 = 1_500_000_000;
const DATE_TEXT: &str = "Fri, 14 Jul 2017 02:40:00 GMT";

fn dated(version: u64, last_modified: u64) -> App<TestStore> {
    let app = App::over(Arc::new(TestStore::default()));
    app.store.pin(version, last_modified);
    app
}

fn seconds(date: &str) -> u64 {
    httpdate::parse_http_date(date)
        .unwrap()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test]
async fn the_archive_comes_with_type_length_date_and_tag() {
    let app = dated(7, DATE);
    let answer = app.send(app.get_call(&ticket("A-1"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, "first version of pass.com.example.ticket A-1");
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.apple.pkpass")
    );
    assert_eq!(
        answer.header("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
    assert_eq!(answer.header("last-modified"), Some(DATE_TEXT));
    let etag = answer.header("etag").unwrap();
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2,
        "strong: {etag}"
    );
}

#[tokio::test]
async fn caches_may_not_hand_a_pass_to_another_holder() {
    let app = App::new();
    let answer = app.send(app.get_call(&ticket("A-1"))).await;
    let control = answer.header("cache-control").expect("Cache-Control");
    assert!(
        control.contains("private") || control.contains("no-store"),
        "{control}"
    );
}

#[tokio::test]
async fn every_pass_and_order_has_its_own_archive() {
    let app = App::new();
    for pass in SERIALS
        .iter()
        .flat_map(|serial| [ticket(serial), coupon(serial)])
        .chain([order("O1")])
    {
        let answer = app.send(app.get_call(&pass)).await;
        assert_eq!(
            (answer.status, answer.body.as_ref()),
            (200, format!("first version of {pass}").as_bytes())
        );
    }
}

#[tokio::test]
async fn it_works_without_a_registration() {
    let app = App::new();
    assert_eq!(app.status(app.get_call(&ticket("A-1"))).await, 200);
    assert_eq!(app.devices_of(&ticket("A-1")).await, []);
}

#[tokio::test]
async fn the_date_of_a_version_stays_the_same() {
    let app = App::new();
    let first = app.send(app.get_call(&ticket("A-1"))).await;
    let start = now_seconds();
    while now_seconds() == start {
        let next = app.send(app.get_call(&ticket("A-1"))).await;
        assert_eq!(next, first);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(app.send(app.get_call(&ticket("A-1"))).await, first);
}

#[tokio::test]
async fn echoing_the_date_is_304_until_the_pass_changes() {
    let app = App::over(Arc::new(TestStore::backdated(1000)));
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, "D");
    assert_eq!(phone.fetch(&pass).await, 200);
    for version in 0..20 {
        assert_eq!(phone.fetch(&pass).await, 304, "{version}");
        assert_eq!(phone.fetch(&pass).await, 304, "{version}");
        app.publish(&pass, &format!("version {version}")).await;
        assert_eq!(phone.fetch(&pass).await, 200, "{version}");
        assert_eq!(
            phone.content(&pass),
            Some(format!("version {version}").as_str())
        );
    }
}

/// Dates have whole seconds, so the second update gets the date of the next second.
#[tokio::test]
async fn two_updates_within_a_second_are_both_fetched_and_each_is_304_from_then_on() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, "D");
    let mut dates = HashSet::new();
    assert_eq!(
        (phone.fetch(&pass).await, phone.fetch(&pass).await),
        (200, 304)
    );
    for content in ["second", "third"] {
        app.publish(&pass, content).await;
        assert_eq!(phone.fetch(&pass).await, 200);
        assert_eq!(phone.content(&pass), Some(content));
        assert!(
            dates.insert(phone.date(&pass).unwrap().to_owned()),
            "no two versions share a date"
        );
        assert_eq!(
            (phone.fetch(&pass).await, phone.fetch(&pass).await),
            (304, 304)
        );
    }
}

/// The dates of these versions are in the future. An answer gives another date instead, which must
/// not hide a version.
#[tokio::test]
async fn many_updates_within_a_second_are_never_answered_304_wrongly() {
    let app = App::new();
    let pass = ticket("A-1");
    let mut phone = Phone::new(&app, "D");
    phone.fetch(&pass).await;
    for _ in 0..10 {
        app.publish(&pass, "between").await;
    }
    for version in 0..100 {
        let content = format!("version {version}");
        app.publish(&pass, &content).await;
        assert_eq!(phone.fetch(&pass).await, 200);
        assert_eq!(phone.content(&pass), Some(content.as_str()));
        assert!(matches!(phone.fetch(&pass).await, 200 | 304));
    }
}

#[tokio::test]
async fn an_update_of_another_pass_leaves_the_date_alone() {
    let app = App::over(Arc::new(TestStore::backdated(1000)));
    let mut phone = Phone::new(&app, "D");
    phone.fetch(&ticket("A-1")).await;
    for pass in [ticket("A-2"), coupon("A-1"), order("O1")] {
        app.publish(&pass, "new").await;
    }
    assert_eq!(phone.fetch(&ticket("A-1")).await, 304);
    app.mark_all(crate::app::COUPON).await;
    assert_eq!(phone.fetch(&ticket("A-1")).await, 304);
    app.mark_all(crate::app::TICKET).await;
    assert_eq!(phone.fetch(&ticket("A-1")).await, 200);
}

#[tokio::test]
async fn the_date_is_never_later_than_now() {
    for ahead in [1, 60, 86_400 * 400] {
        let state = now_seconds() + ahead;
        let app = dated(7, state);
        let answer = app.send(app.get_call(&ticket("A-1"))).await;
        let date = answer.header("last-modified").unwrap();
        assert!(seconds(date) <= now_seconds(), "{date}");
        let echo = app
            .get_call(&ticket("A-1"))
            .header("if-modified-since", date);
        assert_eq!(app.status(echo).await, 304, "{date}");
    }
}

#[tokio::test]
async fn a_refused_head_has_no_body() {
    let app = App::new();
    let opened = app.authorization(&ticket("A-1"));
    for path in [
        format!("/v1/passes/{}/%zz", crate::app::TICKET),
        "/v1/passes/%ff/A-1".to_owned(),
        crate::app::list_path("%zz", crate::app::TICKET),
        crate::app::list_path("a%20b", crate::app::TICKET),
    ] {
        for authorization in [opened.as_str(), ""] {
            let answer = app.send(head(&path).authorization(authorization)).await;
            assert!(matches!(answer.status, 204 | 400 | 401), "{path}");
            assert!(answer.body.is_empty(), "{path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn extreme_versions_and_dates_are_answered() {
    for (version, last_modified) in [
        (0, 0),
        (u64::MAX, u64::MAX),
        (1, 253_402_300_800),
        (1, i64::MAX as u64),
    ] {
        let app = dated(version, last_modified);
        let answer = app.send(app.get_call(&ticket("A-1"))).await;
        assert_eq!(answer.status, 200);
        assert!(seconds(answer.header("last-modified").unwrap()) <= now_seconds());
        let echo = app
            .get_call(&ticket("A-1"))
            .header("if-none-match", answer.header("etag").unwrap());
        assert_eq!(app.status(echo).await, 304);
    }
}

#[tokio::test]
async fn all_three_http_date_forms_are_read() {
    let app = dated(7, DATE);
    for (date, expected) in [
        (DATE_TEXT, 304),
        ("Friday, 14-Jul-17 02:40:00 GMT", 304),
        ("Fri Jul 14 02:40:00 2017", 304),
        ("Fri, 14 Jul 2017 02:40:01 GMT", 304),
        ("Friday, 14-Jul-17 02:40:01 GMT", 304),
        ("Fri Jul 14 02:40:01 2017", 304),
        // This service can't have sent such a date.
        ("Sat, 01 Jan 2050 00:00:00 GMT", 200),
        ("Fri, 14 Jul 2017 02:39:59 GMT", 200),
        ("Friday, 14-Jul-17 02:39:59 GMT", 200),
        ("Fri Jul 14 02:39:59 2017", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
    ] {
        let call = app
            .get_call(&ticket("A-1"))
            .header("if-modified-since", date);
        assert_eq!(app.status(call).await, expected, "{date}");
    }
}

#[tokio::test]
async fn text_that_is_not_a_date_is_ignored() {
    let app = dated(7, DATE);
    for garbage in [
        "",
        " ",
        "garbage",
        "0",
        "1500000000",
        "1500000000.0",
        "99999999999",
        "-1",
        "2017-07-14T02:40:00Z",
        "2017-07-14 02:40:00 +0000",
        "Fri, 14 Jul 2017 02:40:00 +0200",
        "Fri, 14 Jul 2017 02:40:00 CEST",
        "Fri, 14 Jul 2017 02:40:00",
        "Fri, 32 Jul 2017 02:40:00 GMT",
        "Fri, 14 Foo 2017 02:40:00 GMT",
        "Fri, 14 Jul 2017 25:40:00 GMT",
        "Fri, 14 Jul 20170 02:40:00 GMT",
        "Fri, 14 Jul 2017 02:40:00 GMT, Fri, 14 Jul 2017 02:40:00 GMT",
        "(null)",
        "*",
    ] {
        let call = app
            .get_call(&ticket("A-1"))
            .header("if-modified-since", garbage);
        assert_eq!(app.status(call).await, 200, "{garbage:?}");
    }
    let call = app
        .get_call(&ticket("A-1"))
        .header("if-modified-since", b"\xff\xfe");
    assert_eq!(app.status(call).await, 200);
}

#[tokio::test]
async fn a_304_repeats_the_date_and_never_asks_for_the_archive() {
    let app = dated(7, DATE);
    let full = app.send(app.get_call(&ticket("A-1"))).await;
    assert_eq!(app.desk.archives_asked(), 1);
    for method in ["GET", "HEAD"] {
        for (name, value) in [
            ("if-modified-since", DATE_TEXT),
            ("if-none-match", full.header("etag").unwrap()),
        ] {
            let call = RequestBuilder::new(method, latest_path(&ticket("A-1")));
            let call = call
                .authorization(app.authorization(&ticket("A-1")))
                .header(name, value);
            let answer = app.send(call).await;
            assert_eq!(answer.status, 304, "{method} {name}");
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("last-modified"), Some(DATE_TEXT));
            assert_eq!(answer.header("etag"), full.header("etag"));
            assert_eq!(answer.header("content-type"), None);
        }
    }
    assert_eq!(app.desk.archives_asked(), 1);
}

#[tokio::test]
async fn a_304_works_while_the_archive_is_unavailable() {
    let app = dated(7, DATE);
    app.desk.fail_archive(true);
    let call = app
        .get_call(&ticket("A-1"))
        .header("if-modified-since", DATE_TEXT);
    assert_eq!(app.status(call).await, 304);
}

#[tokio::test]
async fn a_401_takes_precedence_over_a_304() {
    let app = dated(7, DATE);
    let etag = app
        .send(app.get_call(&ticket("A-1")))
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    for authorization in [
        None,
        Some(app.authorization(&ticket("A-2"))),
        Some("Bearer x".to_owned()),
    ] {
        let bare = get(latest_path(&ticket("A-1")));
        let bare = authorization
            .iter()
            .fold(bare, |call, value| call.authorization(value));
        let plain = app.send(bare.clone()).await;
        assert_eq!(plain.status, 401);
        let conditions = [
            ("if-modified-since", DATE_TEXT),
            ("if-none-match", etag.as_str()),
            ("if-none-match", "*"),
        ];
        for (name, value) in conditions {
            assert_eq!(
                app.send(bare.clone().header(name, value)).await,
                plain,
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn an_entity_tag_decides_before_a_date() {
    let app = dated(7, DATE);
    let etag = app
        .send(app.get_call(&ticket("A-1")))
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    let weak = format!("W/{etag}");
    let among = format!("\"x\", {etag} , \"y\"");
    let old_date = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (tag, date, expected) in [
        (etag.as_str(), None, 304),
        (weak.as_str(), None, 304),
        (among.as_str(), None, 304),
        ("*", None, 304),
        (etag.as_str(), Some(old_date), 304),
        ("\"other\"", None, 200),
        ("\"other\"", Some(DATE_TEXT), 200),
        ("", Some(DATE_TEXT), 200),
        (etag.trim_matches('"'), None, 200),
        ("\"\"", None, 200),
    ] {
        let call = app.get_call(&ticket("A-1")).header("if-none-match", tag);
        let call = date
            .into_iter()
            .fold(call, |call, date| call.header("if-modified-since", date));
        assert_eq!(app.status(call).await, expected, "{tag} {date:?}");
    }
    let call = app
        .get_call(&ticket("A-1"))
        .header("if-none-match", "\"x\"")
        .header("if-none-match", &etag);
    assert_eq!(
        app.status(call).await,
        304,
        "in a second header of the name"
    );
    let call = app
        .get_call(&ticket("A-1"))
        .header("if-none-match", b"\xff\"");
    assert_eq!(app.status(call).await, 200);
}

#[tokio::test]
async fn the_entity_tag_differs_with_every_update() {
    let app = App::over(Arc::new(TestStore::backdated(1000)));
    let pass = ticket("A-1");
    let mut seen = HashSet::new();
    for version in 0..50 {
        let answer = app.send(app.get_call(&pass)).await;
        let etag = answer.header("etag").unwrap().to_owned();
        let echo = || app.get_call(&pass).header("if-none-match", &etag);
        assert_eq!(app.status(echo()).await, 304);
        app.publish(&pass, &format!("version {version}")).await;
        assert_eq!(app.status(echo()).await, 200);
        assert!(seen.insert(etag));
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_a_get_and_no_body() {
    let app = App::new();
    let content = Content::Stream(6, vec![Some("abc".into()), Some("def".into())]);
    app.desk.set_content(&ticket("A-2"), content);
    for pass in [ticket("A-1"), ticket("A-2"), order("O1")] {
        let full = app.send(app.get_call(&pass)).await;
        let call = head(latest_path(&pass)).authorization(app.authorization(&pass));
        let answer = app.send(call).await;
        assert_eq!(
            (answer.status, answer.headers),
            (200, full.headers),
            "{pass}"
        );
    }
}

#[tokio::test]
async fn a_streamed_archive_arrives_complete() {
    let app = App::new();
    let chunks = ["one ", "", "two ", "three"]
        .map(|chunk| Some(chunk.into()))
        .into();
    app.desk
        .set_content(&ticket("A-1"), Content::Stream(13, chunks));
    let answer = app.send(app.get_call(&ticket("A-1"))).await;
    assert_eq!(
        (answer.status, answer.body.as_ref()),
        (200, &b"one two three"[..])
    );
    assert_eq!(answer.header("content-length"), Some("13"));
}

#[tokio::test]
async fn a_stream_that_does_not_keep_its_length_ends_in_an_error() {
    use http_body_util::BodyExt;
    let app = App::new();
    let chunk = |text: &'static str| Some(bytes::Bytes::from(text));
    for (what, length, chunks) in [
        ("empty", 6, vec![]),
        ("too short", 6, vec![chunk("abc")]),
        ("too long", 6, vec![chunk("abc"), chunk("defg")]),
        (
            "too long by a chunk",
            6,
            vec![chunk("abc"), chunk("def"), chunk("g")],
        ),
        ("not empty", 0, vec![chunk("a")]),
        ("broken at once", 6, vec![None]),
        ("broken half way", 6, vec![chunk("abc"), None, chunk("def")]),
        (
            "broken at the end",
            6,
            vec![chunk("abc"), chunk("def"), None],
        ),
    ] {
        app.desk
            .set_content(&ticket("A-1"), Content::Stream(length, chunks));
        let answer = app.open(app.get_call(&ticket("A-1")).request()).await;
        assert!(answer.into_body().collect().await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn an_archive_that_was_removed_meanwhile_is_refused_like_an_unknown_pass() {
    let app = App::new();
    app.desk.set_content(&ticket("A-1"), Content::Gone);
    let gone = app.send(app.get_call(&ticket("A-1"))).await;
    let wrong = get(latest_path(&ticket("A-1"))).authorization(app.authorization(&ticket("A-2")));
    assert_eq!(gone, app.send(wrong).await);
    assert_eq!(gone.status, 401);
}

/// A source whose pass changes while its archive is being read.
struct ChangesMeanwhile(Arc<TestStore>, AuthToken);

#[async_trait]
impl PassSource for ChangesMeanwhile {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Some(Credentials::from(&self.1)))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let read = ArchiveBody::from(bytes::Bytes::from("old content"));
        self.0
            .mark(
                &pass.type_id,
                Changed::Passes(std::slice::from_ref(&pass.serial)),
            )
            .await?;
        Ok(Some(read))
    }
}

/// A phone would keep old content under a new date forever.
#[tokio::test]
async fn content_that_changes_while_it_is_read_goes_out_under_the_old_date() {
    let store = Arc::new(TestStore::backdated(1000));
    let token = AuthToken::new("token-of-any-pass").unwrap();
    let service = WalletService::new(store.clone(), ChangesMeanwhile(store, token));
    let call = || get(latest_path(&ticket("A-1"))).authorization("ApplePass token-of-any-pass");
    let answer = service.clone().oneshot(call().request()).await.unwrap();
    for (name, echo) in [
        ("if-modified-since", "last-modified"),
        ("if-none-match", "etag"),
    ] {
        let call = call().header(name, &answer.headers()[echo]);
        assert_eq!(
            service
                .clone()
                .oneshot(call.request())
                .await
                .unwrap()
                .status(),
            200,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_pass_that_was_never_marked_keeps_its_date() {
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let app = App::over(Arc::new(MemoryStore::new()));
    let answer = app.send(app.get_call(&ticket("A-1"))).await;
    let date = seconds(answer.header("last-modified").unwrap());
    assert!((created..=created + 1).contains(&date));
    let echo = app
        .get_call(&ticket("A-1"))
        .header("if-modified-since", answer.header("last-modified").unwrap());
    assert_eq!(app.status(echo).await, 304);
}

#[tokio::test]
async fn a_head_has_the_length_and_does_not_read_the_archive() {
    let app = dated(7, DATE);
    let full = app.send(app.get_call(&ticket("A-1"))).await;
    let asked = app.desk.archives_asked();
    let head = head(latest_path(&ticket("A-1"))).authorization(app.authorization(&ticket("A-1")));
    let answer = app.send(head).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-length"),
        full.header("content-length")
    );
    assert_eq!(app.desk.archives_asked(), asked);
}
