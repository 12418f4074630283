use std::{fs, time::SystemTime};

use passkit_server::{DeviceIdentifier, PassId, PushToken, Registered, RegistrationStore};
use passkit_store_sled::SledStore;

use crate::support::{device, held, pass, serial, token, type_id};

/// A device's registrations move to rows of their own when they are many. Nothing may show of it.
#[tokio::test(flavor = "multi_thread")]
async fn few_and_many_registrations_behave_alike() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let names = (0..60).map(|i| format!("{i:03}")).collect::<Vec<_>>();
    let phone = device("phone");
    let mut tag = None;
    for (i, name) in names.iter().enumerate() {
        assert_eq!(store.register(&phone, &pass(name), &token()).await.unwrap(), Registered::Created);
        assert_eq!(store.register(&phone, &pass(&names[0]), &token()).await.unwrap(), Registered::Existing);
        assert_eq!(held(&store, &phone).await, names[..=i]);
        let new = store.updated_since(&phone, &type_id(), tag).await.unwrap();
        let expected = if i == 0 { 1 } else { 2 };
        assert_eq!(new.serials.len(), expected, "{:?}", new.serials);
        tag = Some(new.tag);
        store.mark_updated(&type_id(), &[serial(name), serial("elsewhere")]).await.unwrap();
        let marked = store.updated_since(&phone, &type_id(), tag).await.unwrap();
        assert_eq!(marked.serials, [serial(name)]);
        tag = Some(marked.tag);
    }
    let other = PassId::new("pass.com.example.other", "000").unwrap();
    store.register(&phone, &other, &token()).await.unwrap();
    for (i, name) in names.iter().enumerate() {
        assert!(store.unregister(&phone, &pass(name)).await.unwrap());
        assert!(!store.unregister(&phone, &pass(name)).await.unwrap());
        assert_eq!(held(&store, &phone).await, names[i + 1..]);
        assert!(store.devices_of(&pass(name), None, 9).await.unwrap().devices.is_empty());
    }
    assert_eq!(store.updated_since(&phone, &other.type_id, None).await.unwrap().serials.len(), 1);
    assert!(store.unregister(&phone, &other).await.unwrap());
    let gone = store.updated_since(&phone, &type_id(), None).await.unwrap();
    assert_eq!(gone.tag.device_version, 0, "the device goes with its last registration");

    for count in [3, 60] {
        for name in &names[..count] {
            store.register(&phone, &pass(name), &token()).await.unwrap();
        }
        assert!(!store.forget_device(&phone, SystemTime::UNIX_EPOCH).await.unwrap());
        assert!(store.forget_device(&phone, SystemTime::now()).await.unwrap());
        assert!(!store.forget_device(&phone, SystemTime::now()).await.unwrap());
        assert!(held(&store, &phone).await.is_empty());
        for name in &names[..count] {
            assert!(store.devices_of(&pass(name), None, 9).await.unwrap().devices.is_empty());
        }
    }
    drop(store);

    // What the store and its clocks take, and nothing else.
    let engine = sled::Config::new().path(folder.path()).segment_size(1 << 20).open().unwrap();
    let left = engine.iter().keys().map(|key| key.unwrap()[0]).filter(|table| b"drp".contains(table)).count();
    assert_eq!(left, 0, "rows of a device that is gone");
}

/// Pages over a quarter of a segment would go to files that the engine never syncs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_longest_identifiers_fit_into_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(SledStore::open(folder.path()).unwrap());
    let type_text = format!("pass.{}", "t".repeat(123));
    let long_token = PushToken::new(&"ab".repeat(200)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (store, type_text, long_token) =
            (std::sync::Arc::clone(&store), type_text.clone(), long_token.clone());
        tasks.spawn(async move {
            for i in 0..60_usize {
                // Different from the first character, or alike to the last.
                let device = DeviceIdentifier::new(&format!("{:0>128}", task * 60 + i)).unwrap();
                let number = (task * 60 + i) % 977;
                let text = if i % 2 == 0 { format!("{number:0>512}") } else { format!("{number:0<512}") };
                let pass = PassId::new(&type_text, &text).unwrap();
                store.register(&device, &pass, &long_token).await.unwrap();
                store.mark_updated(&pass.type_id, std::slice::from_ref(&pass.serial)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let blobs = fs::read_dir(folder.path().join("blobs")).unwrap().count();
    assert_eq!(blobs, 0);
}

#[tokio::test]
async fn what_changes_nothing_costs_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.register(&device("d"), &pass("1"), &token()).await.unwrap();
    let before = fs::read(folder.path().join("db")).unwrap();
    assert!(!store.unregister(&device("d"), &pass("2")).await.unwrap());
    assert!(!store.unregister(&device("e"), &pass("1")).await.unwrap());
    assert!(!store.forget_device(&device("e"), SystemTime::now()).await.unwrap());
    store.mark_updated(&type_id(), &[]).await.unwrap();
    store.updated_since(&device("d"), &type_id(), None).await.unwrap();
    assert_eq!(fs::read(folder.path().join("db")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_mark_is_whole_and_every_date_moves() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let serials = (0..5_000).map(|i| serial(format!("{}", i % 4_000))).collect::<Vec<_>>();
    let mut before = vec![store.pass_state(&pass("0")).await.unwrap(); 4_000];
    for _ in 0..2 {
        store.mark_updated(&type_id(), &serials).await.unwrap();
        for (i, last) in before.iter_mut().enumerate() {
            let now = store.pass_state(&pass(format!("{i}"))).await.unwrap();
            assert!(now.version > last.version && now.last_modified > last.last_modified, "{i}");
            *last = now;
        }
    }
}
