//! Telling a store what changed.

use std::sync::Arc;

use passkit_server::{Publisher, PushQueue, SerialNumber, StoreError, TypeIdentifier};
use tracing::{Instrument as _, Span, debug_span};

use crate::store::OpenStore;

/// Marks passes in a store, and owes their pushes where somebody will send them.
#[derive(Clone)]
pub(crate) struct Marking {
    pub(crate) store: OpenStore,
    pub(crate) publisher: Option<Arc<Publisher>>,
}

impl Marking {
    /// Whether this process sends the pushes of a type.
    pub(crate) fn sends(&self, type_id: &TypeIdentifier) -> bool {
        self.publisher.as_ref().is_some_and(|publisher| publisher.covers(type_id))
    }

    /// Where the pushes of a type are owed: nowhere if only this process could send them, and can't.
    pub(crate) fn owes(&self, type_id: &TypeIdentifier) -> Option<&Arc<dyn PushQueue>> {
        let others_may = self.store.published.is_some();
        (others_may || self.sends(type_id)).then_some(&self.store.queue)
    }

    pub(crate) async fn mark(
        &self,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
    ) -> Result<(), StoreError> {
        let marked = async {
            match self.owes(type_id) {
                Some(queue) => queue.mark_and_owe(type_id, serials).await,
                None => self.store.registrations.mark_updated(type_id, serials).await,
            }
        };
        marked.instrument(publish_span(type_id, Some(serials.len()))).await?;
        self.wake();
        Ok(())
    }

    pub(crate) async fn mark_all(&self, type_id: &TypeIdentifier) -> Result<(), StoreError> {
        let marked = async {
            match self.owes(type_id) {
                Some(queue) => queue.mark_all_and_owe(type_id).await,
                None => self.store.registrations.mark_all_updated(type_id).await,
            }
        };
        marked.instrument(publish_span(type_id, None)).await?;
        self.wake();
        Ok(())
    }

    /// Pushes may be owed that are to go out now.
    pub(crate) fn wake(&self) {
        if let Some(publisher) = &self.publisher {
            publisher.wake();
        }
    }
}

/// The step `publish`, as [`Publisher`] traces it.
pub(crate) fn publish_span(type_id: &TypeIdentifier, passes: Option<usize>) -> Span {
    debug_span!("publish", %type_id, passes)
}
