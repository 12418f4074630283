mod place;
mod tokens;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use passkit_server::{PassId, maintenance::Registration, store::Published, text::OneLine};
use place::{Place, Reached};
use tokens::Tokens;

use super::{
    csv::{Lines, to_registration},
    progress::Progress,
};
use crate::{
    failure::Failure,
    output::{self, Output},
    store::{self, Store, StoreUrl},
};

/// How many registrations are stored at a time.
const GROUP: usize = 5_000;
/// The approximate number of lines that are looked up in the store to check the note about the
/// progress.
const SAMPLE: u64 = 100;
/// The greatest number of lines that a warning names.
const NAMED: usize = 10;

/// Imports registrations from a CSV file into a store.
///
/// The file has four columns: device identifier, push token, type identifier, serial number. The
/// columns are in this order, or in any order if the first line names them (device, push_token,
/// type, serial). Existing registrations stay. Every device gets the push token of its last line.
/// The store may be in use during the import.
///
/// If the first line names a column authentication_token, the service also accepts the tokens in
/// this column. Use this column if phones have tokens from another service, and the archives of
/// this service have new tokens.
///
/// The command skips bad lines, and reports their numbers. If the import was stopped, the same
/// command continues it. The progress is stored in the store itself. An import into another store,
/// or into a store that was emptied, therefore starts from the beginning.
///
/// Exit code: 0 all lines are in the store, 1 some lines were skipped, 2 the import failed.
#[derive(Args)]
pub(crate) struct Import {
    /// The CSV file; - reads standard input.
    #[arg(long, value_name = "FILE.csv", value_parser = output::path())]
    from: PathBuf,

    /// The store to fill.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// A file for copies of the skipped lines. It appears when the import is done.
    #[arg(long, value_name = "FILE.csv", value_parser = output::path())]
    rejects: Option<PathBuf>,
}

impl Import {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let from = self.from.display();
        let mut inputs = self.store.files()?;
        let is_standard_input = self.from == Path::new("-");
        inputs.push(if is_standard_input {
            "/dev/stdin".into()
        } else {
            self.from.clone()
        });
        let cannot_read = |error| cannot_read(&self.from, &error);
        let mut lines = Lines::open(&self.from).map_err(cannot_read)?;
        let rejects = self.rejects.as_deref();
        let mut rejects = rejects
            .map(|path| Output::create(path, &inputs))
            .transpose()?;
        let note_name = if is_standard_input {
            None
        } else {
            place::note_name(&self.from).map_err(cannot_read)?
        };
        let progress = Progress::new("lines", lines.length);
        let store = self.store.open_or_create().await?.store;
        let mut place = Place::find(&*store, note_name)
            .await
            .map_err(|error| Failure::from_error("can't read the store", &error))?;
        if place.reached.lines > 0 {
            match missing(&*store, &self.from, place.reached.lines, &progress).await? {
                None => progress.say(&format!(
                    "continues after line {}, where the last import stopped",
                    place.reached.lines
                )),
                Some(line) => {
                    progress.say(&format!(
                        "starts from the beginning, because the store no longer has line {line}"
                    ));
                    place.reached = Reached::default();
                }
            }
        }
        // The lines that the store already has are read again, because the command counts and
        // copies the skipped lines.
        let stored = place.reached.lines;
        let mut reached = place.reached;
        let (mut registrations, mut left_out) = (0_u64, 0_u64);
        let mut blanks = Blanks::default();
        let mut crowded: BTreeSet<PassId> = BTreeSet::new();
        loop {
            let mut group = Vec::with_capacity(GROUP);
            let mut tokens = Tokens::default();
            while group.len() < GROUP
                && let Some((number, record)) = lines.next().map_err(cannot_read)?
            {
                match record
                    .and_then(|record| to_registration(&record).map_err(|error| error.to_string()))
                {
                    Ok((registration, token)) => {
                        registrations += 1;
                        let serial = registration.pass.serial.as_str();
                        if serial.trim_matches(is_blank) != serial {
                            blanks.add(number);
                        }
                        if number > stored {
                            if let Some(token) = token {
                                tokens.add(&registration.pass, token.digest());
                            }
                            group.push(registration);
                        }
                    }
                    Err(problem) => {
                        left_out += 1;
                        if number > stored {
                            progress.say(&format!("{from}:{number}: {problem}; left out"));
                        }
                        if let Some(rejects) = &mut rejects {
                            // These lines can be corrected and imported, so they need the names of
                            // their columns.
                            let names = lines.names.as_deref().filter(|_| left_out == 1);
                            for line in names.into_iter().chain([lines.raw()]) {
                                rejects.write(line)?;
                                if !line.ends_with(b"\n") {
                                    rejects.write(b"\n")?;
                                }
                            }
                        }
                    }
                }
            }
            if group.is_empty() {
                break;
            }
            let before = place.reached.lines;
            let stopped = |error| {
                let stopped = match before {
                    0 => "stopped; the same command starts from the beginning".to_owned(),
                    line => {
                        format!("stopped after line {line}; the same command continues there")
                    }
                };
                Failure::from_error(stopped, &error)
            };
            let register = async || store.register_many(&group).await;
            reached.created += progress.patiently(register).await.map_err(stopped)?;
            let keep = async || tokens.store(&*store).await;
            crowded.extend(progress.patiently(keep).await.map_err(stopped)?);
            reached.lines = lines.number;
            place.remember(reached).await;
            progress.set(lines.number, lines.bytes);
        }
        if let Some(rejects) = rejects {
            rejects.finish()?;
        }
        progress.finish();
        place.forget().await;
        blanks.warn();
        warn_of_crowded(&crowded);
        say!(
            "{registrations} registrations imported, {} of them new; {left_out} lines left out",
            reached.created
        );
        Ok(if left_out == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("can't read {}: {error}", path.display()))
}

