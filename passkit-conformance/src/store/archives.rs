//! Cases about the archives that a store keeps for all instances.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use passkit_server::{
    Changed, PassId,
    store::{ArchiveStore, Content, ContentDigest},
};
use tokio::{task::JoinSet, time::Instant};

use super::{
    case::catalogue,
    names::{all, new_passes},
    stores::Opened,
};
use crate::{CaseResult, Rule, Violation, violation::ensure};

catalogue! {
    "store/archives-come-back" Must [A1] opened archives_come_back,
        "Puts archives of several sizes, up to 5 MB, for passes of two types with equal digests. Reads \
         them, and asks for digests and passes without an archive. Then puts one of them again with \
         other bytes.",
        "A phone gets a damaged archive, or the archive of another pass.";
    "store/earlier-archives-are-kept" Must [A2] opened earlier_archives_are_kept,
        "Puts an archive of a pass and publishes it. Then puts nine other archives of the pass. All \
         ten are still there.",
        "A pass can't be fetched while its next version is handed in.";
    "store/parallel-archives-are-kept" Must [A1 A2] opened parallel_archives_are_kept,
        "Puts four archives of one pass in parallel, each eight times, and publishes each. No call \
         fails, and all are there.",
        "If two instances get archives of one pass at the same time, a request fails, or the pass \
         can't be fetched.";
    "store/archives-survive-reopening" Must [A3] opened archives_survive_reopening,
        "Puts archives of two passes, and one of them again. After each call, the data are opened again \
         as they are at that moment.",
        "After a crash, a published pass can't be fetched.";
    "store/forgotten-pass-has-no-archives" Must [A4] opened forgotten_pass_has_no_archives,
        "Puts two archives of a pass, and one of another pass. Forgets the first pass.",
        "Data that were removed for privacy are still there, or the archive of another pass is gone.";
}

/// How long a date may stay ahead of the clock.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns bytes that differ for each seed.
fn bytes(seed: u8, length: usize) -> Bytes {
    let byte = |at: usize| seed.wrapping_add((at ^ (at >> 8) ^ (at >> 16)) as u8);
    (0..length).map(byte).collect()
}

/// Ensures that the store has exactly these bytes.
async fn expect(
    store: &dyn ArchiveStore,
    rule: Rule,
    pass: &PassId,
    digest: ContentDigest,
    expected: Option<&Bytes>,
) -> Result<(), Violation> {
    let found = store.archive(pass, &digest).await?;
    let shown = |archive: Option<&Bytes>| match archive {
        Some(archive) => format!("an archive of {} bytes", archive.len()),
        None => "no archive".to_owned(),
    };
    ensure(
        rule,
        found.as_ref() == expected,
        format!("{} for the digest {:02x}…", shown(expected), digest[0]),
        || match &found {
            Some(other) if expected.is_some_and(|one| one.len() == other.len()) => {
                "other bytes of the same length".to_owned()
            }
            found => shown(found.as_ref()),
        },
    )
}

fn two_passes() -> Result<[PassId; 2], Violation> {
    let [(_, one), (_, mut other)] = [new_passes(1)?, new_passes(1)?];
    other[0].serial = one[0].serial.clone();
    Ok([one[0].clone(), other[0].clone()])
}

async fn archives_come_back(opened: &Opened) -> CaseResult {
    let store = &**opened.archives()?;
    let [pass, other] = two_passes()?;
    let lengths = [0, 1, 4_096, 100_000, 5_000_000];
    for (length, digest) in lengths.into_iter().zip(0..) {
        expect(store, Rule::A1, &pass, [digest; 32], None).await?;
        let archive = bytes(digest, length);
        store.put_archive(&pass, &[digest; 32], archive).await?;
    }
    let of_other = bytes(99, 77);
    store
        .put_archive(&other, &[1; 32], of_other.clone())
        .await?;
    for (length, digest) in lengths.into_iter().zip(0..) {
        let archive = bytes(digest, length);
        expect(store, Rule::A1, &pass, [digest; 32], Some(&archive)).await?;
    }
    expect(store, Rule::A1, &other, [1; 32], Some(&of_other)).await?;
    expect(store, Rule::A1, &other, [2; 32], None).await?;
    let again = bytes(100, 50);
    store.put_archive(&pass, &[3; 32], again.clone()).await?;
    expect(store, Rule::A1, &pass, [3; 32], Some(&again)).await?;
    Ok(())
}

