use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE, IF_MODIFIED_SINCE, USER_AGENT},
};
use http_body_util::Full;
use passkit_conformance::load::{Answer, Connection, ServiceUrl};

use super::tally::{Call, Problem, Tally};

/// A connection that many phones use, one after another.
pub(super) struct Caller {
    pub(super) connection: Connection,
    pub(super) url: Arc<ServiceUrl>,
    /// The counts of this part of the run.
    pub(super) tally: Arc<Tally>,
}

/// A request to send.
#[derive(Default)]
pub(super) struct Asked<'a> {
    pub(super) url: String,
    pub(super) authorization: Option<&'a HeaderValue>,
    pub(super) since: Option<&'a HeaderValue>,
    /// The body, which is JSON.
    pub(super) body: Option<String>,
}

/// An answer.
pub(super) struct Reply {
    call: Call,
    took: Duration,
    pub(super) answer: Answer,
}

impl Reply {
    pub(super) fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// Makes the error for an unexpected status. `when` continues the message, for example with `
    /// without a tag`.
    pub(super) fn wrong(&self, when: &str) -> Problem {
        Problem::status(self.call, self.status(), when)
    }
}

impl Caller {
    pub(super) async fn send(&mut self, call: Call, asked: Asked<'_>) -> Result<Reply, Problem> {
        let Asked {
            url,
            authorization,
            since,
            body,
        } = asked;
        let method = match call {
            Call::Register => Method::POST,
            Call::Unregister => Method::DELETE,
            Call::List | Call::Get => Method::GET,
        };
        let mut request = Request::builder().method(method).uri(url);
        if let Some(headers) = request.headers_mut() {
            let agent = concat!("passkit-bench/", env!("CARGO_PKG_VERSION"));
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
            if let Some(authorization) = authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            if let Some(since) = since {
                headers.insert(IF_MODIFIED_SINCE, since.clone());
            }
            if body.is_some() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
        }
        let request = request
            .body(Full::new(body.map(Bytes::from).unwrap_or_default()))
            .map_err(|_| Problem::new("a request that can't be made"))?;
        let start = Instant::now();
        let answer = self.connection.send(request).await;
        let took = start.elapsed();
        let answer = answer.map_err(|reason| Problem::no_answer(call, &reason))?;
        Ok(Reply { call, took, answer })
    }

    /// Counts a correct answer.
    pub(super) fn count(&self, reply: &Reply) {
        self.tally.call(
            reply.call,
            reply.status(),
            reply.took,
            reply.answer.body_bytes,
        );
    }
}
