//! The operator's page: what became of a pass, its picture, and the state of the service.
//!
//! The page has its own listener, and reads the store through its own connections, so it hardly
//! slows phones.
//! Every page is made on the server, and works without scripts. A small script refreshes the parts
//! that are marked as live.
//!
//! * Nothing is shown without the admin token. No page has a token or a whole device identifier.
//! * All text is escaped by the templates (`templates/page`). The Content-Security-Policy forbids
//!   inline scripts and styles, and everything from other hosts.
//! * A change needs a POST from the page itself.
//!
//! | file | what it has |
//! |---|---|
//! | `answer.rs` | answers, with the headers that all have |
//! | `request.rs` | what a request says: its path, form, cookie and origin |
//! | `session.rs` | who is signed in |
//! | `known.rs` | the types and the numbers of everything that is served |
//! | `search.rs` | finds passes by what somebody typed |
//! | `pass.rs` | the page of a pass, its picture, and the actions |
//! | `overview.rs` | the state of the service |
//! | `view.rs` | the templates |

mod answer;
mod known;
mod overview;
mod pass;
mod request;
mod search;
mod session;
mod view;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use passkit_server::{SourceError, push::Publisher, source::StoredArchives, store::ArchiveStore};
use tokio::sync::Semaphore;

use self::{
    answer::Answer,
    known::Known,
    pass::Cursors,
    request::{Caller, Refusal},
    session::Sessions,
};
use crate::{
    admin::AdminToken,
    failure::{Chain, Failure},
    health::Health,
    listen::Listener,
    log_lines::OnceAMinute,
    server::{self, Limits},
    source::Source,
    store::OpenStore,
    tls::Tls,
};

/// The limit is low, because few people look at the page.
const LIMITS: Limits = Limits {
    connections: 64,
    per_address: None,
};
/// How many pages are made at once. The others wait.
const AT_ONCE: usize = 4;
/// How long a page may wait for its turn, and how long the store may take for each step of a page.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many bytes of archives from the store are kept in memory.
const ARCHIVES: usize = 8 * 1024 * 1024;

/// Everything that the page shows.
pub(crate) struct Page {
    pub(crate) token: AdminToken,
    /// The connections of the page.
    pub(crate) store: OpenStore,
    /// The folders, and the archives that are read through the connections of the page.
    pub(crate) source: Source,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) health: Arc<Health>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Whether this instance records what becomes of a change.
    pub(crate) keeps_records: bool,
    pub(crate) state: State,
}

/// What the page remembers.
#[derive(Default)]
pub(crate) struct State {
    sessions: Sessions,
    wrong_tokens: OnceAMinute,
    known: Known,
    cursors: Cursors,
    turns: Turns,
    /// Whether the log has said that the store fails.
    failing: AtomicBool,
}

struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

/// The listener of the page.
pub(crate) struct PageListener {
    listener: Listener,
    is_loopback: bool,
}

impl PageListener {
    /// Listens. On a loopback address, the page never uses TLS, because no certificate is for such
    /// an address.
    pub(crate) async fn bind(address: SocketAddr, has_tls: bool) -> Result<Self, Failure> {
        let is_loopback = address.ip().is_loopback();
        let (listener, address) = server::bind(address, "--page").await?;
        let scheme = if has_tls && !is_loopback {
            "https"
        } else {
            "http"
        };
        tracing::info!("the operator's page is at {scheme}://{address}/");
        if !has_tls && !is_loopback {
            tracing::warn!(
                "--page sends the admin token without encryption: name a certificate with --tls-cert, or put a TLS proxy in front"
            );
        }
        Ok(Self {
            listener,
            is_loopback,
        })
    }

    /// Answers forever.
    pub(crate) async fn serve(self, page: Page) {
        let tls = page.tls.clone().filter(|_| !self.is_loopback);
        let has_tls = tls.is_some();
        let page = Arc::new(page);
        let service_of = move |client: Option<IpAddr>| {
            let page = page.clone();
            service_fn(move |request: Request<Incoming>| {
                let page = page.clone();
                async move { Ok::<_, Infallible>(page.answer(request, client, has_tls).await.into()) }
            })
        };
        server::serve_each(
            self.listener,
            tls,
            service_of,
            LIMITS,
            std::future::pending(),
            std::future::pending(),
        )
        .await;
    }
}

