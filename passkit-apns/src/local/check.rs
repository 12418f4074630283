use std::{
    collections::HashMap,
    sync::{
        RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderMap, Method, request::Parts};

/// The known device tokens. The key is the token in lower case. The value is the token as it was
/// added.
#[derive(Default)]
pub(crate) struct KnownTokens {
    any: AtomicBool,
    tokens: RwLock<HashMap<String, String>>,
}

impl KnownTokens {
    pub(crate) fn add(&self, token: &str) {
        if let Ok(mut tokens) = self.tokens.write() {
            tokens.insert(token.to_ascii_lowercase(), token.into());
        }
        self.any.store(true, Ordering::Release);
    }

    fn check(&self, token: &str) -> Option<Fault> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let tokens = self.tokens.read().ok()?;
        match tokens.get(&token.to_ascii_lowercase()) {
            None => Some(Fault::without_violation(400, "BadDeviceToken")),
            Some(known) if known != token => Some(Fault::new(
                400,
                "BadDeviceToken",
                "the device token differs in upper and lower case",
            )),
            Some(_) => None,
        }
    }
}

/// A fault of a request, and the answer that APNs would give.
pub(crate) struct Fault {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    /// What the sender must fix. `None` if the sender did nothing wrong.
    pub(crate) violation: Option<String>,
}

impl Fault {
    pub(crate) fn new(status: u16, reason: &'static str, violation: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            violation: Some(violation.into()),
        }
    }

    pub(crate) fn without_violation(status: u16, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            violation: None,
        }
    }
}

/// Returns the device token in the path.
pub(crate) fn token(head: &Parts) -> Option<&str> {
    head.uri
        .path()
        .strip_prefix("/3/device/")
        .filter(|token| !token.contains('/'))
}

/// Returns the first fault of a request, if it has one. `certified` has the types that the client's
/// certificate names.
pub(crate) fn fault(
    head: &Parts,
    body: &[u8],
    certified: Option<&[String]>,
    known: &KnownTokens,
) -> Option<Fault> {
    if head.method != Method::POST {
        return Some(Fault::new(
            405,
            "MethodNotAllowed",
            format!("the method is {}, not POST", head.method),
        ));
    }
    let Some(token) = token(head) else {
        return Some(Fault::new(
            404,
            "BadPath",
            "the path is not /3/device/ with a token",
        ));
    };
    if token.is_empty() {
        return Some(Fault::new(
            400,
            "MissingDeviceToken",
            "there is no device token in the path",
        ));
    }
    let hex = token.len() % 2 == 0 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex {
        return Some(Fault::new(
            400,
            "BadDeviceToken",
            "the device token is not hexadecimal",
        ));
    }
    topic(&head.headers, certified)
        .or_else(|| headers(&head.headers))
        .or_else(|| payload(body))
        .or_else(|| known.check(token))
}

fn topic(headers: &HeaderMap, certified: Option<&[String]>) -> Option<Fault> {
    let Some(topic) = text(headers, "apns-topic") else {
        return Some(Fault::new(400, "MissingTopic", "there is no apns-topic"));
    };
    let certified = certified?;
    (!certified.iter().any(|one| one == topic)).then(|| {
        let certified = certified.join(", ");
        Fault::new(
            400,
            "TopicDisallowed",
            format!("apns-topic is {topic}, but the certificate is for {certified}"),
        )
    })
}

fn headers(headers: &HeaderMap) -> Option<Fault> {
    match (
        text(headers, "apns-push-type"),
        text(headers, "apns-priority"),
    ) {
        (Some("background"), Some("5")) | (None, None | Some("10")) => {}
        (Some("background"), other) => {
            let other = other.unwrap_or("missing, so 10");
            return Some(Fault::new(
                400,
                "BadPriority",
                format!("a background push has the priority {other}, not 5"),
            ));
        }
        (Some(other), _) => {
            return Some(Fault::new(
                400,
                "InvalidPushType",
                format!("the push type is {other}, not background"),
            ));
        }
        (None, Some(other)) => {
            return Some(Fault::new(
                400,
                "BadPriority",
                format!("without a push type, the priority is {other}, not 10"),
            ));
        }
    }
    match text(headers, "apns-expiration").map(str::parse::<u64>) {
        Some(Ok(1..)) => {}
        Some(Ok(0)) => {
            let violation = "apns-expiration is 0: a phone that is offline never gets the push";
            return Some(Fault::new(400, "BadExpirationDate", violation));
        }
        _ => {
            return Some(Fault::new(
                400,
                "BadExpirationDate",
                "apns-expiration is missing or not a number",
            ));
        }
    }
    let id = text(headers, "apns-id").unwrap_or_default();
    (!is_lowercase_uuid(id)).then(|| {
        Fault::new(
            400,
            "BadMessageId",
            "apns-id is missing or not a UUID in lower case",
        )
    })
}

