//! Noticing what changed in the folders, and publishing it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use notify::{EventKind, RecursiveMode, Watcher as _, event::ModifyKind};
use passkit_archive::{Archive, MAX_ARCHIVE_BYTES, Rules};
use passkit_server::{ContentDigest, Kind, PassId, SerialNumber, StoreError, TokenDigest, TypeIdentifier};

use super::{
    Listed, Shared, Watching,
    catalog::{Copy, Row},
    files::{self, Found, Stamp},
};
use crate::{failure::Chain, store::OpenStore};

/// A changed file is read once it has looked the same for this long: it may be half-written.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// A file must be gone for this long before its pass is withdrawn: it may be about to be replaced.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// The system tells of changes, but not on every file system and not of all when there are many. So the folders are
/// looked through all the same, from time to time, for at most a fiftieth of the time.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
const SWEEP_SHARE: u32 = 50;
/// Archives are read and published in groups of at most so many bytes and files.
const GROUP_BYTES: u64 = 2 * 1024 * 1024;
const GROUP_FILES: usize = 1000;
/// How much of what the system tells is taken note of before something is done about it.
const EVENTS_AT_ONCE: usize = 1000;

pub(super) enum Event {
    Changed(notify::Result<notify::Event>),
    /// This file is said to have changed.
    Look(Arc<str>),
    /// Have a look at the stop flag.
    Stop,
}

pub(super) struct Watcher {
    shared: Arc<Shared>,
    store: OpenStore,
    runtime: tokio::runtime::Handle,
    roots: Vec<(Kind, PathBuf)>,
    rules: Rules,
    /// Every candidate file that was read, and what became of it.
    files: BTreeMap<Arc<str>, Seen>,
    types: BTreeSet<TypeIdentifier>,
    /// Files that look different from when they were read, and since when they look as they do.
    unsettled: HashMap<PathBuf, (Stamp, Instant)>,
    /// Files of passes that are not there any more, and since when.
    gone: HashMap<PathBuf, Instant>,
    /// Passes whose change the store has not been told of.
    owed: BTreeSet<PassId>,
    /// What could not be read when it was looked for last: said once.
    unreadable: BTreeSet<PathBuf>,
    stop: Arc<AtomicBool>,
}

/// A file as it was when it was read last.
struct Seen {
    stamp: Stamp,
    /// The pass it holds; `None` if it was refused.
    pass: Option<PassId>,
    /// The pass it holds too, but which another file got first.
    rival: Option<Box<PassId>>,
}

/// What was found in a file.
enum Content {
    Good(Box<Archive>, Bytes),
    Refused(String),
}

