use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use passkit_server::{
    PassId,
    identifiers::{Kind, SerialNumber, TypeIdentifier},
    text::OneLine,
};

use crate::{
    explain::{Content, Version, explain},
    failure::Failure,
    store::{self, StoreUrl},
};

/// Says why phones do not have the newest version of a pass, in one sentence.
///
/// The command reads the store: the registrations, the pending pushes, and the records of what became of a change. It changes
/// nothing, and may run while the service runs. The last line is the answer. The documentation has a page about each cause:
/// docs/why-does-my-phone-not-update.md.
///
/// Exit code: 0 all is well, 1 something is wrong, 2 the question can't be answered.
#[derive(Args)]
pub(crate) struct Explain {
    /// The store that the service uses. A sled: store must not be in use.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// The folder with .pkpass files that the service serves. With it, the command also knows the webServiceURL of the pass,
    /// whether its file is published, and whether phones show its changes.
    #[arg(long, env = "PASSKIT_PASSES", value_name = "DIR")]
    passes: Option<PathBuf>,

    /// The folder with .order files that the service serves.
    #[arg(long, env = "PASSKIT_ORDERS", value_name = "DIR")]
    orders: Option<PathBuf>,

    /// A copy of the previous version of the pass, such as the file that the phone has. With it, the command knows what
    /// changed. Needs --passes.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,

    /// The greatest number of phones to read.
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    devices: usize,

    /// How the explanation is printed.
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,

    /// The file that the service gets with its option `--config`.
    #[arg(long = "config", env = "PASSKIT_CONFIG", value_name = "FILE.toml")]
    config_file: Option<PathBuf>,

    /// The type of the pass or order.
    #[arg(value_name = "TYPE")]
    type_id: TypeIdentifier,

    /// The serial number of the pass, or the identifier of the order.
    #[arg(value_name = "SERIAL")]
    serial: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Text for people. The last line is the answer.
    Text,
    /// JSON for programs.
    Json,
}

impl Explain {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let serial = SerialNumber::new(&self.serial)
            .map_err(|error| Failure::from_error("can't explain the pass", &error))?;
        let pass = PassId {
            type_id: self.type_id.clone(),
            serial,
        };
        let content = self.content(&pass)?;
        let opened = self.store.open().await?;
        let explanation = explain(&*opened.store, &pass, content, self.devices)
            .await
            .map_err(|error| Failure::from_error("can't read the store", &error))?;
        match self.format {
            Format::Text => say!("{}", explanation.text()),
            Format::Json => say!("{:#}", explanation.json()),
        }
        Ok(if explanation.is_wrong() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    /// Reads the archive of the pass, if a folder is named and has it.
    fn content(&self, pass: &PassId) -> Result<Option<Content>, Failure> {
        let folder = match pass.type_id.kind() {
            Kind::Pass => &self.passes,
            Kind::Order => &self.orders,
        };
        let Some(folder) = folder else {
            return match &self.previous {
                Some(_) => Err(Failure::new(
                    "--previous needs the folder with the newest version; name it with --passes DIR or --orders DIR",
                )),
                None => Ok(None),
            };
        };
        let cannot_read =
            |error| Failure::new(format!("can't read {}: {error}", OneLine::path(folder)));
        let found = passkit_folder::find_archive(folder, pass).map_err(cannot_read)?;
        let Some(file) = found else {
            return Ok(None);
        };
        let newest = version(&file, pass)?;
        let previous = self.previous.as_deref();
        let previous = previous.map(|file| version(file, pass)).transpose()?;
        Ok(Some(newest.content(previous.as_ref())))
    }
}

/// Reads a version of the pass.
fn version(file: &Path, pass: &PassId) -> Result<Version, Failure> {
    let wrong = |problem: &str| Failure::new(format!("{} {problem}", OneLine::path(file)));
    let version = Version::open(file).map_err(|problem| wrong(&problem))?;
    if version.id != *pass {
        return Err(wrong(&format!("holds {}, and not {pass}", version.id)));
    }
    Ok(version)
}
