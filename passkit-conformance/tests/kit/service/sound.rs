//! A correct web service in this process.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use passkit_apns::{ApnsSender, Config, Identity};
use passkit_archive::{ArchiveBuilder, Purpose, Signer, placeholder_icon};
use passkit_conformance::{
    Limits,
    service::{PushService, PushSettings, Target},
};
use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    enrolment::{Enroller, Enrolment, Person, PersonalizationToken, TokenSigner},
    identifiers::{Kind, TypeIdentifier},
    push::{Publisher, PushConfig},
    store::{MemoryStore, RegistrationStore},
};
use serde_json::json;
use tokio::net::TcpListener;
use tower_service::Service;

/// The type, serial number and authentication token of each pass and order of the service.
pub(crate) const SUBJECTS: &[(&str, &str, &str)] = &[
    ("pass.com.example.a", "A-1", "token-of-a-1-0123456789"),
    ("pass.com.example.a", "A-2", "token-of-a-2-0123456789"),
    ("pass.com.example.a", "A-3", "token-of-a-3-0123456789"),
    // Airlines use serial numbers like this. The serial number A-1 occurs in two types.
    (
        "pass.com.example.a",
        "H8JP44-ORD07/09/25-MARTINEZ/LANI",
        "token-of-a-4-0123456789",
    ),
    ("pass.com.example.b", "A-1", "token-of-b-1-0123456789"),
    (
        "pass.com.example.b",
        "ABC.123_x~1",
        "token-of-b-2-0123456789",
    ),
    ("order.com.example.c", "O-1", "token-of-c-1-0123456789"),
    ("order.com.example.c", "O-2", "token-of-c-2-0123456789"),
    ("order.com.example.d", "O-1", "token-of-d-1-0123456789"),
];

/// Passes that offer rewards enrolment, all with the same token.
pub(crate) const REWARDS: [&str; 12] = [
    "R-1", "R-2", "R-3", "R-4", "R-5", "R-6", "R-7", "R-8", "R-9", "R-10", "R-11", "R-12",
];
pub(crate) const REWARDS_TYPE: &str = "pass.com.example.e";
pub(crate) const REWARDS_TOKEN: &str = "token-of-rewards-0123456789";

/// A request or an answer with its complete body.
pub(crate) type Asked = Request<Bytes>;
pub(crate) type Answered = Response<Bytes>;
pub(crate) type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// The sound service, which is correct. Faulty services are made from it.
#[derive(Clone)]
pub(crate) struct Sound {
    pub(crate) store: Arc<dyn RegistrationStore>,
    pub(crate) passes: Arc<Passes>,
    /// If this is set, changes are pushed.
    pushes: Option<(Arc<Publisher>, PushService)>,
    /// Which passes are enrolled.
    enrolled: Arc<MemoryStore>,
}

