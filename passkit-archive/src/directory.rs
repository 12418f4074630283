//! Checks that all readers find the same files in a zip archive.
//!
//! Some readers go through the files from the start, and others use the directory at the end. If
//! the two differ, this program and a phone would find different content.

use std::collections::{BTreeMap, BTreeSet};

/// How many entries an archive may have, including directories.
pub const MAX_ENTRIES: usize = 1_000;

const LOCAL_HEADER: [u8; 4] = *b"PK\x03\x04";
const DIRECTORY_HEADER: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x07";

const LOCAL_BYTES: usize = 30;
const DIRECTORY_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 20;

/// The part of the bytes that is the zip archive, and the names in its directory.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    pub(crate) zip: &'a [u8],
    pub(crate) names: Vec<&'a [u8]>,
}

/// The reason why readers disagree. Each text fits after "the archive: ".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("its end is missing, so it is not a complete zip archive")]
    NoEnd,
    #[error("has several ends; zip it again")]
    Ends,
    #[error("is in the zip64 format for huge archives; zip it again without zip64")]
    Zip64,
    #[error("is a part of a split archive; zip it as one file")]
    Split,
    #[error("has {0} other bytes before it; remove them")]
    Junk(usize),
    #[error("its end gives a wrong position for the list of files; zip it again")]
    Offset,
    #[error("its list of files is damaged; zip it again")]
    Directory,
    #[error("says that it has {said} files, but lists {listed}; zip it again")]
    Count { said: usize, listed: usize },
    #[error("has {0} entries, more than the {MAX_ENTRIES} allowed")]
    Entries(usize),
    #[error("\"{0}\" is not at the position that the list of files gives; zip it again")]
    Place(String),
    #[error("lists \"{listed}\", but the file there is named \"{local}\"; zip it again")]
    Name { listed: String, local: String },
    #[error("lists \"{0}\" with a compression that the file does not have; zip it again")]
    Method(String),
    #[error("two of its files overlap; zip it again")]
    Overlap,
}

/// Reads the directory. Looks only at headers, not at the contents of files.
pub(crate) fn read(bytes: &[u8]) -> Result<Directory<'_>, Fault> {
    let end = find_end(bytes)?;
    let comment = usize::from(u16_at(bytes, end + 20).ok_or(Fault::NoEnd)?);
    let zip = bytes.get(..end + END_BYTES + comment).ok_or(Fault::NoEnd)?;
    let number = |at| u16_at(bytes, end + at).map(usize::from).ok_or(Fault::NoEnd);
    let (disk, first_disk, here, said) = (number(4)?, number(6)?, number(8)?, number(10)?);
    let size = u32_at(bytes, end + 12).ok_or(Fault::NoEnd)?;
    let start = u32_at(bytes, end + 16).ok_or(Fault::NoEnd)?;
    let has_end_64 = end
        .checked_sub(END_64_BYTES)
        .is_some_and(|at| starts_with(bytes, at, END_64));
    if has_end_64 || said == 0xffff || size == usize::MAX || start == usize::MAX {
        return Err(Fault::Zip64);
    }
    if (disk, first_disk) != (0, 0) || here != said {
        return Err(Fault::Split);
    }
    match end.checked_sub(size) {
        Some(right) if right == start => {}
        Some(right)
            if right > start && (size == 0 || starts_with(bytes, right, DIRECTORY_HEADER)) =>
        {
            return Err(Fault::Junk(right - start));
        }
        _ => return Err(Fault::Offset),
    }

    // The entries are counted before any of them is kept. An entry needs far more memory than its
    // 46 bytes in the archive.
    let after = |&at: &usize| Entry::read(bytes, at).map(|entry| entry.end);
    let steps = || std::iter::successors(Some(start), after).take_while(|&at| at < end);
    let listed = steps().count();
    if listed.max(said) > MAX_ENTRIES {
        return Err(Fault::Entries(listed.max(said)));
    }
    let mut names = Vec::with_capacity(listed);
    let mut places = BTreeMap::new();
    let mut at = start;
    while at < end {
        let entry = Entry::read(bytes, at).filter(|entry| entry.end <= end);
        let entry = entry.ok_or(Fault::Directory)?;
        at = entry.end;
        names.push(entry.name);
        if places
            .insert(entry.place, entry.check_local(bytes)?)
            .is_some()
        {
            return Err(Fault::Overlap);
        }
    }
    if listed != said {
        return Err(Fault::Count { said, listed });
    }
    match places.keys().next() {
        Some(&junk) if junk > 0 => return Err(Fault::Junk(junk)),
        _ => {}
    }
    let ends = places.values();
    let next = places.keys().skip(1).chain([&start]);
    if ends.zip(next).any(|(end, next)| end > next) {
        return Err(Fault::Overlap);
    }
    Ok(Directory { zip, names })
}

