use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use passkit_archive::{Signer, template::Template};
use passkit_server::{
    identifiers::{Kind, TypeIdentifier},
    text::OneLine,
};

use super::new_files::{self, refuse_existing, word, write};
use crate::{
    failure::Failure,
    starters::{Starter, Style},
};

/// The token in the templates. Each new template gets a random token instead, because everybody knows
/// this token.
const SAMPLE_TOKEN: &str = "\"TOKEN\"";

/// Writes a template to start from, with a sample table of values beside it.
///
/// The template has sample values, images in all sizes, texts in two languages, and passkit.toml,
/// which says which column goes where. Change everything as you like. "passkit make" makes a pass for
/// each row of the table.
///
/// Existing files are never overwritten.
#[derive(Args)]
pub(crate) struct New {
    /// The folder of the template, such as card.pkpasstemplate. It must not exist yet.
    folder: PathBuf,

    /// The style of the passes.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "storeCard",
        value_name = "STYLE"
    )]
    style: Style,

    /// Also write a throw-away certificate with its key. With it, you can try everything without a
    /// certificate from Apple. No phone accepts passes that it signed.
    #[arg(long, value_name = "FILE")]
    throwaway_cert: Option<PathBuf>,
}

impl New {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Starter { table, files } = self.style.starter();
        if self.folder.file_name().is_none() {
            let folder = OneLine::path(&self.folder);
            return Err(Failure::new(format!(
                "{folder}: gives the template no name; name a folder such as card.pkpasstemplate"
            )));
        }
        let table_path = self.folder.with_file_name(table.0);
        let paths = [
            Some(&self.folder),
            Some(&table_path),
            self.throwaway_cert.as_ref(),
        ];
        for path in paths.into_iter().flatten() {
            refuse_existing(path)?;
        }

        for (name, content) in files {
            let content = match name.ends_with(".json") {
                true => with_own_token(content)?,
                false => content.to_vec(),
            };
            write(&self.folder.join(name), &content)?;
        }
        write(&table_path, table.1)?;
        if let Some(path) = &self.throwaway_cert {
            write(path, self.certificate()?.as_bytes())?;
        }
        self.say_next(&table_path, first_serial(table.1));
        Ok(ExitCode::SUCCESS)
    }

    /// Makes a certificate for the type and the team in the template.
    fn certificate(&self) -> Result<String, Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::from_error("can't make a throw-away certificate", error)
        };
        let template = Template::open(&self.folder).map_err(|error| failed(&error))?;
        let keys = [template.type_key(), "teamIdentifier"];
        let [type_id, team] = keys.map(|key| template.text(key).unwrap_or_default());
        let type_id = TypeIdentifier::new(type_id).map_err(|error| failed(&error))?;
        Signer::throwaway_pem(&type_id, team, self.style.needs_nfc())
            .map_err(|error| failed(&error))
    }

    /// Prints the commands that come next.
    fn say_next(&self, table: &Path, serial: &str) {
        let (folder, table) = (word(&self.folder), word(table));
        let (description, passes) = match self.style.kind() {
            Kind::Pass => ("pass.json", "passes"),
            Kind::Order => ("order.json", "orders"),
        };
        say!("made {folder} and {table}\n");
        let cert = match &self.throwaway_cert {
            Some(path) => word(path),
            None => {
                say!(
                    "# write the type and the team of your certificate into {folder}/{description}, then\n"
                );
                "certificate.p12".into()
            }
        };
        say!(
            "# make the {passes}; run this again when the table has changed\n\
             passkit make --template {folder} --from {table} --cert {cert} --out {passes}\n"
        );
        if self.throwaway_cert.is_none() {
            say!(
                "# serve the {passes}, and send pushes\npasskit serve --{passes} {passes} --apns-cert {cert}"
            );
            return;
        }
        let first = match self.style.kind() {
            Kind::Pass => format!("passes/{serial}.pkpass"),
            Kind::Order => format!("orders/{serial}.order"),
        };
        say!(
            "# play a phone, in another terminal; this prints the OPTIONS of the next command\n\
             passkit device listen\n\n\
             # serve the {passes}\n\
             passkit serve --{passes} {passes} OPTIONS\n\n\
             # add one of the {passes} to the phone\n\
             passkit device add {first} --url http://127.0.0.1:8080"
        );
    }
}

/// Returns the first cell of the first row. In each sample table, this is the serial number.
fn first_serial(table: &[u8]) -> &str {
    let table = std::str::from_utf8(table).unwrap_or_default();
    let row = table.lines().nth(1).unwrap_or_default();
    row.split(',').next().unwrap_or_default()
}

/// Replaces the token of the sample with a random token.
fn with_own_token(description: &[u8]) -> Result<Vec<u8>, Failure> {
    let text = String::from_utf8_lossy(description);
    let token = format!("\"{}\"", new_files::random_token()?);
    Ok(text.replace(SAMPLE_TOKEN, &token).into_bytes())
}
