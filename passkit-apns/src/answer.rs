use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use passkit_server::push::PushOutcome;
use serde::Deserialize;

/// No answer of APNs is longer.
const MAX_BODY: usize = 4096;

/// An answer of APNs, as far as it could be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// In Apple's words, whatever they are: new ones come without notice.
    pub(crate) reason: Option<String>,
    /// Milliseconds since the epoch, with status 410.
    pub(crate) timestamp: Option<u64>,
}

#[derive(Deserialize)]
struct Body {
    reason: Option<serde_json::Value>,
    timestamp: Option<serde_json::Value>,
}

impl Answer {
    /// Whatever becomes of the body, the status stands.
    pub(crate) async fn read(response: http::Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            return Self {
                status: head.status,
                reason: None,
                timestamp: None,
            };
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        Self::parse(
            head.status,
            &body.map(|body| body.to_bytes()).unwrap_or_default(),
        )
    }

    fn parse(status: StatusCode, body: &Bytes) -> Self {
        let body = serde_json::from_slice::<Body>(body).ok();
        let reason = body
            .as_ref()
            .and_then(|body| body.reason.as_ref()?.as_str())
            .filter(|reason| {
                // It goes into logs.
                (1..=64).contains(&reason.len())
                    && reason.bytes().all(|byte| byte.is_ascii_graphic())
            });
        let timestamp = body
            .as_ref()
            .and_then(|body| body.timestamp.as_ref()?.as_u64());
        Self {
            status,
            reason: reason.map(Into::into),
            timestamp,
        }
    }

    pub(crate) fn is(&self, status: u16, reason: &str) -> bool {
        self.status.as_u16() == status && self.reason.as_deref() == Some(reason)
    }

    /// What it means. Where the reason says nothing, the status does.
    pub(crate) fn outcome(self) -> PushOutcome {
        let status = self.status.as_u16();
        let reason = self.reason.unwrap_or_else(|| format!("status {status}"));
        match (status, reason.as_str()) {
            (200, _) => PushOutcome::Sent,
            // Without a time it is unknown whether the device registered since. So it counts as a bad token: the device is
            // forgotten only if the token is still bad a day later.
            (410, _) => match self.timestamp.and_then(time) {
                Some(since) => PushOutcome::Gone(since),
                None => PushOutcome::BadToken(reason),
            },
            (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => PushOutcome::BadToken(reason),
            (400, "TopicDisallowed" | "BadTopic" | "MissingTopic") | (401 | 403, _) => {
                PushOutcome::Misconfigured(reason)
            }
            // Only after it came twice.
            (400, "IdleTimeout") => PushOutcome::Unreachable(reason),
            (429, _) => PushOutcome::TooMany(reason),
            (400..=499, _) => PushOutcome::Rejected(reason),
            _ => PushOutcome::Unavailable(reason),
        }
    }
}

fn time(milliseconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, body: &str) -> PushOutcome {
        Answer::parse(
            StatusCode::from_u16(status).unwrap(),
            &Bytes::from(body.to_owned()),
        )
        .outcome()
    }

    #[test]
    fn a_time_that_cannot_be_read_makes_no_device_gone() {
        for body in [
            "",
            "{}",
            r#"{"timestamp":"x"}"#,
            r#"{"timestamp":-1}"#,
            r#"{"timestamp":1.5}"#,
            "[",
            "7",
        ] {
            assert_eq!(
                outcome(410, body),
                PushOutcome::BadToken("status 410".into()),
                "{body}"
            );
        }
        let since = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(
            outcome(410, r#"{"timestamp":1700000000123}"#),
            PushOutcome::Gone(since)
        );
        // Whatever the machine can hold, it does not panic.
        let _ = outcome(410, r#"{"timestamp":18446744073709551615}"#);
    }

    #[test]
    fn an_odd_reason_is_none() {
        for reason in ["", "two words", "line\\nbreak", "é", &"x".repeat(65)] {
            let body = format!(r#"{{"reason":"{reason}"}}"#);
            assert_eq!(
                outcome(400, &body),
                PushOutcome::Rejected("status 400".into()),
                "{reason}"
            );
        }
        assert_eq!(
            outcome(400, r#"{"reason":7}"#),
            PushOutcome::Rejected("status 400".into())
        );
    }

    #[test]
    fn without_a_known_reason_the_status_decides() {
        let new = r#"{"reason":"BrandNew"}"#;
        let reason = || "BrandNew".to_owned();
        assert_eq!(outcome(400, new), PushOutcome::Rejected(reason()));
        assert_eq!(outcome(403, new), PushOutcome::Misconfigured(reason()));
        assert_eq!(outcome(418, new), PushOutcome::Rejected(reason()));
        assert_eq!(outcome(429, new), PushOutcome::TooMany(reason()));
        assert_eq!(outcome(502, new), PushOutcome::Unavailable(reason()));
        assert_eq!(
            outcome(302, ""),
            PushOutcome::Unavailable("status 302".into())
        );
        assert_eq!(
            outcome(204, ""),
            PushOutcome::Unavailable("status 204".into())
        );
    }
}
