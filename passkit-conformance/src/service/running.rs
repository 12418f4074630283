//! Runs cases one after the other, and gives up on a service that is not there.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::{ServiceCase, Target};
use crate::{Case, CaseResult, Report, client::SendError, exchange::Secrets};

/// After so many cases in a row without any answer, the service is taken to be gone: one that hangs would otherwise
/// take the time limit for each request of each case.
const PATIENCE: usize = 3;

/// Runs cases one after the other. A service that can't be reached, or that stops answering, ends the run: the cases
/// that are left become errors.
///
/// # Panics
/// Outside of a Tokio runtime with time enabled.
pub async fn run<'a>(cases: impl IntoIterator<Item = &'a ServiceCase>, target: &Target) -> Report {
    run_watched(cases, target, |_| {}).await
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A case begins.
    Begins(&'a Case),
    /// A case is done.
    Done(&'a CaseResult),
}

/// As [`run`], telling `watch` how far it is.
///
/// # Panics
/// Outside of a Tokio runtime with time enabled.
pub async fn run_watched<'a>(
    cases: impl IntoIterator<Item = &'a ServiceCase>,
    target: &Target,
    mut watch: impl FnMut(Progress<'_>),
) -> Report {
    let mut cases = cases.into_iter();
    let mut report = Report::default();
    let mut stopped = unreachable(target).await;
    let mut silent = 0;
    while stopped.is_none()
        && let Some(case) = cases.next()
    {
        watch(Progress::Begins(&case.case));
        let result = case.run(target).await;
        watch(Progress::Done(&result));
        if result.transcript.iter().any(|exchange| exchange.status.is_ok()) {
            silent = 0;
        } else if !result.transcript.is_empty() {
            silent += 1;
        }
        report.results.push(result);
        if silent == PATIENCE {
            stopped = Some(format!("{PATIENCE} cases in a row got no answer from the service"));
        }
    }
    let mut left = cases.map(|one| one.case).peekable();
    if let (Some(reason), Some(_)) = (stopped, left.peek()) {
        report.stop(left, &reason);
    }
    report
}

/// Why no connection can be made, if so.
async fn unreachable(target: &Target) -> Option<String> {
    if !target.client.is_network() {
        return None;
    }
    // Any answer will do, and no answer is for the cases to tell of.
    let request =
        Request::builder().uri(format!("{}/v1/", target.url.as_str())).body(Full::<Bytes>::default());
    match target.client.send(request.ok()?, &Secrets::default()).await.0 {
        Err(SendError::Unreachable(reason)) => {
            Some(format!("the service at {} can't be reached: {reason}", target.url.as_str()))
        }
        Ok(_) | Err(SendError::NoAnswer(_)) => None,
    }
}
