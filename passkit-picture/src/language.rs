//! The language of a picture: translations, and how dates and numbers are written.

use std::collections::BTreeMap;

use jiff::civil::Date;
use passkit_archive::PassFiles;

/// The language of a picture.
pub(crate) struct Language {
    /// The name of the folder in the pass. `None` if the pass has no translations.
    pub(crate) folder: Option<String>,
    texts: BTreeMap<String, String>,
    /// The letters before the region, such as `de`.
    code: String,
}

impl Language {
    /// Chooses the folder as a phone does: the language itself, the language without its region,
    /// English, or else the first folder. Adds a note if the texts can't be read.
    pub(crate) fn choose(files: &PassFiles, wanted: Option<&str>, notes: &mut Vec<String>) -> Self {
        let wanted = wanted.unwrap_or("en");
        let wanted_code = code(wanted);
        let mut folders: Vec<&str> = files
            .names()
            .filter_map(|name| Some(name.split_once(".lproj/")?.0))
            .collect();
        folders.dedup();
        let named = |name: &str| {
            let name = name.replace('_', "-");
            let same = |folder: &&&str| folder.replace('_', "-").eq_ignore_ascii_case(&name);
            folders.iter().find(same).copied()
        };
        let related = || {
            folders
                .iter()
                .find(|folder| code(folder) == wanted_code)
                .copied()
        };
        let folder = named(wanted)
            .or_else(|| named(&wanted_code))
            .or_else(related)
            .or_else(|| named("en"))
            .or_else(|| named("Base"))
            .or_else(|| folders.first().copied());
        let texts = folder.and_then(|folder| files.texts(folder));
        let texts = match texts {
            Some(Ok(texts)) => texts,
            Some(Err(finding)) => {
                notes.push(format!("translations are left out: {finding}"));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        Self {
            folder: folder.map(str::to_owned),
            texts,
            code: wanted_code,
        }
    }

    /// Returns the translation of a text, or the text.
    pub(crate) fn translate<'a>(&'a self, text: &'a str) -> &'a str {
        self.texts.get(text).map_or(text, String::as_str)
    }

    /// Returns the separator of groups of digits, and the decimal separator.
    pub(crate) fn separators(&self) -> (char, char) {
        match &*self.code {
            "da" | "de" | "el" | "es" | "id" | "it" | "nl" | "pt" | "ro" | "tr" => ('.', ','),
            "bg" | "cs" | "fi" | "fr" | "hu" | "nb" | "no" | "pl" | "ru" | "sk" | "sv" | "uk" => {
                ('\u{a0}', ',')
            }
            _ => (',', '.'),
        }
    }

    /// Returns whether the sign of a currency stands before the amount.
    pub(crate) fn sign_is_first(&self) -> bool {
        self.separators() == (',', '.')
    }

    /// Returns whether hours are counted from 1 to 12.
    pub(crate) fn has_twelve_hours(&self) -> bool {
        self.code == "en"
    }

    pub(crate) fn date(&self, date: Date, length: Length) -> String {
        let (day, month, year) = (date.day(), date.month(), date.year());
        let (two, short_year) = (format!("{day:02}"), year.rem_euclid(100));
        let name = |names: [&'static str; 12]| {
            let index = usize::try_from(month - 1).unwrap_or_default();
            names.get(index).copied().unwrap_or_default()
        };
        let weekday = |names: [&'static str; 7]| {
            let index = date.weekday().to_monday_zero_offset();
            let index = usize::try_from(index).unwrap_or_default();
            names.get(index).copied().unwrap_or_default()
        };
        match (&*self.code, length) {
            ("en", Length::Short) => format!("{month}/{day}/{short_year:02}"),
            ("en", Length::Medium) => {
                let name: String = name(ENGLISH).chars().take(3).collect();
                format!("{name} {day}, {year}")
            }
            ("en", Length::Long) => format!("{} {day}, {year}", name(ENGLISH)),
            ("en", Length::Full) => {
                format!("{}, {} {day}, {year}", weekday(ENGLISH_DAYS), name(ENGLISH))
            }
            ("de", Length::Short) => format!("{two}.{month:02}.{short_year:02}"),
            ("de", Length::Medium) => format!("{two}.{month:02}.{year}"),
            ("de", Length::Long) => format!("{day}. {} {year}", name(GERMAN)),
            ("de", Length::Full) => {
                format!("{}, {day}. {} {year}", weekday(GERMAN_DAYS), name(GERMAN))
            }
            ("fr", Length::Long | Length::Medium) => format!("{day} {} {year}", name(FRENCH)),
            ("es", Length::Long | Length::Medium) => format!("{day} {} {year}", name(SPANISH)),
            ("fr" | "es" | "it" | "pt", _) => format!("{two}/{month:02}/{year}"),
            // This form is readable in every language.
            _ => format!("{year}-{month:02}-{two}"),
        }
    }
}

/// How much of a date is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Short,
    Medium,
    Long,
    Full,
}

/// Returns the letters before the region.
fn code(language: &str) -> String {
    let code = language.split(['-', '_']).next().unwrap_or_default();
    code.to_ascii_lowercase()
}

const ENGLISH: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ENGLISH_DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const GERMAN: [&str; 12] = [
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
];
const GERMAN_DAYS: [&str; 7] = [
    "Montag",
    "Dienstag",
    "Mittwoch",
    "Donnerstag",
    "Freitag",
    "Samstag",
    "Sonntag",
];
const FRENCH: [&str; 12] = [
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
];
const SPANISH: [&str; 12] = [
    "ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sept", "oct", "nov", "dic",
];
