use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Args;
use passkit_archive::{Findings, Signer};
use passkit_server::{identifiers::Kind, text::OneLine};

use super::progress::Progress;
use crate::{
    failure::Failure,
    making::{
        Batch, Change, Event, Inputs, LOOK_EVERY, Maker, OutputFolder, Seen, Summary, Table, busy,
        open_secret, secret_path,
    },
    output,
    signer::SignerOptions,
};

/// Makes and signs a pass or an order for each row of a table.
///
/// Run the command again after the table has changed. It makes only the passes of changed rows again.
/// If `passkit serve` serves the folder, only the phones with these passes get a push.
///
/// The template is a folder or a zip file, such as any pass or what Pass Designer saves. The file
/// passkit.toml in the template says which columns go where. Without this file, each column fills in
/// the field whose key is the name of the column.
///
/// If something is wrong with a row, no pass is made for it, and the existing file stays as it is. The
/// passes of the other rows are made.
///
/// Exit code: 0 all passes are made, 1 some rows are wrong, 2 the command failed.
#[derive(Args)]
pub(crate) struct Make {
    /// The template.
    #[arg(long, value_name = "TEMPLATE")]
    template: PathBuf,

    /// The table: CSV with the names of the columns in its first line, or a JSON object in each line. With
    /// -, the table is read from standard input.
    #[arg(long, value_name = "TABLE", value_parser = output::path())]
    from: PathBuf,

    /// The folder for the passes.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    signer: SignerOptions,

    /// The file with the secret from which the authentication tokens of the passes are derived. A
    /// missing file is made. Keep a copy of the file: without it, the passes can't be made again. By
    /// default, the file is beside the folder: DIR.token-secret.
    #[arg(long, value_name = "FILE")]
    token_secret: Option<PathBuf>,

    /// Write a last, voided version of each pass that no longer has a row.
    #[arg(long)]
    void_missing: bool,

    /// Only print what would change.
    #[arg(long)]
    dry_run: bool,

    /// Keep running, and make the passes again whenever the table, the template, an image or the certificate
    /// changes. Replace the table in one step (with mv), so that a half-written table is never read.
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,

    /// Print the numbers as JSON.
    #[arg(long)]
    json: bool,
}

