use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;
use passkit_archive::{Archive, read_date};
use passkit_folder::FoundFile;
use passkit_server::{
    PassId,
    identifiers::{Kind, SerialNumber, TypeIdentifier},
    maintenance::{Purged, purge, remove_deferred},
    store::StoreError,
    text::OneLine,
};
use tokio::time::{Instant, sleep};

use super::{all_types, progress::Progress};
use crate::{
    failure::Failure,
    store::{self, Store, StoreUrl, check_finished},
};

/// How many passes are purged at a time.
const GROUP: usize = 500;
/// How long to wait until `passkit serve` has noticed that a file is gone.
const NOTICE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Removes everything that a store keeps about some passes: their registrations, versions, authentication tokens and pending
/// pushes.
///
/// A device without other passes is removed too. Remove the files of the passes first, or add --delete-files. Otherwise
/// the next phone that registers brings a pass back. --expired and --voided find passes by their files, so they need
/// --delete-files. A service may use the store during the call.
///
/// Exit code: 0 everything was removed, 1 some passes must be purged again later, 2 the command failed, perhaps after it
/// had removed a part.
#[derive(Args)]
pub(crate) struct Purge {
    /// The store to remove the passes from. A sled: store must not be in use.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// The type of the passes.
    #[arg(
        value_name = "TYPE",
        required_unless_present_any = ["expired", "voided", "removed"],
        conflicts_with_all = ["expired", "voided", "removed"],
        requires = "serials"
    )]
    type_id: Option<TypeIdentifier>,

    /// The serial numbers of the passes.
    #[arg(value_name = "SERIAL")]
    serials: Vec<String>,

    /// Purge the passes in the folders whose expirationDate is past.
    #[arg(long)]
    expired: bool,

    /// With --expired: the passes that expired before this date, such as 2026-11-28 (UTC) or 2026-11-28T09:41+01:00. Default:
    /// now.
    #[arg(long, value_name = "DATE", requires = "expired", value_parser = date)]
    before: Option<SystemTime>,

    /// Purge the passes in the folders that are marked as voided.
    #[arg(long)]
    voided: bool,

    /// Purge the passes whose files were removed from the folders that `passkit serve` serves.
    #[arg(long)]
    removed: bool,

    /// The folder with .pkpass files that `passkit serve` serves.
    #[arg(long, env = "PASSKIT_PASSES", value_name = "DIR")]
    passes: Option<PathBuf>,

    /// The folder with .order files that `passkit serve` serves.
    #[arg(long, env = "PASSKIT_ORDERS", value_name = "DIR")]
    orders: Option<PathBuf>,

    /// Delete the files of these passes from the folders.
    #[arg(long)]
    delete_files: bool,

    /// Purge passes even if a service may still offer them.
    #[arg(long)]
    force: bool,

    /// Only list what would be removed.
    #[arg(long)]
    dry_run: bool,
}

/// Reads a day, or a date as in `expirationDate`.
fn date(text: &str) -> Result<SystemTime, &'static str> {
    read_date(text)
        .or_else(|| read_date(&format!("{text}T00:00Z")))
        .ok_or("write a day such as 2026-11-28, or a date such as 2026-11-28T09:41+01:00")
}

/// The archives in the folders.
#[derive(Default)]
struct Found {
    passes: BTreeMap<PassId, Vec<File>>,
    /// The files that can't be read.
    broken: Vec<PathBuf>,
}

struct File {
    file: FoundFile,
    expiration: Option<SystemTime>,
    voided: bool,
}

impl Found {
    fn read(kind: Kind, root: &Path, found: &mut Self) -> Result<(), Failure> {
        let mut add = |file: &FoundFile, archive: Archive| {
            let file = File {
                file: file.clone(),
                expiration: archive.expiration,
                voided: archive.voided,
            };
            found.passes.entry(archive.id).or_default().push(file);
        };
        let mut broken = Vec::new();
        let read = passkit_folder::read_archives(kind, root, |file, content| {
            match content {
                Ok(archive) => add(file, archive),
                Err(problem) => {
                    let path = file.path();
                    eprintln!("passkit: {}: {problem}; left out", OneLine::path(path));
                    broken.push(path.to_owned());
                }
            }
            true
        });
        found.broken.extend(broken);
        read.map_err(|error| Failure::new(format!("can't read {}: {error}", root.display())))
    }

    fn files(&self, pass: &PassId) -> &[File] {
        self.passes.get(pass).map_or(&[], Vec::as_slice)
    }

    /// Returns each pass if all of its files fulfil the condition.
    fn with(&self, condition: impl Fn(&File) -> bool) -> impl Iterator<Item = &PassId> {
        let all = self.passes.iter();
        all.filter(move |(_, files)| files.iter().all(&condition))
            .map(|(pass, _)| pass)
    }

