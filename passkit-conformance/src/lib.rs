//! Checks for Apple Wallet web services and for stores of `passkit-server`.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | tests a `RegistrationStore` and the other traits of a store |
//! | `service` | tests a web service in any language, at a URL or in this process; needs the feature `service` |
//! | `phone` | behaves as an iPhone does, and complains about what a service does wrong; needs the feature `service` |
//! | `cli` | the program; needs the feature `cli` |
//! | `load` | the calls of phones for load tests; needs the feature `load` |
//!
//! # Cases and rules
//! A [`Case`] has a stable id such as `register/new-pass-is-201`, a [`Level`], the [`Rule`]s that
//! it checks, its steps, and what a phone suffers when it fails. A [`Violation`] names the broken
//! rule, what was expected and what happened. A [`Report`] has the results of a run; it can be
//! written as text, JSON, JUnit XML or an HTML page.
//!
//! # Testing a web service
//! The program runs the cases against a URL:
//!
//! ```sh
//! passkit-conformance run --url https://wallet.example.com/ --target target.toml --html report.html
//! ```
//!
//! `init` writes a target file to start from. The file names some passes with their tokens, and a way to change a pass. `change` gives
//! a pass new content, and returns after the new content is published. `save` saves a pass
//! unchanged, and returns after the service has looked at it. So wait for whatever watches a folder
//! or works off a queue: a mark that comes later shows up in another case. The cases that need
//! `change` or `save` are skipped if the file has none.
//!
//! The kit makes devices of its own with random identifiers, unregisters them at the end, also
//! after Ctrl-C, and leaves all others alone. Nothing else may change the passes during a run, not
//! even another run, because the kit would report changes that it did not make. If a run is killed,
//! the registrations of its current case are left.
//!
//! Choose cases by id (`list/`, `get/*-304`) and by `--level`: `must` (phones rely on it), `should`
//! (the default, which includes `must`) or `advisory` (good practice). `--list` shows the cases.
//! `--junit`, `--json` and `--html` write reports, and `--badge` a picture for a README. `--timeout`
//! limits each answer. The exit code is
//! 0 if all cases passed or were skipped, 1 if one failed, and 2 if the service could not be
//! tested.
//!
//! A case that stumbles over a rule that it is not about is *blocked* by that rule and does not count
//! as failed: the cases of that rule show the fault better. A broken rule always fails at least one
//! case. The report ends with a verdict for each rule (kept, broken, not tried), and says how to fix
//! those that are broken.
//!
//! A failure looks like this:
//!
//! ```text
//! FAIL  register/new-pass-is-201 (must)
//!   rule        REG-1: the first registration of a pass on a device is answered 201, every further one 200
//!   source      Apple, Register a Pass for Update Notifications
//!   see         https://developer.apple.com/documentation/walletpasses/register-a-pass-for-update-notifications
//!   fix         answer 201 if the registration was inserted, else 200
//!   expected    status 201
//!   got         status 200
//!   steps       A new device registers for a pass.
//!   on a phone  …
//!   sent and got
//!     POST http://127.0.0.1:8080/v1/devices/<device 1>/registrations/pass.com.example.a/A-1
//!       …
//! ```
//!
//! `service::Target::in_process`, `service::cases` and `service::run` test a tower service in this
//! process. A body with status 204 or 304 is found only there, because the HTTP library drops
//! it on the network. Certificates must be trusted by the system.
//!
//! # Testing a store
//! A [`store::TestStore`] says which traits the store implements: `with_all`, or `new` for
//! `RegistrationStore` alone, followed by `with_queue`, `with_coordination` or `with_maintenance`.
//! The cases of other traits are shown as ignored, with the reason. Implement [`store::Stores`] in
//! place of a closure to have durability checked: it opens the data of a store again.
//!
//! With the feature `trials`, `store_tests!` makes a test with `harness = false` out of a
//! [`store::Stores`], and each case is a named test.
//!
//! A random sequence that fails is made as short as possible, and comes with a number. Set
//! `PASSKIT_CONFORMANCE_SEED` to that number to run the same sequences again. [`store::history`]
//! records calls and checks them afterwards. Wrap a store in a `Recorder` to test a crash or a
//! failover of your own.
//!
//! A call of a store may take 30 seconds; `PASSKIT_CONFORMANCE_TIMEOUT` sets another limit. After
//! three cases with a call that took longer, the others are not tried. A store that blocks all
//! threads ends the process, which names the case and the call.
//!
//! The cases of a store need a multi-threaded Tokio runtime.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod case;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "service")]
mod client;
#[cfg(feature = "cli")]
mod closest;
#[cfg(feature = "service")]
mod connections;
mod exchange;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "service")]
mod message;
#[cfg(feature = "service")]
pub mod phone;
mod report;
mod rule;
#[cfg(feature = "service")]
mod secrets;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
#[cfg_attr(
    not(feature = "load"),
    allow(unreachable_pub, reason = "public through `load`")
)]
mod service_url;
pub mod store;
#[cfg(feature = "trials")]
mod trials;
mod violation;
#[cfg(feature = "service")]
#[cfg_attr(
    not(feature = "load"),
    allow(unreachable_pub, reason = "public through `load`")
)]
mod wire;

#[cfg(feature = "trials")]
pub use libtest_mimic;

#[cfg(feature = "service")]
pub use self::client::{Client, Limits};
pub use self::{
    case::{Case, CaseResult, Level, Outcome, Stop},
    exchange::Exchange,
    report::{CaseReport, Counts, Report},
    rule::Rule,
    violation::Violation,
};

#[cfg(feature = "service")]
pub(crate) fn random_hex<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
