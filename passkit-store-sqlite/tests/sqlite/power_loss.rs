use std::{
    collections::BTreeMap,
    fs, mem,
    path::{Path, PathBuf},
};

use passkit_server::{Changed, store::RegistrationStore as _};
use passkit_store_sqlite::{SqliteStore, rusqlite::Connection};
use passkit_test_servers::child::{self, report};

use crate::support::{device, pass, registered, serial, token, type_id};

const ROUNDS: usize = 2;
const CHANGES: usize = 6;

async fn change(store: &SqliteStore, number: usize) {
    let number = number.to_string();
    store
        .register(&device("phone"), &pass(&number), &token())
        .await
        .unwrap();
    store
        .mark(&type_id(), Changed::Passes(&[serial(&number)]))
        .await
        .unwrap();
    report(&format!("acknowledged-{number}."));
}

/// The log starts over once in each round, and is removed at the end of the round.
#[test]
fn the_child() {
    let Some(path) = child::path() else { return };
    child::run(async {
        let mut number = 0;
        for _ in 0..ROUNDS {
            let store = SqliteStore::create(&path).unwrap();
            for restart in [true, false] {
                for _ in 0..CHANGES {
                    change(&store, number).await;
                    number += 1;
                }
                if restart {
                    let own = Connection::open(&path).unwrap();
                    own.pragma_update(None, "synchronous", "full").unwrap();
                    own.query_row("pragma wal_checkpoint(restart)", [], |_| Ok(()))
                        .unwrap();
                }
            }
        }
    });
}

