use tokio::sync::watch;

use crate::server;

/// The number of times that the user asked the run to end. After the first time, the run ends in an
/// orderly way, and its phones unregister. After the second time, the run stops at once.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<u8>);

impl Stop {
    /// Counts SIGINT and SIGTERM from now on.
    pub(super) fn on_signals() -> Self {
        let (wanted, stop) = watch::channel(0);
        let mut signal = server::stop_signal();
        tokio::spawn(async move {
            for times in 1..=2 {
                signal.await;
                signal = server::stop_signal();
                wanted.send_replace(times);
            }
        });
        Self(stop)
    }

    #[cfg(test)]
    pub(super) fn never() -> Self {
        Self(watch::channel(0).1)
    }

    pub(super) fn is_wanted(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Returns when the user has asked twice to stop.
    pub(super) async fn is_wanted_at_once(&mut self) {
        if self.0.wait_for(|times| *times > 1).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
