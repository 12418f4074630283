//! Checks for Apple Wallet web services and for stores of `passkit-server`.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | tests a `RegistrationStore` and the other traits of a store |
//! | `service` | tests a web service in any language, at a URL or in this process; needs the feature `service` |
//! | `phone` | a virtual iPhone that reports what a service does wrong; needs the feature `service` |
//! | `cli` | the program; needs the feature `cli` |
//! | `load` | sends the requests of phones in load tests; needs the feature `load` |
//!
//! # Cases and rules
//! A [`Case`] has a stable id such as `register/new-pass-is-201`, a [`Level`], the [`Rule`]s that
//! it checks and its steps. It also says what goes wrong for a phone if the case fails. A
//! [`Violation`] names the broken rule, what was expected and what happened. A [`Report`] has the
//! results of a run. It can be written as text, JSON, JUnit XML or an HTML page.
//!
//! # Testing a web service
//! The program runs the cases against a URL:
//!
//! ```sh
//! passkit-conformance run --url https://wallet.example.com/ --target target.toml --html report.html
//! ```
//!
//! `init` writes a target file to start from. The file names some passes with their authentication
//! tokens, and two commands or URLs. `change` gives a pass new content. It must return after the
//! new content is published. `save` saves a pass unchanged. It must return after the service has
//! looked at the saved pass. If the service watches a folder or works through a queue, `change` and
//! `save` must wait until the service has noticed the change. Otherwise the change appears during a
//! later case, which then fails. If the file has no `change` or no `save`, the cases that need the
//! missing key are skipped.
//!
//! The kit makes its own devices with random identifiers, and unregisters them at the end, even
//! after Ctrl-C. It never touches other devices. Nothing else may change the passes during a run,
//! not even another run. Otherwise the kit would report changes that it did not make. If a run is
//! killed, the registrations of its current case remain.
//!
//! Choose cases by id (`list/`, `get/*-304`) and by `--level`: `must` (phones rely on it), `should`
//! (the default, which includes `must`) or `advisory` (good practice). `--list` shows the cases.
//! `--junit`, `--json` and `--html` write reports. `--badge` writes a badge for a README.
//! `--timeout` limits the time for each answer. `--for` sets how long the case
//! `history/long-history-adds-up` takes, and `--seed` makes its calls again. If several instances of
//! the service have own URLs, `--url` can be repeated, and each request goes to the next instance. The exit code is 0 if all cases passed or were
//! skipped, 1 if one failed, and 2 if the service could not be tested.
//!
//! If a case finds a violation of a rule that the case is not about, that rule *blocks* the case. A
//! blocked case does not count as failed, because the cases that are about the rule show the fault
//! better. A broken rule always fails at least one case. The report ends with a verdict for each
//! rule: kept, broken or not tried. The report also says how to fix the broken rules.
//!
//! A failure looks like this:
//!
//! ```text
//! FAIL  register/new-pass-is-201 (must)
//!   rule        REG-1: the first registration of a pass on a device is answered 201, and every further one 200
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
//! process. `service::Target::spread` makes one target from several instances. The kit can find a body with status 204 or 304 only in this way, because the HTTP
//! library drops such a body on the network. For `https` URLs, the system must trust the
//! certificate.
//!
//! # Testing a store
//! A [`store::TestStore`] says which traits the store implements. Make one with `with_all`, or with
//! `new` for `RegistrationStore` alone, and add `with_queue`, `with_coordination`,
//! `with_maintenance` or `with_delivery`. The cases of missing traits are shown as ignored, with the reason. To check
//! durability as well, implement [`store::Stores`] instead of passing a closure.
//! `Stores` can open the data of a store again.
//!
//! With the feature `trials`, `store_tests!` makes a test target from a [`store::Stores`], in which
//! each case is a named test. Set `harness = false` for this target in `Cargo.toml`.
//!
//! If a random sequence of calls fails, the kit shortens it and reports it with a seed. Set
//! `PASSKIT_CONFORMANCE_SEED` to that seed to run the same sequences again. [`store::history`]
//! records calls and checks them afterwards. To test your own crash or failover scenario, wrap a
//! store in its `Recorder`.
//!
//! `store/long-history-adds-up` makes calls of all kinds at the same time, and checks the history.
//! The case takes a second. `PASSKIT_CONFORMANCE_FOR` sets another time, such as `90s`, `10m` or
//! `2h`.
//!
//! A call to a store may take 30 seconds. `PASSKIT_CONFORMANCE_TIMEOUT` sets another limit. If
//! three cases had a call that took longer, the remaining cases are not tried. If the store blocks
//! all threads, the process prints the case and the call, and ends.
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
#[cfg(feature = "service")]
mod connections;
mod exchange;
mod length;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "service")]
mod message;
#[cfg(feature = "service")]
pub mod phone;
mod random;
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
