//! Cases that drop calls before they end.
//!
//! Each call is polled a few times and then dropped. Each round polls once more than the previous
//! round, until a call ends. A store may finish a dropped call in the background. But soon, all
//! reads must show either the state before the call or the state after it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    slice,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use passkit_server::{
    Changed, PassId, PassState,
    store::{Audience, RegistrationStore, StoreError},
};

use crate::{Rule, Violation, violation::ensure};

use super::{
    case::catalogue,
    names::{Device, devices_of, new_passes, new_push_token, serials},
};

catalogue! {
    "store/dropped-register-is-all-or-nothing" Must [C12] store dropped_register_is_all_or_nothing,
        "A call of register is dropped after 0 polls, in the next round after 1 poll, and so on. \
         Soon after each drop, the list of the device and the pages of the pass must agree.",
        "A phone whose connection breaks is half registered. It gets lists but no pushes, or \
         pushes but no lists.";
    "store/dropped-unregister-is-all-or-nothing" Must [C12] store
        dropped_unregister_is_all_or_nothing,
        "A call of unregister is dropped after 0 polls, in the next round after 1 poll, and so on. \
         Soon after each drop, the list of the device and the pages of the pass must agree.",
        "A phone whose connection breaks gets pushes forever for a pass that it deleted.";
    "store/dropped-mark-is-all-or-nothing" Must [C12] store dropped_mark_is_all_or_nothing,
        "A mark of 20 passes is dropped after 0 polls, in the next round after 1 poll, and so on. \
         Soon after each drop, the states of the passes and the list of the device must show all \
         20 marks or none.",
        "Some of the passes that changed together never reach the phones.";
    "store/dropped-mark-all-is-all-or-nothing" Must [C12] store dropped_mark_all_is_all_or_nothing,
        "A mark of an entire type is dropped after 0 polls, in the next round after 1 poll, and so \
         on. Soon after each drop, the states of the passes and the list of the device must show \
         all passes as marked, or none.",
        "Some of the passes keep the old design on the phones.";
    "store/dropped-forget-is-all-or-nothing" Must [C12] store dropped_forget_is_all_or_nothing,
        "A call of forget_device for a device with eight passes is dropped after 0 polls, in the \
         next round after 1 poll, and so on. After each drop, the device registers again.",
        "After a phone comes back, some of its passes are half registered.";
    "store/dropped-call-takes-no-other-along" Must [C12] store dropped_call_takes_no_other_along,
        "Twelve calls of register run in parallel. The first of them is dropped after 0 polls, in \
         the next round after 1 poll, and so on. The other calls run to their end. The same is \
         done with marks. All acknowledged changes must be there.",
        "If the connection of one phone breaks, the store loses registrations of other phones that \
         it was about to write in the same batch.";
}

/// The greatest number of polls before a drop. If a call needs more polls, drops during its last
/// steps are not tested.
pub(super) const MOST_POLLS: usize = 24;

/// The time that a store has to finish or undo a dropped call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Polls `call` at most `polls` times, then drops it. Returns whether the call ended.
pub(super) async fn give_up_after<F: Future>(polls: usize, call: F) -> bool {
    struct GiveUp<'a, F> {
        call: Pin<&'a mut F>,
        left: usize,
    }
    impl<F: Future> Future for GiveUp<'_, F> {
        type Output = bool;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
            if self.left == 0 {
                return Poll::Ready(false);
            }
            self.left -= 1;
            match self.call.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if self.left == 0 => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        }
    }
    GiveUp {
        call: pin!(call),
        left: polls,
    }
    .await
}

pub(super) type Call<'a> = Pin<Box<dyn Future<Output = Result<(), Violation>> + Send + 'a>>;

/// Runs all calls in parallel. Drops the first call after `polls` polls, and runs the other calls
/// to their end.
pub(super) async fn all_but_the_first(
    polls: usize,
    mut calls: Vec<Call<'_>>,
) -> Result<(), Violation> {
    let first = calls.swap_remove(0);
    calls.insert(
        0,
        Box::pin(async move {
            give_up_after(polls, first).await;
            Ok(())
        }),
    );
    let mut result = Ok(());
    poll_fn(|context| {
        calls.retain_mut(|call| match call.as_mut().poll(context) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(violation)) => {
                result = Err(violation);
                false
            }
            Poll::Pending => true,
        });
        if calls.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    result
}

