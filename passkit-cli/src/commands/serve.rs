use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_LENGTH};
use hyper::{body::Incoming, service::service_fn};
use passkit_archive::Rules;
use passkit_folder::{Config, Folder};
use passkit_server::{
    WalletService,
    delivery::DeliveryRecorder,
    enrolment::Enrolment,
    identifiers::Kind,
    private_files,
    push::Publisher,
    service::{MAX_BODY_BYTES, MAX_DEVICES_PER_PASS, Prefix, ResponseBody},
    source::StoredArchives,
    store::ArchiveStore,
};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tower_service::Service as _;

use crate::{
    admin::{self, Admin, AdminToken},
    admin_archives::Archives,
    admin_passes::Making,
    apns::{self, ApnsOptions},
    delivery::{self, Keep},
    enrolling::{EnrollSecret, Enrolling},
    failure::{Chain, Failure},
    health::Health,
    listen::{Address, Listener},
    logging::LogOptions,
    making::LiveMaker,
    metrics::Metrics,
    options::Options,
    page::{self, Page, PageListener},
    reload::Reload,
    server::{self, Limits},
    service_manager,
    source::Source,
    store::{self, OpenStore, Store, StoreUrl},
    telemetry::Telemetry,
    tls::Tls,
};

/// Serves the passes and orders in folders to phones, and notices when they change.
///
/// Every .pkpass (or .order) file below a folder is served under the type and serial number inside
/// it. Phones need HTTPS: name a certificate with --tls-cert and --tls-key, or put a TLS proxy in front.
///
/// Each option can also be set in the environment, or in the file of --config. The command line has precedence over the
/// environment, and the environment over the file.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// Where to listen: ADDRESS:PORT, or unix:PATH for a socket in the file system. With port 0, the system chooses a free
    /// port.
    #[arg(
        long,
        env = "PASSKIT_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    pub(crate) listen: Address,

    /// The permissions of the socket of --listen unix:PATH, as digits of chmod. A user who may write to the socket can connect.
    #[arg(long, env = "PASSKIT_SOCKET_MODE", default_value = "660", value_name = "MODE", value_parser = mode)]
    pub(crate) socket_mode: u32,

    /// The certificate for HTTPS, followed by the rest of its chain, in PEM. Without a certificate, phones need a TLS proxy in front.
    #[arg(
        long,
        env = "PASSKIT_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate of --tls-cert: PEM, not encrypted.
    #[arg(
        long,
        env = "PASSKIT_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where registrations are stored: sqlite:FILE for this machine, or a database for any number
    /// of machines.
    #[arg(
        long,
        env = "PASSKIT_STORE",
        default_value = store::DEFAULT,
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) store: StoreUrl,

    /// The folder for copies of the archives that this instance serves, if the store is not a sled:
    /// store. If another instance uses this folder, this instance adds -2 to the name, or -3, and
    /// so on.
    #[arg(
        long,
        env = "PASSKIT_COPIES",
        default_value = "./passkit-copies",
        value_name = "DIR"
    )]
    pub(crate) copies: PathBuf,

    /// A folder with .pkpass files.
    #[arg(long, env = "PASSKIT_PASSES", value_name = "DIR")]
    pub(crate) passes: Option<PathBuf>,

    /// A folder with .order files.
    #[arg(long, env = "PASSKIT_ORDERS", value_name = "DIR")]
    pub(crate) orders: Option<PathBuf>,

    /// The path of the passes' webServiceURL, such as /api/wallet. The service answers below this
    /// path. It also answers at the root, because a proxy may remove the path. The publish endpoint
    /// stays at the root.
    #[arg(long, env = "PASSKIT_PREFIX", value_name = "PATH", default_value = "/", value_parser = Prefix::new)]
    pub(crate) prefix: Prefix,

    /// Also serve development archives: archives without a signature, and archives with a
    /// webServiceURL of http://.
    #[arg(long, env = "PASSKIT_ALLOW_UNSIGNED", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_unsigned: bool,

    /// How many seconds the service still answers after a signal to stop, while /readyz is already 503. Use it if a load
    /// balancer asks for /readyz, and needs this time to notice. A second signal ends the time.
    #[arg(long, env = "PASSKIT_DRAIN", default_value_t = 0, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) drain: u64,

    /// The greatest number of open connections. Further connections wait.
    #[arg(long, env = "PASSKIT_MAX_CONNECTIONS", default_value_t = 4096, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) max_connections: usize,

    /// The greatest number of open connections from one client address. Further connections are
    /// closed at once. All addresses of an IPv6 /64 network count as one. Default: a quarter of
    /// --max-connections. By default, there is no limit for clients on this machine or in a private
    /// network, because a proxy may have such an address. If you set the option, it also limits
    /// these clients.
    #[arg(long, env = "PASSKIT_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) max_connections_per_address: Option<usize>,

    /// The greatest number of devices that may be registered for one pass. Further devices are
    /// refused with 503, because anyone who has a pass can register made-up devices.
    #[arg(long, env = "PASSKIT_MAX_DEVICES_PER_PASS", default_value_t = MAX_DEVICES_PER_PASS, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_devices_per_pass: u64,

    /// The greatest size in bytes of all request bodies in flight together. A request whose body does not fit is refused with
    /// 503.
    #[arg(long, env = "PASSKIT_MAX_BODY_BYTES", default_value_t = MAX_BODY_BYTES, value_name = "BYTES",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(65_536..=1_073_741_824))]
    pub(crate) max_body_bytes: usize,

    /// Also serve wallets other than Apple's. They use the schemes AndroidPass, WalletPass and
    /// WalletUnionPass, and push tokens that are not from APNs. They get no pushes.
    #[arg(long, env = "PASSKIT_OTHER_WALLETS", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) other_wallets: bool,

    /// How long to keep records of what became of pushes, lists and fetches, in days or hours, such as 30d or 12h. With 0,
    /// nothing is recorded, and earlier records are discarded.
    #[arg(long, env = "PASSKIT_KEEP_RECORDS", default_value = Keep::DEFAULT, value_name = "TIME")]
    pub(crate) keep_records: Keep,

    #[command(flatten)]
    pub(crate) apns: ApnsOptions,

    /// Serve the archives in the store, which PUT /admin/v1/archives has put there, in addition to the folders. The instances
    /// then need no shared folder. Set this option on all instances. With --admin-token, this instance accepts that call. The
    /// store must be sqlite: or postgres:.
    #[arg(long, env = "PASSKIT_ARCHIVES_IN_STORE", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) archives_in_store: bool,

    /// Make passes from a template and a table, and make them again whenever the table or the template changes.
    /// The file has the options of `passkit make`: template, from, out, cert, key, wwdr, token-secret and
    /// void-missing. With --admin-token, another program can request single passes with POST /admin/v1/passes. Then `from` may be left out.
    #[arg(long, env = "PASSKIT_MAKE", value_name = "FILE.toml")]
    pub(crate) make: Option<PathBuf>,

    /// Enrol customers whose passes offer rewards enrolment. The service posts their data to this URL, and makes the enrolled pass
    /// from the row in the answer. Needs --make, and a secret in the variable PASSKIT_ENROLL_SECRET.
    #[arg(long, env = "PASSKIT_ENROLL_URL", value_name = "URL", requires_all = ["make", "enroll_secret"])]
    pub(crate) enroll_url: Option<String>,

    /// The secret that the service shares with the receiver of --enroll-url: at least 16 characters. It is safer to set it in
    /// the environment, or in the file that PASSKIT_ENROLL_SECRET_FILE names.
    #[arg(
        long,
        env = "PASSKIT_ENROLL_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(crate) enroll_secret: Option<EnrollSecret>,

    /// Accept POST /admin/v1/publish with `Authorization: Bearer TOKEN`. With this call, another program publishes changes
    /// of passes. The token needs at least 16 characters. It is safer to set it in the environment, or in the file that
    /// PASSKIT_ADMIN_TOKEN_FILE names.
    #[arg(
        long,
        env = "PASSKIT_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) admin_token: Option<AdminToken>,

    /// The address for the calls below /admin/v1/, instead of the address for phones.
    #[arg(long, env = "PASSKIT_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) admin_listen: Option<SocketAddr>,

    /// The address for the operator's page, such as 127.0.0.1:9001: what became of a pass, its picture, and the state of the
    /// service. People sign in with the token of --admin-token. If the address is not of this machine, the page uses the
    /// certificate of --tls-cert.
    #[arg(long, env = "PASSKIT_PAGE", value_name = "ADDRESS:PORT")]
    pub(crate) page: Option<SocketAddr>,

    /// The address for /metrics (for Prometheus), /healthz and /readyz. The public should not reach
    /// this address.
    #[arg(long, env = "PASSKIT_METRICS", value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) log: LogOptions,

    /// A file with options, in TOML. Its keys are the names of the options, such as `passes`.
    #[arg(long = "config", env = "PASSKIT_CONFIG", value_name = "FILE.toml")]
    pub(crate) config_file: Option<PathBuf>,

    /// Print the options in force without secrets, and where each option comes from. Do not serve.
    #[arg(long)]
    pub(crate) print_config: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "must be three digits from 0 to 7, such as 660".into())
}

