//! Tests with a silent peer, and tests of days that move the clock forward.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use passkit_apns::{ApnsSender, Identity};
use passkit_server::push::PushOutcome;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    time::Instant,
};
use tracing::{Subscriber, field::Visit, span};

use crate::{TOPIC, apns, assert_no_violations, config, identity, push, topic};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A proxy. After [`swallow`](Self::swallow), it drops everything that the existing connections send.
struct Gate {
    port: u16,
    swallow: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Gate {
    async fn before(port: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            swallow: Mutex::default(),
        });
        let swallow = Arc::clone(&gate);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let swallows = Arc::new(AtomicBool::new(false));
                swallow.swallow.lock().unwrap().push(Arc::clone(&swallows));
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(pass_on(from_client, to_server, Arc::clone(&swallows)));
                tokio::spawn(pass_on(from_server, to_client, swallows));
            }
        });
        gate
    }

    fn swallow(&self) {
        self.swallow
            .lock()
            .unwrap()
            .iter()
            .for_each(|swallows| swallows.store(true, Ordering::SeqCst));
    }
}

/// Forwards bytes. While the gate swallows, it also drops the end of the stream, so the connection
/// stays open.
async fn pass_on(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    swallows: Arc<AtomicBool>,
) {
    let mut bytes = [0; 4096];
    while let Ok(length) = from.read(&mut bytes).await {
        if swallows.load(Ordering::SeqCst) {
            if length == 0 {
                std::future::pending::<()>().await;
            }
        } else if length == 0 || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Moves the clock forward. Timers that are due in between run.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

/// Moves the clock forward in one step, so that timers in between run late.
async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_dead_peer_is_noticed_before_the_next_push() {
    let apns = apns().await;
    let gate = Gate::before(apns.port()).await;
    let config = config(&apns)
        .endpoint(apns.host(), gate.port)
        .identity(identity(&apns))
        .connections(1);
    let sender = ApnsSender::new(config.check_interval(100 * DAY)).unwrap();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);

    // The connection is kept while the peer answers.
    for _ in 0..3 {
        later(Duration::from_secs(50)).await;
        assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    }
    assert_eq!(apns.connections(), 1);

    gate.swallow();
    later(Duration::from_secs(81)).await;
    let begun = Instant::now();
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "no push waited for the dead connection"
    );
    assert_eq!(apns.connections(), 2);
    assert_no_violations(&apns);
}

/// Collects warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("passkit_apns")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Warnings {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn a_warning_is_logged_daily_in_the_last_thirty_days_of_a_certificate() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let apns = apns().await;
    let now = SystemTime::now();
    let sender = |good_for: Duration| {
        let issued = apns.issue_for(TOPIC, now - DAY, now + good_for).unwrap();
        let identity = Identity::from_pem(
            &topic(),
            issued.certificate.as_bytes(),
            issued.key.as_bytes(),
        );
        ApnsSender::new(
            config(&apns)
                .identity(identity.unwrap())
                .check_interval(Duration::ZERO),
        )
        .unwrap()
    };

    let fresh = sender(30 * DAY + HOUR);
    assert_eq!(push(&fresh, "c0ffee").await, PushOutcome::Sent);
    assert_eq!(warnings.take(), Vec::<String>::new());

    let old = sender(30 * DAY - HOUR);
    let warned = warnings.take();
    let date = httpdate::fmt_http_date(now + 30 * DAY - HOUR);
    let [only] = &warned[..] else {
        panic!("{warned:?}")
    };
    assert!(
        only.contains(TOPIC) && only.contains(&format!("expires on {date}")),
        "{only}"
    );
    for day in 1..=2 {
        for hours in [0, 12, 11] {
            skip(hours * HOUR).await;
            assert_eq!(push(&old, "c0ffee").await, PushOutcome::Sent);
        }
        assert_eq!(warnings.take(), Vec::<String>::new(), "once on day {day}");
        skip(2 * HOUR).await;
        assert_eq!(push(&old, "c0ffee").await, PushOutcome::Sent);
        assert_eq!(warnings.take(), warned, "on day {day}");
    }
}
