//! Rows from a table: CSV or JSON lines. Tables may be large and come from strangers, so rows are read
//! one by one, and everything is limited.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use csv_core::ReadRecordResult;
use passkit_server::text::OneLine;
use serde_json::value::RawValue;

use super::row_error::RowError;
use crate::failure::Failure;

/// The longest row in bytes.
pub(crate) const MAX_ROW_BYTES: usize = 256 * 1024;
/// How many columns a table may have.
const MAX_COLUMNS: usize = 1_000;
/// The separators between cells that are recognised.
const SEPARATORS: [u8; 4] = *b",;\t|";

/// The names of the columns of a table.
#[derive(Debug)]
pub(crate) struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Columns {
    fn new(names: Vec<String>) -> Result<Self, String> {
        let mut places = HashMap::new();
        for (place, name) in names.iter().enumerate() {
            // A spreadsheet may write empty columns at the end.
            if !name.is_empty() && places.insert(name.clone(), place).is_some() {
                return Err(format!("has the column {name:?} twice; rename one of them"));
            }
        }
        Ok(Self { names, places })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns the names, without those of unnamed columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().map(String::as_str);
        names.filter(|name| !name.is_empty())
    }
}

/// A row: a text for each column.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The line where the row begins.
    pub(crate) line: u64,
    cells: Cells,
}

#[derive(Clone, Debug)]
enum Cells {
    Listed(Arc<Columns>, Vec<String>),
    /// `None` if the value is a list or an object. A cell can't have such a value.
    Named(HashMap<String, Option<String>>),
}

impl Row {
    /// Reads a JSON object. Its values are texts, numbers, true, false, or null for an empty cell.
    pub(crate) fn of_json(line: u64, text: &[u8]) -> Result<Self, String> {
        let members: HashMap<String, &RawValue> = serde_json::from_slice(text)
            .map_err(|error| format!("is not a JSON object: {error}"))?;
        let mut cells = HashMap::with_capacity(members.len());
        for (name, raw) in members {
            // A number keeps its digits.
            let raw = raw.get();
            let cell = match raw.as_bytes().first() {
                Some(b'"') => Some(serde_json::from_str(raw).map_err(|error| error.to_string())?),
                Some(b'n') => Some(String::new()),
                Some(b'{' | b'[') => None,
                _ => Some(raw.to_owned()),
            };
            cells.insert(name, cell);
        }
        Ok(Self {
            line,
            cells: Cells::Named(cells),
        })
    }

    /// Returns the text in a column.
    pub(crate) fn cell(&self, column: &str) -> Result<&str, RowError> {
        let error = |message: &str| RowError::in_column(self.line, column, message);
        match &self.cells {
            Cells::Listed(columns, cells) => {
                let place = columns.places.get(column);
                let cell = place.and_then(|place| cells.get(*place));
                cell.map(String::as_str)
            }
            Cells::Named(cells) => match cells.get(column) {
                Some(None) => {
                    return Err(error("is a list or an object; write a text or a number"));
                }
                Some(Some(cell)) => Some(cell.as_str()),
                None => None,
            },
        }
        .ok_or_else(|| error("is missing in this row; add it, or write null if it is empty"))
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        match &self.cells {
            Cells::Listed(columns, _) => columns.contains(column),
            Cells::Named(cells) => cells.contains_key(column),
        }
    }

    /// Returns roughly how many bytes of memory the row takes.
    pub(crate) fn size(&self) -> usize {
        match &self.cells {
            Cells::Listed(_, cells) => cells.iter().map(|cell| cell.len() + 24).sum(),
            Cells::Named(cells) => cells
                .iter()
                .map(|(name, cell)| name.len() + cell.as_ref().map_or(0, String::len) + 64)
                .sum(),
        }
    }
}

