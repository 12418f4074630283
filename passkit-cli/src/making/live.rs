//! Makes passes while a service runs: a single pass on request, and the passes of a table when the
//! table changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use passkit_archive::Level;
use passkit_identity::pem;
use passkit_server::{identifiers::Kind, text::OneLine};
use serde::Deserialize;

use super::{
    batch::{Batch, Event, MadeOne, Summary, open_secret},
    inputs::{self, Inputs},
    maker::Maker,
    output_folder::OutputFolder,
    row_error::{MakeError, RowError},
    secret,
    table::{Row, Table},
};
use crate::{certificate::CertPassword, failure::Failure, signer::SignerOptions, toml_file};

/// How long to wait while another process writes to the folder.
const WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// How many wrong rows of a table the log shows.
const SHOWN: usize = 20;

/// The content of the file that `--make` names. Its paths are relative to its folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    template: PathBuf,
    from: Option<PathBuf>,
    out: PathBuf,
    cert: PathBuf,
    key: Option<PathBuf>,
    wwdr: Option<PathBuf>,
    token_secret: Option<PathBuf>,
}

impl Settings {
    fn read(file: &Path) -> Result<Self, Failure> {
        let text = toml_file::read(file)?;
        let settings: Self = toml::from_str(&text).map_err(|error| {
            let shown = pem::shown(file);
            Failure::new(format!("{shown}: {}", toml_file::explained(&text, &error)))
        })?;
        let beside = |path: PathBuf| file.parent().unwrap_or(Path::new("")).join(path);
        Ok(Self {
            template: beside(settings.template),
            from: settings.from.map(beside),
            out: beside(settings.out),
            cert: beside(settings.cert),
            key: settings.key.map(beside),
            wwdr: settings.wwdr.map(beside),
            token_secret: settings.token_secret.map(beside),
        })
    }

    /// Returns all files and folders from which passes are made.
    fn inputs(&self) -> impl Iterator<Item = &Path> {
        let more = [&self.from, &self.key, &self.wwdr, &self.token_secret];
        [&self.template, &self.cert]
            .into_iter()
            .chain(more.into_iter().flatten())
            .map(PathBuf::as_path)
    }
}

/// Makes passes while a service runs. It is shared by all requests.
pub(crate) struct LiveMaker {
    settings: Settings,
    password: CertPassword,
    kind: Kind,
    /// The last version of the template without errors.
    maker: RwLock<Arc<Maker>>,
    /// One thread at a time writes to the folder.
    turn: Mutex<()>,
}

/// Why no pass was made for a request.
pub(crate) enum Refused {
    /// The request has no row.
    NoRow(String),
    Row(RowError),
    /// Another process has been writing to the folder for too long.
    Busy,
    Failed(Failure),
}

