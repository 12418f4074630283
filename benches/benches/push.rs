//! Measures the path from the commit of a change to the push service, over TLS. For a single push, the bench measures the
//! time. For a pass on a million devices, it measures the time until the first push, the pushes per second, the memory, and how
//! much delivery records change them.

#![allow(clippy::expect_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_apns::{
    ApnsSender, Config, Identity,
    local::{LocalApns, Options},
};
use passkit_benches::{
    data::{self, pass, serial, type_id},
    memory::Memory,
    turns::{Bench, runtime},
};
use passkit_server::{
    Changed,
    delivery::DeliveryRecorder,
    identifiers::PushToken,
    maintenance::Registration,
    push::{Publisher, PushConfig, PushQueue},
    store::MemoryStore,
};
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SINGLE: usize = 300;
/// The number of devices that a call registers.
const PART: usize = 10_000;

fn main() {
    let mut bench = Bench::new("push");
    let devices = data::sizes().into_iter().max().unwrap_or(0).min(1_000_000);
    runtime().block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let sled = SledStore::open(folder.path().join("sled")).expect("a store");
        let sqlite = SqliteStore::create(folder.path().join("passkit.db")).expect("a store");
        let memory: Arc<dyn PushQueue> = Arc::new(MemoryStore::new());
        for (store, queue) in [
            ("memory", memory),
            ("sled", Arc::new(sled)),
            ("sqlite", Arc::new(sqlite)),
        ] {
            bench.note(
                format!("{store}, a single change, median ms after its commit"),
                single(queue).await,
            );
        }
        let shown = data::grouped(devices);
        let store = load(devices).await;
        // With and without records in turns, so that other load on the machine affects both alike.
        let mut turns = Vec::new();
        for recorder in [false, true, true, false] {
            let recorder = recorder.then(|| DeliveryRecorder::new(store.clone(), store.clone()));
            turns.push(broadcast(&store, devices, recorder).await);
        }
        let [plain, recorded, recorded_again, plain_again] = &turns[..] else {
            unreachable!("four turns")
        };
        let Broadcast {
            first,
            rate,
            kilobytes,
        } = *plain;
        bench.note(
            format!("memory, a pass on {shown} devices, ms to the first push"),
            first,
        );
        bench.note(
            format!("memory, a pass on {shown} devices, pushes per second"),
            rate,
        );
        bench.note(
            format!("memory, a pass on {shown} devices, MB more at the peak"),
            kilobytes / 1_024.0,
        );
        let seconds =
            |turns: [&Broadcast; 2]| turns.map(|turn| 1.0 / turn.rate).iter().sum::<f64>();
        bench.note(
            format!(
                "memory, a pass on {shown} devices, rate with delivery records, compared with none"
            ),
            seconds([plain, plain_again]) / seconds([recorded, recorded_again]),
        );
        bench.note(
            format!("memory, a pass on {shown} devices, MB more at the peak with delivery records"),
            recorded.kilobytes / 1_024.0,
        );
    });
    bench.finish();
}

/// Returns a push token for each device, because devices with equal tokens share a push.
fn token(index: usize) -> PushToken {
    PushToken::new(&format!("{index:064x}")).expect("a push token")
}

/// Starts a publisher with a separate push service. The receiver gets the time of each push, or of only the first push.
async fn publisher(
    queue: Arc<dyn PushQueue>,
    only_first: bool,
    recorder: Option<DeliveryRecorder>,
) -> (Arc<Publisher>, LocalApns, UnboundedReceiver<Instant>) {
    let (sender, times) = unbounded_channel();
    let is_first = Arc::new(AtomicBool::new(true));
    let hook = move |_| {
        if is_first.swap(false, Ordering::Relaxed) || !only_first {
            let _dropped = sender.send(Instant::now());
        }
        async {}
    };
    let apns = LocalApns::start(Options::new().without_record().on_push(hook))
        .await
        .expect("a push service");
    let issued = apns.issue(type_id().as_str()).expect("a certificate");
    let identity = Identity::from_pem(
        &type_id(),
        issued.certificate.as_bytes(),
        issued.key.as_bytes(),
    );
    let config = Config::new()
        .identity(identity.expect("an identity"))
        .endpoint(apns.host(), apns.port())
        .root_certificates(apns.root_pem());
    let sender = Arc::new(ApnsSender::new(config).expect("a sender"));
    let config = PushConfig::new().spacing(Duration::ZERO);
    let mut publisher = Publisher::new(queue, sender, config);
    if let Some(recorder) = recorder {
        publisher = publisher.delivery_log(recorder);
    }
    (Arc::new(publisher), apns, times)
}

async fn single(queue: Arc<dyn PushQueue>) -> f64 {
    queue
        .register(&data::device(0), &pass(0), &token(0))
        .await
        .expect("registered");
    let (publisher, _apns, mut times) = publisher(queue, false, None).await;
    let running = publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    let mut took = Vec::with_capacity(SINGLE);
    for _ in 0..SINGLE {
        publisher
            .publish(&type_id(), Changed::Passes(&[serial(0)]))
            .await
            .expect("published");
        let committed = Instant::now();
        let came = times.recv().await.expect("a push");
        took.push(came.saturating_duration_since(committed));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.abort();
    took.sort_unstable();
    took[SINGLE / 2].as_secs_f64() * 1_000.0
}

struct Broadcast {
    first: f64,
    rate: f64,
    kilobytes: f64,
}

/// Makes a store in which this many devices have a pass.
async fn load(devices: usize) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for first in (0..devices).step_by(PART) {
        let end = devices.min(first + PART);
        let one = |i| Registration {
            device: data::device(i),
            push_token: token(i),
            pass: pass(0),
        };
        let part: Vec<_> = (first..end).map(one).collect();
        passkit_server::maintenance::StoreMaintenance::register_many(&*store, &part)
            .await
            .expect("registered");
        data::progress(
            &format!("loading {} devices", data::grouped(devices)),
            end,
            devices,
        );
    }
    store
}

async fn broadcast(
    store: &Arc<MemoryStore>,
    devices: usize,
    recorder: Option<DeliveryRecorder>,
) -> Broadcast {
    let (publisher, _apns, mut times) = publisher(store.clone(), true, recorder.clone()).await;
    let memory = Memory::now();
    let recording = recorder.map(|recorder| {
        tokio::spawn(async move { recorder.run_until(std::future::pending()).await })
    });
    let running = publisher.clone();
    let running = tokio::spawn(async move { running.run().await });
    publisher
        .publish(&type_id(), Changed::Passes(&[serial(0)]))
        .await
        .expect("published");
    let committed = Instant::now();
    let first = times
        .recv()
        .await
        .expect("a push")
        .saturating_duration_since(committed);
    while store
        .backlog()
        .await
        .expect("an answer")
        .iter()
        .any(|of| of.pending > 0)
    {
        let sent = usize::try_from(publisher.totals().sent).unwrap_or(usize::MAX);
        data::progress("pushing", sent.min(devices - 1), devices);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = committed.elapsed().as_secs_f64();
    let kilobytes = memory.more_at_peak();
    running.abort();
    if let Some(recording) = recording {
        recording.abort();
    }
    data::progress("pushing", devices, devices);
    let sent = publisher.totals().sent;
    assert_eq!(sent, devices as u64, "one push for each device");
    Broadcast {
        first: first.as_secs_f64() * 1_000.0,
        rate: sent as f64 / seconds,
        kilobytes,
    }
}
