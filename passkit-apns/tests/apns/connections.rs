use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_apns::{
    ApnsSender, Config,
    local::{Answer, LocalApns, Options},
};
use passkit_server::push::PushOutcome;
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinSet};

use crate::{apns, assert_no_violations, config, identity, push, sender, until};

/// Sends pushes to `count` tokens at once.
async fn push_all(sender: &Arc<ApnsSender>, count: usize) -> Vec<PushOutcome> {
    let mut pushes = JoinSet::new();
    for number in 0..count {
        let sender = Arc::clone(sender);
        pushes.spawn(async move { push(&sender, &format!("{number:08x}")).await });
    }
    pushes.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pushes_share_two_connections() {
    let apns = LocalApns::start(Options::new().max_concurrent_streams(50))
        .await
        .unwrap();
    let sender = Arc::new(sender(&apns));
    let outcomes = push_all(&sender, 1_000).await;
    assert!(outcomes.iter().all(|outcome| *outcome == PushOutcome::Sent));
    assert_eq!(apns.connections(), 2);
    assert_eq!(apns.pushes().len(), 1_000);
    assert_no_violations(&apns);
}

#[tokio::test]
async fn a_limit_of_one_stream_is_respected() {
    let apns = LocalApns::start(Options::new().max_concurrent_streams(1))
        .await
        .unwrap();
    let sender = ApnsSender::new(config(&apns).identity(identity(&apns)).connections(1)).unwrap();
    let outcomes = push_all(&Arc::new(sender), 50).await;
    assert!(
        outcomes.iter().all(|outcome| *outcome == PushOutcome::Sent),
        "{outcomes:?}"
    );
    assert_eq!(apns.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_a_goaway_left_unanswered_are_sent_again() {
    let apns = LocalApns::start(Options::new().max_concurrent_streams(50))
        .await
        .unwrap();
    let sender = Arc::new(sender(&apns));
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    // 20 pushes still wait for an answer when GOAWAY is sent.
    apns.answer_next(20, Answer::accept().after(Duration::from_millis(200)));
    apns.answer_next(1, Answer::go_away("Shutdown"));
    let outcomes = push_all(&sender, 200).await;
    assert!(
        outcomes.iter().all(|outcome| *outcome == PushOutcome::Sent),
        "{outcomes:?}"
    );
    assert_eq!(apns.connections(), 3);
    assert_no_violations(&apns);
}

#[tokio::test]
async fn a_push_that_lost_its_connection_is_sent_once_more() {
    for answer in [
        Answer::go_away("x"),
        Answer::close(),
        Answer::reset(),
        Answer::refuse(400, "IdleTimeout"),
    ] {
        let apns = apns().await;
        let sender = sender(&apns);
        apns.answer_next(1, answer.clone());
        assert_eq!(
            push(&sender, "c0ffee").await,
            PushOutcome::Sent,
            "{answer:?}"
        );
        assert_eq!(
            (apns.connections(), apns.pushes().len()),
            (2, 2),
            "{answer:?}"
        );

        apns.answer_next(2, answer.clone());
        let outcome = push(&sender, "c0ffee").await;
        assert!(
            matches!(outcome, PushOutcome::Unreachable(_)),
            "{answer:?}: {outcome:?}"
        );
        assert_eq!(apns.pushes().len(), 4, "{answer:?}");
    }
}

#[tokio::test]
async fn the_reason_of_a_goaway_is_reported() {
    let apns = apns().await;
    let sender = sender(&apns);
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    apns.answer_token("c0ffee", Answer::go_away("BadWeather"));
    let outcome = push(&sender, "c0ffee").await;
    assert!(
        matches!(&outcome, PushOutcome::Unreachable(why) if why.contains("BadWeather")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn after_shutdown_a_new_connection_is_opened() {
    let apns = apns().await;
    let sender = ApnsSender::new(config(&apns).identity(identity(&apns)).connections(1)).unwrap();
    apns.answer_next(1, Answer::refuse(503, "Shutdown"));
    assert_eq!(
        push(&sender, "c0ffee").await,
        PushOutcome::Unavailable("Shutdown".into())
    );
    assert_eq!(apns.connections(), 1);
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
    assert_eq!(apns.connections(), 2);
}

#[tokio::test]
async fn a_push_without_an_answer_times_out() {
    let apns = apns().await;
    let timeout = Duration::from_secs(5);
    let config = config(&apns)
        .identity(identity(&apns))
        .connections(1)
        .request_timeout(timeout);
    let sender = Arc::new(ApnsSender::new(config).unwrap());
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
    apns.answer_token("c0ffee", Answer::stall());

    // Another push on the same connection is answered meanwhile, so the connection is kept.
    let stalled = tokio::spawn({
        let sender = Arc::clone(&sender);
        async move { push(&sender, "c0ffee").await }
    });
    until("the push was received", async || {
        apns.pushes().iter().any(|push| push.token == "c0ffee")
    })
    .await;
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
    assert_eq!(
        stalled.await.unwrap(),
        PushOutcome::Unreachable("no answer within 5s".into())
    );
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
    assert_eq!(apns.connections(), 1);

    // No other push is answered now, so the connection may be dead.
    assert!(matches!(
        push(&sender, "c0ffee").await,
        PushOutcome::Unreachable(_)
    ));
    assert_eq!(push(&sender, "abcd").await, PushOutcome::Sent);
    assert_eq!(apns.connections(), 2);
}

#[tokio::test]
async fn a_silent_server_times_out() {
    // This server accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            taken.push(stream);
        }
    });
    let config = Config::new()
        .identity(identity(&apns().await))
        .endpoint("127.0.0.1", port)
        .connect_timeout(Duration::from_millis(200));
    let sender = Arc::new(ApnsSender::new(config).unwrap());
    let outcomes = push_all(&sender, 200).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, PushOutcome::Unreachable(_))),
        "{outcomes:?}"
    );
    // A few pushes try to connect. The others fail at once because of the delay.
    let connections = connections.load(Ordering::Relaxed);
    assert!((1..=20).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_dead_server_is_not_hammered() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = dead.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    // This server closes every connection. It counts only connections that start TLS, because other
    // clients may still try to reach an earlier server on this port.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = dead.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                if stream.read_u8().await.is_ok_and(|first| first == 0x16) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let config = Config::new()
        .identity(identity(&apns().await))
        .endpoint("127.0.0.1", port);
    let sender = ApnsSender::new(config).unwrap();
    let start = Instant::now();
    let mut had_to_wait = false;
    until(
        "four connections were tried, and a push had to wait",
        async || {
            let outcome = push(&sender, "c0ffee").await;
            let PushOutcome::Unreachable(why) = outcome else {
                panic!("{outcome:?}")
            };
            had_to_wait |= why.contains("127.0.0.1") && why.contains("next attempt in");
            had_to_wait && connections.load(Ordering::Relaxed) >= 4
        },
    )
    .await;
    // The attempts are at 0, 100, 300 and 700 ms, or later.
    assert!(
        start.elapsed() >= Duration::from_millis(700),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn connections_that_end_before_an_answer_count_as_failures() {
    let apns = apns().await;
    let sender = sender(&apns);
    apns.answer_token("c0ffee", Answer::close());
    let start = Instant::now();
    until("there were four connections", async || {
        push(&sender, "c0ffee").await;
        apns.connections() >= 4
    })
    .await;
    // The attempts are at 0, 0, 200 and 600 ms, or later.
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "{:?}",
        start.elapsed()
    );
    until("a push is sent", async || {
        push(&sender, "abcd").await == PushOutcome::Sent
    })
    .await;
}

/// A test may check pushes itself, and may use the same certificates in several runs.
#[tokio::test]
async fn a_lenient_service_accepts_any_certificate_and_keeps_its_authority() {
    let strict = apns().await;
    let first = LocalApns::start(Options::new().lenient()).await.unwrap();
    let key = first.authority_key();
    let options = Options::new().lenient().authority(key).name("push.test");
    let second = LocalApns::start(options).await.unwrap();
    let refused = LocalApns::start(Options::new().authority("no key")).await;
    assert!(refused.is_err());
    for service in [&first, &second] {
        // The certificate is from another authority. The root certificate is from the first run.
        let config = Config::new()
            .endpoint(service.host(), service.port())
            .root_certificates(first.root_pem())
            .identity(identity(&strict));
        let sender = ApnsSender::new(config).unwrap();
        assert_eq!(push(&sender, "c0ffee").await, PushOutcome::Sent);
        let pushes = service.pushes();
        assert_eq!(pushes.len(), 1);
        assert_eq!(pushes[0].certified, [crate::TOPIC]);
        assert_eq!(&*pushes[0].payload, b"{}");
    }
}

/// The virtual phone may react to a push before the push is answered.
#[tokio::test]
async fn the_local_service_reports_a_push_before_it_answers() {
    let reported = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reported);
    let options = Options::new().on_push(move |push| {
        let counted = Arc::clone(&counted);
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(
                (push.topic.as_str(), push.token.as_str()),
                (crate::TOPIC, "c0ffee")
            );
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let apns = LocalApns::start(options).await.unwrap();
    assert_eq!(push(&sender(&apns), "c0ffee").await, PushOutcome::Sent);
    assert_eq!(reported.load(Ordering::Relaxed), 1);
}
