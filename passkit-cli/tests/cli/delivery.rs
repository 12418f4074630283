//! Delivery records: every store keeps them, for as long as `--keep-records` says.

use std::fs;

use passkit_server::{
    PassId,
    delivery::{DeliveryLog, Denial, Event, Subject},
    identifiers::{DeviceIdentifier, TypeIdentifier},
};
use passkit_store_postgres::PostgresStore;
use passkit_store_redis::RedisStore;
use passkit_store_sled::SledStore;
use passkit_store_sqlite::SqliteStore;

use crate::{
    archives::pass,
    program::{Service, eventually, passkit, run, send},
    sqlite::every_store,
};

const TYPE: &str = "pass.com.example.recorded";

/// Opens the store that the URL names.
async fn open(url: &str) -> Box<dyn DeliveryLog> {
    match url.split_once(':').unwrap() {
        ("sqlite", path) => Box::new(SqliteStore::open(path).unwrap()),
        ("sled", path) => Box::new(SledStore::open(path).unwrap()),
        ("redis", _) => Box::new(RedisStore::connect(url, Default::default()).await.unwrap()),
        _ => Box::new(
            PostgresStore::connect(url, Default::default())
                .await
                .unwrap(),
        ),
    }
}

/// Returns the events of a subject with their counts.
fn recorded(url: &str, subject: Subject) -> Vec<(Event, u64)> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut records = open(url).await.records(&[subject]).await.unwrap();
        let records = records.pop().unwrap().into_iter();
        let mut events: Vec<_> = records.map(|one| (one.event, one.count)).collect();
        events.sort();
        events
    })
}

fn of_device(url: &str, device: &str) -> Vec<(Event, u64)> {
    let type_id = TypeIdentifier::new(TYPE).unwrap();
    let device = DeviceIdentifier::new(device).unwrap();
    recorded(url, Subject::Device(type_id, device))
}

fn of_pass(url: &str) -> Vec<(Event, u64)> {
    recorded(url, Subject::Pass(PassId::new(TYPE, "A").unwrap()))
}

#[test]
fn every_store_keeps_what_phones_do_until_it_is_purged_or_discarded() {
    for (store, _alive) in every_store() {
        let mut service = Service::over(&store);
        let file = service.passes().join("A.pkpass");
        fs::write(&file, pass(TYPE, "A", "one")).unwrap();
        service.start();
        for device in ["D", "E"] {
            assert_eq!(service.register(device, TYPE, "A"), 201);
        }
        assert!(service.list("D", TYPE, None).is_some());
        assert_eq!(service.get(TYPE, "A", None).status, 200);
        let path = format!("/v1/passes/{TYPE}/A");
        let refused = send(&service.address(), "GET", &path, &[], b"").unwrap();
        assert_eq!(refused.status, 401);
        // When the service stops, it writes all records.
        service.stop("TERM");
        let of_d = [(Event::Registered, 1), (Event::Asked, 1), (Event::Told, 1)];
        assert_eq!(of_device(&store, "D"), of_d, "{store}");
        let without = Event::Refused(Denial::NoAuthorization);
        assert_eq!(
            of_pass(&store),
            [(Event::Fetched, 1), (without, 1)],
            "{store}"
        );

        // The records of a device that unregisters are removed.
        service.start();
        assert_eq!(service.unregister("E", TYPE, "A"), 200);
        service.stop("TERM");
        assert_eq!(of_device(&store, "E"), [], "{store}");

        // A service that records nothing discards the existing records.
        let mut without = service.sibling_with(&["--keep-records", "0"]);
        eventually("the records are discarded", || {
            without.start();
            assert_eq!(without.get(TYPE, "A", None).status, 200);
            without.stop("TERM");
            of_pass(&store).is_empty() && of_device(&store, "D").is_empty()
        });
    }
}

#[test]
fn a_purge_removes_the_records_of_the_pass_and_of_its_devices() {
    let mut service = Service::new();
    let file = service.passes().join("A.pkpass");
    fs::write(&file, pass(TYPE, "A", "one")).unwrap();
    service.start();
    assert_eq!(service.register("D", TYPE, "A"), 201);
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    service.stop("TERM");
    let store = service.store_url().to_owned();
    assert_eq!(of_pass(&store), [(Event::Fetched, 1)]);
    let mut purge = passkit();
    purge.args(["purge", "--force", "--store", &store, TYPE, "A"]);
    assert_eq!(run(&mut purge).0, Some(0));
    assert_eq!(of_pass(&store), []);
    assert_eq!(of_device(&store, "D"), []);
}

#[test]
fn a_time_without_a_unit_is_refused() {
    for wrong in ["30", "1.5d", "-1d", "30m", "4000d", ""] {
        let service = Service::with_arguments(&[&format!("--keep-records={wrong}")]);
        let refusal = service.refusal().unwrap();
        assert!(refusal.contains("--keep-records"), "{wrong:?}: {refusal}");
    }
}
