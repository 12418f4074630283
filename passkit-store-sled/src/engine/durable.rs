//! Shows readers only what is durable.
//!
//! The engine shows a batch to readers when it is applied, before it is durable. If a reader used a row of such a batch, a
//! crash could take back a tag or a date that a device has seen. So before the writer applies a batch, it stores the
//! previous value of each row in [`State::previous`]. If a reader finds a row there, it uses the previous value instead of
//! the one that it read. When the batch is durable, one step removes the previous values and sets the new clocks.
//!
//! **Every row that [`View::get`] or [`View::scan`] returns was durable at some moment of that call.** A reader reads the
//! database first and the previous values afterwards. If it read a value that was not durable, the previous value had been
//! stored before. Either the previous value is still there, or the new value has become durable. Previous values of a later
//! batch are correct too, because they were durable before that batch started.
//!
//! [`Memory`] keeps rows that were recently read or written. Readers get these rows without waiting for the disk. **A row in
//! memory has its newest durable value.** A row is added only if no batch started or finished since the row was read or
//! became durable ([`State::turn`]). When a batch becomes durable, its rows are removed from memory in the same step.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use passkit_server::identifiers::TypeIdentifier;
use sled::IVec;

use super::{
    database::{Contents, Database},
    memory::Memory,
};
use crate::{
    error::SledError,
    layout::{self, TypeRow},
};

/// The value of a row before and after a batch.
#[derive(Debug)]
pub(super) struct RowChange {
    pub(super) before: Option<IVec>,
    pub(super) after: Option<Vec<u8>>,
}

/// The changes of a batch, by key.
pub(super) type RowChanges = BTreeMap<Vec<u8>, RowChange>;

#[derive(Debug, Default)]
struct State {
    /// `None` after a failed write, until the database is opened again.
    database: Option<Arc<Database>>,
    /// The date of every pass that was never marked.
    created: u64,
    /// The durable clocks of the types.
    types: HashMap<TypeIdentifier, TypeRow>,
    /// The changes of the batch that is being written.
    previous: Arc<RowChanges>,
    /// A number that increases when a batch starts or becomes durable, and when the database is closed or opened.
    turn: u64,
}

impl State {
    fn type_row(&self, type_id: &TypeIdentifier) -> TypeRow {
        self.types
            .get(type_id)
            .copied()
            .unwrap_or_else(|| TypeRow::unmarked(self.created))
    }
}

/// The durable rows, shared by all threads.
#[derive(Debug)]
pub(crate) struct DurableRows {
    state: RwLock<State>,
    memory: Memory,
}

impl DurableRows {
    /// `memory_bytes` limits the size of the rows in memory.
    pub(crate) fn new(database: Database, contents: Contents, memory_bytes: u64) -> Self {
        let rows = Self {
            state: RwLock::default(),
            memory: Memory::new(memory_bytes),
        };
        rows.reopened(database, contents);
        rows
    }

    /// A poisoned lock can be used, because a panic leaves no change half done.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn type_row(&self, type_id: &TypeIdentifier) -> TypeRow {
        self.state().type_row(type_id)
    }

    /// Call this before a batch is applied.
    pub(super) fn begin(&self, changes: Arc<RowChanges>) {
        let mut state = self.state_mut();
        state.turn += 1;
        let last = std::mem::replace(&mut state.previous, changes);
        drop(state);
        drop(last);
    }

    /// Call this when the batch is durable. `types` are the clocks that it advanced.
    pub(super) fn durable(&self, types: HashMap<TypeIdentifier, TypeRow>) {
        let mut state = self.state_mut();
        state.types.extend(types);
        state.turn += 1;
        let changes = std::mem::take(&mut state.previous);
        for key in changes.keys() {
            self.memory.drop_row(key);
        }
        let turn = state.turn;
        drop(state);
        // Adds the rows that phones read next: a device that registers asks for its list, and a device that gets a push
        // fetches the pass. There may be many rows, so this takes only a read lock, and readers can continue.
        let state = self.state();
        for (key, change) in changes
            .iter()
            .filter(|(key, _)| layout::is_asked_alone(key))
        {
            self.keep(&state, turn, key, &change.after.as_deref().map(IVec::from));
        }
    }

    /// Call this when a write failed. The database in memory may then differ from the file.
    pub(super) fn closed(&self) {
        let mut state = self.state_mut();
        state.turn += 1;
        self.memory.clear();
        let database = state.database.take();
        drop(state);
        drop(database);
    }

    /// Call this when the database was opened again, and everything in it is durable.
    pub(super) fn reopened(&self, database: Database, contents: Contents) {
        let mut state = self.state_mut();
        let turn = state.turn + 1;
        self.memory.clear();
        *state = State {
            database: Some(Arc::new(database)),
            created: contents.created,
            types: contents.types,
            previous: Arc::default(),
            turn,
        };
    }

    pub(super) fn database(&self) -> Option<Arc<Database>> {
        self.state().database.clone()
    }

    /// Adds a row to memory. `turn` is the value of [`State::turn`] when the row was read or became durable. If a batch
    /// started or finished since then, the row is not added.
    fn keep(&self, state: &State, turn: u64, key: &[u8], row: &Option<IVec>) {
        if state.turn == turn {
            self.memory.keep(key, row.clone());
        }
    }

    pub(super) fn view(&self) -> Result<View<'_>, SledError> {
        let database = self.database().ok_or_else(SledError::closed)?;
        Ok(View {
            rows: self,
            database: Some(database),
        })
    }

    /// Returns a view that never waits for the disk. If the database is opened again, the view may see rows from before and
    /// after the opening. This is correct, because opening loses nothing durable.
    pub(super) fn view_in_memory(&self) -> View<'_> {
        View {
            rows: self,
            database: None,
        }
    }
}

