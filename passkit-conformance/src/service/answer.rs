use http::{Method, header};
use passkit_server::identifiers::{Kind, SerialNumber};

use crate::{
    CaseResult, Rule, Stop, Violation,
    message::Response,
    secrets::Secrets,
    wire::{ListAnswer, is_imf_fixdate, media_type_remark, shortened},
};

/// An answer of the service, with checks for any kind of answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    method: Method,
    response: Response,
    secrets: Secrets,
    /// A description of the request. Cases that send several requests set it.
    about: String,
    /// Whether a phone would send the same request, with the right authentication token.
    is_authorized: bool,
}

/// A parsed list.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The serial numbers, sorted.
    pub(crate) serials: Vec<SerialNumber>,
    pub(crate) tag: String,
}

impl Answer {
    pub(crate) fn new(method: Method, response: Response, secrets: Secrets) -> Self {
        Self {
            method,
            response,
            secrets,
            about: String::new(),
            is_authorized: false,
        }
    }

    /// Adds a description of the request, which violations show.
    pub(crate) fn about(mut self, what: impl Into<String>) -> Self {
        self.about = what.into();
        self
    }

    /// Declares that a phone would send the same request, with the right authentication token. An
    /// unexpected 401 then breaks [`Rule::AUTH_1`].
    pub(crate) fn authorized(mut self) -> Self {
        self.is_authorized = true;
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status.as_u16()
    }

    /// Returns the value of a header. Violations show it, unless the caller hides it.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<String> {
        self.response
            .headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// Makes a violation of `rule`. Secrets are removed from `actual`, and long texts are cut.
    pub(crate) fn violation(
        &self,
        rule: Rule,
        expected: impl Into<String>,
        actual: impl AsRef<str>,
    ) -> Stop {
        let expected = match (expected.into(), &*self.about) {
            (expected, "") => expected,
            (expected, about) => format!("{expected} in answer to {about}"),
        };
        // Secrets are hidden before the cut, because a cut secret would not be found.
        let actual = shortened(self.secrets.hide(actual.as_ref()));
        Violation::new(rule, shortened(expected), actual).into()
    }

    /// Expects a status, under `rule`. Some faults are reported under another rule: an unexpected
    /// redirect ([`Rule::HTTP_5`]), a body with 204 or 304, and a wrong challenge with 401.
    pub(crate) fn is(&self, status: u16, rule: Rule) -> CaseResult {
        self.is_one_of(&[status], rule)
    }

