//! Plain calls, which help to explain why a case fails. If even a plain registration fails, a case
//! about an unusual registration shows nothing.

use std::collections::{HashMap, hash_map::Entry};

use http::Method;
use passkit_server::identifiers::Kind;

use super::{case::ServiceCase, session::Session, target::Target};
use crate::{Case, CaseReport, CaseResult, Level, Outcome, Rule, Violation};

/// The plain calls that were tried, with the faults that they found.
#[derive(Default)]
pub(super) struct Baseline(HashMap<(Plain, bool), Option<Violation>>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Plain {
    Register,
    List,
    Fetch,
}

impl Baseline {
    /// Blocks a failed case if the plain form of its last call fails too, and breaks a rule that
    /// the case is not about. `last` has the method and the endpoint of the last call.
    pub(super) async fn explain(
        &mut self,
        result: &mut CaseReport,
        last: (&Method, &str),
        kind: Kind,
        target: &Target,
    ) {
        let Outcome::Fail(violation) = &result.outcome else {
            return;
        };
        let plain = match (last.0.as_str(), last.1) {
            ("POST", "registrations") => Plain::Register,
            ("GET", "registrations") => Plain::List,
            ("GET", "passes") => Plain::Fetch,
            _ => return,
        };
        // These two faults affect all calls in the same way, so plain calls can't explain them. A
        // hanging service answers no call. A service that accepts only one spelling of a header
        // name does not accept plain calls.
        if [Rule::HTTP_1, Rule::HTTP_2].contains(&violation.rule()) {
            return;
        }
        let key = (plain, kind == Kind::Order);
        let fault = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(plain.fault(kind, target).await),
        };
        if let Some(fault) = fault
            && fault.rule() != violation.rule()
            && !result.case.is_about(fault.rule())
        {
            let fault = Violation::new(fault.rule(), fault.expected(), fault.actual());
            result.outcome = Outcome::Blocked(fault);
        }
    }
}

impl Plain {
    /// Makes the call. Returns the rule that it breaks, if it breaks one.
    async fn fault(self, kind: Kind, target: &Target) -> Option<Violation> {
        let case = ServiceCase {
            case: Case {
                id: "baseline",
                level: Level::Must,
                rules: &[],
                steps: "",
                consequence: "",
            },
            kind,
            run: match self {
                Self::Register => |session| Box::pin(register(session)),
                Self::List => |session| Box::pin(list(session)),
                Self::Fetch => |session| Box::pin(fetch(session)),
            },
        };
        match case.run(target).await.outcome {
            Outcome::Fail(violation) | Outcome::Blocked(violation) => Some(violation),
            _ => None,
        }
    }
}

async fn register(session: &Session) -> CaseResult {
    let pass = session.rested(1)?[0];
    session.given(&session.device()?, pass).await
}

async fn list(session: &Session) -> CaseResult {
    let pass = session.rested(1)?[0];
    let device = session.device()?;
    session.given(&device, pass).await?;
    session.holds(&device, pass, &[pass], Rule::LIST_1).await
}

async fn fetch(session: &Session) -> CaseResult {
    let pass = session.rested(1)?[0];
    session.fetch(pass, None).await?.is(200, Rule::GET_9)
}
