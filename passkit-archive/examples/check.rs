//! Checks archives: `cargo run -p passkit-archive --example check -- ticket.pkpass …`. Add
//! `--development` for archives without a signature.

use std::{env, fs, process::ExitCode};

use passkit_archive::{Level, Report, Rules};

fn main() -> ExitCode {
    let (switches, files): (Vec<_>, Vec<_>) = env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let rules = if switches.contains(&"--development".into()) {
        Rules::development()
    } else {
        Rules::strict()
    };
    let mut good = true;
    for file in files {
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                eprintln!("{file}: {error}");
                good = false;
                continue;
            }
        };
        let Report {
            archive, findings, ..
        } = Report::of(&bytes, rules);
        if let Some(archive) = archive {
            println!("{file}: {}", archive.id);
        }
        for finding in &findings {
            println!("{file}: {}: {finding}", finding.level());
        }
        good &= findings.worst() < Some(Level::Error);
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