/// A table that is being read.
pub(crate) struct Table {
    /// The name for messages.
    name: String,
    reader: Box<dyn BufRead + Send>,
    format: Format,
    /// The line that is read next.
    line: u64,
    after_return: bool,
    /// How many bytes were read.
    pub(crate) bytes: u64,
    /// The length of the file in bytes. `None` if it is not a regular file.
    pub(crate) length: Option<u64>,
    /// The folder of the table.
    folder: Option<PathBuf>,
}

enum Format {
    Csv(Box<Csv>),
    JsonLines,
}

struct Csv {
    parser: csv_core::Reader,
    columns: Arc<Columns>,
    /// The bytes of the cells of a row, and the end of each cell.
    output: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    /// Opens a file, or standard input if the path is `-`. Reads the names of the columns.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let reader = BufReader::new(io::stdin());
            return Self::read("standard input".into(), Box::new(reader), None, None);
        }
        let name = OneLine::path(path).to_string();
        let cannot_read = |error: io::Error| Failure::new(format!("can't read {name}: {error}"));
        let file = File::open(path).map_err(cannot_read)?;
        let found = file.metadata().map_err(cannot_read)?;
        let length = found.is_file().then_some(found.len());
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let reader = BufReader::with_capacity(1 << 16, file);
        Self::read(name, Box::new(reader), length, Some(folder.to_owned()))
    }

    /// Reads the names of the columns.
    pub(crate) fn read(
        name: String,
        mut reader: Box<dyn BufRead + Send>,
        length: Option<u64>,
        folder: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let refused = |problem: &str| Failure::new(format!("{name}: {problem}"));
        let cannot_read = |error: io::Error| Failure::new(format!("can't read {name}: {error}"));
        let mut head = first_line(&mut *reader).map_err(cannot_read)?;
        if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
            return Err(refused(
                "is UTF-16; save the table as UTF-8 (in Excel: CSV UTF-8)",
            ));
        }
        if head.starts_with(b"\xef\xbb\xbf") {
            head.drain(..3);
        }
        let mut line = 1;
        let mut separator = None;
        // Excel writes and reads such a line.
        if let Some(rest) = head.to_ascii_lowercase().strip_prefix(b"sep=")
            && let [named, b'\r', b'\n'] | [named, b'\n'] = rest
        {
            separator = Some(*named);
            head = first_line(&mut *reader).map_err(cannot_read)?;
            line += 1;
        }
        let first = head.trim_ascii_start().first();
        if first == Some(&b'[') {
            return Err(refused(
                "is one JSON list; write one JSON object in each line (for example with jq -c '.[]')",
            ));
        }
        let is_json = separator.is_none() && first == Some(&b'{');
        if !is_json && head.len() >= MAX_ROW_BYTES {
            return Err(refused(
                "has a first line of more than 256 KiB; the first line must name the columns",
            ));
        }
        let separator = separator.unwrap_or_else(|| separator_of(&head));
        let mut table = Self {
            reader: Box::new(Cursor::new(head).chain(reader)),
            format: Format::JsonLines,
            line,
            after_return: false,
            bytes: 0,
            length,
            folder,
            name,
        };
        if !is_json {
            let csv = table.open_csv(separator)?;
            table.format = Format::Csv(Box::new(csv));
        }
        Ok(table)
    }

    fn open_csv(&mut self, separator: u8) -> Result<Csv, Failure> {
        let mut csv = Csv {
            parser: csv_core::ReaderBuilder::new().delimiter(separator).build(),
            columns: Arc::new(Columns {
                names: Vec::new(),
                places: HashMap::new(),
            }),
            output: vec![0; MAX_ROW_BYTES],
            ends: vec![0; MAX_COLUMNS],
        };
        let refused = |name: &str, problem: String| Failure::new(format!("{name}: {problem}"));
        let header = self
            .csv_record(&mut csv)
            .map_err(|error| self.cannot_read(&error))?;
        let count = header.unwrap_or(Err("is empty; its first line must name the columns".into()));
        let count = count.map_err(|problem| {
            refused(
                &self.name,
                format!("the first line {problem}").replace("the first line is empty", "is empty"),
            )
        })?;
        let names = csv.cells(count).map(|cell| {
            let name = std::str::from_utf8(cell).map(|name| name.trim().to_owned());
            name.map_err(|_| "the names of the columns are not UTF-8; save the table as UTF-8 (in Excel: CSV UTF-8)".to_owned())
        });
        let names = names.collect::<Result<Vec<_>, _>>();
        let columns = names.and_then(Columns::new);
        csv.columns = Arc::new(columns.map_err(|problem| refused(&self.name, problem))?);
        Ok(csv)
    }

    /// Returns the name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names of the columns, if the table has them in its first line.
    pub(crate) fn columns(&self) -> Option<&Columns> {
        match &self.format {
            Format::Csv(csv) => Some(&csv.columns),
            Format::JsonLines => None,
        }
    }

    /// Returns the folder in which the table is. Standard input has none.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn cannot_read(&self, error: &io::Error) -> Failure {
        Failure::new(format!("can't read {}: {error}", self.name))
    }

    /// Returns the next row that is not empty, or its problem.
    pub(crate) fn next(&mut self) -> Result<Option<Result<Row, RowError>>, Failure> {
        let mut format = std::mem::replace(&mut self.format, Format::JsonLines);
        let next = match &mut format {
            Format::Csv(csv) => self.next_csv(csv),
            Format::JsonLines => self.next_json(),
        };
        self.format = format;
        next.map_err(|error| self.cannot_read(&error))
    }

    fn next_csv(&mut self, csv: &mut Csv) -> io::Result<Option<Result<Row, RowError>>> {
        loop {
            self.skip_empty_lines()?;
            let line = self.line;
            let count = match self.csv_record(csv)? {
                None => return Ok(None),
                Some(Ok(count)) => count,
                Some(Err(problem)) => return Ok(Some(Err(RowError::new(line, problem)))),
            };
            if csv.cells(count).all(|cell| cell.trim_ascii().is_empty()) {
                continue;
            }
            return Ok(Some(csv.row(line, count)));
        }
    }

    fn skip_empty_lines(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
            let count = buffer.iter().take_while(is_end).count();
            if count == 0 {
                return Ok(());
            }
            self.consume(count)?;
        }
    }

    /// Consumes bytes of the buffer, and counts their lines.
    fn consume(&mut self, count: usize) -> io::Result<()> {
        for byte in self.reader.fill_buf()?.iter().take(count) {
            let ends = *byte == b'\r' || *byte == b'\n' && !self.after_return;
            self.line += u64::from(ends);
            self.after_return = *byte == b'\r';
        }
        self.reader.consume(count);
        self.bytes += count as u64;
        Ok(())
    }

    /// Reads a row. Returns how many cells the row has, or its problem.
    fn csv_record(&mut self, csv: &mut Csv) -> io::Result<Option<Result<usize, String>>> {
        let (mut written, mut count, mut problem) = (0, 0, None);
        let mut has_begun = false;
        loop {
            let buffer = self.reader.fill_buf()?;
            let is_end = buffer.is_empty();
            if is_end && !has_begun {
                return Ok(None);
            }
            // At the end, one more line end shows whether the row is complete.
            let input = if is_end { &b"\n"[..] } else { buffer };
            let (result, read, wrote, ended) = csv.parser.read_record(
                input,
                csv.output.get_mut(written..).unwrap_or_default(),
                csv.ends.get_mut(count..).unwrap_or_default(),
            );
            has_begun |= read > 0;
            written += wrote;
            count += ended;
            if !is_end {
                self.consume(read)?;
            }
            match result {
                ReadRecordResult::Record => return Ok(Some(problem.map_or(Ok(count), Err))),
                ReadRecordResult::InputEmpty if is_end => {
                    let problem = problem.unwrap_or_else(|| {
                        "has a quote that is never closed, and the rest of the table is in it; close the quote".to_owned()
                    });
                    return Ok(Some(Err(problem)));
                }
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::End => return Ok(None),
                // The rest of the row is read and thrown away.
                ReadRecordResult::OutputFull => {
                    problem = Some("is longer than 256 KiB; is a quote not closed?".into());
                    (written, count) = (0, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    problem = Some(format!("has more than {MAX_COLUMNS} cells"));
                    (written, count) = (0, 0);
                }
            }
        }
    }

    fn next_json(&mut self) -> io::Result<Option<Result<Row, RowError>>> {
        loop {
            let line = self.line;
            let mut text = Vec::new();
            let mut limited = (&mut *self.reader).take(MAX_ROW_BYTES as u64);
            let mut read = limited.read_until(b'\n', &mut text)?;
            if read == 0 {
                return Ok(None);
            }
            let is_complete = text.ends_with(b"\n") || read < MAX_ROW_BYTES;
            if !is_complete {
                read += skip_line(&mut *self.reader)?;
            }
            self.bytes += read as u64;
            self.line += 1;
            if text.trim_ascii().is_empty() {
                continue;
            }
            let row = if is_complete {
                Row::of_json(line, &text)
            } else {
                Err("is longer than 256 KiB".into())
            };
            return Ok(Some(row.map_err(|problem| RowError::new(line, problem))));
        }
    }
}

