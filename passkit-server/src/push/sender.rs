use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;

use crate::{
    delivery::PushFailure,
    identifiers::{PushToken, TypeIdentifier},
};

/// Sends pushes to APNs or to another push service.
///
/// A push only means "something of this type changed". A push may arrive twice, and one push may
/// cover several changes.
///
/// Source: Apple's *Sending notification requests to APNs*.
#[async_trait]
pub trait PushSender: Send + Sync {
    /// Returns whether this sender can send pushes of this topic, for example whether it has the
    /// certificate. Other pushes stay pending for another sender.
    fn covers(&self, topic: &TypeIdentifier) -> bool;

    /// Returns a name for the credentials and the service that pushes of this topic are sent with.
    /// The name has 1 to 200 printable ASCII characters and no secrets. It changes when the
    /// certificate, the key or the server changes.
    ///
    /// The [publisher](crate::push::Publisher) notes in the store for which credentials APNs has
    /// accepted a push. If APNs calls all tokens bad, the publisher suspects the credentials only
    /// if APNs has never accepted a push for them.
    fn credentials(&self, topic: &TypeIdentifier) -> String;

    /// Sends one push for `topic`, the type of the passes that changed, and returns its outcome.
    ///
    /// Many tasks call this method at the same time. The call must end in bounded time, even if the
    /// network hangs. If the future is dropped, the push may or may not have been sent.
    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome;
}

#[async_trait]
impl<T: PushSender + ?Sized> PushSender for Arc<T> {
    fn covers(&self, topic: &TypeIdentifier) -> bool {
        (**self).covers(topic)
    }

    fn credentials(&self, topic: &TypeIdentifier) -> String {
        (**self).credentials(topic)
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

    fn credentials(&self, topic: &TypeIdentifier) -> String {
        (**self).credentials(topic)
    }

    async fn push(&self, topic: &TypeIdentifier, token: &PushToken) -> PushOutcome {
        (**self).push(topic, token).await
    }
}

/// The outcome of a push. It decides what the publisher does next. A reason is the text of the
/// service, such as `BadDeviceToken`, or a short description. It contains no secret.
///
/// Source: Apple's *Handling notification responses from APNs*.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushOutcome {
    /// Status 200: the push was accepted. It may still not arrive at the phone.
    Sent,
    /// Status 410: the token went out of use at this time. The device is removed, unless it
    /// registered again since.
    Gone(SystemTime),
    /// `BadDeviceToken` or `DeviceTokenNotForTopic`: the token is invalid, or is for another topic
    /// or environment. The push is not tried again for this change.
    /// [`Publisher`](crate::push::Publisher) describes when the device is removed.
    BadToken(String),
    /// The service will never accept this request, because of a fault in our program. The push is
    /// not tried again for this change.
    Rejected(String),
    /// The service accepts no push of this topic until an operator fixes the certificate, key or
    /// topic.
    Misconfigured(String),
    /// The sender does not support this kind of token, see [`PushToken::is_apns`]. No push was
    /// sent, and the device stays registered.
    Unsupported,
    /// Status 429: too many pushes to this token. The push is tried again later.
    TooMany(String),
    /// Status 5xx: the service has a fault. The push is tried again after 15 minutes or more.
    Unavailable(String),
    /// No answer: the connection failed or timed out. The push is tried again soon.
    Unreachable(String),
}

impl PushOutcome {
    /// The value of the label `outcome` in metrics.
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

    /// Returns how a push failed, and the reason from the push service. Returns `None` if the push was
    /// accepted.
    pub(super) fn failure(&self) -> Option<(PushFailure, &str)> {
        Some(match self {
            Self::Sent => return None,
            Self::Gone(_) => (PushFailure::Gone, ""),
            Self::BadToken(reason) => (PushFailure::BadToken, reason),
            Self::Rejected(reason) => (PushFailure::Rejected, reason),
            Self::Misconfigured(reason) => (PushFailure::Misconfigured, reason),
            Self::Unsupported => (PushFailure::Unsupported, ""),
            Self::TooMany(reason) => (PushFailure::TooMany, reason),
            Self::Unavailable(reason) => (PushFailure::Unavailable, reason),
            Self::Unreachable(reason) => (PushFailure::Unreachable, reason),
        })
    }
}
