//! Cases in which passes change while devices ask for lists.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::{Duration, Instant},
};

use passkit_server::identifiers::SerialNumber;

use super::{
    answer::Answer,
    archives::readable,
    case::catalogue,
    listing::{is_quiet, list, names},
    session::{Device, Session},
    target::Subject,
};
use crate::{CaseResult, Rule};

catalogue! {
    "list/no-lost-update-under-writers" Pass Must [LIST_5 CON_1] no_lost_update_under_writers,
        "Three passes change in parallel, four times, while four devices keep asking with their tags. Each change \
        must be in a list of each device, and its content must be fetchable. At the end, all lists must be empty.",
        "Now and then, a phone keeps old content, and no later list names the pass. The update is lost forever.";
    "list/registered-in-parallel-is-listed-once" Pass Must [LIST_11 REG_3] registered_in_parallel_is_listed_once,
        "A device sends twenty equal registrations at once and asks what changed. Then it unregisters twenty times at \
        once.",
        "After a phone repeats a slow call, its list names a pass twice, or it can't unregister the pass.";
}

const DEVICES: u32 = 4;

/// The case has only a few rounds, because a careful service dates each change at least one second
/// after the previous change.
const ROUNDS: u32 = 4;

type Task<'a> = Pin<Box<dyn Future<Output = CaseResult> + Send + 'a>>;

/// Runs all tasks at once. The first failure ends all of them.
async fn together(mut tasks: Vec<Task<'_>>) -> CaseResult {
    poll_fn(|context| {
        let mut result = Ok(());
        tasks.retain_mut(|task| match task.as_mut().poll(context) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(stop)) => {
                result = Err(stop);
                false
            }
            Poll::Pending => true,
        });
        if result.is_err() || tasks.is_empty() {
            Poll::Ready(result)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// The state that the tasks of the case share.
struct Race<'a> {
    session: &'a Session,
    passes: Vec<&'a Subject>,
    /// The number of changes of this round that are still in progress.
    writing: AtomicUsize,
    /// For each pass, when its latest completed change began.
    changed: Mutex<BTreeMap<SerialNumber, Instant>>,
    /// How long a list takes.
    list_time: Duration,
}

impl Race<'_> {
    fn changed(&self) -> MutexGuard<'_, BTreeMap<SerialNumber, Instant>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a pass. The delay before the change differs in each round, so that changes and lists
    /// overlap in different ways.
    async fn write(&self, index: u32, pass: &Subject, round: u32) -> CaseResult {
        tokio::time::sleep(self.list_time * (3 * index + round) / 4).await;
        let start = Instant::now();
        self.session.change_at_once(pass).await?;
        self.changed().insert(pass.pass.serial.clone(), start);
        self.writing.fetch_sub(1, SeqCst);
        Ok(())
    }

    /// Asks until all changes of the round are done, and then once more.
    async fn ask(&self, number: u32, poller: &mut Poller) -> CaseResult {
        tokio::time::sleep(self.list_time * number / DEVICES).await;
        for asked in 0.. {
            let is_last = self.writing.load(SeqCst) == 0;
            poller.poll(self).await?;
            if is_last {
                break;
            }
            tokio::time::sleep(Duration::from_millis(if asked < 20 { 1 } else { 20 })).await;
        }
        Ok(())
    }
}

/// A device with its tag. For each pass, it also has the time of the last list that named the pass,
/// and what the device fetched after that list.
struct Poller {
    device: Device,
    fetches: bool,
    tag: Option<String>,
    listed: BTreeMap<SerialNumber, Instant>,
    held: BTreeMap<SerialNumber, Answer>,
}

