//! Several folders over one store, each with copies of its own.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use passkit_archive::{ArchiveBuilder, placeholder_icon};
use passkit_folder::{Config, Folder};
use passkit_server::{
    Changed, PassId, PassSource as _, PassState,
    identifiers::Kind,
    push::Publisher,
    service::ResponseBody,
    store::{Content, MemoryStore, RegistrationStore as _},
};
use serde_json::json;

const TYPE: &str = "pass.com.example.folders";
const SOON: Duration = Duration::from_secs(30);

fn a_pass() -> PassId {
    PassId::new(TYPE, "A-1").unwrap()
}

fn content(version: &str) -> Vec<u8> {
    let description = json!({
        "formatVersion": 1, "passTypeIdentifier": TYPE, "serialNumber": "A-1", "teamIdentifier": "TEAM123456",
        "organizationName": "Example", "description": version, "generic": {},
        "webServiceURL": "https://wallet.example.com/", "authenticationToken": "a-token-of-this-pass",
    });
    let builder = ArchiveBuilder::new(Kind::Pass, description.to_string());
    builder
        .file("icon.png", placeholder_icon(29))
        .build_unsigned()
        .unwrap()
}

/// A store, and the disks of the instances over it.
struct World {
    store: Arc<MemoryStore>,
    disk: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            disk: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes the file of an instance in one step, as a careful program does.
    fn write(&self, instance: &str, content: &[u8]) {
        let folder = self.disk.path().join(instance).join("passes");
        fs::create_dir_all(&folder).unwrap();
        let (file, part) = (folder.join("a.pkpass"), folder.join("a.part"));
        fs::write(&part, content).unwrap();
        fs::rename(part, file).unwrap();
    }

    async fn open(&self, instance: &str) -> Instance {
        let disk = self.disk.path().join(instance);
        let config = Config::new(disk.join("copies"))
            .passes(disk.join("passes"))
            .allow_unsigned(true);
        let publisher = Arc::new(Publisher::marking(self.store.clone()));
        let folder = Folder::open(config, publisher).await.unwrap();
        Instance {
            folder,
            store: self.store.clone(),
        }
    }

    /// An instance that serves this version.
    async fn serve(&self, instance: &str, version: &str) -> Instance {
        self.write(instance, &content(version));
        self.open(instance).await
    }

    async fn state(&self) -> PassState {
        self.store.pass_state(&a_pass()).await.unwrap()
    }

    async fn wait_for_mark_after(&self, version: u64) -> PassState {
        let deadline = Instant::now() + SOON;
        loop {
            let state = self.state().await;
            if state.version > version {
                return state;
            }
            assert!(Instant::now() < deadline, "the pass was not marked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Instance {
    folder: Folder,
    store: Arc<MemoryStore>,
}

impl Instance {
    /// The answer to a request that comes now.
    async fn get(&self) -> Vec<u8> {
        let state = self.store.pass_state(&a_pass()).await.unwrap();
        self.get_at(&state).await
    }

    async fn get_at(&self, state: &PassState) -> Vec<u8> {
        let archive = self
            .folder
            .archive(&a_pass(), state)
            .await
            .unwrap()
            .expect("the pass is served");
        ResponseBody::from(archive)
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec()
    }

    async fn stop(self) {
        self.folder.close().await;
    }
}

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
        // As if another instance had noticed the change first.
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
    // At its start the second one published its own content.
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
    // A restored database names the content before the change.
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

/// The new instance publishes again, then the old one. After that the new one serves its copy under the date of the old
/// content.
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
    // The phone that got it gets the new content when the file is repaired.
    world.write("one", &content("new"));
    world.wait_for_mark_after(published.version).await;
    assert_eq!(one.get().await, content("new"));
}

/// Changes bytes in the middle of the only copy of an instance that has ended.
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
    // The copy is sound again, and needs no file.
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
            // All pages but the first, which has the schema.
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
