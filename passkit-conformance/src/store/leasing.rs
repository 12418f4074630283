//! Who may work on what a type owes.

use std::time::{Duration, Instant};

use passkit_server::TypeIdentifier;
use tokio::task::JoinSet;

use super::{
    catalogue,
    names::{all, new_type},
    owing::Queue,
};
use crate::{
    Breach, Rule,
    breach::{Kept, demand},
};

catalogue! {
    "queue/one-worker-has-the-lease" Must [Q4] queue one_worker_has_the_lease,
        "20 workers ask for one lease at once, ten times; the holder asks again, others let go of it, then the holder \
         does; types that start alike are leased beside.",
        "Two workers push the same phones, each for the same change.";
    "queue/leases-end-in-time" Must [Q4] queue leases_end_in_time,
        "Takes a lease for 300 ms while another worker asks for it, then prolongs and shortens it.",
        "A worker that died keeps all phones of a type from being told.";
}

const LONG: Duration = Duration::from_secs(600);

/// Demands that the worker is told this.
async fn told(
    queue: &Queue,
    type_id: &TypeIdentifier,
    worker: &str,
    time: Duration,
    wanted: bool,
    when: &str,
) -> Kept {
    let given = queue.lease(type_id, worker, time).await?;
    demand(Rule::Q4, given == wanted, format!("{wanted} for the lease {when}"), || given.to_string())
}

async fn one_worker_has_the_lease(queue: &Queue) -> Kept {
    for _ in 0..10 {
        let type_id = new_type()?;
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            let (queue, type_id) = (queue.clone(), type_id.clone());
            tasks.spawn(async move {
                let worker = format!("worker-{number}");
                let given = queue.lease(&type_id, &worker, LONG).await?;
                Ok::<_, Breach>((worker, given))
            });
        }
        let answers = all(tasks).await?;
        let holders: Vec<_> = answers.iter().filter(|(_, given)| *given).map(|(worker, _)| worker).collect();
        demand(Rule::Q4, holders.len() == 1, "one of 20 workers with the lease", || {
            holders.len().to_string()
        })?;
        let Some(holder) = holders.first() else { continue };
        told(queue, &type_id, holder, LONG, true, "by who has it").await?;
        for other in ["worker", "worker-20", ""] {
            told(queue, &type_id, other, LONG, false, "that another has").await?;
            queue.release(&type_id, other).await?;
        }
        told(queue, &type_id, "worker-20", LONG, false, "that others let go of").await?;

        let beside = [format!("{type_id}.b"), type_id.as_str().replacen("pass.", "order.", 1)];
        for beside in beside {
            let beside = TypeIdentifier::new(&beside)?;
            told(queue, &beside, "worker-20", LONG, true, "of another type").await?;
        }
        queue.release(&type_id, holder).await?;
        told(queue, &type_id, "worker-20", LONG, true, "that its holder let go of").await?;
        told(queue, &type_id, holder, LONG, false, "that it let go of and another has").await?;
    }
    Ok(())
}

async fn leases_end_in_time(queue: &Queue) -> Kept {
    const SHORT: Duration = Duration::from_millis(300);
    let type_id = new_type()?;
    let asked = Instant::now();
    told(queue, &type_id, "a", SHORT, true, "that nobody has").await?;
    while !queue.lease(&type_id, "b", SHORT).await? {
        demand(
            Rule::Q4,
            asked.elapsed() < Duration::from_secs(60),
            "the lease to end in its 300 ms",
            || "not in a minute".into(),
        )?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let elapsed = asked.elapsed();
    // A clock of whole milliseconds may cut one off.
    demand(Rule::Q4, elapsed >= SHORT - Duration::from_millis(2), "a lease of 300 ms", || {
        format!("{elapsed:?}")
    })?;

    // Prolonged it lasts, and shortened it does not. Nobody else asks in between, so nobody else has it.
    told(queue, &type_id, "b", LONG, true, "by who had it").await?;
    tokio::time::sleep(SHORT + Duration::from_millis(100)).await;
    told(queue, &type_id, "a", LONG, false, "that was prolonged").await?;
    told(queue, &type_id, "b", Duration::from_millis(1), true, "by who has it").await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    told(queue, &type_id, "a", LONG, true, "that was shortened").await?;
    told(queue, &type_id, "b", LONG, false, "that ended and another has").await?;
    queue.release(&type_id, "b").await?;
    told(queue, &type_id, "c", LONG, false, "that its former holder let go of").await
}
