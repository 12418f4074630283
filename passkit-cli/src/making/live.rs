//! Makes passes while a service runs: a single pass on request, and the passes of a table when the
//! table changes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use passkit_archive::{Level, PassFiles, Signer};
use passkit_identity::pem;
use passkit_server::{PassId, identifiers::Kind, text::OneLine};
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    batch::{Batch, Event, MadeOne, Summary, open_secret},
    inputs::{Inputs, LOOK_EVERY, Seen},
    maker::Maker,
    output_folder::{OutputFolder, busy},
    row_error::{MakeError, RowError},
    secret,
    table::{Row, Table},
};
use crate::{certificate::CertPassword, failure::Failure, signer::SignerOptions, toml_file};

/// How long to wait while the passes of a table are made, or while another process writes to the folder.
const WAIT: Duration = Duration::from_secs(10);
/// The file of a pass that offers rewards enrolment.
const ENROLMENT: &str = "personalization.json";
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
    #[serde(default)]
    void_missing: bool,
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
            void_missing: settings.void_missing,
        })
    }

    fn secret(&self) -> Result<PathBuf, Failure> {
        secret::path_for(&self.out, self.token_secret.as_deref())
    }

    /// Returns all files and folders from which passes are made, except the images that rows name.
    fn inputs(&self) -> Vec<PathBuf> {
        let mut inputs = vec![self.template.clone(), self.cert.clone()];
        inputs.extend(
            [&self.from, &self.key, &self.wwdr]
                .into_iter()
                .flatten()
                .cloned(),
        );
        inputs.extend(self.secret());
        inputs
    }
}

/// Makes passes while a service runs. It is shared by all requests.
pub(crate) struct LiveMaker {
    settings: Settings,
    password: CertPassword,
    kind: Kind,
    /// The last version of the template without errors.
    maker: RwLock<Arc<Maker>>,
    /// One request or one table at a time writes to the folder.
    turn: Arc<Mutex<()>>,
}

/// The right to write to the folder.
type Turn = OwnedMutexGuard<()>;

/// Why no pass was made for a request.
pub(crate) enum Refused {
    /// The request has no row.
    NoRow(String),
    Row(RowError),
    /// The next change of the table would void the pass.
    OnlyTable,
    /// The passes of a table are being made, or another process writes to the folder, and this takes too long.
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

impl From<Unusable> for Refused {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Busy => Self::Busy,
            Unusable::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// Why nothing can be written to the folder.
enum Unusable {
    /// Another process has been writing to the folder for too long.
    Busy,
    Failed(Failure),
}

impl From<Failure> for Unusable {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
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
        let maker = open_maker(&settings, &password).map_err(|error| match error {
            Unusable::Failed(failure) => failure,
            Unusable::Busy => busy(&settings.out),
        })?;
        if settings.void_missing && maker.kind() == Kind::Order {
            return Err(Failure::new("orders can't be voided; remove void-missing"));
        }
        let this = Self {
            kind: maker.kind(),
            password,
            maker: RwLock::new(Arc::new(maker)),
            turn: Arc::default(),
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

    /// Makes, signs and writes the pass of a row, which is a JSON object. An existing pass with the same content stays
    /// as it is.
    pub(crate) async fn make(self: Arc<Self>, row: &[u8]) -> Result<MadeOne, Refused> {
        if self.settings.void_missing && self.settings.from.is_some() {
            return Err(Refused::OnlyTable);
        }
        let row = Row::of_json(1, row).map_err(Refused::NoRow)?;
        // A task that waits here takes no thread, however many there are.
        let turn = tokio::time::timeout(WAIT, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| Refused::Busy)?;
        let made = tokio::task::spawn_blocking(move || self.make_now(row, turn)).await;
        made.unwrap_or_else(|error| {
            let failure = Failure::from_error("making the pass failed", &error);
            Err(Refused::Failed(failure))
        })
    }

    fn make_now(&self, row: Row, _turn: Turn) -> Result<MadeOne, Refused> {
        let folder = open_when_free(&self.settings.out, self.kind)?;
        // The template may have changed while this request waited.
        let maker = self.maker();
        let batch = Batch {
            maker: &maker,
            folder: &folder,
            is_dry: false,
            void_missing: false,
            seen: &Seen::default(),
        };
        Ok(batch.make_one(row)?)
    }

    /// Checks that a row makes an enrolled version of this pass.
    pub(crate) fn check_enrolled(&self, row: &[u8], pass: &PassId) -> Result<(), Refused> {
        let row = Row::of_json(1, row).map_err(Refused::NoRow)?;
        Ok(self
            .maker()
            .check_enrolled(&row, pass)
            .map_err(MakeError::Row)?)
    }

    /// Returns whether the current version of a pass offers rewards enrolment.
    pub(crate) fn offers_enrolment(&self, pass: &PassId) -> bool {
        if pass.type_id != *self.maker().type_id() || !self.can_enrol() {
            return false;
        }
        let folder = OutputFolder::look_at(&self.settings.out, self.kind);
        let file = folder.read(&folder.file_name(&pass.serial));
        let files = file.ok().and_then(|file| PassFiles::of_archive(&file).ok());
        files.is_some_and(|files| files.get(ENROLMENT).is_some())
    }

    /// Returns whether passes can be enrolled.
    pub(crate) fn can_enrol(&self) -> bool {
        self.maker().can_enrol()
    }

    /// Returns the current signer.
    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.maker().shared_signer()
    }

