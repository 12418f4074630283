//! Several folders over one store, each with separate copies.

use std::time::{Duration, Instant};

use passkit_server::{
    Changed,
    store::{Content, RegistrationStore as _},
};

use crate::world::{Instance, World, a_pass, content};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_ahead_of_the_request_is_served() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    let before = world.state().await;
    world.write("one", &content("new"));
    let after = world.wait_for_mark_after(before.version).await;
    assert_eq!(one.get_at(&before).await, content("new"));
    assert_eq!(world.state().await, after, "nothing was published again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_again_before_its_copy_is_served() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    for version in ["1", "2", "3", "4", "5"] {
        // The other instance notices the change first.
        world.write("one", &content(version));
        let noticed = world.serve(&format!("other-{version}"), version).await;
        let published = world.state().await;
        assert_eq!(one.get().await, content(version));
        assert_eq!(world.state().await, published, "marked twice");
        noticed.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn different_contents_are_served_and_published_again_once() {
    let world = World::new();
    let new = world.serve("new", "new").await;
    let old = world.serve("old", "old").await;
    // The second instance published its own content when it started.
    let mut version = world.state().await.version;
    for (instance, content) in [(&new, content("new")), (&old, content("old"))] {
        assert_eq!(instance.get().await, content);
        version = world.wait_for_mark_after(version).await.version;
    }
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(new.get().await, content("new"));
        assert_eq!(old.get().await, content("old"));
    }
    if started.elapsed() < Duration::from_secs(50) {
        assert_eq!(
            world.state().await.version,
            version,
            "the instances mark again and again"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_a_change_gets_it_again() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    let old = world.state().await;
    world.write("one", &content("new"));
    let new = world.wait_for_mark_after(old.version).await;
    // A restored database has the digest of the content before the change.
    let restored = Content {
        serial: a_pass().serial,
        digest: old.published,
        tokens: Vec::new(),
    };
    world
        .store
        .mark(&a_pass().type_id, Changed::Contents(&[restored]))
        .await
        .unwrap();
    let restored = world.state().await;
    assert_eq!(one.get().await, content("new"));
    let again = world.wait_for_mark_after(restored.version).await;
    assert_eq!(again.published, new.published);
    assert_eq!(one.get().await, content("new"));
    assert_eq!(world.state().await, again);
}

/// Makes a misdated pass. The new instance publishes again, then the old one. After that the new
/// one serves its copy with the `Last-Modified` of the old content.
async fn misdated(world: &World) -> (Instance, Instance) {
    let new = world.serve("new", "new").await;
    let old = world.serve("old", "old").await;
    for instance in [&new, &old] {
        let version = world.state().await.version;
        instance.get().await;
        world.wait_for_mark_after(version).await;
    }
    assert_eq!(new.get().await, content("new"));
    (new, old)
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_that_got_a_copy_under_the_date_of_other_content_get_that_content() {
    let world = World::new();
    let (new, _old) = misdated(&world).await;
    let version = world.state().await.version;
    world.write("new", &content("old"));
    let marked = world.wait_for_mark_after(version).await;
    assert_eq!(new.get().await, content("old"));
    assert_eq!(world.state().await, marked, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_get_it_also_after_a_restart() {
    let world = World::new();
    let (new, _old) = misdated(&world).await;
    new.stop().await;
    let version = world.state().await.version;
    let new = world.serve("new", "old").await;
    let marked = world.state().await;
    assert!(marked.version > version, "the pass was not marked");
    assert_eq!(new.get().await, content("old"));
    new.stop().await;
    world.open("new").await;
    assert_eq!(world.state().await, marked, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_copy_and_what_is_published() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    world.write("one", b"broken");
    let _other = world.serve("other", "new").await;
    let published = world.state().await;
    for _ in 0..3 {
        assert_eq!(one.get().await, content("old"));
    }
    assert_eq!(
        world.state().await,
        published,
        "a copy without its original was published again"
    );
    // The phone that got the misdated copy gets the new content when the file is fixed.
    world.write("one", &content("new"));
    world.wait_for_mark_after(published.version).await;
    assert_eq!(one.get().await, content("new"));
}
