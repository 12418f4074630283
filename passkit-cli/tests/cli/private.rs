//! Only the owner can open what the program leaves on the disk, whatever the umask is and whatever was there
//! before.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    archives::pass,
    program::{eventually, passkit, run},
    push::TYPE,
};

/// Makes a command that runs the program in this folder. The umask gives all rights to everyone.
fn open_to_all(folder: &Path, arguments: &[&str]) -> Command {
    let program = passkit();
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$@\"", "sh"])
        .arg(program.get_program())
        .args(arguments)
        .current_dir(folder);
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command
}

struct Running(Child);

impl Running {
    /// Starts the program and waits for a line that begins with `start`. Also returns the rest of this line.
    fn until(mut command: Command, start: &str) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Self(child);
        let found = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix(start)?.to_owned()));
        (
            running,
            found.unwrap_or_else(|| panic!("no line {start:?}")),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a folder with a pass, and with a file to import that has one bad line.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("passes")).unwrap();
    fs::write(
        folder.path().join("passes/a.pkpass"),
        pass(TYPE, "A", "one"),
    )
    .unwrap();
    let csv = format!("D-1,c0ffee,{TYPE},A\nnothing\n");
    fs::write(folder.path().join("a.csv"), csv).unwrap();
    folder
}

fn serve(folder: &Path, store: &str) -> (Running, String) {
    let mut command = open_to_all(
        folder,
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--passes",
            "passes",
            "--store",
            store,
        ],
    );
    command.stderr(Stdio::null());
    Running::until(command, "listening on ")
}

/// Collects everything that the commands made, with its mode. The paths are relative.
fn modes(folder: &Path, below: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if path == Path::new("passes") || path == Path::new("a.csv") {
            continue;
        }
        let metadata = entry.metadata().unwrap();
        found.push((path.clone(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes(folder, &path, found);
        }
    }
}

#[test]
fn all_that_is_made_is_for_its_owner_alone() {
    let temporary = folder();
    let folder = temporary.path();
    // Others can open this folder, but must not be able to open the files in it.
    fs::create_dir(folder.join("old")).unwrap();
    fs::set_permissions(folder.join("old"), fs::Permissions::from_mode(0o755)).unwrap();
    for (arguments, code) in [
        (
            &["import", "--from", "a.csv", "--rejects", "bad.csv"][..],
            1,
        ),
        (
            &[
                "import",
                "--from",
                "a.csv",
                "--store",
                "sled:./sled",
                "--rejects",
                "bad2.csv",
            ],
            1,
        ),
        (
            &[
                "import",
                "--from",
                "a.csv",
                "--store",
                "sled:./old",
                "--rejects",
                "bad2.csv",
            ],
            1,
        ),
        (&["export", "--to", "all.csv"], 0),
        (&["backup", "copy.db"], 0),
        (
            &[
                "copy",
                "--from",
                "sqlite:copy.db",
                "--to",
                "sqlite:./other.db",
            ],
            0,
        ),
    ] {
        let (found, _, said) = run(&mut open_to_all(folder, arguments));
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
    }
    let (_listens, _) = Running::until(
        open_to_all(folder, &["device", "listen"]),
        "listening for pushes",
    );
    for store in ["sled:./served/below", "sqlite:./passkit.db"] {
        let (_served, url) = serve(folder, store);
        let (code, _, said) = run(&mut open_to_all(
            folder,
            &["device", "add", "passes/a.pkpass", "--url", &url],
        ));
        assert_eq!(code, Some(0), "{said}");
        let mut found = Vec::new();
        modes(folder, Path::new(""), &mut found);
        let is_wrong = |(path, mode): &&(PathBuf, u32)| {
            let is_old = path == Path::new("old");
            let is_dir = folder.join(path).is_dir();
            *mode
                != if is_old {
                    0o755
                } else if is_dir {
                    0o700
                } else {
                    0o600
                }
        };
        let wrong: Vec<_> = found.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        for expected in [
            "passkit.db",
            "sled/db",
            "old/db",
            "bad.csv",
            "all.csv",
            "copy.db",
            "passkit-device.json",
            "passkit-device.push/apns.p8",
            "served/below/db",
        ] {
            let is_there = found.iter().any(|(path, _)| path == Path::new(expected));
            assert!(is_there, "{expected} is not in {found:#?}");
        }
    }
    let mut found = Vec::new();
    modes(folder, Path::new(""), &mut found);
    let is_there = |name: &str| found.iter().any(|(path, _)| path == Path::new(name));
    assert!(is_there("passkit-copies/catalog.db"), "{found:#?}");
}

/// Runs a command with a link at `planted`. First the link leads to nothing, then to a file of another user.
fn with_link(planted: &str, arguments: &[&str]) {
    for exists in [false, true] {
        let temporary = folder();
        let folder = temporary.path();
        let target = folder.join("target");
        if exists {
            fs::write(&target, "another's").unwrap();
        }
        let (code, _, said) = run(&mut open_to_all(
            folder,
            &["import", "--from", "a.csv", "--store", "sqlite:./source.db"],
        ));
        assert_eq!(code, Some(1), "{said}");
        let link = folder.join(planted);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&target, &link).unwrap();
        if arguments[0] == "serve" || arguments[1] == "listen" {
            // It starts, or refuses to.
            let mut command = open_to_all(folder, arguments);
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
            read.unwrap();
            drop(Running(child));
        } else {
            run(&mut open_to_all(folder, arguments));
        }
        if exists {
            assert_eq!(fs::read(&target).unwrap(), b"another's", "{planted}");
        } else {
            assert!(!target.exists(), "{planted} was followed");
        }
    }
}

