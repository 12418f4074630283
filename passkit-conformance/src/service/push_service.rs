//! The push service of a target. It takes the place of APNs. It records the pushes to the devices
//! of the cases, and can delay or refuse the answer to a push.

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use passkit_apns::local::{Answer, LocalApns, Options, Received};
use passkit_server::identifiers::{PushToken, TypeIdentifier};
use tokio::sync::watch;

/// The longest time to wait for a push, unless the settings have another time.
const WAIT: Duration = Duration::from_secs(30);
/// The longest time without an answer to a push that a case holds back.
const HOLD: Duration = Duration::from_secs(20);
/// At most this many pushes to one device are recorded.
const RECORDED: usize = 1_000;
/// The host names of APNs that services use.
const APPLE: [&str; 2] = ["api.push.apple.com", "api.sandbox.push.apple.com"];

/// A push service like APNs, to which the service under test sends its pushes. It speaks HTTP/2
/// over TLS, accepts any client certificate or provider token, and sends nothing to any phone.
///
/// The certificate of the push service is for `localhost`, `127.0.0.1`, `api.push.apple.com`,
/// `api.sandbox.push.apple.com` and the added names. The push service stops when all clones are
/// dropped.
#[derive(Clone)]
pub struct PushService {
    apns: Arc<LocalApns>,
    shared: Arc<Shared>,
    settings: PushSettings,
}

/// Where a [`PushService`] listens, and how long it waits for pushes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PushSettings {
    /// The address to listen on. Default: a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// More host names for the certificate of the push service.
    pub names: Vec<String>,
    /// The private key of the authority, in PEM, from [`PushService::authority_key`]. Default: a
    /// new key. If two runs use the same key, a service that trusts the root certificate of the
    /// first run also trusts the second run.
    pub authority_key: Option<String>,
    /// How long a case waits for a push. Default: 30 s.
    pub wait: Duration,
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            names: Vec::new(),
            authority_key: None,
            wait: WAIT,
        }
    }
}

#[derive(Default)]
struct Shared {
    /// The devices of the running cases, by push token in lower case.
    devices: Mutex<HashMap<String, Watched>>,
    /// Counts all pushes.
    count: watch::Sender<usize>,
    /// How many pushes went to other tokens.
    strangers: AtomicUsize,
    /// Whether any device of a case has got a push.
    has_pushed: AtomicBool,
    /// Whether a case waited in vain for a push before any push had arrived.
    is_silent: AtomicBool,
}

#[derive(Default)]
struct Watched {
    pushes: Vec<Received>,
    /// While this is set, pushes get no answer.
    hold: Option<watch::Receiver<bool>>,
}

/// Delays the answers to the pushes to a device. The answers are sent when this value is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    _open: watch::Sender<bool>,
}

