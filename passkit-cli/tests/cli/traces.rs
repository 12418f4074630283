//! Sequences of calls that involve a push, over every store. They use phones, the service, a store,
//! and a push service over TLS.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use passkit_apns::{
    ApnsSender, Config, Identity,
    local::{Answer, LocalApns, Options, Received},
};
use passkit_archive::Rules;
use passkit_conformance::{
    Client, Limits,
    phone::{Outcome, Phone, State},
};
use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    identifiers::{PushToken, SerialNumber, TypeIdentifier},
    push::{DeferredPush, Publisher, PushConfig, PushQueue, PushReport},
    store::{Audience, RegisteredDevice, clock},
};
use passkit_store_postgres::{Config as PostgresConfig, PostgresStore};
use passkit_store_redis::{Config as RedisConfig, RedisStore};
use passkit_store_sled::SledStore;
use passkit_test_servers::redis::{Cluster, Single};

use crate::{archives, postgres};

const TYPE: &str = "pass.com.example.traces";

/// The passes by serial number, each with its version.
#[derive(Clone, Default)]
struct Passes(Arc<Mutex<HashMap<String, u32>>>);

#[async_trait]
impl PassSource for Passes {
    async fn credentials(&self, pass: &PassId) -> Result<Option<Credentials>, SourceError> {
        let token = AuthToken::new(&archives::token_of(TYPE, pass.serial.as_str()))?;
        Ok(self
            .version(pass.serial.as_str())
            .map(|_| Credentials::from(&token)))
    }

    async fn archive(
        &self,
        pass: &PassId,
        _: &PassState,
    ) -> Result<Option<ArchiveBody>, SourceError> {
        let serial = pass.serial.as_str();
        Ok(self.version(serial).map(|_| self.bytes(serial).into()))
    }
}

impl Passes {
    fn version(&self, serial: &str) -> Option<u32> {
        self.0.lock().unwrap().get(serial).copied()
    }

    fn all(&self) -> Vec<PassId> {
        self.0
            .lock()
            .unwrap()
            .keys()
            .map(|serial| PassId::new(TYPE, serial).unwrap())
            .collect()
    }

    fn bytes(&self, serial: &str) -> Bytes {
        archives::unsigned(TYPE, serial, &self.version(serial).unwrap().to_string()).into()
    }
}

struct World {
    store: Arc<dyn PushQueue>,
    passes: Passes,
    service: WalletService<Arc<dyn PushQueue>, Passes>,
    apns: LocalApns,
    sender: Arc<ApnsSender>,
    publisher: Publisher,
    /// How many pushes came before their change was visible.
    early: Arc<Mutex<u32>>,
}

impl World {
    async fn new(store: Arc<dyn PushQueue>) -> Self {
        let early = Arc::new(Mutex::new(0));
        let type_id = TypeIdentifier::new(TYPE).unwrap();
        let passes = Passes::default();
        let hook = {
            let (store, early, passes) = (store.clone(), early.clone(), passes.clone());
            // The version at the last push to each token.
            let last: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
            move |push: Received| {
                let token = push.token;
                let (store, early, passes, last) =
                    (store.clone(), early.clone(), passes.clone(), last.clone());
                async move {
                    let mut newest = 0;
                    for pass in passes.all() {
                        let devices = devices(&*store, &pass).await;
                        if devices.iter().any(|one| one.push_token.as_str() == token) {
                            newest = newest.max(store.pass_state(&pass).await.unwrap().version);
                        }
                    }
                    if last
                        .lock()
                        .unwrap()
                        .insert(token, newest)
                        .is_some_and(|last| last >= newest)
                    {
                        *early.lock().unwrap() += 1;
                    }
                }
            }
        };
        let apns = LocalApns::start(Options::new().on_push(hook))
            .await
            .unwrap();
        let issued = apns.issue(TYPE).unwrap();
        let identity = Identity::from_pem(
            &type_id,
            issued.certificate.as_bytes(),
            issued.key.as_bytes(),
        )
        .unwrap();
        let config = Config::new()
            .identity(identity)
            .endpoint(apns.host(), apns.port())
            .root_certificates(apns.root_pem());
        let sender = Arc::new(ApnsSender::new(config).unwrap());
        let service = WalletService::new(store.clone(), passes.clone());
        let publisher = publisher(&store, &sender);
        Self {
            store,
            passes,
            service,
            apns,
            sender,
            publisher,
            early,
        }
    }

    /// Makes a phone with this push token.
    fn phone(&self, token: &PushToken) -> Phone {
        let mut state = State::new().unwrap();
        state.set_push_token(token.clone());
        let mut phone = Phone::new(
            state,
            Client::in_process(self.service.clone(), Limits::default()),
        );
        phone.set_rules(Rules::development());
        phone
    }

    fn pass(serial: &str) -> PassId {
        PassId::new(TYPE, serial).unwrap()
    }

    fn make(&self, serial: &str) {
        self.passes.0.lock().unwrap().insert(serial.to_owned(), 1);
    }

