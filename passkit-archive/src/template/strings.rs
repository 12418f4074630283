//! Changes texts in a `pass.strings` file.

use std::ops::Range;

/// Returns the file with this text for this key. All other bytes stay the same, except that the
/// result is UTF-8.
pub(super) fn set(file: &[u8], key: &str, text: &str) -> Result<String, String> {
    let mut strings = decode(file)?;
    let line = format!("{} = {};\n", quoted(key), quoted(text));
    let entries = entries(&strings)?;
    // If two entries have the same key, some readers use the first and others the last. So all are
    // changed.
    let same: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.key == key)
        .collect();
    if same.is_empty() {
        if !strings.is_empty() && !strings.ends_with('\n') {
            strings.push('\n');
        }
        strings.push_str(&line);
    }
    for entry in same.into_iter().rev() {
        strings.replace_range(entry.value, &quoted(text));
    }
    Ok(strings)
}

/// Returns the file without these keys. Returns `None` if the file has none of them, or can't be
/// read.
pub(super) fn remove(file: &[u8], keys: &[String]) -> Option<String> {
    let mut strings = decode(file).ok()?;
    let mut entries = entries(&strings).ok()?;
    entries.retain(|entry| keys.contains(&entry.key));
    for entry in entries.iter().rev() {
        strings.replace_range(entry.whole.clone(), "");
    }
    (!entries.is_empty()).then_some(strings)
}

fn decode(file: &[u8]) -> Result<String, String> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks(2).map(|pair| match *pair {
            [a, b] => unit([a, b]),
            // Half a character is treated as damage, like a surrogate without its partner.
            _ => 0xd800,
        });
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .ok()
    };
    let text = match file {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => String::from_utf8(rest.to_vec()).ok(),
    };
    text.ok_or_else(|| "is neither UTF-8 nor UTF-16; save it as UTF-8".into())
}

/// An entry, with its places in the text.
struct Entry {
    /// The key, without quotes.
    key: String,
    /// The place of the value, with its quotes.
    value: Range<usize>,
    /// The place of the whole entry, with the end of its line.
    whole: Range<usize>,
}

fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut at = space(text, 0)?;
    while at < text.len() {
        let key = token(text, at)?;
        let start = key.start;
        at = space(text, key.end)?;
        at = symbol(text, at, '=')?;
        at = space(text, at)?;
        let value = token(text, at)?;
        at = space(text, value.end)?;
        at = symbol(text, at, ';')?;
        let end = at + usize::from(rest(text, at).starts_with('\n'));
        entries.push(Entry {
            key: unquoted(text.get(key).unwrap_or_default()),
            value,
            whole: start..end,
        });
        at = space(text, at)?;
    }
    Ok(entries)
}

fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

fn symbol(text: &str, at: usize, symbol: char) -> Result<usize, String> {
    match rest(text, at).starts_with(symbol) {
        true => Ok(at + symbol.len_utf8()),
        false => Err(unreadable(text, at)),
    }
}

/// Skips white space and comments.
fn space(text: &str, mut at: usize) -> Result<usize, String> {
    loop {
        let trimmed = rest(text, at).trim_start();
        at = text.len() - trimmed.len();
        at += if trimmed.starts_with("//") {
            trimmed.find('\n').unwrap_or(trimmed.len())
        } else if trimmed.starts_with("/*") {
            trimmed.find("*/").ok_or_else(|| unreadable(text, at))? + 2
        } else {
            return Ok(at);
        };
    }
}

/// Returns the position of a text in quotes, or of a word.
fn token(text: &str, at: usize) -> Result<Range<usize>, String> {
    let here = rest(text, at);
    let length = match here.strip_prefix('"') {
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map(|end| end + 2)
        }
        None => {
            let is_word = |c: char| c.is_alphanumeric() || "_-.$:/".contains(c);
            Some(here.find(|c| !is_word(c)).unwrap_or(here.len())).filter(|length| *length > 0)
        }
    };
    length
        .map(|length| at..at + length)
        .ok_or_else(|| unreadable(text, at))
}

fn unreadable(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    format!("can't be read at line {line}; write each line as \"key\" = \"text\";")
}

fn unquoted(token: &str) -> String {
    let inner = token
        .strip_prefix('"')
        .and_then(|token| token.strip_suffix('"'));
    let Some(inner) = inner else {
        return token.to_owned();
    };
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some(c) => c,
                None => break,
            },
            c => c,
        });
    }
    text
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_replaced_in_place() {
        let file = "/* \"a\" = \"no\"; */\n\"a\\\"b\" = \"old\"; // note\nword=\"x;\" ;\n";
        assert_eq!(
            set(file.as_bytes(), "a\"b", "new \"one\"\n\\").unwrap(),
            "/* \"a\" = \"no\"; */\n\"a\\\"b\" = \"new \\\"one\\\"\\n\\\\\"; // note\nword=\"x;\" ;\n"
        );
        assert_eq!(set(b"word=\"x;\";", "word", "y").unwrap(), "word=\"y\";");
        assert_eq!(set(b"a=b;", "c", "d").unwrap(), "a=b;\n\"c\" = \"d\";\n");
        assert_eq!(set(b"", "c", "d").unwrap(), "\"c\" = \"d\";\n");
    }

    #[test]
    fn keys_are_removed_with_their_lines() {
        let file = b"/* one */\n\"a\" = \"1\";\n\"b\"=\"2\"; c=d;\n\"a\" = \"3\";";
        let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            remove(file, &keys(&["a", "z"])).as_deref(),
            Some("/* one */\n\"b\"=\"2\"; c=d;\n")
        );
        assert_eq!(
            remove(file, &keys(&["b"])).as_deref(),
            Some("/* one */\n\"a\" = \"1\";\n c=d;\n\"a\" = \"3\";")
        );
        assert_eq!(remove(file, &keys(&["z"])), None);
        assert_eq!(remove(b"\"a\" = ", &keys(&["a"])), None);
    }

    #[test]
    fn utf16_is_read_and_damage_is_refused() {
        let wide: Vec<u8> = "\u{feff}\"k\" = \"ä\";"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(set(&wide, "k", "ö").unwrap(), "\"k\" = \"ö\";");
        assert!(set(&wide[..5], "k", "ö").unwrap_err().contains("UTF-16"));
        assert!(set(b"\xff", "k", "v").unwrap_err().contains("UTF-8"));
        for damaged in ["\"a\" = \"b", "\"a\" \"b\";", "\"a\" = \"b\"", "/*", "=;"] {
            let error = set(damaged.as_bytes(), "k", "v").unwrap_err();
            assert!(error.contains("at line 1"), "{damaged}: {error}");
        }
    }
}
