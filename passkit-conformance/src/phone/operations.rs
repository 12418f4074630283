use std::{fmt, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use passkit_archive::Rules;
use passkit_server::{AuthToken, PassId, identifiers::Kind};

use super::{
    Complaint, Error, HeldPass, State, archive,
    complaint::{Task, log_entry, service_error},
    error::service_url,
};
use crate::{Client, Exchange, message::Response, secrets::Secrets, service_url::ServiceUrl};

/// A virtual phone. See [the module](super).
pub struct Phone {
    pub(super) state: State,
    pub(super) rules: Rules,
    client: Client,
    observer: Box<dyn FnMut(&Exchange) + Send>,
}

/// The results of an operation. If there are no [`complaints`](Self::complaints), all went well.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// The passes whose registration the service accepted.
    pub registered: Vec<PassId>,
    /// The passes on the phone that the service listed as changed.
    pub listed: Vec<PassId>,
    /// The passes that were fetched and have new content.
    pub updated: Vec<PassId>,
    /// The passes that were requested and had not changed.
    pub unchanged: Vec<PassId>,
    /// The passes whose registration the service removed.
    pub unregistered: Vec<PassId>,
    /// The passes whose rewards enrolment the service accepted.
    pub enrolled: Vec<PassId>,
    /// Everything that went wrong.
    pub complaints: Vec<Complaint>,
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Phone {
    /// Makes a phone with this state, which sends its requests through `client`. The phone accepts
    /// only signed passes with `https` URLs.
    #[must_use]
    pub fn new(state: State, client: Client) -> Self {
        Self {
            state,
            client,
            rules: Rules::strict(),
            observer: Box::new(|_| {}),
        }
    }

    /// Sets the rules for archives. For example, a service in development may serve unsigned
    /// archives.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Calls `observer` with every exchange when it is over. Replaces the previous observer.
    pub fn observe(&mut self, observer: impl FnMut(&Exchange) + Send + 'static) {
        self.observer = Box::new(observer);
    }

    /// What the phone remembers now. Save it after each operation, even if the operation failed.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Gives write access to what the phone remembers.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Consumes the phone and returns its state.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }

    /// The passes on the phone.
    #[must_use]
    pub fn list(&self) -> &[HeldPass] {
        self.state.passes()
    }

    /// Adds a pass: registers, asks for the list, and fetches the listed passes. If the phone
    /// already had a tag, it also fetches the new pass, because the list might not name the new
    /// pass.
    ///
    /// `url` permanently replaces the web service URL in the pass. A pass that is already
    /// registered is not registered again. The phone replaces it and fetches it without a date, as
    /// if a user had opened a newer file.
    ///
    /// # Errors
    ///
    /// Fails if the archive or the URL is not valid. The phone is then unchanged. If the service
    /// refuses the registration, that is a [`Complaint`]. The pass stays on the phone, and
    /// [`sync`](Self::sync) tries again.
    pub async fn add(&mut self, archive: &[u8], url: Option<&str>) -> Result<Outcome, Error> {
        let read = archive::read(archive, self.rules).map_err(Error::Archive)?;
        let url = url.map(str::to_owned).or(read.web_service_url);
        let (Some(url), Some(auth_token)) = (url, read.auth_token) else {
            return Err(Error::NoWebService);
        };
        let service = service_url(&url)?;
        let pass = read.id.clone();
        let mut outcome = Outcome::default();
        let was_registered = self
            .state
            .find(&pass)
            .is_some_and(|held| held.registered && held.url == url);
        let mut held = HeldPass::new(read.id, auth_token, url.clone(), read.digest);
        held.registered = was_registered;
        held.offers_enrolment = read.offers_enrolment;
        match self.state.find_mut(&pass) {
            Some(old) => *old = held,
            None => self.state.passes.push(held),
        }
        let had_tag = self.state.service(&url, &pass.type_id)?.tag.is_some();
        if was_registered {
            self.fetch(&service, &pass, false, &mut outcome).await?;
        } else if self.register(&service, &url, &pass, &mut outcome).await? {
            let listed = self
                .list_changes(&service, &url, &pass.type_id, &mut outcome)
                .await?;
            if !had_tag && listed.is_some_and(|listed| !listed.contains(&pass.serial)) {
                let text = format!(
                    "the list without a tag omits '{}', which was just registered",
                    pass.serial
                );
                outcome.complaints.push(service_error(
                    &url,
                    &pass.type_id,
                    Some(&pass),
                    &text,
                    false,
                ));
            }
            self.fetch_pending(&service, &url, &pass.type_id, &mut outcome)
                .await?;
        }
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Does what a phone does after a push. First registers the passes whose registration failed
    /// earlier. Then, for each service and type, asks for the list, fetches the listed passes, and
    /// fetches the other pending passes. Each fetch is conditional on the date.
    ///
    /// # Errors
    ///
    /// Fails if the system has no random numbers.
    pub async fn sync(&mut self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        for held in self.state.passes.clone() {
            if !held.registered {
                let service = service_url(&held.url)?;
                self.register(&service, &held.url, &held.id(), &mut outcome)
                    .await?;
            }
        }
        for kept in self.state.services.clone() {
            let (url, type_id) = (&kept.url, &kept.type_id);
            let any = |held: &HeldPass| {
                held.url == *url && held.id().type_id == *type_id && held.registered
            };
            if !self.state.passes.iter().any(any) {
                continue;
            }
            let service = service_url(url)?;
            self.list_changes(&service, url, type_id, &mut outcome)
                .await?;
            self.fetch_pending(&service, url, type_id, &mut outcome)
                .await?;
        }
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Fetches one pass if its date changed. Sends no other request, except to the log.
    ///
    /// # Errors
    ///
    /// Fails if the pass is not on the phone.
    pub async fn refresh(&mut self, pass: &PassId) -> Result<Outcome, Error> {
        let url = self.held(pass)?.url.clone();
        let mut outcome = Outcome::default();
        self.fetch(&service_url(&url)?, pass, true, &mut outcome)
            .await?;
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Unregisters a pass and removes it from the phone, even if the service refuses. The phone
    /// keeps its device identifier and tag for the service.
    ///
    /// # Errors
    ///
    /// Fails if the pass is not on the phone.
    pub async fn remove(&mut self, pass: &PassId) -> Result<Outcome, Error> {
        let held = self.held(pass)?.clone();
        let url = &held.url;
        let device = self.state.service(url, &pass.type_id)?.device.clone();
        let mut outcome = Outcome::default();
        let call = PhoneRequest {
            method: Method::DELETE,
            url: service_url(url)?.registration(&device, pass),
            auth: Some((pass.type_id.kind(), held.auth_token())),
            secrets: self.secrets(&[device.as_str()]),
            ..PhoneRequest::default()
        };
        let task = Task::Unregister(&device, pass);
        match self.send(call).await {
            Err(reason) => outcome.complaints.push(task.error(url, &reason, false)),
            Ok(response) => match response.status.as_u16() {
                200 => outcome.unregistered.push(pass.clone()),
                status => outcome
                    .complaints
                    .push(task.error(url, &status_reason(status), true)),
            },
        }
        self.state.passes.retain(|held| !held.is(pass));
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    pub(super) fn held(&self, pass: &PassId) -> Result<&HeldPass, Error> {
        self.state
            .find(pass)
            .ok_or_else(|| Error::NotHeld(pass.clone()))
    }

    async fn register(
        &mut self,
        service: &ServiceUrl,
        url: &str,
        pass: &PassId,
        outcome: &mut Outcome,
    ) -> Result<bool, Error> {
        let kept = self.state.service(url, &pass.type_id)?;
        let (device, had_tag) = (kept.device.clone(), kept.tag.is_some());
        let auth_token = self.held(pass)?.auth_token.clone();
        let call = PhoneRequest {
            method: Method::POST,
            url: service.registration(&device, pass),
            auth: Some((pass.type_id.kind(), &auth_token)),
            body: Some(
                serde_json::json!({ "pushToken": self.state.push_token.as_str() }).to_string(),
            ),
            secrets: self.secrets(&[device.as_str()]),
            ..PhoneRequest::default()
        };
        let task = Task::Register(&device, pass);
        match self.send(call).await {
            Err(reason) => outcome.complaints.push(task.error(url, &reason, false)),
            Ok(response) => match response.status.as_u16() {
                200 | 201 => {
                    if let Some(held) = self.state.find_mut(pass) {
                        held.registered = true;
                        // The list for the old tag might not name the new pass.
                        held.fetch_pending |= had_tag;
                    }
                    outcome.registered.push(pass.clone());
                    return Ok(true);
                }
                status => outcome
                    .complaints
                    .push(task.error(url, &status_reason(status), true)),
            },
        }
        Ok(false)
    }

    /// Posts the complaints that a real phone would log, in one call for each service. A failure of
    /// this call is not posted.
    pub(super) async fn post_log(&mut self, outcome: &mut Outcome) {
        let mut urls: Vec<String> = outcome
            .complaints
            .iter()
            .filter(|one| one.is_logged)
            .map(|one| one.url.clone())
            .collect();
        urls.sort_unstable();
        urls.dedup();
        for url in urls {
            let Ok(service) = ServiceUrl::new(&url) else {
                continue;
            };
            let logs: Vec<_> = outcome
                .complaints
                .iter()
                .filter(|one| one.is_logged && one.url == url)
                .map(|one| log_entry(SystemTime::now(), &one.log_text))
                .collect();
            let devices: Vec<_> = self
                .state
                .services
                .iter()
                .map(|kept| kept.device.as_str())
                .collect();
            let call = PhoneRequest {
                method: Method::POST,
                url: service.log(),
                body: Some(serde_json::json!({ "logs": logs }).to_string()),
                secrets: self.secrets(&devices),
                ..PhoneRequest::default()
            };
            if let Ok(response) = self.send(call).await
                && response.status != 200
            {
                let status = response.status.as_u16();
                let text = format!(
                    "the log call was answered {status}; a phone repeats its messages until the \
                     answer is 200"
                );
                let (pass, log_text) = (None, String::new());
                outcome.complaints.push(Complaint {
                    url,
                    pass,
                    text,
                    is_logged: false,
                    log_text,
                });
            }
        }
    }

    pub(super) fn secrets(&self, devices: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add(self.state.push_token.as_str(), "<push token>");
        for device in devices {
            secrets.add(device, "<device>");
        }
        secrets
    }

    /// Sends a call, and shows the exchange to the observer.
    pub(super) async fn send(&mut self, call: PhoneRequest<'_>) -> Result<Response, String> {
        let PhoneRequest {
            method,
            url,
            auth,
            if_modified_since,
            body,
            mut secrets,
        } = call;
        if let Some((_, token)) = auth {
            secrets.add(token.as_str(), "<token>");
        }
        let request = request(&method, &url, auth, if_modified_since, body.as_deref());
        let request = request.map_err(|error| format!("the request cannot be made: {error}"))?;
        let (response, exchange) = self.client.send(request, &secrets).await;
        (self.observer)(&exchange);
        response.map_err(|error| error.to_string())
    }
}

/// One request.
#[derive(Default)]
pub(super) struct PhoneRequest<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) auth: Option<(Kind, &'a AuthToken)>,
    pub(super) if_modified_since: Option<&'a str>,
    /// The body, as JSON.
    pub(super) body: Option<String>,
    pub(super) secrets: Secrets,
}

fn request(
    method: &Method,
    url: &str,
    auth: Option<(Kind, &AuthToken)>,
    if_modified_since: Option<&str>,
    body: Option<&str>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder().method(method).uri(url).header(
        header::USER_AGENT,
        concat!("passkit-phone/", env!("CARGO_PKG_VERSION")),
    );
    if let Some((kind, token)) = auth {
        let value = format!("{} {}", kind.auth_scheme(), token.as_str());
        request = request.header(
            header::AUTHORIZATION,
            HeaderValue::from_bytes(value.as_bytes())?,
        );
    }
    if let Some(date) = if_modified_since {
        request = request.header(
            header::IF_MODIFIED_SINCE,
            HeaderValue::from_bytes(date.as_bytes())?,
        );
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(Bytes::from(body.unwrap_or_default().to_owned())))
}

/// Returns the reason for a complaint about an unexpected status. It is for calls that send an
/// authentication token: register, unregister and fetch.
pub(super) fn status_reason(status: u16) -> String {
    match status {
        401 => "Authentication failure".into(),
        status => format!("Unexpected response code {status}"),
    }
}