    /// Expects one of several statuses, with the same checks as [`is`](Self::is).
    pub(crate) fn is_one_of(&self, statuses: &[u16], rule: Rule) -> CaseResult {
        let status = self.status();
        let expected = statuses
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(" or ");
        if !statuses.contains(&status) {
            let rule = match status {
                301..=303 | 307 | 308 => Rule::HTTP_5,
                401 | 403 if self.is_authorized => Rule::AUTH_1,
                _ => rule,
            };
            return Err(self.violation(
                rule,
                format!("status {expected}"),
                format!("status {status}"),
            ));
        }
        if matches!(status, 204 | 304) && !self.body().is_empty() {
            let actual = format!("{} bytes", self.body().len());
            return Err(self.violation(
                Rule::HTTP_8,
                format!("no body with status {status}"),
                actual,
            ));
        }
        if status == 401 {
            let challenges = self.response.headers.get_all(header::WWW_AUTHENTICATE);
            for challenge in challenges {
                let text = String::from_utf8_lossy(challenge.as_bytes()).into_owned();
                let scheme = text
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                if ["basic", "digest", "bearer", "negotiate", "ntlm"].contains(&scheme.as_str()) {
                    let expected = "WWW-Authenticate: ApplePass (or AppleOrder), or none";
                    return Err(self.violation(
                        Rule::HTTP_12,
                        expected,
                        format!("WWW-Authenticate: {text}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Expects a status from 400 to 499. With such a status, the service refuses the request. A
    /// status of 500 or more means that the service failed.
    pub(crate) fn is_client_error(&self, rule: Rule) -> CaseResult {
        match self.status() {
            400..500 => Ok(()),
            status => {
                Err(self.violation(rule, "a status from 400 to 499", format!("status {status}")))
            }
        }
    }

    /// Expects status 200 or 204. Any other status of a list breaks [`Rule::LIST_1`], whichever
    /// rule the case is about.
    pub(crate) fn is_list(&self) -> CaseResult {
        self.is_list_with(&[200, 204], Rule::LIST_1)
    }

    /// Expects one of several statuses of a list. For an unusual request, `rule` is the rule about
    /// such requests.
    pub(crate) fn is_list_with(&self, statuses: &[u16], rule: Rule) -> CaseResult {
        match self.status() {
            401 | 403 => self.is_one_of(statuses, Rule::LIST_12),
            _ => self.is_one_of(statuses, rule),
        }
    }

    /// Expects an empty list for a device without registrations of the type. If passes are listed,
    /// `rule` is broken. If the list is empty without status 204, [`Rule::LIST_7`] is broken. Any
    /// other status breaks [`Rule::LIST_8`], because the service then refuses an unknown device.
    pub(crate) fn lists_nothing(&self, kind: Kind, rule: Rule) -> CaseResult {
        self.is_list_with(&[200, 204], Rule::LIST_8)?;
        let is_empty =
            ListAnswer::read(kind, self.body()).is_some_and(|one| one.serials.is_empty());
        self.is(204, if is_empty { Rule::LIST_7 } else { rule })
    }

    /// Expects a list of `kind` with a tag: status 200 and the right shape.
    pub(crate) fn listed(&self, kind: Kind) -> Result<Listed, Stop> {
        self.is_list()?;
        let (serials, tag) = (kind.serials_key(), kind.tag_key());
        let shape_rule = match kind {
            Kind::Pass => Rule::LIST_4,
            Kind::Order => Rule::ORD_2,
        };
        if self.status() == 204 {
            return Err(self.violation(Rule::LIST_1, "status 200 and a list", "status 204"));
        }
        self.is(200, Rule::LIST_1)?;
        let shape = format!("an object with {serials}, a list of strings, and {tag}, a string");
        let shown =
            String::from_utf8_lossy(&self.body()[..self.body().len().min(300)]).into_owned();
        let Some(list) = ListAnswer::read(kind, self.body()) else {
            return Err(self.violation(shape_rule, shape, shown));
        };
        let Some(read_tag) = list.tag else {
            return Err(self.violation(shape_rule, shape, shown));
        };
        if list.serials.is_empty() {
            return Err(self.violation(
                Rule::LIST_7,
                "status 204, because there is nothing to list",
                shown,
            ));
        }
        if let Some(remark) = list.remarks.first() {
            return Err(self.violation(Rule::LIST_11, "each serial number once", remark));
        }
        let mut serials = list.serials;
        serials.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(Listed {
            serials,
            tag: read_tag,
        })
    }

    /// Expects one of several media types. The first is preferred.
    pub(crate) fn media_type(&self, expected: &[&str], rule: Rule) -> CaseResult {
        match media_type_remark(&self.response.headers, expected) {
            None => Ok(()),
            Some(remark) => Err(self.violation(
                rule,
                format!("content-type {}", expected.join(" or ")),
                remark,
            )),
        }
    }

    /// Expects status 200 and an archive. Returns its `Last-Modified`.
    pub(crate) fn archive(&self) -> Result<String, Stop> {
        self.is(200, Rule::GET_9)?;
        if self.method != Method::HEAD && self.body().is_empty() {
            return Err(self.violation(Rule::ARCHIVE, "an archive", "an empty body"));
        }
        self.last_modified()
    }

    /// Expects a `Last-Modified` in the form that HTTP prescribes, and returns it.
    pub(crate) fn last_modified(&self) -> Result<String, Stop> {
        let Some(date) = self.header(header::LAST_MODIFIED) else {
            return Err(self.violation(Rule::GET_1, "a Last-Modified header", "none"));
        };
        if !is_imf_fixdate(&date) {
            let expected = "Last-Modified such as 'Fri, 18 Sep 2026 08:00:41 GMT'";
            return Err(self.violation(Rule::GET_1, expected, format!("'{date}'")));
        }
        Ok(date)
    }
}
