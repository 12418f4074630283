use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use passkit_server::push::PushOutcome;
use serde::Deserialize;

/// The largest body in bytes. APNs never sends a longer body.
const MAX_BODY: usize = 4096;

/// An answer from APNs. Parts that can't be read are left out.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// A text, not an enum, because Apple adds reasons without notice.
    pub(crate) reason: Option<String>,
    /// Milliseconds since the Unix epoch. Only 410 has one.
    pub(crate) timestamp: Option<u64>,
}

#[derive(Deserialize)]
struct Body {
    reason: Option<serde_json::Value>,
    timestamp: Option<serde_json::Value>,
}

impl Answer {
    /// Reads the body. If that fails, the status alone is the answer.
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
                // The reason goes into logs.
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

    /// Returns the meaning of the answer. If the reason is unknown, the status decides.
    pub(crate) fn outcome(self) -> PushOutcome {
        let status = self.status.as_u16();
        let reason = self.reason.unwrap_or_else(|| format!("status {status}"));
        match (status, reason.as_str()) {
            (200, _) => PushOutcome::Sent,
            // Without a time, the device may have registered since. So the token counts as bad: the
            // device is removed only if the token is still bad a day later.
            (410, _) => match self.timestamp.and_then(time) {
                Some(since) => PushOutcome::Gone(since),
                None => PushOutcome::BadToken(reason),
            },
            (400, "BadDeviceToken" | "DeviceTokenNotForTopic") => PushOutcome::BadToken(reason),
            (400, "TopicDisallowed" | "BadTopic" | "MissingTopic") | (401 | 403, _) => {
                PushOutcome::Misconfigured(reason)
            }
            // The sender tries once more before it reports this.
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
    fn without_a_readable_time_no_device_is_gone() {
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
        // Some machines can't represent this time. The conversion must not panic.
        let _ = outcome(410, r#"{"timestamp":18446744073709551615}"#);
    }

    #[test]
    fn a_malformed_reason_is_ignored() {
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
    fn an_unknown_reason_counts_by_its_status() {
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
