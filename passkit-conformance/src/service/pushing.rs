//! Cases about pushes. The kit is the push service of the target.

use std::{
    pin::{Pin, pin},
    time::{Duration, Instant, SystemTime},
};

use http::header;
use passkit_apns::local::{Answer as PushAnswer, Received};
use serde_json::{Map, Value};

use super::{
    case::catalogue,
    listing::{list, names, registered_and_listed},
    push_service::{Hold, PushService},
    racing::is_same,
    session::{Device, Session},
    steps::{scene, together},
    target::Subject,
};
use crate::{CaseResult, Rule, Stop, Violation};

catalogue! {
    "push/change-is-pushed" Pass Must [PUSH_1] change_is_pushed,
        "A phone registers for a pass. The pass changes. A push must arrive for the push token of the phone.",
        "The phone never asks for the change, and shows old content.";
    "push/order-change-is-pushed" Order Must [PUSH_1 ORD_1] change_is_pushed,
        "A phone registers for an order. The order changes. A push must arrive for the push token of the phone.",
        "The phone never asks for the change, and shows the old state of the order.";
    "push/every-phone-is-pushed" Pass Must [PUSH_1] every_phone_is_pushed,
        "Three phones register for one pass. The pass changes. Each phone must get a push.",
        "Only one phone of the family, or of the owner, shows the change.";
    "push/every-change-is-pushed" Pass Must [PUSH_1] every_change_is_pushed,
        "A phone registers for two passes. One changes, then the other, then the first again. Each change must be \
        followed by a push.",
        "The phone shows the first change, and no later change.";
    "push/change-shows-when-the-push-arrives" Pass Must [PUSH_2] change_shows_when_the_push_arrives,
        "A pass changes. When the push arrives, the phone at once asks for the list with its tag, and fetches \
        the pass. Both must have the change.",
        "The phone asks too early, finds nothing new, and gets no second push. The phone shows old content until \
        the next change.";
    "push/new-push-token-is-pushed" Pass Must [REG_2] new_push_token_is_pushed,
        "A registered phone registers again with a new push token. The pass changes. The new token must get a push.",
        "After its push token changed, the phone gets no more updates.";
    "push/new-push-token-is-for-all-passes" Pass Must [REG_2] new_push_token_is_for_all_passes,
        "A phone with two passes registers one of them again with a new push token. The other pass changes. The new \
        token must get a push.",
        "After its push token changed, the phone gets updates for one pass only.";
    "push/old-push-token-is-not-pushed" Pass Should [PUSH_3] old_push_token_is_not_pushed,
        "A registered phone registers again with a new push token. The pass changes. The old token must get no push.",
        "APNs answers 410 for the old token. If the service then removes the phone, its updates end.";
    "push/second-device-identifier-is-pushed" Pass Must [PUSH_1] second_device_identifier_is_pushed,
        "A phone registers again under another device identifier and with another push token. The pass changes. Both \
        tokens must get a push.",
        "After a restore, the phone gets no more updates.";
    "push/unregistered-phone-is-not-pushed" Pass Should [PUSH_3] unregistered_phone_is_not_pushed,
        "Two phones register for a pass, and one unregisters. The pass changes. Only the phone that is still \
        registered may get a push.",
        "The phone is woken for passes that it no longer has, and complains to the log.";
    "push/other-phones-are-not-pushed" Pass Should [PUSH_3] other_phones_are_not_pushed,
        "Two phones have one pass each, of the same type. One of the passes changes. Only its phone may get a push.",
        "All phones ask for a list after each change of any pass. The phones and the service do needless work.";
    "push/unchanged-pass-is-not-pushed" Pass Should [PUSH_4] unchanged_pass_is_not_pushed,
        "A pass is saved unchanged, then another pass changes. The phone of the unchanged pass must get no push.",
        "The phone is woken although nothing changed. If that happens often, it delays the updates of the type.";
    "push/requests-are-not-pushed" Pass Should [PUSH_4] requests_are_not_pushed,
        "A phone registers, asks for the list, and fetches the pass. Then a pass of another phone changes. The first \
        phone must get no push.",
        "Each request of a phone wakes it again.";
    "push/close-changes-share-a-push" Pass Should [PUSH_5] close_changes_share_a_push,
        "Three passes of a phone change at the same time. The phone must get fewer than three pushes.",
        "A job that changes many passes sends each phone many pushes. The phone then delays the updates of the type.";
    "push/one-push-for-one-token" Pass Advisory [PUSH_5] one_push_for_one_token,
        "Two device identifiers register for a pass with the same push token. The pass changes. The token must get \
        one push.",
        "The phone gets each push twice.";
    "push/gone-token-is-not-pushed-again" Pass Should [PUSH_6] gone_token_is_not_pushed_again,
        "APNs answers 410 for the push token of a phone, with a time after its registration. The pass changes again. \
        The token must get no further push.",
        "The service sends more and more pushes to phones that are gone.";
    "push/registration-after-410-survives" Pass Must [PUSH_6] registration_after_410_survives,
        "APNs answers 410 for the push token of a phone, with a time before its registration. The pass changes again. \
        The phone must get another push, and its list must name the pass.",
        "A phone that registered again after a restore is removed, and gets no more updates.";
    "push/410-of-old-token-keeps-phone" Pass Must [PUSH_6] late_410_keeps_phone,
        "While a push is in flight, the phone registers with a new push token. Then APNs answers 410 for the old token. \
        The pass changes again. The new token must get a push.",
        "Now and then, a phone whose push token changed is removed, and gets no more updates.";
    "push/refused-token-does-not-stop-others" Pass Must [PUSH_7] refused_token_does_not_stop_others,
        "Five phones register for a pass. APNs answers BadDeviceToken for three of them. The pass changes. The other \
        two must get a push.",
        "One phone with a bad push token ends the updates of all others.";
    "push/storm-of-bad-tokens-removes-nobody" Pass Advisory [PUSH_7] storm_removes_nobody,
        "Six phones get a push. Then APNs answers BadDeviceToken for all of them, as if the environment were wrong. \
        Then APNs accepts all of them again. The pass changes once more. All six must get a push.",
        "A wrong setting for a few minutes removes all phones for good.";
    "push/topic-is-the-type" Pass Must [PUSH_8] topic_is_the_type,
        "A pass changes. The topic of the push must be the type identifier of the pass, and the certificate, if there \
        is one, must be for this type.",
        "APNs refuses the push, or the phone ignores it.";
    "push/payload-is-a-dictionary" Pass Must [PUSH_9] payload_is_a_dictionary,
        "A pass changes. The payload of the push must be a JSON dictionary.",
        "APNs refuses the push.";
    "push/payload-is-empty" Pass Should [PUSH_9] payload_is_empty,
        "A pass changes. The payload of the push must be {}.",
        "APNs or the phone may drop the push.";
    "push/headers-are-valid" Pass Must [PUSH_10] headers_are_valid,
        "A pass changes. APNs must accept the headers of the push: type and priority fit, the expiration is a number, \
        and the id is a UUID.",
        "APNs refuses the push.";
    "push/push-type-fits-the-payload" Pass Should [PUSH_10] push_type_fits_the_payload,
        "A pass changes. The push must have the push type background, or no push type.",
        "APNs may delay or drop the push, because its type does not fit its payload.";
    "push/waits-for-phones-that-are-off" Pass Should [PUSH_11] waits_for_phones_that_are_off,
        "A pass changes. The header apns-expiration of the push must not be 0.",
        "A phone that is off or without network at that moment never gets the update.";
}

