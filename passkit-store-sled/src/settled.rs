//! What readers may see: only what is durable.
//!
//! The engine shows a batch to readers as soon as it is applied, which is before it is durable. If that leaked, a
//! crash could take back what a device was told: a tag, a date, or that a pass is gone. So before the writer applies
//! a batch it publishes what each row held until then ([`State::replaced`]), and a reader that finds a row there
//! takes that in place of what it read. When the batch is durable, the map goes and the new clocks come, in one step.
//!
//! **Every row that [`View::get`] or [`View::scan`] returns was durable at some moment of that call.** For a reader
//! looks into the database first and into the map after: a value that is not durable was applied after the map with
//! its row was published, so the map still has the row, or has been taken away because the value became durable.
//! A map of a later batch does no harm either: what it says was durable before that batch began.
//!
//! Rows that were read or written are kept in memory ([`Shared::rows`]), where they can be had without a thread that may
//! wait for the disk. **A row in memory is the newest that was told durable.** For it is taken in only while no batch begins or ends
//! between its reading, or its becoming durable, and its taking in ([`State::turn`]); and when a batch becomes durable,
//! the rows it changed go from memory in the same step in which its clocks come.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use passkit_server::TypeIdentifier;
use sled::IVec;

use crate::{
    database::{Contents, Database},
    error::Failure,
    keys::{self, TypeRow},
};

/// What a batch does to a row.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) before: Option<IVec>,
    pub(crate) after: Option<Vec<u8>>,
}

/// By key.
pub(crate) type Changes = BTreeMap<Vec<u8>, Change>;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// `None` after a failed write, until it is opened again, and at the end.
    pub(crate) database: Option<Arc<Database>>,
    /// The date of every pass that was never marked.
    pub(crate) created: u64,
    /// The durable clocks.
    pub(crate) types: HashMap<TypeIdentifier, TypeRow>,
    /// The changes that are on their way: applied perhaps, but not durable.
    pub(crate) replaced: Arc<Changes>,
    /// Another number after each time that a batch began or became durable, or the database was closed or opened.
    turn: u64,
}

impl State {
    pub(crate) fn type_row(&self, type_id: &TypeIdentifier) -> TypeRow {
        self.types.get(type_id).copied().unwrap_or_else(|| TypeRow::unmarked(self.created))
    }
}

type RowsInMemory = quick_cache::sync::Cache<Box<[u8]>, Option<IVec>, RowSize>;

#[derive(Clone, Debug)]
struct RowSize;

impl quick_cache::Weighter<Box<[u8]>, Option<IVec>> for RowSize {
    fn weight(&self, key: &Box<[u8]>, row: &Option<IVec>) -> u64 {
        /// What an entry takes besides its bytes, about.
        const ENTRY: usize = 120;
        (key.len() + row.as_ref().map_or(0, |row| row.len()) + ENTRY) as u64
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    /// By key; `None` for a row that is not there.
    rows: RowsInMemory,
}

impl Shared {
    /// With this many bytes of rows in memory at the most.
    pub(crate) fn new(database: Database, contents: Contents, rows_bytes: u64) -> Self {
        let about = usize::try_from(rows_bytes / 300).unwrap_or(usize::MAX);
        let rows = RowsInMemory::with_weighter(about, rows_bytes, RowSize);
        let shared = Self { state: RwLock::default(), rows };
        shared.reopened(database, contents);
        shared
    }

    /// Nothing panics half way through a change, so what a poisoned lock guards is whole.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is about to be applied.
    pub(crate) fn applying(&self, changes: Arc<Changes>) {
        let mut state = self.state_mut();
        state.turn += 1;
        let before = std::mem::replace(&mut state.replaced, changes);
        drop(state);
        drop(before);
    }

    /// The batch is durable, and these are the clocks it moved.
    pub(crate) fn settled(&self, types: HashMap<TypeIdentifier, TypeRow>) {
        let mut state = self.state_mut();
        state.types.extend(types);
        state.turn += 1;
        let replaced = std::mem::take(&mut state.replaced);
        for key in replaced.keys() {
            self.rows.remove(&key[..]);
        }
        let turn = state.turn;
        drop(state);
        // Beside other readers, for these may be many. They are asked for next: who registers lists, and who is told of a
        // change fetches.
        let state = self.state();
        for (key, change) in replaced.iter().filter(|(key, _)| keys::is_asked_alone(key)) {
            self.keep(&state, turn, key, &change.after.as_deref().map(IVec::from));
        }
    }

    /// A write failed: what the database shows in memory is not to be trusted any more.
    pub(crate) fn closed(&self) {
        let mut state = self.state_mut();
        state.turn += 1;
        self.rows.clear();
        let database = state.database.take();
        drop(state);
        drop(database);
    }

