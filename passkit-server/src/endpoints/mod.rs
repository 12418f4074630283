//! One file per endpoint; all of them serve passes and orders alike.

pub(crate) mod latest;
pub(crate) mod log;
pub(crate) mod register;
pub(crate) mod unregister;
pub(crate) mod updatable;
