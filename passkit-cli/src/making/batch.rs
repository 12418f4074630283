//! Makes the passes of a whole table in a folder.

use std::{
    collections::HashSet,
    path::Path,
    thread::{self, ScopedJoinHandle},
};

use bytes::Bytes;
use passkit_archive::{Findings, Level, Report, Rules, template::Template};
use passkit_server::{
    PassId,
    identifiers::TypeIdentifier,
    store::ContentDigest,
    text::{Chain, OneLine},
};
use sha2::{Digest as _, Sha256};

use super::{
    inputs::Seen,
    maker::{Filled, Maker},
    output_folder::{Existing, OutputFolder, Staged},
    parallel::in_parallel,
    row_error::{MakeError, RowError},
    secret::Secret,
    table::{Row, Table},
};
use crate::failure::Failure;

/// The limits of a batch of rows in memory: how many rows, and roughly how many bytes.
const ROWS: usize = 512;
const ROW_BYTES: usize = 4 << 20;
/// How many files get their final names together.
const FILES: usize = 2_048;
/// How many rows are tried before the template is refused.
const TRIED: usize = 20;

/// How the passes of a table are made.
pub(crate) struct Batch<'a> {
    pub(crate) maker: &'a Maker,
    pub(crate) folder: &'a OutputFolder,
    /// Only find out what would change.
    pub(crate) is_dry: bool,
    /// Write a voided version of the passes that have no row.
    pub(crate) void_missing: bool,
    /// The images that were read.
    pub(crate) seen: &'a Seen,
}

/// What was done, in numbers of rows or files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) new: u64,
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
    /// Rows without a pass, because something is wrong with them.
    pub(crate) bad: u64,
    /// Passes of this type that have no row and are not voided.
    pub(crate) without_row: u64,
    pub(crate) voided: u64,
}