impl Csv {
    /// Returns the cells of the last row that was read.
    fn cells(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().take(count).map(move |end| {
            let cell = self.output.get(start..*end).unwrap_or_default();
            start = *end;
            cell
        })
    }

    fn row(&self, line: u64, count: usize) -> Result<Row, RowError> {
        let columns = &self.columns;
        if count != columns.names.len() {
            let wanted = columns.names.len();
            return Err(RowError::new(
                line,
                format!(
                    "has {count} cells instead of {wanted}; a cell with a separator in it needs quotes"
                ),
            ));
        }
        let cells = self.cells(count).zip(&columns.names).map(|(cell, name)| {
            let text = std::str::from_utf8(cell).map(str::to_owned);
            text.map_err(|_| {
                RowError::in_column(
                    line,
                    name,
                    "is not UTF-8; save the table as UTF-8 (in Excel: CSV UTF-8)",
                )
            })
        });
        Ok(Row {
            line,
            cells: Cells::Listed(columns.clone(), cells.collect::<Result<_, _>>()?),
        })
    }
}

/// Reads the first line, up to the allowed length.
fn first_line(reader: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader
        .take(MAX_ROW_BYTES as u64)
        .read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Reads to the end of a line. Returns the number of bytes read.
fn skip_line(reader: &mut dyn BufRead) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        skipped += used;
        if end.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}

