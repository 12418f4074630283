//! Translations: the files `pass.strings` of the folders `*.lproj`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Map, Value};

use super::{Pass, text};
use crate::{
    contents::{Contents, MAX_TEXT_BYTES},
    finding::Finding,
    json::Step,
    keys, rules,
    walk::{Walk, excerpt},
};

/// The greatest number of texts that are read in all files together.
pub const MAX_STRINGS: usize = 20_000;

const TOO_LARGE: &str = "is too large to be read; split off what the pass does not need";

/// The translations of a pass.
#[derive(Default)]
pub(crate) struct Translations<'a> {
    languages: Vec<Language<'a>>,
    /// The translations of each text, with the number of the language. One map contains all
    /// languages, so that a text is looked up once, and not once for each language.
    texts: BTreeMap<String, Vec<(usize, String)>>,
}

struct Language<'a> {
    /// The name of the file.
    file: &'a str,
    /// How many texts the file has.
    texts: usize,
}

impl<'a> Translations<'a> {
    /// Reads all files `pass.strings`. A file that can't be read is reported and left out.
    pub(crate) fn read(contents: &'a Contents, findings: &mut Vec<Finding>) -> Self {
        let mut read = Self::default();
        let mut left = MAX_STRINGS;
        for file in &contents.files {
            let Some((folder, "pass.strings")) = file.name.rsplit_once('/') else {
                continue;
            };
            if !folder.ends_with(".lproj") {
                continue;
            }
            let result = if file.start.len() < file.size {
                Err(TOO_LARGE.into())
            } else {
                decode(&file.start).and_then(|text| parse(&text, left))
            };
            match result {
                Ok(texts) => {
                    left -= texts.len();
                    let language = read.languages.len();
                    read.languages.push(Language {
                        file: &file.name,
                        texts: texts.len(),
                    });
                    for (key, text) in texts {
                        read.texts.entry(key).or_default().push((language, text));
                    }
                }
                Err(message) => {
                    findings.push(Finding::in_file(&rules::STRINGS, &file.name, message));
                }
            }
        }
        read
    }

    /// Returns the translations of a text, or the text itself if it has none.
    pub(crate) fn of<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let found = self.texts.get(text);
        let itself = found.is_none().then_some(text);
        let found = found.into_iter().flatten();
        found.map(|(_, text)| text.as_str()).chain(itself)
    }
}

/// Reads one file `pass.strings`.
pub(crate) fn read(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(TOO_LARGE.into());
    }
    decode(bytes).and_then(|text| parse(&text, MAX_STRINGS))
}

/// Checks the names of the languages, whether the translations fit the pass, and whether all
/// languages have the same texts.
pub(crate) fn check<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    let folders: BTreeSet<&str> = pass
        .contents
        .files
        .iter()
        .filter_map(|file| file.name.split_once(".lproj/"))
        .map(|(folder, _)| folder)
        .collect();
    for folder in folders.into_iter().filter(|folder| !is_language(folder)) {
        walk.add(Finding::in_file(
            &rules::LANGUAGE,
            &format!("{folder}.lproj"),
            "has no language tag as its name; name it like en.lproj or pt-BR.lproj",
        ));
    }
    let Translations { languages, texts } = pass.translations;
    for (number, language) in languages.iter().enumerate() {
        // This search skips only texts that the language has. All searches together are therefore
        // no longer than the translations.
        let lacks = |translated: &[(usize, String)]| {
            translated
                .binary_search_by_key(&number, |(language, _)| *language)
                .is_err()
        };
        let missing = texts.len() - language.texts;
        let first = texts.iter().find(|(_, translated)| lacks(translated));
        if let (Some((first, _)), true) = (first, missing > 0) {
            let more = more(missing - 1);
            walk.add(Finding::in_file(
                &rules::STRINGS_DIFFER,
                language.file,
                format!(
                    "lacks {}{more}, which another language has; add it",
                    excerpt(first)
                ),
            ));
        }
    }
    let mut used = BTreeSet::new();
    for (key, value) in pass.json {
        if key != "userInfo" {
            collect(value, &mut used);
        }
    }
    let mut unused = texts.iter().filter(|(key, _)| !used.contains(key.as_str()));
    if let Some((first, translated)) = unused.next() {
        let more = more(unused.count());
        let language = translated
            .first()
            .and_then(|(number, _)| languages.get(*number));
        walk.add(Finding::in_file(
            &rules::STRINGS_UNUSED,
            language.map_or("pass.strings", |language| language.file),
            format!(
                "has {}{more}, which is nowhere in pass.json; remove or correct it",
                excerpt(first)
            ),
        ));
    }
    if !texts.is_empty() {
        untranslated(pass, walk);
    }
}

