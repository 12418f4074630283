//! The `passkit` program: an Apple Wallet update service and its tools, for people who write no
//! Rust.

/// Like `println!`, but without an error if the reader is gone, as in `passkit device list | head
/// -1`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod admin;
mod apns;
mod commands;
mod failure;
mod local_pushes;
mod log_lines;
mod metrics;
mod output;
mod server;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// Gives memory back after a burst. The usual allocator of Linux keeps gigabytes.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps Apple Wallet passes and orders up to date.
#[derive(Parser)]
#[command(name = "passkit", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<commands::serve::Serve>),
    Push(commands::push::Push),
    Check(commands::check::Check),
    Device(commands::device::Device),
    Demo(commands::demo::Demo),
    Conformance(commands::conformance::Conformance),
    Bench(commands::bench::Bench),
    Migrate(commands::migrate::Migrate),
    Stats(commands::stats::Stats),
    Import(commands::import::Import),
    Export(commands::export::Export),
    Copy(commands::copy::Copy),
    Backup(commands::backup::Backup),
    Restored(commands::restored::Restored),
    Repair(commands::repair::Repair),
}

fn main() -> ExitCode {
    let outcome = Arguments::try_parse()
        .map_err(Failure::from)
        .and_then(|arguments| run(arguments.command));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("passkit: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("can't start worker threads: {error}")))?;
    let code = match command {
        Command::Check(check) => check.run(),
        Command::Push(push) => runtime.block_on(push.run()),
        Command::Serve(serve) => runtime.block_on(serve.run()),
        Command::Device(device) => runtime.block_on(device.run()),
        Command::Demo(demo) => runtime.block_on(demo.run()),
        Command::Conformance(conformance) => runtime.block_on(conformance.run()),
        Command::Bench(bench) => runtime.block_on(bench.run()),
        Command::Migrate(migrate) => runtime.block_on(migrate.run()),
        Command::Stats(stats) => runtime.block_on(stats.run()),
        Command::Import(import) => runtime.block_on(import.run()),
        Command::Export(export) => runtime.block_on(export.run()),
        Command::Copy(copy) => runtime.block_on(copy.run()),
        Command::Backup(backup) => runtime.block_on(backup.run()),
        Command::Restored(restored) => runtime.block_on(restored.run()),
        Command::Repair(repair) => runtime.block_on(repair.run()),
    };
    // Blocking work that is left, such as the first search of the folders, ends with the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}
