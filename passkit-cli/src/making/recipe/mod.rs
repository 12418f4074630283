//! `passkit.toml` in a template: which values of a row go where.

mod error;
mod file;
mod filling;
mod source;
mod step;
mod text;

pub(super) use self::{
    file::read,
    filling::{FILE, Recipe, Serial, Token},
};
