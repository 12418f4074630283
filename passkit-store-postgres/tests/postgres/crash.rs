use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::{
    Changed, PassState,
    push::{PushQueue, Scope},
    store::{Audience, Content, Coordination, RegistrationStore, StoreError},
};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;
use tokio::task::JoinSet;

use crate::support::{auth_tokens, content, device, pass, registered, token, type_id};

const TASKS: usize = 8;
const PASSES: usize = 12;

/// The changes that a task knows to be acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// By pass, whether it is registered. `None` if a call that changes it got no answer.
    registered: HashMap<usize, Option<bool>>,
    states: HashMap<usize, PassState>,
    /// By pass, the content published last, and whether that call got an answer.
    contents: HashMap<usize, (Content, bool)>,
    /// The last note that was acknowledged.
    note: Option<String>,
}

struct Task {
    store: PostgresStore,
    number: usize,
    known: Arc<Mutex<Acknowledged>>,
    /// The number of acknowledged calls.
    done: Arc<AtomicUsize>,
}

impl Task {
    async fn run(self, stop: Arc<AtomicBool>) {
        for i in 0.. {
            if stop.load(SeqCst) {
                return;
            }
            match self.call(i).await {
                Ok(()) => {
                    self.done.fetch_add(1, SeqCst);
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    return;
                }
            }
        }
    }

    async fn call(&self, i: usize) -> Result<(), StoreError> {
        let number = (i * 5 + i / PASSES) % PASSES;
        let pass = pass(format!("{}-{number}", self.number));
        let device = device(format!("d{}", self.number));
        let known = || self.known.lock().unwrap();
        match i % 6 {
            0 | 1 => {
                known().registered.insert(number, None);
                self.store.register(&device, &pass, &token()).await?;
                known().registered.insert(number, Some(true));
            }
            2 => {
                known().registered.insert(number, None);
                self.store.unregister(&device, &pass).await?;
                known().registered.insert(number, Some(false));
            }
            3 => {
                let changed = Changed::Passes(std::slice::from_ref(&pass.serial));
                self.store.mark_and_push(&type_id(), changed).await?;
                let state = self.store.pass_state(&pass).await?;
                known().states.insert(number, state);
            }
            4 => {
                let byte = (i / 6) as u8;
                let content = content(pass.serial.as_str(), Some(byte), &[byte]);
                known().contents.insert(number, (content.clone(), false));
                let changed = Changed::Contents(std::slice::from_ref(&content));
                self.store.mark_and_push(&type_id(), changed).await?;
                known().contents.insert(number, (content, true));
                let state = self.store.pass_state(&pass).await?;
                known().states.insert(number, state);
            }
            _ => {
                let name = format!("note of {}", self.number);
                let (old, new) = (self.store.note(&name).await?, format!("{i}"));
                assert!(
                    self.store
                        .replace_note(&name, old.as_deref(), Some(&new))
                        .await?
                );
                known().note = Some(new);
            }
        }
        Ok(())
    }
}

/// `PASSKIT_CRASH_ROUNDS` sets how often the test kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_loses_nothing_it_acknowledged() {
    let rounds = std::env::var("PASSKIT_CRASH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    // PostgreSQL is durable with its default settings.
    let server = Server::throwaway(&[]).unwrap();
    let url = server.url(&server.new_database().await.unwrap());
    let store = PostgresStore::connect(&url, Config::new().timeout(Duration::from_secs(10)))
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let known: Vec<_> = (0..TASKS)
        .map(|_| Arc::new(Mutex::new(Acknowledged::default())))
        .collect();
    let mut total = 0;
    for round in 0..rounds {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut tasks = JoinSet::new();
        for (number, known) in known.iter().enumerate() {
            let task = Task {
                store: store.clone(),
                number,
                known: known.clone(),
                done: done.clone(),
            };
            tasks.spawn(task.run(stop.clone()));
        }
        while done.load(SeqCst) < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // This only chooses the moment of the kill. Nothing waits for it.
        tokio::time::sleep(Duration::from_millis(round * 37 % 150)).await;
        server.kill().unwrap();
        stop.store(true, SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        server.start().unwrap();
        total += done.load(SeqCst);
        let changes = store.pending(&type_id(), 1_000).await.unwrap();
        let pending: HashMap<_, _> = changes
            .into_iter()
            .map(|change| (change.scope, change.version))
            .collect();
        for (task, known) in known.iter().enumerate() {
            let mut after = std::mem::take(&mut *known.lock().unwrap());
            check(
                &store,
                &format!("round {round}"),
                task,
                &mut after,
                &pending,
            )
            .await;
            *known.lock().unwrap() = after;
        }
    }
    println!("{rounds} rounds, {total} acknowledged calls");
}

/// Checks that the store has everything that it acknowledged to a task. A call without an answer may or may not have
/// happened, so this reads its result from the store.
async fn check(
    store: &PostgresStore,
    round: &str,
    task: usize,
    known: &mut Acknowledged,
    pending: &HashMap<Scope, u64>,
) {
    let registered = registered(store, &device(format!("d{task}"))).await;
    for (number, acknowledged) in &mut known.registered {
        let name = format!("{task}-{number}");
        let is = registered.contains(&name);
        let page = store
            .devices(Audience::Pass(&pass(&name)), None, 9)
            .await
            .unwrap();
        assert_eq!(page.items.len(), usize::from(is), "{round}: half of {name}");
        assert_eq!(
            is,
            acknowledged.unwrap_or(is),
            "{round}: {name} is not as acknowledged"
        );
        *acknowledged = Some(is);
    }
    for (number, seen) in &known.states {
        let pass = pass(format!("{task}-{number}"));
        let now = store.pass_state(&pass).await.unwrap();
        assert!(
            now.version >= seen.version && now.last_modified >= seen.last_modified,
            "{round}: {pass} went back from {seen:?} to {now:?}"
        );
        // No worker sends the pushes, so each marked pass is pending with the version of its last mark.
        let pending = pending.get(&Scope::Pass(pass.serial.clone())).copied();
        assert_eq!(
            pending,
            Some(now.version),
            "{round}: {pass} is marked and not pending"
        );
    }
    for (number, (content, is_acknowledged)) in &known.contents {
        let pass = pass(format!("{task}-{number}"));
        let now = store.pass_state(&pass).await.unwrap();
        let published = store
            .published(std::slice::from_ref(&pass))
            .await
            .unwrap()
            .remove(0);
        let published = published.unwrap_or_default();
        assert_eq!(now.published, published.digest);
        if *is_acknowledged {
            assert_eq!(
                now.published, content.digest,
                "{round}: {pass} is not published as acknowledged"
            );
        }
        // The digest, the token, the mark and the pending push are written in one step.
        if let Some(digest) = now.published {
            assert_eq!(
                published.tokens.last(),
                auth_tokens(&digest[..1]).first(),
                "{round}: half of {pass}"
            );
            let pending = pending.get(&Scope::Pass(pass.serial.clone())).copied();
            assert_eq!(
                pending,
                Some(now.version),
                "{round}: {pass} is published and not pending"
            );
        }
    }
    if let Some(note) = &known.note {
        let now = store
            .note(&format!("note of {task}"))
            .await
            .unwrap()
            .expect("the note is there");
        let number = |text: &str| text.parse::<u64>().unwrap();
        assert!(
            number(&now) >= number(note),
            "{round}: the note went back from {note} to {now}"
        );
        known.note = Some(now);
    }
}
