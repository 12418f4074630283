mod changing;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, Kind, PushToken, TypeIdentifier},
};

use super::{
    answer::Answer,
    push_service::PushService,
    target::{Instance, Subject, Target},
};
use crate::{
    CaseResult, Exchange, Rule, Stop, Violation,
    message::{SendError, WithCapitals},
    random_hex,
    secrets::Secrets,
    service_url::{ServiceUrl, encoded},
};

/// A running case, with its target, its registrations and its transcript.
pub(crate) struct Session {
    target: Target,
    kind: Kind,
    /// The number of requests. Each request goes to the next instance of the service.
    sent: AtomicUsize,
    notes: Mutex<Notes>,
    left: Arc<Mutex<Left>>,
}

#[derive(Default)]
struct Notes {
    secrets: Secrets,
    devices: usize,
    transcript: Vec<Exchange>,
    /// The transcript keeps at least this number of exchanges, if it is limited.
    kept: Option<usize>,
}

/// What is removed at the end of a case.
#[derive(Default)]
struct Left {
    push_tokens: Vec<PushToken>,
    registered: Vec<(DeviceIdentifier, Subject)>,
}

/// Ends a case about a wrong token, because the same token opens both passes.
pub(crate) fn shared_token(one: &Subject, two: &Subject) -> Stop {
    Stop::Skip(format!(
        "needs {} and {} to have different tokens, as each pass should",
        one.pass, two.pass
    ))
}

/// A device that the case made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: DeviceIdentifier,
    pub(crate) push_token: PushToken,
}

/// The credentials of a call.
#[derive(Clone, Debug)]
pub(crate) enum Auth<'a> {
    /// The header that a phone sends for this pass.
    Token(&'a Subject),
    /// An Authorization header with this value.
    Raw(String),
    /// No header.
    None,
}

/// A call, sent with [`Session::send`].
#[derive(Clone, Debug)]
pub(crate) struct ServiceRequest {
    pub(crate) method: Method,
    /// The path from `/v1/` on, with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
    /// Default: the User-Agent of a phone.
    pub(crate) user_agent: Option<&'static str>,
    /// Whether header names are sent With-Capitals over the network, not in lower case.
    pub(crate) with_capitals: bool,
}

