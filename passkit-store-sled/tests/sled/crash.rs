use passkit_store_sled::SledStore;
use passkit_test_servers::{child, crash};

#[test]
fn the_child() {
    if let Some(path) = child::path() {
        child::run(async { crash::write_until_killed(SledStore::open(path).unwrap()).await });
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    crash::kill_and_check("crash::the_child", folder.path(), |path| {
        SledStore::open(path).unwrap()
    });
}
