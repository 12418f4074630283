//! Checks archives: `cargo run -p passkit-archive --example check -- ticket.pkpass …`. Add
//! `--development` for archives without a signature.

use std::{env, fs, process::ExitCode};

use passkit_archive::{Archive, Rules};

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
        let checked = fs::read(&file)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                Archive::check(&bytes, rules).map_err(|problems| problems.to_string())
            });
        match checked {
            Ok(archive) => println!("{file}: {} of {}", archive.id, archive.organization_name),
            Err(reasons) => {
                good = false;
                reasons
                    .lines()
                    .for_each(|reason| eprintln!("{file}: {reason}"));
            }
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
