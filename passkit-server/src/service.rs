//! The web service: Apple's endpoints over a store and a source.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, request::Parts};
use http_body::Body;
use tower_service::Service;

use crate::{
    PassSource,
    authorization::{Access, authorize},
    delivery::DeliveryRecorder,
    device_limit::DeviceLimit,
    device_log::{DeviceLog, TracingLog},
    endpoints::{latest::latest, log, register, unregister::unregister, updatable::updatable},
    enrolment::{self, Enrolment},
    identifiers::{Kind, TypeIdentifier},
    refusal::Refusal,
    refused::RefusedLog,
    request_body::{self, BodyBudget},
    route::{Route, decode, enrolled_serial, serial_candidates},
    store::RegistrationStore,
};

pub use crate::{
    body::ResponseBody,
    prefix::{InvalidPrefix, Prefix},
};

/// The web service: Apple's endpoints for passes and orders, as a [`tower` service](Service).
///
/// It handles paths that start with `/v1/`. Mount it where the `webServiceURL` of your passes
/// points: at the root, or [below a path](#below-a-path). Clones share their state.
///
/// | call | method and path | answers |
/// |---|---|---|
/// | register | `POST /v1/devices/{device}/registrations/{type}/{serial}` | 201 new, 200 known, 400, 401, 413 |
/// | unregister | `DELETE` on the same path | 200, 401 |
/// | what changed? | `GET /v1/devices/{device}/registrations/{type}?passesUpdatedSince={tag}` | 200, 204 |
/// | get | `GET`, `HEAD /v1/passes/{type}/{serial}`, `/v1/orders/{type}/{serial}` | 200, 304, 401 |
/// | log | `POST /v1/log` | 200, 413 |
/// | enrol | `POST /v1/passes/{type}/{serial}/personalize` | 200, 400, 401, 404, 413 |
///
/// If a pass changes twice within a second, a fetch of the pass may take up to a second longer. The
/// service waits because no two versions may share a `Last-Modified`, and no answer may carry a
/// `Last-Modified` later than its own date.
///
/// Every call may also get one of these answers: 400 for a malformed path, 404 for an unknown path,
/// 405 for another method, and 408 for a body that takes longer than ten seconds. If the store or
/// the source fails, the answer is 500, or 503 with `Retry-After`.
///
/// # Below a path
/// If passes have the `webServiceURL` `https://example.com/api/wallet`, phones ask for
/// `/api/wallet/v1/…`. A router that nests the service removes `/api/wallet` from the path. With
/// axum:
///
/// ```
/// # use passkit_server::{PassSource, WalletService, store::RegistrationStore};
/// # fn app<S: RegistrationStore + 'static, P: PassSource + 'static>(store: S, source: P) -> axum::Router {
/// axum::Router::new().nest_service("/api/wallet", WalletService::new(store, source))
/// # }
/// ```
///
/// If there is no router, and your proxy passes on the whole path, set [`prefix`](Self::prefix).
///
/// # Refused requests
/// Each refused request is an event at the level `debug`, with the reason. Once a minute, there is
/// an event at the level `info` for each reason, with the number of requests. No event contains a
/// token or a device identifier.
///
/// Sources: Apple's *Wallet Passes: Adding a Web Service to Update Passes* and *Wallet Orders*, web
/// service.
pub struct WalletService<S, P> {
    /// One pointer, because the service is cloned for each request.
    shared: Arc<Shared<S, P>>,
}

struct Shared<S, P> {
    store: Arc<S>,
    source: Arc<P>,
    options: Options,
}

#[derive(Clone)]
struct Options {
    device_log: Arc<dyn DeviceLog>,
    other_wallets: bool,
    order_media_type: HeaderValue,
    device_limit: Arc<DeviceLimit>,
    body_budget: Arc<BodyBudget>,
    prefix: Prefix,
    refused: Arc<RefusedLog>,
    enrolment: Option<Enrolment>,
    recorder: Option<DeliveryRecorder>,
}

/// The default of [`WalletService::max_devices_per_pass`].
pub const MAX_DEVICES_PER_PASS: u64 = 5_000_000;

/// The default of [`WalletService::max_body_bytes`].
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

