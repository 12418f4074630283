//! The templates of the pages, in `templates/page`. They escape everything.

use askama::Template;
use http::StatusCode;

use super::{answer::Answer, request::Refusal};

/// A line of a table: a name and a value.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether somebody should do something about it.
    pub(super) is_bad: bool,
}

impl Line {
    pub(super) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            is_bad: false,
        }
    }

    pub(super) fn bad_if(self, is_bad: bool) -> Self {
        Self { is_bad, ..self }
    }
}

/// A link to a pass.
pub(super) struct PassLink {
    pub(super) query: String,
    pub(super) type_id: String,
    pub(super) serial: String,
}

#[derive(Template)]
#[template(path = "page/sign-in.html")]
struct SignIn<'a> {
    problem: &'a str,
    signed_in: bool,
    search: &'a str,
}

#[derive(Template)]
#[template(path = "page/problem.html")]
struct Problem<'a> {
    title: &'a str,
    text: &'a str,
    signed_in: bool,
    search: &'a str,
}

#[derive(Template)]
#[template(path = "page/overview.html")]
pub(super) struct Overview {
    pub(super) problems: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) service: Vec<Line>,
    pub(super) pending: Vec<Line>,
    pub(super) certificates: Vec<Line>,
    pub(super) refusals: Vec<Line>,
    pub(super) complaints: Vec<Line>,
    pub(super) pushes: Vec<Line>,
    pub(super) keeps_records: bool,
    pub(super) now: String,
    pub(super) signed_in: bool,
    pub(super) search: String,
}

#[derive(Template)]
#[template(path = "page/search.html")]
pub(super) struct Found {
    pub(super) passes: Vec<PassLink>,
    pub(super) advice: &'static str,
    pub(super) signed_in: bool,
    pub(super) search: String,
}

/// A phone of a pass.
pub(super) struct PhoneLine {
    pub(super) name: String,
    pub(super) registered: String,
    pub(super) asked: String,
    pub(super) told: &'static str,
    pub(super) sentence: String,
    pub(super) is_bad: bool,
}

/// An entry of the timeline.
pub(super) struct TimeLine {
    pub(super) at: String,
    pub(super) text: String,
}

#[derive(Template)]
#[template(path = "page/pass.html")]
pub(super) struct PassView {
    pub(super) pass: PassLink,
    pub(super) done: &'static str,
    pub(super) answer: String,
    pub(super) is_bad: bool,
    pub(super) facts: Vec<Line>,
    pub(super) phones: Vec<PhoneLine>,
    /// How many of the phones are shown.
    pub(super) shown: String,
    /// The address of the page with the next phones.
    pub(super) next: Option<String>,
    pub(super) timeline: Vec<TimeLine>,
    /// Whether there is an archive.
    pub(super) has_archive: bool,
    pub(super) has_picture: bool,
    pub(super) now: String,
    pub(super) signed_in: bool,
    pub(super) search: String,
}

#[derive(Template)]
#[template(path = "page/confirm.html")]
pub(super) struct Confirm {
    pub(super) pass: PassLink,
    pub(super) path: String,
    pub(super) title: &'static str,
    pub(super) text: String,
    pub(super) button: &'static str,
    pub(super) signed_in: bool,
    pub(super) search: String,
}

/// Makes an answer from a template.
pub(super) fn page(template: &impl Template) -> Answer {
    match template.render() {
        Ok(html) => Answer::html(html),
        // Writing to a string fails only if a value can't be written.
        Err(error) => {
            tracing::error!("can't make a page: {error}");
            Answer::html(String::new()).status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

pub(super) fn sign_in(problem: &str) -> Answer {
    page(&SignIn {
        problem,
        signed_in: false,
        search: "",
    })
}

/// Says why a request has no page.
pub(super) fn problem(refusal: &Refusal, signed_in: bool) -> Answer {
    let (status, title, text) = match refusal {
        Refusal::SignedOut => (
            StatusCode::FORBIDDEN,
            "Not signed in",
            "Sign in with the admin token.",
        ),
        Refusal::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            "Not possible",
            "This address can only be read.",
        ),
        Refusal::NotFound => (
            StatusCode::NOT_FOUND,
            "No such page",
            "There is no page at this address.",
        ),
        Refusal::NoPass => (
            StatusCode::BAD_REQUEST,
            "No such pass",
            "The address does not name a pass: its type or its serial number is missing or impossible.",
        ),
        Refusal::Origin => (
            StatusCode::FORBIDDEN,
            "Refused",
            "The request does not come from this page. If a proxy is in front, it must pass on Host, or set X-Forwarded-Host.",
        ),
        Refusal::TooManyTokens => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many attempts",
            "There were five wrong tokens from your address within a minute. Wait a minute and try again.",
        ),
        Refusal::Malformed => (
            StatusCode::BAD_REQUEST,
            "Refused",
            "The form could not be read. Send it again.",
        ),
        Refusal::Store => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The store does not answer",
            "The registrations can't be read now, so phones get no answers either. The log has the reason.",
        ),
        Refusal::NoArchive => (
            StatusCode::NOT_FOUND,
            "No archive",
            "This instance has no archive of the pass, or it can't be read now. The log has the reason.",
        ),
        Refusal::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Busy",
            "Too many pages are asked for at once. Try again in a few seconds.",
        ),
        Refusal::Failed => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong",
            "The log has the reason.",
        ),
    };
    let answer = page(&Problem {
        title,
        text,
        signed_in,
        search: "",
    });
    let answer = answer.status(status);
    match refusal {
        Refusal::TooManyTokens => answer.retry_after(60),
        Refusal::Store | Refusal::Busy => answer.retry_after(10),
        _ => answer,
    }
}