    /// Returns whether another request, or another process, has replaced the pass since.
    pub(crate) fn is_replaced(&self, made: &MadeOne) -> bool {
        let folder = OutputFolder::look_at(&self.settings.out, self.kind);
        let name = folder.file_name(&made.pass.serial);
        folder.read(&name).is_ok_and(|file| file != made.archive)
    }

    /// Makes the passes of the table, and again whenever the table, the template or the certificate changes.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut inputs = Inputs::new(self.settings.inputs());
        let mut was_busy = false;
        loop {
            let this = self.clone();
            let look = tokio::task::spawn_blocking(move || {
                let seen = Seen::default();
                let is_due = inputs.look();
                let is_busy = is_due && this.renew(&seen);
                if is_due && !is_busy {
                    inputs.set_done(seen);
                }
                (inputs, is_busy)
            });
            let is_busy;
            (inputs, is_busy) = look.await.unwrap_or_else(|error| {
                // The task panicked. The service continues.
                tracing::error!("making the passes of the table failed: {error}");
                (Inputs::new(self.settings.inputs()), false)
            });
            if is_busy && !was_busy {
                tracing::warn!(
                    "the passes wait, because another process writes to {}",
                    OneLine::path(self.folder())
                );
            }
            was_busy = is_busy;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reads the template and the certificate again, and makes the passes of the table. Errors go to the log. Returns
    /// whether this must be repeated, because another process writes to the folder.
    fn renew(&self, seen: &Seen) -> bool {
        let is_busy = |what: &str, error: Unusable| match error {
            Unusable::Busy => true,
            Unusable::Failed(failure) => {
                tracing::error!("{what}: {failure}");
                false
            }
        };
        match open_maker(&self.settings, &self.password) {
            Ok(maker) if maker.kind() == self.kind => {
                let mut current = self.maker.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(maker);
                tracing::debug!("the template and the certificate are read again");
            }
            Ok(_) => {
                tracing::error!(
                    "the template is now for the other kind, passes or orders; restart the service to use it"
                );
                return false;
            }
            Err(error) => {
                if is_busy(
                    "passes are still made with the old template and certificate",
                    error,
                ) {
                    return true;
                }
            }
        }
        let Some(table) = &self.settings.from else {
            return false;
        };
        match self.make_table(table, seen) {
            Ok(summary) => {
                let Summary {
                    rows,
                    new,
                    changed,
                    bad,
                    voided,
                    ..
                } = summary;
                let shown = OneLine::path(table);
                tracing::info!(
                    "{shown}: {rows} rows: {new} passes are new, {changed} changed, {voided} voided, {bad} rows are wrong"
                );
                false
            }
            Err(error) => is_busy("can't make the passes of the table", error),
        }
    }

    fn make_table(&self, path: &Path, seen: &Seen) -> Result<Summary, Unusable> {
        let mut table = Table::open(path)?;
        let maker = self.maker();
        if let Some(columns) = table.columns() {
            maker.check_columns(columns)?;
        }
        let _turn = self.turn.blocking_lock();
        let folder = open_when_free(&self.settings.out, self.kind)?;
        let batch = Batch {
            maker: &maker,
            folder: &folder,
            is_dry: false,
            void_missing: self.settings.void_missing,
            seen,
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
            Event::NotVoided(problem) => tracing::warn!("not voided: {problem}"),
            _ => {}
        })?;
        if summary.bad > shown as u64 {
            tracing::warn!("{name}: {} more rows are wrong", summary.bad - shown as u64);
        }
        Ok(summary)
    }
}

fn open_maker(settings: &Settings, password: &CertPassword) -> Result<Maker, Unusable> {
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
        let path = settings.secret()?;
        let folder = open_when_free(&settings.out, maker.kind())?;
        let secret = open_secret(&path, &folder, maker.type_id(), false)?;
        maker = maker.with_secret(secret.tokens);
    }
    Ok(maker)
}

/// Opens the folder. Waits while another process writes to the folder.
fn open_when_free(path: &Path, kind: Kind) -> Result<OutputFolder, Unusable> {
    OutputFolder::open_within(path, kind, WAIT)?.ok_or(Unusable::Busy)
}
