//! Opening and closing a folder.

use std::{collections::BTreeSet, error::Error as _, fs, io, time::Instant};

use passkit_folder::{Config, FolderError};

use crate::world::{SOON, TYPE, World, content};

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_without_a_folder_withdraws_nothing() {
    let world = World::new();
    world.serve("one", "old").await.stop().await;
    let before = world.state().await;
    let error = world
        .try_open(Config::new(world.path("one", "copies")))
        .await
        .unwrap_err();
    assert!(matches!(error, FolderError::NoFolder), "{error:?}");
    let one = world.open("one").await;
    assert_eq!(one.get().await, content("old"));
    assert_eq!(world.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_does_not_exist_is_named() {
    let world = World::new();
    let error = world.try_open(world.config("one")).await.unwrap_err();
    let missing = world.path("one", "passes");
    assert_eq!(
        error.to_string(),
        format!("can't read the folder {}", missing.display())
    );
    let cause: &io::Error = error.source().unwrap().downcast_ref().unwrap();
    assert_eq!(cause.kind(), io::ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_in_use_are_an_error_or_the_next_free_folder_is_taken() {
    let world = World::new();
    let _one = world.serve("one", "old").await;
    let error = world.try_open(world.config("one")).await.unwrap_err();
    let FolderError::Copies { path, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*path, world.path("one", "copies"));
    assert!(error.source().is_some());

    let mut others = Vec::new();
    for next in ["copies-2", "copies-3"] {
        assert!(!world.path("one", next).exists());
        let config = world.config("one").next_free(true);
        let other = world.try_open(config).await.unwrap();
        assert_eq!(other.get().await, content("old"));
        assert!(world.path("one", next).is_dir());
        others.push(other);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_passes_that_are_served_are_counted_and_their_types_listed() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    assert_eq!((one.folder.len(), one.folder.is_empty()), (1, false));
    assert_eq!(one.folder.types(), BTreeSet::from([TYPE.parse().unwrap()]));
    one.stop().await;
    fs::remove_file(world.path("one", "passes").join("a.pkpass")).unwrap();
    let one = world.open("one").await;
    assert!(one.folder.is_empty());
    assert_eq!(one.folder.types(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_folder_serves_its_copies_and_publishes_nothing_more() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    one.folder.close().await;
    one.folder.clone().close().await;
    let before = world.state().await;
    world.write("one", &content("new"));
    assert_eq!(one.get().await, content("old"));
    assert_eq!(world.state().await, before);
    drop(one);
    let one = world.open("one").await;
    assert_eq!(one.get().await, content("new"));
}

#[tokio::test(flavor = "current_thread")]
async fn dropping_the_last_clone_ends_the_watcher() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    drop(one.folder.clone());
    assert_eq!(one.get().await, content("old"));
    assert!(world.try_open(world.config("one")).await.is_err());
    drop(one);
    let deadline = Instant::now() + SOON;
    loop {
        match world.try_open(world.config("one")).await {
            Ok(one) => break assert_eq!(one.get().await, content("old")),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
    }
}
