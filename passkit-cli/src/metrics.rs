//! The metrics for Prometheus, on their own listener.

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
use passkit_server::service::ResponseBody;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    failure::{Chain, Failure},
    server::{self, Limits},
    store::Store,
};

/// The buckets for times, in seconds. The first one is for a fast call of the store, and the last
/// one for the time after which clients give up.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// The buckets for the time from a change to its fetch, in seconds. Some phones fetch at once, and
/// some were off for a week.
const FETCHED_BUCKETS: [f64; 9] = [
    1.0, 5.0, 15.0, 60.0, 300.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0,
];
/// How often measurements are summed up, and pending pushes are counted.
const REFRESH: Duration = Duration::from_secs(1);
/// How often everything in the store is counted. Counting may take long.
const COUNT_EVERY: Duration = Duration::from_secs(600);
/// The limit is low, because few clients read the metrics.
const LIMITS: Limits = Limits {
    connections: 16,
    per_address: None,
};

const REGISTRATIONS: &str = "passkit_registrations";
const DEVICES: &str = "passkit_devices";
const PENDING: &str = "passkit_pending_changes";
const OLDEST_PENDING: &str = "passkit_oldest_pending_seconds";

pub(crate) struct Metrics {
    listener: TcpListener,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Binds the address and starts to count.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let (listener, address) = server::bind(address, "--metrics").await?;
        let handle = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .and_then(|builder| {
                let fetched = Matcher::Full("passkit_fetched_after_seconds".to_owned());
                builder.set_buckets_for_metric(fetched, &FETCHED_BUCKETS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| Failure::from_error("can't start --metrics", &error))?;
        passkit_server::metrics::describe_metrics();
        describe_gauge!(
            REGISTRATIONS,
            "Registrations in the store, counted every ten minutes."
        );
        describe_gauge!(DEVICES, "Devices in the store, counted every ten minutes.");
        describe_gauge!(
            PENDING,
            "Changes whose pushes are pending. A change of a whole type counts once."
        );
        describe_gauge!(
            OLDEST_PENDING,
            "Age in seconds of the oldest change whose pushes are pending."
        );
        tracing::info!("metrics at http://{address}/metrics");
        Ok(Self { listener, handle })
    }

    /// Answers until the returned tasks are dropped.
    pub(crate) fn serve(self, store: Arc<dyn Store>) -> JoinSet<()> {
        let Self { listener, handle } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(refresh(handle.clone(), store.clone()));
        tasks.spawn(count(store));
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&handle, &request);
            async { Ok::<_, Infallible>(answer) }
        });
        tasks.spawn(server::serve(
            listener,
            service,
            LIMITS,
            std::future::pending(),
        ));
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
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}

/// Runs even if no client reads the metrics, because measurements take memory until they are summed
/// up.
async fn refresh(handle: PrometheusHandle, store: Arc<dyn Store>) {
    loop {
        handle.run_upkeep();
        match store.backlog().await {
            Ok(backlog) => {
                let pending: u64 = backlog.iter().map(|of| of.pending).sum();
                let oldest = backlog.iter().filter_map(|of| of.since).min();
                let age = oldest.and_then(|since| SystemTime::now().duration_since(since).ok());
                gauge!(PENDING).set(pending as f64);
                gauge!(OLDEST_PENDING).set(age.unwrap_or_default().as_secs_f64());
            }
            // The publisher logs that the store is unavailable.
            Err(error) => tracing::debug!("can't count the pending pushes: {}", Chain(&error)),
        }
        tokio::time::sleep(REFRESH).await;
    }
}

async fn count(store: Arc<dyn Store>) {
    loop {
        match store.stats().await {
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