/// A file, with the parts that a power loss may remove.
#[derive(Clone, Default)]
struct File {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// The removed file that had this name before. It comes back if the folder was not synced after the removal.
    removed: Option<Vec<u8>>,
    /// Whether the folder was synced since the file was made.
    is_named: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl File {
    /// Returns the content after a power loss. An unsynced change stays only if `stays` accepts it.
    fn after_loss(&self, mut stays: impl FnMut() -> bool) -> Option<Vec<u8>> {
        if let Some(removed) = &self.removed
            && !stays()
        {
            return Some(removed.clone());
        }
        if !self.is_named && !stays() {
            return None;
        }
        let mut bytes = self.durable.clone();
        for change in self.unsynced.iter().filter(|_| stays()) {
            change.apply(&mut bytes);
        }
        Some(bytes)
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
            Self::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

/// The files of a folder. They are derived from the system calls of a process.
struct Disk {
    folder: PathBuf,
    files: BTreeMap<String, File>,
}

impl Disk {
    /// Follows a call, given by its name, its text and what it returned. Returns whether it made something durable.
    fn follow(&mut self, name: &str, call: &str) -> bool {
        let call = call.strip_suffix(" <unfinished ...>").unwrap_or(call);
        let Some(file) = self.file_of(call) else {
            let is_of_folder = call.contains(&format!("<{}>", self.folder.display()));
            if is_of_folder && matches!(name, "fsync" | "fdatasync") {
                for file in self.files.values_mut() {
                    (file.removed, file.is_named) = (None, true);
                }
                return true;
            }
            return false;
        };
        let numbers = || {
            let rest = call.rsplit_once('"').map_or(call, |(_, rest)| rest);
            let rest = rest.split(')').next().unwrap();
            let numbers = rest.split(", ").filter_map(|text| text.parse().ok());
            numbers.collect::<Vec<usize>>()
        };
        match name {
            "pwrite64" => {
                let written = bytes_of(call);
                let [length, at] = numbers()[..] else {
                    panic!("{call}")
                };
                assert_eq!(written.len(), length);
                let file = self.files.entry(file).or_default();
                file.unsynced.push(Change::Write(at, written));
            }
            "ftruncate" => {
                let length = *numbers().last().unwrap();
                let file = self.files.entry(file).or_default();
                file.unsynced.push(Change::Truncate(length));
            }
            "unlink" if !call.contains(") = -1 ") => {
                let old = self.files.remove(&file).unwrap_or_default();
                // In the worst case, the file that had this name before is back.
                let removed = old.after_loss(|| false);
                self.files.insert(
                    file,
                    File {
                        removed,
                        ..File::default()
                    },
                );
            }
            "fsync" | "fdatasync" => {
                let file = self.files.entry(file).or_default();
                for change in mem::take(&mut file.unsynced) {
                    change.apply(&mut file.durable);
                }
                return true;
            }
            _ => {}
        }
        false
    }

    /// Returns the name of the file that a call is about, if the file is in the folder.
    fn file_of(&self, call: &str) -> Option<String> {
        let (_, name) = call.split_once(&format!("{}/", self.folder.display()))?;
        let name: String = name
            .chars()
            .take_while(|c| !matches!(c, '>' | '"'))
            .collect();
        // SQLite makes this file again.
        (!name.ends_with("-shm")).then_some(name)
    }

    fn lose_power(&self, folder: &Path, mut stays: impl FnMut() -> bool) {
        fs::create_dir(folder).unwrap();
        for (name, file) in &self.files {
            if let Some(bytes) = file.after_loss(&mut stays) {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
    }
}

/// The first string in a call, as strace shows it.
fn bytes_of(call: &str) -> Vec<u8> {
    let (_, text) = call.split_once('"').unwrap();
    let mut bytes = Vec::new();
    let mut text = text.bytes().peekable();
    while let Some(byte) = text.next() {
        match byte {
            b'"' => return bytes,
            b'\\' => bytes.push(match text.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'f' => 12,
                b'v' => 11,
                digit @ b'0'..=b'7' => {
                    let mut value = digit - b'0';
                    for _ in 0..2 {
                        let Some(digit) = text.next_if(|byte| matches!(byte, b'0'..=b'7')) else {
                            break;
                        };
                        value = value * 8 + (digit - b'0');
                    }
                    value
                }
                other => other,
            }),
            other => bytes.push(other),
        }
    }
    panic!("the string is cut off: {call:.80}")
}

/// Checks that everything that was acknowledged is there.
async fn check(path: &Path, acknowledged: usize) {
    let store = SqliteStore::open(path).unwrap();
    let found = registered(&store, &device("phone")).await;
    for number in 0..acknowledged {
        let number = number.to_string();
        assert!(
            found.contains(&number),
            "{number} of {acknowledged} is lost"
        );
        let state = store.pass_state(&pass(&number)).await.unwrap();
        assert!(state.version > 0, "the mark of {number} is lost");
    }
    drop(store);
    let own = Connection::open(path).unwrap();
    let check = own.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
}

/// At each sync and each acknowledgement, the power fails. None or some of the unsynced writes are on the disk.
#[tokio::test]
async fn a_power_loss_takes_back_nothing_acknowledged() {
    if child::path().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let calls = "trace=pwrite64,write,ftruncate,unlink,fsync,fdatasync";
    let options = ["-y", "-s", "100000", "-e", calls];
    let path = place.join("passkit.db");
    let (output, trace) = child::traced("power_loss::the_child", &path, &options);
    assert!(output.status.success(), "{output:?}");

    let mut disk = Disk {
        folder: place,
        files: BTreeMap::new(),
    };
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut acknowledged, mut losses, mut unsynced) = (0, 0, 0);
    let mut random = u64::from(std::process::id());
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap_or((line, ""));
        let call = call.trim_start();
        // A write counts from its start, and a sync from its end.
        let is_sync = |call: &str| call.starts_with("fsync") || call.starts_with("fdatasync");
        let call = if call.starts_with("<... ") {
            match begun.remove(thread) {
                Some(begun) => begun,
                None => continue,
            }
        } else if call.ends_with("<unfinished ...>") && is_sync(call) {
            begun.insert(thread, call);
            continue;
        } else {
            call
        };
        let name = call.split('(').next().unwrap_or_default();
        let is_acknowledgement = name == "write" && call.contains("\"acknowledged-");
        if is_acknowledgement {
            acknowledged += 1;
        }
        // A power loss just before a sync loses the most.
        let before = if is_sync(call) && acknowledged > 0 {
            Some(disk.files.clone())
        } else {
            None
        };
        let is_durable = name != "write" && disk.follow(name, call);
        if acknowledged == 0 || !(is_durable || is_acknowledgement) {
            continue;
        }
        let now = disk.files.clone();
        for files in before.into_iter().chain([now]) {
            unsynced += files
                .values()
                .map(|file| file.unsynced.len())
                .sum::<usize>();
            let state = Disk {
                folder: disk.folder.clone(),
                files,
            };
            for some in [false, true] {
                losses += 1;
                let folder = folder.path().join(format!("loss-{losses}"));
                state.lose_power(&folder, || {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    some && random >> 63 == 1
                });
                check(&folder.join("passkit.db"), acknowledged).await;
                fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
    assert_eq!(acknowledged, ROUNDS * 2 * CHANGES);
    assert!(losses > 100 && unsynced > 0, "{losses} {unsynced}");
    eprintln!("{losses} power losses, {unsynced} unsynced writes");
}