/// Returns the names that occur twice, and names that differ only in upper and lower case.
pub(crate) fn colliding_names<'a>(names: &[&'a [u8]]) -> BTreeSet<&'a [u8]> {
    let mut seen = BTreeSet::new();
    names
        .iter()
        .copied()
        .filter(|name| !seen.insert(String::from_utf8_lossy(name).to_lowercase()))
        .collect()
}

/// Returns where the end record is. Bytes may follow after the archive.
fn find_end(bytes: &[u8]) -> Result<usize, Fault> {
    let first = bytes
        .len()
        .saturating_sub(END_BYTES + usize::from(u16::MAX));
    let candidates: Vec<(usize, bool)> = (first..bytes.len())
        .filter(|&at| starts_with(bytes, at, END))
        .filter_map(|at| {
            let end = at + END_BYTES + usize::from(u16_at(bytes, at + 20)?);
            (end <= bytes.len()).then_some((at, end == bytes.len()))
        })
        .collect();
    let mut exact = candidates.iter().filter(|(_, exact)| *exact);
    match (exact.next(), exact.next()) {
        (Some((at, _)), None) => Ok(*at),
        (Some(_), Some(_)) => Err(Fault::Ends),
        (None, _) => candidates.last().map(|(at, _)| *at).ok_or(Fault::NoEnd),
    }
}

/// A file in the directory.
struct Entry<'a> {
    name: &'a [u8],
    method: u16,
    compressed: usize,
    /// The position of the local header.
    place: usize,
    /// The position of the next entry of the directory.
    end: usize,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Option<Self> {
        if !starts_with(bytes, at, DIRECTORY_HEADER) {
            return None;
        }
        let number = |offset| u16_at(bytes, at + offset).map(usize::from);
        let (name, extra, comment) = (number(28)?, number(30)?, number(32)?);
        let name_at = at + DIRECTORY_BYTES;
        Some(Self {
            name: bytes.get(name_at..name_at + name)?,
            method: u16_at(bytes, at + 10)?,
            compressed: u32_at(bytes, at + 20)?,
            place: u32_at(bytes, at + 42)?,
            end: name_at + name + extra + comment,
        })
    }

    /// Compares the entry with the local header. Returns where the file ends.
    fn check_local(&self, bytes: &[u8]) -> Result<usize, Fault> {
        let listed = || String::from_utf8_lossy(self.name).into_owned();
        let missing = || Fault::Place(listed());
        if !starts_with(bytes, self.place, LOCAL_HEADER) {
            return Err(missing());
        }
        let number = |offset| u16_at(bytes, self.place + offset).ok_or_else(missing);
        let (name, extra) = (usize::from(number(26)?), usize::from(number(28)?));
        let name_at = self.place + LOCAL_BYTES;
        let local = bytes.get(name_at..name_at + name).ok_or_else(missing)?;
        if local != self.name {
            return Err(Fault::Name {
                listed: listed(),
                local: String::from_utf8_lossy(local).into_owned(),
            });
        }
        if number(8)? != self.method {
            return Err(Fault::Method(listed()));
        }
        Ok((name_at + name + extra).saturating_add(self.compressed))
    }
}

fn starts_with(bytes: &[u8], at: usize, mark: [u8; 4]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(&mark))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a number of four bytes. `usize::MAX` means that the number is in a zip64 record.
fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    match u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) {
        u32::MAX => Some(usize::MAX),
        number => usize::try_from(number).ok(),
    }
}
