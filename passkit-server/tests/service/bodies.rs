//! Limits on the size and time of bodies, and which bodies are read.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::app::{
    App, DEVICE, PUSH, RequestBuilder, TICKET, coupon, delete, get, latest_path, list_path, post,
    push_body, registration_path, ticket,
};

const REGISTER_LIMIT: usize = 16 * 1024;
const LOG_LIMIT: usize = 256 * 1024;

/// A body of unknown length that arrives in pieces, each after a pause.
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// What happens after the last piece.
    end: End,
}

#[derive(Clone, Copy)]
pub(crate) enum End {
    Regular,
    Never,
    Broken,
}

impl Pieces {
    pub(crate) fn new(pieces: impl IntoIterator<Item = Bytes>, pause: Duration, end: End) -> Self {
        Self {
            left: pieces.into_iter().collect(),
            pause,
            timer: None,
            end,
        }
    }

    /// Splits a body into pieces of a thousand bytes, without pauses.
    fn of(full: &str) -> Self {
        let pieces = full.as_bytes().chunks(1000).map(Bytes::copy_from_slice);
        Self::new(pieces, Duration::ZERO, End::Regular)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left.is_empty() {
            return match self.end {
                End::Regular => Poll::Ready(None),
                End::Never => Poll::Pending,
                End::Broken => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            };
        }
        if !self.pause.is_zero() {
            let pause = self.pause;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// An endless body. It counts how much of it is read.
struct Endless(Arc<AtomicUsize>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const CHUNK: &[u8] = &[b' '; 1024];
        self.0.fetch_add(CHUNK.len(), Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(CHUNK)))))
    }
}

/// A body that must not be read. It declares `.0` bytes.
struct Untouchable(u64);