fn more(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" and {count} more"),
    }
}

/// Collects all strings of a JSON value. The depth of JSON is limited.
fn collect<'a>(value: &'a Value, strings: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(text) => drop(strings.insert(text)),
        Value::Array(values) => values.iter().for_each(|value| collect(value, strings)),
        Value::Object(object) => object.values().for_each(|value| collect(value, strings)),
        _ => {}
    }
}

/// Reports the texts that a translated pass shows untranslated: labels, change messages and the
/// description. Values are not reported, because they are mostly data.
fn untranslated<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    check_text(pass, pass.json, "description", walk);
    for style in keys::STYLES {
        let Some(groups) = pass.json.get(style.name).and_then(Value::as_object) else {
            continue;
        };
        walk.within(Step::Key(style.name), |walk| {
            for name in groups.keys() {
                walk.each(groups, name, |walk, field| {
                    for key in ["label", "changeMessage"] {
                        check_text(pass, field, key, walk);
                    }
                });
            }
        });
    }
}

fn check_text<'a>(
    pass: &Pass<'a>,
    object: &'a Map<String, Value>,
    key: &'static str,
    walk: &mut Walk<'a, '_>,
) {
    if let Some(shown) = text(object, key)
        && shown.contains(char::is_alphabetic)
        && !pass.translations.texts.contains_key(shown)
    {
        let shown = excerpt(shown);
        walk.report_key(
            key,
            &rules::STRINGS_MISSING,
            format_args!("is {shown}, which no pass.strings translates; add it to each"),
        );
    }
}

/// Returns whether a folder has the name of a language: a tag such as `en`, `pt-BR` or `zh_Hans`.
fn is_language(name: &str) -> bool {
    let mut parts = name.split(['-', '_']);
    let first = parts.next().unwrap_or_default();
    let is_word = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    name == "Base"
        || matches!(first.len(), 2 | 3)
            && first.bytes().all(|byte| byte.is_ascii_alphabetic())
            && parts.all(is_word)
}

/// Decodes UTF-16 with a byte order mark, or UTF-8.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks();
        let units = units.iter().map(|bytes| unit(*bytes));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        match (text, rest) {
            (Ok(text), []) => Ok(Cow::Owned(text)),
            _ => Err("is damaged UTF-16; write it in UTF-8".to_owned()),
        }
    };
    match bytes {
        [0xff, 0xfe, bytes @ ..] => utf16(bytes, u16::from_le_bytes),
        [0xfe, 0xff, bytes @ ..] => utf16(bytes, u16::from_be_bytes),
        [b'b', b'p', b'l', b'i', b's', b't', ..] => {
            Err("is a binary property list; write it as text in UTF-8".into())
        }
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes);
            let text = text.ok().filter(|text| !text.contains('\0'));
            text.map(Cow::Borrowed).ok_or_else(|| {
                "is neither UTF-8, nor UTF-16 with a byte order mark; write it in UTF-8".into()
            })
        }
    }
}

