//! Finds out for `/readyz` whether this instance can answer phones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use metrics::gauge;
use passkit_apns::ApnsSender;
use passkit_server::{identifiers::TypeIdentifier, store::StoreError, text::Chain};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{
    source::Source,
    store::{self, Store},
    tls::Tls,
};

/// How long the store may take to answer.
const STORE_TIME: Duration = Duration::from_secs(2);
/// How long an answer from the store is reused, however many clients ask for `/readyz`.
const FRESH: Duration = Duration::from_secs(1);
/// How often the files of the certificates are checked.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(60);

pub(crate) const CERTIFICATE_EXPIRES: &str = "passkit_push_certificate_not_after_seconds";

/// The answer of `/readyz`.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    /// Why the instance is not ready.
    pub(crate) problems: Vec<String>,
    /// Problems that someone should fix. The instance can answer phones in spite of them.
    pub(crate) warnings: Vec<String>,
}

/// The state of an instance, from its start to its end.
#[derive(Default)]
pub(crate) struct Health {
    stage: Mutex<Stage>,
    store: tokio::sync::Mutex<StoreCheck>,
    sender: OnceLock<Arc<ApnsSender>>,
    tls: OnceLock<Arc<Tls>>,
}

#[derive(Clone, Default)]
enum Stage {
    #[default]
    Starting,
    Serving(Arc<dyn Store>, Source),
    Stopping,
}

/// The last check of the store.
#[derive(Default)]
struct StoreCheck {
    /// The call that has not been answered yet. There is only one such call at a time, because calls
    /// without answers would pile up.
    waiting: Option<JoinHandle<Result<(), StoreError>>>,
    last: Option<(Instant, Option<String>)>,
}

impl Health {
    /// From now on, the instance is ready if this store answers.
    pub(crate) fn serve(&self, store: Arc<dyn Store>, source: Source) {
        self.set_stage(Stage::Serving(store, source));
    }

    /// From now on, the instance is not ready. Requests in flight are still answered.
    pub(crate) fn stop(&self) {
        self.set_stage(Stage::Stopping);
    }

    fn set_stage(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    pub(crate) async fn report(&self) -> Report {
        let stage = self
            .stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut warnings = expired(&self.check_certificates().await);
        warnings.extend(self.tls.get().and_then(|tls| tls.warning()));
        let problem = match stage {
            Stage::Starting => Some("the service is starting".to_owned()),
            Stage::Stopping => Some("the service is stopping".to_owned()),
            Stage::Serving(store, source) => {
                warnings.extend(source.absent().iter().map(|root| {
                    format!(
                        "the folder {} is absent; its passes are served from copies",
                        root.display()
                    )
                }));
                self.store.lock().await.problem(store).await
            }
        };
        Report {
            ready: problem.is_none(),
            problems: problem.into_iter().collect(),
            warnings,
        }
    }

    /// Watches the certificates of this sender.
    pub(crate) fn set_sender(&self, sender: Arc<ApnsSender>) {
        // There is only one sender.
        let _ = self.sender.set(sender);
    }

    /// Watches this TLS certificate.
    pub(crate) fn set_tls(&self, tls: Arc<Tls>) {
        // There is only one TLS certificate.
        let _ = self.tls.set(tls);
    }

    /// Reads the certificates again whose files have changed. Returns the date on which each certificate expires.
    pub(crate) async fn check_certificates(&self) -> BTreeMap<TypeIdentifier, SystemTime> {
        let Some(sender) = self.sender.get() else {
            return BTreeMap::new();
        };
        let expire = sender.check_certificates().await;
        for (type_id, not_after) in &expire {
            let since_1970 = not_after.duration_since(SystemTime::UNIX_EPOCH);
            gauge!(CERTIFICATE_EXPIRES, "type" => type_id.to_string())
                .set(since_1970.unwrap_or_default().as_secs_f64());
        }
        expire
    }

    /// Checks the certificates from time to time, forever.
    pub(crate) async fn watch_certificates(&self) {
        loop {
            self.check_certificates().await;
            tokio::time::sleep(CERTIFICATES_EVERY).await;
        }
    }
}

fn expired(expire: &BTreeMap<TypeIdentifier, SystemTime>) -> Vec<String> {
    let now = SystemTime::now();
    expire
        .iter()
        .filter(|(_, not_after)| **not_after <= now)
        .map(|(type_id, _)| {
            format!("the push certificate for {type_id} has expired, so its phones get no pushes")
        })
        .collect()
}

impl StoreCheck {
    /// Returns the reason why the store can't be used. `None` if it can be used.
    async fn problem(&mut self, store: Arc<dyn Store>) -> Option<String> {
        if let Some((checked, problem)) = &self.last
            && checked.elapsed() < FRESH
        {
            return problem.clone();
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            tokio::spawn(async move { store::check_answers(&*store).await })
        });
        let (problem, reason) = match tokio::time::timeout(STORE_TIME, &mut *waiting).await {
            Ok(answered) => {
                self.waiting = None;
                match answered {
                    Ok(Ok(())) => (None, String::new()),
                    Ok(Err(error)) => (Some("the store fails"), Chain(&error).to_string()),
                    Err(error) => (Some("the store fails"), error.to_string()),
                }
            }
            Err(_) => (
                Some("the store does not answer"),
                format!("no answer within {} s", STORE_TIME.as_secs()),
            ),
        };
        let before = self
            .last
            .as_ref()
            .and_then(|(_, problem)| problem.as_deref());
        // Only the log has the error. It may name the server of the store, so `/readyz` does not show it.
        match (before, problem) {
            (None, Some(problem)) => tracing::warn!("not ready: {problem}: {reason}"),
            (Some(_), None) => tracing::info!("ready again: the store answers"),
            _ => {}
        }
        let problem = problem.map(str::to_owned);
        self.last = Some((Instant::now(), problem.clone()));
        problem
    }
}
