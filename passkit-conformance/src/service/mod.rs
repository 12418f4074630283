//! Sends what phones send to any web service: a tower `Service` in this process, or a URL.
//!
//! A case makes devices of its own with random identifiers, does what phones do, and checks every
//! answer. At its end it unregisters what it registered. A [`Target`] says what a case needs to
//! know: some passes with their tokens, and a way to change a pass.

mod answer;
mod archives;
#[cfg(feature = "cli")]
mod changing;
mod credentials;
mod fetching;
mod listing;
mod logging;
mod orders;
mod racing;
mod registering;
mod running;
mod session;
mod steps;
mod target;
#[cfg(feature = "cli")]
mod target_file;
mod traces;
mod transport;
mod unregistering;
mod urls;

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Instant,
};

use passkit_server::identifiers::Kind;

use self::session::Session;
#[cfg(feature = "cli")]
pub use self::target_file::TargetFile;
pub use self::{
    running::{Progress, run, run_watched},
    target::{Subject, Target},
};
use crate::{Case, CaseReport, CaseResult, Outcome};

type CaseFuture<'a> = Pin<Box<dyn Future<Output = CaseResult> + Send + 'a>>;

/// A case of a web service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceCase {
    /// The description of the case.
    pub case: Case,
    kind: Kind,
    run: for<'a> fn(&'a Session) -> CaseFuture<'a>,
}

impl ServiceCase {
    /// Runs the case, and removes the registrations that it left.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with time enabled.
    pub async fn run(&self, target: &Target) -> CaseReport {
        self.run_until(target, pin!(pending())).await.0
    }

    /// The same, until `stop` is ready. The case then ends with an error, and the second value is
    /// true.
    async fn run_until(
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

/// Makes a module's list of cases: id, kind, level, rules, function, steps, consequence.
macro_rules! catalogue {
    ($($id:literal $kind:ident $level:ident [$($rule:ident)+] $function:ident, $steps:literal, $consequence:literal;)+) => {
        pub(super) const CASES: &[crate::service::ServiceCase] = &[
            $(crate::service::ServiceCase {
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
use catalogue;

/// All cases, grouped by endpoint.
#[must_use]
pub fn cases() -> Vec<ServiceCase> {
    [
        registering::CASES,
        listing::CASES,
        fetching::CASES,
        archives::CASES,
        orders::CASES,
        traces::CASES,
        racing::CASES,
        unregistering::CASES,
        credentials::CASES,
        urls::CASES,
        transport::CASES,
        logging::CASES,
    ]
    .concat()
}

/// A [trial](libtest_mimic::Trial) for each of the [`cases`], named by its id. A skipped case is
/// shown as ignored, with the reason.
#[cfg(feature = "trials")]
#[must_use]
pub fn trials(target: &Target) -> Vec<libtest_mimic::Trial> {
    crate::trials::trials(cases().into_iter().map(|one| {
        let target = target.clone();
        (one.case, async move { one.run(&target).await })
    }))
}
