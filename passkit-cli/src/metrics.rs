//! The metrics for Prometheus and the state of the instance, on their own listener.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::{body::Incoming, service::service_fn};
use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use passkit_server::service::ResponseBody;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    failure::{Chain, Failure},
    health::{CERTIFICATE_EXPIRES, Health},
    server::{self, Limits},
    source::Source,
    store::Store,
    tls::TLS_EXPIRES,
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
const FOLDERS_ABSENT: &str = "passkit_folders_absent";

/// The path that answers as long as the process runs.
pub(crate) const ALIVE: &str = "/healthz";
/// The path that says whether the instance can answer phones.
pub(crate) const READY: &str = "/readyz";

pub(crate) struct Metrics {
    handle: PrometheusHandle,
    /// Everything here ends when this is dropped.
    tasks: JoinSet<()>,
}

impl Metrics {
    /// Binds the address, starts to count, and answers.
    pub(crate) async fn start(address: SocketAddr, health: Arc<Health>) -> Result<Self, Failure> {
        let (listener, address) = server::bind(address, "--metrics").await?;
        let handle = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)
            .and_then(|builder| {
                let fetched = Matcher::Full("passkit_fetched_after_seconds".to_owned());
                builder.set_buckets_for_metric(fetched, &FETCHED_BUCKETS)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| Failure::from_error("can't start --metrics", &error))?;
        describe();
        tracing::info!("metrics at http://{address}/metrics");
        let mut tasks = JoinSet::new();
        let rendered = handle.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (handle, health) = (rendered.clone(), health.clone());
            async move { Ok::<_, Infallible>(answer(&handle, &health, &request).await) }
        });
        tasks.spawn(server::serve(
            listener,
            None,
            service,
            LIMITS,
            std::future::pending(),
            std::future::pending(),
        ));
        Ok(Self { handle, tasks })
    }

    /// Measures the store and the folders from now on.
    pub(crate) fn measure(&mut self, store: Arc<dyn Store>, source: Source) {
        self.tasks
            .spawn(refresh(self.handle.clone(), store.clone(), source));
        self.tasks.spawn(count(store));
    }
}

fn describe() {
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
    describe_gauge!(
        FOLDERS_ABSENT,
        "Folders of passes or orders that are absent now."
    );
    describe_gauge!(
        CERTIFICATE_EXPIRES,
        "When the push certificate of a type expires, in seconds since 1970."
    );
    describe_gauge!(
        TLS_EXPIRES,
        "When the TLS certificate expires, in seconds since 1970."
    );
}

/// An endpoint of this listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Metrics,
    Alive,
    Ready,
}

impl Endpoint {
    const ALL: [(&'static str, Self); 3] = [
        ("/metrics", Self::Metrics),
        (ALIVE, Self::Alive),
        (READY, Self::Ready),
    ];

    fn of(path: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find_map(|(own, endpoint)| (own == path).then_some(endpoint))
    }
}

async fn answer(
    handle: &PrometheusHandle,
    health: &Health,
    request: &Request<Incoming>,
) -> Response<ResponseBody> {
    let plain = "text/plain; version=0.0.4";
    let endpoint = Endpoint::of(request.uri().path());
    let is_allowed = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match endpoint {
        None => (
            StatusCode::NOT_FOUND,
            plain,
            format!("GET /metrics, {ALIVE} or {READY}\n"),
        ),
        Some(_) if !is_allowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            plain,
            "only GET and HEAD are allowed\n".to_owned(),
        ),
        Some(Endpoint::Metrics) => (StatusCode::OK, plain, handle.render()),
        Some(Endpoint::Alive) => (StatusCode::OK, plain, "alive\n".to_owned()),
        Some(Endpoint::Ready) => {
            let report = health.report().await;
            let status = if report.ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let text = format!("{}\n", json!(report));
            (status, "application/json", text)
        }
    };
    let length = HeaderValue::from(text.len());
    let mut answer = Response::new(ResponseBody::from(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    // There are few connections. A client that keeps its connection would block the health checks
    // of others.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Runs even if no client reads the metrics, because measurements take memory until they are summed
/// up.
async fn refresh(handle: PrometheusHandle, store: Arc<dyn Store>, source: Source) {
    loop {
        handle.run_upkeep();
        gauge!(FOLDERS_ABSENT).set(source.absent().len() as f64);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::assert_documented;

    #[test]
    fn every_endpoint_is_documented() {
        assert_documented(Endpoint::ALL.map(|(path, _)| path));
    }
}
