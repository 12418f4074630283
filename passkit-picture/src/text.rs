//! Cleans and measures texts, and breaks them into lines.

/// Returns the text without characters that an SVG document can't have, or that change the direction
/// of other text. Line breaks stay. The text is cut after `most` characters.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let mut kept = text.chars().filter(|c| is_shown(*c));
    let mut cleaned: String = kept.by_ref().take(most).collect();
    if kept.next().is_some() {
        cleaned.push('…');
    }
    cleaned
}

fn is_shown(c: char) -> bool {
    let is_control = c.is_control() && c != '\n';
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_no_character = c as u32 & 0xfffe == 0xfffe;
    !is_control && !turns && !is_no_character
}

/// Returns the text on one line.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<&str> = words(text).collect();
    words.join(" ")
}

/// Splits a text at white space. A no-break space is part of a word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() && c != '\u{a0}');
    words.filter(|word| !word.is_empty())
}

/// Returns about how wide a text is in a font like Helvetica.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

/// Returns the width of a character, as a share of the font size.
fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.28,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '-' | '/' | '[' | ']' => 0.34,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 0.89,
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' => 0.0,
        // Chinese, Japanese, Korean, and pictographs.
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{ffef}' | '\u{1f000}'.. => 1.05,
        _ if c.is_uppercase() => 0.7,
        _ => 0.56,
    }
}

/// Returns the text and a font size so that it fits. A text that is too wide at `least` is cut.
pub(crate) fn fit(text: &str, size: f64, least: f64, room: f64) -> (String, f64) {
    let needed = width(text, size);
    if needed <= room {
        return (text.to_owned(), size);
    }
    let smaller = (size * room / needed).max(least);
    (cut(text, smaller, room), smaller)
}

/// Cuts a text that is too wide, and marks the cut.
fn cut(text: &str, size: f64, room: f64) -> String {
    // A text that was made smaller to fit may seem too wide by a rounding error.
    if width(text, size) <= room + 0.01 {
        return text.to_owned();
    }
    let mut left = room - width("…", size);
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            left -= advance(*c) * size;
            left >= 0.0
        })
        .collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

/// Breaks a text into at most `most` lines. The last line is cut.
pub(crate) fn lines(text: &str, size: f64, room: f64, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in words(paragraph).flat_map(|word| pieces(word, size, room)) {
            let longer = width(&line, size) + width(" ", size) + width(&word, size);
            if !line.is_empty() && longer > room {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
            if lines.len() > most {
                break;
            }
        }
        lines.push(line);
        if lines.len() > most {
            break;
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
    }
    lines
}

/// Splits a word that is wider than a line, such as a URL.
fn pieces(word: &str, size: f64, room: f64) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0.0;
    for c in word.chars() {
        used += advance(c) * size;
        if used > room {
            pieces.push(String::new());
            used = advance(c) * size;
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(c);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_xml_forbids_or_that_turn_text_are_left_out() {
        let text = "a\0b\u{1b}\u{202e}c\u{2067}d\u{fffe}\u{85}\te\nf";
        assert_eq!(clean(text, 99), "abcde\nf");
        assert_eq!(clean("abcdef", 3), "abc…");
        // These marks only help right-to-left text.
        assert_eq!(clean("\u{200f}א", 9), "\u{200f}א");
    }

    #[test]
    fn a_text_gets_smaller_and_then_shorter() {
        assert_eq!(fit("abc", 10.0, 5.0, 100.0), ("abc".into(), 10.0));
        let (text, size) = fit("aaaaaaaaaa", 10.0, 5.0, 40.0);
        assert_eq!(text, "aaaaaaaaaa");
        assert!(size < 10.0 && width(&text, size) < 40.1);
        let (text, size) = fit(&"a".repeat(100), 10.0, 5.0, 40.0);
        assert!(
            text.ends_with('…') && size == 5.0 && width(&text, size) <= 40.0,
            "{text}"
        );
    }

    #[test]
    fn lines_break_between_words_and_in_long_ones() {
        assert_eq!(
            lines("aaa bbb ccc\n\nd", 10.0, 40.0, 9),
            ["aaa bbb", "ccc", "", "d"]
        );
        assert_eq!(lines(&"a".repeat(20), 10.0, 60.0, 9).len(), 2);
        assert_eq!(lines(&"word ".repeat(10_000), 10.0, 60.0, 3).len(), 3);
        assert_eq!(lines(&"\n".repeat(10_000), 10.0, 60.0, 3).len(), 3);
    }
}
