//! Notices what changed in the folders.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use notify::{EventKind, RecursiveMode, Watcher as _, event::ModifyKind};
use passkit_server::{
    PassId,
    identifiers::Kind,
    store::ContentDigest,
    text::{Chain, OneLine},
};
use tokio::sync::oneshot;

use crate::{
    catalog::CatalogError,
    files::{self, Found, Identity, Stamp},
    publish::Publishing,
};

/// A changed file may be half-written. It is read once it has stayed the same for this long.
const STABLE_AFTER: Duration = Duration::from_millis(100);
/// A missing file may be about to be replaced. Its pass is withdrawn after the file was gone for
/// this long.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// Not every file system reports changes, and many changes at once are not all reported. So the
/// folders are also searched from time to time. Searching takes at most a fiftieth of the time.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_SHARE: u32 = 50;
/// A change is served within a second, even if the system does not report it.
const _: () = assert!(SWEEP_EVERY.as_millis() + 2 * STABLE_AFTER.as_millis() < 1_000);
/// How often to check whether withdrawn passes were purged from the store.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How many events are received before they are handled.
const EVENTS_AT_ONCE: usize = 1000;

pub(crate) enum Event {
    Changed(notify::Result<notify::Event>),
    /// Read the file of this pass again, then answer. If the content in the store differs from the
    /// copy, `content` is the content of the copy.
    ReadAgain {
        pass: PassId,
        content: Option<ContentDigest>,
        reply: oneshot::Sender<()>,
    },
    /// Check the stop flag.
    Stop,
}

pub(crate) struct Watcher {
    publishing: Publishing,
    roots: Vec<(Kind, PathBuf)>,
    /// Files that differ from when they were last read. Each has its stamp, and the time since when
    /// the stamp has stayed the same.
    changing: HashMap<PathBuf, (Stamp, Instant)>,
    /// Missing files whose passes are still served, and since when they are missing.
    gone: HashMap<PathBuf, Instant>,
    /// Files to read again although their stamps are the same.
    again: BTreeMap<PathBuf, Stamp>,
    comparing: Vec<Comparison>,
    /// What the last search could not read. Each of these is reported once.
    unreadable: BTreeSet<PathBuf>,
    /// For the path of each root, the folder in which archives were found last. Later, the path may lead to another folder.
    homes: HashMap<PathBuf, Identity>,
    /// The absent roots. Each of them was reported.
    absent: BTreeSet<PathBuf>,
    stop: Arc<AtomicBool>,
}

/// A request that waits until a file was read again.
struct Comparison {
    pass: PassId,
    content: Option<ContentDigest>,
    path: PathBuf,
    reply: oneshot::Sender<()>,
}

