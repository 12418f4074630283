//! Reads target files.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use passkit_server::{
    AuthToken, PassId,
    identifiers::Kind,
    text::{OneLine, closest},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    PushService, PushSettings, Target,
    changing::{ChangeCommand, ChangeUrl, Changing},
};
use crate::Limits;

/// A target file. It names some passes of a web service with their authentication tokens, and a way
/// to change a pass.
///
/// ```toml
/// change = "touch.sh {type} {serial}"                          # a command
/// # change_url = "http://127.0.0.1:9000/touch/{type}/{serial}" # or a POST
/// save = "save.sh {type} {serial}"                             # or save_url; optional
///
/// # change_wait = 2                  # seconds to wait after each change and save; default 0
///
/// # [push]                           # the kit is the push service of the web service; optional
/// # listen = "127.0.0.1:2197"        # this and all other keys of the table are optional
/// # folder = "push"                  # gets the root certificate, and a client certificate for each type
/// # names = ["push.test"]            # more host names of the push service
/// # wait = 30                        # the longest time from a change to its push, in seconds
///
/// [[passes]]                         # most cases can run with two of one type and one of another
/// type = "pass.com.example.a"
/// serial = "A-1"
/// token = "0123456789abcdef"
///
/// [[orders]]                         # optional
/// type = "order.com.example.b"
/// serial = "O-1"
/// token = "0123456789abcdef"
///
/// [[rewards]]                        # optional: passes that offer rewards enrolment. Each can be enrolled
/// type = "pass.com.example.c"        # once, and six are needed for all cases
/// serial = "R-1"
/// token = "0123456789abcdef"
/// ```
///
/// The command is split into words as in a shell, but no shell runs it. It runs in the folder of
/// the file. A program in that folder is preferred to a program on the `PATH`. Type and serial
/// number replace `{type}` and `{serial}`. In a URL they are percent-encoded.
///
/// The command must end with exit status 0, and the POST with status 2xx. Both must end within a
/// minute, but not before the change is published. `save` writes the pass in the same way as
/// `change`, but with the same content. It must not end before the service has looked at the saved
/// pass. Otherwise the service marks the pass during a later case, which then fails.
///
/// With the table `push`, or with `push = true`, the kit is the push service of the web service. It
/// speaks the protocol of APNs, and sends nothing to any phone. It writes its root certificate to
/// `root.pem` in the folder, once. Set up the web service so that it trusts this certificate and
/// sends its pushes to the address, with any certificate or provider token.
#[derive(Clone, Debug, Default)]
pub struct TargetFile {
    subjects: Vec<(PassId, AuthToken)>,
    /// Passes that offer rewards enrolment.
    rewards: Vec<(PassId, AuthToken)>,
    changing: Option<Changing>,
    saving: Option<Changing>,
    /// How long to wait after each change and save.
    wait: Duration,
    push: Option<PushTable>,
}

/// The table `push`.
#[derive(Clone, Debug)]
struct PushTable {
    folder: PathBuf,
    settings: PushSettings,
}

/// The port of the push service, which APNs offers too.
const PUSH_PORT: u16 = 2197;

/// An error in a target file: the position and the message.
type Problem = (usize, String);

