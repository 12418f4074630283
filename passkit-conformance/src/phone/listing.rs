use std::collections::HashMap;

use passkit_server::{
    PassId,
    identifiers::{SerialNumber, TypeIdentifier},
};

use super::{
    Error, Outcome, Phone,
    complaint::{Task, service_error},
    operations::PhoneRequest,
};
use crate::{
    service_url::ServiceUrl,
    wire::{ListAnswer, SHOWN, media_type_remark},
};

impl Phone {
    /// Asks for the list, stores the new tag, and makes the fetch of each listed pass pending.
    /// Returns the listed serial numbers. If the answer could not be read, returns `None` and keeps
    /// the old tag.
    pub(super) async fn list_changes(
        &mut self,
        service: &ServiceUrl,
        url: &str,
        type_id: &TypeIdentifier,
        outcome: &mut Outcome,
    ) -> Result<Option<Vec<SerialNumber>>, Error> {
        let kept = self.state.service(url, type_id)?;
        let (device, old_tag) = (kept.device.clone(), kept.tag.clone());
        let old_tag = old_tag.as_deref();
        let call = PhoneRequest {
            url: service.list(&device, type_id, old_tag),
            secrets: self.secrets(&[device.as_str()]),
            ..PhoneRequest::default()
        };
        let task = Task::List(&device, type_id, old_tag);
        let response = match self.send(call).await {
            Err(reason) => {
                outcome.complaints.push(task.error(url, &reason, false));
                return Ok(None);
            }
            Ok(response) => response,
        };
        match response.status.as_u16() {
            204 => return Ok(Some(Vec::new())),
            200 => {}
            // A 401 gets the same complaint, because this call has no token that could be wrong.
            status => {
                let reason = format!("Unexpected response code {status}");
                outcome.complaints.push(task.error(url, &reason, true));
                return Ok(None);
            }
        }
        let Some(answer) = ListAnswer::read(type_id.kind(), &response.body) else {
            outcome
                .complaints
                .push(task.error(url, "Server response was malformed", true));
            return Ok(None);
        };

        let mut complain = |text: &str, is_logged| {
            outcome
                .complaints
                .push(service_error(url, type_id, None, text, is_logged));
        };
        for remark in media_type_remark(&response.headers, &["application/json"])
            .iter()
            .chain(&answer.remarks)
        {
            complain(remark, false);
        }
        let included = format!(
            "Response to 'What changed?' request included {} serial numbers but",
            answer.serials.len()
        );
        match answer.tag.as_deref() {
            _ if answer.serials.is_empty() => {}
            None => complain(&format!("{included} omitted a lastUpdated tag."), true),
            Some(tag) if Some(tag) == old_tag => {
                complain(
                    &format!("{included} the lastUpdated tag ({tag}) remained the same."),
                    true,
                );
            }
            Some(_) => {}
        }
        if let Some(tag) = answer.tag {
            self.state.service(url, type_id)?.tag = Some(tag);
        }
        self.mark_listed(url, type_id, &answer.serials, outcome);
        Ok(Some(answer.serials))
    }

    /// Makes the fetch of each listed pass pending, and complains about passes that the phone does
    /// not have. The work is linear, because the service may send a list of any length.
    fn mark_listed(
        &mut self,
        url: &str,
        type_id: &TypeIdentifier,
        serials: &[SerialNumber],
        outcome: &mut Outcome,
    ) {
        let places: HashMap<&SerialNumber, usize> = serials.iter().zip(0..).collect();
        let mut is_held = vec![false; serials.len()];
        for held in &mut self.state.passes {
            if held.url == url
                && held.type_id == *type_id
                && let Some(place) = places.get(&held.serial)
            {
                held.fetch_pending = true;
                is_held[*place] = true;
            }
        }
        let mut unknown = 0_usize;
        for (serial, is_held) in serials.iter().zip(is_held) {
            let pass = PassId {
                type_id: type_id.clone(),
                serial: serial.clone(),
            };
            if is_held {
                outcome.listed.push(pass);
                continue;
            }
            unknown += 1;
            if unknown <= SHOWN {
                let text = format!("Update requested for unregistered serial number '{serial}'");
                outcome
                    .complaints
                    .push(service_error(url, type_id, Some(&pass), &text, false));
            }
        }
        if unknown > SHOWN {
            let text = format!(
                "Update requested for {} more unregistered serial numbers",
                unknown - SHOWN
            );
            outcome
                .complaints
                .push(service_error(url, type_id, None, &text, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use passkit_server::AuthToken;
    use tower_service::Service;

    use super::*;
    use crate::{
        Client, Limits,
        phone::{HeldPass, State},
    };

    /// Gives the same answer to each request.
    #[derive(Clone)]
    struct Same(Bytes);

    impl Service<Request<Full<Bytes>>> for Same {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            ready(Ok(Response::new(Full::new(self.0.clone()))))
        }
    }

    /// With quadratic work, this test would practically never end.
    #[tokio::test]
    async fn a_list_of_half_a_million_serial_numbers_costs_linear_work() {
        const LISTED: usize = 500_000;
        let url = "https://example.invalid/";
        let type_id = TypeIdentifier::new("pass.com.example.many").unwrap();
        let token = AuthToken::new("0123456789abcdef").unwrap();
        let pass = |n: usize| PassId::new(type_id.as_str(), &format!("S{n}")).unwrap();
        let mut state = State::new().unwrap();
        // Every other pass, the last one first.
        for n in (0..LISTED).rev().step_by(2) {
            let digest = String::new();
            let held = HeldPass::new(pass(n), token.clone(), url.into(), digest);
            state.passes.push(held);
        }
        let serials: Vec<String> = (0..LISTED).map(|n| format!("S{n}")).collect();
        let body = serde_json::json!({"serialNumbers": serials, "lastUpdated": "1"}).to_string();
        let client = Client::in_process(Same(body.into()), Limits::default());
        let mut phone = Phone::new(state, client);
        let mut outcome = Outcome::default();
        let service = ServiceUrl::new(url).unwrap();
        let listed = phone.list_changes(&service, url, &type_id, &mut outcome);
        assert_eq!(listed.await.unwrap().unwrap().len(), LISTED);
        assert_eq!(outcome.listed.len(), LISTED / 2);
        assert_eq!(
            phone.pending(url, &type_id, &outcome.listed),
            outcome.listed
        );
        assert_eq!(outcome.listed[0], pass(1));
        let texts: Vec<&str> = outcome.complaints.iter().map(|one| &*one.text).collect();
        // The answer has no content-type.
        assert_eq!(texts.len(), 1 + SHOWN + 1, "{texts:?}");
        assert!(texts[SHOWN + 1].ends_with("for 249990 more unregistered serial numbers"));
    }
}