    /// Fails if one of these passes still has a file.
    fn check_gone(&self, passes: &BTreeSet<PassId>, advice: &str) -> Result<(), Failure> {
        let mut left = passes.iter().filter(|pass| !self.files(pass).is_empty());
        let Some(first) = left.next() else {
            return Ok(());
        };
        let more = match left.count() {
            0 => String::new(),
            count => format!(", and {count} other passes have files too"),
        };
        let path = self.files(first).first().map(File::shown);
        let path = path.unwrap_or_default();
        Err(Failure::new(format!(
            "{path} still holds {first}{more}; {advice}"
        )))
    }

    /// Deletes the files of these passes. Leaves a pass alone if one of its files is no longer the file that was read.
    fn delete(&self, passes: BTreeSet<PassId>) -> Result<Deleted, Failure> {
        let mut deleted = Deleted::default();
        for pass in passes {
            let files = self.files(&pass);
            if let Some(changed) = changed(files)? {
                deleted.changed.push(changed.shown());
                continue;
            }
            for file in files {
                deleted.files += u64::from(file.delete()?);
            }
            deleted.passes.insert(pass);
        }
        Ok(deleted)
    }
}

/// The result of deleting the files of passes.
#[derive(Default)]
struct Deleted {
    /// The passes without files.
    passes: BTreeSet<PassId>,
    files: u64,
    /// The files that are no longer what was read. One of each pass.
    changed: Vec<String>,
}