/// Looks up some of the first `lines` lines in the store. Returns the number of a line whose
/// registration is not in the store.
///
/// A store may keep its notes when its rows are deleted, for example PostgreSQL after a `truncate`.
async fn missing(
    store: &dyn Store,
    path: &Path,
    lines: u64,
    progress: &Progress,
) -> Result<Option<u64>, Failure> {
    let cannot_read = |error| cannot_read(path, &error);
    let mut input = Lines::open(path).map_err(cannot_read)?;
    let step = lines.div_ceil(SAMPLE);
    let (mut next, mut last) = (step, None);
    while let Some((number, record)) = input.next().map_err(cannot_read)? {
        if number > lines {
            break;
        }
        if let Ok(record) = record
            && let Ok((registration, _)) = to_registration(&record)
        {
            last = Some((number, registration));
        }
        // Before each step, the nearest good line is looked up.
        if (number >= next || number == lines)
            && let Some((number, Registration { device, pass, .. })) = last.take()
        {
            next = number + step;
            let list = async || store.changes_since(&device, &pass.type_id, None).await;
            let listed = progress
                .patiently(list)
                .await
                .map_err(|error| Failure::from_error("can't read the store", &error))?;
            if !listed.serials.contains(&pass.serial) {
                return Ok(Some(number));
            }
        }
    }
    Ok(None)
}

/// The lines whose serial number begins or ends with blanks.
#[derive(Default)]
struct Blanks {
    count: usize,
    first: Vec<String>,
}

impl Blanks {
    fn add(&mut self, number: u64) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(number.to_string());
        }
    }

    /// Prints a warning with these lines. The blanks are kept, because a pass may have such a
    /// serial number. Mostly, the blanks are a mistake in the file.
    fn warn(&self) {
        let Self { count, first } = self;
        if *count > 0 {
            let more = match count - first.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let (numbers, lines) = match count {
                1 => ("1 serial number begins or ends", "line"),
                _ => (&*format!("{count} serial numbers begin or end"), "lines"),
            };
            eprintln!(
                "passkit: {numbers} with blanks, which were kept: {lines} {}{more}. If the serial numbers of the passes have no \
                 blanks, these phones get no updates; remove the blanks, and import the file again",
                first.join(", ")
            );
        }
    }
}

/// Returns whether this is white space, or a character that editors and spreadsheets don't show.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
        )
}

/// Names the passes for which some tokens were dropped.
fn warn_of_crowded(crowded: &BTreeSet<PassId>) {
    if crowded.is_empty() {
        return;
    }
    let named: Vec<String> = crowded.iter().take(NAMED).map(PassId::to_string).collect();
    let more = match crowded.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    eprintln!(
        "passkit: {} passes have more than {} tokens, and the last tokens were kept: {}{more}",
        crowded.len(),
        Published::MAX_TOKENS,
        OneLine::of(&named.join(", "))
    );
}
