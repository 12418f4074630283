//! Changing passes, no faster than dates of whole seconds can tell.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::Session;
use crate::{
    CaseResult, Stop,
    service::target::{Act, Subject},
};

/// A change takes no longer than this.
const CHANGE_PATIENCE: Duration = Duration::from_secs(120);
/// What fails after so long is taken to hang, and is not tried again.
const HANGS: Duration = Duration::from_secs(20);

impl Session {
    /// The most rested passes of one type: those whose last change is longest ago. Serial numbers that clients send in
    /// different ways are left to the cases about them, where there are others.
    pub(crate) fn rested(&self, count: usize) -> Result<Vec<&Subject>, Stop> {
        let is_plain = |one: &&Subject| {
            one.pass.serial.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
        };
        let mut chosen = if count == 1 { self.all().iter().collect() } else { self.many(count)? };
        if chosen.iter().copied().filter(is_plain).count() >= count {
            chosen.retain(is_plain);
        }
        if chosen.len() < count {
            return Err(self.lacking("one"));
        }
        let rests = self.target.rests();
        chosen.sort_by_key(|one| rests.get(&one.pass).copied());
        chosen.truncate(count);
        Ok(chosen)
    }

    /// Waits until each second to which a change of the pass may be dated is over.
    ///
    /// Dates have whole seconds. A service that takes care gives the later of two changes within a second the date of
    /// the next one, and others give both the same; what that leads to is for the cases about it to say.
    pub(crate) async fn rest(&self, subject: &Subject) {
        let until = self.target.rests().get(&subject.pass).copied();
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Waits for the first half of a second of the clock, for what has to happen within one.
    pub(crate) async fn early_in_a_second(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
        if now > 500 {
            tokio::time::sleep(Duration::from_millis(u64::from(1_000 - now))).await;
        }
    }

    /// Changes a pass, at least a second after its last change, and returns once the change is published.
    pub(crate) async fn change(&self, subject: &Subject) -> CaseResult {
        self.can_change()?;
        self.rest(subject).await;
        self.change_at_once(subject).await
    }

    /// Changes a pass, however short ago it was changed, and returns once the change is published.
    pub(crate) async fn change_at_once(&self, subject: &Subject) -> CaseResult {
        match &self.target.change {
            Some(change) => self.act(subject, change, "changed").await,
            None => self.can_change(),
        }
    }

    /// Saves a pass as it is, at least a second after its last change, and returns once the service has looked at that.
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
            return Err(failed("the time before it did not end, and it is not tried again".into()));
        }
        let started = Instant::now();
        let acted = tokio::time::timeout(CHANGE_PATIENCE, act(subject.pass.clone())).await;
        let now = Instant::now();
        if !matches!(acted, Ok(Ok(()))) && now - started >= HANGS {
            hangs.store(true, Ordering::Relaxed);
        }
        let mut rests = self.target.rests();
        let until = rests.get(&subject.pass).copied().filter(|until| *until > now).unwrap_or(now);
        rests.insert(subject.pass.clone(), until + Duration::from_secs(1));
        drop(rests);
        match acted {
            Ok(acted) => acted.map_err(failed),
            Err(_) => Err(failed(format!("not done within {CHANGE_PATIENCE:?}"))),
        }
    }
}
