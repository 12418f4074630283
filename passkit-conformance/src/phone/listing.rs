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
    wire::{ListAnswer, media_type_remark},
};

impl Phone {
    /// Asks what changed, keeps the new tag, and marks each listed pass as to be fetched. Returns
    /// the serial numbers as listed, or `None` if the answer could not be read; the old tag then
    /// stays.
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
            // Also a 401, because this call has no token that could be wrong.
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
        for serial in &answer.serials {
            let pass = PassId {
                type_id: type_id.clone(),
                serial: serial.clone(),
            };
            match self.state.find_mut(&pass).filter(|held| held.url == url) {
                Some(held) => {
                    held.fetch_pending = true;
                    outcome.listed.push(pass);
                }
                None => {
                    let text =
                        format!("Update requested for unregistered serial number '{serial}'");
                    outcome
                        .complaints
                        .push(service_error(url, type_id, Some(&pass), &text, false));
                }
            }
        }
        Ok(Some(answer.serials))
    }
}
