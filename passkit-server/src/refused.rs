//! The log of refused requests: a line for each request at `debug`, and a summary per minute at
//! `info`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use tokio::runtime::Handle;

use crate::{refusal::Refusal, route::Route, text::OneLine};

/// How long refused requests are counted until a summary is logged.
const PERIOD: Duration = Duration::from_secs(60);

/// Counts refused requests by status and reason.
///
/// There are few reasons, so there are few counts, whatever strangers send.
#[derive(Default)]
pub(crate) struct RefusedLog(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    by_reason: BTreeMap<(u16, &'static str), u64>,
    /// Whether a task waits for the end of the period.
    is_timed: bool,
}

impl RefusedLog {
    /// Logs a refused request. Logs nothing if the service itself is at fault, because the log has
    /// a line about that already.
    pub(crate) fn record(self: &Arc<Self>, method: &Method, path: &str, refusal: &Refusal) {
        let Some(reason) = refusal.reason(path) else {
            return;
        };
        let status = refusal.status().as_u16();
        tracing::debug!(
            "refused with {status}: {method} {}: {reason}{}",
            WithoutSecrets(path),
            refusal.detail()
        );
        let mut counts = self.lock();
        *counts.by_reason.entry((status, reason)).or_default() += 1;
        if counts.is_timed {
            return;
        }
        // Without a runtime, the summary is logged at the end.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        counts.is_timed = true;
        let log = Arc::downgrade(self);
        runtime.spawn(async move {
            tokio::time::sleep(PERIOD).await;
            if let Some(log) = log.upgrade() {
                log.summarize();
            }
        });
    }

    fn summarize(&self) {
        let Counts { by_reason, .. } = std::mem::take(&mut *self.lock());
        for ((status, reason), count) in by_reason {
            let requests = if count == 1 { "request" } else { "requests" };
            tracing::info!("{count} {requests} refused with {status} within a minute: {reason}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RefusedLog {
    fn drop(&mut self) {
        self.summarize();
    }
}

/// Shows a path in one line, without the device identifier, which is a secret.
///
/// If the path is not the path of an endpoint, only the words that occur in endpoint paths are
/// shown. Any other part may be a device identifier or a token in the wrong place.
struct WithoutSecrets<'a>(&'a str);

const WORDS: [&str; 7] = [
    "",
    "v1",
    "devices",
    "registrations",
    "passes",
    "orders",
    "log",
];

impl fmt::Display for WithoutSecrets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_endpoint = Route::of(self.0).is_some() || Route::is_below_a_prefix(self.0);
        let mut is_device = false;
        let parts: Vec<&str> = self
            .0
            .split('/')
            .map(|part| {
                let is_shown = !is_device && (is_endpoint || WORDS.contains(&part));
                is_device = part == "devices";
                if is_shown { part } else { "…" }
            })
            .collect();
        OneLine::of(&parts.join("/")).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_secrets() {
        for (path, shown) in [
            (
                "/v1/devices/d1/registrations/pass.a/S",
                "/v1/devices/…/registrations/pass.a/S",
            ),
            (
                "/api/v1/devices/d1/registrations/pass.a",
                "/api/v1/devices/…/registrations/pass.a",
            ),
            ("/api/v1/devices/d1", "/…/v1/devices/…"),
            (
                "/v1/devices//d1/registrations/pass.a",
                "/v1/devices/…/…/registrations/…",
            ),
            ("/d1/registrations/pass.a/S", "/…/registrations/…/…"),
            ("/v1/devices%2Fd1%2Fregistrations/pass.a", "/v1/…/…"),
            ("/v1/%64evices/d1/x/y", "/v1/…/…/…/…"),
            ("/V1/Devices/d1", "/…/…/…"),
            ("/v2/passes/pass.a/token", "/…/passes/…/…"),
            ("/v1/passes/pass.a/S\n", "/v1/passes/pass.a/S\\n"),
        ] {
            assert_eq!(WithoutSecrets(path).to_string(), shown);
        }
    }
}
