//! Steps and checks that cases of several endpoints share.

use std::{future::poll_fn, task::Poll};

use super::{
    answer::Answer,
    session::{Device, Session},
    target::Subject,
};
use crate::{
    CaseResult, Rule, Stop,
    wire::{ListAnswer, first_few},
};

impl Session {
    /// Registers as a precondition of a case. If the registration fails, the case is blocked. Does
    /// not check whether the registration is new.
    pub(crate) async fn given(&self, device: &Device, subject: &Subject) -> CaseResult {
        let answer = self.register(device, subject).await?;
        scene(answer.is_one_of(&[200, 201], Rule::REG_1))
    }

    /// Registers for passes of one type, and lists them. If a step fails, the case is blocked,
    /// because other cases check these steps.
    pub(crate) async fn given_all(&self, device: &Device, subjects: &[&Subject]) -> CaseResult {
        for subject in subjects {
            self.given(device, subject).await?;
        }
        match subjects.first() {
            Some(first) => scene(self.holds(device, first, subjects, Rule::LIST_1).await),
            None => Ok(()),
        }
    }

    /// Checks that the device's list names exactly these passes, which have the type of `like`.
    pub(crate) async fn holds(
        &self,
        device: &Device,
        like: &Subject,
        expected: &[&Subject],
        rule: Rule,
    ) -> CaseResult {
        let answer = self.list(device, &like.pass.type_id, None).await?;
        if answer.status() != 404 {
            answer.is_list()?;
        }
        self.names(&answer, expected, rule)
    }

    /// Expects that a registration was new. If the service never answers 201, the case is blocked.
    pub(crate) async fn is_created(&self, answer: &Answer, subject: &Subject) -> CaseResult {
        if answer.status() == 200 {
            let first = self.register(&self.device()?, subject).await?;
            let first = first.about("the registration of another new device");
            if let Err(Stop::Fail(violation)) = first.is(201, Rule::REG_1) {
                return Err(Stop::Blocked(violation));
            }
        }
        answer.is(201, Rule::REG_1)
    }

    /// Checks that a list names exactly these passes. Accepts any form of an empty list, because
    /// other cases check the form.
    pub(crate) fn names(&self, answer: &Answer, expected: &[&Subject], rule: Rule) -> CaseResult {
        let mut named: Vec<_> = match answer.status() {
            204 | 404 => Vec::new(),
            _ => {
                answer.is_list()?;
                match ListAnswer::read(self.kind(), answer.body()) {
                    Some(list) => list.serials.iter().map(ToString::to_string).collect(),
                    None => return answer.listed(self.kind()).map(drop),
                }
            }
        };
        let mut wanted: Vec<_> = expected
            .iter()
            .map(|one| one.pass.serial.to_string())
            .collect();
        named.sort_unstable();
        wanted.sort_unstable();
        if named == wanted {
            return Ok(());
        }
        let said = |serials: &[String]| match serials {
            [] => "a list that names nothing".to_owned(),
            some => format!("a list that names {}", first_few(some)),
        };
        let rule = rule_of_names(rule, &named, &wanted);
        Err(answer.violation(rule, said(&wanted), said(&named)))
    }
}

/// Returns the result of a step that prepares the test. If the step breaks a rule, the case is
/// blocked.
pub(super) fn scene<T>(result: Result<T, Stop>) -> Result<T, Stop> {
    result.map_err(|stop| match stop {
        Stop::Fail(violation) => Stop::Blocked(violation),
        other => other,
    })
}

/// Returns a random text for made-up identifiers.
pub(super) fn random() -> Result<String, Stop> {
    crate::random_hex::<8>().map_err(|error| Stop::Error(format!("no random numbers: {error}")))
}

/// Runs futures concurrently until all have ended.
pub(super) async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    running
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

/// Returns the rule that a wrong list breaks. If passes are only missing from the list, the rules
/// about lists with too many passes are not broken.
pub(super) fn rule_of_names<T: PartialEq>(rule: Rule, found: &[T], expected: &[T]) -> Rule {
    let only_lacks = found.iter().all(|one| expected.contains(one));
    if only_lacks && rule == Rule::LIST_3 {
        Rule::LIST_1
    } else {
        rule
    }
}
