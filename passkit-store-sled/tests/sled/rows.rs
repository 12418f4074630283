use std::{fs, time::SystemTime};

use passkit_server::{
    Changed, PassId,
    identifiers::{DeviceIdentifier, PushToken},
    push::{PushQueue, Scope},
    store::{Audience, PageCursor, Published, Registered, RegistrationStore},
};
use passkit_store_sled::SledStore;

use crate::support::{
    content, device, devices, mark, pass, publish, registered, serial, token, type_id,
};

/// If a device has many registrations, they move to separate rows. Callers must not see a difference.
#[tokio::test(flavor = "multi_thread")]
async fn few_and_many_registrations_behave_alike() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let names = (0..60).map(|i| format!("{i:03}")).collect::<Vec<_>>();
    let phone = device("phone");
    let mut tag = None;
    for (i, name) in names.iter().enumerate() {
        assert_eq!(
            store.register(&phone, &pass(name), &token()).await.unwrap(),
            Registered::Created
        );
        assert_eq!(
            store
                .register(&phone, &pass(&names[0]), &token())
                .await
                .unwrap(),
            Registered::Existing
        );
        assert_eq!(registered(&store, &phone).await, names[..=i]);
        let new = store.changes_since(&phone, &type_id(), tag).await.unwrap();
        let expected = if i == 0 { 1 } else { 2 };
        assert_eq!(new.serials.len(), expected, "{:?}", new.serials);
        tag = Some(new.tag);
        mark(&store, &[serial(name), serial("elsewhere")]).await;
        let marked = store.changes_since(&phone, &type_id(), tag).await.unwrap();
        assert_eq!(marked.serials, [serial(name)]);
        tag = Some(marked.tag);
    }
    let other = PassId::new("pass.com.example.other", "000").unwrap();
    store.register(&phone, &other, &token()).await.unwrap();
    for (i, name) in names.iter().enumerate() {
        assert!(store.unregister(&phone, &pass(name)).await.unwrap());
        assert!(!store.unregister(&phone, &pass(name)).await.unwrap());
        assert_eq!(registered(&store, &phone).await, names[i + 1..]);
        assert!(devices(&store, &pass(name)).await.is_empty());
    }
    assert_eq!(
        store
            .changes_since(&phone, &other.type_id, None)
            .await
            .unwrap()
            .serials
            .len(),
        1
    );
    assert!(store.unregister(&phone, &other).await.unwrap());
    let gone = store.changes_since(&phone, &type_id(), None).await.unwrap();
    assert_eq!(
        gone.tag.device_version, 0,
        "the device is removed with its last registration"
    );

    for count in [3, 60] {
        for name in &names[..count] {
            store.register(&phone, &pass(name), &token()).await.unwrap();
        }
        assert!(
            !store
                .forget_device(&phone, SystemTime::UNIX_EPOCH)
                .await
                .unwrap()
        );
        assert!(
            store
                .forget_device(&phone, SystemTime::now())
                .await
                .unwrap()
        );
        assert!(
            !store
                .forget_device(&phone, SystemTime::now())
                .await
                .unwrap()
        );
        assert!(registered(&store, &phone).await.is_empty());
        for name in &names[..count] {
            assert!(devices(&store, &pass(name)).await.is_empty());
        }
    }
    drop(store);

    // Only the row of the store and the clocks are left.
    let engine = sled::Config::new()
        .path(folder.path())
        .segment_size(1 << 20)
        .open()
        .unwrap();
    let left = engine
        .iter()
        .keys()
        .map(|key| key.unwrap()[0])
        .filter(|table| b"drp".contains(table))
        .count();
    assert_eq!(left, 0, "rows of a device that is gone");
}

