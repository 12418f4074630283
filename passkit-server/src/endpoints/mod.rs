//! One file for each endpoint. Every endpoint serves passes and orders.

pub(crate) mod latest;
pub(crate) mod log;
pub(crate) mod register;
pub(crate) mod unregister;
pub(crate) mod updatable;
