//! Checks the target before the cases run. With a wrong URL, token or change command, most cases
//! would fail.

use std::time::{Duration, Instant};

use http::{Method, header};
use passkit_server::identifiers::Kind;

use super::{
    answer::Answer,
    archives::readable,
    case::ServiceCase,
    session::{ServiceRequest, Session},
    steps::random,
    target::Subject,
};
use crate::{Case, CaseResult, Level, Stop, wire::ListAnswer};

/// This case is not in the catalogue. It ends with an error if the target is wrong. The error says
/// how to fix the target.
pub(super) const PREFLIGHT: ServiceCase = ServiceCase {
    case: Case {
        id: "preflight",
        level: Level::Must,
        rules: &[],
        steps: "",
        consequence: "",
    },
    kind: Kind::Pass,
    run: |session| Box::pin(preflight(session)),
};

/// The preflight fetches at most this many passes and orders.
const LOOKED_AT: usize = 10;

/// Fails only if all passes have the same problem. The cases report problems of single passes, and
/// services that don't answer.
async fn preflight(session: &Session) -> CaseResult {
    let subjects: Vec<_> = session.everything().take(LOOKED_AT).collect();
    if subjects.is_empty() {
        return Ok(());
    }
    let mut answers = Vec::new();
    for subject in &subjects {
        let Ok(answer) = session.try_send(session.fetch_call(subject, None)).await? else {
            return Ok(());
        };
        answers.push(answer);
    }
    let all = |is: fn(&Answer) -> bool| answers.iter().all(is);
    if all(|answer| answer.status() == 200) {
        not_everything_is_200(session, subjects[0]).await?;
        return change_changes(session).await;
    }
    if all(|answer| (300..400).contains(&answer.status()) && answer.status() != 304) {
        return is_not_moved_to_https(session, &answers);
    }
    if all(|answer| matches!(answer.status(), 401 | 403 | 404)) {
        return is_found(session, &subjects, &answers).await;
    }
    Ok(())
}

fn wrong<T>(how_to_fix: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Error(how_to_fix.into()))
}

/// Fails if the service answers 200 to made-up requests. Static sites and single-page applications
/// do this.
async fn not_everything_is_200(session: &Session, subject: &Subject) -> CaseResult {
    let path = format!("/no-path-of-a-web-service-{}", random()?);
    let unknown = session.pass_path(&session.unknown(subject)?.pass);
    let calls = [
        ServiceRequest::new(Method::GET, &*path),
        ServiceRequest::new(Method::POST, &*path),
        ServiceRequest::new(Method::GET, unknown),
    ];
    for call in calls {
        match session.try_send(call).await? {
            Ok(answer) if answer.status() == 200 => {}
            _ => return Ok(()),
        }
    }
    wrong(format!(
        "{} answers 200 to everything, even to {path}; --url must name the web service, not a website",
        session.url()
    ))
}

fn is_not_moved_to_https(session: &Session, answers: &[Answer]) -> CaseResult {
    let Some(rest) = session.url().strip_prefix("http://") else {
        return Ok(());
    };
    let is_https = |answer: &Answer| {
        answer
            .header(header::LOCATION)
            .is_some_and(|to| to.starts_with("https://"))
    };
    if !answers.iter().all(is_https) {
        return Ok(());
    }
    let port = rest
        .split('/')
        .next()
        .is_some_and(|host| host.contains(':'));
    let port = if port { " (and its port)" } else { "" };
    wrong(format!(
        "the service redirects to HTTPS, which phones do not follow; use --url with https://{port} as the passes do"
    ))
}

/// Fails if the URL or the tokens are wrong. If the service wrongly refuses passes that it should
/// serve, the cases report it.
async fn is_found(session: &Session, subjects: &[&Subject], answers: &[Answer]) -> CaseResult {
    let url = session.url();
    if let Some(base) = url.strip_suffix("/v1") {
        return wrong(format!(
            "the url {url} ends in /v1, but phones append /v1 themselves; use --url {base}/"
        ));
    }
    // If a device can register, or if a fetch with capitals in the header names is accepted, the
    // URL and the tokens are right.
    for subject in subjects {
        let mut fetch = session.fetch_call(subject, None);
        fetch.with_capitals = true;
        if session.send(fetch).await?.status() == 200 {
            return Ok(());
        }
        let answer = session.register(&session.device()?, subject).await?;
        if matches!(answer.status(), 200 | 201) {
            return Ok(());
        }
    }
    let status = answers.first().map_or(0, Answer::status);
    if status == 404 {
        return wrong(format!(
            "{url} has none of the passes (status 404); check --url, which is the webServiceURL of the passes, and \
             the types and serial numbers in the target file"
        ));
    }
    wrong(format!(
        "the service refuses every token in the target file (status {status}); write the authenticationToken of each \
         pass there, and check the types and serial numbers"
    ))
}

/// If the content of a changed pass is still old, the preflight fetches it again after this time.
const SOON: Duration = Duration::from_millis(100);
/// A change that shows only after this time is not found.
const LATE: Duration = Duration::from_secs(5);

/// The preflight changes at most this many passes.
const CHANGED: usize = 3;

/// Changes passes, one after the other, until the service shows one of the changes. Fails if the
/// service shows none of them.
async fn change_changes(session: &Session) -> CaseResult {
    if session.can_change().is_err() {
        return Ok(());
    }
    let mut reason = None;
    for subject in session.everything().take(CHANGED) {
        match changes(session, subject).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                reason.get_or_insert_with(|| {
                    "change (or change_url) in the target file changes nothing, because the content and \
                     Last-Modified of the passes stay the same; change must publish new content \
                     before it returns"
                        .to_owned()
                });
            }
            Err(Stop::Error(failed)) => reason = Some(failed),
            // The cases report what the service does wrong.
            Err(_) => return Ok(()),
        }
    }
    reason.map_or(Ok(()), wrong)
}

/// Returns whether the service shows a change of the pass, in a fetch or in a list.
async fn changes(session: &Session, subject: &Subject) -> Result<bool, Stop> {
    let before = session.fetch(subject, None).await?;
    session.change(subject).await?;
    let start = Instant::now();
    loop {
        let asked = start.elapsed();
        let after = session.fetch(subject, None).await?;
        if !is_same(&before, &after) {
            // The first fetch may take any time, but its answer must have the change.
            if asked >= SOON {
                return wrong(format!(
                    "change (or change_url) in the target file returned about {asked:.1?} before phones could \
                     fetch the new content; let it wait longer, or set change_wait to a few seconds in the target file"
                ));
            }
            return Ok(true);
        }
        if start.elapsed() > LATE {
            break;
        }
        tokio::time::sleep(SOON).await;
    }
    // The service may list the change but serve old content. The cases report this fault.
    let (device, kind) = (session.device()?, subject.pass.type_id.kind());
    session.register(&device, subject).await?;
    let list = session.list(&device, &subject.pass.type_id, None).await?;
    let Some(tag) = ListAnswer::read(kind, list.body()).and_then(|list| list.tag) else {
        return Ok(false);
    };
    session.change(subject).await?;
    let list = session
        .list(&device, &subject.pass.type_id, Some(&tag))
        .await?;
    Ok(list.status() == 200)
}

fn is_same(before: &Answer, after: &Answer) -> bool {
    let same_content = match (readable(before), readable(after)) {
        (Some(before), Some(after)) => before.content_digest == after.content_digest,
        _ => before.body() == after.body(),
    };
    same_content
        && before.header(header::LAST_MODIFIED) == after.header(header::LAST_MODIFIED)
        && before.header(header::ETAG) == after.header(header::ETAG)
}