/// A case expects no more pushes after this time without a push.
const QUIET: Duration = Duration::from_millis(300);
/// The longest wait for a time without pushes.
const SETTLED: Duration = Duration::from_secs(5);
/// How long the service may take to answer a phone while the answer to a push is delayed. After
/// this time, the push is answered, because some services can't answer phones while they send a
/// push.
const BESIDE_A_PUSH: Duration = Duration::from_secs(2);
/// If three changes take longer than this, they do not count as close together.
const CLOSE: Duration = Duration::from_secs(1);

type Task<'a> = Pin<Box<dyn Future<Output = CaseResult> + Send + 'a>>;

impl Session {
    /// Waits until the device has received `count` pushes in total, and returns them.
    async fn pushed(&self, device: &Device, count: usize) -> Result<Vec<Received>, Stop> {
        let service = self.push_service()?;
        let got = || service.pushes(&device.push_token);
        // The first push may take longer, because the service must first connect to its push
        // service.
        let limit = if service.has_pushed() { 1 } else { 3 } * service.wait();
        if service.is_silent() {
            // An earlier case reported that the service sends no pushes.
            let actual = format!("no push since the run began; {}", service.account());
            let violation = Violation::new(Rule::PUSH_1, "a push after the change", actual);
            return Err(Stop::Blocked(violation));
        }
        if service.until(limit, |_| got().len() >= count).await {
            return Ok(got());
        }
        service.waited_in_vain();
        let actual = match got().len() {
            0 => format!("no push within {limit:?}; {}", service.account()),
            some => format!("no further push within {limit:?}, after {some}"),
        };
        Err(Violation::new(Rule::PUSH_1, "a push after the change", actual).into())
    }

