//! The certificates and keys for pushes through APNs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use passkit_apns::{ApnsSender, Config, TokenKey};
use passkit_identity::{Identity, IdentityError, pem};
use passkit_server::{
    delivery::DeliveryRecorder,
    identifiers::TypeIdentifier,
    metrics::Measured,
    push::{Publisher, PushConfig},
};
use serde::Deserialize;

use crate::{
    certificate::{CertPassword, Secret, identity, takes_password},
    failure::Failure,
    store::OpenStore,
    toml_file,
};

/// The certificates for pushes, and how pushes are sent.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ApnsOptions {
    /// The certificate that signs the passes, with its key: the .p12 file that Keychain Access
    /// exports, or PEM. With it, phones get a push when a pass changes.
    #[arg(long = "apns-cert", env = "PASSKIT_APNS_CERT", value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,

    /// The private key of the certificate, if it is in another file: PEM.
    #[arg(
        long = "apns-key",
        env = "PASSKIT_APNS_KEY",
        value_name = "FILE",
        requires = "certificate"
    )]
    pub(crate) key: Option<PathBuf>,

    /// The password of .p12 files and of encrypted keys, if it is not --cert-password. Files in --apns-config may have
    /// their own password.
    #[arg(
        long = "apns-password",
        env = "PASSKIT_APNS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true
    )]
    pub(crate) apns_password: Option<Secret>,

    #[command(flatten)]
    pub(crate) password: CertPassword,

    /// A file that names the certificate of each type, instead of --apns-cert.
    #[arg(
        long = "apns-config",
        env = "PASSKIT_APNS_CONFIG",
        value_name = "FILE.toml",
        conflicts_with = "certificate"
    )]
    pub(crate) config: Option<PathBuf>,

    /// A push service other than Apple's, for tests.
    #[arg(long = "apns-endpoint", env = "PASSKIT_APNS_ENDPOINT", value_name = "HOST:PORT", value_parser = endpoint)]
    pub(crate) endpoint: Option<(String, u16)>,

    /// The root certificate of that push service, in PEM.
    #[arg(long = "apns-root", env = "PASSKIT_APNS_ROOT", value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,

    /// The shortest time between two pushes of a type to one phone.
    #[arg(long, env = "PASSKIT_PUSH_SPACING", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) push_spacing: Duration,
}

fn endpoint(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("there is no port; write HOST:PORT")?;
    let port = port
        .parse()
        .map_err(|_| format!("{port:?} is not a port"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or("must be between 0 and 3600".into())
}

/// The content of `--apns-config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    topic: Vec<Topic>,
    token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topic {
    r#type: String,
    cert: PathBuf,
    key: Option<PathBuf>,
    password: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    key: PathBuf,
    key_id: String,
    team_id: String,
}

/// Certificates and keys that were read and checked.
pub(crate) struct Apns {
    pub(crate) sender: Arc<ApnsSender>,
    spacing: Duration,
    expired: Option<IdentityError>,
}

impl Apns {
    /// Fails if a certificate has expired.
    pub(crate) fn check_expiry(&self) -> Result<(), Failure> {
        match &self.expired {
            Some(error) => Err(Failure::new(error.to_string())),
            None => Ok(()),
        }
    }
}

impl ApnsOptions {
    /// Reads and checks the files. Returns `None` if no option names one.
    pub(crate) fn load(&self) -> Result<Option<Apns>, Failure> {
        let password = self.apns_password.as_ref();
        let password = password.or(self.password.cert_password.as_ref());
        let (identities, token) = match (&self.certificate, &self.config) {
            (Some(certificate), _) => {
                let identity = identity(None, certificate, self.key.as_deref(), password);
                (vec![identity.map_err(Failure::new)?], None)
            }
            (None, Some(file)) => read(file, password)?,
            (None, None) => return Ok(None),
        };
        let expired = identities
            .iter()
            .find_map(|identity| identity.check_expiry().err());
        let mut config = identities.into_iter().fold(Config::new(), Config::identity);
        if let Some(token) = token {
            config = config.token_key(token);
        }
        if let Some((host, port)) = &self.endpoint {
            config = config.endpoint(host, *port);
        }
        if let Some(root) = &self.root {
            config = config.root_certificates(
                pem::read_file(root).map_err(|error| cannot_read(root, &error))?,
            );
        }
        let sender = ApnsSender::new(config).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Some(Apns {
            sender: Arc::new(sender),
            spacing: self.push_spacing,
            expired,
        }))
    }
}

/// Makes the publisher of a store. With certificates, the publisher sends pushes. Without
/// certificates, it records pushes for other processes if they may use the store, and otherwise
/// only marks passes.
///
/// If there is a recorder, it records how far pushes came.
pub(crate) fn publisher(
    store: &OpenStore,
    apns: Option<Apns>,
    recorder: Option<&DeliveryRecorder>,
) -> Arc<Publisher> {
    let OpenStore { store, shared } = store.clone();
    let publisher = match apns {
        Some(Apns {
            sender, spacing, ..
        }) => {
            let config = PushConfig::new().spacing(spacing).exclusive(!shared);
            Publisher::new(store, Arc::new(Measured::new(sender)), config)
        }
        None if shared => Publisher::recording(store),
        None => Publisher::marking(store),
    };
    Arc::new(match recorder {
        Some(recorder) => publisher.delivery_log(recorder.clone()),
        None => publisher,
    })
}

fn cannot_read(file: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::from_error(format!("can't read {}", pem::shown(file)), error)
}

fn read(
    file: &Path,
    usual_password: Option<&Secret>,
) -> Result<(Vec<Identity>, Option<TokenKey>), Failure> {
    let text = toml_file::read(file)?;
    let wrong =
        |problem: &dyn std::fmt::Display| Failure::new(format!("{}: {problem}", file.display()));
    let File { topic, token } =
        toml::from_str(&text).map_err(|error| wrong(&toml_file::explained(&text, &error)))?;
    // The paths in this file are relative to its folder.
    let beside = |path: &Path| file.parent().unwrap_or(Path::new("")).join(path);
    let identities = topic
        .iter()
        .map(
            |Topic {
                 r#type,
                 cert,
                 key,
                 password,
             }| {
                let type_id = TypeIdentifier::new(r#type).map_err(|error| wrong(&error))?;
                let (cert, key) = (beside(cert), key.as_deref().map(beside));
                let password = password
                    .as_ref()
                    .or(usual_password.filter(|_| takes_password(&cert, key.as_deref())));
                identity(Some(&type_id), &cert, key.as_deref(), password)
                    .map_err(|error| wrong(&error))
            },
        )
        .collect::<Result<Vec<_>, _>>()?;
    let token = token
        .map(
            |Token {
                 key,
                 key_id,
                 team_id,
             }| TokenKey::from_file(beside(&key), &key_id, &team_id),
        )
        .transpose()
        .map_err(|error| wrong(&error))?;
    Ok((identities, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_times_are_read_or_explained() {
        assert_eq!(endpoint("127.0.0.1:2197"), Ok(("127.0.0.1".into(), 2197)));
        assert_eq!(endpoint("[::1]:443"), Ok(("::1".into(), 443)));
        assert!(endpoint("api.push.apple.com").is_err() && endpoint("host:port").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["-1", "NaN", "inf", "4000", "1s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
