//! Whether the hot paths of the service became dearer: instructions and allocations for a request, in process over the
//! memory store, beside the numbers in `instructions.txt`. The numbers say nothing about time, but are the same on a busy
//! machine.
//!
//! `cargo bench -p passkit-benches --bench instructions`; with `-- --bless` it writes the file anew. Needs valgrind.

#![allow(clippy::expect_used)]

use std::{
    alloc::System,
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
};

use passkit_benches::http::{self, Case, with_body};
use passkit_server::MemoryStore;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tower_service::Service as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PATHS: [Case; 3] = [Case::ListNothing, Case::ListAll, Case::PassUnchanged];
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// In percent: the compiler's and the C library's version make that much.
const TOLERANCE: f64 = 5.0;
const BLESS: &str = "if that is meant, cargo bench -p passkit-benches --bench instructions -- --bless";

/// What a child process does: the number of the path, and how many of the requests that it makes it sends.
const RUN: &str = "PASSKIT_BENCH_RUN";

const UNDER_VALGRIND: usize = 2_000;

/// Enough for the maps to have some depth.
const REGISTRATIONS: usize = 3_000;

/// For one request.
#[derive(Clone, Copy)]
struct Counts {
    instructions: f64,
    allocations: usize,
}

fn main() -> ExitCode {
    if let Ok(run) = env::var(RUN) {
        let (path, sent) = run.split_once(' ').expect("path and requests");
        let path = PATHS[path.parse::<usize>().expect("a number")];
        let _done = allocated(path, &[UNDER_VALGRIND], sent.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let counted: Result<Vec<_>, String> = (0..PATHS.len()).map(|path| Ok((path, count(path)?))).collect();
    let checked = counted.and_then(|counts| {
        if env::args().any(|arg| arg == "--bless") { bless(&counts) } else { check(&counts) }
    });
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("instructions: {line}");
            ExitCode::FAILURE
        }
    }
}

fn count(path: usize) -> Result<Counts, String> {
    let name = PATHS[path].name();
    // The difference of two runs is free of what starting costs, and making the requests.
    let instructions =
        (under_valgrind(path, UNDER_VALGRIND)? - under_valgrind(path, 0)?) / UNDER_VALGRIND as f64;
    let [(a, live_a), (b, live_b), (c, live_c)] =
        allocated(PATHS[path], &[100, 1_000, 10_000], usize::MAX)[..]
    else {
        return Err("three counts were asked for".into());
    };
    if live_c != live_b || live_b != live_a {
        return Err(format!(
            "{name}: {live_b} bytes are held after 1,000 requests, {live_c} after 10,000 more; find what holds them"
        ));
    }
    let (b, c) = (b - a, c - b);
    if b != 1_000 * (c / 10_000) {
        return Err(format!("{name}: {b} allocations for 1,000 requests, but {c} for 10,000"));
    }
    Ok(Counts { instructions, allocations: c / 10_000 })
}

fn under_valgrind(path: usize, sent: usize) -> Result<f64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .env(RUN, format!("{path} {sent}"))
        .output()
        .map_err(|error| format!("can't start valgrind ({error}); Debian: apt-get install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, counted) = counted.ok_or_else(|| format!("valgrind counted nothing: {said}"))?;
    counted.trim().parse().map_err(|error| format!("valgrind counted {counted:?}: {error}"))
}

/// Makes that many requests, then that many, and sends so many of them. For each, all allocations so far but those for
/// making the requests, and the bytes that are held.
fn allocated(case: Case, rounds: &[usize], sent: usize) -> Vec<(usize, isize)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Arc::new(MemoryStore::new());
        let tag = http::load(&*store, REGISTRATIONS).await;
        let mut service = http::service(store);
        let mut counts = Vec::with_capacity(rounds.len());
        let mut all = 0;
        for requests in rounds {
            for number in 0..*requests {
                let request = with_body(case.request(&tag, 0));
                let before = allocations();
                if number < sent {
                    let Ok(answer) = service.call(request).await;
                    assert_eq!(answer.status(), case.status());
                }
                all += allocations() - before;
            }
            let stats = ALLOCATOR.stats();
            counts.push((all, stats.bytes_allocated as isize - stats.bytes_deallocated as isize));
        }
        counts
    })
}

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

fn bless(counts: &[(usize, Counts)]) -> Result<(), String> {
    let mut text = String::from(
        "# Path, instructions and allocations for a request. Written by the bench `instructions` with --bless.\n",
    );
    for (path, counts) in counts {
        let Counts { instructions, allocations } = counts;
        text.push_str(&format!("{}, {instructions:.0}, {allocations}\n", PATHS[*path].name()));
    }
    print!("{text}");
    fs::write(Path::new(FILE), text).map_err(|error| format!("can't write {FILE}: {error}"))
}

fn check(counts: &[(usize, Counts)]) -> Result<(), String> {
    let text = fs::read_to_string(FILE).map_err(|error| format!("can't read {FILE}: {error}; {BLESS}"))?;
    let mut known = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let [path, instructions, allocations] = line.split(", ").collect::<Vec<_>>()[..] {
            known.insert(path, (instructions.parse::<f64>().ok(), allocations.parse::<usize>().ok()));
        }
    }
    let mut wrong = Vec::new();
    for (path, Counts { instructions, allocations }) in counts {
        let name = PATHS[*path].name();
        let Some((Some(instructions_before), Some(allocations_before))) = known.get(name).copied() else {
            wrong.push(format!("{name} is not in instructions.txt"));
            continue;
        };
        let change = (instructions / instructions_before - 1.0) * 100.0;
        println!(
            "{name}: {instructions:.0} instructions, {change:+.1} %; {allocations} allocations, before {allocations_before}"
        );
        if change.abs() > TOLERANCE {
            wrong.push(format!(
                "{name} takes {instructions:.0} instructions, before {instructions_before:.0}"
            ));
        }
        if *allocations != allocations_before {
            wrong.push(format!("{name} takes {allocations} allocations, before {allocations_before}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}; {BLESS}", wrong.join("; "))) }
}
