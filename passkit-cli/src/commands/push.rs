use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use clap::Args;
use passkit_server::{PassId, Publisher, PushQueue, Stopped, StoreError, TypeIdentifier};

use super::{progress::Progress, serve::start_logging};
use crate::{
    apns::ApnsOptions,
    failure::Failure,
    server,
    store::{OpenStore, StoreUrl},
};

/// How often it is looked whether anything is left.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Says that passes have changed, and sends the pushes, whatever serves the passes.
///
/// For passes whose content is kept elsewhere than in a folder: change that first. Everything else that the store owes is
/// sent too. If another instance is sending, it is left to do so, and waited for.
///
/// Exit code: 0 all was sent, 1 some pushes failed or wait, 2 it could not be done.
#[derive(Args)]
pub(crate) struct Push {
    /// The store in which the phones are registered. One that is a folder must not be in use: see --admin-token of serve.
    #[arg(long, env = "PASSKIT_STORE", value_name = "URL")]
    store: StoreUrl,

    #[command(flatten)]
    apns: ApnsOptions,

    /// The type of the passes.
    #[arg(value_name = "TYPE")]
    type_id: TypeIdentifier,

    /// Their serial numbers.
    #[arg(value_name = "SERIAL", required_unless_present = "all", conflicts_with = "all")]
    serials: Vec<String>,

    /// All passes of the type.
    #[arg(long)]
    all: bool,
}

/// How it ended.
enum End {
    /// Nothing of the type is left.
    Done,
    /// The rest waits, and why.
    Waits(String),
    Stopped,
}

impl Push {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        start_logging(tracing::Level::WARN);
        let mut stop = std::pin::pin!(server::stop_signal());
        let passes = self
            .serials
            .iter()
            .map(|serial| PassId::new(self.type_id.as_str(), serial))
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(|error| Failure::from_error("no serial number", &error))?;
        let apns = self.apns.load()?.ok_or_else(|| {
            Failure::new(
                "no certificate to push with: name one with --apns-cert FILE or --apns-config FILE.toml",
            )
        })?;
        let store = tokio::select! {
            store = self.store.open() => store?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        let publisher = apns.publisher(&store);
        if !publisher.covers(&self.type_id) {
            return Err(Failure::new(format!("no certificate is for {}: nothing was marked", self.type_id)));
        }
        let marked = if self.all {
            publisher.publish_all(&self.type_id).await
        } else {
            publisher.publish(&passes.into_iter().collect::<Vec<_>>()).await
        };
        marked.map_err(|error| {
            Failure::from_error(
                "can't mark the passes; some may be, and it is right to run this again",
                &error,
            )
        })?;

        let progress = Progress::new("pushes sent", None);
        let show = async {
            let known = if self.all { registrations(&store, &self.type_id).await } else { None };
            if let Some(known) = known {
                progress.say(&format!("{known} registrations of {}", self.type_id));
            }
            std::future::pending::<()>().await;
        };
        let tick = async {
            loop {
                progress.set(publisher.totals().sent, 0);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let end = tokio::select! {
            end = send(&publisher, &*store.queue, &self.type_id, &progress) => end,
            () = &mut stop => Ok(End::Stopped),
            () = show => Ok(End::Stopped),
            () = tick => Ok(End::Stopped),
        };
        progress.finish();
        // Whether or not that works, what is owed stays owed.
        let _ = publisher.close().await;
        // Why the rest waits is said below, in other words.
        let mut report = publisher.totals();
        report.stopped = None;
        let end = end.map_err(|error| {
            Failure::from_error(
                format!("the store failed; what is owed stays owed ({} sent)", report.sent),
                &error,
            )
        })?;
        say!("{report}");
        Ok(match end {
            End::Done if report.failed.is_empty() && report.deferred == 0 => ExitCode::SUCCESS,
            End::Done => ExitCode::FAILURE,
            End::Waits(reason) => {
                eprintln!("passkit: the rest waits: {reason}; run this again, or let passkit serve send it");
                ExitCode::FAILURE
            }
            End::Stopped => {
                eprintln!(
                    "passkit: stopped; what is still owed is sent by the next run, or by passkit serve"
                );
                ExitCode::FAILURE
            }
        })
    }
}

/// Sends until nothing of the type is owed, or what is has to wait.
async fn send(
    publisher: &Publisher,
    queue: &dyn PushQueue,
    type_id: &TypeIdentifier,
    progress: &Progress,
) -> Result<End, StoreError> {
    let mut said = false;
    loop {
        let report = publisher.push_owed().await?;
        let left = queue.owing().await?.into_iter().find(|owing| owing.type_id == *type_id);
        if left.is_none_or(|owing| owing.debts == 0) {
            return Ok(End::Done);
        }
        match report.stopped {
            Some(Stopped::Elsewhere) if !said => {
                said = true;
                progress.say("another instance sends what is owed; waiting for it");
            }
            Some(Stopped::Elsewhere) | None => {}
            Some(reason) => return Ok(End::Waits(reason.to_string())),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `None` if they can't be counted.
async fn registrations(store: &OpenStore, type_id: &TypeIdentifier) -> Option<u64> {
    let types = store.registrations.stats().await.ok()?.types;
    Some(types.into_iter().find(|one| one.type_id == *type_id).map_or(0, |one| one.registrations))
}
