//! Gives every target its corpus, and inputs that tests of other crates have.

use std::{fs, io::Read as _, path::Path};

fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn replay(target: fn(&[u8]), folder: &str) {
    let files = files(folder);
    assert!(!files.is_empty(), "{folder} is empty");
    for (name, input) in files {
        println!("{name}");
        target(&input);
        // The input is also cut off, which is the most common damage.
        target(&input[..input.len() / 2]);
    }
}

fn archives() -> Vec<(String, Vec<u8>)> {
    let fixtures = "../passkit-archive/tests/fixtures";
    [files(fixtures), files(&format!("{fixtures}/field"))].concat()
}

/// Returns a file of each archive.
fn parts(name: &str) -> Vec<Vec<u8>> {
    let part = |archive: &[u8]| {
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(archive)).ok()?;
        let mut content = Vec::new();
        zip.by_name(name).ok()?.read_to_end(&mut content).ok()?;
        Some(content)
    };
    archives()
        .iter()
        .filter_map(|(_, archive)| part(archive))
        .collect()
}

#[test]
fn archives_are_replayed() {
    replay(passkit_fuzz::archive, "corpus/archive");
    archives()
        .iter()
        .for_each(|(_, archive)| passkit_fuzz::archive(archive));
}

#[test]
fn pictures_are_replayed() {
    replay(passkit_fuzz::picture, "corpus/picture");
}

#[test]
fn descriptions_are_replayed() {
    replay(passkit_fuzz::json, "corpus/json");
    parts("pass.json")
        .iter()
        .for_each(|text| passkit_fuzz::json(text));
    parts("pass.json")
        .iter()
        .for_each(|text| passkit_fuzz::picture(text));
}

#[test]
fn signatures_are_replayed() {
    replay(passkit_fuzz::cms, "corpus/cms");
    parts("signature")
        .iter()
        .for_each(|cms| passkit_fuzz::cms(cms));
}

#[test]
fn certificates_are_replayed() {
    replay(passkit_fuzz::pem, "corpus/pem");
    replay(passkit_fuzz::pkcs12, "corpus/pkcs12");
}

#[test]
fn tables_and_recipes_are_replayed() {
    replay(passkit_fuzz::table, "corpus/table");
    replay(passkit_fuzz::recipe, "corpus/recipe");
}

#[test]
fn requests_are_replayed() {
    replay(passkit_fuzz::routes, "corpus/routes");
    replay(passkit_fuzz::tags, "corpus/tags");
}

#[test]
fn target_files_are_replayed() {
    replay(passkit_fuzz::target_file, "corpus/target_file");
}

#[test]
fn imported_files_are_replayed() {
    replay(passkit_fuzz::csv, "corpus/csv");
}

#[test]
fn lists_are_replayed() {
    replay(passkit_fuzz::list, "corpus/list");
}
