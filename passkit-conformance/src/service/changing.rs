//! Ways to change a pass, or to save it unchanged: the commands and URLs in a target file.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use passkit_server::{PassId, text::OneLine};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use crate::{
    Client, Limits,
    secrets::Secrets,
    service_url::{ServiceUrl, encoded},
};

/// The longest time for a change.
const LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for the rest of the output after a command ended. The output may never end,
/// because a process that the command left running may still have the output open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A way to change a pass, or to save it unchanged.
#[derive(Clone, Debug)]
pub(super) enum Changing {
    Command(ChangeCommand),
    Url(ChangeUrl),
}

impl Changing {
    pub(super) async fn change(&self, pass: &PassId) -> Result<(), String> {
        match self {
            Self::Command(command) => command.run(pass, LIMIT).await,
            Self::Url(url) => url.post(pass).await,
        }
    }
}

/// A program and its arguments, run in a folder.
#[derive(Clone, Debug)]
pub(super) struct ChangeCommand {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl ChangeCommand {
    /// Parses a command. `text` is split into words as in a shell, but no shell runs it. The
    /// program is looked up in `folder` first, then on the `PATH`. The command runs in `folder`.
    pub(super) fn new(text: &str, folder: &Path) -> Result<Self, String> {
        known_placeholders(text)?;
        let mut words = words(text)?.into_iter();
        let program = words
            .next()
            .filter(|word| !word.is_empty())
            .ok_or("names no command")?;
        let beside = folder.join(&program);
        let found = if beside.is_file() {
            beside
        } else if program.contains('/') {
            return Err(format!("there is no file {}", beside.display()));
        } else {
            let on_path =
                |folder: PathBuf| Some(folder.join(&program)).filter(|path| path.is_file());
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path)
                .find_map(on_path)
                .ok_or_else(|| format!("{program:?} is neither beside this file nor on the PATH"))?
        };
        Ok(Self {
            program: found,
            arguments: words.collect(),
            folder: folder.to_owned(),
        })
    }

    async fn run(&self, pass: &PassId, limit: Duration) -> Result<(), String> {
        let name = self.program.display();
        let mut child = Command::new(&self.program)
            .args(
                self.arguments
                    .iter()
                    .map(|word| substituted(word, pass, str::to_owned)),
            )
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("can't run {name}: {error}"))?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let mut errors = child.stderr.take();
        let mut said = Tail::default();
        let status = timeout(limit, async {
            tokio::select! {
                status = child.wait() => status,
                never = said.read(errors.as_mut()) => match never {},
            }
        })
        .await
        .map_err(|_| format!("{name} was not done within {limit:?}, and was killed"))?
        .map_err(|error| format!("can't wait for {name}: {error}"))?;
        group.0 = None;
        if status.success() {
            return Ok(());
        }
        let _ = timeout(LAST_WORDS, said.read(errors.as_mut())).await;
        let ended = match status.code() {
            Some(code) => format!("{name} ended with exit status {code}"),
            None => format!("{name} was killed by a signal"),
        };
        Err(match said.last_line() {
            Some(line) => format!("{ended}: {line}"),
            None => ended,
        })
    }
}

/// A command and all processes that it started. Dropping the group kills them. The value is `None`
/// after the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The last bytes of a command's output.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    const LENGTH: usize = 4096;

    /// Reads all output, then waits forever.
    async fn read(
        &mut self,
        from: Option<&mut (impl AsyncRead + Unpin)>,
    ) -> std::convert::Infallible {
        if let Some(from) = from {
            let mut buffer = [0; Self::LENGTH];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                self.0.extend_from_slice(&buffer[..length]);
                self.0.drain(..self.0.len().saturating_sub(Self::LENGTH));
            }
        }
        std::future::pending().await
    }

    fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        text.lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty())
            .map(|line| line.chars().take(300).collect())
    }
}

/// The URL to POST to.
#[derive(Clone, Debug)]
pub(super) struct ChangeUrl {
    url: String,
    client: Client,
}

impl ChangeUrl {
    pub(super) fn new(url: &str) -> Result<Self, String> {
        known_placeholders(url)?;
        ServiceUrl::new(
            url.split('?')
                .next()
                .unwrap_or_default()
                .replace(['{', '}'], "")
                .as_str(),
        )
        .map_err(str::to_owned)?;
        let mut limits = Limits::default();
        (limits.time, limits.response_bytes) = (LIMIT, 1024 * 1024);
        Ok(Self {
            url: url.to_owned(),
            client: Client::new(limits),
        })
    }

    async fn post(&self, pass: &PassId) -> Result<(), String> {
        let url = substituted(&self.url, pass, encoded);
        // A query may hold a password.
        let shown = OneLine::url(&url).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(&url)
            .body(Full::<Bytes>::default());
        let request = request.map_err(|error| format!("POST {shown}: {error}"))?;
        match self.client.send(request, &Secrets::default()).await.0 {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!(
                "POST {shown} was answered {}, not 2xx",
                answer.status.as_u16()
            )),
            Err(error) => Err(format!("POST {shown}: {error}")),
        }
    }
}

/// Returns an error for unknown placeholders.
fn known_placeholders(text: &str) -> Result<(), String> {
    let inside = text
        .split('{')
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('}')?.0));
    for name in inside {
        let is_word =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_word && name != "type" && name != "serial" {
            return Err(format!(
                "has {{{name}}}, but only {{type}} and {{serial}} are replaced"
            ));
        }
    }
    Ok(())
}