    /// Expects that the device got at most `count` pushes. Call this method after a push to another
    /// device has shown that the service has sent its pushes.
    async fn not_pushed(&self, device: &Device, count: usize, rule: Rule, why: &str) -> CaseResult {
        settle(self.push_service()?).await;
        let got = self.push_service()?.pushes(&device.push_token).len();
        if got <= count {
            return Ok(());
        }
        let expected = match count {
            0 => format!("no push to {why}"),
            most => format!("at most {most} pushes to {why}"),
        };
        Err(Violation::new(rule, expected, format!("{got} pushes")).into())
    }

    /// Changes the pass, and returns the push to a new phone.
    async fn one_push(&self) -> Result<(Received, &Subject), Stop> {
        self.can_push()?;
        let pass = self.rested(1)?[0];
        let device = self.device()?;
        self.given(&device, pass).await?;
        self.change(pass).await?;
        let mut pushes = self.pushed(&device, 1).await?;
        Ok((pushes.swap_remove(0), pass))
    }

    /// Skips the case if it can't change passes or see pushes.
    fn can_push(&self) -> CaseResult {
        self.push_service()?;
        self.can_change()
    }

    /// Makes phones that are registered for the pass.
    async fn phones<const COUNT: usize>(&self, pass: &Subject) -> Result<[Device; COUNT], Stop> {
        let mut phones = Vec::new();
        for _ in 0..COUNT {
            let phone = self.device()?;
            self.given(&phone, pass).await?;
            phones.push(phone);
        }
        phones
            .try_into()
            .map_err(|_| Stop::Error("wrong number of phones".into()))
    }

    /// Registers the pass on the device with a new push token.
    async fn with_new_token(&self, device: &Device, pass: &Subject) -> Result<Device, Stop> {
        let renewed = Device {
            id: device.id.clone(),
            push_token: self.device()?.push_token,
        };
        let answer = self.register(&renewed, pass).await?;
        scene(answer.is_one_of(&[200, 201], Rule::REG_1))?;
        Ok(renewed)
    }
}

/// Waits until no push has arrived for a while.
async fn settle(service: &PushService) {
    let start = Instant::now();
    while start.elapsed() < SETTLED {
        let count = service.count();
        if !service
            .until(QUIET, |service| service.count() > count)
            .await
        {
            return;
        }
    }
}

/// Waits for an answer while the answer to a push is delayed. If the answer does not arrive in
/// time, the push is answered, and the wait continues.
async fn beside<T>(hold: &mut Option<Hold>, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    match tokio::time::timeout(BESIDE_A_PUSH, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            hold.take();
            answer.await
        }
    }
}

async fn both(one: Task<'_>, other: Task<'_>) -> CaseResult {
    together([one, other]).await.into_iter().collect()
}

async fn change_is_pushed(session: &Session) -> CaseResult {
    session.one_push().await.map(drop)
}

async fn every_phone_is_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let phones: [Device; 3] = session.phones(pass).await?;
    session.change(pass).await?;
    for phone in &phones {
        session.pushed(phone, 1).await?;
    }
    Ok(())
}

async fn every_change_is_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let passes = session.rested(2)?;
    let device = session.device()?;
    session.given_all(&device, &passes).await?;
    for index in [0, 1, 0] {
        // A late push of an earlier change must not count as a push of this change.
        settle(session.push_service()?).await;
        let before = session.push_service()?.pushes(&device.push_token).len();
        session.change(passes[index]).await?;
        session.pushed(&device, before + 1).await?;
    }
    Ok(())
}