impl Make {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.watch && self.from == Path::new("-") {
            return Err(Failure::new("standard input can't be watched; name a file"));
        }
        let signer = Arc::new(self.signer.open()?);
        if self.watch {
            return self.keep_making(signer);
        }
        self.once(&signer, &Seen::default())
    }

    /// Makes all passes again whenever a file changes.
    fn keep_making(&self, mut signer: Arc<Signer>) -> Result<ExitCode, Failure> {
        let mut paths = vec![self.from.clone(), self.template.clone()];
        paths.extend(secret_path(&self.out, self.token_secret.as_deref()));
        let mut inputs = Inputs::new(paths);
        let mut certificate = Inputs::new(self.signer.files());
        inputs.look();
        certificate.look();
        certificate.set_done(Seen::default());
        let seen = Seen::default();
        self.once(&signer, &seen)?;
        inputs.set_done(seen);
        loop {
            thread::sleep(LOOK_EVERY);
            let is_renewed = certificate.look();
            if is_renewed {
                certificate.set_done(Seen::default());
                match self.signer.open_unattended() {
                    Ok(new) => signer = Arc::new(new),
                    Err(failure) => {
                        eprintln!(
                            "passkit: passes are still made with the old certificate: {failure}"
                        );
                    }
                }
            }
            if !inputs.look() && !is_renewed {
                continue;
            }
            let seen = Seen::default();
            // The table may be missing for a moment, or its next version may be right.
            if let Err(failure) = self.once(&signer, &seen) {
                eprintln!("passkit: {failure}");
            }
            inputs.set_done(seen);
        }
    }

    /// Makes all passes once.
    fn once(&self, signer: &Arc<Signer>, seen: &Seen) -> Result<ExitCode, Failure> {
        let maker = Maker::open(&self.template, signer.clone())?;
        if self.void_missing && maker.kind() == Kind::Order {
            return Err(Failure::new(
                "orders can't be voided; leave out --void-missing",
            ));
        }
        if let Some(warning) = maker.signer().warning() {
            eprintln!("passkit: {warning}");
        }
        let table = Table::open(&self.from)?;
        if let Some(columns) = table.columns() {
            maker.check_columns(columns)?;
            let unused = maker.unused(columns);
            if !maker.has_recipe() && !unused.is_empty() {
                eprintln!(
                    "passkit: these columns are not used, because no field has their name: {}",
                    OneLine::of(&unused.join(", "))
                );
            }
        }
        let (maker, folder) = self.prepare(maker, &table)?;
        self.make(&maker, &folder, table, seen)
    }

    fn prepare(&self, maker: Maker, table: &Table) -> Result<(Maker, OutputFolder), Failure> {
        let maker = match table.folder() {
            Some(folder) => maker.with_images(folder)?,
            None => maker,
        };
        let folder = if self.dry_run {
            OutputFolder::look_at(&self.out, maker.kind())
        } else {
            self.open_folder(maker.kind())?
        };
        if !maker.needs_secret(table.columns()) {
            return Ok((maker, folder));
        }
        let path = secret_path(&self.out, self.token_secret.as_deref())?;
        let secret = open_secret(&path, &folder, maker.type_id(), self.dry_run)?;
        Ok((maker.with_secret(secret.tokens), folder))
    }

    /// Opens the folder. If another run writes to it, fails, or waits with --watch.
    fn open_folder(&self, kind: Kind) -> Result<OutputFolder, Failure> {
        if let Some(folder) = OutputFolder::open_within(&self.out, kind, Duration::ZERO)? {
            return Ok(folder);
        }
        if !self.watch {
            return Err(busy(&self.out));
        }
        let shown = OneLine::path(&self.out);
        eprintln!("passkit: another passkit make writes to {shown}; waiting until it has ended");
        let folder = OutputFolder::open_within(&self.out, kind, Duration::MAX)?;
        folder.ok_or_else(|| busy(&self.out))
    }

    fn make(
        &self,
        maker: &Maker,
        folder: &OutputFolder,
        mut table: Table,
        seen: &Seen,
    ) -> Result<ExitCode, Failure> {
        let progress = Progress::new("rows", table.length);
        let name = table.name().to_owned();
        let mut is_good = true;
        let batch = Batch {
            maker,
            folder,
            is_dry: self.dry_run,
            void_missing: self.void_missing,
            seen,
        };
        let summary = batch.run(&mut table, |event| match event {
            Event::Checked(findings) => show(findings, &progress),
            Event::Bad(error) => progress.say(&format!("{name}:{}: {error}", error.line)),
            Event::File(file, change) if self.dry_run && !self.json => {
                let change = match change {
                    Change::New => "new",
                    Change::Changed => "changed",
                    Change::Voided => "voided",
                };
                say!("{change} {file}");
            }
            Event::File(..) => {}
            Event::NotVoided(problem) => {
                is_good = false;
                progress.say(&format!("not voided: {problem}"));
            }
            Event::Progress(rows, bytes) => progress.set(rows, bytes),
        });
        progress.finish();
        let summary = summary?;
        self.report(&summary);
        Ok(if is_good && summary.bad == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn report(&self, summary: &Summary) {
        let Summary {
            rows,
            new,
            changed,
            unchanged,
            bad,
            without_row,
            voided,
        } = summary;
        if self.json {
            say!(
                "{}",
                serde_json::json!({
                    "rows": rows, "new": new, "changed": changed, "unchanged": unchanged, "bad": bad,
                    "without_row": without_row, "voided": voided, "dry_run": self.dry_run,
                })
            );
            return;
        }
        let would = if self.dry_run { "would be " } else { "" };
        say!(
            "{rows} rows: {would}{new} new, {changed} changed, {unchanged} unchanged, {bad} wrong; {voided} voided"
        );
        if *without_row > 0 && !self.void_missing {
            say!("{without_row} passes have no row; --void-missing voids them");
        } else if *without_row > 0 && *bad > 0 {
            say!(
                "{without_row} passes have no row; they are not voided, because one of the wrong rows may belong to them"
            );
        } else if *without_row > 0 && *rows == 0 {
            say!(
                "{without_row} passes have no row; they are not voided, because the table is empty"
            );
        }
    }
}

/// Shows the findings of `passkit check` about the first pass.
fn show(findings: &Findings, progress: &Progress) {
    for finding in findings {
        let (level, code) = (finding.level(), finding.rule().code);
        progress.say(&format!("the first pass: {level}: {finding} [{code}]"));
    }
}