/// An event to show while passes are made.
pub(crate) enum Event<'a> {
    /// What `passkit check` says about the first pass.
    Checked(&'a Findings),
    Bad(&'a RowError),
    /// A file was made, changed or voided, or would be in a dry run.
    File(&'a str, Change),
    /// A voided version could not be made.
    NotVoided(String),
    /// This many rows and bytes are done.
    Progress(u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    New,
    Changed,
    Voided,
}

/// Opens the secret of the tokens. Makes it if it is missing and no pass needs the old one.
pub(crate) fn open_secret(
    path: &Path,
    folder: &OutputFolder,
    type_id: &TypeIdentifier,
    is_dry: bool,
) -> Result<Secret, Failure> {
    let secret = match Secret::read(path)? {
        Some(secret) => secret,
        None if folder.has_tokens(type_id)? => {
            return Err(Failure::new(format!(
                "the secret {} is missing, and there are passes with tokens that phones have; put the secret back, or name \
                 it with --token-secret",
                OneLine::path(path)
            )));
        }
        None if is_dry => Secret::made_up()?,
        None => Secret::make(path)?,
    };
    folder.check_secret(&secret, path, type_id)?;
    if !is_dry {
        folder.remember(&secret)?;
    }
    Ok(secret)
}

/// The result for a row.
enum Outcome {
    Unchanged,
    Written(String, Change, Option<Staged>),
    Bad(RowError),
    Failed(Failure),
}

impl From<MakeError> for Outcome {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Row(error) => Self::Bad(error),
            MakeError::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// A pass that was made alone, and not with a table.
pub(crate) struct MadeOne {
    /// `None` if the file had this content already.
    pub(crate) change: Option<Change>,
    pub(crate) pass: PassId,
    pub(crate) content: ContentDigest,
    /// The content of the file.
    pub(crate) archive: Bytes,
}

/// A row and the name of its file.
struct Named {
    row: Row,
    name: String,
}

/// The start of a SHA-256 of a file name. A table may have a million rows.
type NameHash = u128;

impl Batch<'_> {
    /// Makes all passes of a table.
    pub(crate) fn run(
        &self,
        table: &mut Table,
        mut show: impl FnMut(Event<'_>),
    ) -> Result<Summary, Failure> {
        let mut summary = Summary::default();
        let mut seen = HashSet::new();
        let mut is_tried = false;
        thread::scope(|scope| {
            let mut committing = Committing {
                folder: self.folder,
                staged: Vec::new(),
                running: None,
            };
            while let Some(rows) = read(table)? {
                summary.rows += rows.len() as u64;
                let mut named = Vec::with_capacity(rows.len());
                for row in rows {
                    match row.and_then(|row| self.name(row, &mut seen)) {
                        Ok(row) => named.push(row),
                        Err(error) => {
                            summary.bad += 1;
                            show(Event::Bad(&error));
                        }
                    }
                }
                if !is_tried && !named.is_empty() {
                    if let Some(findings) = self.try_first(&named, table.name())? {
                        show(Event::Checked(&findings));
                    }
                    is_tried = true;
                }
                for outcome in in_parallel(named, |named| self.make(&named)) {
                    match outcome {
                        Outcome::Unchanged => summary.unchanged += 1,
                        Outcome::Bad(error) => {
                            summary.bad += 1;
                            show(Event::Bad(&error));
                        }
                        Outcome::Failed(failure) => return Err(failure),
                        Outcome::Written(name, change, staged) => {
                            match change {
                                Change::New => summary.new += 1,
                                _ => summary.changed += 1,
                            }
                            show(Event::File(&name, change));
                            committing.staged.extend(staged);
                        }
                    }
                }
                if committing.staged.len() >= FILES {
                    committing.start(scope)?;
                }
                show(Event::Progress(summary.rows, table.bytes));
            }
            committing.start(scope)?;
            committing.finish()
        })?;
        self.look_for_missing(&seen, &mut summary, &mut show)?;
        if !self.is_dry {
            self.folder.sync()?;
            self.folder.renew_note()?;
        }
        Ok(summary)
    }

    /// Makes the pass of a single row. When this returns, the file is on disk.
    pub(crate) fn make_one(&self, row: Row) -> Result<MadeOne, MakeError> {
        let Named { row, name } = self.name(row, &mut HashSet::new())?;
        let (change, archive) = match self.plan(&row, &name)? {
            None => (None, self.read(&name)?),
            Some((change, filled)) => (Some(change), filled.sign()?.archive),
        };
        let report = Report::of(&archive, Rules::strict());
        if change.is_some() {
            let mut errors = report.findings.iter();
            if let Some(worst) = errors.find(|one| one.level() >= Level::Error) {
                let message = format!("makes a pass that phones would refuse: {worst}");
                return Err(RowError::new(row.line, message).into());
            }
            self.folder.replace(&name, &archive)?;
        }
        // A run that was stopped may have renamed the file without a sync.
        self.folder.sync_names()?;
        let Some(found) = report.archive else {
            let file = self.folder.shown(&name);
            return Err(Failure::new(format!("{file}: can't be read")).into());
        };
        Ok(MadeOne {
            change,
            pass: found.id,
            content: found.content_digest,
            archive: archive.into(),
        })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let read = self.folder.read(name);
        read.map_err(|problem| Failure::new(format!("{}: {problem}", self.folder.shown(name))))
    }

    /// Finds the name of a row's file. Fails if an earlier row has the same one.
    fn name(&self, row: Row, seen: &mut HashSet<NameHash>) -> Result<Named, RowError> {
        let pass = self.maker.pass(&row)?;
        let name = self.folder.file_name(&pass.serial);
        if seen.insert(hash(&name)) {
            return Ok(Named { row, name });
        }
        let message = format!(
            "an earlier row has the serial number {:?} too; remove one of the rows",
            pass.serial.as_str()
        );
        Err(RowError::new(row.line, message))
    }

    /// Makes one of the first passes. If none of them would work, the template is refused.
    fn try_first(&self, rows: &[Named], table: &str) -> Result<Option<Findings>, Failure> {
        let (mut refused, mut count) = (None, 0);
        for named in rows {
            match self.maker.make(&named.row, self.seen) {
                Ok(made) => {
                    let findings = made.findings();
                    let worst = findings
                        .iter()
                        .find(|finding| finding.level() >= Level::Error);
                    return match worst {
                        Some(worst) => Err(Failure::new(format!(
                            "no pass was made, because phones would refuse {}: {worst}",
                            made.pass
                        ))),
                        None => Ok(Some(findings)),
                    };
                }
                Err(MakeError::Failed(failure)) => return Err(failure),
                Err(MakeError::Row(error)) if error.is_refused && count < TRIED => {
                    refused.get_or_insert(error);
                    count += 1;
                }
                Err(MakeError::Row(error)) if error.is_refused => break,
                // The row is reported later.
                Err(MakeError::Row(_)) => {}
            }
        }
        match refused {
            None => Ok(None),
            Some(error) => Err(Failure::new(format!(
                "no pass was made, because none of the first passes would work. {table}:{}: {error}",
                error.line
            ))),
        }
    }

    fn make(&self, named: &Named) -> Outcome {
        self.try_make(named).unwrap_or_else(Outcome::from)
    }

    fn try_make(&self, Named { row, name }: &Named) -> Result<Outcome, MakeError> {
        let Some((change, filled)) = self.plan(row, name)? else {
            return Ok(Outcome::Unchanged);
        };
        let staged = if self.is_dry {
            filled.check()?;
            None
        } else {
            Some(self.folder.stage(name, &filled.sign()?.archive)?)
        };
        Ok(Outcome::Written(name.clone(), change, staged))
    }

    /// Compares the pass of a row with the existing file. Returns `None` if the file has this pass already.
    fn plan(&self, row: &Row, name: &str) -> Result<Option<(Change, Filled<'_>)>, MakeError> {
        let mut filled = self.maker.fill(row, self.seen)?;
        let manifest = filled.manifest()?;
        let change = match self.folder.existing(name)? {
            Existing::Missing => Change::New,
            Existing::Archive(mut archive) => {
                let old_manifest = archive.manifest();
                if archive.is_signed() && old_manifest.as_ref() == Some(&manifest) {
                    return Ok(None);
                }
                if let Some(old) = old_manifest {
                    self.maker.check_still_enrolled(row, &old)?;
                }
                let old = archive.identify();
                self.check_replaced(row, name, &filled, old)?;
                Change::Changed
            }
            Existing::Damaged => {
                self.check_replaced(row, name, &filled, None)?;
                Change::Changed
            }
        };
        Ok(Some((change, filled)))
    }

    /// Checks that a new pass may replace the old one. Both must be the same pass, and the token of phones
    /// that have the pass must stay the same. `old` is `None` if the file is damaged.
    fn check_replaced(
        &self,
        row: &Row,
        name: &str,
        new: &Filled<'_>,
        old: Option<passkit_archive::Identified>,
    ) -> Result<(), RowError> {
        let refused = |message: &str| {
            Err(RowError::new(
                row.line,
                format!("{}: {message}", self.folder.shown(name)),
            ))
        };
        let Some(old) = old else {
            // An earlier check made sure that all tokens in the folder come from this secret.
            return if self.maker.is_derived(row) || new.token.is_none() {
                Ok(())
            } else {
                refused(
                    "is damaged, so its token can't be compared with the token in the table; remove the file if the token in the table is right",
                )
            };
        };
        if old.id != new.pass {
            return refused("is another pass; use another folder");
        }
        match (&old.auth_token, &new.token) {
            (Some(old), Some(new)) if old.as_str() != new.as_str() => refused(
                "has another authentication token, and phones that have the pass would be locked out; put the old token \
                 back, or remove the file if no phone has the pass",
            ),
            _ => Ok(()),
        }
    }

    /// Counts the passes that have no row, or writes their last, voided version.
    fn look_for_missing(
        &self,
        seen: &HashSet<NameHash>,
        summary: &mut Summary,
        show: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Failure> {
        let mut missing = Vec::new();
        self.folder.find(|names| {
            for name in names.into_iter().filter(|name| !seen.contains(&hash(name))) {
                if let Existing::Archive(mut archive) = self.folder.existing(&name)?
                    && let Some(pass) = archive.identify()
                    && pass.id.type_id == *self.maker.type_id()
                    && !pass.voided
                {
                    missing.push(name);
                }
            }
            Ok(None::<()>)
        })?;
        // A row that can't be read may be the row of any of these passes.
        if !self.void_missing || summary.bad > 0 || summary.rows == 0 {
            summary.without_row = missing.len() as u64;
            return Ok(());
        }
        for names in missing.chunks(FILES) {
            let mut staged = Vec::new();
            let voided = in_parallel(names.to_vec(), |name| {
                let result = self.void(&name);
                (name, result)
            });
            for (name, result) in voided {
                match result {
                    Ok(Ok(file)) => {
                        summary.voided += 1;
                        show(Event::File(&name, Change::Voided));
                        staged.extend(file);
                    }
                    Ok(Err(problem)) => {
                        summary.without_row += 1;
                        show(Event::NotVoided(format!(
                            "{}: {problem}",
                            self.folder.shown(&name)
                        )));
                    }
                    Err(failure) => return Err(failure),
                }
            }
            self.folder.commit(staged)?;
        }
        Ok(())
    }

    /// Makes the voided version of a pass. The inner error says why it can't be made.
    fn void(&self, name: &str) -> Result<Result<Option<Staged>, String>, Failure> {
        let filled = || {
            let bytes = self.folder.read(name)?;
            let template =
                Template::read_finished(&bytes).map_err(|error| Chain(&error).to_string())?;
            let builder = template.fill().set("/voided", true).finish();
            builder.map_err(|error| OneLine::of(&error.to_string()).to_string())
        };
        match filled() {
            Ok(_) if self.is_dry => Ok(Ok(None)),
            Ok(builder) => {
                let archive = self.maker.sign(&builder)?;
                Ok(Ok(Some(self.folder.stage(name, &archive)?)))
            }
            Err(problem) => Ok(Err(problem)),
        }
    }
}

/// Files without their final names, and the thread that names the group before them.
struct Committing<'scope, 'a> {
    folder: &'a OutputFolder,
    staged: Vec<Staged>,
    running: Option<ScopedJoinHandle<'scope, Result<(), Failure>>>,
}

impl<'scope, 'a: 'scope> Committing<'scope, 'a> {
    /// Starts a thread that names the staged files. Waits first until the group before has its names.
    fn start(&mut self, scope: &'scope thread::Scope<'scope, '_>) -> Result<(), Failure> {
        self.finish()?;
        let (folder, files) = (self.folder, std::mem::take(&mut self.staged));
        self.running = Some(scope.spawn(move || folder.commit(files)));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        match self.running.take().map(ScopedJoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

/// Reads some rows. Returns `None` at the end.
fn read(table: &mut Table) -> Result<Option<Vec<Result<Row, RowError>>>, Failure> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < ROWS && bytes < ROW_BYTES {
        let Some(row) = table.next()? else {
            break;
        };
        bytes += row.as_ref().map_or(0, Row::size);
        rows.push(row);
    }
    Ok((!rows.is_empty()).then_some(rows))
}

fn hash(name: &str) -> NameHash {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let start = digest.first_chunk().copied().unwrap_or_default();
    u128::from_le_bytes(start)
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fs, sync::Arc, time::Duration};

    use passkit_archive::{Purpose, SignatureAlgorithm, Signer, SigningKey, placeholder_icon};

    use super::*;

    /// A key whose module is gone.
    struct Unplugged;

    impl SigningKey for Unplugged {
        fn algorithm(&self) -> SignatureAlgorithm {
            SignatureAlgorithm::EcdsaP256Sha256
        }

        fn sign(&self, _: Purpose, _: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
            Err("unplugged".into())
        }
    }

    /// Calls `work` with a batch whose key does not sign, and with the folder of the template and the table.
    fn with_batch(work: impl FnOnce(&Batch<'_>, &Path)) {
        let type_id = TypeIdentifier::new("pass.com.example.card").unwrap();
        let certificate = Signer::throwaway_pem(&type_id, "ABCDE12345", false).unwrap();
        let signer = Signer::with_key(certificate.as_bytes(), Unplugged, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pass = r#"{"formatVersion":1,"organizationName":"Example","description":"A card",
            "storeCard":{"primaryFields":[{"key":"name","value":"Sample"}]}}"#;
        fs::write(folder.path().join("pass.json"), pass).unwrap();
        fs::write(folder.path().join("icon.png"), placeholder_icon(38)).unwrap();
        let out = tempfile::tempdir().unwrap();
        let batch = Batch {
            maker: &Maker::open(folder.path(), Arc::new(signer)).unwrap(),
            folder: &OutputFolder::open_within(out.path(), type_id.kind(), Duration::ZERO)
                .unwrap()
                .unwrap(),
            is_dry: false,
            void_missing: false,
            seen: &Seen::default(),
        };
        work(&batch, folder.path());
        assert_eq!(
            fs::read_dir(out.path()).unwrap().count(),
            1,
            "only the hidden folder"
        );
    }

    #[test]
    fn a_key_that_does_not_sign_is_not_the_fault_of_a_row() {
        with_batch(|batch, _| {
            let row = Row::of_json(1, br#"{"serial":"A-1","name":"Ada"}"#).unwrap();
            match batch.make_one(row) {
                Err(MakeError::Failed(failure)) => {
                    let line = failure.to_string();
                    assert!(
                        line.starts_with("can't sign the passes: ") && line.ends_with("unplugged"),
                        "{line}"
                    );
                }
                other => panic!("{:?}", other.map(|made| made.pass)),
            }
        });
    }

    #[test]
    fn a_key_that_does_not_sign_ends_a_run() {
        with_batch(|batch, folder| {
            let path = folder.join("table.csv");
            fs::write(&path, "serial,name\nA-1,Ada\nA-2,Alan\n").unwrap();
            let failure = batch
                .run(&mut Table::open(&path).unwrap(), |_| {})
                .unwrap_err();
            assert!(failure.to_string().ends_with("unplugged"), "{failure}");
        });
    }
}
