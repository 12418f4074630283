//! Publishes files in three steps: to the catalog, to requests, and to the store.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use passkit_archive::{Archive, Changes, Findings, Level, Report, Rules};
use passkit_server::{
    AuthToken, Changed, PassId,
    delivery::DeliveryRecorder,
    identifiers::{SerialNumber, TypeIdentifier},
    push::Publisher,
    service::Prefix,
    store::{ArchiveStore, Content, ContentDigest, StoreError, unite_tokens},
    text::{Chain, OneLine},
};
use tokio::runtime::Handle;

use crate::{
    Config,
    catalog::{CatalogError, Copy, Row},
    check::{Checked, check_all, summary},
    files::Stamp,
    listed::Listed,
    pauses::Pauses,
    shared::Shared,
};

/// How many changes go to the store in one call.
const MARKS: usize = 1_000;
/// The maximum number of paths that warnings name.
const PREFIXES: usize = 20;

pub(crate) struct Publishing {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    runtime: Handle,
    rules: Rules,
    /// Every candidate file that was read, and what it held.
    files: BTreeMap<Arc<str>, Seen>,
    types: BTreeSet<TypeIdentifier>,
    /// Passes with a change that the store does not have yet.
    unmarked: BTreeSet<PassId>,
    /// The passes of `unmarked` that were unmarked at the start. The store may have lost these
    /// passes. So their removals are published even if the store does not know them.
    from_the_start: BTreeSet<PassId>,
    pauses: Pauses,
    prefixes: Prefixes,
    recorder: Option<DeliveryRecorder>,
    archives: Option<Arc<dyn ArchiveStore>>,
}

/// The paths to which passes point, and which of them were reported.
#[derive(Default)]
struct Prefixes {
    /// The path below which the service answers. Nothing is reported if it is not known.
    served: Option<Prefix>,
    known: BTreeSet<Arc<Prefix>>,
    reported: BTreeSet<Arc<Prefix>>,
    /// Whether all files were read once. Before that, a known path may be out of date.
    is_started: bool,
}

impl Prefixes {
    /// Returns an equal prefix. All passes with the same prefix share its memory.
    fn shared(&mut self, prefix: Arc<Prefix>) -> Arc<Prefix> {
        if let Some(known) = self.known.get(&prefix) {
            return known.clone();
        }
        self.known.insert(prefix.clone());
        prefix
    }

    /// Logs a warning if the service does not answer at the path of a pass. Warns of each path
    /// once.
    fn check(&mut self, pass: &PassId, listed: &Listed) {
        let (Some(served), Some(prefix)) = (&self.served, &listed.prefix) else {
            return;
        };
        let is_served = **prefix == *served || **prefix == Prefix::ROOT;
        // The check of the archive already reports a path that ends in `/v1`.
        let ends_in_v1 = prefix.to_string().ends_with("/v1");
        if is_served
            || ends_in_v1
            || !self.is_started
            || listed.withdrawn
            || self.reported.len() >= PREFIXES
            || !self.reported.insert(prefix.clone())
        {
            return;
        }
        let text = prefix.to_string();
        let text = OneLine::of(&text);
        tracing::warn!(
            "{pass}: its webServiceURL has the path {text}, but the service answers below {served}. Unless a proxy \
             removes that path, phones get 404: set the prefix (`passkit serve --prefix {text}`). Other passes with this path \
             are not named"
        );
    }
}

/// A file as it was when it was last read.
struct Seen {
    stamp: Stamp,
    /// Whether the file held a good archive.
    good: bool,
    /// The pass that the file holds, or held before it was refused. `None` if it never held one.
    pass: Option<PassId>,
    /// The pass that this file holds, if another file is served for it.
    rival: Option<Box<PassId>>,
}

/// Withdrawn passes whose removal is not published.
#[derive(Default)]
struct Withdrawn {
    /// The passes that the store does not know.
    purged: Vec<PassId>,
    /// The passes that are served from the store.
    handed_in: Vec<PassId>,
}

