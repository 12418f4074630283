//! Secrets in files: `PASSKIT_STORE_FILE` names a file with the value of `PASSKIT_STORE`, and so on.

use std::{env, ffi::OsString, fs};

use clap::{Arg, Command};

use crate::failure::Failure;

/// Adds the secrets in files to the options of the chosen subcommand. An option is secret if the help hides the value that it
/// has in the environment. The option on the command line has precedence over the file.
pub(crate) fn add(command: Command, chosen: Option<OsString>) -> Result<Command, Failure> {
    let chosen = chosen.unwrap_or_default();
    let Some(subcommand) = command.find_subcommand(&chosen) else {
        return Ok(command);
    };
    let mut secrets = Vec::new();
    for option in subcommand
        .get_arguments()
        .filter(|option| option.is_hide_env_values_set())
    {
        let variable = option.get_env().and_then(|variable| variable.to_str());
        if let Some(variable) = variable
            && !is_given(option)
            && let Some(secret) = read(variable)?
        {
            secrets.push((option.get_id().clone(), secret));
        }
    }
    let name = subcommand.get_name().to_owned();
    Ok(command.mut_subcommand(name, |subcommand| {
        secrets
            .into_iter()
            .fold(subcommand, |subcommand, (option, secret)| {
                subcommand.mut_arg(option, |option| {
                    option
                        .default_value(secret)
                        .hide_default_value(true)
                        .required(false)
                })
            })
    }))
}

/// Returns whether the command line has the option.
fn is_given(option: &Arg) -> bool {
    let Some(name) = option.get_long().map(|name| format!("--{name}")) else {
        return false;
    };
    env::args_os().skip(2).any(|argument| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix(&*name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// Reads the secret from the file that belongs to this variable.
fn read(variable: &str) -> Result<Option<String>, Failure> {
    let name = format!("{variable}_FILE");
    let Some(path) = env::var_os(&name) else {
        return Ok(None);
    };
    if path.is_empty() {
        if env::var_os(variable).is_some() {
            return Ok(None);
        }
        return Err(Failure::new(format!(
            "{name} is empty; name the file, or remove the variable"
        )));
    }
    if env::var_os(variable).is_some() {
        return Err(Failure::new(format!(
            "{variable} and {name} are both set; remove one"
        )));
    }
    // The path is not shown, because someone may have set the variable to the secret itself.
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::from_error(format!("can't read the file of {name}"), &error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains('\n') {
        return Err(Failure::new(format!(
            "the file of {name} must have one line, and no empty line after it"
        )));
    }
    Ok(Some(text.to_owned()))
}