impl Sound {
    pub(crate) fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()))
    }

    /// Makes the sound service with a publisher, which sends its pushes to a push service of the
    /// kit.
    pub(crate) async fn pushing() -> Self {
        let pushes = PushService::start(PushSettings::default()).await.unwrap();
        let mut config = Config::new()
            .endpoint("127.0.0.1", pushes.port())
            .root_certificates(pushes.root_pem());
        for type_id in types() {
            let (certificate, key) = pushes.issue(&type_id).unwrap();
            let identity =
                Identity::from_pem(&type_id, certificate.as_bytes(), key.as_bytes()).unwrap();
            config = config.identity(identity);
        }
        let sender = Arc::new(ApnsSender::new(config).unwrap());
        let store = Arc::new(MemoryStore::new());
        let publisher = Arc::new(Publisher::new(store.clone(), sender, PushConfig::new()));
        let running = publisher.clone();
        tokio::spawn(async move { running.run().await });
        let mut sound = Self::over(store);
        sound.pushes = Some((publisher, pushes));
        sound
    }

    /// Makes the sound service over a store that may be faulty.
    pub(crate) fn over(store: Arc<dyn RegistrationStore>) -> Self {
        Self {
            store,
            passes: Arc::default(),
            pushes: None,
            enrolled: Arc::default(),
        }
    }

    fn service(&self) -> WalletService<Arc<dyn RegistrationStore>, Arc<Passes>> {
        self.service_that_marks_in(self.store.clone())
    }

    fn service_that_marks_in(
        &self,
        marked: Arc<dyn RegistrationStore>,
    ) -> WalletService<Arc<dyn RegistrationStore>, Arc<Passes>> {
        let service = WalletService::new(self.store.clone(), self.passes.clone());
        service.enrolment(self.enrolment(marked))
    }

    fn enrolment(&self, marked: Arc<dyn RegistrationStore>) -> Enrolment {
        let publisher = Arc::new(Publisher::marking(marked));
        let (passes, enrolled) = (self.passes.clone(), self.enrolled.clone());
        Enrolment::new(enrolled, publisher, passes.clone(), passes)
    }

    /// Answers a request, but marks no pass that is enrolled.
    pub(crate) async fn answer_without_marks(&self, asked: Asked) -> Answered {
        let mut service = self.service_that_marks_in(Arc::new(MemoryStore::new()));
        answered(&mut service, asked).await
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, asked: Asked) -> Answered {
        answered(&mut self.service(), asked).await
    }

    /// Gives a pass new content, then marks it.
    pub(crate) async fn change(&self, pass: PassId) -> Result<(), String> {
        self.renew(&pass);
        self.mark(&pass).await
    }

    /// Gives a pass new content.
    pub(crate) fn renew(&self, pass: &PassId) {
        *self
            .passes
            .versions
            .lock()
            .unwrap()
            .entry(pass.clone())
            .or_default() += 1;
    }

    /// Marks a pass as changed.
    pub(crate) async fn mark(&self, pass: &PassId) -> Result<(), String> {
        let serials = [pass.serial.clone()];
        let changed = Changed::Passes(&serials);
        let marked = match &self.pushes {
            Some((publisher, _)) => publisher.publish(&pass.type_id, changed).await,
            None => self.store.mark(&pass.type_id, changed).await,
        };
        marked.map_err(|error| error.to_string())
    }

    /// Saves a pass unchanged.
    pub(crate) async fn save(&self, pass: PassId) -> Result<(), String> {
        self.passes.saves.fetch_add(1, SeqCst);
        if !self.passes.marks_saves.load(SeqCst) {
            return Ok(());
        }
        self.mark(&pass).await
    }

    /// Makes a target of the sound service, with all passes and a way to change them.
    pub(crate) fn target(&self) -> Target {
        let sound = self.clone();
        self.target_with(Arc::new(move |asked| {
            let sound = sound.clone();
            Box::pin(async move { sound.answer(asked).await })
        }))
    }

    /// Makes a target that gets its answers from `wrong`.
    pub(crate) fn target_with(&self, wrong: Wrong) -> Target {
        self.known(Target::in_process(Wrapped(wrong), Limits::default()))
    }

    /// Makes a target behind a real HTTP server on the loopback interface. The server ends with the
    /// runtime.
    pub(crate) async fn target_on_loopback(&self) -> Target {
        self.known(
            Target::at(
                &format!("http://{}", self.listen().await),
                Limits::default(),
            )
            .unwrap(),
        )
    }

    /// Starts an HTTP server, and returns its address.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.service();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service.clone();
                let serve = service_fn(move |asked| service.clone().call(asked));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        address
    }

    /// The target of a service that gives all passes the same token. Some real services do this.
    pub(crate) fn target_with_one_token(&self) -> Target {
        let sound = self.clone();
        let wrong: Wrong = Arc::new(move |asked| {
            let source = OneToken(sound.passes.clone());
            let service = WalletService::new(sound.store.clone(), source);
            let mut service = service.enrolment(sound.enrolment(sound.store.clone()));
            Box::pin(async move { answered(&mut service, asked).await })
        });
        let target = Target::in_process(Wrapped(wrong), Limits::default());
        self.known_with(target, |_| ONE_TOKEN)
    }

    /// Adds the passes, and the ways to change and save them, to a target.
    pub(crate) fn known(&self, target: Target) -> Target {
        self.known_with(target, |token| token)
    }

    fn known_with(&self, target: Target, token_of: fn(&'static str) -> &'static str) -> Target {
        let sound = self.clone();
        let target = target.changed_by(move |pass| {
            let sound = sound.clone();
            async move { sound.change(pass).await }
        });
        let sound = self.clone();
        let target = target.saved_by(move |pass| {
            let sound = sound.clone();
            async move { sound.save(pass).await }
        });
        let target = match &self.pushes {
            Some((_, pushes)) => target.pushing_to(pushes.clone()),
            None => target,
        };
        let target = REWARDS.iter().fold(target, |target, serial| {
            let pass = PassId::new(REWARDS_TYPE, serial).unwrap();
            target.with_rewards(pass, AuthToken::new(token_of(REWARDS_TOKEN)).unwrap())
        });
        SUBJECTS
            .iter()
            .fold(target, |target, (type_id, serial, token)| {
                target.with(
                    PassId::new(type_id, serial).unwrap(),
                    AuthToken::new(token_of(token)).unwrap(),
                )
            })
    }
}

