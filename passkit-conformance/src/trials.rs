//! Makes a trial of [libtest-mimic](libtest_mimic) from each case: a named test that the filters of
//! `cargo test` can select.

use std::{num::NonZero, sync::Arc, thread};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Case, CaseReport, Outcome};

/// Returns the arguments of the command line. By default, at least four trials run at once, because
/// most cases wait for the storage most of the time.
pub(crate) fn arguments() -> Arguments {
    const AT_ONCE: usize = 4;
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert_with(|| {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        processors.max(AT_ONCE)
    });
    arguments
}

/// Makes a trial for each case. All trials share one runtime.
pub(crate) fn trials<R>(cases: impl IntoIterator<Item = (Case, R)>) -> Vec<Trial>
where
    R: Future<Output = CaseReport> + Send + 'static,
{
    // Races need more than one thread.
    let threads = thread::available_parallelism()
        .map_or(2, NonZero::get)
        .max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    let runtime = Arc::new(runtime);
    let trial = |(case, run): (Case, R)| {
        let runtime = runtime.clone();
        Trial::ignorable_test(case.id, move || match &*runtime {
            Ok(runtime) => completion(runtime.block_on(run)),
            Err(error) => Err(Failed::from(format!(
                "can't start a Tokio runtime: {error}"
            ))),
        })
    };
    cases.into_iter().map(trial).collect()
}

fn completion(
    CaseReport {
        case,
        outcome,
        transcript,
        ..
    }: CaseReport,
) -> Result<Completion, Failed> {
    let violation = match outcome {
        Outcome::Pass => return Ok(Completion::Completed),
        Outcome::Skip(reason) => return Ok(Completion::ignored_with(reason)),
        Outcome::Error(reason) => {
            return Err(Failed::from(format!(
                "the case could not be tried: {reason}"
            )));
        }
        Outcome::Fail(violation) | Outcome::Blocked(violation) => violation,
    };
    let mut text = format!(
        "{violation}\nsteps: {}\nconsequence: {}\nhow to keep {}: {}",
        case.steps,
        case.consequence,
        violation.rule(),
        violation.rule().fix()
    );
    for exchange in transcript {
        text.push_str(&format!("\n{exchange}"));
    }
    Err(Failed::from(text))
}
