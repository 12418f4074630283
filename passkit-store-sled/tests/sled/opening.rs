use std::{error::Error as _, fs, io::Write as _};

use passkit_server::{RegistrationStore, StoreError, StoreErrorKind};
use passkit_store_sled::{Config, SledStore};

use crate::support::{device, held, pass, serial, token, type_id};

fn said(error: &StoreError) -> String {
    let said = error.source().unwrap().to_string();
    assert!(!said.contains('\n'), "{said}");
    said
}

#[tokio::test]
async fn a_second_opener_is_told_who_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    let said = said(&error);
    assert!(said.contains(folder.path().to_str().unwrap()) && said.contains("another process"), "{said}");
    // The first one is none the worse.
    store.register(&device("d"), &pass("1"), &token()).await.unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = SledStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Configuration);
        assert!(said(&error).contains(path.to_str().unwrap()), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything_however_much_is_in_memory() {
    for cache_bytes in [1 << 20, 0, u64::MAX] {
        let folder = tempfile::tempdir().unwrap();
        restart_keeps_everything(&Config::new(folder.path()).cache_bytes(cache_bytes)).await;
    }
}

async fn restart_keeps_everything(config: &Config) {
    let many = (0..40).map(|i| format!("{i:02}")).collect::<Vec<_>>();
    let mut answers = Vec::new();
    for round in 0..3 {
        // Again at once, in the same process: dropping it has let go of the folder.
        let store = SledStore::open_with(config).unwrap();
        if round == 0 {
            for name in &many {
                store.register(&device("many"), &pass(name), &token()).await.unwrap();
            }
            store.register(&device("few"), &pass("07"), &token()).await.unwrap();
            store.mark_updated(&type_id(), &[serial("07"), serial("ä/ö")]).await.unwrap();
            store.mark_all_updated(&type_id()).await.unwrap();
            store.mark_updated(&type_id(), &[serial("03")]).await.unwrap();
            assert!(store.unregister(&device("many"), &pass("39")).await.unwrap());
        }
        assert_eq!(held(&store, &device("many")).await, many[..39]);
        assert_eq!(held(&store, &device("few")).await, ["07"]);
        let tag = store.updated_since(&device("many"), &type_id(), None).await.unwrap().tag;
        let quiet = store.updated_since(&device("many"), &type_id(), Some(tag)).await.unwrap();
        assert!(quiet.serials.is_empty());
        let page = store.devices_of(&pass("07"), None, 10).await.unwrap();
        let mut states = Vec::new();
        for name in ["03", "07", "ä/ö", "never"] {
            states.push(store.pass_state(&pass(name)).await.unwrap());
        }
        answers.push((tag, states, page.devices));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].2.len(), 2);
}

#[tokio::test]
async fn a_tag_of_another_time_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.register(&device("d"), &pass("1"), &token()).await.unwrap();
    store.mark_updated(&type_id(), &[serial("1")]).await.unwrap();
    let now = store.updated_since(&device("d"), &type_id(), None).await.unwrap().tag;
    for (type_ahead, device_ahead) in [(1, 0), (0, 1), (1 << 60, 1 << 60)] {
        let mut tag = now;
        tag.type_version += type_ahead;
        tag.device_version += device_ahead;
        let all = store.updated_since(&device("d"), &type_id(), Some(tag)).await.unwrap();
        assert_eq!((all.serials.len(), all.tag), (1, now));
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = || sled::Config::new().path(folder.path()).segment_size(1 << 20).open().unwrap();
    let other = open();
    other.insert("theirs", "x").unwrap();
    drop(other);
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(said(&error).contains("another program"), "{error:?}");
    assert_eq!(open().iter().count(), 1);
}

#[test]
fn a_newer_format_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    let engine = sled::Config::new().path(folder.path()).segment_size(1 << 20).open().unwrap();
    engine.insert("m", &[9, 1, 2][..]).unwrap();
    drop(engine);
    let error = SledStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Configuration);
    assert!(said(&error).contains("format 9"), "{error:?}");
}

#[tokio::test]
async fn an_unreadable_row_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    let engine = sled::Config::new().path(folder.path()).segment_size(1 << 20).open().unwrap();
    engine.insert("dbroken", "x").unwrap();
    drop(engine);
    let store = SledStore::open(folder.path()).unwrap();
    let error = store.register(&device("broken"), &pass("1"), &token()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(!said(&error).contains("broken"), "{error:?}");
    let error = store.updated_since(&device("broken"), &type_id(), None).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    store.register(&device("whole"), &pass("1"), &token()).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_cut_short_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.register(&device("d"), &pass("1"), &token()).await.unwrap();
    drop(store);
    fs::write(folder.path().join("snap.FFFFFFFFFFFFFFFF.generating"), "half").unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(held(&store, &device("d")).await, ["1"]);
}

/// Whatever becomes of the data file, opening it ends, and never in a new and empty store.
#[test]
fn damaged_files_are_errors() {
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("empty", |file| file.clear()),
        ("zeroes", |file| file.fill(0)),
        ("noise", |file| file.iter_mut().enumerate().for_each(|(i, b)| *b = (i * i / 7) as u8)),
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
            assert!(said(&error).contains(folder.path().to_str().unwrap()), "{name}: {error:?}");
        }
    }
}
