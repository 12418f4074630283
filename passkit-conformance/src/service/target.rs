use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use passkit_server::{AuthToken, PassId, text::OneLine};
use tower_service::Service;

use super::push_service::PushService;
use crate::{Client, Limits, service_url::ServiceUrl};

/// A web service to test, some passes with their authentication tokens, and a way to change a pass.
#[derive(Clone)]
pub struct Target {
    /// At least one.
    pub(crate) instances: Vec<Instance>,
    pub(crate) passes: Vec<Subject>,
    pub(crate) orders: Vec<Subject>,
    /// Passes that offer rewards enrolment and that no case has enrolled yet.
    pub(crate) rewards: Arc<Mutex<VecDeque<Subject>>>,
    pub(crate) change: Option<Act>,
    /// A way to save a pass unchanged.
    pub(crate) save: Option<Act>,
    pub(crate) pushes: Option<PushService>,
    /// How long the long case takes.
    pub(crate) time: Option<Duration>,
    /// The seed of the long case.
    pub(crate) seed: Option<u64>,
    /// For each pass, when it may change next. After that time, a change gets a later date than all
    /// earlier changes.
    rests: Arc<Mutex<HashMap<PassId, Instant>>>,
}

/// An instance of the web service.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) client: Client,
    pub(crate) url: ServiceUrl,
}

/// A pass or an order that the service serves, and its authentication token.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The type and serial number.
    pub pass: PassId,
    /// The authentication token that opens the pass.
    pub token: AuthToken,
}

impl Subject {
    pub(crate) fn has_type_of(&self, other: &Self) -> bool {
        self.pass.type_id == other.pass.type_id
    }

    pub(crate) fn has_token_of(&self, other: &Self) -> bool {
        self.token.as_str() == other.token.as_str()
    }
}

type Acting = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// A way to change or save a pass from outside the service.
#[derive(Clone)]
pub(crate) struct Act {
    pub(crate) act: Arc<dyn Fn(PassId) -> Acting + Send + Sync>,
    /// Whether an attempt did not end in time.
    pub(crate) hangs: Arc<AtomicBool>,
}

impl Act {
    fn new<F, R>(act: F) -> Self
    where
        F: Fn(PassId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self {
            act: Arc::new(move |pass| Box::pin(act(pass))),
            hangs: Arc::default(),
        }
    }
}

impl Target {
    /// Makes a target for the web service at `url`, which is the `webServiceURL` of its passes.
    ///
    /// # Errors
    /// Fails if the URL can't be used.
    pub fn at(url: &str, limits: Limits) -> Result<Self, String> {
        let url = ServiceUrl::new(url)
            .map_err(|problem| format!("the url \"{}\" {problem}", OneLine::url(url)))?;
        Ok(Self::new(Client::new(limits), url))
    }

    /// Makes a target for a tower service in this process. The paths of requests begin with `/v1/`.
    pub fn in_process<S, B>(service: S, limits: Limits) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::new(
            Client::in_process(service, limits),
            ServiceUrl::in_process(),
        )
    }

    fn new(client: Client, url: ServiceUrl) -> Self {
        Self {
            instances: vec![Instance { client, url }],
            passes: Vec::new(),
            orders: Vec::new(),
            rewards: Arc::default(),
            change: None,
            save: None,
            pushes: None,
            time: None,
            seed: None,
            rests: Arc::default(),
        }
    }

    /// Makes a target from several instances of one web service. Each request goes to the next
    /// instance, as behind a load balancer. The passes, and the ways to change and save them, come
    /// from `first`.
    #[must_use]
    pub fn spread(first: Self, others: Vec<Self>) -> Self {
        let mut spread = first;
        let others = others.into_iter().flat_map(|one| one.instances);
        spread.instances.extend(others);
        spread
    }

    /// Returns a target for each instance.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> {
        self.instances.iter().map(|instance| Self {
            instances: vec![instance.clone()],
            ..self.clone()
        })
    }

    /// Returns the URLs of all instances.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<_> = self.instances.iter().map(|one| one.url.as_str()).collect();
        urls.join(", ")
    }

    /// Sets how long the case `history/long-history-adds-up` takes. Default: the time in the
    /// environment variable `PASSKIT_CONFORMANCE_FOR`, or one second.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets the seed of the case `history/long-history-adds-up`. Default: the number in the
    /// environment variable `PASSKIT_CONFORMANCE_SEED`, or a random one.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Returns for each pass when it may change next. After that time, a change gets a later date
    /// than all earlier changes.
    pub(crate) fn rests(&self) -> MutexGuard<'_, HashMap<PassId, Instant>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pass or an order that the service serves. Most cases can run with three passes of
    /// one type and one pass of another type.
    #[must_use]
    pub fn with(mut self, pass: PassId, token: AuthToken) -> Self {
        let list = match pass.type_id.kind() {
            passkit_server::identifiers::Kind::Pass => &mut self.passes,
            passkit_server::identifiers::Kind::Order => &mut self.orders,
        };
        list.push(Subject { pass, token });
        self
    }

    /// Adds a pass that offers rewards enrolment. Each pass can be enrolled once, and each of
    /// the cases about enrolment needs one. Without such passes, these cases are skipped.
    #[must_use]
    pub fn with_rewards(self, pass: PassId, token: AuthToken) -> Self {
        self.rewards().push_back(Subject { pass, token });
        self
    }

    pub(crate) fn rewards(&self) -> MutexGuard<'_, VecDeque<Subject>> {
        self.rewards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how to change a pass. The future must not end before the change is published. If the
    /// pass could not be changed, the future returns the reason as its error.
    #[must_use]
    pub fn changed_by<F, R>(mut self, change: F) -> Self
    where
        F: Fn(PassId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.change = Some(Act::new(change));
        self
    }

    /// Sets the push service to which the web service sends its pushes. Without a push service, the
    /// cases about pushes are skipped.
    #[must_use]
    pub fn pushing_to(mut self, pushes: PushService) -> Self {
        self.pushes = Some(pushes);
        self
    }

    /// Sets how to save a pass unchanged. Save in the same way as for a change, but with the same
    /// content. The future must not end before the service has looked at the saved pass. If the
    /// pass could not be saved, the future returns the reason as its error.
    #[must_use]
    pub fn saved_by<F, R>(mut self, save: F) -> Self
    where
        F: Fn(PassId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.save = Some(Act::new(save));
        self
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("urls", &self.urls())
            .finish_non_exhaustive()
    }
}
