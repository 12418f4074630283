//! Publishing files: to the catalog, to requests, and to the store.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use passkit_archive::{Archive, Rules};
use passkit_server::{ContentDigest, PassId, SerialNumber, StoreError, TokenDigest, TypeIdentifier};
use tracing::Instrument as _;

use super::{
    Listed, Shared,
    catalog::{Copy, Row},
    files::Stamp,
    judge::{Content, read_all},
};
use crate::{
    failure::Chain,
    marking::{Marking, publish_span},
};

pub(super) struct Publishing {
    shared: Arc<Shared>,
    marking: Marking,
    runtime: tokio::runtime::Handle,
    rules: Rules,
    /// Every candidate file that was read, and what became of it.
    files: BTreeMap<Arc<str>, Seen>,
    types: BTreeSet<TypeIdentifier>,
    /// Passes whose change the store has not been told of.
    owed: BTreeSet<PassId>,
}

/// A file as it was when it was read last.
struct Seen {
    stamp: Stamp,
    /// The pass it holds; `None` if it was refused.
    pass: Option<PassId>,
    /// The pass it holds too, but which another file got first.
    rival: Option<Box<PassId>>,
}

impl Publishing {
    /// Takes up what the last run left in the catalog.
    pub(super) fn new(
        shared: Arc<Shared>,
        marking: Marking,
        runtime: tokio::runtime::Handle,
        allow_unsigned: bool,
    ) -> Result<Self, redb::Error> {
        let mut publishing = Self {
            shared,
            marking,
            runtime,
            rules: if allow_unsigned { Rules::development() } else { Rules::strict() },
            files: BTreeMap::new(),
            types: BTreeSet::new(),
            owed: BTreeSet::new(),
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
        Ok(publishing)
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
        // No file stands back yet.
        self.withdraw(&refused).map(drop)
    }

    /// The same pass, with the type in one place in memory for all of its passes.
    fn shared_type(&mut self, pass: PassId) -> PassId {
        if let Some(type_id) = self.types.get(&pass.type_id) {
            return PassId { type_id: type_id.clone(), ..pass };
        }
        self.types.insert(pass.type_id.clone());
        pass
    }

    /// Every file that was read, in the order of the paths.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(|path| &**path)
    }

    /// Whether a file that starts so was read.
    pub(super) fn has_below(&self, start: &str) -> bool {
        let next = self.files.range::<str, _>((Bound::Included(start), Bound::Unbounded)).next();
        next.is_some_and(|(file, _)| file.starts_with(start))
    }

    pub(super) fn has_seen(&self, path: &Path) -> bool {
        self.seen(path).is_some()
    }

    /// Whether the store has yet to be told of a change.
    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    fn seen(&self, path: &Path) -> Option<&Seen> {
        self.files.get(path.to_str()?)
    }

    pub(super) fn is_news(&self, path: &Path, stamp: Stamp) -> bool {
        self.seen(path).is_none_or(|seen| seen.stamp != stamp)
    }

    /// Reads and checks these files, and publishes those that are good. Returns the files that had to stand back until
    /// now, and are to be looked at again.
    pub(super) fn publish(&mut self, group: &[(PathBuf, Stamp)]) -> Result<Vec<PathBuf>, redb::Error> {
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
        Ok(self.rivals(&freed))
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

    /// Withdraws the passes of files that are gone. Returns what [`publish`](Self::publish) does.
    pub(super) fn withdraw(&mut self, gone: &[PathBuf]) -> Result<Vec<PathBuf>, redb::Error> {
        let rows: Vec<(Row, Copy)> =
            gone.iter().filter_map(|path| self.withdrawn(path)).map(|row| (row, Copy::Remove)).collect();
        let freed: BTreeSet<PassId> = rows.iter().map(|(row, _)| row.pass.clone()).collect();
        self.commit(rows)?;
        for path in gone {
            if let Some(name) = path.to_str() {
                self.files.remove(name);
            }
        }
        Ok(self.rivals(&freed))
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

    /// Files that had to stand back for a pass's other file, and get their turn now that that is gone: they count as not
    /// seen.
    fn rivals(&mut self, freed: &BTreeSet<PassId>) -> Vec<PathBuf> {
        if freed.is_empty() {
            return Vec::new();
        }
        let stands_back = |seen: &mut Seen| seen.rival.as_ref().is_some_and(|pass| freed.contains(&**pass));
        let waiting = self.files.extract_if(.., |_, seen| stands_back(seen));
        waiting.map(|(path, _)| PathBuf::from(&*path)).collect()
    }

    /// Tells the store of every change it has not been told of. What it can't take now is tried again.
    pub(super) fn mark_owed(&mut self) {
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

    async fn mark(&self, type_id: &TypeIdentifier, passes: &[PassId]) -> Result<(), StoreError> {
        let Some(published) = &self.marking.store.published else {
            let serials: Vec<SerialNumber> = passes.iter().map(|pass| pass.serial.clone()).collect();
            return self.marking.mark(type_id, &serials).await;
        };
        let contents: Vec<(SerialNumber, ContentDigest)> = self.shared.read(|listed| {
            let content = |pass: &PassId| Some((pass.serial.clone(), listed.get(pass)?.content));
            passes.iter().filter_map(content).collect()
        });
        let span = publish_span(type_id, Some(contents.len()));
        published.publish(type_id, &contents).instrument(span).await?;
        self.marking.wake();
        Ok(())
    }
}
