//! The log messages that phones post.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::identifiers::SerialNumber;

/// Receives the messages that devices post to the log endpoint. A phone reports problems with the
/// service only in these messages.
///
/// Messages are not authenticated and may have any text. A batch has at most 256 KiB. The call runs
/// on the task that answers the device, so move slow work to another task.
pub trait DeviceLog: Send + Sync {
    /// Receives one message.
    fn record(&self, entry: &LogEntry<'_>);
}

/// A closure also works: `|entry: &LogEntry<'_>| …`.
impl<F: Fn(&LogEntry<'_>) + Send + Sync> DeviceLog for F {
    fn record(&self, entry: &LogEntry<'_>) {
        self(entry);
    }
}

/// A message of a device, with its meaning if it is known.
///
/// The identifiers are text of the sender, and are not checked. The device identifier is a secret,
/// and the serial number may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry<'a> {
    /// The complete message as sent. It may contain secrets and control characters.
    pub text: &'a str,
    /// The device's own time as written, such as `2026-11-22 10:00:00 +0100`.
    pub time: Option<&'a str>,
    /// The call that failed, if the message is about one.
    pub task: Option<DeviceTask>,
    /// The pass type identifier or order type identifier.
    pub type_id: Option<&'a str>,
    /// The serial number or order identifier.
    pub serial: Option<&'a str>,
    /// The meaning of the message.
    pub report: DeviceReport<'a>,
}

/// The call of a device that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceTask {
    /// Registering for a pass.
    Register,
    /// Unregistering from a pass.
    Unregister,
    /// Asking which passes changed.
    List,
    /// Fetching a pass.
    Get,
    /// Enrolling in a rewards programme.
    Personalize,
}

/// The meaning of a device's message. Unknown messages are [`Other`](Self::Other).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceReport<'a> {
    /// The call was answered 401.
    AuthenticationFailure,
    /// The call was answered with a status that the protocol does not allow there.
    UnexpectedStatus(u16),
    /// The list answer was not JSON of the expected form.
    MalformedResponse,
    /// The archive was not a validly signed pass.
    InvalidPass,
    /// The archive was for another pass than the requested one.
    WrongPass,
    /// The list answer had serial numbers, but the same tag that the device had sent.
    TagUnchanged,
    /// The list answer had serial numbers, but no tag.
    TagMissing,
    /// The list answer after a push was empty. Either nothing changed, or the push came before the
    /// change was visible.
    SpuriousPush,
    /// The pass was listed as changed, but its content was the same.
    PassUnchanged,
    /// The same version of the pass was sent again, although the device showed that it has it.
    ConditionIgnored,
    /// The pass was sent without a date.
    LastModifiedMissing,
    /// A listed pass is no longer on the device.
    NotRegistered,
    /// The pass was personalized, but its content was the same afterwards.
    PersonalizationUnchanged,
    /// Any other message, with its text.
    Other(&'a str),
}

impl DeviceReport<'_> {
    /// Returns a sentence that describes the problem with the service.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::AuthenticationFailure => {
                "answered 401: the source doesn't accept the token of the pass on the phone"
            }
            Self::UnexpectedStatus(_) => "answered with a status that phones don't understand here",
            Self::MalformedResponse => "the list answer was not of the documented form",
            Self::InvalidPass => {
                "the archive is not a validly signed pass; check it with its manifest and certificate"
            }
            Self::WrongPass => "the archive has another pass than the requested one",
            Self::TagUnchanged => {
                "the list answer named passes, but had the tag that the phone had sent"
            }
            Self::TagMissing => "the list answer named passes, but had no tag",
            Self::SpuriousPush => "a push came without a change, or before the change was marked",
            Self::PassUnchanged => "a pass was marked as changed, but its archive is the same",
            Self::ConditionIgnored => {
                "the same version of the pass was sent again: builds of it must be identical"
            }
            Self::LastModifiedMissing => "the pass was sent without Last-Modified",
            Self::NotRegistered => "a pass was listed that the phone no longer has",
            Self::PersonalizationUnchanged => "the pass was the same after its personalization",
            Self::Other(_) => "a message of unknown form",
        }
    }
}

