#![doc = include_str!("../README.md")]

mod case;
#[cfg(feature = "cli")]
pub mod cli;
mod client;
#[cfg(feature = "cli")]
mod closest;
mod exchange;
#[cfg(feature = "load")]
pub mod load;
pub mod phone;
mod report;
mod rule;
pub mod service;
#[cfg_attr(not(feature = "load"), allow(unreachable_pub, reason = "public through `load`"))]
mod service_url;
pub mod store;
#[cfg(feature = "trials")]
mod trials;
mod violation;
#[cfg_attr(not(feature = "load"), allow(unreachable_pub, reason = "public through `load`"))]
mod wire;

#[cfg(feature = "trials")]
pub use libtest_mimic;

pub use self::{
    case::{Case, CaseResult, Level, Outcome, Stop},
    client::{Client, Limits},
    exchange::Exchange,
    report::{CaseReport, Counts, Report},
    rule::Rule,
    violation::Violation,
};

pub(crate) fn random_hex<const BYTES: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
