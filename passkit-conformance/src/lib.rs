#![doc = include_str!("../README.md")]

pub mod phone;
pub mod store;
