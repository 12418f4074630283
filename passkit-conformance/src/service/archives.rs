//! Cases about the content of the archive. They need an archive that the kit can read.

use passkit_archive::{Archive, Report, Rules};

use super::{answer::Answer, case::catalogue, session::Session, target::Subject};
use crate::{CaseResult, Rule, Stop};

catalogue! {
    "get/is-the-pass-asked-for" Pass Must [GET_7] is_the_pass_asked_for,
        "Two passes of a type are fetched. Their archives must hold the right type and serial number.",
        "The phone drops the pass and reports it to the log, or shows a stranger's pass.";
    "get/holds-its-token" Pass Must [AUTH_6] holds_its_token,
        "A pass is fetched. Its authenticationToken must be the token of the fetch.",
        "The phone uses the new token from now on, and is refused. The pass is never updated again.";
    "get/unchanged-pass-is-the-same" Pass Must [GET_6] unchanged_pass_is_the_same,
        "A pass is fetched twice without a change in between. Both archives must have the same files.",
        "The phone treats each fetch as an update, and reports that its date was ignored.";
    "get/changed-pass-has-new-content" Pass Should [CON_1] changed_pass_has_new_content,
        "A pass is fetched, changed, and fetched again. The two archives must have different files.",
        "The phone fetches the update, but gets the old content with the new date. It does not ask again.";
    "get/is-a-signed-archive" Pass Advisory [ARCHIVE] is_a_signed_archive,
        "A pass is fetched. Its files, manifest and signature are checked as on a phone.",
        "The phone rejects the pass and keeps the old one. The case is for services that sign with real certificates.";
    "orders/is-the-order-asked-for" Order Must [ORD_1 GET_7] is_the_pass_asked_for,
        "Two orders of a type are fetched. Their archives must hold the right type and identifier.",
        "The phone drops the order, or shows a stranger's order.";
}

/// Rules for archives that the service under test may serve, such as unsigned ones. Only
/// `get/is-a-signed-archive` checks an archive as strictly as a phone does.
const LENIENT: Rules = Rules::development();

async fn fetched(session: &Session, subject: &Subject) -> Result<Answer, Stop> {
    let answer = session.fetch(subject, None).await?;
    answer.is(200, Rule::GET_9)?;
    Ok(answer)
}

/// Returns the archive in an answer, or `None` if it can't be read.
pub(super) fn readable(answer: &Answer) -> Option<Archive> {
    Report::of(answer.body(), LENIENT).archive
}

/// Returns the archive in an answer. If the answer has no archive, the case is skipped, because a
/// service under test may serve placeholders.
fn read(answer: &Answer) -> Result<Archive, Stop> {
    let report = Report::of(answer.body(), LENIENT);
    report.archive.ok_or_else(|| {
        let finding = report.findings.first().map(ToString::to_string);
        let finding = finding.unwrap_or_default();
        Stop::Skip(format!("needs a pass that can be read; {finding}"))
    })
}

async fn is_the_pass_asked_for(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    for subject in [one, two] {
        let answer = fetched(session, subject).await?;
        let found = read(&answer)?.id;
        if found != subject.pass {
            return Err(answer.violation(Rule::GET_7, subject.pass.to_string(), found.to_string()));
        }
    }
    Ok(())
}

async fn holds_its_token(session: &Session) -> CaseResult {
    let one = session.one()?;
    let answer = fetched(session, one).await?;
    let found = match &read(&answer)?.auth_token {
        Some(token) if token.as_str() == one.token.as_str() => return Ok(()),
        Some(_) => "another token",
        None => "none",
    };
    Err(answer.violation(
        Rule::AUTH_6,
        "the authenticationToken with which the pass was fetched",
        found,
    ))
}

async fn unchanged_pass_is_the_same(session: &Session) -> CaseResult {
    let one = session.one()?;
    let first = read(&fetched(session, one).await?)?;
    let answer = fetched(session, one).await?;
    if read(&answer)?.content_digest == first.content_digest {
        return Ok(());
    }
    let expected = "the same files as in the earlier archive, because the pass did not change";
    Err(answer.violation(
        Rule::GET_6,
        expected,
        "other files, or files with other content",
    ))
}

async fn changed_pass_has_new_content(session: &Session) -> CaseResult {
    session.can_change()?;
    let one = session.rested(1)?[0];
    let first = read(&fetched(session, one).await?)?;
    session.change(one).await?;
    let answer = fetched(session, one).await?;
    if read(&answer)?.content_digest != first.content_digest {
        return Ok(());
    }
    let expected = "a file with different content from before the change";
    Err(answer.violation(Rule::CON_1, expected, "the same files as before"))
}

async fn is_a_signed_archive(session: &Session) -> CaseResult {
    let answer = fetched(session, session.one()?).await?;
    let Err(findings) = Archive::check(answer.body(), Rules::strict()) else {
        return Ok(());
    };
    let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
    Err(answer.violation(
        Rule::ARCHIVE,
        "an archive that phones accept",
        findings.join("; "),
    ))
}
