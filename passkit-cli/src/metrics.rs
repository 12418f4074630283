//! What Prometheus is told, on a listener of its own.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::{body::Incoming, service::service_fn};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use passkit_server::{PushQueue, ResponseBody};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    failure::{Chain, Failure},
    server,
    store::OpenStore,
};

/// In seconds: from what memory takes to where clients give up.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// In seconds: from a phone that comes at once to one that is off for a week.
const FETCHED_BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0];
/// How often numbers are worked up, and what is quickly counted is counted again.
const REFRESH: Duration = Duration::from_secs(1);
/// How often everything in the store is counted, which may take long.
const COUNT_EVERY: Duration = Duration::from_secs(600);
/// Those who scrape are few.
const CONNECTIONS: usize = 16;

const REGISTRATIONS: &str = "passkit_registrations";
const DEVICES: &str = "passkit_devices";
const OWED: &str = "passkit_changes_owed";
const OLDEST_OWED: &str = "passkit_oldest_owed_seconds";

pub(crate) struct Metrics {
    listener: TcpListener,
    handle: PrometheusHandle,
}

impl Metrics {
    /// From now on what happens is counted.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let (listener, address) = server::bind(address, "--metrics").await?;
        let handle = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .and_then(|builder| {
                let fetched = Matcher::Full("passkit_fetched_after_seconds".to_owned());
                builder.set_buckets_for_metric(fetched, &FETCHED_BUCKETS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| Failure::from_error("can't count for --metrics", &error))?;
        passkit_server::describe_metrics();
        describe_gauge!(REGISTRATIONS, "Registrations in the store, counted every ten minutes.");
        describe_gauge!(DEVICES, "Devices in the store, counted every ten minutes.");
        describe_gauge!(OWED, "Changes of a pass, or of all of a type, whose pushes are owed.");
        describe_gauge!(OLDEST_OWED, "For how long the oldest of them is owed.");
        tracing::info!("metrics at http://{address}/metrics");
        Ok(Self { listener, handle })
    }

    /// Answers until what is returned is dropped.
    pub(crate) fn serve(self, store: OpenStore) -> JoinSet<()> {
        let Self { listener, handle } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(refresh(handle.clone(), store.queue.clone()));
        tasks.spawn(count(store));
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&handle, &request);
            async { Ok::<_, Infallible>(answer) }
        });
        tasks.spawn(server::serve(listener, service, CONNECTIONS, std::future::pending()));
        tasks
    }
}

fn answer(handle: &PrometheusHandle, request: &Request<Incoming>) -> Response<ResponseBody> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, handle.render()),
        _ => (StatusCode::NOT_FOUND, "GET /metrics\n".to_owned()),
    };
    let length = HeaderValue::from(text.len());
    let mut answer = Response::new(ResponseBody::from(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}

/// Also if nobody scrapes: single measurements are summed up, and take no memory any more.
async fn refresh(handle: PrometheusHandle, queue: Arc<dyn PushQueue>) {
    loop {
        handle.run_upkeep();
        match queue.owing().await {
            Ok(owing) => {
                let debts: u64 = owing.iter().map(|one| one.debts).sum();
                let oldest = owing.iter().filter_map(|one| one.since).min();
                let age = oldest.and_then(|since| SystemTime::now().duration_since(since).ok());
                gauge!(OWED).set(debts as f64);
                gauge!(OLDEST_OWED).set(age.unwrap_or_default().as_secs_f64());
            }
            // Others complain of a store that is away, and less often.
            Err(error) => tracing::debug!("can't count the pushes owed: {}", Chain(&error)),
        }
        tokio::time::sleep(REFRESH).await;
    }
}

async fn count(store: OpenStore) {
    loop {
        match store.registrations.stats().await {
            Ok(stats) => {
                let registrations: u64 = stats.types.iter().map(|one| one.registrations).sum();
                gauge!(REGISTRATIONS).set(registrations as f64);
                gauge!(DEVICES).set(stats.devices as f64);
            }
            Err(error) => tracing::warn!("can't count the registrations: {}", Chain(&error)),
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}
