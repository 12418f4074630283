use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use passkit_server::identifiers::Kind;

use super::{session::Session, target::Target};
use crate::{Case, CaseReport, CaseResult, Outcome};

type CaseFuture<'a> = Pin<Box<dyn Future<Output = CaseResult> + Send + 'a>>;

/// A case of a web service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceCase {
    /// The description of the case.
    pub case: Case,
    pub(super) kind: Kind,
    pub(super) run: for<'a> fn(&'a Session) -> CaseFuture<'a>,
}

impl ServiceCase {
    /// Runs the case, then removes its registrations.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with time enabled.
    pub async fn run(&self, target: &Target) -> CaseReport {
        self.run_until(target, pin!(pending())).await.0
    }

    /// Runs the case until it ends or `stop` is ready. If `stop` is ready first, the result is an
    /// error, and the second value is true.
    pub(super) async fn run_until(
        &self,
        target: &Target,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> (CaseReport, bool) {
        let start = Instant::now();
        let session = Session::new(target.clone(), self.kind);
        let mut run = (self.run)(&session);
        let result = poll_fn(|context| match stop.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => run.as_mut().poll(context).map(Some),
        });
        let result = result.await;
        drop(run);
        let is_stopped = result.is_none();
        let outcome = result.map_or_else(|| Outcome::Error("interrupted".into()), Outcome::from);
        let transcript = session.end().await;
        (
            CaseReport {
                case: self.case,
                outcome,
                elapsed: start.elapsed(),
                transcript,
            },
            is_stopped,
        )
    }
}

/// Defines the `CASES` of a module. Each entry has an id, kind, level, rules, function, steps and
/// consequence.
macro_rules! catalogue {
    ($($id:literal $kind:ident $level:ident [$($rule:ident)+] $function:ident, $steps:literal, $consequence:literal;)+) => {
        pub(super) const CASES: &[crate::service::case::ServiceCase] = &[
            $(crate::service::case::ServiceCase {
                case: crate::Case {
                    id: $id,
                    level: crate::Level::$level,
                    rules: &[$(crate::Rule::$rule),+],
                    steps: $steps,
                    consequence: $consequence,
                },
                kind: passkit_server::identifiers::Kind::$kind,
                run: |session| Box::pin($function(session)),
            }),+
        ];
    };
}
pub(super) use catalogue;
