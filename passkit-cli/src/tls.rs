//! TLS of the service: the handshakes, and the certificate. The certificate is read again when its files change.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use metrics::gauge;
use passkit_identity::{pem, validity_of_certificate};
use passkit_server::text::OneLine;
use rustls::{ServerConfig, crypto::ring, sign::CertifiedKey};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::failure::Failure;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How many handshakes may be unfinished at once. One more handshake ends the oldest.
const HANDSHAKES: usize = 256;
/// How often the files are checked.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// `/readyz` warns this long before the certificate expires.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) const TLS_EXPIRES: &str = "passkit_tls_certificate_not_after_seconds";

/// The certificate of the service and its key. Both are in files.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
    /// The state of the files when they were last read.
    stamp: Mutex<Stamp>,
    handshakes: Unfinished,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    not_after: SystemTime,
}

/// The modification times and lengths of both files.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads and checks both files.
    pub(crate) fn open(certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let stamp = stamp(certificate, key);
        let current = read(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(current),
            stamp: Mutex::new(stamp),
            handshakes: Unfinished::default(),
        })
    }

    /// Sets the metric of the expiry date. Call it after the start of the metrics.
    pub(crate) fn measure(&self) {
        let since_1970 = self
            .current()
            .not_after
            .duration_since(SystemTime::UNIX_EPOCH);
        gauge!(TLS_EXPIRES).set(since_1970.unwrap_or_default().as_secs_f64());
    }

    /// Reads the files again if they have changed. Keeps the current certificate if the new one can't be used.
    pub(crate) fn check_files(&self) {
        let mut last = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.certificate, &self.key);
        if *last == stamp {
            return;
        }
        // A broken file is reported only once.
        *last = stamp;
        match read(&self.certificate, &self.key) {
            Ok(new) => {
                let date = httpdate(new.not_after);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                self.measure();
                tracing::info!("using a new TLS certificate, which expires on {date}");
            }
            Err(failure) => {
                tracing::error!("{failure}; the previous TLS certificate stays in use");
            }
        }
    }

    /// Checks the files from time to time, forever.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            let tls = self.clone();
            // If checking panics, the current certificate stays in use.
            let _ = tokio::task::spawn_blocking(move || tls.check_files()).await;
        }
    }

    /// Returns a warning if the certificate has expired or will expire soon.
    pub(crate) fn warning(&self) -> Option<String> {
        let not_after = self.current().not_after;
        let date = httpdate(not_after);
        let now = SystemTime::now();
        if not_after <= now {
            Some(format!(
                "the TLS certificate expired on {date}, so phones refuse to connect"
            ))
        } else if not_after <= now + WARN_BEFORE {
            Some(format!("the TLS certificate expires on {date}"))
        } else {
            None
        }
    }

    /// Returns when the certificate expires.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.current().not_after
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes the handshake of a new connection.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (number, displaced) = self.handshakes.begin();
        let accepting = TlsAcceptor::from(self.current().config).accept(stream);
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            // The sender was dropped by a newer handshake.
            _ = displaced => Err(io::Error::other("too many unfinished handshakes")),
            () = tokio::time::sleep(HANDSHAKE_TIME) => Err(io::ErrorKind::TimedOut.into()),
        };
        self.handshakes.end(number);
        accepted
    }
}

/// The unfinished handshakes, in their order. Their number is limited. Otherwise clients that never finish a handshake could
/// keep all others waiting.
#[derive(Default)]
struct Unfinished(Mutex<(u64, BTreeMap<u64, oneshot::Sender<()>>)>);

impl Unfinished {
    /// Counts a handshake, and ends the oldest handshake if there are too many. Returns the number of the new handshake, and
    /// a future that is ready once a newer handshake has ended this one.
    fn begin(&self) -> (u64, oneshot::Receiver<()>) {
        let (sender, displaced) = oneshot::channel();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, unfinished) = &mut *state;
        let number = *next;
        *next += 1;
        unfinished.insert(number, sender);
        if unfinished.len() > HANDSHAKES {
            unfinished.pop_first();
        }
        (number, displaced)
    }

    fn end(&self, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.remove(&number);
    }
}

fn httpdate(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|file| {
        let metadata = file.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(certificate: &Path, key: &Path) -> Result<Current, Failure> {
    let file = |path: &Path| {
        pem::read_file(path).map_err(|error| {
            Failure::from_error(format!("can't read {}", pem::shown(path)), &error)
        })
    };
    let wrong = |path: &Path, problem: &dyn std::fmt::Display| {
        Failure::new(format!("{} {problem}", pem::shown(path)))
    };
    let chain =
        pem::certificates(&file(certificate)?).map_err(|error| wrong(certificate, &error))?;
    let private = pem::private_key(&file(key)?).map_err(|error| wrong(key, &error))?;
    let validity = chain
        .first()
        .and_then(|first| validity_of_certificate(first));
    let Some((not_before, not_after)) = validity else {
        return Err(wrong(certificate, &"has a damaged certificate"));
    };
    let now = SystemTime::now();
    if not_after <= now {
        let date = httpdate(not_after);
        return Err(wrong(
            certificate,
            &format!("expired on {date}; renew the certificate"),
        ));
    }
    if not_before > now {
        let date = httpdate(not_before);
        tracing::warn!(
            "{}: the TLS certificate is not valid before {date}, or the clock of this machine is wrong",
            OneLine::path(certificate)
        );
    }
    let provider = ring::default_provider();
    let signing = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| {
            wrong(
                key,
                &format!("has a private key that can't be used: {error}"),
            )
        })?;
    let pair = CertifiedKey::new(chain, signing);
    pair.keys_match().map_err(|_| {
        let certificate = pem::shown(certificate);
        wrong(
            key,
            &format!(
                "has a private key that does not belong to the first certificate in {certificate}"
            ),
        )
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::from_error("can't use TLS", &error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Current {
        config: Arc::new(config),
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_handshake_ends_the_oldest_that_is_unfinished() {
        let handshakes = Unfinished::default();
        let mut begun: Vec<_> = (0..HANDSHAKES).map(|_| handshakes.begin()).collect();
        let is_ended = |begun: &mut Vec<(u64, oneshot::Receiver<()>)>, index: usize| {
            begun[index].1.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(!is_ended(&mut begun, 0));
        begun.push(handshakes.begin());
        assert!(is_ended(&mut begun, 0) && !is_ended(&mut begun, 1));
        // A finished handshake makes room.
        handshakes.end(begun[200].0);
        begun.push(handshakes.begin());
        assert!(!is_ended(&mut begun, 1));
    }
}
