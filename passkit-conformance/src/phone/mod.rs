//! A phone made of software: it behaves towards a web service as an iPhone does, checks what it is served, and
//! complains in the words of a real one.
//!
//! A [`Phone`] is a [`State`] (what a phone remembers, to be kept in a file) and a [`Client`](crate::Client) (the connections). Four
//! operations make requests:
//!
//! | operation | on a real phone | requests |
//! | --- | --- | --- |
//! | [`Phone::add`] | a pass is added | register; list; fetch what is listed, and the new pass if a tag was kept |
//! | [`Phone::sync`] | a push arrives | list, fetch what is listed, fetch what is still owed |
//! | [`Phone::refresh`] | the user pulls the back of a pass down | fetch, if changed |
//! | [`Phone::remove`] | the user deletes a pass | unregister |
//!
//! As on a real phone, the update tag and `Last-Modified` are strings that are kept and sent back byte for byte, never
//! understood; the tag is kept as soon as a list answer is read, so a fetch that fails is owed and tried again by the
//! next [`Phone::sync`]; a device identifier and a tag belong to one web service URL and one type. No request is
//! repeated within an operation.
//!
//! What goes wrong with the service is no error but a [`Complaint`] in the [`Outcome`]; those that a real phone would
//! log are posted to `/v1/log` at the end of the operation. Each request and its answer are shown to an observer as an
//! [`Exchange`](crate::Exchange), with no secret in it.
//!
//! ```no_run
//! use passkit_conformance::{Client, phone::{Phone, State}};
//!
//! # async fn example(archive: &[u8]) -> Result<(), passkit_conformance::phone::Error> {
//! let path = std::path::Path::new("phone.json");
//! let state = if path.exists() { State::load(path)? } else { State::new()? };
//! let mut phone = Phone::new(state, Client::default());
//! phone.observe(|exchange| println!("{exchange}"));
//! let outcome = phone.add(archive, None).await?;
//! for complaint in &outcome.complaints {
//!     println!("{complaint}");
//! }
//! phone.state().save(path)
//! # }
//! ```
//!
//! Where the behaviour of real phones is not documented, this one follows what is seen of them in the field.

mod archive;
mod complaint;
mod error;
mod fetching;
mod listing;
mod operations;
mod state;

pub use self::{
    complaint::Complaint,
    error::Error,
    operations::{Outcome, Phone},
    state::{HeldPass, Service, State},
};
pub use passkit_archive::Rules;