impl TargetFile {
    /// Reads a target file.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be read or is not a target file. The message names the line and
    /// the column.
    pub fn load(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("can't read {name}: {error}"))?;
        let folder = std::path::absolute(path)
            .map_err(|error| format!("can't find the folder of {name}: {error}"))?
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        Self::parse(&text, &folder).map_err(|(at, problem)| {
            let before = text.get(..at).unwrap_or(&text);
            let line = before.matches('\n').count() + 1;
            let column = before
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                + 1;
            format!("{name}, line {line}, column {column}: {problem}")
        })
    }

    /// The passes and orders with their authentication tokens, in the order of the file.
    #[must_use]
    pub fn subjects(&self) -> &[(PassId, AuthToken)] {
        &self.subjects
    }

    /// Makes a target for the web service at `url`, with the passes and the ways to change them.
    ///
    /// # Errors
    ///
    /// Fails if the URL can't be used.
    pub fn target(&self, url: &str, limits: Limits) -> Result<Target, String> {
        let known = self.subjects.iter().cloned();
        let target = known.fold(Target::at(url, limits)?, |target, (pass, token)| {
            target.with(pass, token)
        });
        let rewards = self.rewards.iter().cloned();
        let target = rewards.fold(target, |target, (pass, token)| {
            target.with_rewards(pass, token)
        });
        let wait = self.wait;
        let by = |how: &Option<Changing>| {
            how.clone().map(|how| {
                move |pass: PassId| {
                    let how = how.clone();
                    async move {
                        how.change(&pass).await?;
                        tokio::time::sleep(wait).await;
                        Ok(())
                    }
                }
            })
        };
        let target = match by(&self.changing) {
            Some(change) => target.changed_by(change),
            None => target,
        };
        Ok(match by(&self.saving) {
            Some(save) => target.saved_by(save),
            None => target,
        })
    }

    /// Starts the push service, and writes the missing files into its folder. Returns the push
    /// service and the folder, or `None` if the file has no push service.
    ///
    /// # Errors
    ///
    /// Fails if the address is not free, or if the files can't be read or written.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with I/O enabled.
    pub async fn push_service(&self) -> Result<Option<(PushService, PathBuf)>, String> {
        let Some(PushTable { folder, settings }) = &self.push else {
            return Ok(None);
        };
        let mut types: Vec<_> = self
            .subjects
            .iter()
            .map(|(pass, _)| pass.type_id.clone())
            .collect();
        types.sort_unstable();
        types.dedup();
        let service = PushService::in_folder(folder, settings.clone(), &types).await?;
        Ok(Some((service, folder.clone())))
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, Problem> {
        let parsed = DeTable::parse(text).map_err(|error| {
            let message = error.message().replace('\n', ", ");
            (error.span().map_or(0, |span| span.start), message)
        })?;
        let table = parsed.get_ref();
        let known = [
            "change",
            "change_url",
            "change_wait",
            "save",
            "save_url",
            "push",
            "passes",
            "orders",
            "rewards",
        ];
        known_keys(table, &known, "a target file")?;
        let mut file = Self {
            subjects: Vec::new(),
            rewards: Vec::new(),
            changing: changing(table, folder, "change", "change_url")?,
            saving: changing(table, folder, "save", "save_url")?,
            wait: table
                .get("change_wait")
                .map_or(Ok(Duration::ZERO), |value| {
                    let problem = "change_wait is not a number of seconds from 0 to 60";
                    seconds(value, 0..=60).ok_or_else(|| (value.span().start, problem.into()))
                })?,
            push: table
                .get("push")
                .map_or(Ok(None), |value| push(value, folder))?,
        };
        for (key, kind) in [
            ("passes", Kind::Pass),
            ("orders", Kind::Order),
            ("rewards", Kind::Pass),
        ] {
            let Some(list) = table.get(key) else { continue };
            let not_a_list = || {
                (
                    list.span().start,
                    format!("{key} is not a list of tables: write [[{key}]]"),
                )
            };
            for entry in list.get_ref().as_array().ok_or_else(not_a_list)?.iter() {
                let (pass, token) = subject(key, kind, entry)?;
                let mut known = file.subjects.iter().chain(&file.rewards);
                if known.any(|(known, _)| *known == pass) {
                    return Err((entry.span().start, format!("{key}: {pass} is here twice")));
                }
                match key {
                    "rewards" => file.rewards.push((pass, token)),
                    _ => file.subjects.push((pass, token)),
                }
            }
        }
        Ok(file)
    }
}

/// Reads how to change a pass. One key has a command, the other key has a URL.
fn changing(
    table: &DeTable<'_>,
    folder: &Path,
    command_key: &str,
    url_key: &str,
) -> Result<Option<Changing>, Problem> {
    let read = |key: &str| {
        table
            .get(key)
            .map(|value| Ok((value.span().start, text_of(key, value)?)))
            .transpose()
    };
    Ok(match (read(command_key)?, read(url_key)?) {
        (Some(_), Some((at, _))) => {
            return Err((
                at,
                format!("{url_key}: there is a {command_key} already; remove one of the two"),
            ));
        }
        (Some((at, command)), None) => Some(Changing::Command(
            ChangeCommand::new(command, folder)
                .map_err(|problem| (at, format!("{command_key}: {problem}")))?,
        )),
        (None, Some((at, url))) => Some(Changing::Url(ChangeUrl::new(url).map_err(|problem| {
            (
                at,
                format!("{url_key}: \"{}\" {problem}", OneLine::url(url)),
            )
        })?)),
        (None, None) => None,
    })
}