/// Serves the archives of a store to the page. A page of a pass needs its archive three times, and
/// few pages are open.
pub(crate) fn archives(store: Arc<dyn ArchiveStore>) -> Arc<StoredArchives<Arc<dyn ArchiveStore>>> {
    Arc::new(StoredArchives::new(store).cache_bytes(ARCHIVES))
}

/// Runs slow work on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!("a page can't be made: {error}");
        Refusal::Failed
    })
}

impl Page {
    async fn answer(
        &self,
        request: Request<Incoming>,
        client: Option<IpAddr>,
        has_tls: bool,
    ) -> Answer {
        let caller = Caller::of(&request, client, has_tls);
        let answered = self.try_answer(request, &caller).await;
        answered.unwrap_or_else(|refusal| self.refused(refusal, &caller))
    }

    async fn try_answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        let is_post = match *request.method() {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Err(Refusal::Method),
        };
        if is_post {
            caller.check_origin()?;
        }
        // These need no sign-in, and show nothing.
        match (&*path, is_post) {
            ("/style.css", false) => return Ok(answer::style()),
            ("/live.js", false) => return Ok(answer::script()),
            ("/sign-in", false) => return Ok(view::sign_in("")),
            ("/sign-in", true) => return self.sign_in(request, caller).await,
            // Browsers ask for it, and report a 404 as an error.
            ("/favicon.ico", false) => return Ok(answer::nothing()),
            _ => {}
        }
        let Some(session) = caller
            .session
            .as_ref()
            .filter(|id| self.state.sessions.has(id))
        else {
            return Err(Refusal::SignedOut);
        };
        if (&*path, is_post) == ("/sign-out", true) {
            self.state.sessions.end(session);
            return Ok(Answer::see_other("/sign-in").without_session(caller.is_secure));
        }
        let turn = tokio::time::timeout(PATIENCE, self.state.turns.0.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::Busy)?;
        let query = request::Form::of_query(request.uri().query().unwrap_or_default());
        match (&*path, is_post) {
            ("/", false) => self.overview().await,
            ("/search", false) => self.search(&query).await,
            ("/pass", false) => self.pass_page(&query).await,
            ("/picture", false) => self.picture(&query).await,
            ("/push" | "/download", false) => self.confirm(&path, &query).await,
            ("/push", true) => self.push(&query, caller).await,
            ("/download", true) => self.download(&query, caller).await,
            _ => Err(Refusal::NotFound),
        }
    }

    async fn sign_in(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Result<Answer, Refusal> {
        let sessions = &self.state.sessions;
        let form = request::Form::of_body(request).await?;
        let shown = form.get("token").unwrap_or_default().trim();
        let judged = sessions.judge(caller.network, || self.token.is(shown.as_bytes()));
        if !judged.ok_or(Refusal::TooManyTokens)? {
            self.state.wrong_tokens.log(
                |count| tracing::warn!(client = %caller, count, "the operator's page: a wrong admin token"),
            );
            return Ok(view::sign_in("This is not the admin token.").status(StatusCode::FORBIDDEN));
        }
        let session = sessions.begin().map_err(|error| {
            tracing::error!("can't make a session: {error}");
            Refusal::Failed
        })?;
        tracing::info!(client = %caller, "the operator's page: signed in");
        Ok(Answer::see_other("/").with_session(&session, caller.is_secure))
    }

    /// Waits for the store, for a limited time.
    async fn ask<T, E: Into<SourceError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Refusal> {
        let answered = tokio::time::timeout(PATIENCE, call).await;
        let problem = match answered {
            Ok(Ok(answer)) => {
                self.state.failing.store(false, Ordering::Relaxed);
                return Ok(answer);
            }
            Ok(Err(error)) => Chain(&*error.into()).to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        // The error may name the server of the store, so only the log has it. A page that refreshes
        // itself must not fill the log.
        if !self.state.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("the operator's page can't read the store: {problem}");
        }
        Err(Refusal::Store)
    }

    fn refused(&self, refusal: Refusal, caller: &Caller) -> Answer {
        let signed_in = caller
            .session
            .as_ref()
            .is_some_and(|id| self.state.sessions.has(id));
        match refusal {
            Refusal::SignedOut => Answer::see_other("/sign-in"),
            refusal => view::problem(&refusal, signed_in),
        }
    }
}
