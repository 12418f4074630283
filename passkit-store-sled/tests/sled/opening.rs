use std::{error::Error as _, fs, io::Write as _};

use passkit_server::{
    Changed,
    store::{Coordination, RegistrationStore, StoreError, StoreErrorKind},
};
use passkit_store_sled::{Config, SledStore};

use crate::support::{
    content, device, devices, mark, pass, publish, registered, serial, token, type_id,
};

fn text_of(error: &StoreError) -> String {
    let text = error.source().unwrap().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[tokio::test]
async fn a_folder_in_use_is_refused_with_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let text = text_of(&error);
    assert!(
        text.contains(folder.path().to_str().unwrap()) && text.contains("another process"),
        "{text}"
    );
    // The first store still works.
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
}

#[test]
fn a_store_is_created_only_if_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for path in [folder.path(), &missing] {
        let error = SledStore::open_with(&Config::new(path).create(false)).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Configuration);
        let expected = format!("there is no store in {}", path.display());
        assert!(text_of(&error).starts_with(&expected), "{error:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    drop(SledStore::open(&missing).unwrap());
    SledStore::open_with(&Config::new(&missing).create(false)).unwrap();
}

#[test]
fn the_error_names_a_folder_that_cannot_be_created() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = SledStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Configuration);
        assert!(
            text_of(&error).contains(path.to_str().unwrap()),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_with_any_cache_size() {
    for cache_bytes in [1 << 20, 0, u64::MAX] {
        let folder = tempfile::tempdir().unwrap();
        restart_keeps_everything(&Config::new(folder.path()).cache_bytes(cache_bytes)).await;
    }
}

async fn restart_keeps_everything(config: &Config) {
    let many = (0..40).map(|i| format!("{i:02}")).collect::<Vec<_>>();
    let mut answers = Vec::new();
    for round in 0..3 {
        // Dropping the store has unlocked the folder, so it can be opened again at once.
        let store = SledStore::open_with(config).unwrap();
        if round == 0 {
            for name in &many {
                store
                    .register(&device("many"), &pass(name), &token())
                    .await
                    .unwrap();
            }
            store
                .register(&device("few"), &pass("07"), &token())
                .await
                .unwrap();
            mark(&store, &[serial("07"), serial("ä/ö")]).await;
            store.mark(&type_id(), Changed::All).await.unwrap();
            mark(&store, &[serial("03")]).await;
            publish(&store, &content("07", Some(7))).await;
            publish(&store, &content("07", None)).await;
            assert!(
                store
                    .replace_note("name", None, Some("a note"))
                    .await
                    .unwrap()
            );
            assert!(
                store
                    .unregister(&device("many"), &pass("39"))
                    .await
                    .unwrap()
            );
        }
        assert_eq!(registered(&store, &device("many")).await, many[..39]);
        assert_eq!(registered(&store, &device("few")).await, ["07"]);
        let tag = store
            .changes_since(&device("many"), &type_id(), None)
            .await
            .unwrap()
            .tag;
        let quiet = store
            .changes_since(&device("many"), &type_id(), Some(tag))
            .await
            .unwrap();
        assert!(quiet.serials.is_empty());
        let found = devices(&store, &pass("07")).await;
        let mut states = Vec::new();
        for name in ["03", "07", "ä/ö", "never"] {
            states.push(store.pass_state(&pass(name)).await.unwrap());
        }
        let published = store.published(&[pass("07"), pass("03")]).await.unwrap();
        let note = store.note("name").await.unwrap();
        answers.push((tag, states, found, published, note));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let (_, states, found, published, note) = &answers[0];
    assert_eq!((found.len(), note.as_deref()), (2, Some("a note")));
    let [Some(published), None] = &published[..] else {
        panic!("{published:?}")
    };
    assert!(published.removed && published.tokens.len() == 1);
    assert_eq!(
        (published.digest, states[1].published),
        (Some([7; 32]), Some([7; 32]))
    );
}

#[tokio::test]
async fn a_tag_ahead_of_the_clocks_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    mark(&store, &[serial("1")]).await;
    let now = store
        .changes_since(&device("d"), &type_id(), None)
        .await
        .unwrap()
        .tag;
    for (type_ahead, device_ahead) in [(1, 0), (0, 1), (1 << 60, 1 << 60)] {
        let mut tag = now;
        tag.type_version += type_ahead;
        tag.device_version += device_ahead;
        let all = store
            .changes_since(&device("d"), &type_id(), Some(tag))
            .await
            .unwrap();
        assert_eq!((all.serials.len(), all.tag), (1, now));
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        sled::Config::new()
            .path(folder.path())
            .segment_size(1 << 20)
            .open()
            .unwrap()
    };
    let other = open();
    other.insert("theirs", "x").unwrap();
    drop(other);
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(text_of(&error).contains("another program"), "{error:?}");
    assert_eq!(open().iter().count(), 1);
}

/// The engine refuses a file with another segment size.
#[test]
fn errors_have_the_engines_error_as_a_source() {
    let folder = tempfile::tempdir().unwrap();
    drop(
        sled::Config::new()
            .path(folder.path())
            .segment_size(1 << 19)
            .open()
            .unwrap(),
    );
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let text = text_of(&error);
    let cause = error.source().unwrap().source().unwrap();
    assert!(
        matches!(cause.downcast_ref(), Some(sled::Error::Unsupported(_))),
        "{cause:?}"
    );
    assert!(!text.contains(&cause.to_string()), "{text}");
}

#[test]
fn the_error_names_a_newer_format() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    let engine = sled::Config::new()
        .path(folder.path())
        .segment_size(1 << 20)
        .open()
        .unwrap();
    engine.insert("m", &[9, 1, 2][..]).unwrap();
    drop(engine);
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(text_of(&error).contains("format 9"), "{error:?}");
}

