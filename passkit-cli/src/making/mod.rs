//! Makes passes and orders from a template and rows of values. The commands use this module, and it
//! uses no command.

mod dates;
mod maker;
mod recipe;
mod table;

pub(crate) use self::{
    maker::{Filled, Made, Maker, RowError},
    table::{Columns, Row, Table},
};