/// Replaces `{type}` and `{serial}` in `text`. Values are not searched for placeholders, because a
/// serial number may contain `{type}`.
fn substituted(text: &str, pass: &PassId, written: impl Fn(&str) -> String) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(brace) = rest.find('{') {
        result.push_str(&rest[..brace]);
        rest = &rest[brace..];
        let (length, value) = if rest.starts_with("{type}") {
            ("{type}".len(), written(pass.type_id.as_str()))
        } else if rest.starts_with("{serial}") {
            ("{serial}".len(), written(pass.serial.as_str()))
        } else {
            (1, "{".to_owned())
        };
        result.push_str(&value);
        rest = &rest[length..];
    }
    result + rest
}

/// Splits a command into words at white space, unless the white space is quoted or follows a
/// backslash.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let escaped = chars.next().ok_or("ends with a backslash")?;
                // Between double quotes, a backslash only escapes these characters.
                if quote.is_some() && !matches!(escaped, '"' | '\\' | '$' | '`') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(escaped);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("has a {quote} that is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn pass(serial: &str) -> PassId {
        PassId::new("pass.com.example.a", serial).unwrap()
    }

    fn script(folder: &Path, lines: &str) {
        std::fs::write(folder.join("change.sh"), lines).unwrap();
    }

    #[test]
    fn words_are_split_as_in_a_shell() {
        for (text, expected) in [
            (
                "touch.sh {type} {serial}",
                vec!["touch.sh", "{type}", "{serial}"],
            ),
            ("  a\t b ", vec!["a", "b"]),
            (
                r#"a "b c" 'd "e' f" g"h"#,
                vec!["a", "b c", "d \"e", "f gh"],
            ),
            (r#"a\ b '\' "\"\x" '' "#, vec!["a b", r"\", r#""\x"#, ""]),
            ("", vec![]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        assert!(words("a 'b").is_err() && words("a \"b").is_err() && words("a\\").is_err());
    }

    #[test]
    fn a_value_is_not_replaced_again() {
        let odd = pass("{type}/{serial} 'x'");
        assert_eq!(
            substituted("{x}={serial}:{type}{", &odd, str::to_owned),
            "{x}={type}/{serial} 'x':pass.com.example.a{"
        );
        assert_eq!(
            substituted("/{serial}", &pass("A/1 ü"), encoded),
            "/A%2F1%20%C3%BC"
        );
    }

    #[tokio::test]
    async fn a_command_gets_each_name_as_one_argument() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "printf '%s|' \"$@\" > got; pwd -P > where");
        let command =
            ChangeCommand::new("sh change.sh x={type} {serial} 'a b'", folder.path()).unwrap();
        let odd = pass("A/1 'b' \"c\"; touch x $(id)");
        command.run(&odd, LIMIT).await.unwrap();
        let got = std::fs::read_to_string(folder.path().join("got")).unwrap();
        assert_eq!(got, format!("x=pass.com.example.a|{}|a b|", odd.serial));
        let ran_in = std::fs::read_to_string(folder.path().join("where")).unwrap();
        assert_eq!(
            Path::new(ran_in.trim()),
            folder.path().canonicalize().unwrap()
        );
    }

    #[tokio::test]
    async fn a_failing_command_is_reported_with_its_last_line() {
        let folder = tempfile::tempdir().unwrap();
        script(
            folder.path(),
            "seq 100000 >&2; echo the database sleeps >&2; echo >&2; exit 3",
        );
        let command = ChangeCommand::new("sh change.sh", folder.path()).unwrap();
        let error = command.run(&pass("A"), LIMIT).await.unwrap_err();
        assert!(
            error.ends_with("exit status 3: the database sleeps"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "sleep 300 & echo $! > child; wait");
        let command = ChangeCommand::new("sh change.sh", folder.path()).unwrap();
        let start = Instant::now();
        let error = command
            .run(&pass("A"), Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(error.contains("not done within 5s"), "{error}");
        let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        while state().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(start.elapsed().as_secs() < 60, "{child} goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_process_that_a_command_left_running_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        script(folder.path(), "sleep 300 & echo $! > child; exit 1");
        let command = ChangeCommand::new("sh change.sh", folder.path()).unwrap();
        let start = Instant::now();
        command.run(&pass("A"), LIMIT).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(60));
        let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
        Command::new("kill")
            .arg(child.trim())
            .status()
            .await
            .unwrap();
    }

    #[test]
    fn a_command_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let error = |text| ChangeCommand::new(text, folder.path()).unwrap_err();
        assert!(error("sh change.sh {type} {serail}").contains("{serail}"));
        assert!(error("no-such-program x").contains("neither beside this file nor on the PATH"));
        assert!(error("./gone.sh").contains("there is no file"));
        assert!(error(" ").contains("names no command"));
    }

    #[test]
    fn a_change_url_is_a_url() {
        for good in [
            "http://h/touch/{type}/{serial}",
            "https://h/?type={type}&serial={serial}",
        ] {
            assert!(ChangeUrl::new(good).is_ok(), "{good}");
        }
        for bad in ["", "touch/{serial}", "ftp://h/", "http:///x"] {
            assert!(ChangeUrl::new(bad).is_err(), "{bad}");
        }
    }
}
