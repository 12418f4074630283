//! The program `passkit-conformance`, which tests a Wallet web service at a URL.

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};
use passkit_conformance::cli::Command;

/// Tests Apple Wallet web services in any language.
#[derive(Parser)]
#[command(name = "passkit-conformance", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let outcome = Arguments::try_parse()
        .map_err(|error| one_line(&error))
        .and_then(|arguments| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build();
            let runtime =
                runtime.map_err(|error| format!("can't start worker threads: {error}"))?;
            runtime.block_on(arguments.command.run())
        });
    outcome.unwrap_or_else(|line| {
        eprintln!("passkit-conformance: {line}");
        ExitCode::from(2)
    })
}

/// Turns an error into one line without the usage. For help and version, prints the text and ends
/// the program.
fn one_line(error: &clap::Error) -> String {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or_default();
    let words: Vec<&str> = message
        .trim_start_matches("error: ")
        .split_whitespace()
        .collect();
    words.join(" ")
}
