//! Reads and writes registrations as CSV, line by line. A quote that is never closed spoils only
//! its own line.
//!
//! This file depends on no other file of the program, so that the package `fuzz` can include it.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use csv_core::ReadRecordResult;
use passkit_server::{
    AuthToken, PassId,
    identifiers::{DeviceIdentifier, InvalidIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::Registration,
};

/// The first line of a file that this program writes.
pub(crate) const NAMES_LINE: &str = "device,push_token,type,serial\n";

/// The longest line in bytes. Identifiers have shorter limits.
const LONGEST: usize = 16 * 1024;

/// Names that issuers use for the column with the token of a pass, in the same form as [`NAMES`].
/// This column may be missing.
const TOKEN_NAMES: [&str; 4] = [
    "authenticationtoken",
    "authtoken",
    "passtoken",
    "authorizationtoken",
];

/// Names that issuers use for the columns, in lower case, without spaces and punctuation.
const NAMES: [&[&str]; 4] = [
    &[
        "device",
        "deviceid",
        "deviceidentifier",
        "devicelibraryidentifier",
    ],
    &["pushtoken", "token"],
    &[
        "type",
        "passtype",
        "passtypeidentifier",
        "typeidentifier",
        "ordertype",
        "ordertypeidentifier",
    ],
    &["serial", "serialnumber", "orderidentifier"],
];

pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    parser: csv_core::Reader,
    line: Vec<u8>,
    /// The position of each column in a line.
    order: [usize; 4],
    /// The position of the pass's token, if there is such a column.
    token: Option<usize>,
    /// The first line, if it names the columns.
    pub(crate) names: Option<Vec<u8>>,
    /// How many fields a line may have.
    columns: usize,
    /// How many lines were read.
    pub(crate) number: u64,
    /// How many bytes were read.
    pub(crate) bytes: u64,
    /// The length of the file in bytes. `None` if it is not a regular file.
    pub(crate) length: Option<u64>,
}

/// The fields of a line, as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) device: String,
    pub(crate) push_token: String,
    pub(crate) type_id: String,
    pub(crate) serial: String,
    /// The token of the pass, if the line has one.
    pub(crate) token: Option<String>,
}

/// The number of a line, and its fields or its problem.
pub(crate) type Line = (u64, Result<Record, String>);

impl Lines {
    /// Reads a file, or standard input if the path is `-`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new(BufReader::new(io::stdin()), None));
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        let length = found.is_file().then_some(found.len());
        Ok(Self::new(BufReader::with_capacity(1 << 18, file), length))
    }

    pub(crate) fn new(reader: impl BufRead + Send + 'static, length: Option<u64>) -> Self {
        Self {
            reader: Box::new(reader),
            parser: csv_core::Reader::new(),
            line: Vec::new(),
            order: [0, 1, 2, 3],
            token: None,
            names: None,
            columns: 4,
            number: 0,
            bytes: 0,
            length,
        }
    }

    /// Returns the next line that is not empty. The line has its number, and its fields in the
    /// order of the columns, or its problem.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(complete) = self.read_line()? else {
                return Ok(None);
            };
            self.number += 1;
            if !complete {
                return Ok(Some((
                    self.number,
                    Err(format!("longer than {LONGEST} bytes")),
                )));
            }
            if self.number == 1 && self.line.starts_with("\u{feff}".as_bytes()) {
                self.line.drain(..3);
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let fields = self.fields();
            if self.number == 1
                && let Ok(fields) = &fields
                && let Some((order, token)) = named_columns(fields)
            {
                (self.order, self.token) = (order, token);
                (self.names, self.columns) = (Some(self.line.clone()), fields.len());
                continue;
            }
            let positions = self.order.into_iter().chain(self.token);
            let wanted = positions.max().unwrap_or(0) + 1;
            let record = fields.and_then(|mut fields| {
                let count = fields.len();
                // One more field is allowed, because a serial number may contain a comma without
                // quotes.
                if count < wanted || count > self.columns {
                    return Err(format!("{count} fields instead of {}", self.columns));
                }
                let [device, push_token, type_id, serial] =
                    self.order.map(|at| std::mem::take(&mut fields[at]));
                let token = self.token.map(|at| fields[at].trim().to_owned());
                // Only a serial number may contain blanks.
                Ok(Record {
                    device: device.trim().into(),
                    push_token: push_token.trim().into(),
                    type_id: type_id.trim().into(),
                    serial,
                    token: token.filter(|token| !token.is_empty()),
                })
            });
            return Ok(Some((self.number, record)));
        }
    }

    /// Returns the last line that was read, unchanged.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.line
    }

    /// Reads a line. Returns whether the entire line fits. Returns `None` at the end.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let read = self
            .reader
            .by_ref()
            .take(LONGEST as u64)
            .read_until(b'\n', &mut self.line)?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(None);
        }
        let complete = self.line.ends_with(b"\n") || read < LONGEST;
        if !complete {
            self.bytes += skip_line(&mut *self.reader)?;
        }
        Ok(Some(complete))
    }

    fn fields(&mut self) -> Result<Vec<String>, String> {
        self.parser.reset();
        let mut text = vec![0; self.line.len() + 1];
        let mut ends = [0; 32];
        let (mut input, mut written, mut count) = (&self.line[..], 0, 0);
        loop {
            let (result, read, wrote, ended) =
                self.parser
                    .read_record(input, &mut text[written..], &mut ends[count..]);
            input = &input[read..];
            written += wrote;
            count += ended;
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::InputEmpty if read > 0 || !input.is_empty() => {}
                ReadRecordResult::InputEmpty | ReadRecordResult::End => break,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return Err(format!("more than {} fields", ends.len()));
                }
            }
        }
        if !input.trim_ascii().is_empty() {
            return Err("a line break inside a field".into());
        }
        let mut start = 0;
        ends[..count]
            .iter()
            .map(|end| {
                let field =
                    std::str::from_utf8(&text[start..*end]).map_err(|_| "not UTF-8".to_owned());
                start = *end;
                field.map(str::to_owned)
            })
            .collect()
    }
}