async fn change_shows_when_the_push_arrives(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let device = session.device()?;
    let tag = scene(registered_and_listed(session, &device, &[pass]).await)?;
    let before = session.fetch(pass, None).await?;
    let date = scene(before.archive())?;
    session.rest(pass).await;
    let mut hold = Some(session.push_service()?.hold(&device.push_token));
    let phone = async {
        session.pushed(&device, 1).await?;
        let answer = beside(&mut hold, list(session, &device, pass, Some(&tag))).await?;
        let is_listed = answer.status() == 200 && names(&answer, &[pass], Rule::PUSH_2).is_ok();
        if !is_listed {
            let expected = "a list with the pass, for the phone's tag, when the push arrives";
            let actual = format!("status {}, and no list with the pass", answer.status());
            return Err(answer.violation(Rule::PUSH_2, expected, actual));
        }
        let answer = beside(&mut hold, session.fetch(pass, Some(&date))).await?;
        hold.take();
        if answer.status() == 304 || is_same(&answer, &before) {
            let actual = format!("status {} and the old content", answer.status());
            let expected = "the new content when the push arrives";
            return Err(answer.violation(Rule::PUSH_2, expected, actual));
        }
        Ok(())
    };
    both(Box::pin(session.change_at_once(pass)), Box::pin(phone)).await
}

async fn new_push_token_is_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [device, sentinel] = session.phones(pass).await?;
    let renewed = session.with_new_token(&device, pass).await?;
    session.change(pass).await?;
    session.pushed(&sentinel, 1).await?;
    is_pushed_after_renewal(session, &renewed).await
}

async fn new_push_token_is_for_all_passes(session: &Session) -> CaseResult {
    session.can_push()?;
    let passes = session.rested(2)?;
    let [device, sentinel] = session.phones(passes[0]).await?;
    session.given(&device, passes[1]).await?;
    let renewed = session.with_new_token(&device, passes[1]).await?;
    session.change(passes[0]).await?;
    session.pushed(&sentinel, 1).await?;
    is_pushed_after_renewal(session, &renewed).await
}

/// Expects a push to the new token of a device.
async fn is_pushed_after_renewal(session: &Session, renewed: &Device) -> CaseResult {
    match session.pushed(renewed, 1).await {
        Err(Stop::Fail(_)) => {
            let expected = "a push to the push token that the device registered last";
            let actual = format!(
                "no push to this token within {:?}, but a push to another device",
                session.push_service()?.wait()
            );
            Err(Violation::new(Rule::REG_2, expected, actual).into())
        }
        other => other.map(drop),
    }
}

async fn old_push_token_is_not_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [device, sentinel] = session.phones(pass).await?;
    session.with_new_token(&device, pass).await?;
    session.change(pass).await?;
    session.pushed(&sentinel, 1).await?;
    session
        .not_pushed(&device, 0, Rule::PUSH_3, "the old push token of a device")
        .await
}

async fn second_device_identifier_is_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [old, new] = session.phones(pass).await?;
    session.change(pass).await?;
    session.pushed(&new, 1).await?;
    session.pushed(&old, 1).await.map(drop)
}

async fn unregistered_phone_is_not_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [gone, sentinel] = session.phones(pass).await?;
    let answer = session.unregister(&gone, pass).await?;
    scene(answer.is(200, Rule::UNR_1))?;
    session.change(pass).await?;
    session.pushed(&sentinel, 1).await?;
    let why = "a device that unregistered the pass";
    session.not_pushed(&gone, 0, Rule::PUSH_3, why).await
}

async fn other_phones_are_not_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let passes = session.rested(2)?;
    let [sentinel] = session.phones(passes[0]).await?;
    let [other] = session.phones(passes[1]).await?;
    session.change(passes[0]).await?;
    session.pushed(&sentinel, 1).await?;
    let why = "a device that does not have the changed pass";
    session.not_pushed(&other, 0, Rule::PUSH_3, why).await
}

