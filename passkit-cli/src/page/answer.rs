//! Answers, with the headers that all of them have.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
    },
};
use passkit_server::service::ResponseBody;

use super::session;

/// A page loads everything from its own host. Inline scripts, inline styles and frames are
/// forbidden.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// A picture may be opened as a page. It has embedded images, and nothing else.
const PICTURE_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; img-src data:; frame-ancestors 'none'; sandbox");

pub(super) struct Answer(Response<ResponseBody>);

impl From<Answer> for Response<ResponseBody> {
    fn from(answer: Answer) -> Self {
        answer.0
    }
}

impl Answer {
    fn new(media_type: &'static str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = HeaderValue::from(body.len());
        let answer = Self(Response::new(ResponseBody::from(body)));
        answer
            .header(CONTENT_LENGTH, length)
            .header(CONTENT_TYPE, HeaderValue::from_static(media_type))
            .header(CONTENT_SECURITY_POLICY, POLICY)
            .header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
            // With `no-referrer`, a browser would not send the origin of a form.
            .header(REFERRER_POLICY, HeaderValue::from_static("same-origin"))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
            .header(
                HeaderName::from_static("cross-origin-opener-policy"),
                HeaderValue::from_static("same-origin"),
            )
            .header(
                HeaderName::from_static("cross-origin-resource-policy"),
                HeaderValue::from_static("same-origin"),
            )
    }

    pub(super) fn html(body: String) -> Self {
        Self::new("text/html; charset=utf-8", body)
    }

    pub(super) fn picture(svg: String) -> Self {
        Self::new("image/svg+xml", svg).header(CONTENT_SECURITY_POLICY, PICTURE_POLICY)
    }

    /// A file to keep.
    pub(super) fn file(media_type: &'static str, name: &str, body: Bytes) -> Self {
        let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        let attachment = HeaderValue::from_static("attachment");
        Self::new(media_type, body).header(CONTENT_DISPOSITION, disposition.unwrap_or(attachment))
    }

    /// Sends the browser to another page. `to` is a path.
    pub(super) fn see_other(to: &str) -> Self {
        let root = HeaderValue::from_static("/");
        Self::new("text/plain", Bytes::new())
            .status(StatusCode::SEE_OTHER)
            .header(LOCATION, HeaderValue::try_from(to).unwrap_or(root))
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    pub(super) fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(super) fn with_session(self, session: &session::Id, is_secure: bool) -> Self {
        self.cookie(&session.to_cookie(), "", is_secure)
    }

    pub(super) fn without_session(self, is_secure: bool) -> Self {
        self.cookie("", "; Max-Age=0", is_secure)
    }

    fn cookie(self, value: &str, more: &str, is_secure: bool) -> Self {
        let name = session::cookie_name(is_secure);
        let secure = if is_secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}");
        match HeaderValue::try_from(cookie) {
            Ok(cookie) => self.header(SET_COOKIE, cookie),
            Err(_) => self,
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }
}

pub(super) fn style() -> Answer {
    Answer::new("text/css", include_str!("style.css"))
}

pub(super) fn script() -> Answer {
    Answer::new("text/javascript", include_str!("live.js"))
}

pub(super) fn nothing() -> Answer {
    Answer::new("image/png", Bytes::new()).status(StatusCode::NO_CONTENT)
}
