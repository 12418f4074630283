//! Programs that run during the tests, and end with them.

use std::{
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

/// Returns a free port. The port with the number 10,000 higher is free too, because Redis Cluster listens on both.
pub(crate) fn free_port() -> io::Result<u16> {
    // These ports are below the ports of outgoing connections. Each process starts at a different port.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 127 * 100) as u16;
    for _ in 0..12_700 {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_700;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free port between 10,000 and 22,700"))
}

/// Finds a program on the `PATH`, or in one of these folders.
pub(crate) fn find(name: &str, folders: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Returns a user and group for a program that refuses to run as root. Returns `None` if this process is not root.
pub(crate) fn unprivileged(names: &[&str]) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    names.iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// Runs `program` until the standard input of the returned child is closed. The input also closes when this process is
/// killed. Then `program` gets SIGINT, and `folder` is removed. The folder is kept if a line was sent to the child before.
/// If `folder` is an empty path, nothing is removed.
pub(crate) fn guarded(
    program: &Command,
    folder: &Path,
    user: Option<(u32, u32)>,
) -> io::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    const GUARD: &str = r#"
        folder=$1; shift
        "$@" </dev/null & child=$!
        while read -r _; do folder=; done
        kill -INT $child 2>/dev/null
        wait $child
        [ -z "$folder" ] || rm -rf "$folder"
    "#;
    let mut guard = Command::new("sh");
    guard
        .args(["-c", GUARD, "guard"])
        .arg(folder)
        .arg(program.get_program())
        .args(program.get_args());
    if let Some(here) = program.get_current_dir() {
        guard.current_dir(here);
    }
    if let Some((user, group)) = user {
        guard.uid(user).gid(group);
    }
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Runs `command` when the standard input of the returned child is closed. The input also closes when this process is
/// killed.
#[cfg(feature = "containers")]
pub(crate) fn at_end(command: &Command) -> io::Result<Child> {
    let mut guard = Command::new("sh");
    guard.args(["-c", r#"while read -r _; do :; done; exec "$@""#, "guard"]);
    guard.arg(command.get_program()).args(command.get_args());
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Returns the processes that a process has started.
pub(crate) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // The name is in brackets, and may contain anything.
        let status = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = status.rsplit_once(')').map_or("", |(_, fields)| fields);
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(id);
        }
    }
    Ok(children)
}

/// Returns whether the process is running. A zombie is not running.
pub(crate) fn is_alive(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    status
        .rsplit_once(')')
        .is_some_and(|(_, fields)| !fields.trim_start().starts_with('Z'))
}

/// A running program. A shell watches it, and kills it when the input of the shell is closed. The input also closes when
/// this process is killed.
#[derive(Debug)]
pub(crate) struct Process {
    watch: Child,
    pid: String,
}

impl Process {
    /// Starts a program in a folder. Its output goes to the file `log` there.
    pub(crate) fn start(program: &Path, args: &[String], folder: &Path) -> io::Result<Self> {
        const WATCH: &str = r#""$@" >>log 2>&1 </dev/null & echo $!; exec >/dev/null 2>&1; cat >/dev/null; kill -9 $!; wait"#;
        let mut watch = Command::new("/bin/sh")
            .args(["-c", WATCH, "watch"])
            .arg(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut pid = String::new();
        if let Some(out) = watch.stdout.take() {
            BufReader::new(out).read_line(&mut pid)?;
        }
        Ok(Self {
            watch,
            pid: pid.trim().to_owned(),
        })
    }

    /// Returns whether the program has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.pid.parse().map_or(true, |id| !is_alive(id))
    }

    /// Sends a signal, such as `KILL`, `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        Command::new("kill")
            .args([&format!("-{name}"), &self.pid])
            .stderr(Stdio::null())
            .status()
            .map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ended = self.watch.wait();
    }
}
