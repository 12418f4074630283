use std::{fs, path::Path};

use passkit_server::{
    Changed,
    maintenance::StoreMaintenance as _,
    store::{RegistrationStore, StoreError, StoreErrorKind},
};
use passkit_store_sqlite::SqliteStore;

use crate::support::{device, pass, serial, token, type_id};

const DEVICES: usize = 60;
const FLIPS: u64 = 150;

/// Returns everything that can be read, as text.
async fn contents(store: &SqliteStore) -> Result<String, StoreError> {
    let registrations = store.registrations(None, 9_999).await?.items;
    let mut text = registrations
        .iter()
        .map(|one| {
            format!(
                "{} {} {}\n",
                one.device.as_str(),
                one.pass,
                one.push_token.as_str()
            )
        })
        .collect::<String>();
    for i in 0..DEVICES {
        let changes = store
            .changes_since(&device(format!("device-{i}")), &type_id(), None)
            .await?;
        let state = store.pass_state(&pass(format!("{i}"))).await?;
        text += &format!("{changes:?} {state:?}\n");
    }
    Ok(text)
}

async fn open(path: &Path) -> Result<String, StoreError> {
    contents(&SqliteStore::open(path)?).await
}

/// A flipped bit causes no panic, no hang and no misleading error. The test also counts the flips that are not noticed,
/// because SQLite has no checksums.
#[tokio::test]
async fn a_flipped_bit_is_an_error_or_changes_one_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    let store = SqliteStore::create(&path).unwrap();
    for i in 0..DEVICES {
        store
            .register(
                &device(format!("device-{i}")),
                &pass(format!("{i}")),
                &token(),
            )
            .await
            .unwrap();
        store
            .mark(&type_id(), Changed::Passes(&[serial(format!("{i}"))]))
            .await
            .unwrap();
    }
    let expected = contents(&store).await.unwrap();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let mut state = u64::from(std::process::id());
    let (mut unharmed, mut reported, mut changed) = (0, 0, 0);
    for _ in 0..FLIPS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let bit = (state >> 20) as usize % (bytes.len() * 8);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        match open(&path).await {
            Ok(text) if text == expected => unharmed += 1,
            Ok(text) => {
                let lines = text.lines().zip(expected.lines());
                let different = lines.filter(|(one, other)| one != other).count();
                eprintln!(
                    "bit {bit} changed {different} of {} lines without an error",
                    expected.lines().count()
                );
                changed += 1;
            }
            Err(error) => {
                let kinds = [
                    StoreErrorKind::Corrupt,
                    StoreErrorKind::Configuration,
                    StoreErrorKind::Other,
                ];
                assert!(kinds.contains(&error.kind()), "bit {bit}: {error:?}");
                reported += 1;
            }
        }
    }
    eprintln!(
        "{FLIPS} flipped bits: {unharmed} did no harm, {reported} were reported, {changed} were not noticed"
    );
    assert_eq!(unharmed + reported + changed, FLIPS);
}