    /// The database was opened, and all that it holds is durable.
    pub(crate) fn reopened(&self, database: Database, contents: Contents) {
        let mut state = self.state_mut();
        let turn = state.turn + 1;
        self.rows.clear();
        *state = State {
            database: Some(Arc::new(database)),
            created: contents.created,
            types: contents.types,
            replaced: Arc::default(),
            turn,
        };
    }

    pub(crate) fn database(&self) -> Option<Arc<Database>> {
        self.state().database.clone()
    }

    pub(crate) fn view(&self) -> Result<View<'_>, Failure> {
        let database = self.database().ok_or_else(Failure::closed)?;
        Ok(View { shared: self, database: Some(database) })
    }

    /// Takes a row into memory that was read or became durable in `turn`, if no batch began or ended since.
    fn keep(&self, state: &State, turn: u64, key: &[u8], row: &Option<IVec>) {
        if state.turn == turn {
            self.rows.insert(key.into(), row.clone());
        }
    }

    /// A view that never waits for the disk: what is not in memory is [on disk](Failure::on_disk). It may see rows from
    /// before and from after the database is opened again: all that was shown as durable is there again, so what it reads
    /// later is no older.
    pub(crate) fn view_in_memory(&self) -> View<'_> {
        View { shared: self, database: None }
    }
}

/// The durable rows, for one reader.
#[derive(Debug)]
pub(crate) struct View<'s> {
    shared: &'s Shared,
    /// `None` for a view that never waits for the disk.
    database: Option<Arc<Database>>,
}

/// Some rows, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<(IVec, IVec)>,
    /// The key behind which there may be more.
    pub(crate) more_after: Option<IVec>,
}

impl View<'_> {
    /// The state, unless the database is closed, or is no longer the one that this view reads: then that means nothing.
    fn state(&self) -> Result<RwLockReadGuard<'_, State>, Failure> {
        let state = self.shared.state();
        match (&state.database, &self.database) {
            (Some(_), None) => Ok(state),
            (Some(current), Some(own)) if Arc::ptr_eq(current, own) => Ok(state),
            _ => Err(Failure::closed()),
        }
    }

    fn database(&self) -> Result<&Database, Failure> {
        self.database.as_deref().ok_or_else(Failure::on_disk)
    }

    pub(crate) fn type_row(&self, type_id: &TypeIdentifier) -> Result<TypeRow, Failure> {
        Ok(self.state()?.type_row(type_id))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, Failure> {
        if let Some(row) = self.shared.rows.get(key) {
            return Ok(row);
        }
        let database = self.database()?;
        let turn = self.state()?.turn;
        let read = database.get(key)?;
        let state = self.state()?;
        let row = match state.replaced.get(key) {
            Some(change) => change.before.clone(),
            None => read,
        };
        self.shared.keep(&state, turn, key, &row);
        Ok(row)
    }

    /// How many bytes the files of the store have.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, Failure> {
        self.database()?.bytes_on_disk()
    }

    /// At most about `limit` of the rows whose keys start with `prefix`, and are behind the key `after`.
    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Rows, Failure> {
        let mut found = Rows::default();
        for row in self.database()?.scan(prefix, after)?.take(limit) {
            found.rows.push(row?);
        }
        if found.rows.len() >= limit {
            found.more_after = found.rows.last().map(|(key, _)| key.clone());
        }
        settle(&mut found, prefix, after, &self.state()?.replaced);
        Ok(found)
    }
}

