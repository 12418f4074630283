//! Processes that end with the tests, whatever ends those.

use std::{
    env,
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Where a program is on this machine.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A port that is free, and the one 10,000 above it too, where Redis Cluster listens as well.
pub(crate) fn free_port() -> io::Result<u16> {
    // Below what the system gives to outgoing connections. Each process starts elsewhere.
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

/// Asks until it is so.
pub(crate) fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> io::Result<()> {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > limit {
            return Err(io::Error::other(format!("{what}: not so after {limit:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A running program. A shell keeps watch over it: when this process ends, in whatever way, the shell's input ends,
/// and it kills the program.
#[derive(Debug)]
pub(crate) struct Process {
    watch: Child,
    pid: String,
}

impl Process {
    /// Starts a program in a folder, where its output goes to `log`.
    pub(crate) fn start(program: &Path, args: &[String], folder: &Path) -> io::Result<Self> {
        const WATCH: &str =
            r#""$@" >>log 2>&1 </dev/null & echo $!; exec >/dev/null 2>&1; cat >/dev/null; kill -9 $!; wait"#;
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
        Ok(Self { watch, pid: pid.trim().to_owned() })
    }

    /// Sends a signal: `KILL`, `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        Command::new("kill").args([&format!("-{name}"), &self.pid]).stderr(Stdio::null()).status().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ended = self.watch.wait();
    }
}