impl Shared {
    fn devices(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, push: Received) {
        let hold = match self.devices().get_mut(&push.token.to_ascii_lowercase()) {
            Some(device) => {
                self.has_pushed.store(true, Ordering::Relaxed);
                if device.pushes.len() < RECORDED {
                    device.pushes.push(push);
                }
                device.hold.clone()
            }
            None => {
                self.strangers.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        self.count.send_modify(|count| *count += 1);
        if let Some(mut hold) = hold {
            // The sender never sends a value. The wait ends when the sender is dropped.
            let _ = tokio::time::timeout(HOLD, hold.changed()).await;
        }
    }
}

impl PushService {
    /// Starts a push service.
    ///
    /// # Errors
    /// Fails if the address is not free, or if the key or a name can't be used.
    ///
    /// # Panics
    /// Panics outside a Tokio runtime with I/O enabled.
    pub async fn start(settings: PushSettings) -> Result<Self, String> {
        let shared = Arc::new(Shared::default());
        let receiver = shared.clone();
        let mut options = Options::new()
            .lenient()
            .without_record()
            .address(settings.listen)
            .on_push(move |push| {
                let shared = receiver.clone();
                async move { shared.take(push).await }
            });
        for name in APPLE
            .into_iter()
            .chain(settings.names.iter().map(|name| &**name))
        {
            options = options.name(name);
        }
        if let Some(key) = &settings.authority_key {
            options = options.authority(key);
        }
        let apns = LocalApns::start(options)
            .await
            .map_err(|error| format!("{error} (address {})", settings.listen))?;
        Ok(Self {
            apns: Arc::new(apns),
            shared,
            settings,
        })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.apns.port()
    }

    /// The root certificate that the service under test must trust, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.apns.root_pem()
    }

    /// The private key of the authority, in PEM, for [`PushSettings::authority_key`].
    #[must_use]
    pub fn authority_key(&self) -> String {
        self.apns.authority_key()
    }

    /// Issues a client certificate for pushes of a type. Returns the certificate and its private
    /// key, in PEM. A service may also use another certificate or a provider token.
    ///
    /// # Errors
    /// Fails if the type can't be part of a certificate.
    pub fn issue(&self, type_id: &TypeIdentifier) -> Result<(String, String), String> {
        let issued = self
            .apns
            .issue(type_id.as_str())
            .map_err(|error| error.to_string())?;
        Ok((issued.certificate, issued.key))
    }

    /// How long a case waits for a push.
    pub(crate) fn wait(&self) -> Duration {
        self.settings.wait
    }

    /// Records the pushes to a device from now on.
    pub(crate) fn watch(&self, token: &PushToken) {
        let watched = Watched::default();
        self.shared.devices().insert(key(token), watched);
    }

    /// Stops recording the pushes to a device.
    pub(crate) fn forget(&self, token: &PushToken) {
        self.shared.devices().remove(&key(token));
    }

    /// Gives this answer to all further pushes to the token.
    pub(crate) fn answer(&self, token: &PushToken, answer: Answer) {
        self.apns.answer_token(token.as_str(), answer);
    }

    /// Gives no answer to pushes to the token until the returned value is dropped.
    pub(crate) fn hold(&self, token: &PushToken) -> Hold {
        let (open, hold) = watch::channel(false);
        if let Some(device) = self.shared.devices().get_mut(&key(token)) {
            device.hold = Some(hold);
        }
        Hold { _open: open }
    }

    /// Returns the pushes to the token so far.
    pub(crate) fn pushes(&self, token: &PushToken) -> Vec<Received> {
        let devices = self.shared.devices();
        let device = devices.get(&key(token));
        device.map_or_else(Vec::new, |device| device.pushes.clone())
    }

    /// Waits until `is_done` returns true, but no longer than `limit`. Returns whether `is_done`
    /// returned true.
    pub(crate) async fn until(&self, limit: Duration, is_done: impl Fn(&Self) -> bool) -> bool {
        let mut count = self.shared.count.subscribe();
        let wait = async {
            while !is_done(self) {
                // This can't fail, because `self` has the sender.
                if count.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Counts all pushes.
    pub(crate) fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Returns whether any device of a case has got a push.
    pub(crate) fn has_pushed(&self) -> bool {
        self.shared.has_pushed.load(Ordering::Relaxed)
    }

    /// Returns whether the service seems to send no pushes at all.
    pub(crate) fn is_silent(&self) -> bool {
        self.shared.is_silent.load(Ordering::Relaxed) && !self.has_pushed()
    }

    /// Records that a case waited for a push in vain.
    pub(crate) fn waited_in_vain(&self) {
        self.shared.is_silent.store(true, Ordering::Relaxed);
    }

    /// Describes what the push service received. A case that got no push puts this into its
    /// message.
    pub(crate) fn account(&self) -> String {
        let (connections, strangers) = (
            self.apns.connections(),
            self.shared.strangers.load(Ordering::Relaxed),
        );
        let mut text = match (connections, strangers) {
            (0, _) => format!("the service made no connection to port {}", self.port()),
            (_, 0) => format!("the service made {connections} connections"),
            _ => format!("{strangers} pushes went to other push tokens"),
        };
        if let Some(last) = self.apns.failed_connections().last() {
            text.push_str(", and ");
            text.push_str(last);
        }
        text
    }

    /// Starts a push service with the files in `folder`, and writes the missing files: the root
    /// certificate, the key of the authority, and a client certificate for each type.
    #[cfg(feature = "cli")]
    pub(crate) async fn in_folder(
        folder: &std::path::Path,
        mut settings: PushSettings,
        types: &[TypeIdentifier],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("can't create {}: {error}", folder.display()))?;
        let key_file = folder.join("root.key");
        settings.authority_key = match std::fs::read_to_string(&key_file) {
            Ok(key) => Some(key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("can't read {}: {error}", key_file.display())),
        };
        let has_key = settings.authority_key.is_some();
        let service = Self::start(settings).await.map_err(|error| match has_key {
            true => format!("{error}; the key is read from {}", key_file.display()),
            false => error,
        })?;
        if !has_key {
            write(&folder.join("root.pem"), service.root_pem())?;
            for type_id in types {
                let _ = std::fs::remove_file(folder.join(format!("{type_id}.pem")));
            }
            write(&key_file, &service.authority_key())?;
        }
        for type_id in types {
            let file = folder.join(format!("{type_id}.pem"));
            if !file.exists() {
                let (certificate, key) = service.issue(type_id)?;
                write(&file, &(certificate + &key))?;
            }
        }
        Ok(service)
    }
}

/// Writes a file that only the owner can read.
#[cfg(feature = "cli")]
fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("can't write {}: {error}", path.display()))
}

fn key(token: &PushToken) -> String {
    token.as_str().to_ascii_lowercase()
}

impl fmt::Debug for PushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushService")
            .field("settings", &self.settings.listen)
            .finish_non_exhaustive()
    }
}
