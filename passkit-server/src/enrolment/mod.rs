//! Rewards enrolment: a customer who adds a pass gives some personal data, and gets a personal
//! pass.
//!
//! A pass offers enrolment if it contains `personalization.json`. Wallet then asks for the data, and
//! posts them to `/v1/passes/{type}/{serial}/personalize`. An [`Enrolment`], given to
//! [`WalletService::enrolment`](crate::WalletService::enrolment), answers this call.
//!
//! Sources: Apple's *Wallet Passes: Return a Personalized Pass*, and *PassKit Programming Guide*,
//! rewards.

mod once;
mod person;
mod turns;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use tokio::time::{Instant, timeout_at};

use crate::{
    Changed, PassId, SourceError,
    body::ResponseBody,
    identifiers::TypeIdentifier,
    push::Publisher,
    refusal::Refusal,
    response,
    store::{ContentDigest, Coordination, clock},
};

pub(crate) use self::once::forget;
pub use self::person::{InvalidToken, Person, PersonalizationToken};
use self::{
    once::Once,
    turns::{Place, Turns},
};

/// The largest body in bytes.
pub(crate) const BODY_LIMIT: usize = 16 * 1024;

/// How long an enrolment may take. A customer is waiting, and a phone tries only once.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long after an enrolment a repeated request is answered like the first one. An answer may get
/// lost, and a second device of the customer may still show the form.
const REPEATS: Duration = Duration::from_secs(24 * 3_600);

/// Enrols customers. Your program implements it, usually beside the
/// [`PassSource`](crate::PassSource).
#[async_trait]
pub trait Enroller: Send + Sync {
    /// Returns whether the pass offers enrolment now: whether its archive contains
    /// `personalization.json`.
    async fn offers(&self, pass: &PassId) -> Result<bool, SourceError>;

    /// Stores the data of the customer, and makes the personalised version of the pass available:
    /// afterwards, [`PassSource::archive`](crate::PassSource::archive) returns an archive without
    /// `personalization.json`, on every instance.
    ///
    /// The service then marks the pass, and makes its push pending. It does not if other content of
    /// the pass was [published](Changed::Contents) during the call, because the pass is marked then.
    ///
    /// The service makes one call at a time for a pass, also with several instances. After a call
    /// that succeeded, it makes no other, unless the store failed right after it.
    ///
    /// The call should end within 20 seconds. Otherwise the phone gets 503, and the customer may try
    /// again. If the call fails, or takes longer, another call may come with other data. If the
    /// data were stored although the call failed, keep the first data, and return `Ok`.
    async fn enrol(&self, pass: &PassId, person: &Person) -> Result<(), SourceError>;
}

/// Signs personalization tokens with the certificate of a pass type. `Signer` of `passkit-archive`
/// implements it.
#[async_trait]
pub trait TokenSigner: Send + Sync {
    /// Returns a detached signature over the bytes of the token: CMS in DER, with the certificate
    /// of the type and its issuer. Returns `None` if this signer is not for passes of the type.
    async fn sign(
        &self,
        type_id: &TypeIdentifier,
        token: &PersonalizationToken,
    ) -> Result<Option<Vec<u8>>, SourceError>;
}

/// What a service needs to enrol customers.
///
/// An instance works on at most 32 requests at once, and on one of each pass. Up to 512 requests work
/// or wait, 24 of them of one pass. Further requests, and requests that wait longer than 20 seconds,
/// are answered 503.
///
/// For each request, in this order: the enroller has stored the data and made the personalised pass
/// available; the pass is marked and its push is pending; the request is answered 200 with the
/// signature. If a step fails, the answer is 503, and a repeated request does the rest. For 24
/// hours, repeated requests for the pass are signed and answered 200, and change nothing. After
/// that, they are answered 404.
///
/// A request needs the authentication token of its pass. A stranger may choose the text to sign. So
/// the service signs only a [`PersonalizationToken`], which can't be a manifest.
#[derive(Clone)]
pub struct Enrolment(Arc<Parts>);

struct Parts {
    store: Arc<dyn Coordination>,
    publisher: Arc<Publisher>,
    enroller: Arc<dyn Enroller>,
    signer: Arc<dyn TokenSigner>,
    turns: Arc<Turns>,
}

impl Enrolment {
    /// Makes an enrolment. `store` remembers which passes were enrolled, and all instances share
    /// it.
    #[must_use]
    pub fn new(
        store: Arc<dyn Coordination>,
        publisher: Arc<Publisher>,
        enroller: Arc<dyn Enroller>,
        signer: Arc<dyn TokenSigner>,
    ) -> Self {
        Self(Arc::new(Parts {
            store,
            publisher,
            enroller,
            signer,
            turns: Arc::new(Turns::new()),
        }))
    }

