//! A case whose duration the user can choose. Several phones use the service at once, and remember
//! what they did.

mod phone;
mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use self::{
    phone::{Broken, Phone},
    world::World,
};
use super::{case::catalogue, session::Session};
use crate::{
    CaseResult, Stop, Violation, length,
    random::{self, Random},
};

catalogue! {
    "history/long-history-adds-up" Pass Must [LIST_5 LIST_1 LIST_2 LIST_3 UNR_1 GET_2 CON_1 AUTH_2] long_history_adds_up,
        "Six phones register, unregister, ask what changed and fetch passes, all at once, while the passes change. \
        Some calls have the token of another pass. Each answer is compared with what the phone did before. Then all \
        is quiet, and each phone must have the newest content of all its passes. This is repeated with new phones, \
        for one second, or for the time in --for or PASSKIT_CONFORMANCE_FOR, such as 90s, 10m or 2h. --seed n or \
        PASSKIT_CONFORMANCE_SEED=n makes the same calls again, though not at the same moments.",
        "A fault that needs an unusual order of calls reaches the phones of some users. They lose a registration or an \
        update, or get the pass of another user.";
}

/// The id of the case whose duration the user can choose.
#[cfg(feature = "cli")]
pub(crate) const LONG: &str = "history/long-history-adds-up";

const PHONES: usize = 6;
/// How many times each phone acts in a round. An act is one request or a few.
const ACTS: usize = 24;
/// How many exchanges of a phone are shown if the phone finds a fault.
const SHOWN: usize = 40;

async fn long_history_adds_up(session: &Session) -> CaseResult {
    let (start, time, mut seed) = (Instant::now(), time(session)?, seed(session)?);
    loop {
        round(session, seed)
            .await
            .map_err(|stop| with_seed(stop, seed))?;
        if start.elapsed() >= time {
            return Ok(());
        }
        seed = seed.wrapping_add(1);
    }
}

fn time(session: &Session) -> Result<Duration, Stop> {
    length::given().map_err(|text| {
        let variable = length::VARIABLE;
        Stop::Error(format!(
            "{variable} is {text:?}: write a time such as 90s, 10m or 2h"
        ))
    })?;
    Ok(session.target().time.unwrap_or_else(length::time))
}

fn seed(session: &Session) -> Result<u64, Stop> {
    let given = random::seed().map_err(|text| {
        let variable = random::SEED;
        Stop::Error(format!("{variable} is {text:?}: write a number"))
    })?;
    Ok(session
        .target()
        .seed
        .or(given)
        .unwrap_or_else(Random::short_seed))
}

fn with_seed(stop: Stop, seed: u64) -> Stop {
    let Stop::Fail(found) = stop else {
        return stop;
    };
    let actual = format!("{}; the seed {seed} makes the same calls", found.actual());
    Violation::new(found.rule(), found.expected(), actual).into()
}

/// Each round has new phones. The seed of a round therefore repeats its calls, whatever came before.
async fn round(session: &Session, seed: u64) -> CaseResult {
    let world = Arc::new(World::new(session)?);
    let mut random = Random::new(seed);
    let mut tasks = JoinSet::new();
    if session.can_change().is_ok() {
        for pass in &world.passes {
            session.rest(pass).await;
        }
        for at in 0..world.passes.len() {
            let (world, session) = (world.clone(), session.beside(SHOWN, at));
            let acts = random.below(PHONES * ACTS);
            tasks.spawn(async move {
                let changed = world.change(&session, at, acts).await;
                changed.map(|()| None).map_err(Broken::without_exchanges)
            });
        }
    }
    for number in 0..PHONES {
        let session = session.beside(SHOWN, number);
        let random = Random::new(seed ^ ((number as u64 + 1) << 40));
        let phone = Phone::new(session, world.clone(), random)?;
        tasks.spawn(async move { phone.acts(ACTS).await.map(Some) });
    }
    let phones = all(session, tasks).await?;

    let newest = Arc::new(world.newest(session).await?);
    let mut tasks = JoinSet::new();
    for phone in phones.into_iter().flatten() {
        let newest = newest.clone();
        tasks.spawn(async move { phone.settles(&newest).await });
    }
    all(session, tasks).await.map(drop)
}

/// Waits for all tasks. The first failure ends all tasks, and the case shows the exchanges of the
/// phone that found the failure.
async fn all<T: 'static>(
    session: &Session,
    mut tasks: JoinSet<Result<T, Broken>>,
) -> Result<Vec<T>, Stop> {
    let mut ended = Vec::new();
    while let Some(result) = tasks.join_next().await {
        match result {
            Ok(Ok(value)) => ended.push(value),
            Ok(Err(Broken { stop, exchanges })) => {
                session.show(exchanges);
                return Err(stop);
            }
            Err(error) => return Err(Stop::Error(format!("a task of the case ended: {error}"))),
        }
    }
    Ok(ended)
}