#[test]
fn planted_links_are_not_followed() {
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--passes",
        "passes",
        "--store",
    ];
    for (planted, store) in [
        ("passkit.db", "sqlite:./passkit.db"),
        ("passkit.db-wal", "sqlite:./passkit.db"),
        ("passkit.db-shm", "sqlite:./passkit.db"),
        ("passkit-copies/lock", "sqlite:./passkit.db"),
        ("passkit-copies/catalog.db", "sqlite:./passkit.db"),
        ("passkit-copies/catalog.db-wal", "sqlite:./passkit.db"),
        ("sled/lock", "sled:./sled"),
        ("sled/db", "sled:./sled"),
    ] {
        with_link(planted, &[&serve[..], &[store]].concat());
    }
    let source = "sqlite:./source.db";
    with_link(
        "bad.csv",
        &[
            "import",
            "--from",
            "a.csv",
            "--store",
            source,
            "--rejects",
            "bad.csv",
        ],
    );
    with_link("all.csv", &["export", "--store", source, "--to", "all.csv"]);
    with_link("copy.db", &["backup", "copy.db", "--store", source]);
    with_link("copy.db.partial", &["backup", "copy.db", "--store", source]);
    for planted in [
        "passkit-device.json",
        "passkit-device.json.lock",
        "passkit-device.push",
        "passkit-device.push/apns.p8",
        "passkit-device.push/apns.toml",
        "passkit-device.push/root.pem",
    ] {
        with_link(planted, &["device", "listen"]);
    }
}

#[test]
fn a_mode_that_gives_others_rights_is_a_warning() {
    let temporary = folder();
    let folder = temporary.path();
    for store in ["sqlite:./passkit.db", "sled:./sled"] {
        let (code, _, said) = run(&mut open_to_all(
            folder,
            &["import", "--from", "a.csv", "--store", store],
        ));
        assert_eq!(code, Some(1), "{said}");
        assert!(!said.contains("chmod"), "{said}");
    }
    for (path, mode, store, expected) in [
        ("passkit.db", 0o644, "sqlite:./passkit.db", "chmod 600"),
        ("sled", 0o750, "sled:./sled", "chmod 700"),
    ] {
        fs::set_permissions(folder.join(path), fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, said) = run(passkit()
            .args(["stats", "--store", store])
            .current_dir(folder));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(expected) && said.contains(path), "{said}");
    }
    fs::create_dir(folder.join("copies")).unwrap();
    fs::set_permissions(folder.join("copies"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = passkit();
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--passes", "passes"])
        .args(["--copies", "copies", "--store", "sqlite:./passkit.db"])
        .current_dir(folder);
    let said = folder.join("said");
    command.stderr(fs::File::create(&said).unwrap());
    let (_served, _) = Running::until(command, "listening on ");
    eventually("both are warned of", || {
        let said = fs::read_to_string(&said).unwrap();
        said.contains("chmod 600") && said.contains("chmod 700 copies")
    });
}