/// The running watcher. When this is dropped, the watcher stops. Dropping does not wait for that.
pub(crate) struct Watching {
    stop: Arc<AtomicBool>,
    wake: mpsc::Sender<Event>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Watching {
    /// Sends an event. The event is lost if the watcher has ended.
    pub(crate) fn send(&self, event: Event) {
        // Sending fails if the watcher has ended.
        let _ = self.wake.send(event);
    }

    /// Stops the watcher. The first call returns the thread, so that the caller can wait for its
    /// end.
    pub(crate) fn stop(&self) -> Option<JoinHandle<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.send(Event::Stop);
        self.thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watcher {
    pub(crate) fn new(publishing: Publishing, roots: Vec<(Kind, PathBuf)>) -> Self {
        Self {
            publishing,
            roots,
            changing: HashMap::new(),
            gone: HashMap::new(),
            again: BTreeMap::new(),
            comparing: Vec::new(),
            unreadable: BTreeSet::new(),
            homes: HashMap::new(),
            absent: BTreeSet::new(),
            stop: Arc::default(),
        }
    }

    /// Looks at everything once, then goes on in its own thread.
    pub(crate) fn start(mut self) -> Result<Watching, CatalogError> {
        let (sender, events) = mpsc::channel();
        // Watch before searching, so that a change during the first search is noticed.
        let notifier = self.notifier(sender.clone());
        let found = self.find();
        self.withdraw_missing(&found)?;
        let changed = found
            .files
            .into_iter()
            .filter(|(path, stamp)| self.publishing.is_news(path, *stamp))
            .collect();
        self.publish(changed)?;
        // Publishes all changes before any request is answered, including the unpublished changes
        // of the last run.
        self.publishing.mark();
        self.publishing.forget_purged();
        self.publishing.check_prefixes();
        let (stop, wake) = (self.stop.clone(), sender.clone());
        let thread = std::thread::Builder::new()
            .name("folder".into())
            .spawn(move || self.run(&events, &sender, notifier))
            .map_err(CatalogError::Io)?;
        Ok(Watching {
            stop,
            wake,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn notifier(&self, sender: mpsc::Sender<Event>) -> Option<notify::RecommendedWatcher> {
        // Sending fails if the watcher has ended.
        let send = move |event| drop(sender.send(Event::Changed(event)));
        let watching = notify::recommended_watcher(send).and_then(|mut watcher| {
            // A root that is gone is watched again when it is back.
            self.roots
                .iter()
                .filter(|(_, root)| root.is_dir())
                .try_for_each(|(_, root)| watcher.watch(root, RecursiveMode::Recursive))?;
            Ok(watcher)
        });
        watching
            .inspect_err(|error| {
                tracing::warn!(
                    "the system does not report changes, so they are noticed more slowly: {error}"
                );
            })
            .ok()
    }

    fn run(
        mut self,
        events: &mpsc::Receiver<Event>,
        sender: &mpsc::Sender<Event>,
        mut notifier: Option<notify::RecommendedWatcher>,
    ) {
        let mut watched = self.root_identities();
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        let mut forget_at = Instant::now() + FORGET_EVERY;
        loop {
            let waiting = !(self.changing.is_empty() && self.gone.is_empty())
                || self.publishing.has_unmarked();
            let pause = sweep_at.saturating_duration_since(Instant::now());
            let pause = if waiting {
                pause.min(STABLE_AFTER / 2)
            } else {
                pause
            };
            let mut sweep = false;
            let first = events.recv_timeout(pause).ok();
            for event in first
                .into_iter()
                .chain(events.try_iter())
                .take(EVENTS_AT_ONCE)
            {
                match event {
                    Event::Changed(change) => sweep |= self.note_change(change),
                    Event::ReadAgain {
                        pass,
                        content,
                        reply,
                    } => self.read_again(pass, content, reply),
                    Event::Stop => {}
                }
            }
            if self.stopping() {
                return;
            }
            // If a link changes or a folder is replaced, the system still watches the old folder.
            let identities = self.root_identities();
            if identities != watched {
                watched = identities;
                drop(std::mem::replace(
                    &mut notifier,
                    self.notifier(sender.clone()),
                ));
                sweep = true;
            }
            let started = Instant::now();
            if sweep || started >= sweep_at {
                let found = self.find();
                self.note_missing(&found);
                for (path, stamp) in found.files {
                    self.note(path, Some(stamp));
                }
                sweep_at = Instant::now() + SWEEP_EVERY.max(started.elapsed() * SWEEP_SHARE);
            }
            if started >= forget_at {
                self.publishing.forget_purged();
                forget_at = Instant::now() + FORGET_EVERY;
            }
            if let Err(error) = self.act() {
                tracing::error!(
                    "can't publish changes, and will try again: {}",
                    Chain(&error)
                );
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn root_identities(&self) -> Vec<Option<files::Identity>> {
        self.roots
            .iter()
            .map(|(_, root)| files::identity(root))
            .collect()
    }

    /// Records what the system reports. Returns whether the folders must be searched.
    fn note_change(&mut self, change: notify::Result<notify::Event>) -> bool {
        let Ok(event) = change else { return true };
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        let mut sweep = event.need_rescan();
        let moved = matches!(
            event.kind,
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_)
        );
        for path in event.paths {
            if self.is_candidate(&path) {
                let stamp = Stamp::of(&path).ok().flatten();
                self.note(path, stamp);
            } else if path.is_dir() {
                sweep |= !matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
            } else if moved && let Some(path) = path.to_str() {
                // The path may be a folder that held archives.
                sweep |= self.publishing.has_below(&format!("{path}/"));
            }
        }
        sweep
    }

    fn is_candidate(&self, path: &Path) -> bool {
        self.roots.iter().any(|(kind, root)| {
            path.strip_prefix(root).is_ok_and(|below| {
                let hidden = below
                    .components()
                    .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
                !hidden && files::is_candidate(*kind, below)
            })
        })
    }

    /// Remembers a file that is missing, or that differs from when it was last read.
    fn note(&mut self, path: PathBuf, stamp: Option<Stamp>) {
        let now = Instant::now();
        match stamp {
            Some(stamp) => {
                self.gone.remove(&path);
                if self.publishing.is_news(&path, stamp) {
                    let since = self
                        .changing
                        .get(&path)
                        .filter(|(before, _)| *before == stamp)
                        .map_or(now, |s| s.1);
                    self.changing.insert(path, (stamp, since));
                } else {
                    self.changing.remove(&path);
                }
            }
            None => {
                self.changing.remove(&path);
                if self.publishing.has_seen(&path) {
                    self.gone.entry(path).or_insert(now);
                }
            }
        }
    }

    /// Requests that the file of `pass` is read again, even if its stamp is the same.
    fn read_again(
        &mut self,
        pass: PassId,
        content: Option<ContentDigest>,
        reply: oneshot::Sender<()>,
    ) {
        // If there is no file, the request is answered in the next round.
        let path = self
            .publishing
            .file_of(&pass)
            .map_or_else(PathBuf::new, |path| PathBuf::from(&*path));
        match Stamp::of(&path) {
            Ok(Some(stamp)) if !self.publishing.is_news(&path, stamp) => {
                if !self.publishing.was_refused(&path) {
                    self.again.insert(path.clone(), stamp);
                }
            }
            Ok(stamp) => self.note(path.clone(), stamp),
            Err(_) => {}
        }
        self.comparing.push(Comparison {
            pass,
            content,
            path,
            reply,
        });
    }

    /// Finds all archives in the folders. A problem is reported once.
    fn find(&mut self) -> Found {
        let mut found = Found::default();
        for (kind, root) in &self.roots {
            files::find(*kind, root, &mut found);
        }
        // A folder may be given for passes and for orders.
        let roots: BTreeSet<PathBuf> = self.roots.iter().map(|(_, root)| root.clone()).collect();
        for root in roots {
            self.look_at_root(root, &mut found);
        }
        self.publishing.set_absent(&self.absent);
        found.files.retain(|(path, _)| {
            if path.to_str().is_none() && self.unreadable.insert(path.clone()) {
                tracing::warn!(
                    "{}: refused: its name is not UTF-8; rename it",
                    OneLine::path(path)
                );
            }
            path.to_str().is_some()
        });
        // A file is found twice if its folder was given for both passes and orders, or if one given
        // folder contains the other. It is kept once.
        found.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.files.dedup_by(|a, b| a.0 == b.0);
        let unnamed = |path: &PathBuf| path.to_str().is_none();
        self.unreadable
            .retain(|path| unnamed(path) || found.unreadable.iter().any(|(now, _)| now == path));
        for (path, error) in &found.unreadable {
            if !self.absent.contains(path) && self.unreadable.insert(path.clone()) {
                tracing::warn!(
                    "{}: can't be read; the previous version stays: {error}",
                    OneLine::path(path)
                );
            }
        }
        found
    }

    /// Records whether a root is absent. The content of an absent root counts as unreadable.
    ///
    /// If a root leads to an empty folder, and archives were last found in another folder at this path, the root counts as
    /// absent too. A mount point looks like this when nothing is mounted. An absent root that is readable counts as present
    /// again when it has an archive.
    fn look_at_root(&mut self, root: PathBuf, found: &mut Found) {
        let is_empty = !found.files.iter().any(|(path, _)| path.starts_with(&root));
        let now = files::identity(&root);
        let is_replaced = self.homes.get(&root).is_some_and(|home| Some(*home) != now);
        let mut error = found
            .unreadable
            .iter()
            .find(|(path, _)| *path == root)
            .map(|(_, error)| error.to_string());
        if error.is_none() && is_empty && (is_replaced || self.absent.contains(&root)) {
            let reason = "an empty folder is in its place";
            found
                .unreadable
                .push((root.clone(), io::Error::other(reason)));
            error = Some(reason.to_owned());
        }
        let shown = OneLine::path(&root).to_string();
        match error {
            Some(error) => {
                if self.absent.insert(root) {
                    tracing::warn!(
                        "{shown}: is not there; the passes from it are still served: {error}"
                    );
                }
            }
            None => {
                if self.absent.remove(&root) {
                    tracing::info!("{shown}: is there again");
                }
                if let (Some(now), false) = (now, is_empty) {
                    self.homes.insert(root, now);
                }
            }
        }
    }

    /// Returns whether the root of a file exists, and is still the folder in which archives were found last.
    fn has_root(&self, path: &Path) -> bool {
        self.roots
            .iter()
            .filter(|(_, root)| path.starts_with(root) && !self.absent.contains(root))
            .any(|(_, root)| {
                let is_home = |home: &Identity| Some(*home) == files::identity(root);
                root.is_dir() && self.homes.get(root).is_none_or(is_home)
            })
    }

    /// Returns the known files that were not found now. Leaves out places where the search failed.
    fn missing(&self, found: &Found) -> Vec<PathBuf> {
        self.publishing
            .files()
            .map(Path::new)
            .filter(|path| {
                found
                    .files
                    .binary_search_by(|(there, _)| (**there).cmp(path))
                    .is_err()
            })
            .filter(|path| {
                !found
                    .unreadable
                    .iter()
                    .any(|(unknown, _)| path.starts_with(unknown))
            })
            .map(Path::to_path_buf)
            .collect()
    }

    fn note_missing(&mut self, found: &Found) {
        for path in self.missing(found) {
            self.note(path, None);
        }
    }

    fn withdraw_missing(&mut self, found: &Found) -> Result<(), CatalogError> {
        let missing = self.missing(found);
        self.withdraw(&missing)
    }

    /// Does what is due: publishes stable files, withdraws passes whose file is gone, answers
    /// comparisons, and marks what changed.
    fn act(&mut self) -> Result<(), CatalogError> {
        let now = Instant::now();
        let mut stable = std::mem::take(&mut self.again);
        for (path, (stamp, since)) in std::mem::take(&mut self.changing) {
            if now.duration_since(since) < STABLE_AFTER {
                self.changing.insert(path, (stamp, since));
            } else if Stamp::of(&path).is_ok_and(|current| current == Some(stamp)) {
                stable.insert(path, stamp);
            } else {
                let current = Stamp::of(&path).ok().flatten();
                self.note(path, current);
            }
        }
        self.publish(stable.into_iter().collect())?;
        let withdrawn = self.withdraw_due(now);
        // If a file is gone, its copy must not be served under the date of other content. So the
        // request waits until the file is back, or the pass is withdrawn.
        let (changing, gone) = (&self.changing, &self.gone);
        let is_decided = |path: &Path| !changing.contains_key(path) && !gone.contains_key(path);
        for Comparison {
            pass,
            content,
            reply,
            ..
        } in self.comparing.extract_if(.., |one| is_decided(&one.path))
        {
            if let Some(content) = content {
                self.publishing.compare(&pass, content);
            }
            // The caller may have stopped waiting.
            let _ = reply.send(());
        }
        self.publishing.mark();
        withdrawn
    }

    /// Withdraws the passes whose file was gone for long enough.
    fn withdraw_due(&mut self, now: Instant) -> Result<(), CatalogError> {
        let due: Vec<PathBuf> = self
            .gone
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= GONE_AFTER)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &due {
            self.gone.remove(path);
        }
        // While a root is absent, its files are gone too. The search after the return of the root finds the files that are
        // gone for good.
        let gone: Vec<PathBuf> = due
            .into_iter()
            .filter(|path| matches!(Stamp::of(path), Ok(None)) && self.has_root(path))
            .collect();
        self.withdraw(&gone)
    }

    /// Reads and checks files, and publishes those that are good, group by group.
    fn publish(&mut self, files: Vec<(PathBuf, Stamp)>) -> Result<(), CatalogError> {
        let total = files
            .iter()
            .filter(|(path, stamp)| self.publishing.is_news(path, *stamp))
            .count();
        if total > 0 {
            tracing::info!(
                "reading {total} new or changed {}",
                if total == 1 { "archive" } else { "archives" }
            );
        }
        let mut reported = Instant::now();
        let mut read = 0;
        for group in files::groups(&files) {
            // The next start notices the remaining files.
            if self.stopping() {
                break;
            }
            let rest = files.get(read..).unwrap_or_default();
            read += group.len();
            let published = self.publishing.publish(group);
            self.publishing.mark();
            match published {
                Ok(rivals) => self.look_again(rivals),
                Err(error) => {
                    self.changing.extend(
                        rest.iter()
                            .map(|(path, stamp)| (path.clone(), (*stamp, Instant::now()))),
                    );
                    return Err(error);
                }
            }
            if reported.elapsed() > Duration::from_secs(2) {
                reported = Instant::now();
                tracing::info!("read {read} of {} archives", files.len());
            }
        }
        Ok(())
    }

    /// Withdraws the passes of files that are gone.
    fn withdraw(&mut self, gone: &[PathBuf]) -> Result<(), CatalogError> {
        if gone.is_empty() {
            return Ok(());
        }
        match self.publishing.withdraw(gone) {
            Ok(rivals) => {
                self.look_again(rivals);
                Ok(())
            }
            Err(error) => {
                self.gone
                    .extend(gone.iter().map(|path| (path.clone(), Instant::now())));
                Err(error)
            }
        }
    }

    fn look_again(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            if let Ok(Some(stamp)) = Stamp::of(&path) {
                self.note(path, Some(stamp));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    //! The tests drive the watcher step by step, without its thread.

    use std::fs;

    use bytes::Bytes;
    use passkit_archive::{ArchiveBuilder, placeholder_icon};
    use passkit_server::{
        Changed, PassState,
        push::Publisher,
        store::{ArchiveStore as _, Content, MemoryStore, Published, RegistrationStore as _},
    };
    use serde_json::json;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::{Config, catalog::Catalog, shared::Shared};

    const LONG: Duration = Duration::from_secs(3_600);
    const HANDED_IN: ContentDigest = [2; 32];

    fn a_pass() -> PassId {
        PassId::new("pass.com.example.leaving", "A-1").unwrap()
    }

    fn content() -> Vec<u8> {
        let description = json!({
            "formatVersion": 1, "passTypeIdentifier": a_pass().type_id.as_str(), "serialNumber": "A-1",
            "teamIdentifier": "TEAM123456", "organizationName": "Example", "description": "one", "generic": {},
            "webServiceURL": "https://wallet.example.com/", "authenticationToken": "a-token-of-this-pass",
        });
        ArchiveBuilder::new(Kind::Pass, description.to_string())
            .file("icon.png", placeholder_icon(29))
            .build_unsigned()
            .unwrap()
    }

    /// A watcher whose folder has one pass, which is published.
    struct World {
        runtime: Runtime,
        store: Arc<MemoryStore>,
        shared: Arc<Shared>,
        watcher: Watcher,
        file: PathBuf,
        _disk: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let disk = tempfile::tempdir().unwrap();
            let root = disk.path().canonicalize().unwrap().join("passes");
            fs::create_dir(&root).unwrap();
            let file = root.join("a.pkpass");
            fs::write(&file, content()).unwrap();
            let runtime = Runtime::new().unwrap();
            let store = Arc::new(MemoryStore::new());
            let config = Config::new(disk.path().join("copies"))
                .passes(&root)
                .allow_unsigned(true)
                .archives(store.clone());
            let (catalog, _) = Catalog::open_free(&config.copies, false).unwrap();
            let shared = Arc::new(Shared::new(catalog));
            let publisher = Arc::new(Publisher::marking(store.clone()));
            let handle = runtime.handle().clone();
            let publishing = Publishing::new(shared.clone(), publisher, handle, &config).unwrap();
            let mut watcher = Watcher::new(publishing, vec![(Kind::Pass, root)]);
            let found = watcher.find();
            watcher.publish(found.files).unwrap();
            let world = Self {
                runtime,
                store,
                shared,
                watcher,
                file,
                _disk: disk,
            };
            assert_eq!(world.published().digest, Some(world.copy()));
            world
        }

        /// Returns the digest of the content that the folder served last.
        fn copy(&self) -> ContentDigest {
            self.shared.read(|passes| passes[&a_pass()].content)
        }

        fn is_misdated(&self) -> bool {
            self.shared.read(|passes| passes[&a_pass()].misdated)
        }

        fn published(&self) -> Published {
            let pass = [a_pass()];
            let published = self.runtime.block_on(self.store.published(&pass));
            published.unwrap().into_iter().next().unwrap().unwrap()
        }

        fn state(&self) -> PassState {
            let pass = a_pass();
            let state = self.runtime.block_on(self.store.pass_state(&pass));
            state.unwrap()
        }

        /// Publishes as another instance does.
        fn publish(&self, digest: Option<ContentDigest>) {
            let PassId { type_id, serial } = a_pass();
            let contents = [Content {
                serial,
                digest,
                tokens: Vec::new(),
            }];
            let marked = self.store.mark(&type_id, Changed::Contents(&contents));
            self.runtime.block_on(marked).unwrap();
        }

        /// Does what another instance does when it gets an archive with this content.
        fn hand_in(&self, digest: ContentDigest) {
            let archive = Bytes::from_static(b"an archive");
            let pass = a_pass();
            let put = self.store.put_archive(&pass, &digest, archive);
            self.runtime.block_on(put).unwrap();
            self.publish(Some(digest));
        }

        fn remove_file(&mut self) {
            fs::remove_file(&self.file).unwrap();
        }

        /// Does a round in which the file is gone, either for long enough or not.
        fn act(&mut self, is_due: bool) {
            self.watcher.note(self.file.clone(), None);
            for since in self.watcher.gone.values_mut() {
                let now = Instant::now();
                *since = if is_due {
                    now.checked_sub(GONE_AFTER).unwrap()
                } else {
                    now + LONG
                };
            }
            self.watcher.act().unwrap();
        }
    }

    #[test]
    fn a_removal_is_published_in_the_round_that_withdraws_the_pass() {
        let mut world = World::new();
        world.remove_file();
        world.act(false);
        assert!(!world.published().removed);
        world.act(true);
        assert!(world.published().removed);
        assert!(!world.shared.has_unpublished_removal(&a_pass()));
    }

    /// The archive may have the same content as the file that was removed.
    #[test]
    fn a_late_removal_does_not_end_a_pass_that_was_handed_in() {
        for is_same in [false, true] {
            let mut world = World::new();
            let digest = if is_same { world.copy() } else { HANDED_IN };
            world.remove_file();
            world.watcher.withdraw(&[world.file.clone()]).unwrap();
            assert!(world.shared.has_unpublished_removal(&a_pass()));
            world.hand_in(digest);
            let handed_in = world.state();
            world.watcher.publishing.mark();
            let published = world.published();
            assert_eq!((published.digest, published.removed), (Some(digest), false));
            assert_eq!(world.state(), handed_in);
            assert!(!world.shared.has_unpublished_removal(&a_pass()));
            assert!(!world.watcher.publishing.has_unmarked());
        }
    }

    /// The file may change before it is removed, while the store is unavailable. The store then has
    /// the content before.
    #[test]
    fn a_removal_is_published_whatever_content_the_store_has_without_an_archive() {
        let mut world = World::new();
        world.publish(Some([3; 32]));
        world.remove_file();
        world.act(true);
        assert!(world.published().removed);
    }

    #[test]
    fn a_request_waits_until_the_pass_of_a_missing_file_is_withdrawn() {
        let mut world = World::new();
        world.hand_in(HANDED_IN);
        let handed_in = world.state();
        world.remove_file();
        let (reply, mut done) = oneshot::channel();
        let copy = world.copy();
        world.watcher.read_again(a_pass(), Some(copy), reply);
        world.act(false);
        assert!(done.try_recv().is_err(), "the copy was served");
        world.act(true);
        assert_eq!(done.try_recv(), Ok(()));
        assert!(world.shared.catalog.archive(&a_pass()).unwrap().is_none());
        assert!(!world.is_misdated());
        assert_eq!(world.state(), handed_in, "no phone got the copy");
    }

    /// The system may report a file for some time after it was removed, or it is removed late.
    #[test]
    fn a_file_that_is_still_there_does_not_replace_what_was_handed_in() {
        let mut world = World::new();
        world.hand_in(HANDED_IN);
        let handed_in = world.state();
        let (reply, mut done) = oneshot::channel();
        let copy = world.copy();
        world.watcher.read_again(a_pass(), Some(copy), reply);
        world.watcher.act().unwrap();
        assert_eq!(done.try_recv(), Ok(()));
        assert_eq!(world.state(), handed_in);
        world.remove_file();
        world.act(true);
        let marked = world.state();
        assert!(marked.last_modified > handed_in.last_modified);
        assert_eq!(marked.published, Some(HANDED_IN));
        assert!(!world.published().removed);
    }

    #[test]
    fn a_request_waits_no_longer_when_the_file_is_back() {
        let mut world = World::new();
        let copy = world.copy();
        let aside = world.file.with_extension("aside");
        fs::rename(&world.file, &aside).unwrap();
        let (reply, mut done) = oneshot::channel();
        world.watcher.read_again(a_pass(), Some(copy), reply);
        world.act(false);
        assert!(done.try_recv().is_err());
        fs::rename(&aside, &world.file).unwrap();
        let stamp = Stamp::of(&world.file).unwrap().unwrap();
        world.watcher.note(world.file.clone(), Some(stamp));
        for (_, since) in world.watcher.changing.values_mut() {
            *since = Instant::now().checked_sub(STABLE_AFTER).unwrap();
        }
        world.watcher.act().unwrap();
        assert_eq!(done.try_recv(), Ok(()));
    }

    #[test]
    fn phones_that_got_the_copy_get_what_was_handed_in() {
        let mut world = World::new();
        world.hand_in(HANDED_IN);
        let handed_in = world.state();
        // A request got the copy under the date of the archive.
        assert!(world.shared.set_misdated(&a_pass(), world.copy()));
        world.remove_file();
        world.act(true);
        let marked = world.state();
        assert!(marked.version > handed_in.version);
        assert!(marked.last_modified > handed_in.last_modified);
        let published = world.published();
        assert_eq!(
            (published.digest, published.removed),
            (Some(HANDED_IN), false)
        );
        assert!(!world.is_misdated());
        world.act(true);
        assert_eq!(world.state(), marked, "once");
    }
}