fn payload(body: &[u8]) -> Option<Fault> {
    match body {
        b"{}" => None,
        b"" => Some(Fault::new(400, "PayloadEmpty", "there is no payload")),
        other => {
            let violation = format!("the payload is not {{}}: it has {} bytes", other.len());
            Some(Fault::new(400, "BadPayload", violation))
        }
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_lowercase_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const ID: &str = "123e4567-e89b-42d3-a456-42665544000a";

    fn good() -> http::request::Builder {
        Request::post("https://x/3/device/c0ffee")
            .header("apns-topic", "pass.a")
            .header("apns-push-type", "background")
            .header("apns-priority", "5")
            .header("apns-expiration", "1800000000")
            .header("apns-id", ID)
    }

    fn with(name: &'static str, value: Option<&'static str>) -> Parts {
        let (mut head, ()) = good().body(()).unwrap().into_parts();
        head.headers.remove(name);
        if let Some(value) = value {
            head.headers.insert(name, value.parse().unwrap());
        }
        head
    }

    fn check(head: &Parts, body: &[u8]) -> Option<&'static str> {
        fault(
            head,
            body,
            Some(&["pass.a".to_owned()]),
            &KnownTokens::default(),
        )
        .map(|fault| fault.reason)
    }

    #[test]
    fn each_fault_has_its_reason() {
        assert_eq!(check(&with("x", None), b"{}"), None);
        assert_eq!(check(&with("x", None), b""), Some("PayloadEmpty"));
        assert_eq!(check(&with("x", None), b"{ }"), Some("BadPayload"));
        for (name, value, reason) in [
            ("apns-topic", None, "MissingTopic"),
            ("apns-topic", Some("pass.b"), "TopicDisallowed"),
            ("apns-priority", Some("10"), "BadPriority"),
            ("apns-priority", None, "BadPriority"),
            ("apns-push-type", None, "BadPriority"),
            ("apns-push-type", Some("alert"), "InvalidPushType"),
            ("apns-expiration", Some("0"), "BadExpirationDate"),
            ("apns-expiration", None, "BadExpirationDate"),
            ("apns-id", None, "BadMessageId"),
            (
                "apns-id",
                Some("123E4567-E89B-42D3-A456-42665544000A"),
                "BadMessageId",
            ),
        ] {
            assert_eq!(
                check(&with(name, value), b"{}"),
                Some(reason),
                "{name} {value:?}"
            );
        }
        for (path, reason) in [
            ("/3/device/", "MissingDeviceToken"),
            ("/3/device/xy", "BadDeviceToken"),
            ("/2/device/c0", "BadPath"),
        ] {
            let (head, ()) = good().uri(path).body(()).unwrap().into_parts();
            assert_eq!(check(&head, b"{}"), Some(reason), "{path}");
        }
        let (head, ()) = good().method("PUT").body(()).unwrap().into_parts();
        assert_eq!(check(&head, b"{}"), Some("MethodNotAllowed"));
    }

    #[test]
    fn a_token_must_be_in_the_case_in_which_it_was_added() {
        let known = KnownTokens::default();
        known.add("C0FFEE");
        let (head, ()) = good().body(()).unwrap().into_parts();
        assert!(
            fault(&head, b"{}", None, &known)
                .unwrap()
                .violation
                .is_some()
        );
        known.add("c0ffee");
        assert!(fault(&head, b"{}", None, &known).is_none());
    }
}
