//! The options of a command, from the command line, the environment, files with secrets, and the file of `--config`.
//!
//! A value from elsewhere is added to the command line before it is parsed. Its errors, and its conflicts with other
//! options, are therefore the same as on the command line.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use clap_lex::OsStrExt as _;

use crate::{
    config_file::{self, Entry, Value},
    failure::Failure,
    secret_files,
    store_url::StoreUrl,
};

/// The options in force, and the place from which each comes.
pub(crate) struct Options {
    command: Command,
    arguments: Vec<OsString>,
    pub(crate) matches: ArgMatches,
    /// The options that were added to the command line, each with the place that it comes from.
    added: BTreeMap<String, String>,
    /// Whether the file of `--config` has a secret itself, and not only the name of a file with the secret.
    pub(crate) has_secret_in_file: bool,
}

/// The command that the file of `--config` is for.
const SERVE: &str = "serve";

impl Options {
    /// Reads the options of the subcommand that the arguments name.
    pub(crate) fn read(command: Command, arguments: Vec<OsString>) -> Result<Self, Failure> {
        let mut adding = Adding::new(&command, &arguments);
        adding.add_all()?;
        let Adding {
            added,
            extra,
            has_secret_in_file,
            ..
        } = adding;
        let mut all = arguments.clone();
        let start = all.len().min(2);
        all.splice(start..start, extra);
        match command.clone().try_get_matches_from(all) {
            Ok(matches) => Ok(Self {
                command,
                arguments,
                matches,
                added,
                has_secret_in_file,
            }),
            Err(error) => Err(explained(error, &added)),
        }
    }

    /// Reads all options again. Only files can have changed since.
    pub(crate) fn read_again(&self) -> Result<Self, Failure> {
        Self::read(self.command.clone(), self.arguments.clone())
    }

    /// Returns the names of the options that have another value in `other`.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let [Some(one), Some(other)] = [self, other].map(|options| options.matches.subcommand())
        else {
            return Vec::new();
        };
        let values = |matches: &ArgMatches, id: &str| -> Option<Vec<OsString>> {
            let values = matches.get_raw(id)?;
            Some(values.map(OsStr::to_owned).collect())
        };
        self.named()
            .filter(|(_, option)| {
                let id = option.get_id().as_str();
                values(one.1, id) != values(other.1, id)
            })
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Returns the options of the subcommand that have a name and a value.
    fn named(&self) -> impl Iterator<Item = (&str, &Arg)> {
        let subcommand = self.matches.subcommand_name().unwrap_or_default();
        self.command
            .find_subcommand(subcommand)
            .into_iter()
            .flat_map(Command::get_arguments)
            .filter_map(|option| Some((option.get_long()?, option)))
            .filter(|(name, _)| config_file::may_set(name))
    }

    /// Returns the options as the content of a file for `--config`. A comment says where each option comes from. Secrets
    /// are left out.
    pub(crate) fn shown(&self) -> String {
        let Some((_, matches)) = self.matches.subcommand() else {
            return String::new();
        };
        self.named()
            .map(|(name, option)| {
                let value = shown_value(option, matches);
                match (value, self.origin(name, option, matches)) {
                    (Some(value), Some(origin)) if value == HIDDEN => {
                        format!("# {name} is hidden; it comes from {origin}\n")
                    }
                    (Some(value), Some(origin)) => format!("{name} = {value}  # {origin}\n"),
                    _ => format!("# {name} is not set\n"),
                }
            })
            .collect()
    }

    /// Returns where the value of an option comes from, if it has one.
    fn origin(&self, name: &str, option: &Arg, matches: &ArgMatches) -> Option<String> {
        if let Some(place) = self.added.get(name) {
            return Some(place.clone());
        }
        Some(match matches.value_source(option.get_id().as_str())? {
            ValueSource::EnvVariable => option.get_env()?.to_string_lossy().into_owned(),
            ValueSource::CommandLine => "command line".to_owned(),
            _ => "default".to_owned(),
        })
    }
}

const HIDDEN: &str = "…";

/// Returns a value in TOML.
fn shown_value(option: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = option.get_id().as_str();
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return Some(matches.get_flag(id).to_string());
    }
    let raw = matches.get_raw(id)?.next()?.to_string_lossy();
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    if let Ok(Some(url)) = matches.try_get_one::<StoreUrl>(id) {
        // It shows no login.
        return Some(quoted(&url.to_string()));
    }
    if option.is_hide_env_values_set() {
        return Some(HIDDEN.to_owned());
    }
    Some(if config_file::is_number(option) {
        raw.into_owned()
    } else {
        quoted(&raw)
    })
}