    async fn add(&self, phone: &mut Phone, serial: &str) {
        let archive = self.passes.bytes(serial);
        sound(
            &phone
                .add(&archive, Some("http://wallet.example.com/"))
                .await
                .unwrap(),
        );
    }

    /// Changes passes and publishes them. Returns how many pushes each push token got.
    async fn change(&self, serials: &[&str]) -> (HashMap<String, usize>, PushReport) {
        for serial in serials {
            *self.passes.0.lock().unwrap().get_mut(*serial).unwrap() += 1;
        }
        let before = self.apns.pushes().len();
        publish(&self.publisher, serials).await;
        let report = self.publisher.push_pending().await.unwrap();
        let mut pushed = HashMap::new();
        for push in self.apns.pushes().split_off(before) {
            *pushed.entry(push.token).or_default() += 1;
        }
        // No push is left. Then the spacing to the next push is kept.
        assert!(
            self.store
                .pending(&TypeIdentifier::new(TYPE).unwrap(), 10)
                .await
                .unwrap()
                .is_empty()
        );
        tokio::time::sleep(SPACING).await;
        (pushed, report)
    }
}

const SPACING: Duration = Duration::from_millis(20);

fn publisher(store: &Arc<dyn PushQueue>, sender: &Arc<ApnsSender>) -> Publisher {
    Publisher::new(
        store.clone(),
        sender.clone(),
        PushConfig::new().spacing(SPACING),
    )
}

async fn publish(publisher: &Publisher, serials: &[&str]) {
    let serials: Vec<_> = serials
        .iter()
        .map(|serial| SerialNumber::new(serial).unwrap())
        .collect();
    publisher
        .publish(
            &TypeIdentifier::new(TYPE).unwrap(),
            Changed::Passes(&serials),
        )
        .await
        .unwrap();
}

/// Returns all devices of a pass. They fit into one page.
async fn devices(store: &dyn PushQueue, pass: &PassId) -> Vec<RegisteredDevice> {
    store
        .devices(Audience::Pass(pass), None, 1_000)
        .await
        .unwrap()
        .items
}

fn once<const N: usize>(tokens: [&PushToken; N]) -> HashMap<String, usize> {
    tokens
        .into_iter()
        .map(|token| (token.as_str().to_owned(), 1))
        .collect()
}

fn token() -> PushToken {
    static NEXT: Mutex<u64> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    *next += 1;
    PushToken::new(&format!("{:016x}{:016x}", clock::now_micros(), *next)).unwrap()
}

fn sound(outcome: &Outcome) {
    assert!(outcome.complaints.is_empty(), "{:?}", outcome.complaints);
}

async fn sync(phone: &mut Phone) -> Vec<String> {
    let outcome = phone.sync().await.unwrap();
    sound(&outcome);
    let mut updated: Vec<String> = outcome
        .updated
        .iter()
        .map(|pass| pass.serial.to_string())
        .collect();
    updated.sort();
    updated
}

async fn pass_on(store: Arc<dyn PushQueue>) {
    let world = World::new(store).await;
    updates(&world).await;
    rotations(&world).await;
    shared(&world).await;
    answers(&world).await;
    all_refused(&world).await;
    assert_eq!(world.apns.violations(), Vec::<String>::new());
    assert_eq!(
        *world.early.lock().unwrap(),
        0,
        "pushes before their change could be seen"
    );
    assert!(
        world.apns.connections() <= 2,
        "{} connections",
        world.apns.connections()
    );
}

/// There is one push for one change, one for two changes, and none after the pass is deleted.
async fn updates(world: &World) {
    world.make("one");
    world.make("two");
    let a = token();
    let mut phone = world.phone(&a);
    world.add(&mut phone, "one").await;
    world.add(&mut phone, "two").await;
    assert_eq!(world.change(&["one"]).await.0, once([&a]));
    assert_eq!(sync(&mut phone).await, ["one"]);
    assert_eq!(sync(&mut phone).await, [""; 0]);
    assert_eq!(world.change(&["one", "two"]).await.0, once([&a]));
    assert_eq!(sync(&mut phone).await, ["one", "two"]);
    sound(&phone.remove(&World::pass("one")).await.unwrap());
    assert_eq!(world.change(&["one"]).await.0, once([]));
    assert_eq!(world.change(&["two"]).await.0, once([&a]));
}