impl Publishing {
    /// Starts from what the last run left in the catalog.
    pub(crate) fn new(
        shared: Arc<Shared>,
        publisher: Arc<Publisher>,
        runtime: Handle,
        config: &Config,
    ) -> Result<Self, CatalogError> {
        let allow_unsigned = config.allow_unsigned;
        let mut publishing = Self {
            shared,
            publisher,
            runtime,
            rules: if allow_unsigned {
                Rules::development()
            } else {
                Rules::strict()
            },
            files: BTreeMap::new(),
            types: BTreeSet::new(),
            unmarked: BTreeSet::new(),
            from_the_start: BTreeSet::new(),
            pauses: Pauses::default(),
            prefixes: Prefixes {
                served: config.prefix.clone(),
                ..Prefixes::default()
            },
            recorder: config.delivery_log.clone(),
            archives: config.archives.clone(),
        };
        let shared = publishing.shared.clone();
        shared.write(|passes| shared.catalog.rows(|row| publishing.recall(row, passes)))?;
        let allowed_unsigned = shared.catalog.allowed_unsigned()?;
        if allowed_unsigned && !allow_unsigned {
            publishing.withdraw_unsigned()?;
        }
        if allowed_unsigned != allow_unsigned {
            shared.catalog.remember_rules(allow_unsigned)?;
        }
        if let Some(edition) = config.edition.as_deref()
            && shared.catalog.edition()?.as_deref() != Some(edition)
        {
            publishing.publish_all_again(edition)?;
        }
        publishing.from_the_start = publishing.unmarked.clone();
        Ok(publishing)
    }

    /// Adds a row of the catalog, as the last run left it.
    fn recall(&mut self, row: Row, passes: &mut HashMap<PassId, Listed>) {
        let Row {
            pass,
            mut listed,
            stamp,
        } = row;
        let pass = self.shared_type(pass);
        listed.prefix = listed.prefix.map(|prefix| self.prefixes.shared(prefix));
        if !listed.withdrawn {
            self.files.insert(
                listed.path.clone(),
                Seen {
                    stamp,
                    good: true,
                    pass: Some(pass.clone()),
                    rival: None,
                },
            );
        }
        if listed.unmarked {
            self.unmarked.insert(pass.clone());
        }
        passes.insert(pass, listed);
    }

    /// Withdraws the passes that today's stricter rules no longer allow.
    fn withdraw_unsigned(&mut self) -> Result<(), CatalogError> {
        let served: Vec<(PassId, Arc<str>)> = self.shared.read(|passes| {
            let served = passes.iter().filter(|(_, listed)| !listed.withdrawn);
            served
                .map(|(pass, listed)| (pass.clone(), listed.path.clone()))
                .collect()
        });
        tracing::info!(
            "checking {} archives again, because unsigned ones are no longer allowed",
            served.len()
        );
        let mut refused = Vec::new();
        for (pass, path) in served {
            let copy = match self.shared.catalog.archive(&pass) {
                // The file is read again instead.
                Err(CatalogError::Damaged) => None,
                copy => copy?,
            };
            let is_signed = |copy: Bytes| {
                let archive = Report::of(&copy, self.rules).archive;
                archive.is_some_and(|archive| archive.signed)
            };
            if !copy.is_some_and(is_signed) {
                refused.push(PathBuf::from(&*path));
            }
        }
        // No file is a rival yet, so the result is empty.
        self.withdraw(&refused).map(drop)
    }

    /// Publishes every pass again, as if it had changed. Content that the store knows is not marked
    /// again.
    fn publish_all_again(&mut self, edition: &str) -> Result<(), CatalogError> {
        self.shared.catalog.begin_edition(edition)?;
        let unmarked = &mut self.unmarked;
        self.shared.write(|passes| {
            for (pass, listed) in passes {
                listed.unmarked = true;
                unmarked.insert(pass.clone());
            }
        });
        Ok(())
    }

    /// Returns the same pass. All passes of a type share the memory of the type.
    fn shared_type(&mut self, pass: PassId) -> PassId {
        if let Some(type_id) = self.types.get(&pass.type_id) {
            return PassId {
                type_id: type_id.clone(),
                ..pass
            };
        }
        self.types.insert(pass.type_id.clone());
        pass
    }

    /// Warns of the paths of passes where the service does not answer. Call it when all files have
    /// been read once.
    pub(crate) fn check_prefixes(&mut self) {
        let Self {
            shared, prefixes, ..
        } = self;
        prefixes.is_started = true;
        shared.read(|passes| {
            for (pass, listed) in passes {
                prefixes.check(pass, listed);
            }
        });
    }

