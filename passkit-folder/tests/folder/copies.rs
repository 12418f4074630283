//! The copies: damage, permissions, and another store.

use std::{fs, sync::Arc};

use passkit_folder::{Config, Folder};
use passkit_server::{
    PassSource as _,
    push::Publisher,
    store::{MemoryStore, RegistrationStore as _},
};

use crate::world::{World, a_pass, content};

/// Damages the only copy of an instance that has ended, in the middle.
fn damage_the_copy(world: &World, instance: &str) {
    let path = world.disk.path().join(instance).join("copies/catalog.db");
    let database = rusqlite::Connection::open(path).unwrap();
    let changed = database
        .execute(
            "update archive set bytes = cast(substr(bytes, 1, 200) || x'00ff00ff' || substr(bytes, 205) as blob)",
            [],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_made_anew_from_the_file() {
    let world = World::new();
    world.serve("one", "old").await.stop().await;
    damage_the_copy(&world, "one");
    let published = world.state().await;
    let one = world.open("one").await;
    assert_eq!(one.get().await, content("old"));
    assert_eq!(world.state().await, published, "nothing has changed");
    one.stop().await;
    // The copy is good again, and needs no file.
    let one = world.open("one").await;
    world.write("one", b"broken");
    assert_eq!(one.get().await, content("old"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_whose_file_is_broken_is_not_served() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    world.write("one", b"broken");
    one.stop().await;
    damage_the_copy(&world, "one");
    let one = world.open("one").await;
    let state = world.state().await;
    assert!(one.folder.archive(&a_pass(), &state).await.is_err());
    world.write("one", &content("new"));
    world.wait_for_mark_after(state.version).await;
    assert_eq!(one.get().await, content("new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_cannot_be_read_at_all_are_made_anew() {
    let world = World::new();
    for (damaged, content) in [(b"no database".to_vec(), "one"), (Vec::new(), "two")] {
        world.serve("one", content).await.stop().await;
        let path = world.disk.path().join("one/copies/catalog.db");
        let mut bytes = fs::read(&path).unwrap();
        if damaged.is_empty() {
            // All pages except the first one, which has the schema.
            bytes[4096..].fill(0x5a);
        } else {
            bytes = damaged;
        }
        fs::write(&path, bytes).unwrap();
        let published = world.state().await;
        let one = world.open("one").await;
        assert_eq!(one.get().await, self::content(content));
        assert_eq!(world.state().await, published, "nothing has changed");
        one.stop().await;
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_read_the_copies() {
    use std::os::unix::fs::PermissionsExt as _;

    let world = World::new();
    let _one = world.serve("one", "old").await;
    let copies = world.disk.path().join("one/copies");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copies), 0o700);
    for file in fs::read_dir(&copies).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_published_again_to_another_edition_of_the_store() {
    let mut world = World::new();
    let open = async |world: &World, edition: &str| {
        let disk = world.disk.path().join("one");
        let config = Config::new(disk.join("copies"))
            .passes(disk.join("passes"))
            .edition(edition)
            .allow_unsigned(true);
        let publisher = Arc::new(Publisher::marking(world.store.clone()));
        Folder::open(config, publisher).await.unwrap()
    };
    world.write("one", &content("old"));
    open(&world, "first").await.close().await;
    let first = world.state().await;
    open(&world, "second").await.close().await;
    assert_eq!(world.state().await, first, "the store has it");

    world.store = Arc::new(MemoryStore::new());
    open(&world, "second").await.close().await;
    assert_eq!(world.state().await.published, None);
    fs::remove_file(world.disk.path().join("one/passes/a.pkpass")).unwrap();
    open(&world, "third").await.close().await;
    let published = world.store.published(&[a_pass()]).await.unwrap();
    let published = published[0].as_ref().unwrap();
    assert!(published.removed, "a removal is published too");
    assert_eq!(published.tokens.len(), 1, "with its tokens");
}
