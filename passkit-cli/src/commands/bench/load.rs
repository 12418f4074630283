//! The three parts of a run: all phones register, make visits, and unregister.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use passkit_conformance::load::{Connection, ServiceUrl};
use tokio::{sync::Mutex, task::JoinSet};

use super::{
    caller::Caller,
    phone::{Phone, Visit},
    schedule::{Rate, Schedule},
    stop::Stop,
    tally::Tally,
};
use crate::commands::progress::Progress;

/// How often the live line is drawn.
const TICK: Duration = Duration::from_millis(500);
/// How long a caller pauses after a failure, if no schedule sets the pace.
const REST: Duration = Duration::from_millis(50);
/// Phones have twice as long to unregister as they needed to register, but at least this long.
const UNREGISTER: Duration = Duration::from_secs(10);

/// The phones, and the connections that they use.
pub(super) struct Load {
    phones: Arc<Vec<Mutex<Phone>>>,
    /// The callers. If a part of the run is aborted, the callers that are still working are
    /// dropped.
    callers: Vec<Caller>,
    stop: Stop,
}

/// The action of each phone.
#[derive(Clone, Copy)]
enum Action {
    AddAll,
    RemoveAll,
}

/// A part of a run.
pub(super) struct Part {
    pub(super) tally: Arc<Tally>,
    pub(super) took: Duration,
}

/// The visits.
pub(super) struct Visits {
    pub(super) part: Part,
    pub(super) due: u64,
    /// The number of visits that were due but did not start before the end.
    pub(super) not_begun: u64,
}

impl Load {
    pub(super) fn new(
        phones: Vec<Phone>,
        url: ServiceUrl,
        connection: Connection,
        connections: usize,
        stop: Stop,
    ) -> Self {
        let url = Arc::new(url);
        let tally = Arc::new(Tally::default());
        let others = (1..connections)
            .map(|_| connection.another())
            .collect::<Vec<_>>();
        let callers = std::iter::once(connection)
            .chain(others)
            .map(|connection| Caller {
                connection,
                url: url.clone(),
                tally: tally.clone(),
            })
            .collect();
        Self {
            phones: Arc::new(phones.into_iter().map(Mutex::new).collect()),
            callers,
            stop,
        }
    }

    /// Lets all phones register, as fast as the service answers.
    pub(super) async fn register(&mut self) -> Part {
        let stop = self.stop.clone();
        self.each_phone("phones registered", Action::AddAll, move || {
            !stop.is_wanted()
        })
        .await
    }

    /// Lets all phones unregister, for a limited time.
    pub(super) async fn unregister(&mut self, registering_took: Duration) -> Part {
        let end = Instant::now() + UNREGISTER.max(2 * registering_took);
        self.each_phone("phones unregistered", Action::RemoveAll, move || {
            Instant::now() < end
        })
        .await
    }

    /// Returns how many registrations may be left.
    pub(super) async fn registrations(&self) -> usize {
        let mut registrations = 0;
        for phone in &*self.phones {
            registrations += phone.lock().await.registrations();
        }
        registrations
    }