/// Reads to the end of a line. Returns the number of bytes read.
fn skip_line(reader: &mut dyn BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        skipped += used as u64;
        if end.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}

/// Returns the position of each column, and of the column with the pass's token, if these fields
/// are names of columns.
fn named_columns(fields: &[String]) -> Option<([usize; 4], Option<usize>)> {
    let plain = |field: &String| -> String {
        field
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase()
    };
    let fields: Vec<String> = fields.iter().map(plain).collect();
    let column = |names: &[&str]| {
        let is_one = |field: &String| names.contains(&field.as_str());
        fields.iter().position(is_one)
    };
    let mut order = [0; 4];
    for (place, names) in order.iter_mut().zip(NAMES) {
        *place = column(names)?;
    }
    Some((order, column(&TOKEN_NAMES)))
}

/// Returns the registration of a line, and the token that the phone has.
pub(crate) fn to_registration(
    record: &Record,
) -> Result<(Registration, Option<AuthToken>), InvalidIdentifier> {
    let registration = Registration {
        device: DeviceIdentifier::new(&record.device)?,
        push_token: PushToken::new(&record.push_token)?,
        pass: PassId {
            type_id: TypeIdentifier::new(&record.type_id)?,
            serial: SerialNumber::new(&record.serial)?,
        },
    };
    let token = record.token.as_deref().map(AuthToken::new).transpose()?;
    Ok((registration, token))
}

/// Returns a registration as a line that [`Lines`] can read.
pub(crate) fn line(registration: &Registration) -> String {
    let Registration {
        device,
        push_token,
        pass,
    } = registration;
    let [push_token, serial] = [push_token.as_str(), pass.serial.as_str()].map(field);
    // The other two fields contain only letters, digits and "-._~".
    format!(
        "{},{push_token},{},{serial}\n",
        device.as_str(),
        pass.type_id
    )
}

/// Returns a field of a line, in quotes if it needs them.
fn field(text: &str) -> Cow<'_, str> {
    if text.trim() == text && !text.contains([',', '"', '\r', '\n']) {
        return text.into();
    }
    format!("\"{}\"", text.replace('"', "\"\"")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Line> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn record(fields: [&str; 4]) -> Result<Record, String> {
        let [device, push_token, type_id, serial] = fields.map(str::to_owned);
        Ok(Record {
            device,
            push_token,
            type_id,
            serial,
            token: None,
        })
    }

    #[test]
    fn lines_are_read_with_and_without_names() {
        let plain = read(b"d1,aa,pass.a,1\r\n\n\"d2\", bb , pass.a,\"a \"\"b\"\", c\"\n");
        assert_eq!(plain[0], (1, record(["d1", "aa", "pass.a", "1"])));
        assert_eq!(plain[1], (3, record(["d2", "bb", "pass.a", "a \"b\", c"])));
        let named = read(b"\xef\xbb\xbfSerial Number,type,x,Device_ID,pushToken\n1,pass.a,-,d1,aa");
        assert_eq!(named, [(2, record(["d1", "aa", "pass.a", "1"]))]);
        let comma = read(b"device,token,type,serial\nd1,aa,pass.a,1,5\nd1,aa,pass.a,\"1,5\"\n");
        assert_eq!(
            comma[0],
            (2, Err("5 fields instead of 4".into())),
            "no other serial number"
        );
        assert_eq!(comma[1], (3, record(["d1", "aa", "pass.a", "1,5"])));
    }

    #[test]
    fn the_token_of_a_pass_has_a_named_column() {
        let lines = read(
            b"device,push_token,type,serial,authenticationToken\nd1,aa,pass.a,1, secret \nd1,aa,pass.a,2,\n\
              d1,aa,pass.a,3\n",
        );
        let tokens: Vec<_> = lines
            .into_iter()
            .map(|(_, record)| record.map(|record| record.token))
            .collect();
        assert_eq!(
            tokens,
            [
                Ok(Some("secret".into())),
                Ok(None),
                Err("4 fields instead of 5".into())
            ]
        );
    }

    #[test]
    fn a_bad_line_spoils_no_other() {
        let long = "x".repeat(3 * LONGEST);
        let text = format!(
            "d1,aa\n\"d1,aa,pass.a,1\nd1,aa,pass.a,\u{fffd}\n{long}\nd2,aa,pass.a,2\na,b,c,d,e\n"
        );
        let mut bytes = text.into_bytes();
        let at = bytes
            .windows(3)
            .position(|three| three == "\u{fffd}".as_bytes())
            .unwrap();
        bytes.splice(at..at + 3, *b"\xff");
        let lines = read(&bytes);
        let bad: Vec<u64> = lines
            .iter()
            .filter(|(_, line)| line.is_err())
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(bad, [1, 2, 3, 4, 6], "{lines:?}");
        assert_eq!(lines[4], (5, record(["d2", "aa", "pass.a", "2"])));
    }
}
