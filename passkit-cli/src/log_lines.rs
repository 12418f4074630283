//! The lines of the log. Each event is one line, even if it repeats text from outside.

use std::io::{self, IsTerminal as _, Write};

use passkit_server::text::OneLine;
use tracing_subscriber::fmt::MakeWriter;

/// Writes each event to stderr, with control characters escaped.
#[derive(Clone, Copy)]
pub(crate) struct LogLines;

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
        let line = escaped(&text, io::stderr().is_terminal());
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

#[cfg(test)]
mod tests {
    use super::escaped;

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