impl<S, P> WalletService<S, P> {
    /// Makes a service over a store and a source, with default options.
    pub fn new(store: S, source: P) -> Self {
        let options = Options {
            device_log: Arc::new(TracingLog::default()),
            other_wallets: false,
            order_media_type: HeaderValue::from_static(Kind::Order.media_type()),
            device_limit: Arc::new(DeviceLimit::new(MAX_DEVICES_PER_PASS)),
            body_budget: Arc::new(BodyBudget::new(MAX_BODY_BYTES)),
            prefix: Prefix::ROOT,
            refused: Arc::default(),
            enrolment: None,
            recorder: None,
        };
        Self {
            shared: Arc::new(Shared {
                store: Arc::new(store),
                source: Arc::new(source),
                options,
            }),
        }
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut Arc::make_mut(&mut self.shared).options
    }

    /// Sends device log messages to `hook` instead of to [`TracingLog`].
    #[must_use]
    pub fn device_log(mut self, hook: impl DeviceLog + 'static) -> Self {
        self.options_mut().device_log = Arc::new(hook);
        self
    }

    /// Enrols customers whose passes offer rewards enrolment. Without this call, the answer to an enrolment is 404.
    #[must_use]
    pub fn enrolment(mut self, enrolment: Enrolment) -> Self {
        self.options_mut().enrolment = Some(enrolment);
        self
    }

    /// Records how far changes came, for operators. See [`DeliveryRecorder`]. By default, nothing is recorded.
    #[must_use]
    pub fn delivery_log(mut self, recorder: DeliveryRecorder) -> Self {
        self.options_mut().recorder = Some(recorder);
        self
    }

    /// Sets whether wallets other than Apple's may use the service. They authenticate with the
    /// scheme `AndroidPass`, `WalletPass` or `WalletUnionPass`, and register push tokens that are
    /// not [APNs'](crate::identifiers::PushToken::is_apns). Default: no.
    #[must_use]
    pub fn other_wallets(mut self, accept: bool) -> Self {
        self.options_mut().other_wallets = accept;
        self
    }

    /// Sets how many devices may be registered for one pass. Further devices get 503, and the log
    /// names the pass once. Default: [`MAX_DEVICES_PER_PASS`].
    ///
    /// Anyone who has a pass can register made-up devices for it. The devices are counted at a
    /// sample of new registrations, so slightly more devices than this may register.
    #[must_use]
    pub fn max_devices_per_pass(mut self, devices: u64) -> Self {
        self.options_mut().device_limit = Arc::new(DeviceLimit::new(devices));
        self
    }

    /// Sets how many bytes of memory the request bodies in flight may take together. A request
    /// whose body does not fit gets 503. Anyone may post logs, so the bodies of logs take at most
    /// half of this memory. Default: [`MAX_BODY_BYTES`].
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.options_mut().body_budget = Arc::new(BodyBudget::new(bytes));
        self
    }

    /// Makes the service answer below this path too. Set a prefix if your proxy passes on the whole
    /// path. Default: [`Prefix::ROOT`].
    ///
    /// The service still answers at the root, for requests from which a proxy removed the path.
    #[must_use]
    pub fn prefix(mut self, prefix: Prefix) -> Self {
        self.options_mut().prefix = prefix;
        self
    }

    /// Sets the media type of orders. The default is `application/vnd.apple.finance.order`. Some
    /// order services use other media types.
    #[must_use]
    pub fn order_media_type(mut self, media_type: HeaderValue) -> Self {
        self.options_mut().order_media_type = media_type;
        self
    }
}

impl<S, P> Clone for WalletService<S, P> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<S, P> Clone for Shared<S, P> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            source: self.source.clone(),
            options: self.options.clone(),
        }
    }
}

impl<S, P> std::fmt::Debug for WalletService<S, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalletService").finish_non_exhaustive()
    }
}

impl<S, P, B> Service<Request<B>> for WalletService<S, P>
where
    S: RegistrationStore + 'static,
    P: PassSource + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let path = head.uri.path();
            let below = || Route::of(shared.options.prefix.strip(path)?);
            let route = Route::of(path).or_else(below);
            #[cfg(feature = "metrics")]
            let measured = crate::metrics::Request::new(&head.method, route.as_ref());
            let answer = match &route {
                Some(route) => shared.answer(route, &head, body).await,
                None => Err(Refusal::NotFound),
            };
            let mut answer = answer.unwrap_or_else(|refusal| {
                shared.options.refused.record(&head.method, path, &refusal);
                let options = &shared.options;
                options.record_refusal(route.as_ref(), &head.method, &refusal);
                refusal.into_response()
            });
            if head.method == Method::HEAD {
                *answer.body_mut() = ResponseBody::empty();
            }
            #[cfg(feature = "metrics")]
            measured.answered(answer.status());
            Ok(answer)
        })
    }
}

