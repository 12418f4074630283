//! The service with passes in memory, and the requests to it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    identifiers::TokenDigest,
    maintenance::StoreMaintenance,
    store::{Content, ContentDigest},
};

use crate::data::{self, EACH, TYPE};

/// The usual number of registrations.
pub const REGISTRATIONS: usize = 99_999;

const TOKEN: &str = "a-token-of-the-bench";

/// The digest of every pass. Digests of different passes are never compared.
const DIGEST: ContentDigest = [7; 32];

/// A request, named after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Nothing changed.
    ListNothing,
    /// All three passes of a device.
    ListAll,
    /// A pass that has not changed.
    PassUnchanged,
    /// An archive of a usual size.
    PassSmall,
    /// An archive with large pictures.
    PassLarge,
    /// A new device.
    Register,
}

impl Case {
    /// All requests.
    pub const ALL: [Self; 6] = [
        Self::ListNothing,
        Self::ListAll,
        Self::PassUnchanged,
        Self::PassSmall,
        Self::PassLarge,
        Self::Register,
    ];

    /// Returns a name for the table of results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ListNothing => "list 204",
            Self::ListAll => "list 200",
            Self::PassUnchanged => "pass 304",
            Self::PassSmall => "pass 200 of 20 KB",
            Self::PassLarge => "pass 200 of 1 MB",
            Self::Register => "register 201",
        }
    }

    /// Returns the status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::ListNothing => 204,
            Self::ListAll | Self::PassSmall | Self::PassLarge => 200,
            Self::PassUnchanged => 304,
            Self::Register => 201,
        }
    }

    /// Returns the request with this number. `tag` is the tag of the first device.
    #[must_use]
    pub fn request(self, tag: &str, number: usize) -> Request<Bytes> {
        let device = data::device(match self {
            Self::ListNothing => 0,
            Self::Register => REGISTRATIONS + number,
            _ => number % (REGISTRATIONS / EACH),
        });
        let list = format!("/v1/devices/{}/registrations/{TYPE}", device.as_str());
        let pass = |serial| format!("/v1/passes/{TYPE}/{serial}");
        let request = match self {
            Self::ListNothing => Request::get(format!("{list}?passesUpdatedSince={tag}")),
            Self::ListAll => Request::get(list),
            Self::PassUnchanged | Self::PassSmall => {
                Request::get(pass(data::serial(number % REGISTRATIONS)))
            }
            Self::PassLarge => Request::get(pass(large())),
            Self::Register => {
                Request::post(format!("{list}/{}", data::serial(number % REGISTRATIONS)))
            }
        };
        let request = match self {
            Self::ListNothing | Self::ListAll => request,
            _ => request.header("authorization", format!("ApplePass {TOKEN}")),
        };
        let request = match self {
            // This time is not earlier than any mark.
            Self::PassUnchanged => request.header(
                "if-modified-since",
                httpdate::fmt_http_date(SystemTime::now()),
            ),
            _ => request,
        };
        let body = match self {
            Self::Register => format!(r#"{{"pushToken":"{}"}}"#, data::token().as_str()),
            _ => String::new(),
        };
        request.body(body.into()).expect("a request")
    }
}

fn large() -> passkit_server::identifiers::SerialNumber {
    data::serial_of_many(0)
}

/// All passes. They share one authentication token.
#[derive(Clone, Debug)]
pub struct Passes {
    token: TokenDigest,
    small: Bytes,
    large: Bytes,
}

#[async_trait]
impl PassSource for Passes {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Some(self.token.into()))
    }

    async fn archive(
        &self,
        pass: &PassId,
        state: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        // A source that keeps copies makes the same comparison.
        if state.published.is_some_and(|published| published != DIGEST) {
            return Err("other content was published".into());
        }
        Ok(Some(
            if pass.serial == large() {
                self.large.clone()
            } else {
                self.small.clone()
            }
            .into(),
        ))
    }
}

/// Returns the archive of 1 MB.
#[must_use]
pub fn large_archive() -> Bytes {
    vec![b'p'; 1 << 20].into()
}

/// Returns the service over a store.
#[must_use]
pub fn service<S: StoreMaintenance + 'static>(store: Arc<S>) -> WalletService<Arc<S>, Passes> {
    let token = AuthToken::new(TOKEN).expect("a token").digest();
    WalletService::new(
        store,
        Passes {
            token,
            small: vec![b'p'; 20 << 10].into(),
            large: large_archive(),
        },
    )
}

/// Fills a store and publishes the content of each pass. Returns the tag of the first device after that.
pub async fn load<S: StoreMaintenance>(store: &S, registrations: usize) -> String {
    for first in (0..registrations).step_by(10_000) {
        let part = data::registrations(first..registrations.min(first + 10_000));
        store.register_many(&part).await.expect("registered");
    }
    let token = AuthToken::new(TOKEN).expect("a token").digest();
    let content = |i| Content {
        serial: data::serial(i),
        digest: Some(DIGEST),
        tokens: vec![token],
    };
    let contents: Vec<_> = (0..registrations).map(content).collect();
    store
        .mark(&data::type_id(), Changed::Contents(&contents))
        .await
        .expect("published");
    // A pass that was just created may have a date of the next second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    tag(store).await
}

/// Returns the tag of the first device.
pub async fn tag<S: StoreMaintenance>(store: &S) -> String {
    let changes = store
        .changes_since(&data::device(0), &data::type_id(), None)
        .await;
    changes.expect("an answer").tag.to_string()
}

/// Returns the request with the body type of the service.
#[must_use]
pub fn with_body(request: Request<Bytes>) -> Request<Body> {
    request.map(Body::from)
}