/// If a page is larger than a quarter of a segment, the engine writes it to another file, which it never syncs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_longest_identifiers_fit_into_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(SledStore::open(folder.path()).unwrap());
    let type_text = format!("pass.{}", "t".repeat(123));
    let long_token = PushToken::new(&"~!".repeat(200)).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (store, type_text, long_token) = (
            std::sync::Arc::clone(&store),
            type_text.clone(),
            long_token.clone(),
        );
        tasks.spawn(async move {
            for i in 0..60_usize {
                // Half of the serial numbers differ only in their last characters, the others only in their first.
                let device = DeviceIdentifier::new(&format!("{:0>128}", task * 60 + i)).unwrap();
                let number = (task * 60 + i) % 977;
                let text = if i % 2 == 0 {
                    format!("{number:0>512}")
                } else {
                    format!("{number:0<512}")
                };
                let pass = PassId::new(&type_text, &text).unwrap();
                store.register(&device, &pass, &long_token).await.unwrap();
                let changed = [pass.serial.clone()];
                store
                    .mark(&pass.type_id, Changed::Passes(&changed))
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    let blobs = fs::read_dir(folder.path().join("blobs")).unwrap().count();
    assert_eq!(blobs, 0);
}

#[tokio::test]
async fn calls_that_change_nothing_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    publish(&store, &content("1", Some(1))).await;
    let before = fs::read(folder.path().join("db")).unwrap();
    assert!(!store.unregister(&device("d"), &pass("2")).await.unwrap());
    assert!(!store.unregister(&device("e"), &pass("1")).await.unwrap());
    assert!(
        !store
            .forget_device(&device("e"), SystemTime::now())
            .await
            .unwrap()
    );
    store.mark(&type_id(), Changed::Passes(&[])).await.unwrap();
    store
        .mark_and_push(&type_id(), Changed::Contents(&[]))
        .await
        .unwrap();
    publish(&store, &content("1", Some(1))).await;
    store
        .changes_since(&device("d"), &type_id(), None)
        .await
        .unwrap();
    assert_eq!(fs::read(folder.path().join("db")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_mark_changes_every_version_and_date() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let serials = (0..5_000)
        .map(|i| serial(format!("{}", i % 4_000)))
        .collect::<Vec<_>>();
    let mut before = vec![store.pass_state(&pass("0")).await.unwrap(); 4_000];
    for _ in 0..2 {
        mark(&store, &serials).await;
        for (i, last) in before.iter_mut().enumerate() {
            let now = store.pass_state(&pass(format!("{i}"))).await.unwrap();
            assert!(
                now.version > last.version && now.last_modified > last.last_modified,
                "{i}"
            );
            *last = now;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_publication_marks_exactly_the_new_contents() {
    const PASSES: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let mut contents = (0..PASSES)
        .map(|i| content(&i.to_string(), Some(1)))
        .collect::<Vec<_>>();
    store
        .mark(&type_id(), Changed::Contents(&contents))
        .await
        .unwrap();
    for i in (0..PASSES).step_by(3) {
        contents[i] = content(&i.to_string(), Some(2));
    }
    for i in (1..PASSES).step_by(3) {
        contents[i] = content(&i.to_string(), None);
    }
    let passes = (0..PASSES).map(|i| pass(i.to_string())).collect::<Vec<_>>();
    let mut before = Vec::new();
    for pass in &passes {
        before.push(store.pass_state(pass).await.unwrap());
    }
    for _ in 0..2 {
        store
            .mark_and_push(&type_id(), Changed::Contents(&contents))
            .await
            .unwrap();
    }
    let published = store.published(&passes).await.unwrap();
    let pending = store.pending(&type_id(), usize::MAX).await.unwrap();
    assert_eq!(
        (pending.len(), store.backlog().await.unwrap()[0].pending),
        (PASSES / 3, 1_000)
    );
    for (i, pass) in passes.iter().enumerate() {
        let now = store.pass_state(pass).await.unwrap();
        let digest = Some([if i % 3 == 0 { 2 } else { 1 }; 32]);
        assert_eq!(now.published, digest, "{i}");
        let Published {
            digest: known,
            tokens,
            removed,
        } = published[i].as_ref().unwrap();
        assert_eq!(
            (*known, tokens.len(), *removed),
            (digest, if i % 3 == 0 { 2 } else { 1 }, i % 3 == 1),
            "{i}"
        );
        let change = pending
            .iter()
            .find(|change| change.scope == Scope::Pass(pass.serial.clone()));
        assert_eq!(
            change.map(|change| change.version),
            (i % 3 == 0).then_some(now.version),
            "{i}"
        );
        assert_eq!(now == before[i], i % 3 != 0, "{i}");
    }
}

/// If a call has content for the same pass twice, the effect is the same as with two calls.
#[tokio::test]
async fn a_content_that_occurs_twice_keeps_all_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let contents = [
        content("1", Some(1)),
        content("1", Some(2)),
        content("1", None),
    ];
    store
        .mark(&type_id(), Changed::Contents(&contents))
        .await
        .unwrap();
    let published = store.published(&[pass("1"), pass("2")]).await.unwrap();
    let [Some(published), None] = &published[..] else {
        panic!("{published:?}")
    };
    assert_eq!(
        (published.digest, published.tokens.len(), published.removed),
        (Some([2; 32]), 2, true)
    );
    assert_eq!(
        store.pass_state(&pass("1")).await.unwrap().published,
        Some([2; 32])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_devices_of_a_type_are_those_of_its_passes() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let mut expected = Vec::new();
    for i in 0..60 {
        // Some devices have three passes, and some passes have three devices.
        let (device, pass) = (
            device(format!("{}", i % 20)),
            pass(format!("{} ä/", i % 30)),
        );
        store.register(&device, &pass, &token()).await.unwrap();
        expected.push(device.as_str().to_owned());
    }
    let like_it = PassId::new(&format!("{}s", type_id()), "0 ä/").unwrap();
    store
        .register(&device("stranger"), &like_it, &token())
        .await
        .unwrap();
    expected.sort();
    for limit in [1, 7, 60, 1_000, usize::MAX] {
        let (mut found, mut after) = (Vec::new(), Some(PageCursor::new("no cursor of this store")));
        for _ in 0..=expected.len() {
            let Some(cursor) = after else { break };
            let page = store
                .devices(Audience::Type(&type_id()), Some(&cursor), limit)
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            found.extend(page.items.iter().map(|one| one.device.as_str().to_owned()));
            after = page.next;
        }
        assert!(after.is_none(), "pages of {limit} without an end");
        found.sort();
        assert_eq!(found, expected, "in pages of {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_counted_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let store = std::sync::Arc::new(store);
    for i in 0..50 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .register(&device(format!("{i}")), &pass("1"), &token())
                .await
                .unwrap()
        });
    }
    tasks.join_all().await;
    for at_most in [0, 1, 49, 50, 51, u64::MAX] {
        assert_eq!(
            store.count_devices(&pass("1"), at_most).await.unwrap(),
            at_most.min(50)
        );
    }
    assert_eq!(store.count_devices(&pass("2"), 10).await.unwrap(), 0);
}
