use std::time::Instant;

use passkit_server::{
    Changed,
    identifiers::PushToken,
    maintenance::{Registration, StoreMaintenance},
    push::PushQueue,
    store::RegistrationStore,
};
use passkit_store_sled::SledStore;

use crate::support::{device, pass, registered, token, type_id};

fn registration(n: usize) -> Registration {
    // Each device has three passes.
    Registration {
        device: device(format!(
            "{:032x}",
            (n as u128 / 3 + 1) * 0x9e37_79b9_7f4a_7c15
        )),
        push_token: token(),
        pass: pass(format!("{}", n % 30_000)),
    }
}

/// `PASSKIT_IMPORT` sets the number of registrations. The test prints how long the import took.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_can_be_exported_and_counted() {
    let many =
        std::env::var("PASSKIT_IMPORT").map_or(20_000, |text| text.parse::<usize>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let start = Instant::now();
    for first in (0..many).step_by(10_000) {
        let batch = (first..many.min(first + 10_000))
            .map(registration)
            .collect::<Vec<_>>();
        assert_eq!(
            store.register_many(&batch).await.unwrap(),
            batch.len() as u64
        );
    }
    let registered = start.elapsed();
    let (mut back, mut after) = (0, None);
    loop {
        let page = store.registrations(after.as_ref(), 1_000).await.unwrap();
        back += page.items.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let read = start.elapsed() - registered;
    assert_eq!(back, many);
    let stats = store.stats().await.unwrap();
    let counted = start.elapsed() - registered - read;
    assert_eq!(stats.devices, many.div_ceil(3) as u64);
    let [of_type] = &stats.types[..] else {
        panic!("{stats:?}")
    };
    assert_eq!(
        (&of_type.type_id, of_type.passes),
        (&type_id(), many.min(30_000) as u64)
    );
    assert_eq!(of_type.registrations, many as u64);
    let bytes = stats.storage_bytes.unwrap();
    assert!(bytes > 50 * many as u64, "{bytes} bytes");
    eprintln!(
        "{many} registered in {registered:?}, read in {read:?}, counted in {counted:?}: {bytes} bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_many_passes_is_exported_completely() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    // These are more passes than fit into the device's row, and more than fit into one step.
    let push_token = PushToken::new("c1").unwrap();
    let all = (0..1_500).map(|n| Registration {
        device: device("many"),
        push_token: push_token.clone(),
        pass: pass(format!("{n:04}")),
    });
    let mut all = all.collect::<Vec<_>>();
    all.push(Registration {
        device: device("z"),
        ..all[0].clone()
    });
    assert_eq!(store.register_many(&all).await.unwrap(), 1_501);
    assert_eq!(registered(&store, &device("many")).await.len(), 1_500);
    let first = store.registrations(None, 10).await.unwrap();
    let second = store.registrations(first.next.as_ref(), 10).await.unwrap();
    assert!(second.next.is_none());
    let mut found = [first.items, second.items].concat();
    found.sort_by(|a, b| (&a.device, &a.pass).cmp(&(&b.device, &b.pass)));
    assert_eq!(found, all);
    // An import is durable.
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(registered(&store, &device("many")).await.len(), 1_500);
    assert!(store.unregister(&device("z"), &pass("0000")).await.unwrap());
}

#[tokio::test]
async fn a_limit_of_0_returns_a_pending_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let ticket = pass("1");
    store
        .mark_and_push(&ticket.type_id, Changed::Passes(&[ticket.serial]))
        .await
        .unwrap();
    assert_eq!(store.pending(&ticket.type_id, 0).await.unwrap().len(), 1);
}
