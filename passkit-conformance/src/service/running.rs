//! Runs cases one after the other, and stops if the service no longer answers.

use std::{collections::HashSet, future::pending, pin::pin};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;

use super::{
    baseline::Baseline,
    case::ServiceCase,
    preflight::PREFLIGHT,
    target::{Instance, Target},
};
use crate::{
    Case, CaseReport, Exchange, Outcome, Report, Rule,
    message::{Response, SendError},
    secrets::Secrets,
};

/// If this many cases in a row get no answer at all, the run ends. Otherwise, each request to a
/// hanging service would take the full time limit.
const SILENT_CASES: usize = 3;

/// The maximum number of times that a run continues after silent cases. It continues if the service
/// still answers other requests.
const SPARED: usize = 3;

const INTERRUPTED: &str = "it was interrupted";

/// Runs cases one after the other. The run ends early if the service can't be reached or stops
/// answering. The run also ends early if most cases would fail because of the target: a wrong URL,
/// a mistyped token, or a change that changes nothing. The remaining cases become errors.
///
/// # Panics
///
/// Panics outside a Tokio runtime with time enabled.
pub async fn run<'a>(cases: impl IntoIterator<Item = &'a ServiceCase>, target: &Target) -> Report {
    run_watched(cases, target, |_| {}, pending()).await
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A case begins.
    Begins(&'a Case),
    /// A case is done.
    Done(&'a CaseReport),
}

/// Like [`run`], but reports progress to `watch`, and also ends when `stop` is ready. In that case,
/// the interrupted case and all remaining cases become errors. The registrations of the interrupted
/// case are removed.
///
/// # Panics
///
/// Panics outside a Tokio runtime with time enabled.
pub async fn run_watched<'a>(
    cases: impl IntoIterator<Item = &'a ServiceCase>,
    target: &Target,
    mut watch: impl FnMut(Progress<'_>),
    stop: impl Future<Output = ()>,
) -> Report {
    let mut stop = pin!(stop);
    let mut cases = cases.into_iter();
    let mut report = Report::default();
    report.target = target.urls();
    report.seed = target.seed;
    let mut stopped = None;
    let (mut silent, mut spared, mut interrupted) = (0, 0, false);
    let mut accepted_calls = HashSet::new();
    let mut baseline = Baseline::default();
    for instance in target.each() {
        stopped = unreachable(&instance).await;
        if stopped.is_some() {
            break;
        }
        let (result, is_stopped) = PREFLIGHT.run_until(&instance, stop.as_mut()).await;
        interrupted = is_stopped;
        stopped = match result.outcome {
            _ if is_stopped => Some(INTERRUPTED.to_owned()),
            Outcome::Error(reason) => Some(reason),
            _ => None,
        };
        if stopped.is_some() {
            break;
        }
    }
    while stopped.is_none()
        && let Some(case) = cases.next()
    {
        watch(Progress::Begins(&case.case));
        let (mut result, is_stopped) = case.run_until(target, stop.as_mut()).await;
        let answered = result
            .transcript
            .iter()
            .any(|exchange| exchange.status.is_ok());
        name_what_was_asked(&mut result, &accepted_calls, target).await;
        if let Some((method, endpoint)) = result.transcript.last().map(call) {
            let last = (&method, endpoint);
            baseline.explain(&mut result, last, case.kind, target).await;
        }
        result.attribute();
        accepted_calls.extend(result.transcript.iter().filter_map(accepted_call));
        watch(Progress::Done(&result));
        if answered {
            silent = 0;
        } else if !result.transcript.is_empty() {
            silent += 1;
        }
        report.results.push(result);
        if is_stopped {
            interrupted = true;
            stopped = Some(INTERRUPTED.to_owned());
        } else if silent == SILENT_CASES && spared < SPARED && answers(target).await {
            // The service still answers other calls, so the other cases can be tried.
            (silent, spared) = (0, spared + 1);
        } else if silent == SILENT_CASES {
            stopped = Some(format!(
                "{SILENT_CASES} cases in a row got no answer from the service"
            ));
        }
    }
    let mut left = cases.map(|one| one.case).peekable();
    if let Some(reason) = stopped
        && (interrupted || left.peek().is_some())
    {
        report.stop(left, &reason);
    }
    report.conclude();
    report
}

/// A method and the endpoint that it was sent to.
type Call = (Method, &'static str);

fn call(exchange: &Exchange) -> Call {
    let path = exchange.path.split('?').next().unwrap_or_default();
    let endpoint = match path {
        _ if path.contains("/registrations/") => "registrations",
        _ if path.contains("/passes/") || path.contains("/orders/") => "passes",
        _ if path.ends_with("/log") => "log",
        _ => "",
    };
    (exchange.method.clone(), endpoint)
}

/// Returns the call, if the service accepted it. A refusal does not count, because a service can
/// refuse malformed requests and never answer well-formed ones.
fn accepted_call(exchange: &Exchange) -> Option<Call> {
    let accepted = matches!(exchange.status, Ok(..400));
    accepted.then(|| call(exchange))
}

/// Replaces the broken rule if the service hung up on a request of the case. Many services hang up
/// on input that they don't expect. The case then breaks the rule that it is about, if the service
/// accepted calls of the same kind in earlier cases and still answers other requests.
async fn name_what_was_asked(result: &mut CaseReport, accepted: &HashSet<Call>, target: &Target) {
    let Outcome::Fail(violation) = &result.outcome else {
        return;
    };
    let (Some(rule), Some(last)) = (result.case.rules.first(), result.transcript.last()) else {
        return;
    };
    if violation.rule() != Rule::HTTP_2 || !accepted.contains(&call(last)) || !answers(target).await
    {
        return;
    }
    let outcome = std::mem::replace(&mut result.outcome, Outcome::Pass);
    if let Outcome::Fail(violation) = outcome {
        result.outcome = Outcome::Fail(violation.under(*rule));
    }
}

/// Returns whether the service answers anything at all.
async fn answers(target: &Target) -> bool {
    any_call(target).await.is_some_and(|answer| answer.is_ok())
}

/// Sends a request to the first instance, for a path that is not an endpoint, and returns the
/// answer.
async fn any_call(target: &Target) -> Option<Result<Response, SendError>> {
    let instance = target.instances.first()?;
    let request = Request::builder()
        .uri(format!("{}/v1/", instance.url.as_str()))
        .body(Full::<Bytes>::default());
    let client = instance.client.afresh();
    Some(client.send(request.ok()?, &Secrets::default()).await.0)
}

/// Returns why no connection can be made, or `None` if one can be made.
async fn unreachable(target: &Target) -> Option<String> {
    let is_network = |one: &Instance| one.client.is_network();
    if !target.instances.iter().all(is_network) {
        return None;
    }
    // Any answer shows that the service can be reached. If there is no answer, the cases report
    // that.
    match any_call(target).await? {
        Err(SendError::Unreachable(reason)) => Some(format!(
            "the service at {} can't be reached: {reason}",
            target.urls()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        pin::Pin,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll},
    };

    use http::{Method, Response, StatusCode};
    use passkit_server::identifiers::Kind;
    use tower_service::Service;

    use super::*;
    use crate::{Level, Limits, service::session::ServiceRequest};

    /// Answers a request only if `answered` returns true for its number.
    #[derive(Clone)]
    struct Fitful {
        asked: Arc<AtomicUsize>,
        answered: fn(usize) -> bool,
        status: StatusCode,
    }

    impl Service<Request<Full<Bytes>>> for Fitful {
        type Response = Response<Full<Bytes>>;
        type Error = io::Error;
        type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            let answered = (self.answered)(self.asked.fetch_add(1, Ordering::Relaxed));
            let mut answer = Response::default();
            *answer.status_mut() = self.status;
            Box::pin(async move {
                if answered {
                    Ok(answer)
                } else {
                    Err(io::Error::other("out of order"))
                }
            })
        }
    }

    /// Accepts and records every registration.
    #[derive(Clone, Default)]
    struct Recording(Arc<Mutex<Vec<String>>>);

    impl Service<Request<Full<Bytes>>> for Recording {
        type Response = Response<Full<Bytes>>;
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<Self::Response>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, asked: Request<Full<Bytes>>) -> Self::Future {
            if asked.uri().path().contains("/registrations/") {
                let line = format!("{} {}", asked.method(), asked.uri().path());
                self.0.lock().unwrap().push(line);
            }
            let mut answer = Response::default();
            if asked.method() == Method::POST {
                *answer.status_mut() = StatusCode::CREATED;
            }
            std::future::ready(Ok(answer))
        }
    }

    /// Runs nine cases. Each sends one request, except the second case, which sends none.
    async fn outcomes(answered: fn(usize) -> bool) -> Report {
        outcomes_with(StatusCode::OK, answered).await
    }

    /// Like [`outcomes`], with the status of all answers.
    async fn outcomes_with(status: StatusCode, answered: fn(usize) -> bool) -> Report {
        let case = Case {
            id: "x/y",
            level: Level::Must,
            rules: &[Rule::LIST_9],
            steps: "",
            consequence: "",
        };
        let asks = ServiceCase {
            case,
            kind: Kind::Pass,
            run: |session| {
                Box::pin(async {
                    session
                        .send(ServiceRequest::new(Method::GET, "/v1/x"))
                        .await
                        .map(|_| ())
                })
            },
        };
        let mut cases = vec![asks; 9];
        cases[1].run = |_| Box::pin(async { Err(crate::Stop::Skip("not now".into())) });
        let service = Fitful {
            asked: Arc::default(),
            answered,
            status,
        };
        let mut seen = 0;
        let count =
            |progress: Progress<'_>| seen += usize::from(matches!(progress, Progress::Done(_)));
        let target = Target::in_process(service, Limits::default());
        let report = run_watched(&cases, &target, count, pending()).await;
        assert_eq!(report.results.len(), cases.len());
        let untried = report
            .results
            .iter()
            .filter(|result| matches!(result.outcome, Outcome::Error(_)));
        assert_eq!(seen, cases.len() - untried.count());
        report
    }

    #[tokio::test]
    async fn a_service_that_fell_silent_ends_the_run() {
        let report = outcomes(|number| number < 2).await;
        let counts = report.counts();
        assert_eq!(
            [
                counts.pass,
                counts.skip,
                counts.fail,
                counts.blocked,
                counts.error
            ],
            [2, 1, 1, 2, 3],
            "{report}"
        );
        assert_eq!(
            report.stopped(),
            Some("3 cases in a row got no answer from the service")
        );
    }

    #[tokio::test]
    async fn breaking_off_breaks_the_rule_of_the_case() {
        let rules = |report: Report| -> Vec<&str> {
            let fails = report
                .results
                .into_iter()
                .filter_map(|result| match result.outcome {
                    Outcome::Fail(violation) => Some(violation.rule().id()),
                    _ => None,
                });
            fails.collect()
        };
        assert_eq!(rules(outcomes(|_| false).await), ["HTTP-2"]);
        assert_eq!(rules(outcomes(|number| number != 1).await), ["LIST-9"]);
        // A service that refused the earlier calls may hang up on well-formed calls only.
        let refusing = outcomes_with(StatusCode::BAD_REQUEST, |number| number != 1);
        assert_eq!(rules(refusing.await), ["HTTP-2"]);
    }

    #[tokio::test]
    async fn an_answer_now_and_then_keeps_it_going() {
        let report = outcomes(|number| number % 3 == 2).await;
        let counts = report.counts();
        assert_eq!(
            [
                counts.pass,
                counts.skip,
                counts.fail,
                counts.blocked,
                counts.error
            ],
            [3, 1, 1, 4, 0],
            "{report}"
        );
        assert_eq!(report.stopped(), None);
    }

    #[tokio::test]
    async fn an_interrupted_run_leaves_nothing_registered() {
        let service = Recording::default();
        let said = service.0.clone();
        let token = passkit_server::AuthToken::new("0123456789abcdef").unwrap();
        let pass = passkit_server::PassId::new("pass.com.example.a", "A-1").unwrap();
        let target = Target::in_process(service, Limits::default()).with(pass, token);
        let case = Case {
            id: "x/y",
            level: Level::Must,
            rules: &[],
            steps: "",
            consequence: "",
        };
        let registers_and_hangs = ServiceCase {
            case,
            kind: Kind::Pass,
            run: |session| {
                Box::pin(async {
                    session.given(&session.device()?, session.one()?).await?;
                    pending().await
                })
            },
        };
        let registered = said.clone();
        let stop = async move {
            while registered.lock().unwrap().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let report = run_watched(&[registers_and_hangs; 3], &target, |_| {}, stop).await;
        let said = said.lock().unwrap();
        let (registered, removed) = (
            said[0].strip_prefix("POST "),
            said[1].strip_prefix("DELETE "),
        );
        assert!(
            said.len() == 2 && registered.is_some() && registered == removed,
            "{said:?}"
        );
        assert_eq!(report.counts().error, 3, "{report}");
        assert!(
            report
                .stopped()
                .is_some_and(|reason| reason.contains("interrupted")),
            "{report}"
        );
    }
}
