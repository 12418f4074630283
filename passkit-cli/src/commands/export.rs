use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use super::{
    csv::{NAMES_LINE, line},
    progress::Progress,
};
use crate::{
    failure::Failure,
    output::{self, Output},
    store::{self, StoreUrl},
};

/// About how many registrations are read at a time.
const PAGE: usize = 5_000;

/// Writes all registrations of a store as a CSV file that `passkit import` reads.
///
/// The store may be in use during the export. The file contains every registration that exists
/// during the entire export. The file contains push tokens and device identifiers, which are
/// secrets.
#[derive(Args)]
pub(crate) struct Export {
    /// The store to read.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// The file to write. It appears when the export is complete. Default: standard output.
    #[arg(long, value_name = "FILE.csv", value_parser = output::path())]
    to: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let files = self.store.files()?;
        let to = self.to.as_deref();
        let mut out = to.map(|path| Output::create(path, &files)).transpose()?;
        let mut write = |text: &str| match &mut out {
            Some(out) => out.write(text.as_bytes()),
            None => io::stdout()
                .write_all(text.as_bytes())
                .map_err(|error| Failure::new(format!("can't write standard output: {error}"))),
        };
        let store = self.store.open().await?.store;
        write(NAMES_LINE)?;
        let progress = Progress::new("registrations", None);
        let (mut count, mut after) = (0_u64, None);
        loop {
            let page = store
                .registrations(after.as_ref(), PAGE)
                .await
                .map_err(|error| Failure::from_error("can't read the store", &error))?;
            let lines: String = page.items.iter().map(line).collect();
            write(&lines)?;
            count += page.items.len() as u64;
            progress.set(count, 0);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        progress.finish();
        if let (Some(out), Some(path)) = (out, to) {
            out.finish()?;
            say!("{count} registrations written to {}", path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