/// The limit is low, because few clients publish.
const ADMIN_LIMITS: Limits = Limits {
    connections: 64,
    per_address: None,
};

/// How long the service waits at its end until the last delivery records are written.
const RECORDING: Duration = Duration::from_secs(5);

/// A service that listens, but does not answer yet.
pub(crate) struct Ready {
    listener: Listener,
    pub(crate) tls: Option<Arc<Tls>>,
    service: WalletService<Arc<dyn Store>, Source>,
    limits: Limits,
    source: Source,
    health: Arc<Health>,
    /// The metrics are served until this value is dropped.
    metrics: Option<Metrics>,
    admin: Option<Admin>,
    admin_listener: Option<Listener>,
    maker: Option<Arc<LiveMaker>>,
    publisher: Arc<Publisher>,
    recorder: Option<DeliveryRecorder>,
    keep: Keep,
    store: Arc<dyn Store>,
    drain: Duration,
    page: Option<(PageListener, Page)>,
    address: Address,
}

impl Serve {
    pub(crate) async fn run(self, options: Options) -> Result<ExitCode, Failure> {
        if self.print_config {
            say!("{}", options.shown().trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        let telemetry = Telemetry::from_environment()?;
        let level = self.log.start_with(tracing::Level::INFO, telemetry.layer());
        telemetry.report();
        if let (Some(file), true) = (&self.config_file, options.has_secret_in_file) {
            private_files::warn_of_readers(file);
        }
        // Signals are caught before any slow work, so that no signal is missed.
        let hangups = server::hangups();
        let stop = server::stop_signal();
        let mut stop = std::pin::pin!(stop);
        let ready = tokio::select! {
            ready = self.prepare() => ready?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        say!("listening on {}", ready.url());
        let reload = Arc::new(Reload {
            options,
            level,
            tls: ready.tls.clone(),
            health: ready.health.clone(),
        });
        let watched = service_manager::ready();
        let stop = async {
            tokio::select! {
                () = stop => {}
                // The terminal of the service was closed.
                () = hangups.each(async || reload.run().await) => {}
            }
            service_manager::stopping();
        };
        ready.serve(stop).await;
        telemetry.close().await;
        drop(watched);
        Ok(ExitCode::SUCCESS)
    }

    /// Opens the port first, then the store, then the folders.
    pub(crate) async fn prepare(&self) -> Result<Ready, Failure> {
        let mut config = match self.store.companion_folder() {
            Some(folder) => Config::new(folder),
            None => Config::new(&self.copies).next_free(true),
        }
        .allow_unsigned(self.allow_unsigned)
        .prefix(self.prefix.clone());
        if let Some(folder) = &self.passes {
            config = config.passes(folder);
        }
        if let Some(folder) = &self.orders {
            config = config.orders(folder);
        }
        let maker = self.open_maker().await?;
        if let Some(maker) = &maker {
            config = with_made(config, maker);
        }
        let has_folders = !config.roots.is_empty();
        if !has_folders && !self.archives_in_store {
            return Err(Failure::new(
                "there is nothing to serve; name a folder with --passes DIR or --orders DIR",
            ));
        }
        let apns = self.apns.load()?;
        self.admin_token
            .as_ref()
            .map_or(Ok(()), AdminToken::check)?;
        server::raise_open_file_limit();
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Tls::open(certificate, key)?)),
            _ => None,
        };
        let (listener, address) =
            Listener::bind(&self.listen, "--listen", self.socket_mode).await?;
        let health = Arc::<Health>::default();
        let mut metrics = match self.metrics {
            Some(address) => Some(Metrics::start(address, health.clone()).await?),
            None => None,
        };
        if self.admin_listen.is_some() && self.admin_token.is_none() {
            return Err(Failure::new("--admin-listen needs --admin-token"));
        }
        let admin_listener = match self.admin_listen {
            Some(address) => {
                let (listener, address) = server::bind(address, "--admin-listen").await?;
                tracing::info!("publish at http://{address}{}", admin::PATH);
                Some(listener)
            }
            None => None,
        };
        let page_listener = match (self.page, &self.admin_token) {
            (Some(address), Some(token)) => {
                let listener = PageListener::bind(address, tls.is_some()).await?;
                Some((listener, token.clone()))
            }
            (Some(_), None) => return Err(Failure::new("--page needs --admin-token")),
            (None, _) => None,
        };
        let store = self.store.open_or_create().await?;
        store::check_finished(&*store.store, &self.store).await?;
        let edition = store::edition(&*store.store)
            .await
            .map_err(|error| Failure::from_error("can't use the store", &error))?;
        config = config.edition(edition);
        let has_certificates = apns.is_some();
        if let Some(apns) = &apns {
            health.set_sender(apns.sender.clone());
        }
        if let Some(tls) = &tls {
            tls.measure();
            health.set_tls(tls.clone());
        }
        let recorder = self.keep_records.recorder(&store.store);
        if let Some(recorder) = &recorder {
            config = config.delivery_log(recorder.clone());
        }
        let publisher = apns::publisher(&store, apns, recorder.as_ref());
        let archives = self.archives(&store)?;
        if let Some(archives) = &archives {
            config = config.archives(archives.clone());
        }
        let page_store = match &page_listener {
            Some(_) => Some(self.store.open_for_page(&store).await?),
            None => None,
        };
        let store = store.store;
        let folder = if has_folders {
            let folder = Folder::open(config, publisher.clone()).await;
            Some(folder.map_err(|error| Failure::new(Chain(&error).to_string()))?)
        } else {
            None
        };
        let source = Source {
            folder: folder.clone(),
            archives: archives
                .clone()
                .map(|archives| Arc::new(StoredArchives::new(archives))),
        };
        tracing::info!("passes and orders served from folders: {}", source.len());
        if has_certificates {
            for type_id in source
                .types()
                .into_iter()
                .filter(|type_id| !publisher.sends(type_id))
            {
                tracing::warn!(
                    "{type_id}: no certificate is for this type, so its phones get no pushes; \
                     name a certificate for each type in the file of --apns-config"
                );
            }
        }
        // A maker has a folder.
        let making = maker.clone().zip(folder);
        let making = making.map(|(maker, folder)| Making { maker, folder });
        let mut service = WalletService::new(store.clone(), source.clone())
            .prefix(self.prefix.clone())
            .other_wallets(self.other_wallets)
            .max_devices_per_pass(self.max_devices_per_pass)
            .max_body_bytes(self.max_body_bytes);
        if let Some(recorder) = &recorder {
            service = service.delivery_log(recorder.clone());
        }
        if let (Some(url), Some(secret), Some(making)) =
            (&self.enroll_url, &self.enroll_secret, &making)
        {
            let enrolling = Arc::new(Enrolling::new(url, secret, making.clone())?);
            let (store, publisher) = (store.clone(), publisher.clone());
            service = service.enrolment(Enrolment::new(
                store,
                publisher,
                enrolling.clone(),
                enrolling,
            ));
        }
        if let Some(metrics) = &mut metrics {
            metrics.measure(store.clone(), source.clone());
        }
        health.serve(store.clone(), source.clone());
        let archives = archives.map(|archives| {
            let rules = if self.allow_unsigned {
                Rules::development()
            } else {
                Rules::strict()
            };
            let publisher = publisher.clone();
            Arc::new(Archives::new(archives, source.clone(), publisher, rules))
        });
        let page = page_listener
            .zip(page_store)
            .map(|((listener, token), store)| {
                let archives = store.archives.clone().filter(|_| archives.is_some());
                let page = Page {
                    token,
                    source: Source {
                        folder: source.folder.clone(),
                        archives: archives.map(page::archives),
                    },
                    store,
                    publisher: publisher.clone(),
                    health: health.clone(),
                    tls: tls.clone(),
                    keeps_records: self.keep_records.is_on(),
                    state: page::State::default(),
                };
                (listener, page)
            });
        let admin = self.admin_token.clone().map(|token| Admin {
            token,
            publisher: publisher.clone(),
            making,
            archives: archives.clone(),
            wrong_tokens: Arc::default(),
        });
        Ok(Ready {
            listener,
            tls,
            service,
            limits: Limits {
                connections: self.max_connections,
                per_address: self.max_connections_per_address,
            },
            source,
            health,
            metrics,
            admin,
            admin_listener,
            maker,
            publisher,
            recorder,
            keep: self.keep_records,
            store,
            drain: Duration::from_secs(self.drain),
            page,
            address,
        })
    }

