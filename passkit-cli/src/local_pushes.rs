//! A push service on this machine in place of APNs.

use std::{path::Path, time::Duration};

use passkit_apns::local::{LocalApns, Options};
use tokio::sync::mpsc;

use crate::{apns::ApnsOptions, failure::Failure, output::Output};

/// A running push service. It stops when it is dropped.
pub(crate) struct LocalPushes {
    _apns: LocalApns,
    pushes: mpsc::UnboundedReceiver<Push>,
    /// The options that make a web service send its pushes, of any type, to this push service.
    pub(crate) options: ApnsOptions,
    /// The same options as text for a command line.
    pub(crate) arguments: String,
}

pub(crate) struct Push {
    pub(crate) topic: String,
    pub(crate) token: String,
}

impl LocalPushes {
    /// Starts a push service. Writes the files that a web service needs for it into `folder`: a new
    /// key, a configuration that names the key, and the root certificate of the push service.
    pub(crate) async fn start(folder: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::from_error("can't start the push service", &error);
        let (sender, pushes) = mpsc::unbounded_channel();
        let options = Options::new()
            .provider_tokens()
            .without_record()
            .on_push(move |push| {
                let (topic, token) = (push.topic, push.token);
                // This fails only at the end, when the receiver is gone.
                let _ = sender.send(Push { topic, token });
                std::future::ready(())
            });
        let apns = LocalApns::start(options).await.map_err(failed)?;
        let key = apns.issue_token_key().map_err(failed)?;
        let [config, key_file, root] =
            ["apns.toml", "apns.p8", "root.pem"].map(|name| folder.join(name));
        let (key_id, team_id) = (&key.key_id, &key.team_id);
        let text =
            format!("[token]\nkey = \"apns.p8\"\nkey_id = \"{key_id}\"\nteam_id = \"{team_id}\"\n");
        for (file, content) in [
            (&config, text.as_str()),
            (&key_file, &key.key),
            (&root, apns.root_pem()),
        ] {
            // Only the owner can read an `Output`. This matters because one of the files is a key.
            let mut output = Output::create(file, &[])?;
            output.write(content.as_bytes())?;
            output.finish()?;
        }
        let arguments = format!(
            "--apns-config {} --apns-endpoint {}:{} --apns-root {}",
            config.display(),
            apns.host(),
            apns.port(),
            root.display()
        );
        let options = ApnsOptions {
            config: Some(config),
            endpoint: Some((apns.host().to_owned(), apns.port())),
            root: Some(root),
            push_spacing: Duration::from_secs(1),
            ..ApnsOptions::default()
        };
        Ok(Self {
            _apns: apns,
            pushes,
            options,
            arguments,
        })
    }

    /// Waits for the next push.
    pub(crate) async fn next(&mut self) -> Push {
        match self.pushes.recv().await {
            Some(push) => push,
            // The push service never ends by itself.
            None => std::future::pending().await,
        }
    }
}