/// Returns the separator that is most frequent in the first line, outside quotes.
fn separator_of(line: &[u8]) -> u8 {
    let mut counts = [0; SEPARATORS.len()];
    let mut is_quoted = false;
    for byte in line {
        is_quoted ^= *byte == b'"';
        let separator = SEPARATORS.iter().position(|separator| separator == byte);
        if let Some(count) = separator.and_then(|at| counts.get_mut(at))
            && !is_quoted
        {
            *count += 1;
        }
    }
    let most = SEPARATORS
        .iter()
        .zip(counts)
        .rev()
        .max_by_key(|(_, count)| *count);
    most.map_or(b',', |(separator, _)| *separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8]) -> Result<Table, Failure> {
        Table::read("t".into(), Box::new(Cursor::new(text.to_vec())), None, None)
    }

    /// Returns the cells `a` and `b` of each row with its line, or the problem.
    fn rows(text: &[u8]) -> Vec<(u64, String)> {
        let mut table = open(text).unwrap();
        std::iter::from_fn(|| table.next().unwrap())
            .map(|row| match row {
                Ok(row) => {
                    let (a, b) = (row.cell("a").unwrap(), row.cell("b").unwrap());
                    (row.line, format!("{a}|{b}"))
                }
                Err(error) => (error.line, error.to_string()),
            })
            .collect()
    }

    fn refusal(text: &[u8]) -> String {
        match open(text) {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn every_separator_is_recognised() {
        for separator in [",", ";", "\t", "|"] {
            for end in ["\n", "\r\n", "\r"] {
                let text = ["a, b ", "1,\"x\"\"y\"", "", "2,\"p\nq,\"", ",", "3,z"].join(end);
                let text = text.replace(',', separator);
                let found = rows(format!("\u{feff}{text}").as_bytes());
                let expected = [
                    (2, "1|x\"y".to_owned()),
                    (4, format!("2|p\nq{separator}")),
                    (7, "3|z".to_owned()),
                ];
                assert_eq!(found, expected, "{separator:?} {end:?}");
            }
        }
        assert_eq!(rows(b"sep=;\r\na,x;b\r\n"), []);
        assert_eq!(rows(b"sep=;\r\na;b,c;b\r\n1;2;3\r\n"), [(3, "1|3".into())]);
        assert_eq!(rows(b"a\tb\n1\t2,3;4\n"), [(2, "1|2,3;4".into())]);
    }

    #[test]
    fn json_lines_keep_the_digits_of_numbers() {
        let text = b"\xef\xbb\xbf{\"a\":12345678901234567890123,\"b\":\"\\u00fc\"}\n\n{\"b\":null,\"a\":true,\"c\":[1]}\n{\"a\":1\n[1]\n{\"a\":1,\"b\":1.50}";
        let found = rows(text);
        assert_eq!(found[0], (1, "12345678901234567890123|\u{fc}".into()));
        assert_eq!(found[1], (3, "true|".into()));
        assert!(found[2].1.contains("is not a JSON object"), "{found:?}");
        assert!(found[3].1.contains("is not a JSON object"), "{found:?}");
        assert_eq!(found[4], (6, "1|1.50".into()));
        let row = Row::of_json(7, br#"{"a":{"b":1}}"#).unwrap();
        let error = row.cell("a").unwrap_err();
        assert!(error.to_string().contains("list or an object"), "{error}");
        let error = row.cell("z").unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn a_bad_row_does_not_hide_the_others() {
        let mut text = b"a,b\n1\n2,3,4\n5,\xff\n6,".to_vec();
        text.extend(vec![b'x'; MAX_ROW_BYTES + 10]);
        text.extend(b"\n7,8\n");
        text.extend(vec![b','; 5_000]);
        text.extend(b"\n9,\"10\n11,12\n");
        let found = rows(&text);
        let expected = [
            (2, "has 1 cells instead of 2"),
            (3, "has 3 cells instead of 2"),
            (4, "column \"b\": is not UTF-8"),
            (5, "is longer than 256 KiB"),
            (6, "7|8"),
            (7, "has more than 1000 cells"),
            (8, "has a quote that is never closed"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((line, text), (wanted, mentions)) in found.iter().zip(expected) {
            assert!(*line == wanted && text.contains(mentions), "{line} {text}");
        }
        let mut json = b"{\"a\":\"".to_vec();
        json.extend(vec![b'x'; MAX_ROW_BYTES]);
        json.extend(b"\"}\n{\"a\":1,\"b\":2}\n");
        let found = rows(&json);
        assert!(found[0].1.contains("longer than"), "{:?}", found[0].1);
        assert_eq!(found[1], (2, "1|2".into()));
    }

    #[test]
    fn a_table_without_usable_columns_is_refused() {
        for (text, reason) in [
            (&b""[..], "t: is empty"),
            (b"a,b,a\n", "the column \"a\" twice"),
            (b"a,\xff\n", "are not UTF-8"),
            (b"\xff\xfea\0", "is UTF-16"),
            (b"[{\"a\":1}]", "is one JSON list"),
            (b"a,\"b\n1,2", "never closed"),
            (&[b','; 2_000], "more than 1000 cells"),
            (&[b'a'; MAX_ROW_BYTES], "more than 256 KiB"),
        ] {
            let said = refusal(text);
            assert!(said.contains(reason), "{reason}: {said}");
        }
        assert_eq!(refusal(b"a,b,,\n"), "");
    }
}
