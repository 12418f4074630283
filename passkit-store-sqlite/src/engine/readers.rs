use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::SqliteError;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that read, each over a connection of its own.
#[derive(Debug)]
pub(super) struct Readers {
    path: Arc<Path>,
    questions: Option<Sender<Question>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// A thread answers up to `group` questions over one snapshot.
    pub(super) fn start(
        path: &Path,
        connections: Vec<Connection>,
        group: usize,
    ) -> Result<Self, SqliteError> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut readers = Self { path: path.into(), questions: Some(sender), threads: Vec::new() };
        for connection in connections {
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new().name("passkit-sqlite-read".to_owned());
            let thread = thread.spawn(move || answer_all(&connection, &receiver, group));
            readers.threads.push(thread.map_err(|error| SqliteError::io("start a thread for", path, error))?);
        }
        Ok(readers)
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let (sender, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if !sender.is_closed() {
                let _nobody_waits = sender.send(question(connection));
            }
        });
        let asked = self.questions.as_ref().is_some_and(|questions| questions.send(question).is_ok());
        let answer = if asked { answer.await.ok() } else { None };
        answer.ok_or_else(SqliteError::stopped)?.map_err(|error| SqliteError::sqlite(&self.path, error))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.questions = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn answer_all(connection: &Connection, questions: &Mutex<Receiver<Question>>, at_most: usize) {
    let mut group = Vec::new();
    loop {
        {
            let questions = questions.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(first) = questions.recv() else { return };
            group.push(first);
            group.extend(questions.try_iter().take(at_most - 1));
        }
        answer(connection, &mut group);
    }
}

/// Answers in one read transaction: its snapshot begins after all of them were asked, and its locks are taken once.
fn answer(connection: &Connection, group: &mut Vec<Question>) {
    let run = |sql| connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
    // If this fails, each statement has a snapshot of its own, or reports what is wrong.
    let _reported_by_statements = run("begin");
    for question in group.drain(..) {
        question(connection);
    }
    if !connection.is_autocommit() {
        let _read_only = run("commit").or_else(|_| run("rollback"));
    }
}
