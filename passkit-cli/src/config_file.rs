//! The file of `--config`. Its keys are the options of `serve`. The options also determine the type
//! of each key.

use std::{any::TypeId, path::Path, time::Duration};

use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ContextValue},
};
use passkit_identity::pem;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use crate::{failure::Failure, toml_file};

/// A key with this suffix names a file with the value of a secret option.
const FILE_SUFFIX: &str = "-file";
/// The file can't set these options, because they only make sense on the command line.
const NOT_IN_FILE: [&str; 4] = ["help", "version", "config", "print-config"];

/// A key of the file.
pub(crate) struct Entry {
    /// The long name of the option.
    pub(crate) option: String,
    pub(crate) value: Value,
    /// The file, line and column, for messages.
    pub(crate) place: String,
}

pub(crate) enum Value {
    /// Whether to set an option that takes no value.
    Flag(bool),
    Text(String),
    /// The path of a file with the value.
    File(String),
}

/// Reads the file. `serve` is the command whose options the file may set.
pub(crate) fn read(path: &Path, serve: &Command) -> Result<Vec<Entry>, Failure> {
    let text = toml_file::read(path)?;
    let shown = pem::shown(path).to_string();
    let table = DeTable::parse(&text).map_err(|error| {
        Failure::new(format!("{shown}: {}", toml_file::explained(&text, &error)))
    })?;
    let mut entries: Vec<(usize, Entry)> = Vec::new();
    for (key, value) in table.get_ref() {
        let start = key.span().start;
        let place = format!("{shown}: {}", toml_file::place(&text, start));
        let (option, value) = entry(serve, key, value)
            .map_err(|problem| Failure::new(format!("{place}: {problem}")))?;
        let entry = Entry {
            option,
            value,
            place,
        };
        entries.push((start, entry));
    }
    entries.sort_by_key(|(start, _)| *start);
    let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
    for (index, entry) in entries.iter().enumerate() {
        if entries[..index]
            .iter()
            .any(|other| other.option == entry.option)
        {
            let option = &entry.option;
            return Err(Failure::new(format!(
                "{}: {option} and {option}{FILE_SUFFIX} are both set; remove one",
                entry.place
            )));
        }
    }
    Ok(entries)
}

/// Returns the name of the option, and its value.
fn entry(
    serve: &Command,
    key: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(String, Value), String> {
    let key: &str = key.get_ref();
    let value = value.get_ref();
    if let Some(option) = option(serve, key) {
        return Ok((key.to_owned(), checked(option, key, value)?));
    }
    let secret = key
        .strip_suffix(FILE_SUFFIX)
        .filter(|name| option(serve, name).is_some_and(Arg::is_hide_env_values_set));
    if let Some(name) = secret {
        let path = value
            .as_str()
            .ok_or_else(|| wrong_type(key, "a string", value))?;
        return Ok((name.to_owned(), Value::File(path.to_owned())));
    }
    Err(unknown(serve, key))
}

/// Returns whether the file may set an option of this name.
pub(crate) fn may_set(name: &str) -> bool {
    !NOT_IN_FILE.contains(&name)
}

/// Returns whether the value of an option is a number.
pub(crate) fn is_number(option: &Arg) -> bool {
    let kind = option.get_value_parser().type_id();
    let numbers = [
        TypeId::of::<usize>(),
        TypeId::of::<u64>(),
        TypeId::of::<Duration>(),
    ];
    numbers.iter().any(|number| kind == *number)
}

fn option<'a>(serve: &'a Command, name: &str) -> Option<&'a Arg> {
    serve
        .get_arguments()
        .find(|option| option.get_long() == Some(name))
        .filter(|_| may_set(name))
}

/// Returns the value as text for the command line, if it has the type of the option.
fn checked(option: &Arg, key: &str, value: &DeValue<'_>) -> Result<Value, String> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        let flag = value.as_bool();
        return flag
            .map(Value::Flag)
            .ok_or_else(|| wrong_type(key, "true or false", value));
    }
    let is_fraction = option.get_value_parser().type_id() == TypeId::of::<Duration>();
    let integer = || {
        let integer = value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    };
    let (expected, text) = if is_fraction {
        let float = value.as_float().map(|number| number.as_str().to_owned());
        let text = integer().map(|number| number.to_string()).or(float);
        ("a number", text)
    } else if is_number(option) {
        ("a whole number", integer().map(|number| number.to_string()))
    } else {
        ("a string", value.as_str().map(str::to_owned))
    };
    text.map(Value::Text)
        .ok_or_else(|| wrong_type(key, expected, value))
}

/// The message does not show the value, because it may be a secret.
fn wrong_type(key: &str, expected: &str, value: &DeValue<'_>) -> String {
    format!(
        "{key} must be {expected}, but its value has the type {}",
        value.type_str()
    )
}

fn unknown(serve: &Command, key: &str) -> String {
    // The key may be a secret that someone wrote in the wrong place.
    let is_plain = key.len() <= 40
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !is_plain {
        return "an unknown key; the keys are the options of `passkit serve` without the --".into();
    }
    if !may_set(key) {
        return format!("{key} can't be set in this file");
    }
    match nearest(serve, key) {
        Some(name) => format!("unknown key {key}; did you mean {name}?"),
        None => {
            format!("unknown key {key}; the keys are the options of `passkit serve` without the --")
        }
    }
}

/// Asks the parser of the command line for the most similar option.
fn nearest(serve: &Command, key: &str) -> Option<String> {
    let name = serve.get_name().to_owned();
    let arguments = [name, format!("--{}", key.replace('_', "-"))];
    let error = match serve.clone().try_get_matches_from(&arguments) {
        // Only the underscores were wrong.
        Ok(_) => return arguments.last()?.strip_prefix("--").map(str::to_owned),
        Err(error) => error,
    };
    let without_dashes = |option: &str| option.trim_start_matches('-').to_owned();
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(option)) => Some(without_dashes(option)),
        // The option exists, but its value is missing.
        _ if option(serve, &arguments[1][2..]).is_some() => Some(without_dashes(&arguments[1])),
        _ => None,
    }
}
