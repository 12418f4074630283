use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use hyper_util::service::TowerToHyperService;
use passkit_server::{Kind, Measured, StoreMaintenance, WalletService};
use tokio::net::TcpListener;

use crate::{
    failure::Failure,
    folder::{Folder, FolderOptions, Place, Watching},
    metrics::Metrics,
    server,
    store::{OpenStore, StoreUrl},
};

/// Serves the passes and orders in folders to phones, and notices when they change.
///
/// Every .pkpass (or .order) file below a folder is known by the type and serial number inside. TLS, which phones
/// demand, is the task of a proxy in front.
///
/// Each option can also be given as an environment variable; PASSKIT_LOG (error, warn, info, debug) says how much is
/// written to stderr.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "PASSKIT_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,

    /// Where registrations are kept: sled:FOLDER, for one instance; or a database, for any number of them.
    #[arg(long, env = "PASSKIT_STORE", default_value = "sled:./passkit-data", value_name = "URL")]
    pub(crate) store: StoreUrl,

    /// Where this instance keeps copies of the archives it serves, if the store is no folder. Another instance started
    /// in the same place takes the next name, with -2 behind it and so on.
    #[arg(long, env = "PASSKIT_COPIES", default_value = "./passkit-copies", value_name = "DIR")]
    pub(crate) copies: PathBuf,

    /// A folder with .pkpass files.
    #[arg(long, env = "PASSKIT_PASSES", value_name = "DIR")]
    pub(crate) passes: Option<PathBuf>,

    /// A folder with .order files.
    #[arg(long, env = "PASSKIT_ORDERS", value_name = "DIR")]
    pub(crate) orders: Option<PathBuf>,

    /// Serve development archives too: without a signature, and with a webServiceURL of http://.
    #[arg(long, env = "PASSKIT_ALLOW_UNSIGNED", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) allow_unsigned: bool,

    /// How many connections may be open at once; more wait.
    #[arg(long, env = "PASSKIT_MAX_CONNECTIONS", default_value_t = 4096, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) max_connections: usize,

    /// Where to answer Prometheus, at /metrics; nowhere if not given. To be kept from the public.
    #[arg(long, env = "PASSKIT_METRICS", value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// A service that listens and has not begun to answer.
pub(crate) struct Ready {
    listener: TcpListener,
    service: WalletService<Measured<Arc<dyn StoreMaintenance>>, Folder>,
    max_connections: usize,
    watching: Watching,
    metrics: Option<Metrics>,
    store: OpenStore,
    pub(crate) address: SocketAddr,
}

impl Serve {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        start_logging(tracing::Level::INFO);
        // Before anything slow, so that no signal finds nobody listening for it.
        let stop = server::stop_signal();
        let mut stop = std::pin::pin!(stop);
        let ready = tokio::select! {
            ready = self.prepare() => ready?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        say!("listening on http://{}", ready.address);
        ready.serve(stop).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Opens everything: the port first, then the store, then the folders.
    pub(crate) async fn prepare(&self) -> Result<Ready, Failure> {
        let roots: Vec<(Kind, PathBuf)> = [(Kind::Pass, &self.passes), (Kind::Order, &self.orders)]
            .into_iter()
            .filter_map(|(kind, root)| Some((kind, root.clone()?)))
            .collect();
        if roots.is_empty() {
            return Err(Failure::new("nothing to serve: name a folder with --passes DIR or --orders DIR"));
        }
        server::raise_open_file_limit();
        let (listener, address) = server::bind(self.listen, "--listen").await?;
        let metrics = match self.metrics {
            Some(address) => Some(Metrics::bind(address).await?),
            None => None,
        };
        let store = self.store.open().await?;
        let options = FolderOptions {
            roots,
            catalog: match self.store.companion_folder() {
                Some(folder) => Place::Own(folder),
                None => Place::FirstFree(self.copies.clone()),
            },
            allow_unsigned: self.allow_unsigned,
        };
        let runtime = tokio::runtime::Handle::current();
        let (folder, watching) = {
            let store = store.clone();
            tokio::task::spawn_blocking(move || Folder::open(&options, store, runtime))
                .await
                .map_err(|error| Failure::from_error("can't read the folders", &error))??
        };
        tracing::info!("passes and orders served: {}", folder.len());
        let service = WalletService::new(Measured::new(store.registrations.clone()), folder);
        Ok(Ready {
            listener,
            service,
            max_connections: self.max_connections,
            watching,
            metrics,
            store,
            address,
        })
    }
}

impl Ready {
    /// Answers until `stop` is ready, then lets requests in flight finish and closes everything.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        let metrics = self.metrics.map(|metrics| metrics.serve(self.store));
        let service = TowerToHyperService::new(self.service);
        server::serve(self.listener, service, self.max_connections, stop).await;
        drop(metrics);
        // Joins a thread, which may be marking changes through this runtime.
        let closed = tokio::task::spawn_blocking(move || drop(self.watching)).await;
        if let Err(error) = closed {
            tracing::error!("the folder watcher failed: {error}");
        }
    }
}

/// Writes what happens to stderr, down to `level` unless PASSKIT_LOG says otherwise.
pub(crate) fn start_logging(level: tracing::Level) {
    let wanted = std::env::var("PASSKIT_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(wanted.unwrap_or(level))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
