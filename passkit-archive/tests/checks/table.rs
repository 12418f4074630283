//! Generates the tables of all codes and keys in the book.

use std::{fmt::Write as _, fs, path::Path};

use passkit_archive::{RULES, keys};

const BEGIN: &str = "<!-- codes: generated -->\n";
const END: &str = "<!-- end of codes -->\n";

#[test]
fn codes_table_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/checking.md");
    let written = fs::read_to_string(&path).unwrap();
    let (before, rest) = written.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let current = format!("{before}{BEGIN}{}{END}{after}", codes());
    if std::env::var_os("PASSKIT_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == current,
        "docs/checking.md is out of date; generate it with: PASSKIT_BLESS=1 cargo test -p passkit-archive codes_table"
    );
}

#[test]
fn keys_table_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pass-keys.md");
    let current = keys_page();
    if std::env::var_os("PASSKIT_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == current,
        "docs/pass-keys.md is out of date; generate it with: PASSKIT_BLESS=1 cargo test -p passkit-archive keys_table"
    );
}

fn codes() -> String {
    let mut text = String::new();
    let mut area = None;
    for rule in RULES {
        if area != Some(rule.area) {
            area = Some(rule.area);
            let _ = write!(
                text,
                "\n### {}\n\n| code | level | what it means | how to fix it |\n|---|---|---|---|\n",
                rule.area.as_str()
            );
        }
        let (meaning, fix) = (cell(rule.meaning), cell(rule.fix));
        let _ = writeln!(
            text,
            "| [`{}`]({}) | {} | {meaning} | {fix} |",
            rule.code, rule.source, rule.level
        );
    }
    text.push('\n');
    text
}

fn keys_page() -> String {
    let mut text = String::from(
        "# The keys of a pass\n\n\
         Generated from the table of keys in `passkit-archive` by `PASSKIT_BLESS=1 cargo test -p passkit-archive keys_table`.\n\
         [Checking archives](checking.md) says what is checked. Apple's pages explain the keys:\n\
         [Pass](https://developer.apple.com/documentation/walletpasses/pass).\n",
    );
    for (heading, keys) in [
        ("pass.json", keys::PASS),
        ("Styles", keys::STYLES),
        ("In a style", keys::STYLE),
        ("A field", keys::FIELD),
        ("A barcode", keys::BARCODE),
        ("An entry of relevantDates", keys::RELEVANT_DATE),
        ("An entry of locations", keys::LOCATION),
        ("An entry of beacons", keys::BEACON),
        ("nfc", keys::NFC),
        ("An entry of featuredActions", keys::FEATURED_ACTION),
        ("An entry of upcomingPassInformation", keys::UPCOMING),
        ("Semantic tags", keys::SEMANTICS),
        ("personalization.json", keys::PERSONALIZATION),
    ] {
        let _ = write!(
            text,
            "\n## {heading}\n\n| key | value | styles | note |\n|---|---|---|---|\n"
        );
        for key in keys {
            let styles: Vec<&str> = key.styles.names().collect();
            let all = keys::Styles::ALL.names().count();
            let styles = if styles.len() == all {
                "all".to_owned()
            } else {
                styles.join(", ")
            };
            let notes: Vec<String> = [
                key.is_required().then(|| "required".to_owned()),
                key.since.map(|system| format!("since {system}")),
                key.deprecated.map(|newer| format!("replaced by `{newer}`")),
            ]
            .into_iter()
            .flatten()
            .collect();
            let (name, shape, notes) = (key.name, shape(&key.shape), notes.join(", "));
            let _ = writeln!(text, "| `{name}` | {shape} | {styles} | {notes} |");
        }
    }
    text
}

fn shape(shape: &keys::Shape) -> String {
    use keys::Shape;
    match shape {
        Shape::Any => "any".into(),
        Shape::Text => "string".into(),
        Shape::Number => "number".into(),
        Shape::Bool => "true or false".into(),
        Shape::One => "the number 1".into(),
        Shape::Value => "string or number".into(),
        Shape::Date => "date".into(),
        Shape::Color => "colour".into(),
        Shape::Choice(choices) => format!("`{}`", choices.join("`, `")),
        Shape::Currency => "ISO 4217 currency".into(),
        Shape::Object(_) => "object".into(),
        Shape::List(inner) => format!("array of: {}", self::shape(inner)),
        other => panic!("{other:?}"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