    /// Returns the store if it keeps archives.
    fn archives(&self, store: &OpenStore) -> Result<Option<Arc<dyn ArchiveStore>>, Failure> {
        if !self.archives_in_store {
            return Ok(None);
        }
        let archives = store.archives.clone();
        archives.map(Some).ok_or_else(|| {
            Failure::new(format!(
                "--archives-in-store needs a sqlite: or postgres: store, because {} keeps no archives",
                self.store
            ))
        })
    }

    /// Opens the template and the certificate of --make.
    async fn open_maker(&self) -> Result<Option<Arc<LiveMaker>>, Failure> {
        let Some(file) = self.make.clone() else {
            return Ok(None);
        };
        let password = self.apns.password.clone();
        let opened = tokio::task::spawn_blocking(move || LiveMaker::open(&file, password)).await;
        let opened =
            opened.map_err(|error| Failure::from_error("can't open the template", &error))?;
        Ok(Some(Arc::new(opened?)))
    }
}

/// Also serves the folder into which `make` writes passes, unless this folder is inside one of the served folders.
fn with_made(config: Config, maker: &LiveMaker) -> Config {
    let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = place(maker.folder());
    let kind = maker.kind();
    let mut roots = config.roots.iter();
    if roots.any(|(of, root)| *of == kind && folder.starts_with(place(root))) {
        return config;
    }
    match kind {
        Kind::Pass => config.passes(maker.folder()),
        Kind::Order => config.orders(maker.folder()),
    }
}

