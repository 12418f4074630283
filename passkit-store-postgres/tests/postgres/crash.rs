use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passkit_server::{Owed, PassState, PushQueue, RegistrationStore};
use passkit_store_postgres::{Config, PostgresStore};
use passkit_test_servers::postgres::Server;
use tokio::task::JoinSet;

use crate::support::{device, held, pass, token, type_id};

const TASKS: usize = 8;
const PASSES: usize = 12;

/// What was acknowledged to a task.
#[derive(Default)]
struct Acknowledged {
    /// By pass; `None` while a call that changes it has not been answered.
    registered: HashMap<usize, Option<bool>>,
    states: HashMap<usize, PassState>,
}

async fn work(
    store: PostgresStore,
    task: usize,
    known: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) {
    let device = device(format!("d{task}"));
    for i in 0.. {
        if stop.load(SeqCst) {
            return;
        }
        let number = (i * 5 + i / PASSES) % PASSES;
        let pass = pass(format!("{task}-{number}"));
        let ended = match i % 4 {
            2 => {
                known.lock().unwrap().registered.insert(number, None);
                store.unregister(&device, &pass).await.map(|_| {
                    known.lock().unwrap().registered.insert(number, Some(false));
                })
            }
            3 => match store.mark_and_owe(&type_id(), std::slice::from_ref(&pass.serial)).await {
                Ok(()) => store.pass_state(&pass).await.map(|state| {
                    known.lock().unwrap().states.insert(number, state);
                }),
                Err(error) => Err(error),
            },
            _ => {
                known.lock().unwrap().registered.insert(number, None);
                store.register(&device, &pass, &token()).await.map(|_| {
                    known.lock().unwrap().registered.insert(number, Some(true));
                })
            }
        };
        match ended {
            Ok(()) => {
                done.fetch_add(1, SeqCst);
            }
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                return;
            }
        }
    }
}

/// `PASSKIT_CRASH_ROUNDS` sets how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_loses_nothing_it_acknowledged() {
    let rounds = std::env::var("PASSKIT_CRASH_ROUNDS").map_or(3, |text| text.parse().unwrap());
    // As it is by default: durable.
    let server = Server::throwaway(&[]).unwrap();
    let url = server.url(&server.new_database().await.unwrap());
    let store = PostgresStore::connect(&url, Config::new().timeout(Duration::from_secs(10))).await.unwrap();
    store.migrate().await.unwrap();
    let known: Vec<_> = (0..TASKS).map(|_| Arc::new(Mutex::new(Acknowledged::default()))).collect();
    let mut total = 0;
    for round in 0..rounds {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for (task, known) in known.iter().enumerate() {
            tasks.spawn(work(store.clone(), task, known.clone(), stop.clone(), done.clone()));
        }
        while done.load(SeqCst) < 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The time of death, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(round * 37 % 150)).await;
        server.kill().unwrap();
        stop.store(true, SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        server.start().unwrap();
        total += done.load(SeqCst);
        let debts = store.debts(&type_id(), 1_000).await.unwrap();
        let owed: HashMap<_, _> = debts.into_iter().map(|debt| (debt.owed, debt.version)).collect();
        for (task, known) in known.iter().enumerate() {
            let mut after = std::mem::take(&mut *known.lock().unwrap());
            let held = held(&store, &device(format!("d{task}"))).await;
            for (number, registered) in &mut after.registered {
                let name = format!("{task}-{number}");
                let is = held.contains(&name);
                let page = store.devices_of(&pass(&name), None, 9).await.unwrap();
                assert_eq!(page.devices.len(), usize::from(is), "round {round}: half of {name}");
                assert_eq!(is, registered.unwrap_or(is), "round {round}: {name} is not as acknowledged");
                *registered = Some(is);
            }
            for (number, seen) in &after.states {
                let now = store.pass_state(&pass(format!("{task}-{number}"))).await.unwrap();
                assert!(
                    now.version >= seen.version && now.last_modified >= seen.last_modified,
                    "round {round}: {task}-{number} went back from {seen:?} to {now:?}"
                );
                // Nobody sends the pushes: what was ever marked is owed with its last mark.
                let owed = owed.get(&Owed::Pass(pass(format!("{task}-{number}")).serial)).copied();
                assert_eq!(owed, Some(now.version), "round {round}: {task}-{number} is marked and not owed");
            }
            *known.lock().unwrap() = after;
        }
    }
    println!("{rounds} rounds, {total} acknowledged calls");
}
