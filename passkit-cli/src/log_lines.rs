//! The lines of the log. Each event is one line, even if it repeats text from outside.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use passkit_server::text::OneLine;
use tracing_subscriber::fmt::MakeWriter;

use crate::request_id::RequestId;

/// Writes each event to stderr, with control characters escaped. If the task answers a request, adds its identifier.
#[derive(Clone, Copy)]
pub(crate) enum LogLines {
    Text,
    Json,
}

impl MakeWriter<'_> for LogLines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Write for LogLines {
    /// The formatter writes one event per call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = match self {
            Self::Text => escaped(&text, io::stderr().is_terminal()),
            Self::Json => escaped_json(&text),
        };
        let line = match RequestId::current() {
            Some(id) => with_request(*self, &line, &id),
            None => line,
        };
        io::stderr().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Escapes an event. Keeps the line feed at the end, and on a terminal the colours of the
/// formatter.
fn escaped(event: &str, colours: bool) -> String {
    let text = event.trim_end_matches('\n');
    let mut line = String::with_capacity(event.len());
    let mut parts = text.split('\u{1b}');
    line.push_str(&OneLine::whole(parts.next().unwrap_or_default()).to_string());
    for part in parts {
        let code = part
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'))
            .filter(|(code, _)| colours && code.bytes().all(|b| b.is_ascii_digit() || b == b';'));
        match code {
            Some((code, rest)) => {
                line.push_str(&format!("\u{1b}[{code}m{}", OneLine::whole(rest)));
            }
            None => line.push_str(&format!("\\u{{1b}}{}", OneLine::whole(part))),
        }
    }
    line.push('\n');
    line
}

/// Escapes all characters of a JSON event except letters, digits and printable ASCII. The event
/// contains no raw ASCII control characters.
fn escaped_json(event: &str) -> String {
    let mut line = String::with_capacity(event.len());
    for c in event.trim_end_matches('\n').chars() {
        if (c.is_ascii() && !c.is_ascii_control()) || c.is_alphanumeric() {
            line.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    line.push('\n');
    line
}

/// Adds the identifier of a request at the end of a line.
fn with_request(lines: LogLines, line: &str, id: &RequestId) -> String {
    let line = line.trim_end_matches('\n');
    match (lines, line.strip_suffix('}')) {
        // The identifier needs no escapes.
        (LogLines::Json, Some(start)) => format!("{start},\"request\":\"{id}\"}}\n"),
        _ => format!("{line} request={id}\n"),
    }
}

/// Limits the lines about an event to one a minute, because clients can cause any number of such events.
#[derive(Debug, Default)]
pub(crate) struct OnceAMinute(Mutex<(u64, Option<Instant>)>);

impl OnceAMinute {
    /// Counts an event. If the last line is a minute old, calls `log` with the number of events since then.
    pub(crate) fn log(&self, log: impl FnOnce(u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, logged) = &mut *state;
        *count += 1;
        if logged.is_none_or(|logged| logged.elapsed() >= Duration::from_secs(60)) {
            log(*count);
            (*count, *logged) = (0, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{escaped, escaped_json};

    #[test]
    fn an_event_in_json_stays_json() {
        let text = "a\u{202e}b\u{1f600}ä\u{7f}";
        let event = serde_json::json!({ "message": text }).to_string();
        let line = escaped_json(&format!("{event}\n"));
        assert_eq!(line, "{\"message\":\"a\\u202eb\\ud83d\\ude00ä\\u007f\"}\n");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], text);
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(escaped("a\nb \u{202e}c\n", false), "a\\nb \\u{202e}c\n");
        let coloured = "\u{1b}[2mtime\u{1b}[0m \u{1b}[2Jä";
        assert_eq!(
            escaped(coloured, true),
            "\u{1b}[2mtime\u{1b}[0m \\u{1b}[2Jä\n"
        );
        assert_eq!(escaped("\u{1b}[2mx", false), "\\u{1b}[2mx\n");
    }
}
