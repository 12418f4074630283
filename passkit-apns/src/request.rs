use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Uri,
    header::AUTHORIZATION,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::Full;
use passkit_server::identifiers::{PushToken, TypeIdentifier};

use crate::Profile;

/// The payload of every push, which only says that something changed.
const PAYLOAD: &[u8] = b"{}";

/// Makes requests for pushes.
pub(crate) struct Requests {
    pub(crate) authority: Authority,
    pub(crate) profile: Profile,
    pub(crate) expiration: Duration,
}

impl Requests {
    pub(crate) fn push(
        &self,
        topic: &TypeIdentifier,
        token: &PushToken,
        authorization: Option<&HeaderValue>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(format!(
                "/3/device/{}",
                token.as_str()
            ))?)
            .build()?;
        let mut request = Request::post(uri).body(Full::new(Bytes::from_static(PAYLOAD)))?;
        let headers = request.headers_mut();
        headers.reserve(6);
        headers.insert(
            HeaderName::from_static("apns-topic"),
            HeaderValue::from_str(topic.as_str())?,
        );
        let priority = match self.profile {
            Profile::Background => {
                let background = HeaderValue::from_static("background");
                headers.insert(HeaderName::from_static("apns-push-type"), background);
                "5"
            }
            Profile::Plain => "10",
        };
        headers.insert(
            HeaderName::from_static("apns-priority"),
            HeaderValue::from_static(priority),
        );
        let expiration = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            + self.expiration;
        headers.insert(
            HeaderName::from_static("apns-expiration"),
            expiration.as_secs().into(),
        );
        // If a push has no id, APNs makes one.
        if let Some(id) = uuid() {
            let mut id = HeaderValue::from_str(&id)?;
            // No id occurs twice, so it should not take space in the header table.
            id.set_sensitive(true);
            headers.insert(HeaderName::from_static("apns-id"), id);
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

/// Returns a random UUID (version 4) in lower case.
pub(crate) fn uuid() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend(
            [byte >> 4, byte & 0x0f]
                .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid() {
        let id = uuid().unwrap();
        assert_eq!(id.len(), 36);
        assert!(id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            14 => byte == b'4',
            19 => b"89ab".contains(&byte),
            _ => b"0123456789abcdef".contains(&byte),
        }));
        assert_ne!(id, uuid().unwrap());
    }
}
