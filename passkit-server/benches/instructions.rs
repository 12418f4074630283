//! Compares the cost of the hot paths with the numbers in `instructions.txt`. The bench counts the
//! instructions and allocations of a request in one process over the memory store. Unlike times,
//! the counts are the same on a busy machine.
//!
//! Run `cargo bench -p passkit-server --bench instructions`. With `-- --bless` the bench rewrites
//! the file. It needs valgrind.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a bench has no caller that could handle an error"
)]

use std::{
    alloc::System,
    env, fs,
    process::{Command, ExitCode},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use passkit_server::{
    ArchiveBody, AuthToken, Changed, Credentials, PassId, PassSource, PassState, SourceError,
    WalletService, async_trait,
    delivery::DeliveryRecorder,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TokenDigest},
    store::{MemoryStore, RegistrationStore as _},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tower_service::Service as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const BLESS: &str =
    "if that is meant, cargo bench -p passkit-server --bench instructions -- --bless";

/// The tolerance in percent. Counts differ that much between C libraries and between processors.
const TOLERANCE: f64 = 10.0;

/// The environment variable with the arguments of a child process: the number of the path, and how
/// many of its requests to send.
const RUN: &str = "PASSKIT_BENCH_RUN";

const UNDER_VALGRIND: usize = 2_000;

/// The number of devices. This many give the maps some depth.
const DEVICES: usize = 1_000;

/// The number of passes on each device.
const EACH: usize = 3;

/// Recording may take this many percent more instructions for a request.
const MOST_FOR_RECORDING: f64 = 3.0;

const TYPE: &str = "pass.com.example.bench";
const TOKEN: &str = "a-token-of-the-bench";

/// A request and its expected answer.
#[derive(Clone, Copy)]
struct Path {
    name: &'static str,
    /// Whether the service has a recorder of delivery records.
    recorder: bool,
    status: u16,
    request: fn(known: &Known, device: usize) -> Request<Full<Bytes>>,
}

/// What a device knows from earlier answers.
struct Known {
    tag: String,
    last_modified: HeaderValue,
}

const LIST_204: Path = Path {
    name: "list 204",
    recorder: false,
    status: 204,
    request: |known, _| get(format!("{}?passesUpdatedSince={}", list(0), known.tag)),
};

const LIST_200: Path = Path {
    name: "list 200",
    recorder: false,
    status: 200,
    request: |_, device| get(list(device)),
};

const PASS_304: Path = Path {
    name: "pass 304",
    recorder: false,
    status: 304,
    request: |known, device| {
        let mut request = get(pass(device));
        let date = known.last_modified.clone();
        request.headers_mut().insert("if-modified-since", date);
        request
    },
};

const PASS_200: Path = Path {
    name: "pass 200",
    recorder: false,
    status: 200,
    request: |_, device| get(pass(device)),
};

const PATHS: [Path; 9] = [
    LIST_204,
    LIST_200,
    PASS_304,
    PASS_200,
    Path {
        name: "register 200",
        recorder: false,
        status: 200,
        request: |_, device| {
            let mut request = get(format!("{}/{}", list(device), serial(device, 0)));
            *request.method_mut() = http::Method::POST;
            *request.body_mut() =
                Full::from(format!(r#"{{"pushToken":"{}"}}"#, push_token().as_str()));
            request
        },
    },
    Path {
        name: "list 204 recorded",
        recorder: true,
        ..LIST_204
    },
    Path {
        name: "list 200 recorded",
        recorder: true,
        ..LIST_200
    },
    Path {
        name: "pass 304 recorded",
        recorder: true,
        ..PASS_304
    },
    Path {
        name: "pass 200 recorded",
        recorder: true,
        ..PASS_200
    },
];

fn get(path: String) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("authorization", format!("ApplePass {TOKEN}"));
    request.body(Full::default()).expect("a request")
}

fn list(device: usize) -> String {
    format!("/v1/devices/{device:032x}/registrations/{TYPE}")
}

fn pass(device: usize) -> String {
    format!("/v1/passes/{TYPE}/{}", serial(device, 0))
}

fn serial(device: usize, number: usize) -> String {
    format!("SERIAL-{:08}", device * EACH + number)
}

fn push_token() -> PushToken {
    PushToken::new(&"ab".repeat(32)).expect("a push token")
}

/// A source that has every pass, with one token for all.
struct Passes(TokenDigest, Bytes);

#[async_trait]
impl PassSource for Passes {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        Ok(Some(self.0.into()))
    }

    async fn archive(&self, _: &PassId, _: &PassState) -> Result<Option<ArchiveBody>, SourceError> {
        Ok(Some(self.1.clone().into()))
    }
}

/// Makes the service over a store with registrations. All passes have the same date.
async fn service() -> (
    WalletService<Arc<MemoryStore>, Passes>,
    DeliveryRecorder,
    Known,
) {
    let store = Arc::new(MemoryStore::new());
    let device =
        |number: usize| DeviceIdentifier::new(&format!("{number:032x}")).expect("a device");
    let id = |number, each| PassId::new(TYPE, &serial(number, each)).expect("a pass");
    for number in 0..DEVICES {
        for each in 0..EACH {
            let registered = store
                .register(&device(number), &id(number, each), &push_token())
                .await;
            registered.expect("registered");
        }
    }
    let passes: Vec<PassId> = (0..DEVICES)
        .flat_map(|number| (0..EACH).map(move |each| id(number, each)))
        .collect();
    let serials: Vec<SerialNumber> = passes.iter().map(|pass| pass.serial.clone()).collect();
    let type_id = &passes[0].type_id;
    store
        .mark(type_id, Changed::Passes(&serials))
        .await
        .expect("marked");
    let changes = store
        .changes_since(&device(0), type_id, None)
        .await
        .expect("an answer");
    let state = store.pass_state(&passes[0]).await.expect("a state");
    let date = UNIX_EPOCH + Duration::from_secs(state.last_modified);
    let known = Known {
        tag: changes.tag.to_string(),
        last_modified: httpdate::fmt_http_date(date).parse().expect("a date"),
    };
    let token = AuthToken::new(TOKEN).expect("a token").digest();
    let recorder = DeliveryRecorder::new(store.clone(), store.clone());
    (
        WalletService::new(store, Passes(token, Bytes::from_static(&[b'p'; 1_000]))),
        recorder,
        known,
    )
}

/// The cost of one request.
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
    let counted: Result<Vec<Counts>, String> = (0..PATHS.len()).map(count).collect();
    let counted = counted.and_then(|counts| check_recording(&counts).map(|()| counts));
    let checked = counted.and_then(|counts| {
        if env::args().any(|arg| arg == "--bless") {
            bless(&counts)
        } else {
            check(&counts)
        }
    });
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("instructions: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Compares the paths with a recorder to the same paths without one.
fn check_recording(counts: &[Counts]) -> Result<(), String> {
    let instructions = |name: &str| {
        let mut named = PATHS.iter().zip(counts);
        named
            .find_map(|(path, counts)| (path.name == name).then_some(counts.instructions))
            .ok_or_else(|| format!("there is no path {name}"))
    };
    for path in PATHS.iter().filter(|path| path.recorder) {
        let without = path.name.trim_end_matches(" recorded");
        let more = (instructions(path.name)? / instructions(without)? - 1.0) * 100.0;
        println!("{}: {more:+.1} % compared with {without}", path.name);
        if more > MOST_FOR_RECORDING {
            return Err(format!(
                "{} takes {more:.1} % more instructions than {without}, and may take {MOST_FOR_RECORDING} % more",
                path.name
            ));
        }
    }
    Ok(())
}

fn count(path: usize) -> Result<Counts, String> {
    let name = PATHS[path].name;
    // The difference of two runs excludes the cost of starting and of building the requests.
    let instructions =
        (under_valgrind(path, UNDER_VALGRIND)? - under_valgrind(path, 0)?) / UNDER_VALGRIND as f64;
    let [(a, live_a), (b, live_b), (c, live_c)] =
        allocated(PATHS[path], &[100, 1_000, 10_000], usize::MAX)[..]
    else {
        return Err("three counts were asked for".into());
    };
    if live_c != live_b || live_b != live_a {
        return Err(format!(
            "{name}: {live_b} bytes are in use after 1,000 requests, {live_c} after 10,000 more; find what holds them"
        ));
    }
    let (b, c) = (b - a, c - b);
    if b != 1_000 * (c / 10_000) {
        return Err(format!(
            "{name}: {b} allocations for 1,000 requests, but {c} for 10,000"
        ));
    }
    Ok(Counts {
        instructions,
        allocations: c / 10_000,
    })
}

fn under_valgrind(path: usize, sent: usize) -> Result<f64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .env(RUN, format!("{path} {sent}"))
        .output()
        .map_err(|error| {
            format!("can't start valgrind ({error}); Debian: apt-get install valgrind")
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, counted) = counted.ok_or_else(|| format!("valgrind counted nothing: {said}"))?;
    counted
        .trim()
        .parse()
        .map_err(|error| format!("valgrind counted {counted:?}: {error}"))
}

/// For each of `rounds`, builds that many requests and sends up to `sent` of them in total. Returns
/// the allocations so far and the bytes in use. Allocations for building requests are not counted.
fn allocated(path: Path, rounds: &[usize], sent: usize) -> Vec<(usize, isize)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (mut service, recorder, known) = service().await;
        if path.recorder {
            service = service.delivery_log(recorder.clone());
        }
        let mut counts = Vec::with_capacity(rounds.len());
        let mut all = 0;
        for requests in rounds {
            for number in 0..*requests {
                let request = (path.request)(&known, number % DEVICES);
                let before = allocations();
                if number < sent {
                    let Ok(answer) = service.call(request).await;
                    assert_eq!(answer.status(), path.status);
                }
                all += allocations() - before;
            }
            // Another task writes what was recorded. What the request itself costs includes the
            // identifiers, which this frees.
            recorder.forget_waiting();
            let stats = ALLOCATOR.stats();
            counts.push((
                all,
                stats.bytes_allocated as isize - stats.bytes_deallocated as isize,
            ));
        }
        counts
    })
}

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Returns `rustc 1.95.0 (…)`.
fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("can't ask rustc for its version: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn bless(counts: &[Counts]) -> Result<(), String> {
    let mut text = format!(
        "# Path, instructions and allocations for a request. Written by the bench `instructions` with --bless.\n# {}\n",
        compiler()?
    );
    for (
        path,
        Counts {
            instructions,
            allocations,
        },
    ) in PATHS.iter().zip(counts)
    {
        text.push_str(&format!(
            "{}, {instructions:.0}, {allocations}\n",
            path.name
        ));
    }
    print!("{text}");
    fs::write(FILE, text).map_err(|error| format!("can't write {FILE}: {error}"))
}

