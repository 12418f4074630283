//! Reads target files.

use std::path::Path;

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
    Target,
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
/// [[passes]]                         # most cases can run with two of one type and one of another
/// type = "pass.com.example.a"
/// serial = "A-1"
/// token = "0123456789abcdef"
///
/// [[orders]]                         # optional
/// type = "order.com.example.b"
/// serial = "O-1"
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
#[derive(Clone, Debug, Default)]
pub struct TargetFile {
    subjects: Vec<(PassId, AuthToken)>,
    changing: Option<Changing>,
    saving: Option<Changing>,
}

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
        let by = |how: &Option<Changing>| {
            how.clone().map(|how| {
                move |pass: PassId| {
                    let how = how.clone();
                    async move { how.change(&pass).await }
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

    fn parse(text: &str, folder: &Path) -> Result<Self, Problem> {
        let parsed = DeTable::parse(text).map_err(|error| {
            let message = error.message().replace('\n', ", ");
            (error.span().map_or(0, |span| span.start), message)
        })?;
        let table = parsed.get_ref();
        let known = [
            "change",
            "change_url",
            "save",
            "save_url",
            "passes",
            "orders",
        ];
        known_keys(table, &known, "a target file")?;
        let mut file = Self {
            subjects: Vec::new(),
            changing: changing(table, folder, "change", "change_url")?,
            saving: changing(table, folder, "save", "save_url")?,
        };
        for (key, kind) in [("passes", Kind::Pass), ("orders", Kind::Order)] {
            let Some(list) = table.get(key) else { continue };
            let not_a_list = || {
                (
                    list.span().start,
                    format!("{key} is no list of tables: write [[{key}]]"),
                )
            };
            for entry in list.get_ref().as_array().ok_or_else(not_a_list)?.iter() {
                let (pass, token) = subject(key, kind, entry)?;
                if file.subjects.iter().any(|(known, _)| *known == pass) {
                    return Err((entry.span().start, format!("{key}: {pass} is here twice")));
                }
                file.subjects.push((pass, token));
            }
        }
        Ok(file)
    }
}

/// Reads a way to change a pass: a command under one key, or a URL under another key.
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
                format!("{url_key}: there is a {command_key} already; keep one of them"),
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

fn subject(
    key: &str,
    kind: Kind,
    entry: &Spanned<DeValue<'_>>,
) -> Result<(PassId, AuthToken), Problem> {
    let at = entry.span().start;
    let Some(table) = entry.get_ref().as_table() else {
        return Err((at, format!("{key} is no list of tables: write [[{key}]]")));
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
                "{key} is no text but {}: put it in quotes",
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
            Some(near) => format!("{name:?} is no key of {of}; did you mean {near:?}?"),
            None => format!("{name:?} is no key of {of}, which has {}", known.join(", ")),
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
                "line 5: \"serail\" is no key of [[passes]]; did you mean \"serial\"?",
            ),
            (
                "[[orders]]",
                "[[order]]",
                "line 11: \"order\" is no key of a target file; did you mean \"orders\"?",
            ),
            (
                "[[orders]]",
                "[orders]",
                "line 11: orders is no list of tables: write [[orders]]",
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
                "line 5: serial is no text but integer: put it in quotes",
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
                "line 2: \"change_ulr\" is no key of a target file; did you mean \"change_url\"?",
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
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let error = load(&text).map(|_| ()).unwrap_err();
            // The next test is about the column.
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