/// Puts what rows held before the changes in place of what was read, as far as was read.
fn settle(found: &mut Rows, prefix: &[u8], after: Option<&[u8]>, replaced: &Changes) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    if replaced.is_empty() {
        return;
    }
    let start = after.map_or(Included(prefix), Excluded);
    let changes = replaced
        .range::<[u8], _>((start, Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .take_while(|(key, _)| found.more_after.as_ref().is_none_or(|last| key[..] <= last[..]));
    for (key, change) in changes {
        let at = found.rows.binary_search_by(|(row, _)| row[..].cmp(key));
        match (at, &change.before) {
            (Ok(at), Some(before)) => found.rows[at].1 = before.clone(),
            (Ok(at), None) => {
                found.rows.remove(at);
            }
            (Err(at), Some(before)) => found.rows.insert(at, (IVec::from(&key[..]), before.clone())),
            (Err(_), None) => {}
        }
    }
}

/// All rows under `prefix` with `changes` done to them: the writer's own reading.
pub(crate) fn scan_changed(
    database: &Database,
    prefix: &[u8],
    changes: &Changes,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failure> {
    use std::ops::Bound::{Included, Unbounded};
    let mut rows = BTreeMap::new();
    for row in database.scan(prefix, None)? {
        let (key, value) = row?;
        rows.insert(key.to_vec(), value.to_vec());
    }
    for (key, change) in
        changes.range::<[u8], _>((Included(prefix), Unbounded)).take_while(|(key, _)| key.starts_with(prefix))
    {
        match &change.after {
            Some(after) => rows.insert(key.clone(), after.clone()),
            None => rows.remove(key),
        };
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ivec(text: &str) -> IVec {
        IVec::from(text)
    }

    /// Does to the database what the writer does.
    fn write(shared: &Shared, before: Option<&str>, after: &str) {
        let change = Change { before: before.map(ivec), after: Some(after.into()) };
        shared.applying(Arc::new(Changes::from([(b"key".to_vec(), change)])));
        let database = shared.database().unwrap();
        let mut batch = sled::Batch::default();
        batch.insert(&b"key"[..], after);
        database.apply(batch).unwrap();
        database.sync().unwrap();
        shared.settled(HashMap::new());
    }

    #[test]
    fn a_row_in_memory_is_the_newest_durable_one() {
        let folder = tempfile::tempdir().unwrap();
        let (database, contents) = Database::open(&crate::Config::new(folder.path()), true).unwrap();
        let shared = Shared::new(database, contents, 1 << 20);
        let in_memory = || shared.view_in_memory().get(b"key");
        assert!(in_memory().unwrap_err().on_disk);

        write(&shared, None, "one");
        assert!(in_memory().unwrap_err().on_disk);
        assert_eq!(shared.view().unwrap().get(b"key").unwrap(), Some(ivec("one")));
        assert_eq!(in_memory().unwrap(), Some(ivec("one")));

        // A reader that had read the row before it changed, and comes to keep it after.
        let turn = shared.state().turn;
        write(&shared, Some("one"), "two");
        shared.keep(&shared.state(), turn, b"key", &Some(ivec("one")));
        assert!(in_memory().unwrap_err().on_disk);
        assert_eq!(shared.view().unwrap().get(b"key").unwrap(), Some(ivec("two")));

        // While a change is on its way, what is durable is the row before it.
        let change = Change { before: Some(ivec("two")), after: Some(b"three".to_vec()) };
        shared.applying(Arc::new(Changes::from([(b"key".to_vec(), change)])));
        assert_eq!(in_memory().unwrap(), Some(ivec("two")));
        shared.settled(HashMap::new());
        assert!(in_memory().unwrap_err().on_disk);

        // Rows that phones ask for are at hand as soon as they are durable, and not before.
        let device = || shared.view_in_memory().get(b"dkey");
        let mut before = None;
        for after in [Some("one"), Some("two"), None] {
            let change = Change { before: before.map(ivec), after: after.map(Into::into) };
            shared.applying(Arc::new(Changes::from([(b"dkey".to_vec(), change)])));
            match before {
                None => assert!(device().unwrap_err().on_disk),
                Some(before) => assert_eq!(device().unwrap(), Some(ivec(before))),
            }
            shared.settled(HashMap::new());
            assert_eq!(device().unwrap(), after.map(ivec));
            before = after;
        }

        shared.view().unwrap().get(b"key").unwrap();
        shared.closed();
        assert!(in_memory().unwrap_err().on_disk && shared.view().is_err());
    }

    #[test]
    fn rows_on_their_way_show_what_they_held_before() {
        let mut replaced = Changes::new();
        for (key, before) in [("pa", Some("old a")), ("pb", None), ("pc", Some("old c")), ("pz", Some("z"))] {
            replaced.insert(key.into(), Change { before: before.map(ivec), after: None });
        }
        replaced.insert("q".into(), Change { before: Some(ivec("other")), after: None });
        let read = || vec![(ivec("pb"), ivec("new")), (ivec("pc"), ivec("new")), (ivec("pd"), ivec("d"))];
        let shown = |found: &Rows| {
            found
                .rows
                .iter()
                .map(|(k, v)| format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(v)))
                .collect::<Vec<_>>()
        };

        let mut whole = Rows { rows: read(), more_after: None };
        settle(&mut whole, b"p", None, &replaced);
        assert_eq!(shown(&whole), ["pa=old a", "pc=old c", "pd=d", "pz=z"]);

        let mut page = Rows { rows: read(), more_after: Some(ivec("pd")) };
        settle(&mut page, b"p", Some(b"pa"), &replaced);
        assert_eq!(shown(&page), ["pc=old c", "pd=d"]);
    }
}
