//! `kill -9` under load. Acknowledged registrations survive, and the next list misses nothing.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    archives::{pass, replace},
    program::{Service, authorization, eventually, registration, send},
};

const TYPE: &str = "pass.com.example.crash";
const CLIENTS: usize = 32;
const PASSES: usize = 8;
const WATCHED: &str = "WATCHED";

fn rounds() -> usize {
    std::env::var("PASSKIT_CRASH_ROUNDS")
        .map_or(10, |rounds| rounds.parse().expect("PASSKIT_CRASH_ROUNDS"))
}

#[test]
fn nothing_acknowledged_is_lost_when_killed_under_load() {
    let mut service = Service::new();
    for index in 0..PASSES {
        let serial = format!("S-{index}");
        fs::write(
            service.passes().join(format!("{serial}.pkpass")),
            pass(TYPE, &serial, "one"),
        )
        .unwrap();
    }
    let watched = service.passes().join("watched.pkpass");
    fs::write(&watched, pass(TYPE, WATCHED, "0")).unwrap();
    // The acknowledged registrations of each device, and the devices with a call in progress at the
    // kill.
    let registered: Arc<Mutex<HashMap<String, Vec<String>>>> = Arc::default();
    let mut tag: Option<String> = None;
    let mut served = Vec::new();
    let rounds = rounds();
    for round in 0..rounds {
        service.start();
        if round == 0 {
            assert_eq!(service.register("watcher", TYPE, WATCHED), 201);
        } else {
            let of_last_round = format!("{}-", round - 1);
            check(&service, &registered.lock().unwrap(), &of_last_round);
            // The content changed before the kill. The service may or may not have noticed.
            let listed = service.list("watcher", TYPE, tag.as_deref());
            let answer = service.get(TYPE, WATCHED, None);
            assert!(
                answer.body == served,
                "round {round}: the newest content is served"
            );
            let (serials, newer) =
                listed.unwrap_or_else(|| panic!("round {round}: the change was lost"));
            assert_eq!(serials, [WATCHED]);
            tag = Some(newer);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, stop, registered) =
                    (service.address(), stop.clone(), registered.clone());
                std::thread::spawn(move || {
                    register_until(&stop, &address, round, client, &registered)
                })
            })
            .collect();
        eventually("somebody registered", || {
            let this_round = format!("{round}-");
            registered
                .lock()
                .unwrap()
                .keys()
                .any(|device| device.starts_with(&this_round))
        });
        // After a short pause, there are only a few registrations. After a long pause, there are
        // many groups of them. The service notices the change in between.
        let pause = Duration::from_millis(20 + (round as u64 * 37) % 400);
        std::thread::sleep(pause / 2);
        served = pass(TYPE, WATCHED, &format!("{}", round + 1));
        replace(&watched, &served);
        std::thread::sleep(pause / 2);
        service.kill();
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
    }
    service.start();
    let registered = registered.lock().unwrap();
    check(&service, &registered, "");
    println!("{} devices registered in {rounds} rounds", registered.len());
    eventually("the last change is listed", || {
        service.list("watcher", TYPE, tag.as_deref()).is_some()
    });
}

/// Registers one device after another for a few passes each, and records the acknowledged
/// registrations.
fn register_until(
    stop: &AtomicBool,
    address: &str,
    round: usize,
    client: usize,
    registered: &Mutex<HashMap<String, Vec<String>>>,
) {
    for number in 0.. {
        let device = format!("{round}-{client}-{number}");
        for index in 0..3 {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let serial = format!("S-{}", (client + index) % PASSES);
            let path = registration(&device, TYPE, &serial);
            let headers = [("Authorization", &*authorization(TYPE, &serial))];
            let Ok(answer) = send(
                address,
                "POST",
                &path,
                &headers,
                br#"{"pushToken":"c0ffee"}"#,
            ) else {
                return;
            };
            assert_eq!(answer.status, 201);
            registered
                .lock()
                .unwrap()
                .entry(device.clone())
                .or_default()
                .push(serial);
        }
    }
}

fn check(service: &Service, registered: &HashMap<String, Vec<String>>, prefix: &str) {
    for (device, serials) in registered
        .iter()
        .filter(|(device, _)| device.starts_with(prefix))
    {
        let listed = service
            .list(device, TYPE, None)
            .map_or_else(Vec::new, |(serials, _)| serials);
        for serial in serials {
            assert!(
                listed.contains(serial),
                "{device} lost its registration for {serial}: it has {listed:?}"
            );
        }
    }
}
