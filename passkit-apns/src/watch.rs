use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use passkit_identity::{FileStamp, Identity};
use rustls::ClientConfig;
use tokio::{sync::Mutex, time::Instant};

use crate::{ApnsError, endpoint::Endpoint};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// During this time before a certificate expires, a warning is logged once a day.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A certificate that is read again when its files change.
pub(crate) struct Watched {
    current: RwLock<Current>,
    /// The generation of `current`. It can be read without the lock.
    generation: AtomicU64,
    interval: Duration,
    started: Instant,
    /// When to check the files next, in milliseconds after `started`.
    due: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Clone)]
struct Current {
    identity: Identity,
    tls: Arc<ClientConfig>,
    /// The number of the certificate. It grows with each renewal.
    generation: u64,
    fingerprint: String,
}

/// Returns the start of the SHA-256 digest of a certificate.
fn fingerprint(identity: &Identity) -> String {
    let certificate = identity.chain().first().map_or(&[][..], |first| first);
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    hex(&digest.as_ref()[..16])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Seen {
    stamp: FileStamp,
    warned: Option<Instant>,
}

impl Watched {
    pub(crate) fn new(
        identity: Identity,
        endpoint: &Endpoint,
        interval: Duration,
    ) -> Result<Self, ApnsError> {
        let tls = endpoint.tls(Some(&identity))?;
        let mut seen = Seen {
            stamp: identity.stamp(),
            warned: None,
        };
        warn_of_expiry(&identity, &mut seen);
        Ok(Self {
            current: RwLock::new(Current {
                fingerprint: fingerprint(&identity),
                identity,
                tls,
                generation: 0,
            }),
            generation: AtomicU64::new(0),
            interval,
            started: Instant::now(),
            due: AtomicU64::new(millis(interval)),
            seen: Mutex::new(seen),
        })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the start of the SHA-256 digest of the certificate.
    pub(crate) fn fingerprint(&self) -> String {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.fingerprint.clone()
    }

    /// Reads the files again if they changed. Returns when the certificate expires.
    pub(crate) async fn expires(&self, endpoint: &Endpoint) -> SystemTime {
        self.check_files(endpoint).await;
        self.current().identity.not_after()
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Returns the TLS configuration for a new connection, and the generation of its certificate.
    /// Fails if the certificate is expired.
    pub(crate) async fn tls(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(Arc<ClientConfig>, u64), ApnsError> {
        self.check_files(endpoint).await;
        let Current {
            identity,
            tls,
            generation,
            ..
        } = self.current();
        if identity.not_after() <= SystemTime::now() {
            let date = httpdate::fmt_http_date(identity.not_after());
            return Err(ApnsError::new(format!(
                "the certificate for {} expired on {date}",
                identity.type_id()
            )));
        }
        Ok((tls, generation))
    }

    /// Checks the files if a check is due. Other pushes use the old certificate meanwhile.
    pub(crate) async fn check_files_if_due(&self, endpoint: &Endpoint) {
        let now = millis(self.started.elapsed());
        let due = self.due.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(self.interval));
        if now >= due
            && self
                .due
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.check_files(endpoint).await;
        }
    }

    async fn check_files(&self, endpoint: &Endpoint) {
        let mut seen = self.seen.lock().await;
        let Current { identity, .. } = self.current();
        let last = seen.stamp;
        let checked = tokio::task::spawn_blocking(move || {
            let stamp = identity.current_stamp();
            (stamp != last).then(|| (stamp, identity.reload()))
        });
        if let Ok(Some((stamp, read))) = checked.await {
            // Broken files are reported once, not at every check.
            seen.stamp = stamp;
            match read
                .and_then(|identity| identity.check_expiry().map(|()| identity))
                .map_err(ApnsError::from)
                .and_then(|identity| Ok((endpoint.tls(Some(&identity))?, identity)))
            {
                Ok((tls, identity)) => {
                    tracing::info!(topic = %identity.type_id(), "using a new certificate for pushes");
                    let generation = self.generation() + 1;
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current {
                        fingerprint: fingerprint(&identity),
                        identity,
                        tls,
                        generation,
                    };
                    self.generation.store(generation, Ordering::Release);
                    seen.warned = None;
                }
                Err(error) => tracing::warn!("{error}; the previous certificate stays in use"),
            }
        }
        warn_of_expiry(&self.current().identity, &mut seen);
    }
}

fn warn_of_expiry(identity: &Identity, seen: &mut Seen) {
    let early = identity.not_before() > SystemTime::now();
    if early && seen.warned.is_none_or(|warned| warned.elapsed() >= DAY) {
        seen.warned = Some(Instant::now());
        let date = httpdate::fmt_http_date(identity.not_before());
        tracing::warn!(
            topic = %identity.type_id(),
            "the certificate for pushes is not valid before {date}, or the clock of this machine is wrong"
        );
    }
    let soon = identity.not_after() <= SystemTime::now() + WARN_BEFORE;
    if soon && seen.warned.is_none_or(|warned| warned.elapsed() >= DAY) {
        seen.warned = Some(Instant::now());
        let date = httpdate::fmt_http_date(identity.not_after());
        let topic = identity.type_id();
        if identity.check_expiry().is_ok() {
            tracing::warn!(%topic, "the certificate for pushes expires on {date}");
        } else {
            tracing::error!(
                %topic,
                "the certificate for pushes expired on {date}: no push is sent, and all pushes stay pending; \
                 put a renewed certificate in its place"
            );
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
