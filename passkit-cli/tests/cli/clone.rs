//! A clone of the project still builds after the commands of the README ran in it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    postgres,
    program::{passkit, run},
};

/// Build output, and what the program leaves in a clone.
pub(crate) const LEFT_OUT: [&str; 6] = [
    "target",
    ".git",
    "passes",
    "orders",
    "passkit-data",
    "passkit-copies",
];

#[test]
fn a_clone_in_which_the_program_ran_still_builds() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let clone = tempfile::tempdir().unwrap();
    let clone = clone.path();
    copy(workspace, clone);
    for name in ["passes", "orders"] {
        fs::create_dir(clone.join(name)).unwrap();
    }

    serve(clone, &[]);
    assert!(clone.join("passkit.db").is_file());
    serve(clone, &["--store", &postgres::migrated()]);
    assert!(clone.join("passkit-copies").is_dir());

    // This reads every manifest, but builds nothing.
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let (code, out, said) = run(Command::new(cargo)
        .args([
            "metadata",
            "--offline",
            "--locked",
            "--no-deps",
            "--format-version",
            "1",
        ])
        .current_dir(clone));
    assert_eq!(code, Some(0), "{said}");
    let metadata: serde_json::Value = serde_json::from_str(&out).unwrap();
    let members = metadata["workspace_members"].as_array().unwrap().len();
    let entries = fs::read_dir(clone)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let crates = entries
        .filter(|path| path.join("Cargo.toml").is_file() && !path.ends_with("fuzz"))
        .count();
    assert_eq!(
        members, crates,
        "Cargo.toml names every crate but the one for fuzzing"
    );
}

/// Serves with the default paths until the service listens.
fn serve(clone: &Path, arguments: &[&str]) {
    let mut process = passkit()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--passes",
            "./passes",
            "--orders",
            "./orders",
        ])
        .args(arguments)
        .current_dir(clone)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let read = BufReader::new(process.stdout.take().unwrap()).read_line(&mut line);
    process.kill().unwrap();
    process.wait().unwrap();
    read.unwrap();
    assert!(line.starts_with("listening on "), "{line:?}");
}

/// Copies the sources.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.into_iter().any(|out| name == OsStr::new(out)) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(to.join(&name)).unwrap();
            copy(&path, &to.join(&name));
        } else {
            fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}
