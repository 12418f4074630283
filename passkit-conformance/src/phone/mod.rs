//! A virtual phone. It sends a web service the requests of an iPhone, checks the answers, and
//! complains in the words of a real phone.
//!
//! A [`Phone`] has a [`State`], which is what a phone remembers, and a [`Client`](crate::Client),
//! which sends requests. Save the state in a file between runs. Five operations make requests:
//!
//! | operation | on a real phone | requests |
//! | --- | --- | --- |
//! | [`Phone::add`] | a pass is added | register; list; fetch the listed passes, and the new pass if the phone had a tag |
//! | [`Phone::sync`] | a push arrives | list, fetch the listed passes, fetch the other pending ones |
//! | [`Phone::refresh`] | the user pulls the back of a pass down | fetch, if changed |
//! | [`Phone::remove`] | the user deletes a pass | unregister |
//! | [`Phone::personalize`] | the user fills in the form of a rewards programme | enrol, fetch |
//!
//! As on a real phone, these rules apply:
//! * The update tag and `Last-Modified` are strings. The phone sends them back byte for byte.
//! * The phone stores the new tag as soon as it has read a list answer. If a fetch fails, the
//!   fetch stays pending, and the next [`Phone::sync`] tries it again.
//! * The phone has a separate device identifier and tag for each web service URL and type.
//! * No request is repeated within an operation.
//!
//! A fault of the service is not an error, but a [`Complaint`] in the [`Outcome`]. At the end of an
//! operation, the phone posts the complaints that a real phone would log to `/v1/log`. An observer
//! sees each request and its answer as an [`Exchange`](crate::Exchange), without secrets.
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
//! Where Apple does not document the behaviour of phones, this phone does what real phones were
//! observed to do.

mod archive;
mod complaint;
mod enrolling;
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
pub use passkit_server::enrolment::Person;
