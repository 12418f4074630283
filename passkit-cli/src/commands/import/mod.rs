mod lines;
mod place;

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use lines::{Lines, Record};
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, InvalidIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::Registration,
};
use place::Place;

use super::progress::Progress;
use crate::{
    failure::Failure,
    store::{self, StoreUrl},
};

/// How many registrations are stored at a time.
const GROUP: usize = 5_000;

/// Imports registrations from a CSV file into a store.
///
/// Four columns: device identifier, push token, type identifier, serial number. They are in this order, or in any order
/// with a first line that names them (device, push_token, type, serial). Existing registrations stay. Every device gets the
/// push token of its last line. The store may be in use meanwhile.
///
/// A bad line is reported by its number and left out. After the import was stopped, the same command continues where it
/// was, as noted in FILE.csv.passkit-import. Remove that file to start again.
///
/// Exit code: 0 all lines are in the store, 1 some were left out, 2 it could not be done.
#[derive(Args)]
pub(crate) struct Import {
    /// The CSV file; - reads standard input.
    #[arg(long, value_name = "FILE.csv")]
    from: PathBuf,

    /// The store to fill.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL")]
    store: StoreUrl,

    /// Copies the lines that are left out to this file.
    #[arg(long, value_name = "FILE.csv")]
    rejects: Option<PathBuf>,
}

impl Import {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let from = self.from.display();
        let (mut lines, file) = Lines::open(&self.from)?;
        let mut place = Place::find(&self.from, self.store.to_string());
        let mut reached = place.reached;
        let rejects = self
            .rejects
            .as_deref()
            .map(|path| Rejects::open(path, reached.lines > 0));
        let mut rejects = rejects.transpose()?;
        let store = self.store.open_or_create().await?.store;
        if let Some(mut file) = file
            && reached.lines > 0
        {
            // Read the first line, because it may name the columns.
            lines.next()?;
            lines
                .skip_to(&mut file, reached.lines, reached.bytes)
                .map_err(|error| Failure::new(format!("can't read {from}: {error}")))?;
            eprintln!(
                "passkit: continues after line {}, where the last import stopped",
                reached.lines
            );
        }
        let progress = Progress::new("lines", lines.length);
        loop {
            let mut group = Vec::with_capacity(GROUP);
            while group.len() < GROUP
                && let Some((number, record)) = lines.next()?
            {
                match record
                    .and_then(|record| to_registration(&record).map_err(|error| error.to_string()))
                {
                    Ok(registration) => group.push(registration),
                    Err(problem) => {
                        progress.say(&format!("{from}:{number}: {problem}; left out"));
                        reached.left_out += 1;
                        if let Some(rejects) = &mut rejects {
                            rejects.add(lines.raw())?;
                        }
                    }
                }
            }
            if group.is_empty() {
                break;
            }
            let registrations = group.len() as u64;
            reached.created += progress
                .patiently(async || store.register_many(&group).await)
                .await
                .map_err(|error| {
                    let stopped = format!(
                        "stopped after line {}; the same command continues there",
                        place.reached.lines
                    );
                    Failure::from_error(stopped, &error)
                })?;
            reached.registrations += registrations;
            (reached.lines, reached.bytes) = (lines.number, lines.bytes);
            if let Some(rejects) = &mut rejects {
                rejects.finish()?; // the next import continues after them
            }
            place.reached = reached;
            place.remember();
            progress.set(lines.number, lines.bytes);
        }
        if let Some(rejects) = &mut rejects {
            rejects.finish()?;
        }
        progress.finish();
        place.forget();
        say!(
            "{} registrations imported, {} of them new; {} lines left out",
            reached.registrations,
            reached.created,
            reached.left_out
        );
        Ok(if reached.left_out == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn to_registration(
    [device, push_token, type_id, serial]: &Record,
) -> Result<Registration, InvalidIdentifier> {
    Ok(Registration {
        device: DeviceIdentifier::new(device)?,
        push_token: PushToken::new(push_token)?,
        pass: PassId {
            type_id: TypeIdentifier::new(type_id)?,
            serial: SerialNumber::new(serial)?,
        },
    })
}

/// The file of lines that are left out.
struct Rejects {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Rejects {
    fn open(path: &Path, goes_on: bool) -> Result<Self, Failure> {
        let mut options = File::options();
        let file = options
            .create(true)
            .write(true)
            .append(goes_on)
            .truncate(!goes_on)
            .open(path)
            .map_err(|error| Failure::new(format!("can't write {}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
        })
    }

    fn add(&mut self, line: &[u8]) -> Result<(), Failure> {
        let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
        let written = self
            .file
            .write_all(line)
            .and_then(|()| self.file.write_all(end));
        written
            .map_err(|error| Failure::new(format!("can't write {}: {error}", self.path.display())))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.file
            .flush()
            .map_err(|error| Failure::new(format!("can't write {}: {error}", self.path.display())))
    }
}
