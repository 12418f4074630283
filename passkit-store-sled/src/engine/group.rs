//! Makes several operations durable together, with one sync.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
};

use passkit_server::identifiers::TypeIdentifier;
use sled::IVec;
use tokio::sync::oneshot;

use super::{
    database::Database,
    durable::{DurableRows, RowChange, RowChanges},
};
use crate::{
    error::SledError,
    layout::{self, TypeRow},
};

/// The maximum number of operations that share a sync.
pub(super) const OPERATIONS: usize = 512;

/// The number of changed rows at which a group is full. It limits how long readers wait for a batch, and how much of the
/// engine's log is not synced. A larger operation has steps of about this size.
pub(crate) const ROWS: usize = 1024;

/// Work for the writing thread.
pub(super) trait Operation: Send {
    /// Does the work, or the part that the group has room for. Returns whether a part is left.
    fn change(&mut self, group: &mut Group<'_>) -> bool;

    /// Answers the caller. `durable` is an error if the changes did not become durable.
    fn answer(self: Box<Self>, durable: Result<(), SledError>);
}

/// An [`Operation`] that calls a function until it returns a result.
struct FunctionOperation<T, F> {
    function: F,
    done: Option<Result<T, SledError>>,
    answer: oneshot::Sender<Result<T, SledError>>,
}

/// Makes an operation from a function. The receiver gets the result when it is durable. The function is called again while
/// it returns `None`. If it fails, the changes of its last call are undone.
pub(super) fn operation<T: Send + 'static>(
    function: impl FnMut(&mut Group<'_>) -> Result<Option<T>, SledError> + Send + 'static,
) -> (Box<dyn Operation>, oneshot::Receiver<Result<T, SledError>>) {
    let (answer, answered) = oneshot::channel();
    (
        Box::new(FunctionOperation {
            function,
            done: None,
            answer,
        }),
        answered,
    )
}

impl<T: Send, F: FnMut(&mut Group<'_>) -> Result<Option<T>, SledError> + Send> Operation
    for FunctionOperation<T, F>
{
    fn change(&mut self, group: &mut Group<'_>) -> bool {
        group.undo.clear();
        self.done = (self.function)(group).transpose();
        if let Some(Err(_)) = &self.done {
            group.undo();
        }
        self.done.is_none()
    }

    fn answer(self: Box<Self>, durable: Result<(), SledError>) {
        let Self { done, answer, .. } = *self;
        // The caller may have dropped its future.
        let _dropped =
            answer.send(durable.and_then(|()| done.unwrap_or_else(|| Err(SledError::no_answer()))));
    }
}

/// How to undo a change of an operation.
#[expect(clippy::option_option, reason = "a row may be known not to exist")]
enum Undo {
    /// The value that the row had in the group. `None` if the group had not changed the row.
    Row(Vec<u8>, Option<Option<Vec<u8>>>),
    Type(TypeIdentifier, Option<TypeRow>),
}

/// The changes of several operations. Each operation sees the changes of the operations before it.
pub(crate) struct Group<'w> {
    rows: &'w DurableRows,
    database: &'w Database,
    changes: RowChanges,
    types: HashMap<TypeIdentifier, TypeRow>,
    /// The changes of the current operation, the newest last.
    undo: Vec<Undo>,
    done: Vec<Box<dyn Operation>>,
}

impl<'w> Group<'w> {
    pub(super) fn new(rows: &'w DurableRows, database: &'w Database) -> Self {
        Self {
            rows,
            database,
            changes: RowChanges::new(),
            types: HashMap::new(),
            undo: Vec::new(),
            done: Vec::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.done.len() >= OPERATIONS || self.changes.len() >= ROWS
    }

    /// Does the operation, or the part of it that the group has room for. If a part is left, returns the operation.
    pub(super) fn add(&mut self, mut operation: Box<dyn Operation>) -> Option<Box<dyn Operation>> {
        if operation.change(self) {
            return Some(operation);
        }
        self.done.push(operation);
        None
    }

    /// Returns how many more rows may change before the group is full.
    pub(crate) fn room(&self) -> usize {
        ROWS.saturating_sub(self.changes.len())
    }

    /// Returns the value that a row has after the operations so far.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, SledError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.after.as_deref().map(IVec::from)),
            None => self.database.get(key),
        }
    }

    /// Returns all rows under `prefix` as they are after the operations so far.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, SledError> {
        use std::ops::Bound::{Included, Unbounded};
        let mut rows = BTreeMap::new();
        for row in self.database.scan(prefix, None)? {
            let (key, value) = row?;
            rows.insert(key.to_vec(), value.to_vec());
        }
        let changes = self.changes.range::<[u8], _>((Included(prefix), Unbounded));
        for (key, change) in changes.take_while(|(key, _)| key.starts_with(prefix)) {
            match &change.after {
                Some(after) => rows.insert(key.clone(), after.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows)
    }

    /// Changes a row. If the group has not changed the row yet, `before` must be its value in the database.
    pub(crate) fn put(&mut self, key: Vec<u8>, before: Option<IVec>, after: Option<Vec<u8>>) {
        let (key, last) = match self.changes.entry(key) {
            Entry::Occupied(mut entry) => (
                entry.key().clone(),
                Some(std::mem::replace(&mut entry.get_mut().after, after)),
            ),
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                entry.insert(RowChange { before, after });
                (key, None)
            }
        };
        self.undo.push(Undo::Row(key, last));
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, key: Vec<u8>) -> Result<(), SledError> {
        let before = self.get(&key)?;
        self.put(key, before, None);
        Ok(())
    }

