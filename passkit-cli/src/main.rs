//! The `passkit` program: an Apple Wallet web service and its tools, for people who write no Rust.

/// Prints like `println!`. If a line can't be written, the program goes on, and [`output::printed`]
/// reports the error at the end.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        $crate::output::note(writeln!(std::io::stdout(), $($text)*));
    }};
}

mod admin;
mod admin_passes;
mod apns;
mod certificate;
mod commands;
mod config_file;
mod delivery;
mod explain;
mod failure;
mod health;
mod listen;
mod local_pushes;
mod log_lines;
mod logging;
mod making;
mod metrics;
mod options;
mod output;
mod page;
mod reload;
mod request_body;
mod request_id;
mod secret_files;
mod server;
mod service_manager;
mod signer;
mod starters;
mod store;
mod store_url;
mod tls;
mod toml_file;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use failure::Failure;
use options::Options;

/// An allocator that gives memory back after a burst of requests. The default allocator of Linux
/// keeps gigabytes.
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
    Healthcheck(commands::healthcheck::Healthcheck),
    Push(commands::push::Push),
    New(commands::new::New),
    Check(commands::check::Check),
    Preview(commands::preview::Preview),
    Sign(commands::sign::Sign),
    Make(Box<commands::make::Make>),
    Device(commands::device::Device),
    Demo(commands::demo::Demo),
    Conformance(commands::conformance::Conformance),
    Bench(commands::bench::Bench),
    Migrate(commands::migrate::Migrate),
    Explain(Box<commands::explain::Explain>),
    Stats(commands::stats::Stats),
    Import(commands::import::Import),
    Export(commands::export::Export),
    Copy(commands::copy::Copy),
    Backup(commands::backup::Backup),
    Restored(commands::restored::Restored),
    Repair(commands::repair::Repair),
    Purge(Box<commands::purge::Purge>),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}

fn main() -> ExitCode {
    let outcome = read_arguments()
        .and_then(|(arguments, options)| run(arguments.command, options))
        .and_then(|code| output::printed().map(|()| code));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("passkit: {failure}");
            ExitCode::from(2)
        }
    }
}

fn read_arguments() -> Result<(Arguments, Options), Failure> {
    let options = Options::read(Arguments::command(), std::env::args_os().collect())?;
    Ok((Arguments::from_arg_matches(&options.matches)?, options))
}

fn run(command: Command, options: Options) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("can't start worker threads: {error}")))?;
    prepare(&command);
    let code = match command {
        Command::Check(check) => runtime.block_on(check.run()),
        Command::New(new) => new.run(),
        Command::Preview(preview) => preview.run(),
        Command::Sign(sign) => sign.run(),
        Command::Make(make) => make.run(),
        Command::Healthcheck(healthcheck) => healthcheck.run(),
        Command::Push(push) => runtime.block_on(push.run()),
        Command::Serve(serve) => runtime.block_on(serve.run(options)),
        Command::Device(device) => runtime.block_on(device.run()),
        Command::Demo(demo) => runtime.block_on(demo.run()),
        Command::Conformance(conformance) => runtime.block_on(conformance.run()),
        Command::Bench(bench) => runtime.block_on(bench.run()),
        Command::Migrate(migrate) => runtime.block_on(migrate.run()),
        Command::Explain(explain) => runtime.block_on(explain.run()),
        Command::Stats(stats) => runtime.block_on(stats.run()),
        Command::Import(import) => runtime.block_on(import.run()),
        Command::Export(export) => runtime.block_on(export.run()),
        Command::Copy(copy) => runtime.block_on(copy.run()),
        Command::Backup(backup) => runtime.block_on(backup.run()),
        Command::Restored(restored) => runtime.block_on(restored.run()),
        Command::Repair(repair) => runtime.block_on(repair.run()),
        Command::Purge(purge) => runtime.block_on(purge.run()),
        Command::Completions(completions) => completions.run(Arguments::command()),
        Command::Man(man) => man.run(Arguments::command()),
    };
    // Blocking work that is still running, such as the first search of the folders, ends with the
    // process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

fn prepare(command: &Command) {
    // Only the owner can open what a command and its libraries make. `conformance` is left out,
    // because it runs the user's own commands, which would inherit the umask. Manual pages are for
    // everyone.
    #[cfg(unix)]
    if !matches!(command, Command::Conformance(_) | Command::Man(_)) {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    }
    // The other commands start the log themselves, or have no store.
    if matches!(
        command,
        Command::Migrate(_)
            | Command::Explain(_)
            | Command::Stats(_)
            | Command::Import(_)
            | Command::Export(_)
            | Command::Copy(_)
            | Command::Backup(_)
            | Command::Restored(_)
            | Command::Repair(_)
            | Command::Purge(_)
    ) {
        logging::start_warning_of_readers();
    }
}