/// The durable rows for one reader.
#[derive(Debug)]
pub(crate) struct View<'r> {
    rows: &'r DurableRows,
    /// `None` if the view shows only rows in memory.
    database: Option<Arc<Database>>,
}

/// Why a question to a [`View`] has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The view shows only rows in memory, and the answer needs another row.
    OnDisk,
    Failed(SledError),
}

impl From<SledError> for Unanswered {
    fn from(failure: SledError) -> Self {
        Self::Failed(failure)
    }
}

/// Some rows, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<(IVec, IVec)>,
    /// The key after which there may be more rows. `None` if there are no more rows.
    pub(crate) more_after: Option<IVec>,
}

impl View<'_> {
    /// Returns the state. Fails if the database is closed, or was opened again after this view was made.
    fn state(&self) -> Result<RwLockReadGuard<'_, State>, SledError> {
        let state = self.rows.state();
        match (&state.database, &self.database) {
            (Some(_), None) => Ok(state),
            (Some(current), Some(own)) if Arc::ptr_eq(current, own) => Ok(state),
            _ => Err(SledError::closed()),
        }
    }

    fn database(&self) -> Result<&Database, Unanswered> {
        self.database.as_deref().ok_or(Unanswered::OnDisk)
    }

    pub(crate) fn type_row(&self, type_id: &TypeIdentifier) -> Result<TypeRow, SledError> {
        Ok(self.state()?.type_row(type_id))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, Unanswered> {
        if let Some(row) = self.rows.memory.get(key) {
            return Ok(row);
        }
        let database = self.database()?;
        let turn = self.state()?.turn;
        let read = database.get(key)?;
        let state = self.state()?;
        let row = match state.previous.get(key) {
            Some(change) => change.before.clone(),
            None => read,
        };
        self.rows.keep(&state, turn, key, &row);
        Ok(row)
    }

    /// Returns the size of all files of the store.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, Unanswered> {
        Ok(self.database()?.bytes_on_disk()?)
    }

    /// Returns about `limit` rows whose keys start with `prefix`, starting after the key `after`.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Rows, Unanswered> {
        let mut found = Rows::default();
        for row in self.database()?.scan(prefix, after)?.take(limit) {
            found.rows.push(row?);
        }
        if found.rows.len() >= limit {
            found.more_after = found.rows.last().map(|(key, _)| key.clone());
        }
        put_previous_back(&mut found, prefix, after, &self.state()?.previous);
        Ok(found)
    }
}

