use http::Method;
use passkit_archive::{Level, check_token_signature};
use passkit_server::{PassId, enrolment::Person};
use serde_json::{Map, Value, json};

use super::{
    Error, HeldPass, Outcome, Phone,
    complaint::{Task, service_error},
    error::service_url,
    operations::{PhoneRequest, status_reason},
};
use crate::{message::Response, random_hex, wire::media_type_remark};

impl Phone {
    /// Enrols the user in the rewards programme of a pass: sends the data, checks the signature in
    /// the answer, and fetches the pass, which must be another version without
    /// `personalization.json`.
    ///
    /// # Errors
    ///
    /// Fails if the pass is not on the phone, if the version on the phone does not offer enrolment,
    /// or if the system has no random numbers.
    pub async fn personalize(&mut self, pass: &PassId, person: &Person) -> Result<Outcome, Error> {
        let held = self.held(pass)?.clone();
        if !held.offers_enrolment {
            return Err(Error::NoEnrolment(pass.clone()));
        }
        let service = service_url(&held.url)?;
        // Digits alone would be JSON, which a service may refuse.
        let token = format!("t{}", random_hex::<16>().map_err(Error::Random)?);
        let mut outcome = Outcome::default();
        if self
            .enrol(&held, &service.pass(pass), &token, person, &mut outcome)
            .await
        {
            self.fetch(&service, pass, true, &mut outcome).await?;
            self.check_personal_version(&held, &mut outcome);
        }
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Sends the data. Returns whether the answer is good.
    async fn enrol(
        &mut self,
        held: &HeldPass,
        pass_url: &str,
        token: &str,
        person: &Person,
        outcome: &mut Outcome,
    ) -> bool {
        let (pass, url) = (held.id(), &held.url);
        let info: Map<String, Value> = person
            .values()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let body = json!({ "personalizationToken": token, "requiredPersonalizationInfo": info });
        let since = held.last_modified.as_deref();
        let call = PhoneRequest {
            method: Method::POST,
            url: format!("{pass_url}/personalize"),
            auth: Some((pass.type_id.kind(), &held.auth_token)),
            if_modified_since: since,
            body: Some(body.to_string()),
            secrets: self.secrets(&[]),
        };
        let task = Task::Personalize(&pass, since);
        let complaint = match self.send(call).await {
            Err(reason) => task.error(url, &reason, false),
            Ok(response) => match response.status.as_u16() {
                200 => match signature_problem(&pass, token, &response) {
                    None => {
                        outcome
                            .complaints
                            .extend(media_type_complaint(held, &response));
                        outcome.enrolled.push(pass);
                        return true;
                    }
                    // Real phones misspell this name in the same way.
                    Some(problem) => {
                        let reason =
                            format!("Received invalid personalizaiton token signature ({problem})");
                        task.error(url, &reason, true)
                    }
                },
                status => task.error(url, &status_reason(status), true),
            },
        };
        outcome.complaints.push(complaint);
        false
    }

    /// Complains if the fetched version is the old one, or still offers enrolment.
    fn check_personal_version(&self, old: &HeldPass, outcome: &mut Outcome) {
        let pass = old.id();
        let still_offers = self
            .state
            .find(&pass)
            .is_some_and(HeldPass::offers_enrolment);
        let (text, is_logged) = if outcome.unchanged.contains(&pass) {
            let text = format!(
                "Personalization request was issued for serial number '{}', but the pass was unchanged.",
                pass.serial
            );
            (text, true)
        } else if outcome.updated.contains(&pass) && still_offers {
            let text = format!(
                "the pass with serial number '{}' still has personalization.json after the enrolment",
                pass.serial
            );
            (text, false)
        } else {
            return;
        };
        let complaint = service_error(&old.url, &pass.type_id, Some(&pass), &text, is_logged);
        outcome.complaints.push(complaint);
    }
}

/// Returns why a phone does not accept the signature in an answer.
fn signature_problem(pass: &PassId, token: &str, response: &Response) -> Option<String> {
    let findings = check_token_signature(&pass.type_id, token, &response.body);
    let worst = findings
        .first()
        .filter(|finding| finding.level() == Level::Refused);
    worst.map(ToString::to_string)
}

fn media_type_complaint(held: &HeldPass, response: &Response) -> Option<super::Complaint> {
    let remark = media_type_remark(&response.headers, &["application/octet-stream"])?;
    let pass = held.id();
    Some(service_error(
        &held.url,
        &pass.type_id,
        Some(&pass),
        &remark,
        false,
    ))
}