impl ServiceRequest {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let user_agent = Some("passd/1.0 CFNetwork/1568.100.1 Darwin/24.0.0");
        let (headers, body) = (Vec::new(), Bytes::new());
        Self {
            method,
            path: path.into(),
            headers,
            body,
            user_agent,
            with_capitals: false,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn auth(self, auth: &Auth<'_>) -> Self {
        match auth {
            Auth::Token(subject) => {
                let scheme = subject.pass.type_id.kind().auth_scheme();
                self.header(
                    header::AUTHORIZATION,
                    format!("{scheme} {}", subject.token.as_str()),
                )
            }
            Auth::Raw(value) => self.header(header::AUTHORIZATION, value),
            Auth::None => self,
        }
    }

    /// Sets a body of content type JSON.
    pub(crate) fn json(self, body: impl Into<Bytes>) -> Self {
        self.header(header::CONTENT_TYPE, "application/json")
            .body(body)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

impl Session {
    pub(crate) fn new(mut target: Target, kind: Kind) -> Self {
        let mut notes = Notes::default();
        // The case gets new connections. The connections of the previous case may be closed. Or
        // they may be the only connections that the service allows.
        for instance in &mut target.instances {
            instance.client = instance.client.afresh();
        }
        for subject in target.passes.iter().chain(&target.orders) {
            notes.secrets.add(subject.token.as_str(), "<token>");
        }
        for subject in target.rewards().iter() {
            notes.secrets.add(subject.token.as_str(), "<token>");
        }
        Self {
            target,
            kind,
            sent: AtomicUsize::new(0),
            notes: Mutex::new(notes),
            left: Arc::default(),
        }
    }

    /// Makes a session for one of the case's phones. The session has separate connections, and a
    /// separate transcript of the last `kept` exchanges. Its first request goes to the instance
    /// `first`. What it registers is removed at the end of the case.
    pub(crate) fn beside(&self, kept: usize, first: usize) -> Self {
        let beside = Self::new(self.target.clone(), self.kind);
        beside.sent.store(first, Ordering::Relaxed);
        beside.notes().kept = Some(kept);
        Self {
            left: self.left.clone(),
            ..beside
        }
    }

    /// Takes over the transcript of a phone of the case.
    pub(crate) fn show(&self, exchanges: Vec<Exchange>) {
        self.notes().transcript.extend(exchanges);
    }

    /// Returns the last exchanges of a session that keeps only these.
    pub(crate) fn last_exchanges(&self) -> Vec<Exchange> {
        let mut notes = self.notes();
        let first =
            notes.transcript.len() - notes.kept.unwrap_or(usize::MAX).min(notes.transcript.len());
        notes.transcript.split_off(first)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the case is about passes or orders.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether requests go over the network.
    pub(crate) fn is_network(&self) -> bool {
        let mut instances = self.target.instances.iter();
        instances.all(|one| one.client.is_network())
    }

    // What the target provides.

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns all passes of the target, or all orders if the case is about orders.
    pub(crate) fn all(&self) -> &[Subject] {
        match self.kind {
            Kind::Pass => &self.target.passes,
            Kind::Order => &self.target.orders,
        }
    }

    /// Returns all passes and orders of the target.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Subject> {
        self.target.passes.iter().chain(&self.target.orders)
    }

    /// Returns the URL of the service, without trailing slashes.
    pub(crate) fn url(&self) -> &str {
        let first = self.target.instances.first();
        first.map_or("", |one| one.url.as_str())
    }

    /// Returns a pass and an order.
    pub(crate) fn one_of_each(&self) -> Result<(&Subject, &Subject), Stop> {
        match (self.target.passes.first(), self.target.orders.first()) {
            (Some(pass), Some(order)) => Ok((pass, order)),
            _ => Err(Stop::Skip(
                "needs a pass and an order: add them to the target file".into(),
            )),
        }
    }

    /// Returns the first pass.
    pub(crate) fn one(&self) -> Result<&Subject, Stop> {
        self.all().first().ok_or_else(|| self.lacking("one"))
    }

    /// Returns the first two passes for which `fit` returns true.
    fn pair(&self, fit: impl Fn(&Subject, &Subject) -> bool) -> Option<(&Subject, &Subject)> {
        let all = self.all();
        let with_later = |(i, one)| all[i + 1..].iter().map(move |two| (one, two));
        let mut pairs = all.iter().enumerate().flat_map(with_later);
        pairs.find(|(one, two)| fit(one, two))
    }

    /// Returns two passes of one type.
    pub(crate) fn two(&self) -> Result<(&Subject, &Subject), Stop> {
        self.pair(Subject::has_type_of)
            .ok_or_else(|| self.lacking("two of one type"))
    }

    /// Returns two passes of one type with different tokens. Some services use one token for all
    /// passes.
    pub(crate) fn two_with_own_tokens(&self) -> Result<(&Subject, &Subject), Stop> {
        let (one, two) = self.two()?;
        self.pair(|one, two| one.has_type_of(two) && !one.has_token_of(two))
            .ok_or_else(|| shared_token(one, two))
    }

    /// Returns two passes of different types.
    pub(crate) fn two_types(&self) -> Result<(&Subject, &Subject), Stop> {
        self.pair(|one, two| !one.has_type_of(two))
            .ok_or_else(|| self.lacking("two of different types"))
    }

    /// Returns two passes of different types and with different tokens. Two passes with the same
    /// serial number are preferred, because a service may look up the token by serial number alone.
    pub(crate) fn two_types_with_own_tokens(&self) -> Result<(&Subject, &Subject), Stop> {
        let (one, two) = self.two_types()?;
        let fit = |one: &Subject, two: &Subject| !one.has_type_of(two) && !one.has_token_of(two);
        self.pair(|one, two| fit(one, two) && one.pass.serial == two.pass.serial)
            .or_else(|| self.pair(fit))
            .ok_or_else(|| shared_token(one, two))
    }

    /// Returns all passes of the type that has the most passes. There must be at least `least`.
    pub(crate) fn many(&self, least: usize) -> Result<Vec<&Subject>, Stop> {
        let of_type = |type_id: &TypeIdentifier| {
            self.all()
                .iter()
                .filter(|one| one.pass.type_id == *type_id)
                .collect::<Vec<_>>()
        };
        let most = self
            .all()
            .iter()
            .map(|one| of_type(&one.pass.type_id))
            .max_by_key(Vec::len);
        most.filter(|most| most.len() >= least)
            .ok_or_else(|| self.lacking(&format!("{least} of one type")))
    }

    fn lacking(&self, what: &str) -> Stop {
        let word = match self.kind {
            Kind::Pass => "passes",
            Kind::Order => "orders",
        };
        Stop::Skip(format!(
            "needs {what} among the {word}: add them to the target file"
        ))
    }

    /// Skips the case if the target has no way to change a pass. Call this before the first
    /// request.
    pub(crate) fn can_change(&self) -> CaseResult {
        match self.target.change {
            Some(_) => Ok(()),
            None => Err(Stop::Skip(
                "needs a way to change a pass: set change or change_url in the target file".into(),
            )),
        }
    }

    /// Skips the case if the target has no way to save a pass unchanged. Call this before the first
    /// request.
    pub(crate) fn can_save(&self) -> CaseResult {
        match self.target.save {
            Some(_) => Ok(()),
            None => Err(Stop::Skip(
                "needs a way to save a pass unchanged: set save or save_url in the target file"
                    .into(),
            )),
        }
    }

    /// Returns the push service. Skips the case if there is none. Call this before the first
    /// request.
    pub(crate) fn push_service(&self) -> Result<&PushService, Stop> {
        self.target.pushes.as_ref().ok_or_else(|| {
            Stop::Skip("needs the pushes of the service: set push in the target file".into())
        })
    }

    /// Makes a device with a random identifier.
    pub(crate) fn device(&self) -> Result<Device, Stop> {
        self.device_called(str::to_owned)
    }

    /// Makes a device. `form` makes the identifier from 32 random hexadecimal digits.
    pub(crate) fn device_called(&self, form: impl FnOnce(&str) -> String) -> Result<Device, Stop> {
        let unusable =
            |error: &dyn std::fmt::Display| Stop::Error(format!("no random identifier: {error}"));
        let id = form(&random_hex::<16>().map_err(|error| unusable(&error))?);
        let push_token = random_hex::<32>().map_err(|error| unusable(&error))?;
        let device = Device {
            id: DeviceIdentifier::new(&id).map_err(|error| unusable(&error))?,
            push_token: PushToken::new(&push_token).map_err(|error| unusable(&error))?,
        };
        let mut notes = self.notes();
        if let Some(pushes) = &self.target.pushes {
            pushes.watch(&device.push_token);
            self.left().push_tokens.push(device.push_token.clone());
        }
        notes.devices += 1;
        let number = notes.devices;
        notes.secrets.add(&id, format!("<device {number}>"));
        notes
            .secrets
            .add(&push_token, format!("<push token {number}>"));
        Ok(device)
    }

    /// Makes up a pass that the service can't know, with the type and token of `subject`.
    #[expect(clippy::unused_self, reason = "a case asks its session for everything")]
    pub(crate) fn unknown(&self, subject: &Subject) -> Result<Subject, Stop> {
        let unusable = |error: &dyn std::fmt::Display| {
            Stop::Error(format!("no random serial number: {error}"))
        };
        let serial = format!(
            "unknown-{}",
            random_hex::<8>().map_err(|error| unusable(&error))?
        );
        let pass = PassId::new(subject.pass.type_id.as_str(), &serial)
            .map_err(|error| unusable(&error))?;
        Ok(Subject {
            pass,
            token: subject.token.clone(),
        })
    }

    /// Replaces a text in the transcript and in violations.
    pub(crate) fn hide(&self, secret: &str, shown: &str) {
        self.notes().secrets.add(secret, shown);
    }

    // Requests.

    /// The path of a registration.
    pub(crate) fn registration_path(&self, device: &DeviceIdentifier, pass: &PassId) -> String {
        format!(
            "{}/{}",
            self.list_path(device, &pass.type_id),
            encoded(pass.serial.as_str())
        )
    }

    /// The path of a list.
    #[expect(clippy::unused_self, reason = "a case asks its session for everything")]
    pub(crate) fn list_path(&self, device: &DeviceIdentifier, type_id: &TypeIdentifier) -> String {
        format!(
            "/v1/devices/{}/registrations/{}",
            encoded(device.as_str()),
            encoded(type_id.as_str())
        )
    }

    /// The path of a pass.
    #[expect(clippy::unused_self, reason = "a case asks its session for everything")]
    pub(crate) fn pass_path(&self, pass: &PassId) -> String {
        let collection = pass.type_id.kind().collection();
        format!(
            "/v1/{collection}/{}/{}",
            encoded(pass.type_id.as_str()),
            encoded(pass.serial.as_str())
        )
    }

    /// Makes a registration as phones send it.
    pub(crate) fn register_call(&self, device: &Device, subject: &Subject) -> ServiceRequest {
        let body = serde_json::json!({ "pushToken": device.push_token.as_str() }).to_string();
        ServiceRequest::new(
            Method::POST,
            self.registration_path(&device.id, &subject.pass),
        )
        .auth(&Auth::Token(subject))
        .json(body)
    }

    /// Registers a pass on a device. The registration is removed at the end of the case.
    pub(crate) async fn register(
        &self,
        device: &Device,
        subject: &Subject,
    ) -> Result<Answer, Stop> {
        self.will_register(device, subject);
        let answer = self.send(self.register_call(device, subject)).await?;
        Ok(answer.authorized())
    }

    /// Records a registration that the case will make with [`send`](Self::send). The registration
    /// is then removed at the end of the case.
    pub(crate) fn will_register(&self, device: &Device, subject: &Subject) {
        let mut left = self.left();
        if !left
            .registered
            .iter()
            .any(|(id, one)| *id == device.id && one.pass == subject.pass)
        {
            left.registered.push((device.id.clone(), subject.clone()));
        }
    }

    /// Unregisters a pass from a device.
    pub(crate) async fn unregister(
        &self,
        device: &Device,
        subject: &Subject,
    ) -> Result<Answer, Stop> {
        let path = self.registration_path(&device.id, &subject.pass);
        let answer = self
            .send(ServiceRequest::new(Method::DELETE, path).auth(&Auth::Token(subject)))
            .await?
            .authorized();
        if answer.status() == 200 {
            self.left()
                .registered
                .retain(|(id, one)| *id != device.id || one.pass != subject.pass);
        }
        Ok(answer)
    }

    /// Asks for the list of a device.
    pub(crate) async fn list(
        &self,
        device: &Device,
        type_id: &TypeIdentifier,
        tag: Option<&str>,
    ) -> Result<Answer, Stop> {
        let path = self.list_path(&device.id, type_id);
        let path = match tag {
            Some(tag) => format!(
                "{path}?{}={}",
                type_id.kind().since_parameter(),
                encoded(tag)
            ),
            None => path,
        };
        self.send(ServiceRequest::new(Method::GET, path)).await
    }

    /// Makes the request for a pass as phones send it, with the date of an earlier fetch if there
    /// is one.
    pub(crate) fn fetch_call(&self, subject: &Subject, since: Option<&str>) -> ServiceRequest {
        let call = ServiceRequest::new(Method::GET, self.pass_path(&subject.pass))
            .auth(&Auth::Token(subject));
        match since {
            Some(since) => call.header(header::IF_MODIFIED_SINCE, since),
            None => call,
        }
    }

    /// Fetches a pass, with the date of an earlier fetch if there is one.
    pub(crate) async fn fetch(
        &self,
        subject: &Subject,
        since: Option<&str>,
    ) -> Result<Answer, Stop> {
        let answer = self.send(self.fetch_call(subject, since)).await?;
        Ok(answer.authorized())
    }

    /// Sends a call and reads the complete answer. A missing or incomplete answer breaks
    /// [`Rule::HTTP_2`]. If the service can't be reached, the case ends with an error.
    pub(crate) async fn send(&self, call: ServiceRequest) -> Result<Answer, Stop> {
        self.try_send(call).await?.map_err(|error| {
            let actual = self.notes().secrets.hide(&error.to_string());
            Violation::new(
                Rule::HTTP_2,
                "a complete, well-formed answer in time",
                actual,
            )
            .into()
        })
    }

    /// Sends a call. Returns the error if there is no complete answer, for example because the
    /// service hung up.
    pub(crate) async fn try_send(
        &self,
        call: ServiceRequest,
    ) -> Result<Result<Answer, SendError>, Stop> {
        let secrets = self.notes().secrets.clone();
        let method = call.method.clone();
        let at = self.sent.fetch_add(1, Ordering::Relaxed) % self.target.instances.len();
        let Instance { client, url } = &self.target.instances[at];
        let request = request(url, call)
            .map_err(|error| Stop::Error(format!("the request can't be made: {error}")))?;
        let (answer, exchange) = client.send(request, &secrets).await;
        self.note(exchange);
        match answer {
            Err(SendError::Unreachable(reason)) => Err(Stop::Error(format!(
                "the service can't be reached: {}",
                secrets.hide(&reason)
            ))),
            answer => Ok(answer.map(|answer| Answer::new(method, answer, secrets))),
        }
    }

    fn note(&self, exchange: Exchange) {
        let mut notes = self.notes();
        notes.transcript.push(exchange);
        if let Some(kept) = notes.kept
            && notes.transcript.len() >= 2 * kept
        {
            notes.transcript.drain(..kept);
        }
    }

    // The end.

    /// Removes the registrations of the case. Returns the transcript, without these requests.
    pub(crate) async fn end(self) -> Vec<Exchange> {
        let said = std::mem::take(&mut self.notes().transcript);
        let Left {
            registered,
            push_tokens,
        } = std::mem::take(&mut *self.left());
        for (device, subject) in registered {
            let path = self.registration_path(&device, &subject.pass);
            // A failure of this request does not matter, because the case is over.
            if self
                .send(ServiceRequest::new(Method::DELETE, path).auth(&Auth::Token(&subject)))
                .await
                .is_err()
            {
                break;
            }
        }
        if let Some(pushes) = &self.target.pushes {
            for token in &push_tokens {
                pushes.forget(token);
            }
        }
        said
    }
}

fn request(url: &ServiceUrl, call: ServiceRequest) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request =
        Request::builder()
            .method(call.method)
            .uri(format!("{}{}", url.as_str(), call.path));
    if let Some(agent) = call.user_agent {
        request = request.header(header::USER_AGENT, agent);
    }
    if call.with_capitals {
        request = request.extension(WithCapitals);
    }
    for (name, value) in call.headers {
        request = request.header(name, HeaderValue::from_bytes(value.as_bytes())?);
    }
    request.body(Full::new(call.body))
}