    pub(crate) fn type_row(&self, type_id: &TypeIdentifier) -> TypeRow {
        self.types
            .get(type_id)
            .copied()
            .unwrap_or_else(|| self.rows.type_row(type_id))
    }

    pub(crate) fn put_type(&mut self, type_id: &TypeIdentifier, row: TypeRow) {
        // This row is read only when the database is opened, never by readers. So its previous value does not matter.
        self.put(layout::type_row(type_id), None, Some(row.encode()));
        let last = self.types.insert(type_id.clone(), row);
        self.undo.push(Undo::Type(type_id.clone(), last));
    }

    /// Undoes the changes of the current operation.
    fn undo(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Row(key, Some(last)) => {
                    if let Some(change) = self.changes.get_mut(&key) {
                        change.after = last;
                    }
                }
                Undo::Row(key, None) => drop(self.changes.remove(&key)),
                Undo::Type(type_id, Some(last)) => drop(self.types.insert(type_id, last)),
                Undo::Type(type_id, None) => drop(self.types.remove(&type_id)),
            }
        }
    }

    /// Makes the changes durable. Only then do readers see them and callers get their answers.
    pub(super) fn commit(mut self) -> Result<(), SledError> {
        // If one operation reversed another, the row has not changed.
        self.changes
            .retain(|_, change| change.before.as_deref() != change.after.as_deref());
        let result = if self.changes.is_empty() {
            Ok(())
        } else {
            self.write()
        };
        for operation in self.done {
            operation.answer(result.clone());
        }
        result
    }

    fn write(&mut self) -> Result<(), SledError> {
        let mut batch = sled::Batch::default();
        for (key, change) in &self.changes {
            match &change.after {
                Some(after) => batch.insert(&key[..], &after[..]),
                None => batch.remove(&key[..]),
            }
        }
        self.rows.begin(Arc::new(std::mem::take(&mut self.changes)));
        self.database.apply(batch)?;
        self.database.sync()?;
        self.rows.durable(std::mem::take(&mut self.types));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_fails_changes_nothing_and_the_others_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let (database, contents) =
            Database::open(&crate::Config::new(folder.path()), true).unwrap();
        let rows = DurableRows::new(database, contents, 1 << 20);
        let database = rows.database().unwrap();
        let type_id = TypeIdentifier::new("pass.a").unwrap();
        let clock = |version| TypeRow {
            version,
            ..TypeRow::unmarked(0)
        };
        let row = |text: &str| Some(text.as_bytes().to_vec());

        let mut group = Group::new(&rows, &database);
        let of = type_id.clone();
        let (first, mut first_answer) = operation(move |group| {
            group.put(b"a".to_vec(), None, row("first"));
            group.put_type(&of, clock(1));
            Ok(Some(1))
        });
        let of = type_id.clone();
        let (second, mut second_answer) = operation::<u8>(move |group| {
            group.put(b"a".to_vec(), None, row("second"));
            group.put(b"a".to_vec(), None, None);
            group.put(b"b".to_vec(), None, row("second"));
            group.put_type(&of, clock(2));
            group.put_type(&TypeIdentifier::new("pass.b").unwrap(), clock(3));
            Err(SledError::unreadable("row"))
        });
        assert!(group.add(first).is_none() && group.add(second).is_none());
        assert_eq!(group.get(b"a").unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(
            (group.get(b"b").unwrap(), group.type_row(&type_id)),
            (None, clock(1))
        );
        assert!(
            first_answer.try_recv().is_err(),
            "an answer before it is durable"
        );
        group.commit().unwrap();

        assert_eq!(first_answer.try_recv().unwrap().unwrap(), 1);
        assert!(second_answer.try_recv().unwrap().is_err());
        let keys = database
            .scan(b"", None)
            .unwrap()
            .map(|row| row.unwrap().0.to_vec())
            .collect::<Vec<_>>();
        assert_eq!(
            keys,
            [
                b"a".to_vec(),
                layout::STORE.to_vec(),
                layout::type_row(&type_id)
            ]
        );
        assert_eq!(rows.type_row(&type_id), clock(1));
        assert_eq!(
            rows.type_row(&TypeIdentifier::new("pass.b").unwrap())
                .version,
            0
        );
    }

    #[test]
    fn an_operation_in_steps_is_answered_once() {
        let folder = tempfile::tempdir().unwrap();
        let (database, contents) =
            Database::open(&crate::Config::new(folder.path()), true).unwrap();
        let rows = DurableRows::new(database, contents, 1 << 20);
        let database = rows.database().unwrap();
        let mut left = 3;
        let (mut operation, mut answer) = operation(move |_| {
            left -= 1;
            Ok((left == 0).then_some("done"))
        });
        for _ in 0..2 {
            let mut group = Group::new(&rows, &database);
            operation = group.add(operation).unwrap();
            group.commit().unwrap();
            assert!(answer.try_recv().is_err(), "an answer before the last step");
        }
        let mut group = Group::new(&rows, &database);
        assert!(group.add(operation).is_none());
        group.commit().unwrap();
        assert_eq!(answer.try_recv().unwrap().unwrap(), "done");
    }
}