    /// Answers the request of a phone. The request is already authorized.
    ///
    /// The work continues if the phone closes its connection, so that no enrolment is half done.
    pub(crate) async fn answer(
        &self,
        pass: PassId,
        body: &[u8],
    ) -> Result<Response<ResponseBody>, Refusal> {
        let (token, person) = person::parse(body)?;
        let parts = self.0.clone();
        let place = parts.turns.place(&pass).ok_or(Refusal::TooManyEnrolments)?;
        let work = tokio::spawn(async move { parts.enrol(&place, &pass, &token, &person).await });
        let signature = work
            .await
            .map_err(|error| Refusal::Source(error.into()))??;
        let mut answer = response::with_body(StatusCode::OK, signature);
        let octets = HeaderValue::from_static("application/octet-stream");
        answer.headers_mut().insert(CONTENT_TYPE, octets);
        Ok(answer)
    }
}

/// Waits for a step until this time.
async fn within<T>(
    end: Instant,
    step: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let slow = |_| Refusal::Source("an enrolment took longer than 20 s".into());
    timeout_at(end, step).await.map_err(slow)?
}

impl Parts {
    async fn enrol(
        &self,
        place: &Place,
        pass: &PassId,
        token: &PersonalizationToken,
        person: &Person,
    ) -> Result<Bytes, Refusal> {
        let end = Instant::now() + PATIENCE;
        let turn = timeout_at(end, place.turn()).await;
        let _turn = turn.map_err(|_| Refusal::TooManyEnrolments)?;
        let once = Once::of(&*self.store, pass);
        if let Some(at) = once.done_at().await? {
            return self.repeat(pass, token, at).await;
        }
        // Nothing is signed for a pass that offers no enrolment.
        let offers = async { self.enroller.offers(pass).await.map_err(Refusal::Source) };
        let offers = within(end, offers).await?;
        let enrolled = self.enrol_once(&once, offers, end, pass, token, person);
        let enrolled = enrolled.await;
        // If this fails, the claim ends by itself.
        let _ = once.release().await;
        enrolled
    }

    /// Enrols a customer, unless another request has done so. The caller then releases the claim.
    async fn enrol_once(
        &self,
        once: &Once<'_>,
        offers: bool,
        end: Instant,
        pass: &PassId,
        token: &PersonalizationToken,
        person: &Person,
    ) -> Result<Bytes, Refusal> {
        if !once.claim(end).await? {
            return Err(Refusal::TooManyEnrolments);
        }
        if let Some(at) = once.done_at().await? {
            // Another instance has just enrolled this pass. It may have done so before `offers`.
            return self.repeat(pass, token, at).await;
        }
        // After a failure, the personal version may be there already, although the pass is not marked.
        if !offers && !once.was_begun().await? {
            return Err(Refusal::NotFound);
        }
        // The signature comes first: if the signer fails, nothing was stored.
        let signature = within(end, self.sign(pass, token)).await?;
        let before = self.published(pass).await?;
        once.begun().await?;
        let store = async {
            let stored = self.enroller.enrol(pass, person).await;
            stored.map_err(Refusal::Source)
        };
        within(end, store).await?;
        // Phones are not told twice about a version that was published meanwhile. A version that was
        // published before an earlier request failed may be told twice.
        if self.published(pass).await? == before {
            let changed = Changed::Passes(std::slice::from_ref(&pass.serial));
            self.publisher.publish(&pass.type_id, changed).await?;
        }
        once.done().await?;
        Ok(signature)
    }

    /// Returns the digest of the content that was published last.
    async fn published(&self, pass: &PassId) -> Result<Option<ContentDigest>, Refusal> {
        let state = self.publisher.store().pass_state(pass).await?;
        Ok(state.published)
    }

    /// Answers a request for a pass that was enrolled at this time.
    async fn repeat(
        &self,
        pass: &PassId,
        token: &PersonalizationToken,
        at: u64,
    ) -> Result<Bytes, Refusal> {
        let age = clock::now_micros().saturating_sub(at);
        if Duration::from_micros(age) > REPEATS {
            return Err(Refusal::NotFound);
        }
        tracing::info!("{pass}: an enrolment was repeated; the first data stay");
        self.sign(pass, token).await
    }

    async fn sign(&self, pass: &PassId, token: &PersonalizationToken) -> Result<Bytes, Refusal> {
        let signature = self.signer.sign(&pass.type_id, token).await;
        let none = || {
            let type_id = &pass.type_id;
            Refusal::Source(format!("no certificate signs enrolments for {type_id}").into())
        };
        let signature = signature.map_err(Refusal::Source)?.ok_or_else(none)?;
        Ok(signature.into())
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}
