//! Tests a web service with requests like those from phones. The service is a tower `Service` in
//! this process, or has a URL.
//!
//! A case makes its own devices with random identifiers, does what phones do, and checks every
//! answer. At its end, it removes its registrations. A [`Target`] has what a case needs: some
//! passes with their authentication tokens, and a way to change a pass.

mod answer;
mod archives;
mod baseline;
mod case;
#[cfg(feature = "cli")]
mod changing;
mod credentials;
mod enrolling;
mod fetching;
mod history;
mod listing;
mod logging;
mod orders;
mod preflight;
mod push_service;
mod pushing;
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

#[cfg(feature = "cli")]
pub(crate) use self::history::LONG;
#[cfg(feature = "cli")]
pub use self::target_file::TargetFile;
pub use self::{
    case::ServiceCase,
    push_service::{PushService, PushSettings},
    running::{Progress, run, run_watched},
    target::{Subject, Target},
};

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
        pushing::CASES,
        unregistering::CASES,
        credentials::CASES,
        urls::CASES,
        transport::CASES,
        logging::CASES,
        enrolling::CASES,
        history::CASES,
    ]
    .concat()
}

/// Makes a [trial](libtest_mimic::Trial) from each of the [`cases`]. Its name is the id of the
/// case. A skipped case is shown as ignored, with the reason.
#[cfg(feature = "trials")]
#[must_use]
pub fn trials(target: &Target) -> Vec<libtest_mimic::Trial> {
    crate::trials::trials(cases().into_iter().map(|one| {
        let target = target.clone();
        (one.case, async move { one.run(&target).await })
    }))
}
