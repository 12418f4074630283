//! Changes passes. The kit waits between changes, because dates have only whole seconds.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::Session;
use crate::{
    CaseResult, Stop,
    service::target::{Act, Subject},
};

/// The longest time for a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// After a failure that took at least this long, no later case tries to change or save a pass.
const HANGS: Duration = Duration::from_secs(20);

impl Session {
    /// Returns at least `count` passes of one type. If there are enough passes, leaves out serial
    /// numbers that clients encode in different ways, because other cases test these.
    pub(crate) fn plain(&self, count: usize) -> Result<Vec<&Subject>, Stop> {
        let is_plain = |one: &&Subject| {
            one.pass
                .serial
                .as_str()
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        let mut chosen = if count == 1 {
            self.all().iter().collect()
        } else {
            self.many(count)?
        };
        if chosen.iter().copied().filter(is_plain).count() >= count {
            chosen.retain(is_plain);
        }
        if chosen.len() < count {
            return Err(self.lacking("one"));
        }
        Ok(chosen)
    }

    /// Returns [plain](Self::plain) passes of one type: those that have not been changed for the
    /// longest time.
    pub(crate) fn rested(&self, count: usize) -> Result<Vec<&Subject>, Stop> {
        let mut chosen = self.plain(count)?;
        let rests = self.target.rests();
        chosen.sort_by_key(|one| rests.get(&one.pass).copied());
        chosen.truncate(count);
        Ok(chosen)
    }

    /// Waits until a new change of the pass gets a later date than all earlier changes.
    ///
    /// Dates have only whole seconds. If a pass changes twice within a second, a careful service
    /// dates the second change one second later. Other services give both changes the same date.
    /// Only the cases about close changes should notice the difference.
    pub(crate) async fn rest(&self, subject: &Subject) {
        let until = self.target.rests().get(&subject.pass).copied();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Waits until the clock is in the first half of a second, so that the next steps are within
    /// the same second.
    pub(crate) async fn early_in_a_second(&self) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_millis();
        if now > 500 {
            tokio::time::sleep(Duration::from_millis(u64::from(1_000 - now))).await;
        }
    }

    /// Changes a pass, at least one second after its last change. Returns when the change is
    /// published.
    pub(crate) async fn change(&self, subject: &Subject) -> CaseResult {
        self.can_change()?;
        self.rest(subject).await;
        self.change_at_once(subject).await
    }

    /// Changes a pass without waiting. Returns when the change is published.
    pub(crate) async fn change_at_once(&self, subject: &Subject) -> CaseResult {
        match &self.target.change {
            Some(change) => self.act(subject, change, "changed").await,
            None => self.can_change(),
        }
    }

    /// Saves a pass unchanged, at least one second after its last change. Returns when the service
    /// has looked at the saved pass.
    pub(crate) async fn save(&self, subject: &Subject) -> CaseResult {
        self.rest(subject).await;
        match &self.target.save {
            Some(save) => self.act(subject, save, "saved").await,
            None => self.can_save(),
        }
    }

    async fn act(&self, subject: &Subject, Act { act, hangs }: &Act, done: &str) -> CaseResult {
        let failed = |reason: String| {
            Stop::Error(format!(
                "{} could not be {done}: {}",
                subject.pass,
                self.notes().secrets.hide(&reason)
            ))
        };
        if hangs.load(Ordering::Relaxed) {
            return Err(failed(
                "an earlier attempt hung, so the kit does not try again".into(),
            ));
        }
        let started = Instant::now();
        let acted = tokio::time::timeout(CHANGE_TIMEOUT, act(subject.pass.clone())).await;
        let now = Instant::now();
        if !matches!(acted, Ok(Ok(()))) && now - started >= HANGS {
            hangs.store(true, Ordering::Relaxed);
        }
        let mut rests = self.target.rests();
        let until = rests
            .get(&subject.pass)
            .copied()
            .filter(|until| *until > now)
            .unwrap_or(now);
        rests.insert(subject.pass.clone(), until + Duration::from_secs(1));
        drop(rests);
        match acted {
            Ok(acted) => acted.map_err(failed),
            Err(_) => Err(failed(format!("not done within {CHANGE_TIMEOUT:?}"))),
        }
    }
}
