//! Finds files and texts of Pass Designer's templates that do not belong in a pass.

use serde_json::Value;

use super::{Pass, text};
use crate::{
    finding::Finding,
    json::Step,
    keys, rules,
    walk::{Walk, excerpt},
};

/// The file in which Pass Designer keeps its settings.
const TOOLING: &str = "tooling.json";

/// Placeholder texts of templates, in lower case.
const PLACEHOLDERS: [&str; 9] = [
    "placeholder",
    "placeholder text",
    "sample",
    "sample text",
    "sample value",
    "value",
    "text",
    "todo",
    "lorem ipsum",
];

pub(crate) fn check<'a>(pass: &Pass<'a>, walk: &mut Walk<'a, '_>) {
    if pass.contents.has(TOOLING) {
        let message = "belongs to a Pass Designer template; leave it out";
        walk.add(Finding::in_file(&rules::TOOLING, TOOLING, message));
    }
    for style in keys::STYLES {
        let Some(groups) = pass.json.get(style.name).and_then(Value::as_object) else {
            continue;
        };
        walk.within(Step::Key(style.name), |walk| {
            for name in groups.keys() {
                walk.each(groups, name, |walk, field| {
                    if let Some(value) = text(field, "value").filter(|value| is_sample(value)) {
                        let value = excerpt(value);
                        let message =
                            format_args!("is {value}, a placeholder; write the value of this pass");
                        walk.report_key("value", &rules::SAMPLE, message);
                    }
                });
            }
        });
    }
}

/// Returns whether a value is a placeholder.
fn is_sample(value: &str) -> bool {
    let value = value.trim();
    let is = |other: &&str| value.eq_ignore_ascii_case(other);
    let starts = |start: &str| {
        value
            .get(..start.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(start))
    };
    PLACEHOLDERS.iter().any(is)
        || starts("lorem ipsum")
        || (value.starts_with("{{") && value.ends_with("}}"))
        || (value.starts_with("${") && value.ends_with('}'))
}

#[cfg(test)]
mod tests {
    use super::is_sample;

    #[test]
    fn placeholders_are_told_from_values() {
        for text in [
            "Value",
            " placeholder ",
            "Lorem ipsum dolor",
            "{{name}}",
            "${name}",
        ] {
            assert!(is_sample(text), "{text}");
        }
        for text in ["", "A12", "Values", "Free samples", "{", "ö"] {
            assert!(!is_sample(text), "{text}");
        }
    }
}
