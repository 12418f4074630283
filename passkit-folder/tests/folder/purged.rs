//! Passes that were purged from the store after their files were removed.

use std::{
    fs,
    time::{Duration, Instant},
};

use passkit_server::{
    PassSource as _,
    maintenance::{StoreMaintenance as _, purge},
    store::RegistrationStore as _,
};

use crate::world::{Instance, SOON, World, a_pass, content};

/// Removes the file of an instance, and waits until its pass is withdrawn.
async fn withdraw(world: &World, name: &str, instance: &Instance) {
    fs::remove_file(world.path(name, "passes").join("a.pkpass")).unwrap();
    let deadline = Instant::now() + SOON;
    while !instance.folder.is_empty() {
        assert!(Instant::now() < deadline, "the pass was not withdrawn");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn is_unknown(world: &World) -> bool {
    world.store.published(&[a_pass()]).await.unwrap() == [None]
        && world.store.stats().await.unwrap().types.is_empty()
}

/// Returns whether the copies of an instance name the pass.
fn is_in_the_copies(world: &World, name: &str) -> bool {
    let database = world.path(name, "copies").join("catalog.db");
    let connection = rusqlite::Connection::open(database).unwrap();
    let count = |table: &str| -> i64 {
        let text = format!("select count(*) from {table}");
        connection.query_row(&text, [], |row| row.get(0)).unwrap()
    };
    count("pass") + count("archive") > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_pass_is_forgotten_at_the_next_start() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    withdraw(&world, "one", &one).await;
    one.stop().await;
    assert!(is_in_the_copies(&world, "one"));
    purge(&*world.store, &[a_pass()]).await.unwrap();

    let one = world.open("one").await;
    assert!(one.folder.credentials(&a_pass()).await.unwrap().is_none());
    assert!(!is_in_the_copies(&world, "one"));
    assert!(is_unknown(&world).await);

    // A pass that comes back is new.
    world.write("one", &content("old"));
    world.wait_for_mark_after(0).await;
    assert_eq!(one.get().await, content("old"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_notices_the_removal_after_the_purge_brings_nothing_back() {
    let world = World::new();
    let late = world.serve("late", "old").await;
    late.stop().await;
    purge(&*world.store, &[a_pass()]).await.unwrap();
    fs::remove_file(world.path("late", "passes").join("a.pkpass")).unwrap();
    let late = world.open("late").await;
    assert!(is_unknown(&world).await);
    assert!(late.folder.credentials(&a_pass()).await.unwrap().is_none());
    assert!(!is_in_the_copies(&world, "late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_was_not_purged_can_still_be_unregistered() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    withdraw(&world, "one", &one).await;
    one.stop().await;
    let one = world.open("one").await;
    assert!(one.folder.credentials(&a_pass()).await.unwrap().is_some());
    assert!(is_in_the_copies(&world, "one"));
}
