use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use passkit_server::maintenance::Registration;

use super::progress::Progress;
use crate::{
    failure::Failure,
    store::{self, StoreUrl},
};

/// About how many registrations a page has.
const PAGE: usize = 5_000;

/// Writes all registrations of a store as a CSV file that `passkit import` reads.
///
/// The store may be in use meanwhile: every registration that exists throughout is in the file. The file contains push
/// tokens and device identifiers, which are secrets.
#[derive(Args)]
pub(crate) struct Export {
    /// The store to read.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL")]
    store: StoreUrl,

    /// The file to write. Without it, standard output.
    #[arg(long, value_name = "FILE.csv")]
    to: Option<PathBuf>,
}

impl Export {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let store = self.store.open().await?.store;
        let shown = self
            .to
            .as_ref()
            .map_or("standard output".into(), |path| path.display().to_string());
        let cannot_write = |error: io::Error| Failure::new(format!("can't write {shown}: {error}"));
        // The file gets its name when it is complete.
        let part = self.to.as_ref().map(|path| {
            let mut name = path.clone().into_os_string();
            name.push(".part");
            PathBuf::from(name)
        });
        let mut out: Box<dyn Write + Send> = match &part {
            Some(part) => Box::new(BufWriter::new(create_private(part).map_err(cannot_write)?)),
            None => Box::new(BufWriter::new(io::stdout())),
        };
        writeln!(out, "device,push_token,type,serial").map_err(cannot_write)?;
        let progress = Progress::new("registrations", None);
        let (mut count, mut after) = (0_u64, None);
        loop {
            let page = store
                .registrations(after.as_ref(), PAGE)
                .await
                .map_err(|error| Failure::from_error("can't read the store", &error))?;
            for registration in &page.items {
                write_line(&mut out, registration).map_err(cannot_write)?;
            }
            count += page.items.len() as u64;
            progress.set(count, 0);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        out.flush().map_err(cannot_write)?;
        drop(out);
        progress.finish();
        if let (Some(part), Some(path)) = (part, &self.to) {
            File::open(&part)
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&part, path))
                .map_err(cannot_write)?;
            say!("{count} registrations written to {shown}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Creates a file that only its owner can read.
fn create_private(path: &std::path::Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn write_line(out: &mut dyn Write, registration: &Registration) -> io::Result<()> {
    let Registration {
        device,
        push_token,
        pass,
    } = registration;
    let [push_token, serial] = [push_token.as_str(), pass.serial.as_str()].map(field);
    // The other two contain letters, digits and "-._~" only.
    writeln!(
        out,
        "{},{push_token},{},{serial}",
        device.as_str(),
        pass.type_id
    )
}

/// A field of a line, in quotes if it needs them.
fn field(text: &str) -> Cow<'_, str> {
    if text.trim() == text && !text.contains([',', '"', '\r', '\n']) {
        return text.into();
    }
    format!("\"{}\"", text.replace('"', "\"\"")).into()
}
