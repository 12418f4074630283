//! Generates CASES.md, the table of all cases and rules.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use passkit_conformance::{Case, Rule, service, store};

#[test]
fn cases_table_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CASES.md");
    let current = table();
    if std::env::var_os("PASSKIT_BLESS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "CASES.md is out of date; generate it with: PASSKIT_BLESS=1 cargo test -p passkit-conformance cases_table"
    );
}

fn table() -> String {
    let service: Vec<Case> = service::cases().iter().map(|one| one.case).collect();
    let store: Vec<Case> = store::cases().iter().map(|one| one.case).collect();
    let mut text = String::from(
        "# All cases and rules\n\n\
         Generated from the catalogues by `PASSKIT_BLESS=1 cargo test -p passkit-conformance cases_table`.\n",
    );
    for (heading, cases) in [
        ("Cases of a web service", service),
        ("Cases of a store", store),
    ] {
        let _ = write!(text, "\n## {heading}: {}\n", cases.len());
        let mut endpoints: Vec<(&str, Vec<&Case>)> = Vec::new();
        for case in &cases {
            match endpoints
                .iter_mut()
                .find(|(name, _)| *name == case.endpoint())
            {
                Some((_, list)) => list.push(case),
                None => endpoints.push((case.endpoint(), vec![case])),
            }
        }
        for (endpoint, cases) in endpoints {
            let _ = write!(text, "\n### {endpoint}\n\n");
            text.push_str(
                "| case | level | rules | steps | if it fails |\n|---|---|---|---|---|\n",
            );
            for Case {
                id,
                level,
                rules,
                steps,
                consequence,
                ..
            } in cases
            {
                let rules: Vec<_> = rules.iter().map(|rule| rule.id()).collect();
                let (rules, steps, consequence) =
                    (rules.join(", "), cell(steps), cell(consequence));
                let _ = writeln!(
                    text,
                    "| `{id}` | {level} | {rules} | {steps} | {consequence} |"
                );
            }
        }
    }
    let mut sources: BTreeMap<usize, (&str, Vec<&Rule>)> = BTreeMap::new();
    for rule in Rule::ALL {
        let first = Rule::ALL
            .iter()
            .position(|other| other.source() == rule.source())
            .unwrap();
        sources
            .entry(first)
            .or_insert((rule.source(), Vec::new()))
            .1
            .push(rule);
    }
    let _ = write!(text, "\n## Rules: {}\n", Rule::ALL.len());
    for (source, rules) in sources.into_values() {
        let _ = write!(
            text,
            "\n### From: {source}\n\n| rule | says | how to keep it |\n|---|---|---|\n"
        );
        for rule in rules {
            let (says, fix, link) = (cell(rule.sentence()), cell(rule.fix()), rule.link());
            let _ = writeln!(text, "| [{rule}]({link}) | {says} | {fix} |");
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('\n', " ")
}
