use std::collections::HashMap;

use http::header;
use passkit_server::{PassId, identifiers::TypeIdentifier};

use super::{
    Error, HeldPass, Outcome, Phone, archive,
    complaint::{Task, service_error},
    error::one_line,
    operations::{PhoneRequest, status_reason},
};
use crate::{
    message::Response,
    service_url::ServiceUrl,
    wire::{archive_types, is_imf_fixdate, media_type_remark},
};

impl Phone {
    /// Fetches all pending passes of a type, if their dates changed. The passes just listed come
    /// first.
    pub(super) async fn fetch_pending(
        &mut self,
        service: &ServiceUrl,
        url: &str,
        type_id: &TypeIdentifier,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        for pass in self.pending(url, type_id, &outcome.listed) {
            self.fetch(service, &pass, true, outcome).await?;
        }
        Ok(())
    }

    /// Returns the pending passes of a type: first the passes in `listed`, in that order, then the
    /// others.
    pub(super) fn pending(
        &self,
        url: &str,
        type_id: &TypeIdentifier,
        listed: &[PassId],
    ) -> Vec<PassId> {
        // A map, because the service may send a list of any length.
        let places: HashMap<&PassId, usize> = listed.iter().zip(0..).collect();
        let is_pending =
            |held: &&HeldPass| held.fetch_pending && held.url == url && held.type_id == *type_id;
        let held = self.state.passes.iter().filter(is_pending);
        let mut pending: Vec<PassId> = held.map(HeldPass::id).collect();
        pending.sort_by_key(|pass| places.get(pass).copied().unwrap_or(usize::MAX));
        pending
    }

    /// Fetches a pass. If `conditional` is true, the request contains the date of the last fetch.
    pub(super) async fn fetch(
        &mut self,
        service: &ServiceUrl,
        pass: &PassId,
        conditional: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let Some(held) = self.state.find(pass).cloned() else {
            return Ok(());
        };
        let since = held.last_modified.as_deref().filter(|_| conditional);
        let call = PhoneRequest {
            url: service.pass(pass),
            auth: Some((pass.type_id.kind(), held.auth_token())),
            if_modified_since: since,
            secrets: self.secrets(&[]),
            ..PhoneRequest::default()
        };
        let task = Task::Get(pass, since);
        let response = match self.send(call).await {
            Err(reason) => {
                outcome
                    .complaints
                    .push(task.error(&held.url, &reason, false));
                return Ok(());
            }
            Ok(response) => response,
        };
        match response.status.as_u16() {
            200 => self.receive(&held, since, &response, outcome),
            304 if since.is_some() => {
                if let Some(held) = self.state.find_mut(pass) {
                    held.fetch_pending = false;
                }
                outcome.unchanged.push(pass.clone());
            }
            status => outcome
                .complaints
                .push(task.error(&held.url, &status_reason(status), true)),
        }
        Ok(())
    }

    /// Accepts the archive that was sent for `held`, if it is valid and belongs to that pass.
    fn receive(
        &mut self,
        held: &HeldPass,
        since: Option<&str>,
        response: &Response,
        outcome: &mut Outcome,
    ) {
        let (pass, url) = (&held.id(), &held.url);
        let kind = pass.type_id.kind();
        if let Some(remark) = media_type_remark(&response.headers, archive_types(kind)) {
            outcome.complaints.push(service_error(
                url,
                &pass.type_id,
                Some(pass),
                &remark,
                false,
            ));
        }
        let read = match archive::read(&response.body, self.rules) {
            Ok(read) => read,
            Err(problems) => {
                let reason = format!("Received invalid pass data ({})", one_line(&problems));
                outcome
                    .complaints
                    .push(Task::Get(pass, since).error(url, &reason, true));
                return;
            }
        };
        if read.id != *pass {
            let reason = if read.id.type_id == pass.type_id {
                format!(
                    "Requested serial number {}, received serial number {}",
                    pass.serial, read.id.serial
                )
            } else {
                format!(
                    "Requested pass of type {}, received pass of type {}",
                    pass.type_id, read.id.type_id
                )
            };
            outcome
                .complaints
                .push(Task::Get(pass, since).error(url, &reason, true));
            return;
        }

        let mut complain = |text: &str, is_logged| {
            outcome.complaints.push(service_error(
                url,
                &pass.type_id,
                Some(pass),
                text,
                is_logged,
            ));
        };
        let last_modified = response
            .headers
            .get(header::LAST_MODIFIED)
            .and_then(|value| String::from_utf8(value.as_bytes().to_vec()).ok());
        match last_modified.as_deref() {
            None => complain(
                &format!(
                    "Server returned the pass data for serial number '{}' but did not provide a \
                     'last-modified' header.",
                    pass.serial
                ),
                true,
            ),
            Some(date) if !is_imf_fixdate(date) => {
                complain(
                    &format!("the last-modified header ({date}) is not an HTTP date"),
                    false,
                );
            }
            Some(_) => {}
        }
        let unchanged = read.digest == held.digest;
        match since {
            Some(since) if unchanged && last_modified.as_deref() == Some(since) => complain(
                &format!(
                    "Server ignored the 'if-modified-since' header ({since}) and returned the full unchanged \
                     pass data for serial number '{}'.",
                    pass.serial
                ),
                true,
            ),
            Some(since) if last_modified.as_deref() == Some(since) => {
                complain(
                    &format!("the content changed but its last-modified header ({since}) did not"),
                    false,
                );
            }
            _ => {}
        }
        if let Some(held) = self.state.find_mut(pass) {
            held.last_modified = last_modified;
            held.digest = read.digest;
            held.offers_enrolment = read.offers_enrolment;
            // The new version may have no web service and no token. Unregistering still needs the
            // old token.
            if let Some(token) = read.auth_token {
                held.auth_token = token;
            }
            held.fetch_pending = false;
        }
        if unchanged {
            &mut outcome.unchanged
        } else {
            &mut outcome.updated
        }
        .push(pass.clone());
    }
}