/// Parses lines like `"key" = "text";` with comments. Fails if there are more than `limit` lines.
fn parse(text: &str, limit: usize) -> Result<BTreeMap<String, String>, String> {
    let mut texts = BTreeMap::new();
    let mut reader = Reader { text, rest: text };
    loop {
        reader.skip_space()?;
        if reader.rest.is_empty() {
            return Ok(texts);
        }
        if texts.len() == limit {
            return Err(format!(
                "has more texts than the {MAX_STRINGS} that are read"
            ));
        }
        let key = reader.string()?;
        reader.skip_space()?;
        // A key without a value is its own translation.
        let value = if reader.take('=') {
            reader.skip_space()?;
            let value = reader.string()?;
            reader.skip_space()?;
            value
        } else {
            key.clone()
        };
        if !reader.take(';') {
            return Err(reader.expected("a semicolon"));
        }
        texts.insert(key, value);
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn expected(&self, what: &str) -> String {
        let before = self.text.len() - self.rest.len();
        let before = self.text.as_bytes().get(..before).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("can't be read: {what} is missing in line {line}; write \"key\" = \"text\";")
    }

    /// Removes a character from the start. Returns whether it was there.
    fn take(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Removes white space and comments from the start.
    fn skip_space(&mut self) -> Result<(), String> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let Some((_, rest)) = comment.split_once("*/") else {
                    return Err(self.expected("the end of a comment"));
                };
                self.rest = rest;
            } else {
                return Ok(());
            }
        }
    }

    /// Reads a string in quotes, or a word without quotes.
    fn string(&mut self) -> Result<String, String> {
        let quote = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => return self.word(),
        };
        let start = self.rest;
        self.take(quote);
        let mut text = String::new();
        loop {
            let Some(end) = self.rest.find([quote, '\\']) else {
                self.rest = start;
                return Err(self.expected("the end of a text"));
            };
            let (plain, rest) = self.rest.split_at(end);
            text.push_str(plain);
            self.rest = rest;
            if self.take(quote) {
                return Ok(text);
            }
            self.take('\\');
            self.escaped(&mut text);
        }
    }

    /// Reads the characters after a backslash.
    fn escaped(&mut self, text: &mut String) {
        let mut rest = self.rest.chars();
        let c = match rest.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('U' | 'u') => {
                let digits = rest.as_str().get(..4);
                let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
                let Some(unit) = unit else {
                    self.rest = rest.as_str();
                    return text.push('U');
                };
                self.rest = rest.as_str().get(4..).unwrap_or_default();
                return text.push(char::from_u32(unit.into()).unwrap_or('\u{fffd}'));
            }
            Some(c) => c,
            None => return,
        };
        self.rest = rest.as_str();
        text.push(c);
    }

    fn word(&mut self) -> Result<String, String> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"_.$-/:".contains(c))
            .unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected("a text in quotes"));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_comments_and_escapes() {
        let text = "/* a \"comment\" */ \"a\" = \"b\\n\\\"c\\\" \\U00e4\";\n\
                    // another\nword='x';\"alone\";\r\n";
        let texts = parse(text, 9).unwrap();
        let texts: Vec<_> = texts.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(
            texts,
            [("a", "b\n\"c\" ä"), ("alone", "alone"), ("word", "x")]
        );
        assert!(parse("", 9).unwrap().is_empty());
        for (text, part) in [
            ("\"a\" = \"b\"", "a semicolon is missing in line 1"),
            ("\n\"a", "the end of a text is missing in line 2"),
            ("\"a\\", "the end of a text"),
            ("/* a", "the end of a comment"),
            ("= \"b\";", "a text in quotes"),
            ("\"a\" = ;", "a text in quotes"),
        ] {
            let error = parse(text, 9).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(parse("a;b;", 1).unwrap_err().contains("more texts"));
    }

    #[test]
    fn encodings_are_told_by_their_marks() {
        let utf16 = |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let text = "\u{feff}\"ä\" = \"\u{1f600}\";";
            text.encode_utf16().flat_map(to_bytes).collect()
        };
        let text = "\"ä\" = \"\u{1f600}\";";
        for bytes in [
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
            text.into(),
            format!("\u{feff}{text}").into_bytes(),
        ] {
            assert_eq!(decode(&bytes).unwrap(), text);
        }
        for bytes in [
            &b"\xff\xfea"[..],
            b"\xff\xfe\0\xd8",
            b"\"\xe4\"",
            b"\"\0a\0\"\0",
            b"bplist00",
        ] {
            assert!(decode(bytes).is_err());
        }
    }

    #[test]
    fn folders_have_language_tags() {
        for name in ["en", "de", "pt-BR", "zh-Hans", "zh_Hant_TW", "fil", "Base"] {
            assert!(is_language(name), "{name}");
        }
        for name in ["", "English", "e", "en-", "en GB", "x/en", "d\u{e4}"] {
            assert!(!is_language(name), "{name}");
        }
    }
}