/// Reads a number of seconds. Returns `None` if it is not in the range.
fn seconds(value: &Spanned<DeValue<'_>>, range: RangeInclusive<u64>) -> Option<Duration> {
    let number = value.get_ref().as_integer()?;
    let seconds = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
    range
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

/// Reads `push`: true, false, or a table.
fn push(value: &Spanned<DeValue<'_>>, folder: &Path) -> Result<Option<PushTable>, Problem> {
    let mut settings = PushSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], PUSH_PORT)),
        ..PushSettings::default()
    };
    let mut files = "push";
    match (value.get_ref().as_bool(), value.get_ref().as_table()) {
        (Some(false), _) => return Ok(None),
        (Some(true), _) => {}
        (_, Some(table)) => {
            known_keys(table, &["listen", "folder", "names", "wait"], "[push]")?;
            for (key, value) in table {
                let at = value.span().start;
                let wrong =
                    |expected: &str| (at, format!("push: {} is not {expected}", key.get_ref()));
                let found = value.get_ref();
                match &**key.get_ref() {
                    "listen" => {
                        settings.listen = found
                            .as_str()
                            .and_then(|text| text.parse().ok())
                            .ok_or_else(|| wrong("an address such as \"127.0.0.1:2197\""))?;
                    }
                    "folder" => files = text_of("folder", value)?,
                    "names" => {
                        let names = found.as_array().and_then(|names| {
                            let names = names.iter().map(|name| name.get_ref().as_str());
                            names.map(|name| name.map(str::to_owned)).collect()
                        });
                        settings.names = names.ok_or_else(|| wrong("a list of host names"))?;
                    }
                    _ => {
                        settings.wait = seconds(value, 1..=3600)
                            .ok_or_else(|| wrong("a number of seconds from 1 to 3600"))?;
                    }
                }
            }
        }
        _ => {
            let at = value.span().start;
            return Err((at, "push is neither true nor a table: write [push]".into()));
        }
    }
    Ok(Some(PushTable {
        folder: folder.join(files),
        settings,
    }))
}

fn subject(
    key: &str,
    kind: Kind,
    entry: &Spanned<DeValue<'_>>,
) -> Result<(PassId, AuthToken), Problem> {
    let at = entry.span().start;
    let Some(table) = entry.get_ref().as_table() else {
        return Err((
            at,
            format!("{key} is not a list of tables: write [[{key}]]"),
        ));
    };
    known_keys(table, &["type", "serial", "token"], &format!("[[{key}]]"))?;
    let read = |name: &str| match table.get(name) {
        Some(value) => Ok((value.span().start, text_of(name, value)?)),
        None => Err((at, format!("{key}: {name} is missing"))),
    };
    let ((type_at, type_id), (serial_at, serial), (token_at, token)) =
        (read("type")?, read("serial")?, read("token")?);
    let named = format!("{key}: {type_id:?} {serial:?}");
    if Kind::of_type(type_id).is_some_and(|other| other != kind) {
        let expected = kind.type_prefix();
        return Err((
            type_at,
            format!("{named}: the type does not start with {expected:?}, as {key} do"),
        ));
    }
    // Type, serial number and token are checked one by one, so that an error names the right line.
    type_id
        .parse::<passkit_server::identifiers::TypeIdentifier>()
        .map_err(|error| (type_at, format!("{named}: {error}")))?;
    let pass =
        PassId::new(type_id, serial).map_err(|error| (serial_at, format!("{named}: {error}")))?;
    let token = AuthToken::new(token).map_err(|error| (token_at, format!("{named}: {error}")))?;
    Ok((pass, token))
}