impl<'a> LogEntry<'a> {
    /// Parses a message. Parsing never fails: an unknown message is [`DeviceReport::Other`].
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let (time, message) = split_time(text.trim());
        let mut entry = Self {
            text,
            time,
            task: None,
            type_id: None,
            serial: None,
            report: DeviceReport::Other(message),
        };
        if let Some((task, reason)) = message.split_once(" encountered error: ") {
            entry.task = task_of(task);
            entry.type_id = after(task, "pass type ").and_then(word);
            // A serial number may have any text, so only the text after the number shows where it
            // ends.
            entry.serial = after(task, "serial number ")
                .and_then(|tail| {
                    [", if-modified-since ", "; with web service url "]
                        .iter()
                        .find_map(|end| tail.split_once(end))
                })
                .map(|(serial, _)| serial);
            entry.report = reason_of(reason);
        } else if let Some(tail) = message.strip_prefix("Web service error for ") {
            entry.type_id = word(tail);
            if let Some((_, complaint)) = tail.split_once("): ") {
                entry.serial = complaint
                    .split_once("serial number '")
                    .and_then(|(_, tail)| quoted(tail))
                    .or_else(|| after(complaint, "unregistered serial number "));
                entry.report = complaint_of(complaint);
            }
        }
        entry
    }
}

/// `[2026-11-22 10:00:00 +0100] message`
fn split_time(text: &str) -> (Option<&str>, &str) {
    text.strip_prefix('[')
        .and_then(|text| text.split_once("] "))
        .map_or((None, text), |(time, message)| (Some(time), message))
}

fn after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.split_once(label).map(|(_, tail)| tail)
}

/// Returns a quoted serial number. A serial number may contain quotes, so only the text after it
/// shows where it ends.
fn quoted(text: &str) -> Option<&str> {
    ["', but the pass was ", "' but did not provide "]
        .iter()
        .find_map(|end| text.rsplit_once(end))
        .map(|(serial, _)| serial)
        .or_else(|| text.trim_end_matches('.').strip_suffix('\''))
        .or_else(|| text.split_once('\'').map(|(serial, _)| serial))
}

/// Returns the text up to the first character that can't be in a type identifier.
fn word(text: &str) -> Option<&str> {
    text.split([' ', ',', ';', '(', ')'])
        .next()
        .filter(|word| !word.is_empty())
}

fn task_of(task: &str) -> Option<DeviceTask> {
    [
        ("Register task", DeviceTask::Register),
        ("Unregister task", DeviceTask::Unregister),
        ("Get serial #s task", DeviceTask::List),
        ("Get pass task", DeviceTask::Get),
        ("Personalize pass task", DeviceTask::Personalize),
    ]
    .into_iter()
    .find_map(|(prefix, known)| task.starts_with(prefix).then_some(known))
}

fn reason_of(reason: &str) -> DeviceReport<'_> {
    if reason.starts_with("Authentication failure") {
        DeviceReport::AuthenticationFailure
    } else if let Some(status) = after(reason, "Unexpected response code ") {
        let digits = status
            .find(|c: char| !c.is_ascii_digit())
            .map_or(status, |end| &status[..end]);
        digits
            .parse()
            .map_or(DeviceReport::Other(reason), DeviceReport::UnexpectedStatus)
    } else if reason.starts_with("Server response was malformed") {
        DeviceReport::MalformedResponse
    } else if reason.starts_with("Received invalid pass data") {
        DeviceReport::InvalidPass
    } else if reason.starts_with("Requested serial number ")
        || reason.starts_with("Requested pass of type ")
    {
        DeviceReport::WrongPass
    } else {
        DeviceReport::Other(reason)
    }
}

fn complaint_of(complaint: &str) -> DeviceReport<'_> {
    if complaint.starts_with("Response to 'What changed?' request") {
        if complaint.contains("omitted a lastUpdated tag") {
            DeviceReport::TagMissing
        } else {
            DeviceReport::TagUnchanged
        }
    } else if complaint.starts_with("Device received spurious push") {
        DeviceReport::SpuriousPush
    } else if complaint.starts_with("Server requested update to serial number") {
        DeviceReport::PassUnchanged
    } else if complaint.starts_with("Server ignored the 'if-modified-since' header") {
        DeviceReport::ConditionIgnored
    } else if complaint.contains("did not provide a 'last-modified' header") {
        DeviceReport::LastModifiedMissing
    } else if complaint.starts_with("Update requested for unregistered serial number") {
        DeviceReport::NotRegistered
    } else if complaint.starts_with("Personalization request was issued") {
        DeviceReport::PersonalizationUnchanged
    } else {
        DeviceReport::Other(complaint)
    }
}