    /// Returns every file that was read, in the order of the paths.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|path| &**path)
    }

    /// Returns whether a file whose path starts with `start` was read.
    pub(crate) fn has_below(&self, start: &str) -> bool {
        let next = self
            .files
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .next();
        next.is_some_and(|(file, _)| file.starts_with(start))
    }

    pub(crate) fn has_seen(&self, path: &Path) -> bool {
        self.seen(path).is_some()
    }

    /// Tells the readers of the folder which roots are absent.
    pub(crate) fn set_absent(&self, absent: &BTreeSet<PathBuf>) {
        self.shared.set_absent(absent);
    }

    /// Returns whether there are changes that the store does not have yet.
    pub(crate) fn has_unmarked(&self) -> bool {
        !self.unmarked.is_empty()
    }

    /// Returns the file that a pass is served from.
    pub(crate) fn file_of(&self, pass: &PassId) -> Option<Arc<str>> {
        self.shared.read(|passes| {
            passes
                .get(pass)
                .filter(|listed| !listed.withdrawn)
                .map(|listed| listed.path.clone())
        })
    }

    /// Returns whether this file held no good archive when it was last read.
    pub(crate) fn was_refused(&self, path: &Path) -> bool {
        self.seen(path).is_some_and(|seen| !seen.good)
    }

    fn seen(&self, path: &Path) -> Option<&Seen> {
        self.files.get(path.to_str()?)
    }

    pub(crate) fn is_news(&self, path: &Path, stamp: Stamp) -> bool {
        self.seen(path).is_none_or(|seen| seen.stamp != stamp)
    }

    /// Reads and checks these files, and puts the good ones into the catalog. Returns the rivals
    /// that may be served now. The caller must check these files again.
    pub(crate) fn publish(
        &mut self,
        group: &[(PathBuf, Stamp)],
    ) -> Result<Vec<PathBuf>, CatalogError> {
        let mut checked = check_all(group, self.rules);
        for ((path, _), checked) in group.iter().zip(&mut checked) {
            if let Checked::Read {
                archive, findings, ..
            } = checked
                && let Some(reason) = self.refusal(path, archive, findings)?
            {
                *checked = Checked::Refused(reason);
            }
        }
        // Passes whose file now holds another pass. If files swap their names, such a pass is also
        // in this group.
        let mut left: BTreeMap<PassId, Row> = BTreeMap::new();
        for ((path, _), checked) in group.iter().zip(&checked) {
            if let Checked::Read { archive, .. } = checked
                && let Some(row) = self.withdrawn(path)
                && row.pass != archive.id
            {
                left.insert(row.pass.clone(), row);
            }
        }
        let mut rows: Vec<(Row, Copy)> = Vec::new();
        let mut seen: Vec<(Arc<str>, Seen)> = Vec::new();
        for ((path, stamp), checked) in group.iter().zip(checked) {
            let Some(name) = path.to_str() else { continue };
            let mut note = Seen {
                stamp: *stamp,
                good: true,
                pass: None,
                rival: None,
            };
            match checked {
                // The next search withdraws the pass of the file, or finds the file again.
                Checked::Gone => continue,
                Checked::Refused(reason) => {
                    note.good = false;
                    // The file still belongs to the pass that it held. The last good version of
                    // that pass stays.
                    note.pass = self.seen(path).and_then(|seen| seen.pass.clone());
                    let stays = if note.pass.is_some() {
                        "; the previous version stays"
                    } else {
                        ""
                    };
                    tracing::warn!("{}: refused: {reason}{stays}", OneLine::of(name));
                }
                Checked::Read {
                    mut archive, bytes, ..
                } => {
                    archive.id = self.shared_type(archive.id);
                    let pass = &archive.id;
                    let rival = rows
                        .iter()
                        .find(|(row, _)| row.pass == *pass)
                        .map(|(row, _)| row.listed.path.clone());
                    let rival = rival.or_else(|| {
                        if left.contains_key(pass) {
                            None
                        } else {
                            self.rival_of(path, pass)
                        }
                    });
                    if let Some(other) = rival {
                        tracing::warn!(
                            "{}: refused: contains {pass}, which is already served from {}; remove one of the two",
                            OneLine::of(name),
                            OneLine::of(&other)
                        );
                        note.rival = Some(Box::new(archive.id));
                    } else {
                        left.remove(pass);
                        note.pass = Some(pass.clone());
                        rows.extend(self.row(name, *stamp, &archive, bytes)?);
                    }
                }
            }
            seen.push((name.into(), note));
        }
        let freed: BTreeSet<PassId> = left.keys().cloned().collect();
        rows.extend(left.into_values().map(|row| (row, Copy::Remove)));
        self.commit(rows)?;
        self.files.extend(seen);
        Ok(self.rivals(&freed))
    }

    /// Returns the reason why an archive that can be read is not served. Returns `None` if it is
    /// served. If something in it can't work, a warning is logged.
    ///
    /// Phones already have the version that is served. So a fault that this version has too is no
    /// reason to withhold an update.
    fn refusal(
        &self,
        path: &Path,
        archive: &Archive,
        findings: &Findings,
    ) -> Result<Option<String>, CatalogError> {
        let name = OneLine::path(path);
        let refused = findings.worst() >= Some(Level::Refused);
        if refused {
            let served = match self.shared.catalog.archive(&archive.id) {
                Err(CatalogError::Damaged) => None,
                copy => copy?,
            };
            let before = served.map(|copy| Report::of(&copy, self.rules).findings);
            if before.is_none_or(|before| findings.has_new(Level::Refused, &before)) {
                return Ok(Some(summary(findings)));
            }
            tracing::warn!(
                "{name}: phones may refuse it, but the previous version has the same faults: {}",
                summary(findings)
            );
        } else if !findings.is_empty() {
            tracing::warn!("{name}: is served, but can't work: {}", summary(findings));
        }
        Ok(None)
    }

    /// Returns the other file that `pass` is served from, if that file still exists.
    fn rival_of(&self, path: &Path, pass: &PassId) -> Option<Arc<str>> {
        let listed = self.shared.read(|passes| passes.get(pass).cloned())?;
        let other = Path::new(&*listed.path);
        let holds = self
            .seen(other)
            .is_some_and(|seen| seen.pass.as_ref() == Some(pass));
        let there =
            !listed.withdrawn && other != path && holds && !matches!(Stamp::of(other), Ok(None));
        there.then_some(listed.path)
    }

    /// Writes rows to the catalog, and then makes requests see them.
    fn commit(&mut self, mut rows: Vec<(Row, Copy)>) -> Result<(), CatalogError> {
        if rows.is_empty() {
            return Ok(());
        }
        let copies = rows
            .iter_mut()
            .map(|(row, copy)| (&*row, std::mem::replace(copy, Copy::Keep)));
        self.shared.catalog.put(copies)?;
        let unmarked = rows.iter().filter(|(row, _)| row.listed.unmarked);
        self.unmarked
            .extend(unmarked.map(|(row, _)| row.pass.clone()));
        self.shared.write(|passes| {
            for (
                Row {
                    pass, mut listed, ..
                },
                _,
            ) in rows
            {
                self.prefixes.check(&pass, &listed);
                if listed.withdrawn {
                    tracing::info!("{}: no longer serves {pass}", OneLine::of(&listed.path));
                }
                // A request may have set `misdated` meanwhile.
                listed.misdated |= passes.get(&pass).is_some_and(|before| before.misdated);
                passes.insert(pass, listed);
            }
        });
        Ok(())
    }

    /// Returns the new row of a good archive. The row is unmarked if the content has changed or is
    /// new. Returns `None` if the catalog already has all of it.
    fn row(
        &mut self,
        path: &str,
        stamp: Stamp,
        archive: &Archive,
        bytes: Bytes,
    ) -> Result<Option<(Row, Copy)>, CatalogError> {
        let before = self.shared.read(|passes| passes.get(&archive.id).cloned());
        let known = before.as_ref().map_or(&[][..], |listed| &listed.tokens);
        // An update may no longer have a web service. Phones fetch such an update with the token of
        // the previous version.
        let token = archive.auth_token.as_ref().map(AuthToken::digest);
        let tokens = unite_tokens(known, token.as_slice());
        let is_same = before
            .as_ref()
            .is_some_and(|listed| listed.content == archive.content_digest && !listed.withdrawn);
        let listed = Listed {
            tokens: tokens.into(),
            content: archive.content_digest,
            unmarked: !is_same || self.unmarked.contains(&archive.id),
            misdated: before.as_ref().is_some_and(|listed| listed.misdated),
            path: path.into(),
            withdrawn: false,
            prefix: archive
                .web_service_url
                .as_deref()
                .and_then(Prefix::of_url)
                .map(|prefix| self.prefixes.shared(Arc::new(prefix))),
        };
        let copy = match self.shared.catalog.archive(&archive.id) {
            Ok(Some(copy)) if copy == bytes => Copy::Keep,
            Ok(Some(copy)) => {
                if !is_same {
                    self.record_changes(archive, &copy, &bytes);
                }
                Copy::Put(bytes)
            }
            Ok(None) | Err(CatalogError::Damaged) => Copy::Put(bytes),
            Err(error) => return Err(error),
        };
        let is_known = before.as_ref() == Some(&listed) && !self.is_news(Path::new(path), stamp);
        if is_known && matches!(copy, Copy::Keep) {
            return Ok(None);
        }
        Ok(Some((
            Row {
                pass: archive.id.clone(),
                listed,
                stamp,
            },
            copy,
        )))
    }

    /// Records what differs between the copy of a pass and its new content.
    fn record_changes(&self, archive: &Archive, before: &[u8], after: &[u8]) {
        let Some(recorder) = &self.recorder else {
            return;
        };
        if let Some(changes) = Changes::between(before, after) {
            recorder.content_changed(&archive.id, &archive.content_digest, changes.summary());
        }
    }

    /// Withdraws the passes of files that are gone. Returns the same as [`publish`](Self::publish).
    pub(crate) fn withdraw(&mut self, gone: &[PathBuf]) -> Result<Vec<PathBuf>, CatalogError> {
        let rows: Vec<(Row, Copy)> = gone
            .iter()
            .filter_map(|path| self.withdrawn(path))
            .map(|row| (row, Copy::Remove))
            .collect();
        let freed: BTreeSet<PassId> = rows.iter().map(|(row, _)| row.pass.clone()).collect();
        self.commit(rows)?;
        for path in gone {
            if let Some(name) = path.to_str() {
                self.files.remove(name);
            }
        }
        Ok(self.rivals(&freed))
    }

    /// Returns the new row that withdraws the pass that is served from this file. Returns `None` if
    /// there is no such pass, or if another file is served for it by now.
    fn withdrawn(&self, path: &Path) -> Option<Row> {
        let pass = self.seen(path)?.pass.clone()?;
        let listed = self.shared.read(|passes| passes.get(&pass).cloned())?;
        let serves = Path::new(&*listed.path) == path && !listed.withdrawn;
        let listed = Listed {
            withdrawn: true,
            unmarked: true,
            ..listed
        };
        serves.then_some(Row {
            pass,
            listed,
            stamp: Stamp::default(),
        })
    }

    /// Returns the files that hold one of these passes. Until now, each of these passes was served
    /// from another file. These files then count as not seen.
    fn rivals(&mut self, freed: &BTreeSet<PassId>) -> Vec<PathBuf> {
        if freed.is_empty() {
            return Vec::new();
        }
        let is_freed = |seen: &mut Seen| {
            seen.rival
                .as_ref()
                .is_some_and(|pass| freed.contains(&**pass))
        };
        let waiting = self.files.extract_if(.., |_, seen| is_freed(seen));
        waiting.map(|(path, _)| PathBuf::from(&*path)).collect()
    }

    /// Reacts to a copy that differs from what was published last. `content` is the content of the
    /// copy. Its file was just read again.
    ///
    /// If the file has the same content as the copy, the pass is published again, unless it is in
    /// its pause. A pass that was handed in to the store is not published again, because the other
    /// instances have only the archive that was handed in.
    pub(crate) fn compare(&mut self, pass: &PassId, content: ContentDigest) {
        let listed = self.shared.read(|passes| passes.get(pass).cloned());
        let is_same =
            |listed: &Listed| listed.content == content && !listed.unmarked && !listed.withdrawn;
        // In any other case the file had a change, which is marked next.
        let Some(Listed { path, .. }) = listed.filter(is_same) else {
            return;
        };
        if self.shared.set_misdated(pass, content)
            && let Err(error) = self.shared.catalog.set_misdated(pass)
        {
            tracing::warn!(
                "{pass}: can't remember that phones get other content than the store names: {error}"
            );
        }
        let file = Path::new(&*path);
        let is_original = self.seen(file).is_some_and(|seen| {
            let stamp = Stamp::of(file).ok().flatten();
            seen.good && seen.pass.as_ref() == Some(pass) && stamp == Some(seen.stamp)
        });
        if !is_original {
            return;
        }
        let is_handed_in = match self.runtime.block_on(self.is_handed_in(pass)) {
            Ok(is_handed_in) => is_handed_in,
            Err(error) => {
                tracing::warn!("{pass}: can't compare it with the store: {}", Chain(&error));
                return;
            }
        };
        let now = Instant::now();
        if !self.pauses.may_publish(pass, now) {
            return;
        }
        if is_handed_in {
            tracing::error!(
                "instances serve different contents: {pass} was handed in to the store, and this instance serves {} \
                 instead; remove the file",
                OneLine::of(&path)
            );
            return;
        }
        if let Some(count) = self.pauses.report(now) {
            let others = if count > 1 {
                format!(", and {} other passes", count - 1)
            } else {
                String::new()
            };
            tracing::error!(
                "instances serve different contents: {} is not the version of {pass} that was published last; it \
                 is published again{others}. Give all instances the same files. If the database was restored from an \
                 older copy, there is nothing to do",
                OneLine::of(&path)
            );
        }
        self.shared.write(|passes| {
            if let Some(listed) = passes.get_mut(pass) {
                listed.unmarked = true;
            }
        });
        self.unmarked.insert(pass.clone());
    }

    /// Returns whether the store has the archive of the content that was published last.
    async fn is_handed_in(&self, pass: &PassId) -> Result<bool, StoreError> {
        let Some(archives) = &self.archives else {
            return Ok(false);
        };
        let Some(digest) = archives.pass_state(pass).await?.published else {
            return Ok(false);
        };
        Ok(archives.archive(pass, &digest).await?.is_some())
    }

    /// Publishes every change that the store does not have yet. After an error it tries again
    /// later.
    pub(crate) fn mark(&mut self) {
        let mut by_type: BTreeMap<TypeIdentifier, Vec<PassId>> = BTreeMap::new();
        for pass in std::mem::take(&mut self.unmarked) {
            by_type.entry(pass.type_id.clone()).or_default().push(pass);
        }
        for (type_id, passes) in by_type {
            for passes in passes.chunks(MARKS) {
                match self
                    .runtime
                    .block_on(self.publish_contents(&type_id, passes))
                {
                    Ok(purged) => {
                        self.set_marked(passes);
                        self.forget(&purged);
                        for pass in passes {
                            self.from_the_start.remove(pass);
                        }
                    }
                    Err(error) => {
                        tracing::error!(
                            "can't mark changes of {type_id}, and will try again: {}",
                            Chain(&error)
                        );
                        self.unmarked.extend(passes.iter().cloned());
                    }
                }
            }
        }
    }

    /// Publishes the contents of these passes. A withdrawn pass that the store does not know was
    /// purged, and publishing its removal would bring it back. Returns these passes.
    ///
    /// The removal of a pass that was handed in to the store is not published either. The service
    /// serves such a pass from the store, and the removal would end that.
    async fn publish_contents(
        &self,
        type_id: &TypeIdentifier,
        passes: &[PassId],
    ) -> Result<Vec<PassId>, StoreError> {
        let mut contents = Vec::with_capacity(passes.len());
        let mut misdated = Vec::new();
        let mut misdated_and_withdrawn = Vec::new();
        let mut withdrawn = Vec::new();
        self.shared.read(|listed| {
            for pass in passes {
                let Some(listed) = listed.get(pass) else {
                    continue;
                };
                contents.push(Content {
                    serial: pass.serial.clone(),
                    digest: (!listed.withdrawn).then_some(listed.content),
                    tokens: listed.tokens.to_vec(),
                });
                match (listed.misdated, listed.withdrawn) {
                    (true, false) => misdated.push((pass, listed.content)),
                    (true, true) => misdated_and_withdrawn.push(pass),
                    (false, _) => {}
                }
                if listed.withdrawn {
                    withdrawn.push(pass.clone());
                }
            }
        });
        let Withdrawn { purged, handed_in } = self.withdrawn_from_store(withdrawn).await?;
        let unpublished: BTreeSet<&SerialNumber> = purged
            .iter()
            .chain(&handed_in)
            .map(|pass| &pass.serial)
            .collect();
        contents.retain(|content| !unpublished.contains(&content.serial));
        // The store does not mark content that it knows. But phones may have the earlier copy under
        // the date of this content, so these passes are marked anyway.
        let mut known: Vec<SerialNumber> = Vec::new();
        // A removal marks nothing. If a withdrawn pass is handed in with content that the store
        // knows, that marks nothing either.
        let withdrawn = misdated_and_withdrawn
            .into_iter()
            .filter(|pass| !purged.contains(pass));
        known.extend(withdrawn.map(|pass| pass.serial.clone()));
        for (pass, content) in misdated {
            if self.publisher.store().pass_state(pass).await?.published == Some(content) {
                known.push(pass.serial.clone());
            }
        }
        self.publisher
            .publish(type_id, Changed::Contents(&contents))
            .await?;
        if !known.is_empty() {
            self.publisher
                .publish(type_id, Changed::Passes(&known))
                .await?;
        }
        Ok(purged)
    }

    /// Returns which of these withdrawn passes are not removed from the store, and why.
    ///
    /// The store has no call that compares and publishes in one step. If an archive is put and
    /// published on another instance after this call read the store, and before the removal is
    /// published, then the removal still ends the pass. The archive must then be handed in again.
    async fn withdrawn_from_store(&self, withdrawn: Vec<PassId>) -> Result<Withdrawn, StoreError> {
        let mut left = Withdrawn::default();
        if withdrawn.is_empty() {
            return Ok(left);
        }
        let published = self.publisher.store().published(&withdrawn).await?;
        for (pass, published) in withdrawn.into_iter().zip(published) {
            let Some(published) = published else {
                if !self.from_the_start.contains(&pass) {
                    left.purged.push(pass);
                }
                continue;
            };
            // An archive is put before its digest is published.
            if let (Some(archives), Some(digest)) = (&self.archives, published.digest)
                && archives.archive(&pass, &digest).await?.is_some()
            {
                tracing::info!("{pass}: is not withdrawn, because the store has its archive");
                left.handed_in.push(pass);
            }
        }
        Ok(left)
    }

    /// Returns the passes among these withdrawn passes that the store does not know. They were
    /// purged, or never published.
    async fn purged(&self, withdrawn: Vec<PassId>) -> Result<Vec<PassId>, StoreError> {
        if withdrawn.is_empty() {
            return Ok(Vec::new());
        }
        let published = self.publisher.store().published(&withdrawn).await?;
        let each = withdrawn.into_iter().zip(published);
        Ok(each
            .filter(|(_, published)| published.is_none())
            .map(|(pass, _)| pass)
            .collect())
    }

    /// Forgets the withdrawn passes that were purged from the store since they were withdrawn.
    pub(crate) fn forget_purged(&mut self) {
        let withdrawn: Vec<PassId> = self.shared.read(|passes| {
            let done = |listed: &Listed| listed.withdrawn && !listed.unmarked;
            let withdrawn = passes.iter().filter(|(_, listed)| done(listed));
            withdrawn.map(|(pass, _)| pass.clone()).collect()
        });
        for passes in withdrawn.chunks(MARKS) {
            match self.runtime.block_on(self.purged(passes.to_vec())) {
                Ok(purged) => self.forget(&purged),
                Err(error) => {
                    tracing::warn!(
                        "can't check which passes were purged, and will try again: {}",
                        Chain(&error)
                    );
                    return;
                }
            }
        }
    }

    /// Removes all that is kept of these withdrawn passes.
    fn forget(&self, passes: &[PassId]) {
        if passes.is_empty() {
            return;
        }
        if let Err(error) = self.shared.catalog.forget(passes) {
            tracing::warn!(
                "{} purged passes stay in the copies until the next check: {}",
                passes.len(),
                Chain(&error)
            );
            return;
        }
        self.shared.write(|listed| {
            for pass in passes {
                listed.remove(pass);
            }
        });
        tracing::info!(
            "passes forgotten, because they were purged: {}",
            passes.len()
        );
    }

    fn set_marked(&self, passes: &[PassId]) {
        self.shared.write(|listed| {
            for pass in passes {
                if let Some(listed) = listed.get_mut(pass) {
                    listed.set_marked();
                }
            }
        });
        if let Err(error) = self.shared.catalog.set_marked(passes) {
            tracing::warn!(
                "changes will be marked again at the next start: {}",
                Chain(&error)
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use http_body_util::BodyExt as _;
    use passkit_archive::ArchiveBuilder;
    use passkit_server::{
        PassSource as _,
        identifiers::Kind,
        service::ResponseBody,
        store::{MemoryStore, RegistrationStore as _},
    };
    use serde_json::json;

    use super::*;
    use crate::{Config, Folder, catalog::Catalog};

    fn a_pass() -> PassId {
        PassId::new("pass.com.example.withheld", "A-1").unwrap()
    }

    /// Makes an archive without an icon. Phones refuse such an archive.
    fn without_icon(change: serde_json::Value) -> Vec<u8> {
        let mut description = json!({
            "formatVersion": 1, "passTypeIdentifier": a_pass().type_id.as_str(), "serialNumber": "A-1",
            "teamIdentifier": "TEAM123456", "organizationName": "Example", "description": "one", "generic": {},
            "webServiceURL": "https://wallet.example.com/", "authenticationToken": "a-token-of-this-pass",
        });
        for (key, value) in change.as_object().unwrap() {
            description[key] = value.clone();
        }
        ArchiveBuilder::new(Kind::Pass, description.to_string())
            .build_unsigned()
            .unwrap()
    }

    /// Leaves the copies that a program with laxer rules would leave.
    fn leave_copies(copies: &Path, file: &Path, archive: &[u8]) {
        let report = Report::of(archive, Rules::development());
        let row = Row {
            pass: a_pass(),
            listed: Listed {
                tokens: Box::new([]),
                content: report.archive.unwrap().content_digest,
                unmarked: false,
                misdated: false,
                path: file.to_str().unwrap().into(),
                withdrawn: false,
                prefix: None,
            },
            stamp: Stamp::default(),
        };
        let (catalog, _) = Catalog::open_free(copies, false).unwrap();
        let copy = Copy::Put(Bytes::copy_from_slice(archive));
        catalog.put([(&row, copy)]).unwrap();
        catalog.remember_rules(true).unwrap();
    }

    /// Returns what is served after a file changed from the first archive to the second.
    async fn served_after(first: &[u8], second: &[u8]) -> Vec<u8> {
        let disk = tempfile::tempdir().unwrap();
        let (passes, copies) = (disk.path().join("passes"), disk.path().join("copies"));
        fs::create_dir(&passes).unwrap();
        let file = passes.join("a.pkpass");
        leave_copies(&copies, &file, first);
        fs::write(&file, second).unwrap();
        let store = Arc::new(MemoryStore::new());
        let publisher = Arc::new(Publisher::marking(store.clone()));
        let config = Config::new(copies).passes(passes).allow_unsigned(true);
        let folder = tokio::time::timeout(Duration::from_secs(60), Folder::open(config, publisher))
            .await
            .unwrap()
            .unwrap();
        let state = store.pass_state(&a_pass()).await.unwrap();
        let archive = folder.archive(&a_pass(), &state).await.unwrap().unwrap();
        let body = ResponseBody::from(archive).collect().await.unwrap();
        folder.close().await;
        body.to_bytes().to_vec()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_update_is_not_withheld_for_what_the_served_version_has_too() {
        let first = without_icon(json!({}));
        let second = without_icon(json!({"description": "two"}));
        assert_eq!(served_after(&first, &second).await, second);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_update_with_a_new_fault_is_withheld() {
        let first = without_icon(json!({}));
        let second = without_icon(json!({"expirationDate": "tomorrow"}));
        assert_eq!(served_after(&first, &second).await, first);
    }
}
