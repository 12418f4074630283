//! `check --explain`: what the codes of findings mean.

use passkit_archive::{RULES, Rule};
use passkit_server::text::OneLine;

use crate::failure::Failure;

/// The longest code that is compared with the known codes, in bytes.
const MAX_COMPARED: usize = 40;

/// Prints the explanation of a code, or the list of all codes.
pub(super) fn explain(code: &str) -> Result<(), Failure> {
    if code == "all" {
        for rule in RULES {
            say!("{:<22} {:<8} {}", rule.code, rule.level, rule.meaning);
        }
        return Ok(());
    }
    let Some(rule) = Rule::of(code) else {
        let near = if code.len() <= MAX_COMPARED {
            Rule::nearest(code)
        } else {
            Vec::new()
        };
        let advice = match near.first() {
            Some(near) => format!("did you mean {near}?"),
            None => "`passkit check --explain all` lists all codes".to_owned(),
        };
        let code = OneLine::of(code);
        return Err(Failure::new(format!(
            "there is no code \"{code}\"; {advice}"
        )));
    };
    say!("{} ({})\n", rule.code, rule.level);
    say!("{}\n", rule.meaning);
    say!("How to fix it: {}", rule.fix);
    say!("Read more:     {}", rule.source);
    Ok(())
}