/// A phone gets a new push token, first under the same device identifier, then under a new one.
async fn rotations(world: &World) {
    world.make("nine");
    world.make("other");
    let [a, b] = [token(), token()];
    let mut phone = world.phone(&a);
    world.add(&mut phone, "nine").await;
    world.add(&mut phone, "other").await;
    let device = phone.state().services()[0].device().clone();
    let again = world
        .store
        .register(&device, &World::pass("nine"), &b)
        .await
        .unwrap();
    assert_eq!(again, passkit_server::store::Registered::Existing);
    assert_eq!(world.change(&["nine"]).await.0, once([&b]));
    assert_eq!(world.change(&["other"]).await.0, once([&b]));
    assert_eq!(sync(&mut phone).await, ["nine", "other"]);

    let [c, d] = [token(), token()];
    world.make("ten");
    let (mut old, mut new) = (world.phone(&c), world.phone(&d));
    world.add(&mut old, "ten").await;
    world.add(&mut new, "ten").await;
    let later = SystemTime::now() + Duration::from_secs(5);
    world
        .apns
        .answer_token(c.as_str(), Answer::gone("Unregistered", later));
    let (pushed, report) = world.change(&["ten"]).await;
    assert_eq!((pushed, report.forgotten), (once([&c, &d]), 1));
    assert_eq!(sync(&mut old).await, [""; 0]);
    assert_eq!(sync(&mut new).await, ["ten"]);
    assert_eq!(world.change(&["ten"]).await.0, once([&d]));
}

/// Two phones have the same pass.
async fn shared(world: &World) {
    world.make("shared");
    let [a, b] = [token(), token()];
    let (mut one, mut two) = (world.phone(&a), world.phone(&b));
    world.add(&mut one, "shared").await;
    world.add(&mut two, "shared").await;
    assert_eq!(world.change(&["shared"]).await.0, once([&a, &b]));
    sound(&one.remove(&World::pass("shared")).await.unwrap());
    assert_eq!(world.change(&["shared"]).await.0, once([&b]));
    assert_eq!(sync(&mut two).await, ["shared"]);
}

/// APNs reports that a token went out of use. If that was before the device last registered, the
/// device stays. If it was after, the device is removed.
async fn answers(world: &World) {
    world.make("thirty");
    let [a, b, c] = [token(), token(), token()];
    let mut phones = [world.phone(&a), world.phone(&b), world.phone(&c)];
    for phone in &mut phones {
        world.add(phone, "thirty").await;
    }
    let ago = SystemTime::now() - Duration::from_secs(60);
    world
        .apns
        .answer_token(a.as_str(), Answer::gone("ExpiredToken", ago));
    world.apns.answer_token(
        b.as_str(),
        Answer::gone("Unregistered", SystemTime::now() + Duration::from_secs(1)),
    );
    assert_eq!(world.change(&["thirty"]).await.1.forgotten, 1);
    let devices = devices(&*world.store, &World::pass("thirty")).await;
    let mut left: Vec<&str> = devices.iter().map(|one| one.push_token.as_str()).collect();
    left.sort_unstable();
    let mut kept = [a.as_str(), c.as_str()];
    kept.sort_unstable();
    assert_eq!(left, kept);
}

/// Nothing is deleted when APNs refuses all tokens, even if that lasts long.
async fn all_refused(world: &World) {
    world.make("refused");
    let type_id = TypeIdentifier::new(TYPE).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..12 {
        let token = token();
        let mut phone = world.phone(&token);
        world.add(&mut phone, "refused").await;
        world
            .apns
            .answer_token(token.as_str(), Answer::refuse(400, "BadDeviceToken"));
        let device = phone.state().services()[0].device().clone();
        let bad_since = Some(SystemTime::now() - Duration::from_secs(48 * 3_600));
        let push = DeferredPush {
            push_token: token.clone(),
            due: None,
            attempts: 0,
            bad_since,
        };
        world
            .store
            .defer(&type_id, &[(device, Some(push))])
            .await
            .unwrap();
        tokens.push(token);
    }
    // Another worker, which has seen no accepted push.
    let publisher = publisher(&world.store, &world.sender);
    *world.passes.0.lock().unwrap().get_mut("refused").unwrap() += 1;
    publish(&publisher, &["refused"]).await;
    let report = publisher.push_pending().await.unwrap();
    assert_eq!(report.forgotten, 0, "{report}");
    // The certificate had a push accepted before, so a stranger may have registered these tokens.
    assert_eq!(report.stopped, None, "{report}");
    assert_eq!(
        devices(&*world.store, &World::pass("refused")).await.len(),
        12
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_sled() {
    let folder = tempfile::tempdir().unwrap();
    pass_on(Arc::new(SledStore::open(folder.path()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_postgres() {
    let url = tokio::task::spawn_blocking(postgres::migrated)
        .await
        .unwrap();
    pass_on(Arc::new(
        PostgresStore::connect(&url, PostgresConfig::default())
            .await
            .unwrap(),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    static SERVER: OnceLock<Single> = OnceLock::new();
    let url = SERVER.get_or_init(|| Single::start().unwrap()).url();
    let config = RedisConfig::new().prefix(format!("traces-{}:", clock::now_micros()));
    pass_on(Arc::new(RedisStore::connect(url, config).await.unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_redis_cluster() {
    let cluster = Cluster::start().unwrap();
    let config = RedisConfig::new().prefix(format!("traces-{}:", clock::now_micros()));
    pass_on(Arc::new(
        RedisStore::connect(&cluster.url(), config).await.unwrap(),
    ))
    .await;
}