/// Compares the counts with the file. Another compiler generates other instructions. Then
/// instructions are only printed, and only allocations are compared.
fn check(counts: &[Counts]) -> Result<(), String> {
    let text =
        fs::read_to_string(FILE).map_err(|error| format!("can't read {FILE}: {error}; {BLESS}"))?;
    let compiler = compiler()?;
    let same_compiler = text
        .lines()
        .any(|line| line.strip_prefix("# ") == Some(&compiler));
    if !same_compiler {
        println!(
            "the file has instructions of another compiler than {compiler}, so they are not compared"
        );
    }
    let known = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(", "))?;
        let (instructions, allocations) = line.split_once(", ")?;
        Some((
            instructions.parse::<f64>().ok()?,
            allocations.parse::<usize>().ok()?,
        ))
    };
    let mut wrong = Vec::new();
    for (
        Path { name, .. },
        Counts {
            instructions,
            allocations,
        },
    ) in PATHS.iter().zip(counts)
    {
        let Some((instructions_before, allocations_before)) = known(name) else {
            wrong.push(format!("{name} is not in instructions.txt"));
            continue;
        };
        let change = (instructions / instructions_before - 1.0) * 100.0;
        println!(
            "{name}: {instructions:.0} instructions, {change:+.1} %; {allocations} allocations, before {allocations_before}"
        );
        if same_compiler && change.abs() > TOLERANCE {
            wrong.push(format!(
                "{name} takes {instructions:.0} instructions, before {instructions_before:.0}"
            ));
        }
        if *allocations != allocations_before {
            wrong.push(format!(
                "{name} takes {allocations} allocations, before {allocations_before}"
            ));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{}; {BLESS}", wrong.join("; ")))
    }
}
