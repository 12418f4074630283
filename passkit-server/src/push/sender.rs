use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;

use crate::identifiers::{PushToken, TypeIdentifier};

/// Where pushes go: APNs, or another service that wakes devices.
///
/// A push says no more than "something of this type changed". It may arrive twice, and one push may stand for several
/// changes.
///
/// Source: Apple's *Sending notification requests to APNs*.
#[async_trait]
pub trait PushSender: Send + Sync {
    /// Whether it has what pushes of this topic need, such as a certificate. Other pushes stay pending, for another
    /// sender.
    fn covers(&self, topic: &TypeIdentifier) -> bool;

    /// Sends one push for `topic`, the type of the passes that changed, and returns its outcome.
    ///
    /// Many tasks call it at once. It ends in bounded time, whatever the network does. A future that is dropped half way
    /// has sent the push or not.
    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome;
}

#[async_trait]
impl<T: PushSender + ?Sized> PushSender for Arc<T> {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        (**self).covers(topic)
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        (**self).push(topic, token).await
    }
}

#[async_trait]
impl<T: PushSender + ?Sized> PushSender for Box<T> {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        (**self).covers(topic)
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        (**self).push(topic, token).await
    }
}

/// The outcome of a push, as far as it decides what happens next. A reason is the service's own word, such as
/// `BadDeviceToken`, or a short text. It contains no secret.
///
/// Source: Apple's *Handling notification responses from APNs*.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushOutcome {
    /// Accepted, which does not mean delivered: status 200.
    Sent,
    /// The token went out of use at this time: status 410. The device is forgotten unless it registered since.
    Gone(SystemTime),
    /// The token is not one of this topic and environment, or none at all: `BadDeviceToken`, `DeviceTokenNotForTopic`.
    /// Not tried again for this change; see [`Publisher`](crate::push::Publisher) for what becomes of the device.
    BadToken(String),
    /// This request will never be accepted as it is: a fault of the program. Not tried again for this change.
    Rejected(String),
    /// No push of this topic will be accepted until an operator acts: certificate, key or topic are wrong or missing.
    Misconfigured(String),
    /// The token is of a kind that this sender has no service for, see [`PushToken::is_apns`]. Nothing was sent, and the
    /// device stays registered.
    Unsupported,
    /// Too many pushes to this token: status 429. Tried again later.
    TooMany(String),
    /// The service has a fault of its own: status 5xx. Tried again after a quarter of an hour or more.
    Unavailable(String),
    /// No answer: the connection failed or timed out. Tried again soon.
    Unreachable(String),
}

impl PushOutcome {
    /// The label of a metric.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Gone(_) => "gone",
            Self::BadToken(_) => "bad_token",
            Self::Rejected(_) => "rejected",
            Self::Misconfigured(_) => "misconfigured",
            Self::Unsupported => "unsupported",
            Self::TooMany(_) => "too_many",
            Self::Unavailable(_) => "unavailable",
            Self::Unreachable(_) => "unreachable",
        }
    }
}
