//! Reads request bodies within limits of size, time and memory.

use std::{ops::Deref, pin::pin, time::Duration};

use bytes::{Buf as _, BufMut as _};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::refusal::{Part, Refusal};

/// How long a body may take to arrive.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A limit in bytes for the memory that all bodies in flight take together.
///
/// Anyone may post logs, so logs have only half of the memory. The other half stays free for
/// registrations.
pub(crate) struct BodyBudget {
    pub(crate) logs: Semaphore,
    pub(crate) registrations: Semaphore,
}

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let half = (bytes / 2).min(Semaphore::MAX_PERMITS);
        Self {
            logs: Semaphore::new(half),
            registrations: Semaphore::new(half),
        }
    }
}

/// A complete body. Its memory counts until the body is dropped.
pub(crate) struct RequestBody<'a> {
    bytes: Vec<u8>,
    memory: Option<SemaphorePermit<'a>>,
}

impl Deref for RequestBody<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the complete body. Refuses a body that has more than `limit` bytes, does not arrive in
/// time, or does not fit into the memory.
pub(crate) async fn read<B>(
    body: B,
    limit: usize,
    budget: &Semaphore,
) -> Result<RequestBody<'_>, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Refusal::TooLarge);
    }
    let mut body = pin!(body);
    let mut read = RequestBody {
        bytes: Vec::new(),
        memory: None,
    };
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| Refusal::Malformed(Part::Body, "the body ended early".into()))?;
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            while data.has_remaining() {
                let length = data.chunk().len();
                if read.bytes.len() + length > limit {
                    return Err(Refusal::TooLarge);
                }
                read.reserve(length, limit, budget)?;
                read.bytes.put_slice(data.chunk());
                data.advance(length);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(TIME_LIMIT, reading).await {
        Ok(Ok(())) => Ok(read),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => Err(Refusal::Slow),
    }
}

impl<'a> RequestBody<'a> {
    /// Makes room for `more` bytes, and counts them in the budget.
    fn reserve(&mut self, more: usize, limit: usize, budget: &'a Semaphore) -> Result<(), Refusal> {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let capacity = needed.max(2 * self.bytes.capacity()).min(limit);
        let added = u32::try_from(capacity - self.bytes.capacity()).unwrap_or(u32::MAX);
        let memory = budget
            .try_acquire_many(added)
            .map_err(|_| Refusal::TooManyBodies)?;
        match &mut self.memory {
            Some(before) => before.merge(memory),
            None => self.memory = Some(memory),
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }
}