/// Sends a request to a service in this process.
async fn answered<S, P>(service: &mut WalletService<S, P>, asked: Asked) -> Answered
where
    S: RegistrationStore + 'static,
    P: PassSource + 'static,
{
    let Ok(answer) = service.call(asked.map(Full::new)).await;
    let (head, body) = answer.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// The types of all passes and orders.
pub(crate) fn types() -> BTreeSet<TypeIdentifier> {
    let types = SUBJECTS.iter();
    types
        .map(|(type_id, ..)| TypeIdentifier::new(type_id).unwrap())
        .collect()
}

const ONE_TOKEN: &str = "token-of-all-passes-0123456789";

/// The same passes, but all with the same token.
struct OneToken(Arc<Passes>);

#[async_trait]
impl PassSource for OneToken {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let known = Passes::token(pass);
        Ok(known.map(|_| Credentials::from(&AuthToken::new(ONE_TOKEN).unwrap())))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let known = Passes::token(pass);
        Ok(known.map(|_| ArchiveBody::from(Bytes::from(self.0.build(pass, ONE_TOKEN)))))
    }
}

/// A function that answers in place of the sound service.
pub(crate) type Wrong = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

#[derive(Clone)]
pub(super) struct Wrapped(pub(super) Wrong);

impl Service<Request<Full<Bytes>>> for Wrapped {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let wrong = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let asked = Request::from_parts(head, body.collect().await.unwrap().to_bytes());
            Ok(wrong(asked).await.map(Full::new))
        })
    }
}

/// The source of signed archives, which are built on demand.
#[derive(Default)]
pub(crate) struct Passes {
    versions: Mutex<HashMap<PassId, u32>>,
    /// The number of saves without a change.
    pub(crate) saves: AtomicU32,
    /// Whether a saved pass counts as changed.
    pub(crate) marks_saves: AtomicBool,
    /// The names of customers by their passes.
    pub(crate) customers: Mutex<HashMap<PassId, String>>,
}

/// One signer for each type. They are made only once, because making a key pair takes a while.
static SIGNERS: LazyLock<HashMap<&str, Signer>> = LazyLock::new(|| {
    let types = SUBJECTS.iter().map(|(type_id, ..)| type_id);
    types
        .chain([&REWARDS_TYPE])
        .map(|type_id| {
            let signer =
                Signer::throwaway(&TypeIdentifier::new(type_id).unwrap(), "EXAMPLE123").unwrap();
            (*type_id, signer)
        })
        .collect()
});

/// Signs the token of an enrolment.
pub(crate) fn signature(token: &str) -> Vec<u8> {
    SIGNERS[REWARDS_TYPE]
        .sign(Purpose::PersonalizationToken, token.as_bytes())
        .unwrap()
}

