//! Responses and their common headers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_LENGTH};

use crate::body::ResponseBody;

/// A response without a body. 204 and 304 never have a `Content-Length`.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = status;
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        answer
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    answer
}

pub(crate) fn with_body(status: StatusCode, body: Bytes) -> Response<ResponseBody> {
    let length = HeaderValue::from(body.len());
    let mut answer = Response::new(ResponseBody::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_LENGTH, length);
    answer
}
