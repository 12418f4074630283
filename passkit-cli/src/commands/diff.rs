use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use passkit_archive::{Difference, PassFiles};
use passkit_server::{identifiers::Kind, text::OneLine};

use crate::failure::Failure;

/// Compares two versions of a pass or an order: what changes on the phone, and what the user is told.
///
/// OLD and NEW are archives, or folders with pass.json or order.json. Wallet shows a message when the
/// value of a field with a "changeMessage" changes. All other changes are shown without a message.
///
/// The manifests and the signatures are not compared.
///
/// Exit code: 0 the versions are the same, 1 they differ, 2 a file could not be read.
#[derive(Args)]
pub(crate) struct Diff {
    /// The version on the phone.
    old: PathBuf,

    /// The version that the phone fetches.
    new: PathBuf,
}

impl Diff {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let (old, new) = (open(&self.old)?, open(&self.new)?);
        let difference = Difference::of(&old, &new)
            .map_err(|error| Failure::new(format!("can't compare the files: {error}")))?;
        for change in &difference.changes {
            say!("{change}");
        }
        if difference.is_cut {
            say!("… and more changes, which are not shown");
        }
        let messages: Vec<&str> = difference.notifications().collect();
        for message in &messages {
            say!("the user is told: {}", OneLine::of(message));
        }
        if difference.changes.is_empty() {
            say!("nothing changed: a phone that fetches the new version shows nothing");
            return Ok(ExitCode::SUCCESS);
        }
        match (new.kind(), messages.is_empty()) {
            (Kind::Pass, true) => {
                say!("the user is told nothing: no field with a changeMessage has another value");
            }
            (Kind::Pass, false) => {}
            (Kind::Order, _) => {
                say!("Wallet decides whether it tells the user, by the status of the order")
            }
        }
        Ok(ExitCode::from(1))
    }
}

fn open(path: &Path) -> Result<PassFiles, Failure> {
    PassFiles::open(path).map_err(|error| Failure::of_file(path, &error))
}
