//! What is peculiar to this store: callers that share statements, connections kept at hand, and migrating.

pub(crate) mod batch;
pub(crate) mod connections;
pub(crate) mod migrate;
pub(crate) mod rows;
