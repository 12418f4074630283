use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use passkit_archive::{PassFiles, template::Template as PassTemplate};
use passkit_server::identifiers::Kind;
use serde_json::{Map, Value};

use super::new_files::{random_token, refuse_existing, word, write};
use crate::failure::Failure;

/// Makes a template from a pass or an order, to make more like it with "passkit make".
///
/// Writes a folder with the files of the pass and with passkit.toml, and beside it a table with one
/// row: the values of this pass. Each field has a column. Remove the columns that are the same in
/// all passes, and add a row for each pass.
///
/// The authentication token of the pass is not copied. Existing files are never overwritten.
#[derive(Args)]
pub(crate) struct Template {
    /// The pass or order: an archive, or an unzipped folder.
    pass: PathBuf,

    /// The folder to write. By default, it is beside the pass, and ends in .pkpasstemplate.
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Template {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| Failure::of_file(&self.pass, error);
        let files = PassFiles::open(&self.pass).map_err(|error| failed(&error))?;
        let folder = self.folder();
        let table_path = folder.with_extension("csv");
        for path in [&folder, &table_path] {
            refuse_existing(path)?;
        }
        let (description, serial_key) = match files.kind() {
            Kind::Pass => ("pass.json", "serialNumber"),
            Kind::Order => ("order.json", "orderIdentifier"),
        };
        let json = files.get(description).unwrap_or_default();
        let pass = files.description().map_err(|error| failed(&error))?;
        let (recipe, table) = recipe_and_table(&pass, serial_key);

        for name in files.names().filter(|name| *name != description) {
            write(&folder.join(name), files.get(name).unwrap_or_default())?;
        }
        write(&folder.join(description), &with_other_token(json, &pass)?)?;
        write(&folder.join("passkit.toml"), recipe.as_bytes())?;
        write(&table_path, table.as_bytes())?;
        say_next(files.kind(), &folder, &table_path)
    }

    fn folder(&self) -> PathBuf {
        match &self.output {
            Some(folder) => folder.clone(),
            None => self.pass.with_extension("pkpasstemplate"),
        }
    }
}

/// Prints the command that comes next, and what the template leaves out.
fn say_next(kind: Kind, folder: &Path, table: &Path) -> Result<ExitCode, Failure> {
    let template = PassTemplate::open(folder).map_err(|error| Failure::of_file(folder, &error))?;
    for pointer in template.samples() {
        eprintln!(
            "passkit: passes of the template do not have {pointer}; set it in passkit.toml, under [set]"
        );
    }
    let (folder, table) = (word(folder), word(table));
    let (one, all) = match kind {
        Kind::Pass => ("a pass", "passes"),
        Kind::Order => ("an order", "orders"),
    };
    say!(
        "made {folder} and {table}\n\n\
         # make {one} for each row of the table\n\
         passkit make --template {folder} --from {table} --cert certificate.p12 --out {all}"
    );
    Ok(ExitCode::SUCCESS)
}

/// The column with the serial numbers, if no field has this key.
const SERIAL: &str = "serial";
/// The column with the messages of the barcodes.
const BARCODE: &str = "barcode";

/// Writes `passkit.toml` and the table. Each field has a column with its key, unless the key can't be
/// the name of a column.
fn recipe_and_table(pass: &Map<String, Value>, serial_key: &str) -> (String, String) {
    let serial = pass
        .get(serial_key)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut columns = vec![(SERIAL, serial.to_owned())];
    let mut recipe = format!(
        "# Where the values of a pass come from. {{{SERIAL}}} is the column of that name in the table.\n\
         serial = \"{{{SERIAL}}}\"\n"
    );
    let mut fields = String::new();
    for (key, value) in fields_of(pass) {
        let form = match value {
            Value::String(text) => {
                columns.push((key, text.clone()));
                format!("\"{{{key}}}\"")
            }
            Value::Number(number) => {
                columns.push((key, number.to_string()));
                format!("{{ number = \"{{{key}}}\" }}")
            }
            _ => continue,
        };
        fields += &format!("{key} = {form}\n");
    }
    if !fields.is_empty() {
        recipe += &format!("\n# The fields of pass.json, by their keys.\n[fields]\n{fields}");
    }
    if let Some(message) = barcode_of(pass) {
        let column = if message == serial { SERIAL } else { BARCODE };
        recipe += &format!("\n[barcode]\nmessage = \"{{{column}}}\"\n");
        if column == BARCODE {
            columns.push((BARCODE, message.to_owned()));
        }
    }
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let values = columns.iter().map(|(_, value)| cell(value)).collect();
    (recipe, line(names) + &line(values))
}

/// Returns the key and the value of each field, each key once.
fn fields_of(pass: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let groups = pass.values().filter_map(Value::as_object).flatten();
    let lists = groups.filter(|(name, _)| name.ends_with("Fields"));
    let fields = lists.filter_map(|(_, list)| list.as_array()).flatten();
    let mut known = BTreeSet::from([SERIAL, BARCODE]);
    let is_name = |key: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        !key.is_empty() && key.chars().all(is_plain)
    };
    fields.filter_map(move |field| {
        let key = field.get("key")?.as_str()?;
        let value = field.get("value")?;
        (is_name(key) && known.insert(key)).then_some((key, value))
    })
}

/// Returns the message of the barcodes, if there are any and they have the same.
fn barcode_of(pass: &Map<String, Value>) -> Option<&str> {
    let new = pass
        .get("barcodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let mut messages = new
        .chain(pass.get("barcode"))
        .map(|barcode| barcode.get("message")?.as_str());
    let first = messages.next()??;
    messages
        .all(|message| message == Some(first))
        .then_some(first)
}

/// Writes a cell of CSV.
fn cell(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r', ';', '\t', '|']) || text.trim() != text {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Replaces the authentication token, so that the secret of one pass is not in all others.
fn with_other_token(json: &[u8], pass: &Map<String, Value>) -> Result<Vec<u8>, Failure> {
    let text = String::from_utf8_lossy(json);
    let Some(token) = pass.get("authenticationToken").and_then(Value::as_str) else {
        return Ok(json.to_vec());
    };
    let quoted = |token: &str| format!("\"{token}\"");
    if token.is_empty() || !text.contains(&quoted(token)) {
        return Err(Failure::new(
            "can't replace the authenticationToken, because pass.json writes it with escapes; write it without escapes",
        ));
    }
    Ok(text
        .replace(&quoted(token), &quoted(&random_token()?))
        .into_bytes())
}