/// Replaces rows with their previous values, up to the last row that was read.
fn put_previous_back(found: &mut Rows, prefix: &[u8], after: Option<&[u8]>, changes: &RowChanges) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    if changes.is_empty() {
        return;
    }
    let start = after.map_or(Included(prefix), Excluded);
    let changes = changes
        .range::<[u8], _>((start, Unbounded))
        .take_while(|(key, _)| key.starts_with(prefix))
        .take_while(|(key, _)| {
            found
                .more_after
                .as_ref()
                .is_none_or(|last| key[..] <= last[..])
        });
    for (key, change) in changes {
        let at = found.rows.binary_search_by(|(row, _)| row[..].cmp(key));
        match (at, &change.before) {
            (Ok(at), Some(before)) => found.rows[at].1 = before.clone(),
            (Ok(at), None) => {
                found.rows.remove(at);
            }
            (Err(at), Some(before)) => found
                .rows
                .insert(at, (IVec::from(&key[..]), before.clone())),
            (Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ivec(text: &str) -> IVec {
        IVec::from(text)
    }

    /// Writes a row as the writer does.
    fn write(rows: &DurableRows, before: Option<&str>, after: &str) {
        let change = RowChange {
            before: before.map(ivec),
            after: Some(after.into()),
        };
        rows.begin(Arc::new(RowChanges::from([(b"key".to_vec(), change)])));
        let database = rows.database().unwrap();
        let mut batch = sled::Batch::default();
        batch.insert(&b"key"[..], after);
        database.apply(batch).unwrap();
        database.sync().unwrap();
        rows.durable(HashMap::new());
    }

    #[test]
    fn a_row_in_memory_is_the_newest_durable_one() {
        let folder = tempfile::tempdir().unwrap();
        let (database, contents) =
            Database::open(&crate::Config::new(folder.path()), true).unwrap();
        let rows = DurableRows::new(database, contents, 1 << 20);
        let get = |view: View<'_>, key| match view.get(key) {
            Ok(row) => Some(row),
            Err(Unanswered::OnDisk) => None,
            Err(Unanswered::Failed(failure)) => panic!("{failure:?}"),
        };
        let in_memory = || get(rows.view_in_memory(), b"key");
        let read = || get(rows.view().unwrap(), b"key");
        assert_eq!(in_memory(), None);

        write(&rows, None, "one");
        assert_eq!(in_memory(), None);
        assert_eq!(read(), Some(Some(ivec("one"))));
        assert_eq!(in_memory(), Some(Some(ivec("one"))));

        // A reader has read the row before it changed, and now tries to keep it in memory.
        let turn = rows.state().turn;
        write(&rows, Some("one"), "two");
        rows.keep(&rows.state(), turn, b"key", &Some(ivec("one")));
        assert_eq!(in_memory(), None);
        assert_eq!(read(), Some(Some(ivec("two"))));

        // Until a change is durable, the previous value is the newest durable one.
        let change = RowChange {
            before: Some(ivec("two")),
            after: Some(b"three".to_vec()),
        };
        rows.begin(Arc::new(RowChanges::from([(b"key".to_vec(), change)])));
        assert_eq!(in_memory(), Some(Some(ivec("two"))));
        rows.durable(HashMap::new());
        assert_eq!(in_memory(), None);

        // Rows that phones read are in memory as soon as they are durable, and not earlier.
        let device = || get(rows.view_in_memory(), b"dkey");
        let mut before = None;
        for after in [Some("one"), Some("two"), None] {
            let change = RowChange {
                before: before.map(ivec),
                after: after.map(Into::into),
            };
            rows.begin(Arc::new(RowChanges::from([(b"dkey".to_vec(), change)])));
            match before {
                None => assert_eq!(device(), None),
                Some(before) => assert_eq!(device(), Some(Some(ivec(before)))),
            }
            rows.durable(HashMap::new());
            assert_eq!(device(), Some(after.map(ivec)));
            before = after;
        }

        read();
        rows.closed();
        assert!(in_memory().is_none() && rows.view().is_err());
    }

    #[test]
    fn rows_that_are_not_durable_show_their_previous_value() {
        let mut changes = RowChanges::new();
        for (key, before) in [
            ("pa", Some("old a")),
            ("pb", None),
            ("pc", Some("old c")),
            ("pz", Some("z")),
        ] {
            changes.insert(
                key.into(),
                RowChange {
                    before: before.map(ivec),
                    after: None,
                },
            );
        }
        changes.insert(
            "q".into(),
            RowChange {
                before: Some(ivec("other")),
                after: None,
            },
        );
        let read = || {
            vec![
                (ivec("pb"), ivec("new")),
                (ivec("pc"), ivec("new")),
                (ivec("pd"), ivec("d")),
            ]
        };
        let shown = |found: &Rows| {
            found
                .rows
                .iter()
                .map(|(k, v)| {
                    format!(
                        "{}={}",
                        String::from_utf8_lossy(k),
                        String::from_utf8_lossy(v)
                    )
                })
                .collect::<Vec<_>>()
        };

        let mut whole = Rows {
            rows: read(),
            more_after: None,
        };
        put_previous_back(&mut whole, b"p", None, &changes);
        assert_eq!(shown(&whole), ["pa=old a", "pc=old c", "pd=d", "pz=z"]);

        let mut page = Rows {
            rows: read(),
            more_after: Some(ivec("pd")),
        };
        put_previous_back(&mut page, b"p", Some(b"pa"), &changes);
        assert_eq!(shown(&page), ["pc=old c", "pd=d"]);
    }
}