impl Passes {
    pub(crate) fn token(pass: &PassId) -> Option<&'static str> {
        if pass.type_id.as_str() == REWARDS_TYPE && REWARDS.contains(&pass.serial.as_str()) {
            return Some(REWARDS_TOKEN);
        }
        SUBJECTS
            .iter()
            .find(|(type_id, serial, _)| {
                *type_id == pass.type_id.as_str() && *serial == pass.serial.as_str()
            })
            .map(|(_, _, token)| *token)
    }

    /// Returns how often the pass changed.
    pub(crate) fn version(&self, pass: &PassId) -> u32 {
        self.versions
            .lock()
            .unwrap()
            .get(pass)
            .copied()
            .unwrap_or_default()
    }

    /// Builds the current signed archive.
    pub(crate) fn build(&self, pass: &PassId, token: &str) -> Vec<u8> {
        let version = self.version(pass);
        let customer = self.customers.lock().unwrap().get(pass).cloned();
        let offers = pass.type_id.as_str() == REWARDS_TYPE && customer.is_none();
        let description = match pass.type_id.kind() {
            Kind::Pass => json!({
                "formatVersion": 1, "passTypeIdentifier": pass.type_id.as_str(),
                "serialNumber": pass.serial.as_str(), "teamIdentifier": "EXAMPLE123",
                "organizationName": "Example", "description": "A pass",
                "generic": { "primaryFields": [{ "key": "version", "value": version, "label": customer.unwrap_or_default() }] },
                "webServiceURL": "https://wallet.example.com", "authenticationToken": token,
            }),
            Kind::Order => json!({
                "schemaVersion": 1, "orderTypeIdentifier": pass.type_id.as_str(),
                "orderIdentifier": pass.serial.as_str(), "orderType": "ecommerce", "orderNumber": version.to_string(),
                "orderManagementURL": "https://shop.example.com",
                "merchant": { "displayName": "Example", "merchantIdentifier": "merchant.com.example",
                    "url": "https://shop.example.com" },
                "status": "open", "createdAt": "2026-11-22T10:00:00Z", "updatedAt": "2026-11-22T10:00:00Z",
                "webServiceURL": "https://wallet.example.com", "authenticationToken": token,
            }),
        };
        let mut builder = ArchiveBuilder::new(pass.type_id.kind(), description.to_string())
            .file("icon.png", placeholder_icon(29))
            .file("icon@2x.png", placeholder_icon(58));
        if offers {
            let form = json!({ "requiredPersonalizationFields": [], "description": "Join" });
            builder = builder.file("personalization.json", form.to_string());
        }
        builder
            .build_signed(&SIGNERS[pass.type_id.as_str()])
            .unwrap()
    }
}

#[async_trait]
impl PassSource for Passes {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Self::token(pass).map(|token| Credentials::from(&AuthToken::new(token).unwrap())))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let Some(token) = Self::token(pass) else {
            return Ok(None);
        };
        Ok(Some(ArchiveBody::from(Bytes::from(
            self.build(pass, token),
        ))))
    }
}

#[async_trait]
impl Enroller for Passes {
    async fn offers(&self, pass: &PassId) -> Result<bool, SourceError> {
        let is_open = !self.customers.lock().unwrap().contains_key(pass);
        Ok(is_open && pass.type_id.as_str() == REWARDS_TYPE)
    }

    async fn enrol(&self, pass: &PassId, person: &Person) -> Result<(), SourceError> {
        let name = person.full_name.clone().unwrap_or_default();
        let mut customers = self.customers.lock().unwrap();
        customers.entry(pass.clone()).or_insert(name);
        Ok(())
    }
}

#[async_trait]
impl TokenSigner for Passes {
    async fn sign(
        &self,
        type_id: &TypeIdentifier,
        token: &PersonalizationToken,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        TokenSigner::sign(&SIGNERS[type_id.as_str()], type_id, token).await
    }
}