impl Options {
    /// Records that a request for a pass had no valid token.
    fn record_refusal(&self, route: Option<&Route<'_>>, method: &Method, refusal: &Refusal) {
        let Some(recorder) = &self.recorder else {
            return;
        };
        let (
            &Refusal::Unauthorized(_, denied),
            Some(
                Route::Registration {
                    type_id, serial, ..
                }
                | Route::Latest {
                    type_id, serial, ..
                },
            ),
        ) = (refusal, route)
        else {
            return;
        };
        let Some(denial) = denied.as_denial() else {
            return;
        };
        if let Ok(type_id) = decode(type_id)
            && let Ok(type_id) = TypeIdentifier::new(&type_id)
        {
            // With this method, the end of the path of an enrolment belongs to no serial number.
            let enrolled = match route {
                Some(Route::Latest { .. }) if method == Method::POST => enrolled_serial(serial),
                _ => None,
            };
            let serial = enrolled.unwrap_or(serial);
            let serials = serial_candidates(serial).serials().collect();
            recorder.refused(type_id, serials, denial);
        }
    }
}

impl<S: RegistrationStore, P: PassSource> Shared<S, P> {
    async fn answer<B>(
        &self,
        route: &Route<'_>,
        head: &Parts,
        body: B,
    ) -> Result<Response<ResponseBody>, Refusal>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (store, source, options) = (&*self.store, &*self.source, &self.options);
        let recorder = options.recorder.as_ref();
        let authorized = async |kind, pass, access| {
            authorize(
                (store, source),
                options.other_wallets,
                &head.headers,
                kind,
                pass,
                access,
            )
            .await
        };
        match (route, &head.method) {
            (
                &Route::Registration {
                    device,
                    type_id,
                    serial,
                },
                &Method::POST,
            ) => {
                let pass = authorized(None, (type_id, serial), Access::Register).await?;
                let budget = &options.body_budget.registrations;
                let body = request_body::read(body, register::BODY_LIMIT, budget).await?;
                let limit = &options.device_limit;
                let other_wallets = options.other_wallets;
                register::register(store, limit, device, &pass, &body, other_wallets, recorder)
                    .await
            }
            (
                &Route::Registration {
                    device,
                    type_id,
                    serial,
                },
                &Method::DELETE,
            ) => {
                let pass = authorized(None, (type_id, serial), Access::Unregister).await?;
                unregister(store, device, &pass, recorder).await
            }
            (&Route::Updatable { device, type_id }, &Method::GET | &Method::HEAD) => {
                updatable(store, device, type_id, head.uri.query(), recorder).await
            }
            (
                &Route::Latest {
                    kind,
                    type_id,
                    serial,
                },
                &Method::GET | &Method::HEAD,
            ) => {
                let pass = authorized(Some(kind), (type_id, serial), Access::Fetch).await?;
                let media_type = match kind {
                    Kind::Pass => HeaderValue::from_static(kind.media_type()),
                    Kind::Order => options.order_media_type.clone(),
                };
                latest(store, source, media_type, &pass, head, recorder).await
            }
            (
                &Route::Latest {
                    kind: Kind::Pass,
                    type_id,
                    serial,
                },
                &Method::POST,
            ) if let Some(serial) = enrolled_serial(serial) => {
                let pass = authorized(Some(Kind::Pass), (type_id, serial), Access::Fetch).await?;
                let enrolment = options.enrolment.as_ref().ok_or(Refusal::NotFound)?;
                let budget = &options.body_budget.registrations;
                let body = request_body::read(body, enrolment::BODY_LIMIT, budget).await?;
                enrolment.answer(pass, &body).await
            }
            (&Route::Log, &Method::POST) => {
                let budget = &options.body_budget.logs;
                let body = request_body::read(body, log::BODY_LIMIT, budget).await?;
                Ok(log::log(&*options.device_log, recorder, &body))
            }
            _ => Err(Refusal::Method(route.allowed_methods())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_shows_nothing_of_what_it_holds() {
        assert_eq!(
            format!("{:?}", WalletService::new("store", "source")),
            "WalletService { .. }"
        );
    }
}
