//! One file per command.

pub(crate) mod check;
pub(crate) mod conformance;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod serve;
