//! Stands in for `telemetry` in a program that was built without the feature `otlp`.

use http::{Request, StatusCode};
use tracing::Span;

use crate::{failure::Failure, logging::BoxedLayer, request_id::RequestId};

pub(crate) struct Telemetry;

impl Telemetry {
    #[expect(clippy::unnecessary_wraps, reason = "with the feature, it can fail")]
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "with the feature, it is used")]
    pub(crate) fn layer(&self) -> Option<BoxedLayer> {
        None
    }

    /// Warns if the environment asks for traces.
    #[expect(clippy::unused_self, reason = "with the feature, it is used")]
    pub(crate) fn report(&self) {
        let names = [
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        ];
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if let Some(name) = names.into_iter().find(is_set) {
            tracing::warn!(
                "{name} has no effect, because this program was built without the feature otlp"
            );
        }
    }

    #[expect(clippy::unused_async, reason = "with the feature, it waits")]
    pub(crate) async fn close(self) {}
}

pub(crate) fn request_span<B>(_: &Request<B>, _: &RequestId) -> Span {
    Span::none()
}

pub(crate) fn answered(_: &Span, _: StatusCode) {}
