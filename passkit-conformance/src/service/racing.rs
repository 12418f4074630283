//! Changes and lists at the same time.

use std::{collections::BTreeMap, future::poll_fn, pin::Pin, task::Poll};

use passkit_server::{PassId, SerialNumber};
use tokio::sync::watch;

use super::{
    answer::Answer,
    archives::readable,
    catalogue,
    listing::{is_quiet, list},
    session::{Device, Session},
    target::Subject,
};
use crate::{Rule, Verdict};

catalogue! {
    "list/no-lost-update-under-writers" Pass Must [LIST_5] no_lost_update_under_writers,
        "Passes change in parallel, at most nine times in all, while four devices ask with their tags and fetch what \
         is listed. When all is quiet, what each device holds is compared with what the service serves.",
        "Now and then a phone keeps old content, and no later list names it: the update is lost for ever.";
    "list/registered-in-parallel-is-listed-once" Pass Must [LIST_11 REG_3] registered_in_parallel_is_listed_once,
        "One device registers twenty times at once for a pass and asks what changed; then it unregisters as often at once.",
        "A phone that repeats a call which was slow is told of each pass twice, or never gets rid of it.";
}

const DEVICES: usize = 4;

/// Few, for a careful service dates each a second after the one before.
const CHANGES_OF_ONE: usize = 3;

type Task<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Runs all at once. The first that ends badly ends it.
async fn together(mut tasks: Vec<Task<'_>>) -> Verdict {
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
        if result.is_err() || tasks.is_empty() { Poll::Ready(result) } else { Poll::Pending }
    })
    .await
}

/// A device that asks with each push: its tag, and what it fetched last of each pass.
struct Poller {
    device: Device,
    tag: Option<String>,
    held: BTreeMap<SerialNumber, Answer>,
}

impl Poller {
    /// One list, and the fetching of what it names. Without a date: what a wrong 304 does is seen elsewhere.
    async fn poll(&mut self, session: &Session, passes: &[&Subject]) -> Verdict {
        let answer = list(session, &self.device, passes[0], self.tag.as_deref()).await?;
        if answer.status() == 204 {
            return Ok(());
        }
        let listed = answer.listed(session.kind())?;
        self.tag = Some(listed.tag);
        for serial in listed.serials {
            let Some(pass) = passes.iter().find(|one| one.pass.serial == serial) else {
                let expected = "only passes that the device registered";
                return Err(answer.breach(Rule::LIST_3, expected, serial.to_string()));
            };
            let fetched = session.fetch(pass, None).await?;
            fetched.archive()?;
            self.held.insert(serial, fetched);
        }
        Ok(())
    }
}

/// Whether two answers hold the same version: the same files, where they can be read; else the same bytes, or the same
/// date.
fn is_same(one: &Answer, other: &Answer) -> bool {
    match (readable(one), readable(other)) {
        (Some(one), Some(other)) => one.content_digest == other.content_digest,
        _ => one.body() == other.body() || one.archive().ok() == other.archive().ok(),
    }
}

async fn no_lost_update_under_writers(session: &Session) -> Verdict {
    session.can_change()?;
    let passes = session.rested(3).or_else(|_| session.rested(2)).or_else(|_| session.rested(1))?;
    for pass in &passes {
        session.rest(pass).await;
    }
    let mut pollers = Vec::new();
    for _ in 0..DEVICES {
        let device = session.device()?;
        for pass in &passes {
            session.registered(&device, pass).await?;
        }
        let mut poller = Poller { device, tag: None, held: BTreeMap::new() };
        poller.poll(session, &passes).await?;
        pollers.push(poller);
    }

    let (push, pushed) = watch::channel(());
    {
        let passes = &passes;
        let mut tasks: Vec<Task<'_>> = Vec::new();
        // Each writer holds a sender: when the last is done, the devices learn that there is no more to come.
        for pass in passes {
            for _ in 0..CHANGES_OF_ONE {
                let push = push.clone();
                tasks.push(Box::pin(async move {
                    session.change_at_once(pass).await?;
                    push.send_replace(());
                    Ok(())
                }));
            }
        }
        drop(push);
        for poller in &mut pollers {
            let mut pushed = pushed.clone();
            tasks.push(Box::pin(async move {
                while pushed.changed().await.is_ok() {
                    poller.poll(session, passes).await?;
                }
                Ok(())
            }));
        }
        together(tasks).await?;
    }

    let mut newest: BTreeMap<&PassId, Answer> = BTreeMap::new();
    for pass in &passes {
        newest.insert(&pass.pass, session.fetch(pass, None).await?);
    }
    for mut poller in pollers {
        poller.poll(session, &passes).await?;
        for pass in &passes {
            let (Some(held), Some(newest)) = (poller.held.get(&pass.pass.serial), newest.get(&pass.pass))
            else {
                continue;
            };
            if !is_same(held, newest) {
                let expected =
                    format!("'{}' in a list, after its last change, for each device", pass.pass.serial);
                let actual = "a device with old content that no list names any more";
                return Err(held.breach(Rule::LIST_5, expected, actual));
            }
        }
        let again = list(session, &poller.device, passes[0], poller.tag.as_deref()).await?;
        is_quiet(session.kind(), &again)?;
    }
    Ok(())
}

async fn registered_in_parallel_is_listed_once(session: &Session) -> Verdict {
    let (device, one) = (session.device()?, session.one()?);
    session.will_register(&device, one);
    let register = || -> Task<'_> {
        Box::pin(async { session.register(&device, one).await?.is_one_of(&[200, 201], Rule::REG_3) })
    };
    together((0..20).map(|_| register()).collect()).await?;
    let answer = list(session, &device, one, None).await?;
    super::listing::names(&answer, &[one], Rule::LIST_11)?;
    let unregister =
        || -> Task<'_> { Box::pin(async { session.unregister(&device, one).await?.is(200, Rule::UNR_2) }) };
    together((0..20).map(|_| unregister()).collect()).await?;
    list(session, &device, one, None).await?.is(204, Rule::UNR_1)
}
