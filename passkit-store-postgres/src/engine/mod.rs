//! What is specific to PostgreSQL: statements that several callers share, connections that stay at hand, and migrations.

pub(crate) mod batch;
pub(crate) mod connections;
pub(crate) mod migrate;
pub(crate) mod rows;