#[tokio::test]
async fn an_unreadable_row_affects_no_other_call() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    let engine = sled::Config::new()
        .path(folder.path())
        .segment_size(1 << 20)
        .open()
        .unwrap();
    engine.insert("dbroken", "x").unwrap();
    drop(engine);
    let store = SledStore::open(folder.path()).unwrap();
    let error = store
        .register(&device("broken"), &pass("1"), &token())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(!text_of(&error).contains("broken"), "{error:?}");
    let error = store
        .changes_since(&device("broken"), &type_id(), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    store
        .register(&device("whole"), &pass("1"), &token())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_unfinished_snapshot_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store
        .register(&device("d"), &pass("1"), &token())
        .await
        .unwrap();
    drop(store);
    fs::write(
        folder.path().join("snap.FFFFFFFFFFFFFFFF.generating"),
        "half",
    )
    .unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(registered(&store, &device("d")).await, ["1"]);
}

/// If the data file is damaged, opening returns an error. It never makes a new, empty store.
#[test]
fn damaged_files_are_errors() {
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("empty", |file| file.clear()),
        ("zeroes", |file| file.fill(0)),
        ("noise", |file| {
            file.iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = (i * i / 7) as u8)
        }),
        ("cut", |file| file.truncate(19)),
    ];
    for snapshot in [true, false] {
        for (name, damage) in damage {
            let folder = tempfile::tempdir().unwrap();
            drop(SledStore::open(folder.path()).unwrap());
            let path = folder.path().join("db");
            let mut file = fs::read(&path).unwrap();
            damage(&mut file);
            fs::File::create(&path).unwrap().write_all(&file).unwrap();
            if !snapshot {
                for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                    if entry.file_name().to_string_lossy().starts_with("snap.") {
                        fs::remove_file(entry.path()).unwrap();
                    }
                }
            }
            let error = SledStore::open(folder.path()).expect_err(name);
            assert!(!error.is_transient(), "{name}: {error:?}");
            assert!(
                text_of(&error).contains(folder.path().to_str().unwrap()),
                "{name}: {error:?}"
            );
        }
    }
}