impl From<MakeError> for Refused {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Row(error) => Self::Row(error),
            MakeError::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl LiveMaker {
    /// Reads the file with the settings, and everything that the file names except the table. `password` is the
    /// password of the certificate.
    pub(crate) fn open(file: &Path, password: CertPassword) -> Result<Self, Failure> {
        let settings = Settings::read(file)?;
        fs::create_dir_all(&settings.out).map_err(|error| {
            let shown = OneLine::path(&settings.out);
            Failure::new(format!("can't make the folder {shown}: {error}"))
        })?;
        let maker = open_maker(&settings, &password)?;
        let this = Self {
            kind: maker.kind(),
            password,
            maker: RwLock::new(Arc::new(maker)),
            turn: Mutex::default(),
            settings,
        };
        if let Some(warning) = this.maker().signer().warning() {
            tracing::warn!("{warning}");
        }
        Ok(this)
    }

    /// Returns the folder in which the passes are made.
    pub(crate) fn folder(&self) -> &Path {
        &self.settings.out
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    fn maker(&self) -> Arc<Maker> {
        self.maker
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes, signs and writes the pass of a row, which is a JSON object. An existing pass with the same content stays
    /// as it is.
    pub(crate) fn make(&self, row: &[u8]) -> Result<MadeOne, Refused> {
        let row = Row::of_json(1, row).map_err(Refused::NoRow)?;
        let maker = self.maker();
        let _turn = self.turn();
        let folder = open_when_free(&self.settings.out, self.kind)
            .map_err(Refused::Failed)?
            .ok_or(Refused::Busy)?;
        let batch = Batch {
            maker: &maker,
            folder: &folder,
            is_dry: false,
            void_missing: false,
        };
        Ok(batch.make_one(row)?)
    }

    /// Returns whether another request, or another process, has replaced the pass since.
    pub(crate) fn is_replaced(&self, made: &MadeOne) -> bool {
        let folder = OutputFolder::look_at(&self.settings.out, self.kind);
        let name = folder.file_name(&made.pass.serial);
        folder.read(&name).is_ok_and(|file| file != made.archive)
    }

    /// Makes the passes of the table, and again whenever the table, the template or the certificate changes.
    pub(crate) async fn watch(self: Arc<Self>) {
        // A change counts once the files are the same in two looks, because a file may be half-written.
        let (mut last, mut done) = (None, None);
        loop {
            let this = self.clone();
            let (seen, was_done) = (last, done);
            let look = tokio::task::spawn_blocking(move || {
                let now = Some(Inputs::now(this.settings.inputs()));
                if now == seen && now != was_done {
                    this.renew();
                    return (now, now);
                }
                (now, was_done)
            });
            // The task fails only if it panicked. The service goes on.
            if let Ok(looked) = look.await {
                (last, done) = looked;
            }
            tokio::time::sleep(inputs::LOOK_EVERY).await;
        }
    }

    /// Reads the template and the certificate again, and makes the passes of the table. Errors go to the log.
    fn renew(&self) {
        match open_maker(&self.settings, &self.password) {
            Ok(maker) if maker.kind() == self.kind => {
                let mut current = self.maker.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(maker);
            }
            Ok(_) => {
                tracing::error!(
                    "the template is now for the other kind, passes or orders; restart the service to use it"
                );
                return;
            }
            Err(failure) => {
                tracing::error!(
                    "passes are still made with the old template and certificate: {failure}"
                );
            }
        }
        let Some(table) = &self.settings.from else {
            return;
        };
        match self.make_table(table) {
            Ok(summary) => {
                let Summary {
                    rows,
                    new,
                    changed,
                    bad,
                    ..
                } = summary;
                let shown = OneLine::path(table);
                tracing::info!(
                    "{shown}: {rows} rows: {new} passes are new, {changed} changed, {bad} rows are wrong"
                );
            }
            Err(failure) => tracing::error!("can't make the passes of the table: {failure}"),
        }
    }

    fn make_table(&self, path: &Path) -> Result<Summary, Failure> {
        let mut table = Table::open(path)?;
        let maker = self.maker();
        if let Some(columns) = table.columns() {
            maker.check_columns(columns)?;
        }
        let _turn = self.turn();
        let folder = open_when_free(&self.settings.out, self.kind)?
            .ok_or_else(|| Failure::new("another process writes to the folder"))?;
        let batch = Batch {
            maker: &maker,
            folder: &folder,
            is_dry: false,
            void_missing: false,
        };
        let name = table.name().to_owned();
        let mut shown = 0;
        let summary = batch.run(&mut table, |event| match event {
            Event::Bad(error) if shown < SHOWN => {
                shown += 1;
                tracing::warn!("{name}:{}: {error}", error.line);
            }
            Event::Checked(findings) => {
                for finding in findings.iter().filter(|one| one.level() >= Level::Error) {
                    tracing::warn!("the first pass: {finding}");
                }
            }
            _ => {}
        })?;
        if summary.bad > shown as u64 {
            tracing::warn!("{name}: {} more rows are wrong", summary.bad - shown as u64);
        }
        Ok(summary)
    }
}

fn open_maker(settings: &Settings, password: &CertPassword) -> Result<Maker, Failure> {
    let signer = SignerOptions {
        cert: settings.cert.clone(),
        key: settings.key.clone(),
        password: password.clone(),
        wwdr: settings.wwdr.clone(),
    };
    let mut maker = Maker::open(&settings.template, Arc::new(signer.open_unattended()?))?;
    let folder = settings.from.as_deref().and_then(Path::parent);
    if let Some(folder) = folder {
        let here = Path::new(".");
        maker = maker.with_images(if folder == Path::new("") {
            here
        } else {
            folder
        })?;
    }
    // A row of a request may lack any column, so a token may have to be derived.
    if maker.needs_secret(None) {
        let path = secret::path_for(&settings.out, settings.token_secret.as_deref())?;
        let folder = open_when_free(&settings.out, maker.kind())?.ok_or_else(|| {
            Failure::new(format!(
                "another process writes to {}; wait until it has ended",
                OneLine::path(&settings.out)
            ))
        })?;
        let secret = open_secret(&path, &folder, maker.type_id(), false)?;
        maker = maker.with_secret(secret.tokens);
    }
    Ok(maker)
}

/// Opens the folder. Waits while another process writes to the folder. Returns `None` if this takes too long.
fn open_when_free(path: &Path, kind: Kind) -> Result<Option<OutputFolder>, Failure> {
    let started = Instant::now();
    loop {
        if let Some(folder) = OutputFolder::open_if_free(path, kind)? {
            return Ok(Some(folder));
        }
        if started.elapsed() >= WAIT {
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}
