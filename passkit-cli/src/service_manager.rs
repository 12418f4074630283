//! What `serve` tells systemd: that it answers, that it still runs, and that it stops. Without
//! systemd, none of this has an effect. See sd_notify(3).

use tokio::task::JoinSet;

/// Says that the service answers. Until the returned value is dropped, the service manager also
/// hears at regular times that the process is not stuck, if it asked for that (`WatchdogSec=`).
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

/// Says that the service finishes the requests in flight and then ends.
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
