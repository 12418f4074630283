//! A virtual phone. It behaves towards a web service as an iPhone does, checks what it is served,
//! and complains in the words of a real one.
//!
//! A [`Phone`] has a [`State`], which is what a phone remembers, and a [`Client`](crate::Client),
//! which has the connections. Keep the state in a file. Four operations make requests:
//!
//! | operation | on a real phone | requests |
//! | --- | --- | --- |
//! | [`Phone::add`] | a pass is added | register; list; fetch the listed passes, and the new pass if the phone had a tag |
//! | [`Phone::sync`] | a push arrives | list, fetch the listed passes, fetch the other pending ones |
//! | [`Phone::refresh`] | the user pulls the back of a pass down | fetch, if changed |
//! | [`Phone::remove`] | the user deletes a pass | unregister |
//!
//! These rules hold as on a real phone:
//! * The update tag and `Last-Modified` are strings. The phone keeps them and sends them back byte
//!   for byte.
//! * The tag is kept as soon as a list answer is read. A fetch that fails stays pending, and the
//!   next [`Phone::sync`] tries it again.
//! * A device identifier and a tag belong to one web service URL and one type.
//! * No request is repeated within an operation.
//!
//! A fault of the service is no error. It is a [`Complaint`] in the [`Outcome`]. Those that a real
//! phone would log are posted to `/v1/log` at the end of the operation. An observer sees each
//! request and its answer as an [`Exchange`](crate::Exchange), which has no secret in it.
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
//! Where the behaviour of real phones is not documented, this one does what real phones were
//! observed to do.

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