impl Poller {
    /// Asks for one list, and fetches the listed passes.
    ///
    /// If a change was complete before the device asked, then this list must name the pass, or an
    /// earlier list that arrived after the change began.
    async fn poll(&mut self, race: &Race<'_>) -> CaseResult {
        let done = race.changed().clone();
        let answer = list(
            race.session,
            &self.device,
            race.passes[0],
            self.tag.as_deref(),
        )
        .await?;
        let mut serials = Vec::new();
        if answer.status() != 204 {
            let listed = answer.listed(race.session.kind())?;
            self.tag = Some(listed.tag);
            serials = listed.serials;
        }
        let now = Instant::now();
        // Only the passes of the case are recorded, because a service may send any number of other
        // passes.
        for pass in &race.passes {
            if serials
                .binary_search_by(|one| one.as_str().cmp(pass.pass.serial.as_str()))
                .is_ok()
            {
                self.listed.insert(pass.pass.serial.clone(), now);
            }
        }
        if let Some((lost, _)) = done.iter().find(|(serial, start)| {
            self.listed
                .get(*serial)
                .is_none_or(|listed| listed < *start)
        }) {
            let expected = format!(
                "'{lost}' in the list, because no list has named this pass since it changed"
            );
            return Err(answer.violation(
                Rule::LIST_5,
                expected,
                "a list without this pass, so the update is lost",
            ));
        }
        for serial in serials.iter().filter(|_| self.fetches) {
            let Some(pass) = race.passes.iter().find(|one| one.pass.serial == *serial) else {
                let expected = "only passes that the device registered";
                return Err(answer.violation(Rule::LIST_3, expected, serial));
            };
            // The device fetches without a date, because other cases find a wrong 304.
            let fetched = race.session.fetch(pass, None).await?;
            fetched.archive()?;
            self.held.insert(serial.clone(), fetched);
        }
        Ok(())
    }
}

/// Returns whether two answers have the same version. If both archives can be read, their files are
/// compared. Otherwise the bytes must be equal.
pub(super) fn is_same(one: &Answer, other: &Answer) -> bool {
    match (readable(one), readable(other)) {
        (Some(one), Some(other)) => one.content_digest == other.content_digest,
        _ => one.body() == other.body(),
    }
}

async fn no_lost_update_under_writers(session: &Session) -> CaseResult {
    session.can_change()?;
    let passes = session
        .rested(3)
        .or_else(|_| session.rested(2))
        .or_else(|_| session.rested(1))?;
    for pass in &passes {
        session.rest(pass).await;
    }
    let (writing, changed, list_time) = (AtomicUsize::new(0), Mutex::default(), Duration::ZERO);
    let mut race = Race {
        session,
        passes,
        writing,
        changed,
        list_time,
    };
    let mut pollers = Vec::new();
    for number in 0..DEVICES {
        let device = session.device()?;
        for pass in &race.passes {
            session.given(&device, pass).await?;
        }
        let (listed, held) = (BTreeMap::new(), BTreeMap::new());
        let mut poller = Poller {
            device,
            fetches: number == 0,
            tag: None,
            listed,
            held,
        };
        poller.poll(&race).await?;
        // Fetches make a device slow, so that it asks less often. Only one device fetches, in the
        // last round.
        poller.fetches = false;
        let start = Instant::now();
        poller.poll(&race).await?;
        race.list_time = start.elapsed();
        pollers.push(poller);
    }
    for round in 0..ROUNDS {
        race.writing = AtomicUsize::new(race.passes.len());
        pollers[0].fetches = round + 1 == ROUNDS;
        let race = &race;
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for (index, pass) in (0..).zip(&race.passes) {
            tasks.push(Box::pin(race.write(index, pass, round)));
        }
        for (number, poller) in (0..).zip(&mut pollers) {
            tasks.push(Box::pin(race.ask(number, poller)));
        }
        together(tasks).await?;
    }

    for poller in pollers {
        let again = list(
            session,
            &poller.device,
            race.passes[0],
            poller.tag.as_deref(),
        )
        .await?;
        is_quiet(session.kind(), &again)?;
        for pass in race.passes.iter().filter(|_| poller.fetches) {
            let newest = session.fetch(pass, None).await?;
            if let Some(held) = poller.held.get(&pass.pass.serial)
                && !is_same(held, &newest)
                // If the service builds the same version differently each time, the answers can't
                // be compared.
                && is_same(&session.fetch(pass, None).await?, &newest)
            {
                let expected = format!(
                    "'{}' in a list after its new content is available",
                    pass.pass.serial
                );
                let actual = "old content on a device whose list named the last change";
                return Err(newest.violation(Rule::CON_1, expected, actual));
            }
        }
    }
    Ok(())
}

async fn registered_in_parallel_is_listed_once(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.will_register(&device, one);
    let register = || -> Task<'_> {
        Box::pin(async {
            session
                .register(&device, one)
                .await?
                .is_one_of(&[200, 201], Rule::REG_3)
        })
    };
    together((0..20).map(|_| register()).collect()).await?;
    let answer = list(session, &device, one, None).await?;
    names(&answer, &[one], Rule::LIST_11)?;
    let unregister = || -> Task<'_> {
        Box::pin(async { session.unregister(&device, one).await?.is(200, Rule::UNR_2) })
    };
    together((0..20).map(|_| unregister()).collect()).await?;
    list(session, &device, one, None)
        .await?
        .lists_nothing(session.kind(), Rule::UNR_1)
}
