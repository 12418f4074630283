//! Reports to systemd that `serve` answers requests, still runs, or stops. Without systemd, the
//! reports have no effect. See sd_notify(3).

use tokio::task::JoinSet;

/// Reports that the service answers requests. With `WatchdogSec=`, also reports at regular times that
/// the process is not stuck, until the returned value is dropped.
pub(crate) fn ready() -> JoinSet<()> {
    #[cfg_attr(not(target_os = "linux"), expect(unused_mut))]
    let mut watched = JoinSet::new();
    #[cfg(target_os = "linux")]
    {
        use sd_notify::NotifyState::{Ready, Watchdog};
        say(&[Ready]);
        if let Some(limit) = sd_notify::watchdog_enabled() {
            watched.spawn(async move {
                loop {
                    say(&[Watchdog]);
                    tokio::time::sleep(limit / 3).await;
                }
            });
        }
    }
    watched
}

/// Reports that the service finishes the requests in flight and then ends.
pub(crate) fn stopping() {
    #[cfg(target_os = "linux")]
    say(&[sd_notify::NotifyState::Stopping]);
}

#[cfg(target_os = "linux")]
fn say(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("can't reach the service manager at NOTIFY_SOCKET: {error}");
    }
}
