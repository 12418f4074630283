//! Makes passes and orders from a template and rows of values. The commands use this module, and it
//! uses no command.
//!
//! [`Maker`] makes a pass of a [`Row`]. [`Batch`] makes all passes of a [`Table`] in an
//! [`OutputFolder`].

mod batch;
mod dates;
mod file_name;
mod maker;
mod output_folder;
mod parallel;
mod recipe;
mod secret;
mod table;

pub(crate) use self::{
    batch::{Batch, Change, Event, Summary, open_secret},
    maker::Maker,
    output_folder::OutputFolder,
    table::Table,
};