async fn dropped_call_takes_no_other_along(store: &dyn RegistrationStore) -> Result<(), Violation> {
    const AT_ONCE: usize = 12;
    for polls in 0..8 {
        let (type_id, passes) = new_passes(AT_ONCE)?;
        let devices = (0..AT_ONCE)
            .map(|_| Device::new())
            .collect::<Result<Vec<_>, _>>()?;
        let register = |(device, pass)| -> Call<'_> {
            let (device, pass): (&Device, &PassId) = (device, pass);
            Box::pin(async move {
                let call = store.register(&device.id, pass, &device.push_token);
                Ok(call.await.map(drop)?)
            })
        };
        let calls = devices.iter().zip(&passes).map(register).collect();
        all_but_the_first(polls, calls).await?;
        for (device, pass) in devices.iter().zip(&passes).skip(1) {
            device
                .lists_exactly(store, &type_id, [pass], Rule::C12)
                .await?;
        }
        let mark = |pass| -> Call<'_> {
            let pass: &PassId = pass;
            Box::pin(async move {
                let changed = Changed::Passes(slice::from_ref(&pass.serial));
                Ok(store.mark(&pass.type_id, changed).await?)
            })
        };
        all_but_the_first(polls, passes.iter().map(mark).collect()).await?;
        for pass in &passes[1..] {
            ensure(
                Rule::C12,
                store.pass_state(pass).await?.version > 0,
                "a mark that was acknowledged while another call was dropped",
                || "none".into(),
            )?;
        }
    }
    Ok(())
}

/// A check that describes which part of a change is missing, or returns `None` if the change is
/// complete or absent.
pub(super) type Halves<'a> =
    Pin<Box<dyn Future<Output = Result<Option<String>, Violation>> + Send + 'a>>;