async fn unchanged_pass_is_not_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    session.can_save()?;
    let passes = session.rested(2)?;
    let [sentinel] = session.phones(passes[0]).await?;
    let [other] = session.phones(passes[1]).await?;
    session.save(passes[1]).await?;
    session.change(passes[0]).await?;
    session.pushed(&sentinel, 1).await?;
    let why = "the device of a pass that was saved unchanged";
    session.not_pushed(&other, 0, Rule::PUSH_4, why).await
}

async fn requests_are_not_pushed(session: &Session) -> CaseResult {
    session.can_push()?;
    let passes = session.rested(2)?;
    let [sentinel] = session.phones(passes[0]).await?;
    let [other] = session.phones(passes[1]).await?;
    list(session, &other, passes[1], None).await?;
    session.fetch(passes[1], None).await?;
    session.change(passes[0]).await?;
    session.pushed(&sentinel, 1).await?;
    let why = "a device that only registered, listed and fetched";
    session.not_pushed(&other, 0, Rule::PUSH_4, why).await
}

async fn close_changes_share_a_push(session: &Session) -> CaseResult {
    const ATTEMPTS: usize = 5;
    session.can_push()?;
    let passes = session.rested(3)?;
    for _ in 0..ATTEMPTS {
        let device = session.device()?;
        session.given_all(&device, &passes).await?;
        for pass in &passes {
            session.rest(pass).await;
        }
        let start = Instant::now();
        let changes = passes.iter().map(|pass| session.change_at_once(pass));
        together(changes)
            .await
            .into_iter()
            .collect::<CaseResult>()?;
        if start.elapsed() <= CLOSE {
            session.pushed(&device, 1).await?;
            let why = format!("a device whose {} passes changed together", passes.len());
            let most = passes.len() - 1;
            return session.not_pushed(&device, most, Rule::PUSH_5, &why).await;
        }
        // A machine that is busy for a moment may need longer.
        for pass in &passes {
            session.unregister(&device, pass).await?;
        }
    }
    Err(Stop::Skip(format!(
        "needs three changes within {CLOSE:?}, but they took longer in {ATTEMPTS} attempts"
    )))
}

async fn one_push_for_one_token(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [one, sentinel] = session.phones(pass).await?;
    let other = Device {
        id: session.device()?.id,
        push_token: one.push_token.clone(),
    };
    session.given(&other, pass).await?;
    session.change(pass).await?;
    session.pushed(&one, 1).await?;
    session.pushed(&sentinel, 1).await?;
    let why = "a push token that two device identifiers share";
    session.not_pushed(&one, 1, Rule::PUSH_5, why).await
}

async fn gone_token_is_not_pushed_again(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [gone, sentinel] = session.phones(pass).await?;
    // The clock of the service may be ahead of the clock of the kit.
    let date = session.fetch(pass, None).await?.header(header::DATE);
    let date = date.and_then(|date| httpdate::parse_http_date(&date).ok());
    let since = date.into_iter().chain([SystemTime::now()]).max();
    let since = since.unwrap_or_else(SystemTime::now) + Duration::from_secs(1);
    let answer = PushAnswer::gone("Unregistered", since);
    session.push_service()?.answer(&gone.push_token, answer);
    session.change(pass).await?;
    session.pushed(&gone, 1).await?;
    session.pushed(&sentinel, 1).await?;
    settle(session.push_service()?).await;
    session.change(pass).await?;
    session.pushed(&sentinel, 2).await?;
    let why = "a push token that is out of use";
    session.not_pushed(&gone, 1, Rule::PUSH_6, why).await
}

/// Expects that a device is still registered and gets pushes, although a push was answered 410.
async fn is_kept(session: &Session, device: &Device, pass: &Subject, pushes: usize) -> CaseResult {
    let kept = "the device still registered, because its registration is newer than the 410";
    let removed = |actual: &str| Stop::from(Violation::new(Rule::PUSH_6, kept, actual));
    session.change(pass).await?;
    match session.pushed(device, pushes).await {
        Err(Stop::Fail(_)) => return Err(removed("no push after the next change")),
        other => drop(other?),
    }
    let answer = list(session, device, pass, None).await?;
    match answer.status() {
        204 => Err(removed("an empty list")),
        _ => answer.is_list(),
    }
}

