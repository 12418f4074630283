//! The output of `check`: lines, JSON, or GitHub Actions annotations.

use passkit_archive::{Archive, Finding, Level};
use passkit_server::{identifiers::Kind, text::OneLine};
use serde_json::{Value, json};

use crate::failure::Failure;

/// The result of checking an archive.
pub(super) struct Checked {
    /// The path of the archive, as one line.
    pub(super) file: String,
    pub(super) archive: Option<Archive>,
    /// The findings, the worst first.
    pub(super) findings: Vec<Finding>,
}

fn kind(archive: &Archive) -> &'static str {
    match archive.kind() {
        Kind::Pass => "pass",
        Kind::Order => "order",
    }
}

impl Checked {
    /// Returns whether no finding is an error or worse.
    pub(super) fn is_good(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level() < Level::Error)
    }

    pub(super) fn print_text(&self) {
        let name = &self.file;
        if let (true, Some(archive)) = (self.is_good(), &self.archive) {
            let signed = if archive.signed { "signed" } else { "unsigned" };
            say!("{name}: good: {} {}, {signed}", kind(archive), archive.id);
        }
        for finding in &self.findings {
            let (level, code) = (finding.level(), finding.rule().code);
            say!("{name}: {level}: {finding} [{code}]");
        }
    }

    pub(super) fn print_github(&self) {
        for finding in &self.findings {
            let command = match finding.level() {
                Level::Refused | Level::Error => "error",
                Level::Warning => "warning",
                _ => "notice",
            };
            annotate(
                command,
                &self.file,
                finding.rule().code,
                &finding.to_string(),
            );
        }
    }

    fn to_json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            let position = finding.position();
            json!({
                "code": finding.rule().code,
                "level": finding.level().as_str(),
                "message": OneLine::of(finding.message()).to_string(),
                "file": finding.file().map(|file| OneLine::of(file).to_string()),
                "line": position.map(|position| position.line),
                "column": position.map(|position| position.column),
            })
        });
        let archive = self.archive.as_ref().map(|archive| {
            json!({
                "kind": kind(archive),
                "type": archive.id.type_id.as_str(),
                "serial": archive.id.serial.as_str(),
                "signed": archive.signed,
            })
        });
        json!({
            "file": self.file,
            "good": self.is_good(),
            "archive": archive,
            "findings": findings.collect::<Vec<_>>(),
        })
    }
}

/// Prints an annotation that says why a file could not be read.
pub(super) fn github_failure(file: &str, failure: &Failure) {
    annotate("error", file, "unreadable", &failure.to_string());
}

/// Prints an annotation. GitHub's runner splits annotations at some characters, so these characters
/// are escaped.
fn annotate(command: &str, file: &str, title: &str, message: &str) {
    let message = escaped(message);
    let file = escaped(file).replace(':', "%3A").replace(',', "%2C");
    say!("::{command} file={file},title={title}::{message}");
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The JSON document. It is printed after all files were checked.
#[derive(Default)]
pub(super) struct Json {
    archives: Vec<Value>,
    unreadable: Vec<Value>,
}

impl Json {
    pub(super) fn add(&mut self, checked: &Checked) {
        self.archives.push(checked.to_json());
    }

    pub(super) fn fail(&mut self, file: &str, failure: &Failure) {
        self.unreadable
            .push(json!({"file": file, "message": failure.to_string()}));
    }

    pub(super) fn print(self) {
        let Self {
            archives,
            unreadable,
        } = self;
        say!(
            "{:#}",
            json!({"archives": archives, "unreadable": unreadable})
        );
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn annotations_stay_on_one_line() {
        assert_eq!(escaped("50%\r\n::error::x"), "50%25%0D%0A::error::x");
    }
}
