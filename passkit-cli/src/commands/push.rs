use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use clap::Args;
use passkit_server::{
    Changed,
    delivery::DeliveryRecorder,
    identifiers::{SerialNumber, TypeIdentifier},
    push::{Publisher, Stopped},
    store::StoreError,
};

use super::progress::Progress;
use crate::{
    apns::{self, ApnsOptions},
    failure::Failure,
    logging::LogOptions,
    server,
    store::{self, Store, StoreUrl},
};

/// The time between two checks whether pushes are left.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Marks passes as changed, and sends the pushes.
///
/// Use this command for passes whose content is not in a folder. Change the content first. The
/// command also sends all other pending pushes in the store. If another instance sends the pushes,
/// the command waits for it.
///
/// Exit code: 0 all pushes were sent, 1 some pushes failed or are still waiting, 2 nothing could be
/// done. A device of another wallet, which APNs can't reach, is not a failure.
#[derive(Args)]
pub(crate) struct Push {
    /// The store in which the phones are registered. A sled: store must not be in use.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    #[command(flatten)]
    apns: ApnsOptions,

    #[command(flatten)]
    log: LogOptions,

    /// The type of the passes.
    #[arg(value_name = "TYPE")]
    type_id: TypeIdentifier,

    /// The serial numbers of the passes.
    #[arg(
        value_name = "SERIAL",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    serials: Vec<String>,

    /// All passes of the type.
    #[arg(long)]
    all: bool,
}

/// How the sending ended.
enum End {
    /// No more pushes of the type are pending.
    Done,
    /// The remaining pushes were not sent, for this reason.
    Waits(String),
    Stopped,
}

impl Push {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        self.log.start(tracing::Level::WARN);
        let mut stop = std::pin::pin!(server::stop_signal());
        let serials = self
            .serials
            .iter()
            .map(|serial| SerialNumber::new(serial))
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(|error| Failure::from_error("can't mark the passes", &error))?;
        let serials: Vec<SerialNumber> = serials.into_iter().collect();
        let apns = self.apns.load()?.ok_or_else(|| {
            Failure::new(
                "there is no certificate for pushes; name one with --apns-cert FILE or --apns-config FILE.toml",
            )
        })?;
        apns.check_expiry()?;
        let store = tokio::select! {
            store = self.store.open() => store?,
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        let recorder = DeliveryRecorder::new(store.store.clone(), store.store.clone());
        let publisher = apns::publisher(&store, Some(apns), Some(&recorder));
        let store = store.store;
        if !publisher.sends(&self.type_id) {
            return Err(Failure::new(format!(
                "no certificate is for {}; nothing was marked",
                self.type_id
            )));
        }
        let changed = if self.all {
            Changed::All
        } else {
            Changed::Passes(&serials)
        };
        publisher
            .publish(&self.type_id, changed)
            .await
            .map_err(|error| {
                Failure::from_error(
                    "can't mark the passes; some may be marked; run this again",
                    &error,
                )
            })?;

        let progress = Progress::new("pushes sent", None);
        let show = async {
            let known = if self.all {
                registrations(&*store, &self.type_id).await
            } else {
                None
            };
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
            end = send(&publisher, &*store, &self.type_id, &progress) => end,
            () = &mut stop => Ok(End::Stopped),
            () = show => Ok(End::Stopped),
            () = tick => Ok(End::Stopped),
        };
        progress.finish();
        // If this fails, other instances send the rest a little later.
        let _ = publisher.close().await;
        recorder.flush().await;
        // The reason is printed below.
        let mut report = publisher.totals();
        report.stopped = None;
        let end = end.map_err(|error| {
            Failure::from_error(
                format!(
                    "the store failed; the rest stays pending ({} sent)",
                    report.sent
                ),
                &error,
            )
        })?;
        say!("{report}");
        Ok(match end {
            End::Done if report.failed.is_empty() && report.deferred == 0 => ExitCode::SUCCESS,
            End::Done => ExitCode::FAILURE,
            End::Waits(reason) => {
                eprintln!(
                    "passkit: the remaining pushes wait: {reason}; run this again, or let passkit serve send them"
                );
                ExitCode::FAILURE
            }
            End::Stopped => {
                eprintln!(
                    "passkit: stopped; the next run, or passkit serve, sends the remaining pushes"
                );
                ExitCode::FAILURE
            }
        })
    }
}

/// Sends pushes until no push of the type is pending, or the remaining pushes have to wait.
async fn send(
    publisher: &Publisher,
    store: &dyn Store,
    type_id: &TypeIdentifier,
    progress: &Progress,
) -> Result<End, StoreError> {
    let mut reported = false;
    loop {
        let report = publisher.push_pending().await?;
        let left = store
            .backlog()
            .await?
            .into_iter()
            .find(|backlog| backlog.type_id == *type_id);
        if left.is_none_or(|backlog| backlog.pending == 0) {
            return Ok(End::Done);
        }
        match report.stopped {
            Some(Stopped::Elsewhere) if !reported => {
                reported = true;
                progress.say("another instance sends the pushes; waiting for it");
            }
            Some(Stopped::Elsewhere) | None => {}
            Some(reason) => return Ok(End::Waits(reason.to_string())),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Counts the registrations of a type. Returns `None` if counting fails.
async fn registrations(store: &dyn Store, type_id: &TypeIdentifier) -> Option<u64> {
    let types = store.stats().await.ok()?.types;
    Some(
        types
            .into_iter()
            .find(|one| one.type_id == *type_id)
            .map_or(0, |one| one.registrations),
    )
}