async fn registration_after_410_survives(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [device] = session.phones(pass).await?;
    let before = SystemTime::now() - Duration::from_secs(3_600);
    let service = session.push_service()?;
    service.answer(&device.push_token, PushAnswer::gone("Unregistered", before));
    session.change(pass).await?;
    session.pushed(&device, 1).await?;
    settle(service).await;
    service.answer(&device.push_token, PushAnswer::accept());
    let pushes = service.pushes(&device.push_token).len();
    is_kept(session, &device, pass, pushes + 1).await
}

async fn late_410_keeps_phone(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [device] = session.phones(pass).await?;
    session.rest(pass).await;
    let service = session.push_service()?;
    // APNs gives the time in whole milliseconds. A time that is a moment later is certainly after
    // the registration.
    let since = SystemTime::now() + Duration::from_millis(100);
    let answer = PushAnswer::gone("Unregistered", since);
    service.answer(&device.push_token, answer);
    let mut hold = Some(service.hold(&device.push_token));
    let mut renewed = None;
    let phone = async {
        session.pushed(&device, 1).await?;
        // A service may store the time of a registration in whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        renewed = Some(beside(&mut hold, session.with_new_token(&device, pass)).await?);
        hold.take();
        Ok(())
    };
    both(Box::pin(session.change_at_once(pass)), Box::pin(phone)).await?;
    settle(service).await;
    let Some(renewed) = renewed else {
        return Err(Stop::Error("the phone did not register again".into()));
    };
    let pushes = service.pushes(&renewed.push_token).len();
    is_kept(session, &renewed, pass, pushes + 1).await
}

async fn refused_token_does_not_stop_others(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let [bad, good, worse, fine, worst] = session.phones(pass).await?;
    for refused in [&bad, &worse, &worst] {
        refuse(session, refused)?;
    }
    session.change(pass).await?;
    for phone in [&good, &fine] {
        if let Err(stop) = session.pushed(phone, 1).await {
            return Err(match stop {
                Stop::Fail(violation) if session.push_service()?.has_pushed() => {
                    Stop::Fail(violation.under(Rule::PUSH_7))
                }
                other => other,
            });
        }
    }
    Ok(())
}

fn refuse(session: &Session, device: &Device) -> CaseResult {
    let answer = PushAnswer::refuse(400, "BadDeviceToken");
    session.push_service()?.answer(&device.push_token, answer);
    Ok(())
}

async fn storm_removes_nobody(session: &Session) -> CaseResult {
    session.can_push()?;
    let pass = session.rested(1)?[0];
    let phones: [Device; 6] = session.phones(pass).await?;
    let service = session.push_service()?;
    session.change(pass).await?;
    for phone in &phones {
        session.pushed(phone, 1).await?;
        refuse(session, phone)?;
    }
    settle(service).await;
    session.change(pass).await?;
    for phone in &phones {
        session.pushed(phone, 2).await?;
    }
    settle(service).await;
    for phone in &phones {
        service.answer(&phone.push_token, PushAnswer::accept());
    }
    let before = phones
        .each_ref()
        .map(|phone| service.pushes(&phone.push_token).len());
    session.change(pass).await?;
    for (phone, before) in phones.iter().zip(before) {
        session
            .pushed(phone, before + 1)
            .await
            .map_err(|stop| match stop {
                Stop::Fail(violation) => Stop::Fail(violation.under(Rule::PUSH_7)),
                other => other,
            })?;
    }
    Ok(())
}

fn text<'a>(push: &'a Received, name: &str) -> Option<&'a str> {
    push.headers
        .get(name)
        .map(|value| value.to_str().unwrap_or("?"))
}

/// Returns the value of a header for a message.
fn shown(push: &Received, name: &str) -> String {
    match text(push, name) {
        Some(value) => format!("{name} {}", value.chars().take(100).collect::<String>()),
        None => format!("no {name}"),
    }
}

fn ensure(rule: Rule, holds: bool, expected: &str, actual: impl Into<String>) -> CaseResult {
    crate::violation::ensure(rule, holds, expected, || actual.into()).map_err(Stop::from)
}