/// The default [`DeviceLog`]. It writes a `tracing` event at level `WARN` for each message, without
/// secrets.
///
/// The event for a known message contains the meaning of the message. The event for an unknown
/// message contains its first words, escaped, up to the first word that could be an identifier.
/// Messages beyond 20 a second are counted and dropped, because anyone may post here.
#[derive(Debug, Default)]
pub struct TracingLog {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    recorded: u32,
    dropped: u64,
}

const PER_SECOND: u32 = 20;

impl TracingLog {
    /// Returns whether one more message may be recorded now.
    fn admit(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window
            .start
            .is_none_or(|start| start.elapsed() >= Duration::from_secs(1))
        {
            if window.dropped > 0 {
                tracing::warn!(dropped = window.dropped, "too many device log messages");
            }
            *window = Window {
                start: Some(Instant::now()),
                recorded: 0,
                dropped: 0,
            };
        }
        if window.recorded < PER_SECOND {
            window.recorded += 1;
            return true;
        }
        window.dropped += 1;
        false
    }
}

impl DeviceLog for TracingLog {
    fn record(&self, entry: &LogEntry<'_>) {
        if !self.admit() {
            return;
        }
        // Only a valid type identifier is logged, because a stranger can send any text as one.
        let type_id = entry
            .type_id
            .filter(|id| crate::identifiers::TypeIdentifier::new(id).is_ok())
            .unwrap_or("-");
        // The serial number is escaped. It is logged only if it is valid.
        let serial = entry
            .serial
            .filter(|serial| SerialNumber::new(serial).is_ok())
            .map(tracing::field::debug);
        let task = entry.task.map(tracing::field::debug);
        match entry.report {
            DeviceReport::Other(message) => {
                tracing::warn!(
                    task,
                    type_id,
                    serial,
                    text = redacted(message),
                    "device log"
                );
            }
            DeviceReport::UnexpectedStatus(status) => {
                tracing::warn!(
                    task,
                    type_id,
                    serial,
                    status,
                    "device log: {}",
                    entry.report.meaning()
                );
            }
            _ => tracing::warn!(
                task,
                type_id,
                serial,
                "device log: {}",
                entry.report.meaning()
            ),
        }
    }
}

