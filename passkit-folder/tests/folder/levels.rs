//! Archives that phones accept are served, and those that they refuse are not.

use passkit_archive::{ArchiveBuilder, placeholder_icon};
use passkit_server::identifiers::Kind;
use serde_json::json;

use crate::world::{World, changed, content, description};

#[tokio::test(flavor = "multi_thread")]
async fn what_phones_take_is_served_whatever_is_odd_about_it() {
    let world = World::new();
    let one = world.serve("one", "old").await;
    let text = description(json!({"description": "comma"})).to_string();
    let text = format!("\u{feff}{},}}", text.strip_suffix('}').unwrap());
    let with_comma = ArchiveBuilder::new(Kind::Pass, text).file("icon.png", placeholder_icon(29));
    for archive in [
        changed(json!({"description": "ds"})).file(".DS_Store", "a"),
        with_comma,
        changed(json!({"webServiceURL": "https://wallet.example.com/?"})),
        changed(json!({"webServiceURL": "http://wallet.example.com/v1"})),
        changed(json!({"generic": null, "posterNext": {"heroFields": []}})),
        // The end of a programme: the pass has no web service any more.
        changed(json!({"webServiceURL": null, "authenticationToken": null})),
    ] {
        let before = world.state().await;
        let archive = archive.build_unsigned().unwrap();
        world.write("one", &archive);
        world.wait_for_mark_after(before.version).await;
        assert_eq!(one.get().await, archive);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_phones_refuse_leaves_the_version_before() {
    let world = World::new();
    let mut one = world.serve("one", "old").await;
    let good = content("old");
    for archive in [
        changed(json!({"expirationDate": "2026-01-31T12:00:00+0000"})),
        changed(json!({"generic": null})),
        changed(json!({"authenticationToken": "short"})),
        ArchiveBuilder::new(Kind::Pass, "{}"),
    ] {
        let before = world.state().await;
        one.stop().await;
        world.write("one", &archive.build_unsigned().unwrap());
        // The instance reads the file before `open` returns.
        one = world.open("one").await;
        assert_eq!(one.get().await, good);
        assert_eq!(world.state().await, before);
    }
}
