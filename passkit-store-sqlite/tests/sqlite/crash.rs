use passkit_store_sqlite::SqliteStore;
use passkit_test_servers::{child, crash};

#[test]
fn the_child() {
    if let Some(path) = child::path() {
        child::run(async { crash::write_until_killed(SqliteStore::create(path).unwrap()).await });
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passkit.db");
    crash::kill_and_check("crash::the_child", &path, |path| {
        SqliteStore::open(path).unwrap()
    });
}