fn text_of<'a>(key: &str, value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Problem> {
    let found = value.get_ref();
    found.as_str().ok_or_else(|| {
        (
            value.span().start,
            format!(
                "{key} must be text, but has the type {}: put it in quotes",
                found.type_str()
            ),
        )
    })
}

fn known_keys(table: &DeTable<'_>, known: &[&str], of: &str) -> Result<(), Problem> {
    let unknown = table
        .keys()
        .filter(|key| !known.contains(&key.get_ref().as_ref()));
    // The table is sorted by name, so this finds the key that is first in the file.
    let Some(key) = unknown.min_by_key(|key| key.span().start) else {
        return Ok(());
    };
    let name = key.get_ref();
    Err((
        key.span().start,
        match closest(name, known.iter().copied()).first() {
            Some(near) => format!("{name:?} is not a key of {of}; did you mean {near:?}?"),
            None => format!(
                "{name:?} is not a key of {of}, which has {}",
                known.join(", ")
            ),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
change_url = "http://127.0.0.1:9000/touch/{type}/{serial}"
[[passes]]
type = "pass.com.example.a"
serial = "A-1"
token = "0123456789abcdef"
[[passes]]
type = "pass.com.example.a"
serial = "H8/07 'x'"
token = "0123456789abcdef"
[[orders]]
type = "order.com.example.b"
serial = "A-1"
token = "0123456789abcdef"
"#;

    fn load(text: &str) -> Result<TargetFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target.toml");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        TargetFile::load(&path).map_err(|error| error.replace(&shown, "target.toml"))
    }

    #[test]
    fn a_complete_file_is_read() {
        let file = load(WHOLE).unwrap();
        let target = file
            .target("https://wallet.example.com/", Limits::default())
            .unwrap();
        assert_eq!((target.passes.len(), target.orders.len()), (2, 1));
        assert_eq!(target.passes[1].pass.serial.as_str(), "H8/07 'x'");
        assert!(target.change.is_some() && target.save.is_none());
        let file = load(&WHOLE.replacen("change_url", "save_url", 1)).unwrap();
        let target = file.target("http://h", Limits::default()).unwrap();
        assert!(target.change.is_none() && target.save.is_some());
        assert!(
            file.target("wallet", Limits::default())
                .unwrap_err()
                .contains("\"wallet\"")
        );
        assert!(
            load("")
                .unwrap()
                .target("http://h", Limits::default())
                .unwrap()
                .change
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_push_table_starts_a_push_service_and_keeps_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target.toml");
        let table = "[push]\nlisten = \"127.0.0.1:0\"\nfolder = \"keys\"\nnames = [\"push.test\"]\nwait = 7\n";
        std::fs::write(
            &path,
            WHOLE.replacen("[[passes]]", &format!("{table}[[passes]]"), 1),
        )
        .unwrap();
        let file = TargetFile::load(&path).unwrap();
        let read =
            |name: &str| std::fs::read_to_string(folder.path().join("keys").join(name)).unwrap();
        let mut before = None;
        for _ in 0..2 {
            let (service, keys) = file.push_service().await.unwrap().unwrap();
            assert_eq!(keys, folder.path().join("keys"));
            assert_eq!(service.wait(), Duration::from_secs(7));
            assert_eq!(service.authority_key(), read("root.key"));
            let certificate = read("pass.com.example.a.pem");
            assert!(certificate.contains("CERTIFICATE") && certificate.contains("PRIVATE KEY"));
            let now = (
                read("root.pem"),
                certificate,
                read("order.com.example.b.pem"),
            );
            assert_eq!(before.get_or_insert_with(|| now.clone()), &now);
        }
        for (without, expected) in [("push = true", true), ("push = false", false), ("", false)] {
            assert_eq!(
                load(&format!("{without}\n{WHOLE}")).unwrap().push.is_some(),
                expected
            );
        }
    }

    #[test]
    fn an_error_names_line_and_column() {
        for (from, to, expected) in [
            (
                "serial = \"A-1\"",
                "serial = 7",
                "line 5, column 10: serial",
            ),
            (
                "serial = \"A-1\"",
                "  serail = 1",
                "line 5, column 3: \"serail\"",
            ),
            (
                "token = \"0123",
                "token = \"0123\" \"",
                "line 6, column 16: ",
            ),
        ] {
            let error = load(&WHOLE.replacen(from, to, 1)).map(drop).unwrap_err();
            let expected = format!("target.toml, {expected}");
            assert!(error.starts_with(&expected), "{error} is not {expected}");
        }
    }

    #[test]
    fn an_error_names_line_and_key() {
        for (from, to, expected) in [
            (
                "serial = \"A-1\"",
                "serail = \"A-1\"",
                "line 5: \"serail\" is not a key of [[passes]]; did you mean \"serial\"?",
            ),
            (
                "[[orders]]",
                "[[order]]",
                "line 11: \"order\" is not a key of a target file; did you mean \"orders\"?",
            ),
            (
                "[[orders]]",
                "[orders]",
                "line 11: orders is not a list of tables: write [[orders]]",
            ),
            (
                "[[orders]]",
                "[[passes]]",
                "line 12: passes: \"order.com.example.b\" \"A-1\": the type does not start with \"pass.\", as passes do",
            ),
            (
                "\"pass.com.example.a\"",
                "\"com.example.a\"",
                "line 4: passes: \"com.example.a\" \"A-1\": ",
            ),
            (
                "serial = \"A-1\"\n",
                "",
                "line 3: passes: serial is missing",
            ),
            (
                "serial = \"A-1\"",
                "serial = 7",
                "line 5: serial must be text, but has the type integer: put it in quotes",
            ),
            (
                "serial = \"A-1\"",
                "serial = \"\"",
                "line 5: passes: \"pass.com.example.a\" \"\": ",
            ),
            (
                "0123456789abcdef",
                "short-secret",
                "line 6: passes: \"pass.com.example.a\" \"A-1\": authentication token is shorter than 16",
            ),
            (
                "H8/07 'x'",
                "A-1",
                "line 7: passes: pass.com.example.a A-1 is here twice",
            ),
            ("http://", "ftp://", "line 2: change_url: \"ftp://"),
            (
                "change_url",
                "change_ulr",
                "line 2: \"change_ulr\" is not a key of a target file; did you mean \"change_url\"?",
            ),
            (
                "change_url = \"",
                "change = \"no-such-program ",
                "line 2: change: \"no-such-program\" is neither beside",
            ),
            (
                "change_url",
                "change = \"sh x\"\nchange_url",
                "line 3: change_url: there is a change already",
            ),
            (
                "change_url",
                "save = \"sh x\"\nsave_url",
                "line 3: save_url: there is a save already",
            ),
            (
                "change_url = \"http://",
                "save_url = \"ftp://",
                "line 2: save_url: \"ftp://",
            ),
            ("type = \"pass", "type = pass", "line 4: "),
            (
                "[[passes]]",
                "[push]\nlisten = \"localhost\"\n[[passes]]",
                "line 4: push: listen is not an address such as",
            ),
            (
                "change_url",
                "change_wait = 61\nchange_url",
                "line 2: change_wait is not a number of seconds from 0 to 60",
            ),
            (
                "[[passes]]",
                "[push]\nwait = 0\n[[passes]]",
                "line 4: push: wait is not a number of seconds from 1 to 3600",
            ),
            (
                "[[passes]]",
                "[push]\nfodler = \"x\"\n[[passes]]",
                "line 4: \"fodler\" is not a key of [push]; did you mean \"folder\"?",
            ),
            (
                "change_url",
                "push = \"yes\"\nchange_url",
                "line 2: push is neither true nor a table",
            ),
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let error = load(&text).map(|_| ()).unwrap_err();
            // The next test checks the column.
            let (line, rest) = error.split_once(", column ").unwrap();
            let (_, problem) = rest.split_once(": ").unwrap();
            let error = format!("{line}: {problem}");
            assert!(
                error.starts_with(&format!("target.toml, {expected}")),
                "{error}\nis not {expected}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
            assert!(!error.contains("short-secret"), "{error}");
        }
        assert!(
            TargetFile::load(Path::new("no/such/file.toml"))
                .unwrap_err()
                .contains("can't read no/such/file")
        );
    }
}