/// Returns one of the files that is no longer the file that was read. It may be a renewed pass.
fn changed(files: &[File]) -> Result<Option<&File>, Failure> {
    for file in files {
        let unchanged = file.file.is_unchanged();
        let unchanged = unchanged.map_err(|error| file.failure("read", &error))?;
        if unchanged == Some(false) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

impl File {
    fn shown(&self) -> String {
        OneLine::path(self.file.path()).to_string()
    }

    fn failure(&self, action: &str, error: &io::Error) -> Failure {
        Failure::new(format!("can't {action} {}: {error}", self.shown()))
    }

    /// Returns whether there was a file.
    fn delete(&self) -> Result<bool, Failure> {
        match fs::remove_file(self.file.path()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failure("delete", &error)),
        }
    }
}

impl Purge {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let found = self.read_folders()?;
        let opened = self.store.open().await?;
        let store = &*opened.store;
        check_finished(store, &self.store).await?;
        let progress = Progress::new("passes", None);
        let passes = self.choose(&found, store, &progress).await?;
        if self.dry_run {
            return list(&found, store, &passes).await;
        }
        if !self.delete_files {
            let advice = if self.expired || self.voided {
                // Without its file, such a pass would not be found.
                "add --delete-files to delete the files too"
            } else {
                "remove the files first, or add --delete-files"
            };
            found.check_gone(&passes, advice)?;
        }
        self.check_named(&found, store, &passes).await?;
        let Deleted {
            passes,
            files,
            changed,
        } = found.delete(passes)?;
        let failed = |error| Failure::incomplete("some of the passes are not purged", &error);
        if self.names_a_folder() {
            wait_until_noticed(store, &passes).await.map_err(failed)?;
        }
        let mut all = Purged::default();
        let passes: Vec<PassId> = passes.into_iter().collect();
        for (n, group) in passes.chunks(GROUP).enumerate() {
            let purged = progress
                .patiently(async || purge(store, group).await)
                .await
                .map_err(failed)?;
            all.registrations += purged.registrations;
            all.ahead.extend(purged.ahead);
            progress.set((n * GROUP + group.len()) as u64, 0);
        }
        let types: BTreeSet<&TypeIdentifier> = passes.iter().map(|pass| &pass.type_id).collect();
        let mut deferred = 0;
        for type_id in types {
            deferred += progress
                .patiently(async || remove_deferred(store, type_id).await)
                .await
                .map_err(failed)?;
        }
        progress.finish();
        say!(
            "{} passes purged: {} registrations, {deferred} deferred pushes and {files} files removed",
            passes.len() - all.ahead.len(),
            all.registrations,
        );
        if !all.ahead.is_empty() {
            eprintln!(
                "passkit: {} passes are not purged, because they changed so often that their dates are ahead of the clock; run this again later",
                all.ahead.len()
            );
        }
        if let Some(file) = changed.first() {
            eprintln!(
                "passkit: {} passes are not purged, because their files have changed during this call, such as {file}; run this again",
                changed.len()
            );
        }
        Ok(if all.ahead.is_empty() && changed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn names_a_folder(&self) -> bool {
        self.passes.is_some() || self.orders.is_some()
    }

    fn read_folders(&self) -> Result<Found, Failure> {
        let needs_folder = [
            (self.expired, "--expired"),
            (self.voided, "--voided"),
            (self.delete_files, "--delete-files"),
        ];
        if let Some((_, option)) = needs_folder.iter().find(|(given, _)| *given)
            && !self.names_a_folder()
        {
            return Err(Failure::new(format!(
                "{option} needs the folder that passkit serve serves; name it with --passes DIR or --orders DIR"
            )));
        }
        let mut found = Found::default();
        for (kind, root) in [(Kind::Pass, &self.passes), (Kind::Order, &self.orders)] {
            if let Some(root) = root {
                Found::read(kind, root, &mut found)?;
            }
        }
        Ok(found)
    }

    /// Returns the passes that the options select.
    async fn choose(
        &self,
        found: &Found,
        store: &dyn Store,
        progress: &Progress,
    ) -> Result<BTreeSet<PassId>, Failure> {
        let mut passes = BTreeSet::new();
        if let Some(type_id) = &self.type_id {
            for serial in &self.serials {
                let serial = SerialNumber::new(serial)
                    .map_err(|error| Failure::from_error("can't purge the passes", &error))?;
                let type_id = type_id.clone();
                passes.insert(PassId { type_id, serial });
            }
        }
        if self.expired {
            let before = self.before.unwrap_or_else(SystemTime::now);
            let is_past = |file: &File| file.expiration.is_some_and(|date| date < before);
            passes.extend(found.with(is_past).cloned());
        }
        if self.voided {
            passes.extend(found.with(|file| file.voided).cloned());
        }
        if self.removed {
            all_types::published_passes(store, progress, async |page| {
                let published = store.published(&page).await?;
                let removed = page.into_iter().zip(published);
                let removed =
                    removed.filter(|(_, known)| known.as_ref().is_some_and(|p| p.removed));
                passes.extend(removed.map(|(pass, _)| pass));
                Ok(())
            })
            .await
            .map_err(|error| Failure::from_error("can't read the store", &error))?;
        }
        Ok(passes)
    }

    /// Fails if a pass that the user named may still be offered.
    async fn check_named(
        &self,
        found: &Found,
        store: &dyn Store,
        passes: &BTreeSet<PassId>,
    ) -> Result<(), Failure> {
        if self.type_id.is_none() || self.force {
            return Ok(());
        }
        if let Some(path) = found.broken.first() {
            return Err(Failure::new(format!(
                "{} can't be read and may be the file of one of the passes; repair or remove it, or add --force",
                OneLine::path(path)
            )));
        }
        if self.names_a_folder() {
            return Ok(());
        }
        let offered = offered(store, passes)
            .await
            .map_err(|error| Failure::from_error("can't read the store", &error))?;
        match offered.first() {
            None => Ok(()),
            Some(pass) => Err(Failure::new(format!(
                "passkit serve offers {pass}; remove its file and wait until passkit serve has noticed, name the folder \
                 with --passes DIR, or add --force"
            ))),
        }
    }
}

/// Returns which of these passes a service offers, according to the store.
async fn offered(store: &dyn Store, passes: &BTreeSet<PassId>) -> Result<Vec<PassId>, StoreError> {
    let passes: Vec<PassId> = passes.iter().cloned().collect();
    let mut offered = Vec::new();
    for passes in passes.chunks(GROUP) {
        let published = store.published(passes).await?;
        let each = passes.iter().zip(published);
        let is_offered = each.filter(|(_, published)| {
            let known = published.as_ref();
            known.is_some_and(|one| one.digest.is_some() && !one.removed)
        });
        offered.extend(is_offered.map(|(pass, _)| pass.clone()));
    }
    Ok(offered)
}

/// Waits until all running services have noticed that the files are gone. Until then, they accept registrations. If no
/// service runs, the wait ends after a time limit.
async fn wait_until_noticed(
    store: &dyn Store,
    passes: &BTreeSet<PassId>,
) -> Result<(), StoreError> {
    let started = Instant::now();
    while started.elapsed() < NOTICE && !offered(store, passes).await?.is_empty() {
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Prints the passes with their registrations and files.
async fn list(
    found: &Found,
    store: &dyn Store,
    passes: &BTreeSet<PassId>,
) -> Result<ExitCode, Failure> {
    let mut registrations = 0;
    for pass in passes {
        let count = store
            .count_devices(pass, u64::MAX)
            .await
            .map_err(|error| Failure::from_error("can't read the store", &error))?;
        registrations += count;
        let files = found.files(pass).iter();
        let files: String = files.map(|file| format!(", {}", file.shown())).collect();
        say!("{pass}: {count} registrations{files}");
    }
    say!(
        "{} passes with {registrations} registrations would be purged",
        passes.len()
    );
    Ok(ExitCode::SUCCESS)
}