/// Returns the start of a message, up to the first quote, digit or long word, because the rest may
/// be an identifier or a token. Control characters are escaped.
pub(crate) fn redacted(message: &str) -> String {
    let start: String = message.chars().take(200).collect();
    let mut words = Vec::new();
    for word in start.split(char::is_whitespace) {
        if word.len() > 15
            || word
                .chars()
                .any(|c| c.is_ascii_digit() || matches!(c, '\'' | '"' | '\u{2018}'..='\u{201f}'))
        {
            words.push("…".to_owned());
            break;
        }
        words.push(word.escape_debug().to_string());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closure_takes_the_messages() {
        let seen = Mutex::new(Vec::new());
        let hook = |entry: &LogEntry<'_>| seen.lock().unwrap().push(entry.text.to_owned());
        DeviceLog::record(&hook, &LogEntry::parse("hello"));
        assert_eq!(seen.into_inner().unwrap(), ["hello"]);
    }

    #[test]
    fn each_report_has_a_meaning_of_its_own() {
        let mut meanings = [
            DeviceReport::AuthenticationFailure,
            DeviceReport::UnexpectedStatus(500),
            DeviceReport::MalformedResponse,
            DeviceReport::InvalidPass,
            DeviceReport::WrongPass,
            DeviceReport::TagUnchanged,
            DeviceReport::TagMissing,
            DeviceReport::SpuriousPush,
            DeviceReport::PassUnchanged,
            DeviceReport::ConditionIgnored,
            DeviceReport::LastModifiedMissing,
            DeviceReport::NotRegistered,
            DeviceReport::PersonalizationUnchanged,
            DeviceReport::Other("new"),
        ]
        .map(|report| report.meaning());
        meanings.sort_unstable();
        assert!(
            meanings.windows(2).all(|pair| pair[0] != pair[1]),
            "{meanings:?}"
        );
        assert!(!meanings[0].is_empty());
    }

    #[test]
    fn failed_calls_are_understood() {
        let entry = LogEntry::parse(
            "[2026-11-22 10:00:00 +0100] Get pass task (pass type pass.com.a, serial number A, 1/b; c, \
             if-modified-since (null); with web service url https://a.example/) encountered error: \
             Unexpected response code 204",
        );
        assert_eq!(entry.time, Some("2026-11-22 10:00:00 +0100"));
        assert_eq!(entry.task, Some(DeviceTask::Get));
        assert_eq!(
            (entry.type_id, entry.serial),
            (Some("pass.com.a"), Some("A, 1/b; c"))
        );
        assert_eq!(entry.report, DeviceReport::UnexpectedStatus(204));

        let entry = LogEntry::parse(
            "[x] Register task (for device D, pass type pass.com.a, serial number S; with web service url u) \
             encountered error: Authentication failure (401)",
        );
        assert_eq!(
            (entry.task, entry.serial),
            (Some(DeviceTask::Register), Some("S"))
        );
        assert_eq!(entry.report, DeviceReport::AuthenticationFailure);
    }

    #[test]
    fn complaints_are_understood() {
        let report = |text: &'static str| {
            let entry = LogEntry::parse(text);
            assert_eq!(entry.type_id, Some("pass.com.a"), "{text}");
            (entry.report, entry.serial)
        };
        let said = "[t] Web service error for pass.com.a (https://a.example/(x)): ";
        for (text, expected, serial) in [
            (
                "Response to 'What changed?' request included 3 serial numbers but the lastUpdated tag (T) remained the same.",
                DeviceReport::TagUnchanged,
                None,
            ),
            (
                "Response to 'What changed?' request included 3 serial numbers but omitted a lastUpdated tag.",
                DeviceReport::TagMissing,
                None,
            ),
            (
                "Device received spurious push. Request for passesUpdatedSince 'T' returned no serial numbers. (Device = D)",
                DeviceReport::SpuriousPush,
                None,
            ),
            (
                "Server requested update to serial number 'S 1', but the pass was unchanged.",
                DeviceReport::PassUnchanged,
                Some("S 1"),
            ),
            (
                "Server requested update to serial number 'O'Brien-1', but the pass was unchanged.",
                DeviceReport::PassUnchanged,
                Some("O'Brien-1"),
            ),
            (
                "Server ignored the 'if-modified-since' header (X) and returned the full unchanged pass data for serial number 'it's 'so'.",
                DeviceReport::ConditionIgnored,
                Some("it's 'so"),
            ),
            (
                "Server returned the pass data for serial number 'O'B' but did not provide a 'last-modified' header.",
                DeviceReport::LastModifiedMissing,
                Some("O'B"),
            ),
            (
                "Server ignored the 'if-modified-since' header (X) and returned the full unchanged pass data for serial number 'S'.",
                DeviceReport::ConditionIgnored,
                Some("S"),
            ),
            (
                "Server returned the pass data for serial number 'S' but did not provide a 'last-modified' header.",
                DeviceReport::LastModifiedMissing,
                Some("S"),
            ),
            (
                "Update requested for unregistered serial number S",
                DeviceReport::NotRegistered,
                Some("S"),
            ),
            (
                "Personalization request was issued for serial number 'S', but the pass was unchanged.",
                DeviceReport::PersonalizationUnchanged,
                Some("S"),
            ),
            ("Something new", DeviceReport::Other("Something new"), None),
        ] {
            let text: &'static str = format!("{said}{text}").leak();
            assert_eq!(report(text), (expected, serial), "{text}");
        }
    }

    #[test]
    fn anything_else_is_kept_as_it_is() {
        for text in [
            "",
            "[",
            "[] ",
            " encountered error: ",
            "Web service error for ",
            "\u{0}\u{202e}é",
            "'",
        ] {
            assert_eq!(LogEntry::parse(text).text, text);
        }
    }

    #[test]
    fn unknown_messages_are_logged_without_secrets_or_control_characters() {
        let shown = redacted(
            "token 0123456789abcdef of device\u{1b}[2J 'secret' said averyveryverylongword no",
        );
        assert_eq!(shown, "token …");
        assert_eq!(
            redacted("of\u{1b}x 'Anna Maria Huber' it said"),
            "of\\u{1b}x …"
        );
        assert!(redacted(&"a ".repeat(500)).len() < 300);
        for (length, shown) in [(15, "aaaaaaaaaaaaaaa said"), (16, "…"), (17, "…")] {
            assert_eq!(redacted(&format!("{} said", "a".repeat(length))), shown);
        }
    }

    #[test]
    fn a_flood_is_dropped() {
        let log = TracingLog::default();
        assert_eq!(
            (0..100).filter(|_| log.admit()).count(),
            PER_SECOND as usize
        );
    }
}