/// Turns the error into one line. If the error is about an added value, the line names the place of the value.
fn explained(error: clap::Error, added: &BTreeMap<String, String>) -> Failure {
    let named = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let place = [ContextKind::InvalidArg, ContextKind::PriorArg]
        .into_iter()
        .flat_map(named)
        .find_map(|text| {
            let name = text.strip_prefix("--")?.split([' ', '=', '[']).next()?;
            added.get(name).cloned()
        });
    let failure = Failure::from(error);
    match place {
        Some(place) => Failure::new(format!("{place}: {failure}")),
        None => failure,
    }
}

/// Collects the values that are added to the command line.
struct Adding<'a> {
    command: &'a Command,
    subcommand: Option<&'a Command>,
    arguments: &'a [OsString],
    added: BTreeMap<String, String>,
    extra: Vec<OsString>,
    has_secret_in_file: bool,
}

impl<'a> Adding<'a> {
    fn new(command: &'a Command, arguments: &'a [OsString]) -> Self {
        let chosen = arguments.get(1);
        Self {
            command,
            subcommand: chosen.and_then(|name| command.find_subcommand(name)),
            arguments,
            added: BTreeMap::new(),
            extra: Vec::new(),
            has_secret_in_file: false,
        }
    }

    fn add_all(&mut self) -> Result<(), Failure> {
        let Some(subcommand) = self.subcommand else {
            return Ok(());
        };
        for option in subcommand.get_arguments() {
            self.add_secret(option)?;
        }
        let Some(path) = self.config_file(subcommand) else {
            return Ok(());
        };
        let Some(serve) = self.command.find_subcommand(SERVE) else {
            return Ok(());
        };
        for entry in config_file::read(&path, serve)? {
            self.add_entry(subcommand, entry)?;
        }
        Ok(())
    }

    /// Adds the value of a secret option from a file. An option is secret if the help hides its value from the environment.
    fn add_secret(&mut self, option: &Arg) -> Result<(), Failure> {
        let variable = option.get_env().and_then(OsStr::to_str);
        let (Some(name), Some(variable)) = (option.get_long(), variable) else {
            return Ok(());
        };
        if !option.is_hide_env_values_set() || self.is_given(name) {
            return Ok(());
        }
        let secret = match secret_files::named_by_variable(variable)? {
            None if env::var_os(variable).is_none() => secret_files::credential(variable)?,
            secret => secret,
        };
        if let Some((secret, place)) = secret {
            self.add(name, &secret, place);
        }
        Ok(())
    }

    /// Adds a key of the file, unless a place with precedence sets the option.
    fn add_entry(&mut self, subcommand: &Command, entry: Entry) -> Result<(), Failure> {
        let Entry {
            option: name,
            value,
            place,
        } = entry;
        let Some(option) = subcommand
            .get_arguments()
            .find(|option| option.get_long() == Some(&name))
        else {
            // The command is not `serve`, and does not have this option.
            return Ok(());
        };
        let in_environment = option
            .get_env()
            .is_some_and(|variable| env::var_os(variable).is_some());
        if in_environment || self.is_given(&name) || self.added.contains_key(&name) {
            return Ok(());
        }
        match value {
            Value::Text(text) => {
                // The URL of a store is a secret only if it has a login.
                let is_secret =
                    option.is_hide_env_values_set() && (name != "store" || text.contains('@'));
                self.has_secret_in_file |= is_secret;
                self.add(&name, &text, place);
            }
            Value::File(path) => {
                let secret = secret_files::read(path.as_ref(), &format!("{name}-file"))
                    .map_err(|failure| Failure::new(format!("{place}: {failure}")))?;
                self.add(&name, &secret, place);
            }
            Value::Flag(is_set) => {
                self.extra
                    .extend(is_set.then(|| format!("--{name}").into()));
                self.added.insert(name, place);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, value: &str, place: String) {
        self.extra.push(format!("--{name}={value}").into());
        self.added.insert(name.to_owned(), place);
    }

    fn config_file(&self, subcommand: &Command) -> Option<PathBuf> {
        let option = subcommand
            .get_arguments()
            .find(|option| option.get_long() == Some("config"))?;
        let given = self.value("config");
        given
            .or_else(|| option.get_env().and_then(env::var_os))
            .map(PathBuf::from)
    }

    /// Returns whether the command line has the option.
    fn is_given(&self, name: &str) -> bool {
        self.words().any(|word| is_option(word, name).is_some())
    }

    /// Returns the value of an option on the command line.
    fn value(&self, name: &str) -> Option<OsString> {
        let mut words = self.words();
        let rest = words.find_map(|word| is_option(word, name))?;
        match rest.strip_prefix("=") {
            Some(value) => Some(value.to_owned()),
            None => words.next().cloned(),
        }
    }

    /// Returns the options and values of the subcommand.
    fn words(&self) -> impl Iterator<Item = &'a OsString> + use<'a> {
        self.arguments.iter().skip(2)
    }
}

/// Returns the rest of a word after the name of an option, if the word is this option.
fn is_option<'a>(word: &'a OsStr, name: &str) -> Option<&'a OsStr> {
    let rest = word.strip_prefix("--")?.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with("=")).then_some(rest)
}