impl Watcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: OpenStore,
        runtime: tokio::runtime::Handle,
        roots: Vec<(Kind, PathBuf)>,
        allow_unsigned: bool,
    ) -> Result<Self, redb::Error> {
        let mut watcher = Self {
            shared,
            store,
            runtime,
            roots,
            rules: if allow_unsigned { Rules::development() } else { Rules::strict() },
            files: BTreeMap::new(),
            types: BTreeSet::new(),
            unsettled: HashMap::new(),
            gone: HashMap::new(),
            owed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            stop: Arc::default(),
        };
        let shared = watcher.shared.clone();
        shared.write(|passes| shared.catalog.rows(|row| watcher.recall(row, passes)))?;
        let allowed_unsigned = shared.catalog.allowed_unsigned()?;
        if allowed_unsigned && !allow_unsigned {
            watcher.withdraw_unsigned()?;
        }
        if allowed_unsigned != allow_unsigned {
            shared.catalog.remember_rules(allow_unsigned)?;
        }
        Ok(watcher)
    }

    /// Takes up a row of the catalog where the last run left it.
    fn recall(&mut self, row: Row, passes: &mut HashMap<PassId, Listed>) {
        let Row { pass, listed, stamp } = row;
        let pass = self.shared_type(pass);
        if !listed.withdrawn {
            self.files.insert(listed.path.clone(), Seen { stamp, pass: Some(pass.clone()), rival: None });
        }
        if listed.owed {
            self.owed.insert(pass.clone());
        }
        passes.insert(pass, listed);
    }

    /// Withdraws what is served by more lenient rules than today's.
    fn withdraw_unsigned(&mut self) -> Result<(), redb::Error> {
        let served: Vec<(PassId, Arc<str>)> = self.shared.read(|passes| {
            let served = passes.iter().filter(|(_, listed)| !listed.withdrawn);
            served.map(|(pass, listed)| (pass.clone(), listed.path.clone())).collect()
        });
        tracing::info!("checking {} archives again, since unsigned ones are no longer allowed", served.len());
        let mut refused = Vec::new();
        for (pass, path) in served {
            let copy = self.shared.catalog.archive(&pass)?;
            if copy.is_none_or(|copy| Archive::check(&copy, self.rules).is_err()) {
                refused.push(PathBuf::from(&*path));
            }
        }
        self.withdraw(&refused)
    }

    /// The same pass, with the type in one place in memory for all of its passes.
    fn shared_type(&mut self, pass: PassId) -> PassId {
        if let Some(type_id) = self.types.get(&pass.type_id) {
            return PassId { type_id: type_id.clone(), ..pass };
        }
        self.types.insert(pass.type_id.clone());
        pass
    }

    /// Looks at everything once, then goes on in a thread of its own.
    pub(super) fn start(mut self) -> Result<Watching, redb::Error> {
        let (sender, events) = mpsc::channel();
        // Watch first, so that nothing changes unseen between the first look and the watching.
        let notifier = self.notifier(sender.clone());
        let found = self.find();
        self.withdraw_missing(&found)?;
        let changed = found.files.into_iter().filter(|(path, stamp)| self.is_news(path, *stamp)).collect();
        self.publish(changed)?;
        // Also what the last run left owing, before anyone is answered.
        self.mark_owed();
        let (stop, wake) = (self.stop.clone(), sender.clone());
        let thread = std::thread::Builder::new()
            .name("folder".into())
            .spawn(move || self.run(&events, &sender, notifier))
            .map_err(redb::Error::Io)?;
        Ok(Watching { stop, wake, thread: Some(thread) })
    }

    fn notifier(&self, sender: mpsc::Sender<Event>) -> Option<notify::RecommendedWatcher> {
        // Nobody listens any more once the watcher stops.
        let tell = move |event| drop(sender.send(Event::Changed(event)));
        let watching = notify::recommended_watcher(tell).and_then(|mut watcher| {
            self.roots.iter().try_for_each(|(_, root)| watcher.watch(root, RecursiveMode::Recursive))?;
            Ok(watcher)
        });
        watching
            .inspect_err(|error| {
                tracing::warn!(
                    "the system doesn't tell of changes, so they are noticed more slowly: {error}"
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
        loop {
            let waiting = !(self.unsettled.is_empty() && self.gone.is_empty() && self.owed.is_empty());
            let pause = sweep_at.saturating_duration_since(Instant::now());
            let pause = if waiting { pause.min(SETTLED_AFTER / 2) } else { pause };
            let mut sweep = false;
            let first = events.recv_timeout(pause).ok();
            for event in first.into_iter().chain(events.try_iter()).take(EVENTS_AT_ONCE) {
                match event {
                    Event::Changed(change) => sweep |= self.take_note(change),
                    Event::Look(path) => {
                        let stamp = Stamp::of(Path::new(&*path)).ok().flatten();
                        self.note(PathBuf::from(&*path), stamp);
                    }
                    Event::Stop => {}
                }
            }
            if self.stopping() {
                return;
            }
            // A folder given by a link, or replaced as a whole, is another one to the system.
            let identities = self.root_identities();
            if identities != watched {
                watched = identities;
                drop(std::mem::replace(&mut notifier, self.notifier(sender.clone())));
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
            if let Err(error) = self.act() {
                tracing::error!("can't publish changes, and will try again: {}", Chain(&error));
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn root_identities(&self) -> Vec<Option<files::Identity>> {
        self.roots.iter().map(|(_, root)| files::identity(root)).collect()
    }

    /// Takes note of what the system tells. Returns whether everything must be looked through.
    fn take_note(&mut self, change: notify::Result<notify::Event>) -> bool {
        let Ok(event) = change else { return true };
        if matches!(event.kind, EventKind::Access(_)) {
            return false;
        }
        let mut sweep = event.need_rescan();
        let moved = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_));
        for path in event.paths {
            if self.is_candidate(&path) {
                let stamp = Stamp::of(&path).ok().flatten();
                self.note(path, stamp);
            } else if path.is_dir() {
                sweep |= !matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
            } else if moved && let Some(path) = path.to_str() {
                // Perhaps a folder with archives in it.
                let below = format!("{path}/");
                let next = self.files.range::<str, _>((Bound::Included(&*below), Bound::Unbounded)).next();
                sweep |= next.is_some_and(|(file, _)| file.starts_with(&below));
            }
        }
        sweep
    }

    fn is_candidate(&self, path: &Path) -> bool {
        self.roots.iter().any(|(kind, root)| {
            path.strip_prefix(root).is_ok_and(|below| {
                let hidden =
                    below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
                !hidden && files::is_candidate(*kind, below)
            })
        })
    }

    /// Remembers a file that looks different from when it was read, or is gone.
    fn note(&mut self, path: PathBuf, stamp: Option<Stamp>) {
        let now = Instant::now();
        match stamp {
            Some(stamp) => {
                self.gone.remove(&path);
                if self.is_news(&path, stamp) {
                    let since =
                        self.unsettled.get(&path).filter(|(before, _)| *before == stamp).map_or(now, |s| s.1);
                    self.unsettled.insert(path, (stamp, since));
                } else {
                    self.unsettled.remove(&path);
                }
            }
            None => {
                self.unsettled.remove(&path);
                if self.seen(&path).is_some() {
                    self.gone.entry(path).or_insert(now);
                }
            }
        }
    }

    fn seen(&self, path: &Path) -> Option<&Seen> {
        self.files.get(path.to_str()?)
    }

    fn is_news(&self, path: &Path, stamp: Stamp) -> bool {
        self.seen(path).is_none_or(|seen| seen.stamp != stamp)
    }

    /// Everything that lies in the folders. What can't be read is said once.
    fn find(&mut self) -> Found {
        let mut found = Found::default();
        for (kind, root) in &self.roots {
            files::find(*kind, root, &mut found);
        }
        found.files.retain(|(path, _)| {
            if path.to_str().is_none() && self.unreadable.insert(path.clone()) {
                tracing::warn!("{}: refused: its name is no UTF-8; rename it", path.display());
            }
            path.to_str().is_some()
        });
        // A folder given for passes and for orders, or one within the other, is found once.
        found.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.files.dedup_by(|a, b| a.0 == b.0);
        let unnamed = |path: &PathBuf| path.to_str().is_none();
        self.unreadable.retain(|path| unnamed(path) || found.unreadable.iter().any(|(now, _)| now == path));
        for (path, error) in &found.unreadable {
            if self.unreadable.insert(path.clone()) {
                tracing::warn!("{}: can't be read, what was served of it stays: {error}", path.display());
            }
        }
        found
    }

    /// The files that were seen before and are not among those found, unless they can't be looked for.
    fn missing(&self, found: &Found) -> Vec<PathBuf> {
        self.files
            .keys()
            .filter(|path| {
                found.files.binary_search_by(|(there, _)| (**there).cmp(Path::new(&***path))).is_err()
            })
            .map(|path| PathBuf::from(&**path))
            .filter(|path| !found.unreadable.iter().any(|(unknown, _)| path.starts_with(unknown)))
            .collect()
    }

    fn note_missing(&mut self, found: &Found) {
        for path in self.missing(found) {
            self.note(path, None);
        }
    }

    fn withdraw_missing(&mut self, found: &Found) -> Result<(), redb::Error> {
        let missing = self.missing(found);
        self.withdraw(&missing)
    }

    /// Does what is due: publishes files that have settled, withdraws passes whose file is gone, and tells the store.
    fn act(&mut self) -> Result<(), redb::Error> {
        let now = Instant::now();
        let mut settled = Vec::new();
        for (path, (stamp, since)) in std::mem::take(&mut self.unsettled) {
            if now.duration_since(since) < SETTLED_AFTER {
                self.unsettled.insert(path, (stamp, since));
            } else if Stamp::of(&path).is_ok_and(|current| current == Some(stamp)) {
                settled.push((path, stamp));
            } else {
                let current = Stamp::of(&path).ok().flatten();
                self.note(path, current);
            }
        }
        settled.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.publish(settled)?;
        self.mark_owed();

        let due: Vec<PathBuf> = self
            .gone
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= GONE_AFTER)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &due {
            self.gone.remove(path);
        }
        let gone: Vec<PathBuf> = due.into_iter().filter(|path| matches!(Stamp::of(path), Ok(None))).collect();
        self.withdraw(&gone)
    }

    /// Reads and checks files, and publishes those that are good, group by group.
    fn publish(&mut self, files: Vec<(PathBuf, Stamp)>) -> Result<(), redb::Error> {
        let total = files.len();
        if total > 0 {
            tracing::info!(
                "reading {total} new or changed {}",
                if total == 1 { "archive" } else { "archives" }
            );
        }
        let mut said = Instant::now();
        let mut rest = &files[..];
        // What is left when it stops is noticed at the next start.
        while !rest.is_empty() && !self.stopping() {
            let mut bytes = 0;
            let fits = |(_, stamp): &&(PathBuf, Stamp)| {
                bytes += stamp.size().min(MAX_ARCHIVE_BYTES as u64);
                bytes <= GROUP_BYTES
            };
            let count = rest.iter().take(GROUP_FILES).take_while(fits).count().max(1);
            let (group, later) = rest.split_at(count);
            rest = later;
            let published = self.publish_group(group);
            self.mark_owed();
            if let Err(error) = published {
                self.unsettled.extend(
                    group.iter().chain(rest).map(|(path, stamp)| (path.clone(), (*stamp, Instant::now()))),
                );
                return Err(error);
            }
            if said.elapsed() > Duration::from_secs(2) {
                said = Instant::now();
                tracing::info!("read {} of {total} archives", total - rest.len());
            }
        }
        Ok(())
    }

    fn publish_group(&mut self, group: &[(PathBuf, Stamp)]) -> Result<(), redb::Error> {
        let contents = read_all(group, self.rules);
        // The passes whose files have come to hold another. One of those may be in this group too: files change names
        // among each other.
        let mut left: BTreeMap<PassId, Row> = BTreeMap::new();
        for ((path, _), content) in group.iter().zip(&contents) {
            if let Content::Good(archive, _) = content
                && let Some(row) = self.withdrawn(path)
                && row.pass != archive.id
            {
                left.insert(row.pass.clone(), row);
            }
        }
        let mut rows: Vec<(Row, Copy)> = Vec::new();
        let mut seen: Vec<(Arc<str>, Seen)> = Vec::new();
        for ((path, stamp), content) in group.iter().zip(contents) {
            let Some(name) = path.to_str() else { continue };
            let mut note = Seen { stamp: *stamp, pass: None, rival: None };
            match content {
                Content::Refused(reason) => {
                    // The file still stands for the pass it held, whose last good version stays.
                    note.pass = self.seen(path).and_then(|seen| seen.pass.clone());
                    let stays = if note.pass.is_some() { "; the version before stays" } else { "" };
                    tracing::warn!("{name}: refused: {reason}{stays}");
                }
                Content::Good(mut archive, bytes) => {
                    archive.id = self.shared_type(archive.id);
                    let pass = &archive.id;
                    let rival = rows
                        .iter()
                        .find(|(row, _)| row.pass == *pass)
                        .map(|(row, _)| row.listed.path.clone());
                    let rival = rival
                        .or_else(|| if left.contains_key(pass) { None } else { self.rival_of(path, pass) });
                    if let Some(other) = rival {
                        tracing::warn!(
                            "{name}: refused: holds {pass}, as does {other}, which is served; remove one of the two"
                        );
                        note.rival = Some(Box::new(archive.id));
                    } else {
                        left.remove(pass);
                        note.pass = Some(pass.clone());
                        rows.push(self.row(name, *stamp, &archive, bytes)?);
                    }
                }
            }
            seen.push((name.into(), note));
        }
        let freed: BTreeSet<PassId> = left.keys().cloned().collect();
        rows.extend(left.into_values().map(|row| (row, Copy::Remove)));
        self.commit(rows)?;
        self.files.extend(seen);
        self.look_again_at_rivals(&freed);
        Ok(())
    }

    /// Another file from which `pass` is served, and which still lies there.
    fn rival_of(&self, path: &Path, pass: &PassId) -> Option<Arc<str>> {
        let listed = self.shared.read(|passes| passes.get(pass).cloned())?;
        let other = Path::new(&*listed.path);
        let holds = self.seen(other).is_some_and(|seen| seen.pass.as_ref() == Some(pass));
        let there = !listed.withdrawn && other != path && holds && !matches!(Stamp::of(other), Ok(None));
        there.then_some(listed.path)
    }

    /// Writes rows to the catalog, and then shows them to requests.
    fn commit(&mut self, mut rows: Vec<(Row, Copy)>) -> Result<(), redb::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let copies = rows.iter_mut().map(|(row, copy)| (&*row, std::mem::replace(copy, Copy::Keep)));
        self.shared.catalog.put(copies)?;
        self.owed.extend(rows.iter().filter(|(row, _)| row.listed.owed).map(|(row, _)| row.pass.clone()));
        self.shared.write(|passes| {
            for (row, _) in rows {
                if row.listed.withdrawn {
                    tracing::info!("{}: no longer serves {}", row.listed.path, row.pass);
                }
                passes.insert(row.pass, row.listed);
            }
        });
        Ok(())
    }

    /// What the catalog is to hold of a good archive. Its mark is owed if what it holds has changed, or is new.
    fn row(
        &self,
        path: &str,
        stamp: Stamp,
        archive: &Archive,
        bytes: Bytes,
    ) -> Result<(Row, Copy), redb::Error> {
        let before = self.shared.read(|passes| passes.get(&archive.id).cloned());
        let token = archive.auth_token.digest();
        let mut tokens: Vec<TokenDigest> =
            before.as_ref().map_or_else(Vec::new, |listed| listed.tokens.to_vec());
        if !tokens.contains(&token) {
            tokens.push(token);
        }
        let same = before.as_ref().is_some_and(|listed| listed.content == archive.content_digest);
        let owed = !same || self.owed.contains(&archive.id);
        let copy = match self.shared.catalog.archive(&archive.id)? {
            Some(copy) if copy == bytes => Copy::Keep,
            _ => Copy::Put(bytes),
        };
        let listed = Listed {
            tokens: tokens.into(),
            content: archive.content_digest,
            owed,
            path: path.into(),
            withdrawn: false,
        };
        Ok((Row { pass: archive.id.clone(), listed, stamp }, copy))
    }

    /// Withdraws the passes of files that are gone.
    fn withdraw(&mut self, gone: &[PathBuf]) -> Result<(), redb::Error> {
        if gone.is_empty() {
            return Ok(());
        }
        let rows: Vec<(Row, Copy)> =
            gone.iter().filter_map(|path| self.withdrawn(path)).map(|row| (row, Copy::Remove)).collect();
        let freed: BTreeSet<PassId> = rows.iter().map(|(row, _)| row.pass.clone()).collect();
        if let Err(error) = self.commit(rows) {
            self.gone.extend(gone.iter().map(|path| (path.clone(), Instant::now())));
            return Err(error);
        }
        for path in gone {
            if let Some(name) = path.to_str() {
                self.files.remove(name);
            }
        }
        self.look_again_at_rivals(&freed);
        Ok(())
    }

    /// The row of the pass that is served from this file, with the pass withdrawn. None if there is no such pass, or
    /// another file of it has taken over.
    fn withdrawn(&self, path: &Path) -> Option<Row> {
        let pass = self.seen(path)?.pass.clone()?;
        let listed = self.shared.read(|passes| passes.get(&pass).cloned())?;
        let serves = Path::new(&*listed.path) == path && !listed.withdrawn;
        let listed = Listed { withdrawn: true, ..listed };
        serves.then_some(Row { pass, listed, stamp: Stamp::default() })
    }

    /// Files that had to stand back for a pass's other file get their turn when that is gone.
    fn look_again_at_rivals(&mut self, freed: &BTreeSet<PassId>) {
        if freed.is_empty() {
            return;
        }
        let stands_back = |seen: &Seen| seen.rival.as_ref().is_some_and(|pass| freed.contains(&**pass));
        let waiting: Vec<Arc<str>> =
            self.files.iter().filter(|(_, seen)| stands_back(seen)).map(|(path, _)| path.clone()).collect();
        for path in waiting {
            self.files.remove(&path);
            if let Ok(Some(stamp)) = Stamp::of(Path::new(&*path)) {
                self.note(PathBuf::from(&*path), Some(stamp));
            }
        }
    }

    /// Tells the store of every change it has not been told of. What it can't take now is tried again.
    fn mark_owed(&mut self) {
        let mut by_type: BTreeMap<TypeIdentifier, Vec<PassId>> = BTreeMap::new();
        for pass in std::mem::take(&mut self.owed) {
            by_type.entry(pass.type_id.clone()).or_default().push(pass);
        }
        for (type_id, passes) in by_type {
            match self.runtime.block_on(self.mark(&type_id, &passes)) {
                Ok(()) => {
                    tracing::debug!("marked {} of {type_id}", passes.len());
                    self.shared.write(|listed| {
                        passes.iter().for_each(|pass| {
                            if let Some(listed) = listed.get_mut(pass) {
                                listed.owed = false;
                            }
                        });
                    });
                    if let Err(error) = self.shared.catalog.settle(&passes) {
                        tracing::warn!("marks will be repeated at the next start: {}", Chain(&error));
                    }
                }
                Err(error) => {
                    tracing::error!("can't mark changes of {type_id}, and will try again: {}", Chain(&error));
                    self.owed.extend(passes);
                }
            }
        }
    }
}

impl Watcher {
    async fn mark(&self, type_id: &TypeIdentifier, passes: &[PassId]) -> Result<(), StoreError> {
        let Some(published) = &self.store.published else {
            let serials: Vec<SerialNumber> = passes.iter().map(|pass| pass.serial.clone()).collect();
            return self.store.registrations.mark_updated(type_id, &serials).await;
        };
        let contents: Vec<(SerialNumber, ContentDigest)> = self.shared.read(|listed| {
            let content = |pass: &PassId| Some((pass.serial.clone(), listed.get(pass)?.content));
            passes.iter().filter_map(content).collect()
        });
        published.publish(type_id, &contents).await
    }
}

/// Reads and checks a group of files on all processors. The answers are in the files' order.
fn read_all(group: &[(PathBuf, Stamp)], rules: Rules) -> Vec<Content> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = group.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = group
            .chunks(share)
            .map(|part| {
                scope.spawn(move || part.iter().map(|(path, _)| read(path, rules)).collect::<Vec<_>>())
            })
            .collect();
        let failed =
            |part: &[_]| part.iter().map(|_| Content::Refused("it can't be checked".into())).collect();
        let parts = parts.into_iter().zip(group.chunks(share));
        parts.flat_map(|(part, files)| part.join().unwrap_or_else(|_| failed(files))).collect()
    })
}

fn read(path: &Path, rules: Rules) -> Content {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let limit = MAX_ARCHIVE_BYTES as u64 + 1;
    if let Err(error) = fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        return Content::Refused(format!("can't be read: {error}"));
    }
    match Archive::check(&bytes, rules) {
        Ok(archive) => Content::Good(Box::new(archive), bytes.into()),
        Err(problems) => {
            Content::Refused(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
    }
}
