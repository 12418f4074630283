use std::{fmt, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use passkit_server::{AuthToken, PassId, identifiers::Kind};

use super::{
    Complaint, Error, HeldPass, Rules, State, archive,
    complaint::{Task, log_entry, service_error},
    error::service_url,
};
use crate::{Client, Exchange, client::Response, exchange::Secrets, service_url::ServiceUrl};

/// A phone; see [the module](super).
pub struct Phone {
    pub(super) state: State,
    pub(super) rules: Rules,
    client: Client,
    observer: Box<dyn FnMut(&Exchange) + Send>,
}

/// What an operation did. That it has no [`complaints`](Self::complaints) means that all went well.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// The passes for which the service took a registration.
    pub registered: Vec<PassId>,
    /// The passes that the service listed as changed and that the phone holds.
    pub listed: Vec<PassId>,
    /// The passes that were fetched and have new content.
    pub updated: Vec<PassId>,
    /// The passes that were fetched, or asked for, and are as before.
    pub unchanged: Vec<PassId>,
    /// The passes that the service no longer counts as on this phone.
    pub unregistered: Vec<PassId>,
    /// Everything that was not as it should be.
    pub complaints: Vec<Complaint>,
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phone").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Phone {
    /// A phone that remembers `state` and talks through `client`. It takes signed passes with https only.
    #[must_use]
    pub fn new(state: State, client: Client) -> Self {
        Self { state, client, rules: Rules::strict(), observer: Box::new(|_| {}) }
    }

    /// Takes archives by other rules: unsigned ones for instance, while a service is being developed.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Shows every exchange to `observer`, as soon as its answer is there. Replaces the observer before.
    pub fn observe(&mut self, observer: impl FnMut(&Exchange) + Send + 'static) {
        self.observer = Box::new(observer);
    }

    /// What the phone remembers now: to be saved after each operation, also one that failed.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to change it.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// What the phone remembers, and an end to the phone.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }

    /// The passes on the phone.
    #[must_use]
    pub fn list(&self) -> &[HeldPass] {
        self.state.passes()
    }

    /// Adds a pass: registers for it, lists what changed, and fetches that; if a tag was kept already, fetches the new
    /// pass in any case, since the list may be silent about it.
    ///
    /// `url` takes the place of the pass's own web service URL, and does so for good. A pass that is registered already
    /// is not registered again but replaced and fetched whatever its date, as when a newer file is opened.
    ///
    /// # Errors
    /// If the archive or the URL is not valid; then the phone is as before. A service that refuses is a
    /// [`Complaint`], and the pass stays on the phone: [`sync`](Self::sync) tries again.
    pub async fn add(&mut self, archive: &[u8], url: Option<&str>) -> Result<Outcome, Error> {
        let read = archive::read(archive, self.rules).map_err(Error::Archive)?;
        let url = url.unwrap_or(&read.web_service_url).to_owned();
        let service = service_url(&url)?;
        let pass = read.id.clone();
        let mut outcome = Outcome::default();
        let was_registered = self.state.find(&pass).is_some_and(|held| held.registered && held.url == url);
        let mut held = HeldPass::new(read.id, read.auth_token, url.clone(), read.digest);
        held.registered = was_registered;
        match self.state.find_mut(&pass) {
            Some(old) => *old = held,
            None => self.state.passes.push(held),
        }
        let had_tag = self.state.service(&url, &pass.type_id)?.tag.is_some();
        if was_registered {
            self.fetch(&service, &pass, false, &mut outcome).await?;
        } else if self.register(&service, &url, &pass, &mut outcome).await? {
            let listed = self.list_changes(&service, &url, &pass.type_id, &mut outcome).await?;
            if !had_tag && listed.is_some_and(|listed| !listed.contains(&pass.serial)) {
                let text = format!("the list without a tag omits '{}', just registered", pass.serial);
                outcome.complaints.push(service_error(&url, &pass.type_id, Some(&pass), &text, false));
            }
            self.fetch_owed(&service, &url, &pass.type_id, &mut outcome).await?;
        }
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Does what a push makes a phone do, for each service and type: lists what changed, fetches what is listed where
    /// its date changed, then what is still owed. Passes whose registration failed are registered first.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub async fn sync(&mut self) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        for held in self.state.passes.clone() {
            if !held.registered {
                let service = service_url(&held.url)?;
                self.register(&service, &held.url, &held.id(), &mut outcome).await?;
            }
        }
        for kept in self.state.services.clone() {
            let (url, type_id) = (&kept.url, &kept.type_id);
            let any = |held: &HeldPass| held.url == *url && held.id().type_id == *type_id && held.registered;
            if !self.state.passes.iter().any(any) {
                continue;
            }
            let service = service_url(url)?;
            self.list_changes(&service, url, type_id, &mut outcome).await?;
            self.fetch_owed(&service, url, type_id, &mut outcome).await?;
        }
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Fetches one pass if its date changed, and asks for nothing else.
    ///
    /// # Errors
    /// If the phone does not hold the pass.
    pub async fn refresh(&mut self, pass: &PassId) -> Result<Outcome, Error> {
        let url = self.held(pass)?.url.clone();
        let mut outcome = Outcome::default();
        self.fetch(&service_url(&url)?, pass, true, &mut outcome).await?;
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    /// Unregisters a pass and forgets it, whatever the service says. What is kept of the service, its tag included,
    /// stays.
    ///
    /// # Errors
    /// If the phone does not hold the pass.
    pub async fn remove(&mut self, pass: &PassId) -> Result<Outcome, Error> {
        let held = self.held(pass)?.clone();
        let url = &held.url;
        let device = self.state.service(url, &pass.type_id)?.device.clone();
        let mut outcome = Outcome::default();
        let call = Call {
            method: Method::DELETE,
            url: service_url(url)?.registration(&device, pass),
            auth: Some((pass.type_id.kind(), held.auth_token())),
            secrets: self.secrets(&[device.as_str()]),
            ..Call::default()
        };
        let task = Task::Unregister(&device, pass);
        match self.send(call).await {
            Err(reason) => outcome.complaints.push(task.error(url, &reason, false)),
            Ok(response) => match response.status.as_u16() {
                200 => outcome.unregistered.push(pass.clone()),
                status => outcome.complaints.push(task.error(url, &status_reason(status), true)),
            },
        }
        self.state.passes.retain(|held| !held.is(pass));
        self.post_log(&mut outcome).await;
        Ok(outcome)
    }

    fn held(&self, pass: &PassId) -> Result<&HeldPass, Error> {
        self.state.find(pass).ok_or_else(|| Error::NotHeld(pass.clone()))
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
        let call = Call {
            method: Method::POST,
            url: service.registration(&device, pass),
            auth: Some((pass.type_id.kind(), &auth_token)),
            body: Some(serde_json::json!({ "pushToken": self.state.push_token.as_str() }).to_string()),
            secrets: self.secrets(&[device.as_str()]),
            ..Call::default()
        };
        let task = Task::Register(&device, pass);
        match self.send(call).await {
            Err(reason) => outcome.complaints.push(task.error(url, &reason, false)),
            Ok(response) => match response.status.as_u16() {
                200 | 201 => {
                    if let Some(held) = self.state.find_mut(pass) {
                        held.registered = true;
                        // The list for a tag of before may be silent about the pass.
                        held.fetch_owed |= had_tag;
                    }
                    outcome.registered.push(pass.clone());
                    return Ok(true);
                }
                status => outcome.complaints.push(task.error(url, &status_reason(status), true)),
            },
        }
        Ok(false)
    }

    /// Posts the complaints that a phone would, in one call for each service. No complaint about that is posted.
    async fn post_log(&mut self, outcome: &mut Outcome) {
        let mut urls: Vec<String> =
            outcome.complaints.iter().filter(|one| one.is_logged).map(|one| one.url.clone()).collect();
        urls.sort_unstable();
        urls.dedup();
        for url in urls {
            let Ok(service) = ServiceUrl::new(&url) else { continue };
            let logs: Vec<_> = outcome
                .complaints
                .iter()
                .filter(|one| one.is_logged && one.url == url)
                .map(|one| log_entry(SystemTime::now(), &one.log_text))
                .collect();
            let devices: Vec<_> = self.state.services.iter().map(|kept| kept.device.as_str()).collect();
            let call = Call {
                method: Method::POST,
                url: service.log(),
                body: Some(serde_json::json!({ "logs": logs }).to_string()),
                secrets: self.secrets(&devices),
                ..Call::default()
            };
            if let Ok(response) = self.send(call).await
                && response.status != 200
            {
                let status = response.status.as_u16();
                let text = format!("the log answers {status}; a phone repeats what is not answered 200");
                let (pass, log_text) = (None, String::new());
                outcome.complaints.push(Complaint { url, pass, text, is_logged: false, log_text });
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

    /// Makes a call, and shows it to the observer.
    pub(super) async fn send(&mut self, call: Call<'_>) -> Result<Response, String> {
        let Call { method, url, auth, if_modified_since, body, mut secrets } = call;
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
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) auth: Option<(Kind, &'a AuthToken)>,
    pub(super) if_modified_since: Option<&'a str>,
    /// JSON.
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
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .header(header::USER_AGENT, concat!("passkit-phone/", env!("CARGO_PKG_VERSION")));
    if let Some((kind, token)) = auth {
        let value = format!("{} {}", kind.auth_scheme(), token.as_str());
        request = request.header(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes())?);
    }
    if let Some(date) = if_modified_since {
        request = request.header(header::IF_MODIFIED_SINCE, HeaderValue::from_bytes(date.as_bytes())?);
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(Bytes::from(body.unwrap_or_default().to_owned())))
}

/// Why a status is none of those documented for a call with a token.
pub(super) fn status_reason(status: u16) -> String {
    match status {
        401 => "Authentication failure".into(),
        status => format!("Unexpected response code {status}"),
    }
}