async fn topic_is_the_type(session: &Session) -> CaseResult {
    let (push, pass) = session.one_push().await?;
    let type_id = pass.pass.type_id.as_str();
    let expected = format!("apns-topic {type_id}");
    ensure(
        Rule::PUSH_8,
        push.topic == type_id,
        &expected,
        shown(&push, "apns-topic"),
    )?;
    let certified = &push.certified;
    let fits = certified.is_empty() || certified.iter().any(|one| one == type_id);
    let expected = format!("a certificate for {type_id}");
    let actual = format!(
        "one for {}",
        certified.join(", ").chars().take(100).collect::<String>()
    );
    ensure(Rule::PUSH_8, fits, &expected, actual)
}

fn payload(push: &Received) -> String {
    match push.payload.len() {
        0 => "no payload".to_owned(),
        length => format!(
            "{length} bytes that begin with {:?}",
            String::from_utf8_lossy(&push.payload[..length.min(60)])
        ),
    }
}

fn dictionary(push: &Received) -> Option<Map<String, Value>> {
    serde_json::from_slice(&push.payload).ok()
}

async fn payload_is_a_dictionary(session: &Session) -> CaseResult {
    let (push, _) = session.one_push().await?;
    let is_dictionary = dictionary(&push).is_some();
    ensure(
        Rule::PUSH_9,
        is_dictionary,
        "a JSON dictionary as payload",
        payload(&push),
    )
}

async fn payload_is_empty(session: &Session) -> CaseResult {
    let (push, _) = session.one_push().await?;
    let is_empty = dictionary(&push).is_some_and(|content| content.is_empty());
    ensure(Rule::PUSH_9, is_empty, "the payload {}", payload(&push))
}

/// The push types of Apple's *Sending notification requests to APNs*.
const PUSH_TYPES: [&str; 11] = [
    "alert",
    "background",
    "complication",
    "controls",
    "fileprovider",
    "liveactivity",
    "location",
    "mdm",
    "pushtotalk",
    "voip",
    "widgets",
];

async fn headers_are_valid(session: &Session) -> CaseResult {
    let (push, _) = session.one_push().await?;
    let rule = Rule::PUSH_10;
    let (push_type, priority) = (text(&push, "apns-push-type"), text(&push, "apns-priority"));
    let is_type = push_type.is_none_or(|one| PUSH_TYPES.contains(&one));
    ensure(
        rule,
        is_type,
        "a push type that APNs documents",
        shown(&push, "apns-push-type"),
    )?;
    let is_priority = priority.is_none_or(|one| ["1", "5", "10"].contains(&one));
    ensure(
        rule,
        is_priority,
        "apns-priority 5 or 10",
        shown(&push, "apns-priority"),
    )?;
    let fits = push_type != Some("background") || matches!(priority, Some("1" | "5"));
    let expected = "apns-priority 5 with the push type background";
    ensure(rule, fits, expected, shown(&push, "apns-priority"))?;
    let is_number = text(&push, "apns-expiration").is_none_or(|one| one.parse::<u64>().is_ok());
    let expected = "a number of seconds as apns-expiration";
    ensure(rule, is_number, expected, shown(&push, "apns-expiration"))?;
    let is_id = text(&push, "apns-id").is_none_or(is_uuid);
    ensure(rule, is_id, "a UUID as apns-id", shown(&push, "apns-id"))?;
    let is_short = text(&push, "apns-collapse-id").is_none_or(|one| one.len() <= 64);
    let expected = "an apns-collapse-id of at most 64 bytes";
    ensure(rule, is_short, expected, shown(&push, "apns-collapse-id"))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

async fn push_type_fits_the_payload(session: &Session) -> CaseResult {
    let (push, _) = session.one_push().await?;
    let fits = matches!(text(&push, "apns-push-type"), None | Some("background"));
    let expected = "the push type background or none, because the payload has no alert";
    ensure(
        Rule::PUSH_10,
        fits,
        expected,
        shown(&push, "apns-push-type"),
    )
}

async fn waits_for_phones_that_are_off(session: &Session) -> CaseResult {
    let (push, _) = session.one_push().await?;
    let waits = text(&push, "apns-expiration").is_none_or(|one| one.parse() != Ok(0_u64));
    let expected = "apns-expiration a few days ahead";
    ensure(
        Rule::PUSH_11,
        waits,
        expected,
        shown(&push, "apns-expiration"),
    )
}
