//! Answers the question "why does my phone not update?" for one pass.
//!
//! [`explain`] reads what the store knows about a pass, its phones and its pushes, and finds the
//! most likely cause for each phone. The result, an [`Explanation`], is printed by `passkit
//! explain`.
//!
//! * A fetch names no device. So no text says which phone fetched a pass.
//! * Delivery records may be missing, because they were off, or because old records were discarded.
//!   If a record is missing, the cause says what is unknown.
//! * A phone is shown as a short digest. No text has a device identifier or a token.
//!
//! | file | what it has |
//! |---|---|
//! | `facts.rs` | what is known, as plain values |
//! | `gather.rs` | reads the facts from a store, with a bounded number of calls |
//! | `content.rs` | what the archive says, and what changed since another version of it |
//! | `cause.rs` | the causes, and a sentence for each |
//! | `reasoning.rs` | from the facts to the causes |
//! | `timeline.rs` | what happened, in the order of time |
//! | `text.rs`, `json.rs` | the explanation as text and as JSON |

mod cause;
mod content;
mod facts;
mod gather;
mod json;
mod reasoning;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod timeline;

use passkit_server::{
    PassId,
    store::{PageCursor, StoreError},
};

pub(crate) use cause::Cause;
pub(crate) use content::{Content, Version};
pub(crate) use facts::{PassFacts, Phone, Time};
pub(crate) use timeline::Entry;

use crate::store::Store;

/// What is known about the delivery of a pass, and why its phones may not have the newest version.
pub(crate) struct Explanation {
    pub(crate) pass: PassFacts,
    /// The phones that were read, with the worst first.
    pub(crate) phones: Vec<(Phone, Cause)>,
    pub(crate) timeline: Vec<Entry>,
    /// The cause that concerns the pass, or most of the phones that don't have the newest version.
    pub(crate) cause: Cause,
    /// How many of the phones that were read have this cause. `None` if the cause concerns the pass.
    pub(crate) concerned: Option<usize>,
}

impl Explanation {
    /// Returns whether something is wrong with the pass or with one of the phones that were read.
    pub(crate) fn is_wrong(&self) -> bool {
        self.cause.is_wrong()
    }
}

/// Explains how far the newest version of a pass came. Reads at most about `most_phones` phones.
pub(crate) async fn explain(
    store: &dyn Store,
    pass: &PassId,
    content: Option<Content>,
    most_phones: usize,
) -> Result<Explanation, StoreError> {
    let explained = explain_page(store, pass, content, None, most_phones).await?;
    Ok(explained.0)
}

/// Explains a pass with a page of its phones, from the start or after the page that ended at
/// `after`. Also returns where the next page begins.
pub(crate) async fn explain_page(
    store: &dyn Store,
    pass: &PassId,
    content: Option<Content>,
    after: Option<&PageCursor>,
    most_phones: usize,
) -> Result<(Explanation, Option<PageCursor>), StoreError> {
    let (pass, phones, next) = gather::gather(store, pass, content, after, most_phones).await?;
    Ok((reasoning::conclude(pass, phones), next))
}
