//! The identifier of a request, for the log.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderName, HeaderValue, Request};

/// Proxies send this header.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The length of the longest identifier that is taken from a proxy.
const MAX_LENGTH: usize = 128;

tokio::task_local! {
    static CURRENT: RequestId;
}

#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// The identifier that a proxy chose.
    Given(HeaderValue),
    Own(u64),
}

impl RequestId {
    /// Takes the identifier from the header of a proxy if it is short and plain. Otherwise makes one.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let given = request.headers().get(X_REQUEST_ID);
        given
            .filter(|id| is_plain(id.as_bytes()))
            .map_or_else(Self::new, |id| Self::Given(id.clone()))
    }

    /// Makes an identifier. It does not reveal how many requests there were.
    fn new() -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self::Own(KEY.hash_one(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a function. The log lines of this function have the identifier.
    pub(crate) fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), run)
    }

    /// Runs a future. The log lines of this future have the identifier.
    pub(crate) async fn over<T>(&self, future: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), future).await
    }

    /// Returns the identifier of the request that this task answers, if it answers one.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    pub(crate) fn header(&self) -> Option<HeaderValue> {
        match self {
            Self::Given(id) => Some(id.clone()),
            Self::Own(_) => HeaderValue::try_from(self.to_string()).ok(),
        }
    }
}

fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=~".contains(byte);
    !id.is_empty() && id.len() <= MAX_LENGTH && id.iter().all(plain)
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(id) => f.write_str(id.to_str().unwrap_or_default()),
            Self::Own(id) => write!(f, "{id:016x}"),
        }
    }
}