    pub(super) async fn visit(&mut self, rate: Rate, duration: Duration) -> Visits {
        let tally = Arc::new(Tally::default());
        let schedule = Arc::new(Schedule::new(rate, duration, self.stop.clone()));
        let pace = {
            let schedule = schedule.clone();
            tokio::task::spawn_blocking(move || schedule.pace())
        };
        let phones = self.phones.clone();
        let work = {
            let schedule = schedule.clone();
            move |mut caller: Caller| {
                let (phones, schedule) = (phones.clone(), schedule.clone());
                async move {
                    let count = phones.len() as u64;
                    while let Some(turn) = schedule.next().await {
                        let mut phone = phones[(turn.number % count) as usize].lock().await;
                        let result = phone
                            .visit(Visit::of(turn.number, count), &mut caller)
                            .await;
                        drop(phone);
                        let has_failed = result.is_err();
                        caller.tally.outcome(result, turn.due.elapsed());
                        if has_failed && rate == Rate::Max {
                            tokio::time::sleep(REST).await;
                        }
                    }
                    caller
                }
            }
        };
        let progress = Progress::new("visits", Some(millis(duration)));
        let mut before = (schedule.start, 0);
        let show = || {
            let now = Instant::now();
            let counts = tally.lock();
            let over = counts.done + counts.failed;
            let errors: u64 = counts.errors.values().sum();
            let p99 = counts.visits.quantile(0.99).unwrap_or_default();
            drop(counts);
            let seconds = (now - before.0).as_secs_f64();
            let per_second = (over - before.1) as f64 / seconds.max(0.001);
            let backlog = schedule.backlog();
            progress.show(millis(now - schedule.start), || {
                format!(
                    "{per_second:.0} visits/s  p99 {p99:.1} ms  {errors} errors  {backlog} waiting"
                )
            });
            if seconds >= 1.0 {
                before = (now, over);
            }
        };
        self.all(&tally, work, show).await;
        progress.finish();
        let took = schedule.start.elapsed();
        // If the run was aborted, the thread that sets the pace has ended too, or ends soon.
        let (ended, due) = pace
            .await
            .unwrap_or_else(|_| (Instant::now(), schedule.begun()));
        let begun = schedule.begun();
        let due = due.max(begun); // with `Rate::Max`, a visit is due when it begins
        // A visit that never started has waited at least until the end. Without these visits, a
        // slow service would look fast.
        let mut counts = tally.lock();
        for due in (begun..due).filter_map(|number| schedule.due(number)) {
            counts.visits.add(ended.saturating_duration_since(due));
        }
        drop(counts);
        Visits {
            part: Part { tally, took },
            due,
            not_begun: due - begun,
        }
    }

    /// Makes each phone do the action, several phones at the same time. Gives up if many phones in
    /// a row fail.
    async fn each_phone(
        &mut self,
        what: &'static str,
        action: Action,
        goes_on: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Part {
        let tally = Arc::new(Tally::default());
        let (phones, start) = (self.phones.clone(), Instant::now());
        let hopeless = 2 * self.callers.len();
        let next = Arc::new(AtomicUsize::new(0));
        let failed_in_a_row = Arc::new(AtomicUsize::new(0));
        let work = move |mut caller: Caller| {
            let (phones, goes_on) = (phones.clone(), goes_on.clone());
            let (next, failed_in_a_row) = (next.clone(), failed_in_a_row.clone());
            async move {
                while goes_on() && failed_in_a_row.load(Ordering::Relaxed) < hopeless {
                    let Some(phone) = phones.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    let mut phone = phone.lock().await;
                    let begun = Instant::now();
                    let result = match action {
                        Action::AddAll => phone.add_all(&mut caller).await,
                        Action::RemoveAll => phone.remove_all(&mut caller).await,
                    };
                    match &result {
                        Ok(()) => failed_in_a_row.store(0, Ordering::Relaxed),
                        Err(_) => drop(failed_in_a_row.fetch_add(1, Ordering::Relaxed)),
                    }
                    caller.tally.outcome(result, begun.elapsed());
                }
                caller
            }
        };
        let progress = Progress::new(what, Some(self.phones.len() as u64));
        let show = || {
            let done = tally.lock().done;
            progress.set(done, done);
        };
        self.all(&tally, work, show).await;
        progress.finish();
        Part {
            tally,
            took: start.elapsed(),
        }
    }

    /// Makes every caller do its work. Aborts the work when the user wants to stop at once.
    async fn all<F>(
        &mut self,
        tally: &Arc<Tally>,
        work: impl Fn(Caller) -> F,
        mut show: impl FnMut(),
    ) where
        F: Future<Output = Caller> + Send + 'static,
    {
        let mut working = JoinSet::new();
        for caller in self.callers.drain(..) {
            working.spawn(work(Caller {
                tally: tally.clone(),
                ..caller
            }));
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                over = working.join_next() => match over {
                    Some(Ok(caller)) => self.callers.push(caller),
                    Some(Err(_)) => {}
                    None => return,
                },
                _ = tick.tick() => show(),
                () = self.stop.is_wanted_at_once() => return,
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
