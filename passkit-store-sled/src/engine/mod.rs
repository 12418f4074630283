//! What is specific to sled: a thread that commits changes in groups, readers that see only what is durable, and rows in
//! memory. This module handles rows and the clocks of types. It knows nothing about registrations or pushes.

// Each file uses only the files that come before it in this list: database, memory, durable, group, reader, writer.

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