/// Calls `halves` until it returns `None`.
pub(super) async fn comes_to_rest<'a>(
    what: &str,
    halves: impl Fn() -> Halves<'a>,
) -> Result<(), Violation> {
    let start = Instant::now();
    loop {
        let Some(halves) = halves().await? else {
            return Ok(());
        };
        if start.elapsed() > TIMEOUT {
            return Err(Violation::new(
                Rule::C12,
                format!("{what} to have taken effect entirely or not at all"),
                halves,
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns whether `device` is registered for `pass`. The result is `Ok(Ok(registered))` if the
/// list of the device and the pages of the pass agree, otherwise `Ok(Err(difference))`.
async fn registered(
    store: &dyn RegistrationStore,
    device: &Device,
    pass: &PassId,
) -> Result<Result<bool, String>, Violation> {
    let listed = device
        .list(store, &pass.type_id, None)
        .await?
        .serials
        .contains(&pass.serial);
    let found = devices_of(store, Audience::Pass(pass), 10, 10).await?;
    let paged = found.iter().find(|one| one.device == device.id);
    Ok(match paged {
        None if listed => Err(
            "the list of the device has the pass, but the pages of the pass lack the \
             device"
                .into(),
        ),
        Some(_) if !listed => Err(
            "the pages of the pass have the device, but the list of the device lacks the \
             pass"
                .into(),
        ),
        Some(one) if one.push_token != device.push_token => {
            Err("a registration with an old push token".into())
        }
        _ => Ok(listed),
    })
}

async fn dropped_register_is_all_or_nothing(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (_, passes) = new_passes(1)?;
    for polls in 0..MOST_POLLS {
        let device = Device::new()?;
        let done = give_up_after(
            polls,
            store.register(&device.id, &passes[0], &device.push_token),
        )
        .await;
        comes_to_rest("a dropped register", || {
            Box::pin(async { Ok(registered(store, &device, &passes[0]).await?.err()) })
        })
        .await?;
        // A phone would repeat the call. After the second call, the phone must be registered.
        store
            .register(&device.id, &passes[0], &device.push_token)
            .await?;
        if registered(store, &device, &passes[0]).await? != Ok(true) {
            return Err(Violation::new(
                Rule::C12,
                "a registration after a second register",
                "none",
            ));
        }
        store.unregister(&device.id, &passes[0]).await?;
        if done {
            break;
        }
    }
    Ok(())
}

async fn dropped_unregister_is_all_or_nothing(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    let (_, passes) = new_passes(1)?;
    for polls in 0..MOST_POLLS {
        let device = Device::registered_for(store, &passes).await?;
        let done = give_up_after(polls, store.unregister(&device.id, &passes[0])).await;
        comes_to_rest("a dropped unregister", || {
            Box::pin(async { Ok(registered(store, &device, &passes[0]).await?.err()) })
        })
        .await?;
        store.unregister(&device.id, &passes[0]).await?;
        if registered(store, &device, &passes[0]).await? != Ok(false) {
            return Err(Violation::new(
                Rule::C12,
                "no registration after a second unregister",
                "one",
            ));
        }
        if done {
            break;
        }
    }
    Ok(())
}

pub(super) async fn states(
    store: &dyn RegistrationStore,
    passes: &[PassId],
) -> Result<Vec<PassState>, Violation> {
    let mut states = Vec::new();
    for pass in passes {
        states.push(store.pass_state(pass).await?);
    }
    Ok(states)
}

type Mark<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// Calls `mark` in each round, and drops the call after a growing number of polls. Ensures that the
/// states of the passes and the list of the device show all passes as marked, or none.
async fn dropped_marks(
    store: &dyn RegistrationStore,
    what: &str,
    mark: impl for<'a> Fn(&'a dyn RegistrationStore, &'a [PassId]) -> Mark<'a>,
) -> Result<(), Violation> {
    let (type_id, passes) = new_passes(20)?;
    let device = Device::registered_for(store, &passes).await?;
    let mut tag = device
        .lists_exactly(store, &type_id, &passes, Rule::CHANGES_SINCE)
        .await?;
    for polls in 0..MOST_POLLS {
        let before = states(store, &passes).await?;
        let done = give_up_after(polls, mark(store, &passes)).await;
        comes_to_rest(what, || {
            Box::pin(async {
                let after = states(store, &passes).await?;
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
                let whole = before
                    .iter()
                    .zip(&after)
                    .all(|(a, b)| (a.version == b.version) == (a.last_modified == b.last_modified));
                // The list is read after the states. A mark between the two reads only makes the
                // list longer.
                let listed = device.list(store, &type_id, Some(tag)).await?.serials.len();
                Ok(match moved {
                    _ if !whole => {
                        Some("a pass with a new version and an old date, or the reverse".into())
                    }
                    0 | 20 if listed >= moved => None,
                    _ => Some(format!("{moved} of 20 passes marked and {listed} listed")),
                })
            })
        })
        .await?;
        mark(store, &passes).await?;
        let listed = device.list(store, &type_id, Some(tag)).await?;
        listed.has(&passes, Rule::C12, "after a second mark")?;
        tag = listed.tag;
        if done {
            break;
        }
    }
    Ok(())
}

async fn dropped_mark_is_all_or_nothing(store: &dyn RegistrationStore) -> Result<(), Violation> {
    dropped_marks(store, "a dropped batch of marks", |store, passes| {
        Box::pin(async move {
            store
                .mark(&passes[0].type_id, Changed::Passes(&serials(passes)))
                .await
        })
    })
    .await
}

async fn dropped_mark_all_is_all_or_nothing(
    store: &dyn RegistrationStore,
) -> Result<(), Violation> {
    dropped_marks(store, "a dropped mark of the type", |store, passes| {
        Box::pin(async move { store.mark(&passes[0].type_id, Changed::All).await })
    })
    .await
}

async fn dropped_forget_is_all_or_nothing(store: &dyn RegistrationStore) -> Result<(), Violation> {
    let (_, passes) = new_passes(8)?;
    let later = SystemTime::now() + Duration::from_secs(3_600);
    for polls in 0..MOST_POLLS {
        let mut device = Device::registered_for(store, &passes).await?;
        let done = give_up_after(polls, store.forget_device(&device.id, later)).await;
        comes_to_rest("a dropped forget_device", || {
            Box::pin(async {
                let mut there = 0;
                for pass in &passes {
                    match registered(store, &device, pass).await? {
                        Ok(registered) => there += usize::from(registered),
                        Err(halves) => return Ok(Some(halves)),
                    }
                }
                Ok((there != 0 && there != passes.len())
                    .then(|| format!("{there} of 8 registrations")))
            })
        })
        .await?;
        // The device registers again with another push token. All its registrations must be there.
        device.push_token = new_push_token()?;
        for pass in &passes {
            store.register(&device.id, pass, &device.push_token).await?;
        }
        for pass in &passes {
            if registered(store, &device, pass).await? != Ok(true) {
                return Err(Violation::new(
                    Rule::C12,
                    "all registrations of a device that registered again",
                    "fewer",
                ));
            }
        }
        store.forget_device(&device.id, later).await?;
        if done {
            break;
        }
    }
    Ok(())
}