impl Body for Untouchable {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read");
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// Returns a register body of exactly `length` bytes.
fn register_body(length: usize) -> String {
    let empty = r#"{"pushToken":"00ff","padding":""}"#;
    let body = empty.replace(
        r#""""#,
        &format!("\"{}\"", "x".repeat(length - empty.len())),
    );
    assert_eq!(body.len(), length);
    body
}

/// Returns a log body of exactly `length` bytes, with one message.
fn log_body(length: usize) -> String {
    let body = format!(
        r#"{{"logs":["{}"]}}"#,
        "x".repeat(length - r#"{"logs":[""]}"#.len())
    );
    assert_eq!(body.len(), length);
    body
}

fn register_call(app: &App) -> RequestBuilder {
    post(registration_path(DEVICE, &ticket("A-1"))).authorization(app.authorization(&ticket("A-1")))
}

#[tokio::test]
async fn a_registration_may_have_at_most_16_kib() {
    for (length, expected) in [
        (REGISTER_LIMIT - 1, 201),
        (REGISTER_LIMIT, 201),
        (REGISTER_LIMIT + 1, 413),
        (40_000, 413),
    ] {
        let body = register_body(length);
        let app = App::new();
        assert_eq!(
            app.status(register_call(&app).body(body.clone())).await,
            expected,
            "{length} bytes"
        );
        let registered = app.list(DEVICE, TICKET, None).await.is_some();
        assert_eq!(registered, expected == 201);

        let app = App::new();
        let answer = app
            .send_request(register_call(&app).request_with(Pieces::of(&body)))
            .await;
        assert_eq!(answer.status, expected, "{length} bytes in pieces");
        assert_eq!(
            app.list(DEVICE, TICKET, None).await.is_some(),
            expected == 201
        );
    }
}

#[tokio::test]
async fn a_log_may_have_at_most_256_kib() {
    let app = App::new();
    for (length, expected) in [
        (LOG_LIMIT - 1, 200),
        (LOG_LIMIT, 200),
        (LOG_LIMIT + 1, 413),
        (LOG_LIMIT * 2, 413),
    ] {
        let body = log_body(length);
        let messages = usize::from(expected == 200);
        assert_eq!(
            app.status(post("/v1/log").body(body.clone())).await,
            expected,
            "{length} bytes"
        );
        assert_eq!(app.log.take().len(), messages);
        let answer = app
            .send_request(post("/v1/log").request_with(Pieces::of(&body)))
            .await;
        assert_eq!(answer.status, expected, "{length} bytes in pieces");
        assert_eq!(app.log.take().len(), messages);
    }
}

#[tokio::test]
async fn an_endless_body_is_not_read_far_beyond_the_limit() {
    let app = App::new();
    for (call, limit) in [
        (register_call(&app), REGISTER_LIMIT),
        (post("/v1/log"), LOG_LIMIT),
    ] {
        let taken = Arc::new(AtomicUsize::new(0));
        let answer = app
            .send_request(call.request_with(Endless(taken.clone())))
            .await;
        assert_eq!(answer.status, 413);
        assert!(taken.load(Ordering::SeqCst) <= limit + 4096);
    }
}

#[tokio::test]
async fn a_body_with_too_large_a_declared_length_is_not_read() {
    let app = App::new();
    for (call, limit) in [
        (register_call(&app), REGISTER_LIMIT),
        (post("/v1/log"), LOG_LIMIT),
    ] {
        for length in [limit as u64 + 1, 1 << 40, u64::MAX] {
            let answer = app
                .send_request(call.clone().request_with(Untouchable(length)))
                .await;
            assert_eq!(answer.status, 413);
        }
    }
}

#[tokio::test]
async fn bodies_are_not_read_without_credentials() {
    let app = App::new();
    let path = registration_path(DEVICE, &ticket("A-1"));
    for length in [10, 1 << 40] {
        let bare = post(&path).request_with(Untouchable(length));
        assert_eq!(app.send_request(bare).await.status, 401);
        let wrong = post(&path).authorization(app.authorization(&coupon("A-1")));
        assert_eq!(
            app.send_request(wrong.request_with(Untouchable(length)))
                .await
                .status,
            401
        );
    }
}

#[tokio::test]
async fn calls_without_a_body_do_not_read_one() {
    let app = App::new();
    let opened = app.authorization(&ticket("A-1"));
    for (call, expected) in [
        (get(latest_path(&ticket("A-1"))).authorization(&opened), 200),
        (get(list_path(DEVICE, TICKET)), 204),
        (
            delete(registration_path(DEVICE, &ticket("A-1"))).authorization(&opened),
            200,
        ),
        (get("/v1/log"), 405),
        (post("/v1/nothing"), 404),
        (post("/v1/passes/%zz/x"), 405),
    ] {
        let answer = app
            .send_request(call.request_with(Untouchable(1 << 40)))
            .await;
        assert_eq!(answer.status, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_408_after_ten_seconds() {
    let app = App::new();
    for call in [register_call(&app), post("/v1/log")] {
        for pieces in [vec![], vec![Bytes::from("{\"pushTo")]] {
            let start = Instant::now();
            let body = Pieces::new(pieces, Duration::ZERO, End::Never);
            let answer = app.send_request(call.clone().request_with(body)).await;
            assert_eq!(answer.status, 408);
            let taken = start.elapsed();
            assert!(
                (Duration::from_secs(9)..=Duration::from_secs(11)).contains(&taken),
                "{taken:?}"
            );
        }
    }
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    assert!(app.log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_gets_no_more_time() {
    let app = App::new();
    let body = push_body(PUSH);
    let bytes = || body.bytes().map(|byte| Bytes::from(vec![byte]));
    let start = Instant::now();
    let slow = Pieces::new(bytes(), Duration::from_secs(1), End::Regular);
    assert_eq!(
        app.send_request(register_call(&app).request_with(slow))
            .await
            .status,
        408
    );
    assert!(start.elapsed() <= Duration::from_secs(11));
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);

    let patient = Pieces::new(bytes(), Duration::from_millis(50), End::Regular);
    assert_eq!(
        app.send_request(register_call(&app).request_with(patient))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    let app = App::new();
    let pieces = [Bytes::from(push_body(PUSH))];
    let body = Pieces::new(pieces.clone(), Duration::ZERO, End::Broken);
    assert_eq!(
        app.send_request(register_call(&app).request_with(body))
            .await
            .status,
        400
    );
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    let body = Pieces::new(pieces, Duration::ZERO, End::Broken);
    app.send_request(post("/v1/log").request_with(body)).await;
    assert!(app.log.take().is_empty());
}

/// A connection that closes in the middle drops the future of the request.
#[tokio::test]
async fn a_dropped_request_changes_nothing() {
    let app = App::new();
    let body = Pieces::new([Bytes::from("{\"pushToken\":")], Duration::ZERO, End::Never);
    let request = register_call(&app).request_with(body);
    let mut answer = Box::pin(app.open(request));
    let waiting = std::future::poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx).is_pending()));
    assert!(waiting.await);
    drop(answer);
    assert_eq!(app.list(DEVICE, TICKET, None).await, None);
    assert_eq!(app.register(DEVICE, &ticket("A-1")).await, 201);
}
