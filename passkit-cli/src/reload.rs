//! What SIGHUP changes in a running service.

use std::sync::Arc;

use clap::FromArgMatches as _;

use crate::{
    failure::Failure,
    health::Health,
    logging::{LogLevel, LogOptions},
    options::Options,
    tls::Tls,
};

/// The options that a running service can change.
const CHANGEABLE: [&str; 1] = ["log"];

/// Reads files again.
pub(crate) struct Reload {
    /// The options at the start.
    pub(crate) options: Options,
    pub(crate) level: LogLevel,
    pub(crate) health: Arc<Health>,
    pub(crate) tls: Option<Arc<Tls>>,
}

impl Reload {
    /// Reads the options and the certificates again. Keeps what it has if an option is wrong.
    pub(crate) async fn run(self: &Arc<Self>) {
        let this = self.clone();
        // Files on a network may take long, and phones must not wait for them. If reading panics, nothing changes.
        let _ = tokio::task::spawn_blocking(move || this.read_files()).await;
        self.health.check_certificates().await;
    }

    fn read_files(&self) {
        match self.read_options() {
            Ok(()) => tracing::info!("SIGHUP: the options are read again"),
            Err(failure) => tracing::error!("SIGHUP: no option is changed: {failure}"),
        }
        if let Some(tls) = &self.tls {
            tls.check_files();
        }
    }

    fn read_options(&self) -> Result<(), Failure> {
        let new = self.options.read_again()?;
        let log = match new.matches.subcommand() {
            Some((_, matches)) => LogOptions::from_arg_matches(matches)?,
            None => LogOptions::default(),
        };
        self.level.set(&log);
        for name in self.options.differing(&new) {
            if !CHANGEABLE.contains(&&*name) {
                tracing::warn!(
                    "SIGHUP: {name} has changed: restart the service to use the new value"
                );
            }
        }
        Ok(())
    }
}
