//! Makes passes and orders from a template and rows of values. The commands use this module. This
//! module uses no command.
//!
//! [`Maker`] makes a pass from a [row](table::Row). [`Batch`] makes all passes of a [`Table`] in an
//! [`OutputFolder`]. [`LiveMaker`] makes passes while a service runs.

mod batch;
mod dates;
mod file_name;
mod inputs;
mod live;
mod maker;
mod output_folder;
mod parallel;
mod recipe;
mod row_error;
mod secret;
mod table;

pub(crate) use self::{
    batch::{Batch, Change, Event, MadeOne, Summary, open_secret},
    inputs::{Inputs, LOOK_EVERY, Seen},
    live::{LiveMaker, Refused},
    maker::Maker,
    output_folder::{OutputFolder, busy},
    secret::path_for as secret_path,
    table::{MAX_ROW_BYTES, Table},
};
