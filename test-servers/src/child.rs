//! Runs a test again in a child process, which can be killed, or traced with strace.
//!
//! The child process runs a separate test. In the parent process, where [`path`] is `None`, this test returns at once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PATH: &str = "PASSKIT_TEST_CHILD";

/// Returns the place of the child's store, or `None` in the parent.
#[must_use]
pub fn path() -> Option<PathBuf> {
    std::env::var_os(PATH).map(PathBuf::from)
}

/// Returns a command that runs one test of this program as a child.
#[must_use]
pub fn command(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PATH, path);
    command
}

/// Runs the work of a child on a runtime with two threads.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    // The test harness has not ended its current line yet.
    report("");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Writes a complete line to the parent, and flushes it.
pub fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Runs a test as a child under strace, with these options. Returns its output and the trace.
///
/// # Panics
/// Panics if strace is not installed.
#[must_use]
pub fn traced(test: &str, path: &Path, options: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let child = command(test, path);
    let mut strace = Command::new("strace");
    strace
        .arg("-f")
        .args(options)
        .arg("-o")
        .arg(&trace)
        .arg(child.get_program())
        .args(child.get_args())
        .env(PATH, path);
    let output = match strace.output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!(
                "this test needs strace: install it, for example with \"apt-get install strace\""
            )
        }
        ended => ended.unwrap(),
    };
    let trace = fs::read_to_string(trace).unwrap_or_default();
    (output, trace)
}

/// A system call on a file, with the lines of the trace at which it began and ended.
#[derive(Debug)]
pub struct SystemCall {
    /// The name of the system call.
    pub name: String,
    /// The line of the trace at which it began.
    pub began: usize,
    /// The line of the trace at which it ended.
    pub ended: usize,
}

impl SystemCall {
    /// Returns whether the system call returns only when the file is on disk.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync")
    }
}

/// The trace of a child. The child reports `begin-x.` before an operation and `acknowledged-x.` after it.
#[derive(Debug)]
pub struct Trace {
    text: String,
    /// The writes and syncs of the file.
    pub calls: Vec<SystemCall>,
}

impl Trace {
    /// Runs a test as a child under strace, with these additional options. Returns the writes and syncs of the file.
    /// The folder of the file must still exist when the child has ended.
    ///
    /// # Panics
    /// Panics if strace is not installed, or the child failed.
    #[must_use]
    pub fn record(test: &str, store: &Path, file: &Path, options: &[&str]) -> Self {
        let all = ["-y", "-e", "trace=pwrite64,write,fdatasync,fsync"];
        let (output, text) = traced(test, store, &[&all, options].concat());
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{printed}");
        let file = fs::canonicalize(file.parent().unwrap())
            .unwrap()
            .join(file.file_name().unwrap());
        let calls = system_calls(&text, &format!("<{}>", file.display()));
        Self { text, calls }
    }

    /// Returns how often a text is in the trace.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.text.matches(text).count()
    }

    /// Returns the line of the trace at which the child reported this text.
    ///
    /// # Panics
    /// Panics if the child did not report it.
    #[must_use]
    pub fn line_of(&self, text: &str) -> usize {
        let text = format!("\"{text}.");
        self.text
            .lines()
            .position(|line| line.contains(&text) && line.contains("write(1"))
            .unwrap_or_else(|| panic!("{text} is not in the trace"))
    }

    /// Checks that the file is synced between the last write of each operation and its acknowledgement.
    ///
    /// # Panics
    /// Panics if an operation wrote nothing, or was acknowledged too early.
    pub fn assert_synced(&self, operations: usize) {
        for i in 0..operations {
            let begin = self.line_of(&format!("begin-{i}"));
            let acknowledged = self.line_of(&format!("acknowledged-{i}"));
            let last_write = self
                .calls
                .iter()
                .filter(|call| {
                    call.name == "pwrite64" && (begin..acknowledged).contains(&call.began)
                })
                .map(|call| call.ended)
                .max()
                .unwrap_or_else(|| panic!("operation {i} wrote nothing"));
            assert!(
                self.calls.iter().any(|call| call.is_sync()
                    && call.began > last_write
                    && call.ended < acknowledged),
                "operation {i} was acknowledged without a sync after its last write"
            );
        }
    }
}

/// Returns the system calls on a file. If another thread interrupted a call, it is on two lines of the trace.
fn system_calls(trace: &str, file: &str) -> Vec<SystemCall> {
    let mut unfinished: HashMap<(&str, &str), usize> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let (thread, call) = line.split_once(' ').unwrap_or((line, ""));
        let call = call.trim_start();
        if let Some(resumed) = call.strip_prefix("<... ") {
            let name = resumed.split(' ').next().unwrap_or_default();
            if let Some(began) = unfinished.remove(&(thread, name)) {
                calls.push(SystemCall {
                    name: name.to_owned(),
                    began,
                    ended: at,
                });
            }
        } else if call.contains(file) {
            let name = call.split('(').next().unwrap_or_default();
            if call.ends_with("<unfinished ...>") {
                unfinished.insert((thread, name), at);
            } else {
                calls.push(SystemCall {
                    name: name.to_owned(),
                    began: at,
                    ended: at,
                });
            }
        }
    }
    calls
}
