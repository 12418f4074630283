//! What is peculiar to this store: one thread that commits changes in groups, readers that see only what is durable, and
//! rows in memory. It knows rows and the clocks of types, and nothing of registrations or pushes.

mod database;
mod durable;
mod group;
mod memory;
mod reader;
mod writer;

pub(crate) use database::{Database, FolderLock};
pub(crate) use durable::{DurableRows, Unanswered, View};
pub(crate) use group::{Group, ROWS};
pub(crate) use reader::Readers;
pub(crate) use writer::Writer;
