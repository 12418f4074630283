//! Sends spans to an OpenTelemetry collector, which the standard variables `OTEL_…` set up. Requests never wait for the
//! collector. A limited number of spans waits for it, and further spans are dropped.

use std::{
    env,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::TracerProvider as _,
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use passkit_server::text::Chain;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::runtime::Handle;
use tracing::{Level, Span, debug_span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, filter_fn},
};

use crate::{failure::Failure, logging::BoxedLayer, request_id::RequestId};

/// How long the collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the process waits for the collector when it ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer of a collector in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;
/// How often the log reports that the collector can't be reached.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The longest header in bytes that is taken from a request.
const HEADER_LIMIT: usize = 512;
/// The target of the spans of requests. They are not in the log.
const TARGET: &str = "request";

static IS_ON: AtomicBool = AtomicBool::new(false);

/// The connection to the collector, if the environment names one.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Reads the variables. Fails if they ask for something that this program lacks.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        if !is_wanted() {
            return Ok(Self(None));
        }
        check_protocol()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new())
            .build()
            .map_err(|error| {
                Failure::from_error("can't send traces; check the variables OTEL_…", &error)
            })?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Self(Some(provider)))
    }

    /// Returns what collects the spans of this program.
    pub(crate) fn layer(&self) -> Option<BoxedLayer> {
        let tracer = self.0.as_ref()?.tracer("passkit");
        let collected = filter_fn(|metadata| {
            let target = metadata.target();
            let is_own = target == TARGET || target.starts_with("passkit");
            is_own && (metadata.is_span() || *metadata.level() <= Level::INFO)
        });
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(collected.with_max_level_hint(LevelFilter::DEBUG));
        Some(layer.boxed())
    }

    /// Reports in the log whether spans are sent.
    pub(crate) fn report(&self) {
        if self.0.is_some() {
            tracing::info!("traces are sent to an OpenTelemetry collector");
        }
    }

    /// Sends the last spans, unless the collector is too slow.
    pub(crate) async fn close(self) {
        let Some(provider) = self.0 else {
            return;
        };
        // An error means that the collector was too slow, and spans are lost.
        let closing = move || provider.shutdown_with_timeout(LAST_TIMEOUT);
        let _ = tokio::task::spawn_blocking(closing).await;
    }
}

/// Returns the value of a variable, unless it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the value of the variable for traces, or else of the variable for all signals.
fn traces_variable(name: &str) -> Option<(String, String)> {
    let names = [
        format!("OTEL_EXPORTER_OTLP_TRACES_{name}"),
        format!("OTEL_EXPORTER_OTLP_{name}"),
    ];
    names
        .into_iter()
        .find_map(|name| variable(&name).map(|value| (name, value)))
}

fn is_wanted() -> bool {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none");
    !is_off && traces_variable("ENDPOINT").is_some()
}

fn check_protocol() -> Result<(), Failure> {
    match traces_variable("PROTOCOL") {
        Some((name, protocol)) if protocol != "http/protobuf" => Err(Failure::new(format!(
            "{name}={protocol:?}: this program sends traces only as http/protobuf; set this value, and the port for HTTP (4318)"
        ))),
        _ => Ok(()),
    }
}

/// Describes this process. The variables have precedence.
fn resource() -> Resource {
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let is_named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    if is_named {
        resource.build()
    } else {
        resource.with_service_name("passkit").build()
    }
}

/// The headers of a request that name the trace of the caller. Long headers are ignored, because each span keeps them.
struct TraceHeaders<'a>(&'a HeaderMap);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?;
        value
            .to_str()
            .ok()
            .filter(|value| value.len() <= HEADER_LIMIT)
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Returns the span of a request from a phone or another program. It belongs to the trace that the request names. The span
/// has no path, because paths contain device identifiers.
pub(crate) fn request_span<B>(request: &Request<B>, id: &RequestId) -> Span {
    if !IS_ON.load(Ordering::Relaxed) || !request.uri().path().contains("/v1/") {
        return Span::none();
    }
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "_OTHER",
    };
    let span = debug_span!(
        target: TARGET,
        "request",
        otel.name = method,
        otel.kind = "server",
        http.request.method = method,
        http.response.status_code = Empty,
        otel.status_code = Empty,
        request = %id
    );
    let parent = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &TraceHeaders(request.headers()));
    // This fails if the span is not sampled.
    let _ = span.set_parent(parent);
    span
}

/// Records the answer of a request in its span.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// An HTTP client. It runs on the threads of the program, because the exporter has a thread without a runtime.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: OnceLock<Handle>,
    warned: Mutex<Option<Instant>>,
}

impl Collector {
    fn new() -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::try_current().map_or_else(|_| OnceLock::new(), OnceLock::from),
            warned: Mutex::default(),
        }
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = self.runtime.get().ok_or("there is no runtime")?;
        let sent = self.client.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = sent.await?.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let within = async { tokio::time::timeout(TIMEOUT, exchange).await };
        runtime
            .spawn(within)
            .await?
            .map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
    }

    fn warn(&self, reason: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!("the OpenTelemetry collector gets no traces: {reason}");
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.exchange(request).await;
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => self.warn(&format!("it answers {}", answer.status())),
            Err(error) => self.warn(&Chain(&**error).to_string()),
        }
        answer
    }
}

/// Trusts the certificates that the system trusts.
fn tls() -> ClientConfig {
    let provider = std::sync::Arc::new(ring::default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    // This can't fail, because the provider supports both versions of TLS.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap_or_else(|_| ClientConfig::builder());
    match builder.clone().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(_) => builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth(),
    }
}