impl Ready {
    /// Returns the address at which the service answers.
    pub(crate) fn url(&self) -> String {
        match &self.address {
            Address::Port(address) if self.tls.is_some() => format!("https://{address}"),
            Address::Port(address) => format!("http://{address}"),
            socket @ Address::Socket(_) => socket.to_string(),
        }
    }

    /// Answers until `stop` is ready. Then lets requests in flight finish and closes everything.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        // Dropping the set ends these tasks.
        let mut beside = JoinSet::new();
        let health = self.health.clone();
        beside.spawn(async move { health.watch_certificates().await });
        let publisher = self.publisher.clone();
        beside.spawn(async move { publisher.run().await });
        if let Some(maker) = self.maker {
            beside.spawn(maker.watch());
        }
        beside.spawn(delivery::discard_old(self.store, self.keep));
        let (stop_recording, stopped) = oneshot::channel::<()>();
        let recording = self.recorder.map(|recorder| {
            tokio::spawn(async move { recorder.run_until(async { drop(stopped.await) }).await })
        });
        if let Some((listener, page)) = self.page {
            beside.spawn(listener.serve(page));
        }
        let admin = match (self.admin, self.admin_listener) {
            (Some(admin), Some(listener)) => {
                let service = service_fn(move |request| answer_publish(admin.clone(), request));
                beside.spawn(server::serve(
                    listener,
                    None,
                    service,
                    ADMIN_LIMITS,
                    std::future::pending(),
                    std::future::pending(),
                ));
                None
            }
            (admin, _) => admin,
        };
        let wallet = self.service;
        let service = service_fn(move |request: Request<Incoming>| match &admin {
            Some(admin) if admin::is_path(request.uri().path()) => admin.clone().answer(request),
            _ => wallet.clone().call(request),
        });
        let health = self.health;
        let stop = async {
            stop.await;
            health.stop();
        };
        if let Some(tls) = &self.tls {
            beside.spawn(tls.clone().watch());
        }
        let drained = drained(self.drain);
        server::serve(self.listener, self.tls, service, self.limits, stop, drained).await;
        drop(self.metrics);
        beside.shutdown().await;
        if let Err(error) = self.publisher.close().await {
            tracing::warn!(
                "other instances send the pending pushes a little later: {}",
                Chain(&error)
            );
        }
        // The last pushes and requests are recorded too.
        drop(stop_recording);
        if let Some(recording) = recording
            && timeout(RECORDING, recording).await.is_err()
        {
            tracing::warn!("the last delivery records are lost, because the store does not answer");
        }
        self.source.close().await;
    }
}

/// Waits for the time of --drain, or until the next signal.
async fn drained(time: Duration) {
    if time.is_zero() {
        return;
    }
    let signal = server::stop_signal();
    tracing::info!("the service stops in {} s", time.as_secs());
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = signal => {}
    }
}

/// Serves the publish endpoint on a separate listener.
async fn answer_publish(
    admin: Admin,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    if admin::is_path(request.uri().path()) {
        return admin.answer(request).await;
    }
    let mut answer = Response::new(ResponseBody::from(Bytes::new()));
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(answer)
}
