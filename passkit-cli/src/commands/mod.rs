//! One file per command.

mod all_types;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod conformance;
pub(crate) mod copy;
mod csv;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod healthcheck;
pub(crate) mod import;
pub(crate) mod make;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod new;
pub(crate) mod preview;
mod progress;
pub(crate) mod purge;
pub(crate) mod push;
pub(crate) mod repair;
pub(crate) mod restored;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod stats;