async fn publish(
    store: &dyn ArchiveStore,
    pass: &PassId,
    digest: ContentDigest,
) -> Result<(), Violation> {
    let content = Content {
        serial: pass.serial.clone(),
        digest: Some(digest),
        tokens: Vec::new(),
    };
    store
        .mark(&pass.type_id, Changed::Contents(&[content]))
        .await?;
    Ok(())
}

async fn earlier_archives_are_kept(opened: &Opened) -> CaseResult {
    let store = &**opened.archives()?;
    let [pass, _] = two_passes()?;
    for digest in 0..10 {
        store
            .put_archive(&pass, &[digest; 32], bytes(digest, 300))
            .await?;
        if digest == 0 {
            publish(store, &pass, [digest; 32]).await?;
        }
    }
    for digest in 0..10 {
        let archive = bytes(digest, 300);
        expect(store, Rule::A2, &pass, [digest; 32], Some(&archive)).await?;
    }
    Ok(())
}

async fn parallel_archives_are_kept(opened: &Opened) -> CaseResult {
    let store = opened.archives()?;
    let [pass, _] = two_passes()?;
    let mut tasks = JoinSet::new();
    for digest in 0..4 {
        let (store, pass) = (store.clone(), pass.clone());
        tasks.spawn(async move {
            for _ in 0..8 {
                let archive = bytes(digest, 20_000);
                store.put_archive(&pass, &[digest; 32], archive).await?;
                publish(&*store, &pass, [digest; 32]).await?;
            }
            Ok::<_, Violation>(())
        });
    }
    all(tasks).await?;
    for digest in 0..4 {
        let archive = bytes(digest, 20_000);
        expect(&**store, Rule::A2, &pass, [digest; 32], Some(&archive)).await?;
    }
    Ok(())
}

async fn archives_survive_reopening(opened: &Opened) -> CaseResult {
    let store = opened.archives()?;
    let [pass, other] = two_passes()?;
    for (pass, seed) in [(&pass, 1), (&other, 2), (&pass, 3)] {
        let archive = bytes(seed, 30_000);
        store.put_archive(pass, &[7; 32], archive.clone()).await?;
        let reopened = opened.reopen().await?;
        let reopened: &Arc<dyn ArchiveStore> = reopened.archives()?;
        expect(&**reopened, Rule::A3, pass, [7; 32], Some(&archive)).await?;
    }
    Ok(())
}

async fn forgotten_pass_has_no_archives(opened: &Opened) -> CaseResult {
    let store = &**opened.archives()?;
    let maintenance = opened.maintenance()?;
    let [pass, other] = two_passes()?;
    let archive = bytes(1, 1_000);
    for (pass, digest) in [(&pass, 1), (&pass, 2), (&other, 1)] {
        store
            .put_archive(pass, &[digest; 32], archive.clone())
            .await?;
    }
    publish(store, &pass, [1; 32]).await?;
    let start = Instant::now();
    while !maintenance.forget_pass(&pass).await? {
        ensure(
            Rule::FORGET_PASS,
            start.elapsed() < TIMEOUT,
            "true when the date of the pass is past",
            || "false for a minute".into(),
        )?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for digest in [1, 2] {
        expect(store, Rule::A4, &pass, [digest; 32], None).await?;
    }
    expect(store, Rule::A4, &other, [1; 32], Some(&archive)).await?;
    Ok(())
}
