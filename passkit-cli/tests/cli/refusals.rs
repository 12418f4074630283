//! Errors that end the program with one line on stderr and exit code 2.

use std::fs;

use crate::program::{Service, passkit, run};

fn refused(command: &mut std::process::Command, mention: &[&str]) {
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stdout, "");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    for word in mention {
        assert!(lines[0].contains(word), "{word:?} is not in {stderr}");
    }
}

#[test]
fn a_store_in_use_by_another_process() {
    let mut service = Service::alone();
    service.start();
    refused(
        &mut service.command(),
        &[service.store().to_str().unwrap(), "another process"],
    );
}

#[test]
fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let service = Service::new();
    refused(
        passkit()
            .args(["serve", "--listen", &address, "--passes"])
            .arg(service.passes()),
        &[&address, "--listen"],
    );
}

#[test]
fn folders_that_cannot_be_read() {
    let service = Service::new();
    let store = service.store_url().to_owned();
    let file = service.folder.path().join("file");
    fs::write(&file, "").unwrap();
    for folder in [&file, &service.folder.path().join("nowhere")] {
        let mut command = passkit();
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--store",
                &store,
                "--passes",
            ])
            .arg(folder);
        refused(&mut command, &[folder.to_str().unwrap()]);
    }
    let store = format!("sled:{}", file.display());
    let mut command = passkit();
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--store",
            &store,
            "--passes",
        ])
        .arg(service.passes());
    refused(&mut command, &[file.to_str().unwrap()]);
}

#[test]
fn nothing_to_serve() {
    refused(
        passkit().args(["serve", "--listen", "127.0.0.1:0"]),
        &["--passes DIR"],
    );
}

#[test]
fn a_store_url_of_unknown_kind() {
    for url in ["mysql://localhost/passes", "./passkit.db", "sqlite:"] {
        refused(
            passkit().args(["serve", "--passes", ".", "--store", url]),
            &["sqlite:./passkit.db"],
        );
    }
    let mut secret = passkit();
    secret.args([
        "serve",
        "--passes",
        ".",
        "--store",
        "mysql://root:secret@host/passes?password=secret",
    ]);
    let (code, _, said) = run(&mut secret);
    assert!(
        code == Some(2)
            && said.contains("no such store")
            && !["mysql", "root", "secret"]
                .iter()
                .any(|part| said.contains(part)),
        "{said}"
    );
    refused(
        passkit().args(["serve", "--passes", ".", "--listen", "here"]),
        &["--listen", "here"],
    );
    refused(passkit().args(["check"]), &["FILE"]);
}

#[test]
#[cfg(target_os = "linux")]
fn standard_output_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "").unwrap();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    refused(
        passkit()
            .args(["import", "--from", "a.csv", "--store", "sqlite:./a.db"])
            .current_dir(folder.path())
            .stdout(full),
        &["standard output"],
    );
}
