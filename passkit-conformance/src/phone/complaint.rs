use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
};

use crate::wire::shortened;

/// Something that the web service did wrong, or that stopped the phone from reaching it.
///
/// `Display` writes [`text`](Self::text), which has no device identifier.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Complaint {
    /// The web service URL.
    pub url: String,
    /// The pass that the complaint is about, if there is one.
    pub pass: Option<PassId>,
    /// What is wrong. If a real phone would log the complaint, this is its wording.
    pub text: String,
    /// Whether a real phone would post the complaint to `/v1/log`. A real phone does not post
    /// connection problems, and does not notice everything that this phone notices.
    pub is_logged: bool,
    /// The text for `/v1/log`. Unlike [`Complaint::text`], it has the device identifier.
    pub(super) log_text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The call that failed, as a phone's log describes it.
#[derive(Clone, Copy)]
pub(super) enum Task<'a> {
    Register(&'a DeviceIdentifier, &'a PassId),
    Unregister(&'a DeviceIdentifier, &'a PassId),
    List(&'a DeviceIdentifier, &'a TypeIdentifier, Option<&'a str>),
    Get(&'a PassId, Option<&'a str>),
    Personalize(&'a PassId, Option<&'a str>),
}

impl Task<'_> {
    /// `<task> encountered error: <reason>`.
    pub(super) fn error(self, url: &str, reason: &str, is_logged: bool) -> Complaint {
        let text =
            |device: &str| format!("{} encountered error: {reason}", self.named(url, device));
        let (device, pass) = match self {
            Self::Register(device, pass) | Self::Unregister(device, pass) => {
                (device.as_str(), Some(pass))
            }
            Self::List(device, ..) => (device.as_str(), None),
            Self::Get(pass, _) | Self::Personalize(pass, _) => ("", Some(pass)),
        };
        Complaint {
            url: url.to_owned(),
            pass: pass.cloned(),
            text: printable(text("<device>")),
            is_logged,
            log_text: shortened(text(device)),
        }
    }

    fn named(self, url: &str, device: &str) -> String {
        let of = |PassId { type_id, serial }: &PassId| {
            format!("pass type {type_id}, serial number {serial}")
        };
        match self {
            Self::Register(_, pass) => {
                format!(
                    "Register task (for device {device}, {}; with web service url {url})",
                    of(pass)
                )
            }
            Self::Unregister(_, pass) => {
                format!(
                    "Unregister task (for device {device}, {}; with web service url {url})",
                    of(pass)
                )
            }
            Self::List(_, type_id, tag) => format!(
                "Get serial #s task (for device {device}, pass type {type_id}, last updated {}; with web service url {url})",
                tag.unwrap_or("(null)")
            ),
            Self::Get(pass, since) | Self::Personalize(pass, since) => {
                let call = match self {
                    Self::Get(..) => "Get",
                    _ => "Personalize",
                };
                format!(
                    "{call} pass task ({}, if-modified-since {}; with web service url {url})",
                    of(pass),
                    since.unwrap_or("(null)")
                )
            }
        }
    }
}

/// `Web service error for <type> (<url>): <text>`.
pub(super) fn service_error(
    url: &str,
    type_id: &TypeIdentifier,
    pass: Option<&PassId>,
    text: &str,
    is_logged: bool,
) -> Complaint {
    let text = format!("Web service error for {type_id} ({url}): {text}");
    Complaint {
        url: url.to_owned(),
        pass: pass.cloned(),
        text: printable(text.clone()),
        log_text: shortened(text),
        is_logged,
    }
}

/// Makes a text short and safe to print in one line, because a tag may contain anything.
fn printable(text: String) -> String {
    let text = shortened(text);
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Makes a log entry in the format of phones: `[2026-11-22 10:15:00 +0000] <text>`.
pub(super) fn log_entry(time: SystemTime, text: &str) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of the year 0, in eras of 400 years, so that leap days come
    // last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("[{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000] {text}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_log_entry_has_its_date() {
        for (seconds, shown) in [
            (0, "[1970-01-01 00:00:00 +0000] x"),
            (951_782_400, "[2000-02-29 00:00:00 +0000] x"),
            (1_790_000_000, "[2026-09-21 14:13:20 +0000] x"),
            (4_107_542_399, "[2100-02-28 23:59:59 +0000] x"),
            (4_107_542_400, "[2100-03-01 00:00:00 +0000] x"),
        ] {
            assert_eq!(
                log_entry(UNIX_EPOCH + Duration::from_secs(seconds), "x"),
                shown
            );
        }
    }

    #[test]
    fn only_the_log_shows_the_device() {
        let device = DeviceIdentifier::new("c0ffee").unwrap();
        let pass = PassId::new("pass.t", "S1").unwrap();
        let complaint = Task::List(&device, &pass.type_id, None).error(
            "https://h/",
            "Unexpected response code 401",
            true,
        );
        assert!(!complaint.to_string().contains("c0ffee"));
        assert_eq!(
            complaint.log_text,
            "Get serial #s task (for device c0ffee, pass type pass.t, last updated (null); \
             with web service url https://h/) encountered error: Unexpected response code 401"
        );
    }
}
