//! Cases with complete sequences of calls, as phones make them.

use http::{Method, header};

use super::{
    answer::Answer,
    case::catalogue,
    fetching::{fetched, is_newer, is_not_sent_again, until_past},
    listing::{is_quiet, list, names, registered_and_listed},
    session::{Auth, Device, ServiceRequest, Session, shared_token},
    target::Subject,
};
use crate::{CaseResult, Rule, Stop};

catalogue! {
    "trace/first-pass" Pass Must [REG_1 LIST_1 GET_9] first_pass,
        "A phone gets its first pass. It registers, asks for the list (200) and fetches the pass (200).",
        "The pass on the phone is never updated.";
    "trace/second-pass" Pass Must [REG_1 LIST_2 GET_9] second_pass,
        "A phone gets a second pass of the type. It registers, asks for the list with its first tag (200 or 204), \
        and fetches the pass (200).",
        "The second pass is never updated, or the phone fetches the first pass again with each further pass.";
    "trace/update" Pass Must [LIST_2 GET_2 LIST_7] update,
        "A pass changes. The phone lists (200), fetches with the old date (200), lists again (204), and fetches \
        with the new date (304).",
        "The update does not arrive, or arrives again and again.";
    "trace/order-update" Order Must [LIST_2 GET_2 LIST_7 ORD_1] update,
        "An order changes. The phone lists (200), fetches with the old date (200), lists again (204), and fetches \
        with the new date (304).",
        "The update does not arrive, or arrives again and again.";
    "trace/two-passes-changed" Pass Must [LIST_2 GET_2] two_passes_changed,
        "Two passes change before the phone asks. One list names both passes (200), and each pass is fetched (200).",
        "One of the two updates is lost.";
    "trace/two-changes-before-the-phone-acts" Pass Must [LIST_2 GET_2] two_changes_before_the_phone_acts,
        "A pass changes twice before the phone asks. The pass is listed once (200) and fetched (200), and the next \
        list is empty (204).",
        "The phone fetches the pass once for each change, or again and again.";
    "trace/change-between-list-and-fetch" Pass Must [CON_1] change_between_list_and_fetch,
        "A pass changes again after it was listed. The fetch returns the new version (200), the next list names the \
        pass (200), and the next fetch gets a 304.",
        "If the fetch or the next list misses the second change, that change is lost forever.";
    "trace/nothing-to-report" Pass Must [LIST_7 LOG_1] nothing_to_report,
        "A push arrives without a change. The list is empty (204), and the phone complains to the log (200).",
        "The phone fetches an unchanged pass, or repeats its complaint forever.";
    "trace/registered-again" Pass Must [REG_1 LIST_11] registered_again,
        "A phone repeats the same registration (200), and asks for the list (200), which names the pass once.",
        "The phone tries again forever, or its list names the same pass twice.";
    "trace/new-push-token" Pass Must [REG_1 LIST_2] new_push_token,
        "A registered phone registers with a new push token (200). The pass changes and is listed (200).",
        "After its push token changed, the phone gets no more updates.";
    "trace/new-device-identifier" Pass Must [REG_1 LIST_2] new_device_identifier,
        "A phone registers again under another identifier. The pass changes. The lists of both identifiers name the pass \
        (200).",
        "After a restore, the phone gets no more updates.";
    "trace/deleted" Pass Must [UNR_1] deleted,
        "One of two passes is deleted from the phone (200). The list names only the other pass. The deleted pass \
        can still be fetched.",
        "The phone gets pushes and lists about passes that it no longer has.";
    "trace/deleted-twice" Pass Must [UNR_2] deleted_twice,
        "A phone unregisters a pass that it never registered (200). Then it registers, and unregisters twice (200, 200).",
        "The phone repeats the call until it gives up, and reports the failure to the log.";
    "trace/order-deleted-twice" Order Must [UNR_2 ORD_1] deleted_twice,
        "A phone unregisters an order that it never registered (200). Then it registers, and unregisters twice (200, 200).",
        "The phone repeats the call until it gives up.";
    "trace/one-after-the-other-deleted" Pass Must [UNR_3] one_after_the_other_deleted,
        "One of two passes is deleted (200). The other pass changes and is listed (200). Then the other pass is \
        deleted too (200), and the list is empty (204).",
        "When a user deletes one pass, the phone gets no more updates for the others.";
    "trace/added-again" Pass Must [REG_1 GET_9] added_again,
        "A pass is deleted (200) and added again. The phone lists with the old tag (200 or 204) and without a tag (200), \
        and fetches without a date (200).",
        "A pass that was once deleted is never updated again.";
    "trace/updates-off-and-on" Pass Must [UNR_1 REG_1 GET_2] updates_off_and_on,
        "The user switches updates off (200), and the phone lists (204). The user switches updates on. The phone \
        lists with the old tag (200 or 204) and without a tag (200), and fetches with its date (304).",
        "After the switch, the phone gets no more updates, or loads the pass again each time.";
    "trace/wrong-token" Pass Must [AUTH_2] wrong_token,
        "A stranger registers, unregisters and fetches with the token of another pass, without a token, and with \
        another scheme (401). The list stays the same.",
        "A stranger reads the pass, or ends its updates.";
    "trace/unknown-pass" Pass Must [REG_6] unknown_pass,
        "A phone registers, unregisters and fetches a serial number that does not exist (401).",
        "Anyone can find out which serial numbers exist, or fill the database.";
    "trace/same-serial-in-two-types" Pass Must [AUTH_2] same_serial_in_two_types,
        "A pass of another type has the same serial number. It is requested with the token of the first pass (401). \
        The list of the other type stays empty.",
        "Anyone who has one pass can read a pass of another type with the same serial number.";
    "trace/shared-pass" Pass Must [UNR_3 LIST_2] shared_pass,
        "Two phones register for one pass. The pass changes and is listed. One phone deletes the pass (200), and the list \
        of the other phone still names it.",
        "When one family member deletes the pass, the others get no more updates.";
    "trace/pull-to-refresh" Pass Must [GET_2] pull_to_refresh,
        "The owner pulls to refresh, and the phone fetches with the date (304). The pass changes. The owner pulls \
        again, and the phone fetches the new content (200).",
        "The owner pulls to refresh, and sees old content.";
    "trace/answer-lost" Pass Must [LIST_10] answer_lost,
        "A list names a change (200), but the answer is lost. The phone asks again with its old tag, and gets the \
        same list (200).",
        "Updates are lost after each network failure.";
    "trace/order-from-apple-pay" Order Must [ORD_3 REG_1 LIST_1] order_from_apple_pay,
        "An order is made with Apple Pay. The phone fetches the order (200), registers, and asks for the list (200).",
        "The order never appears in the wallet.";
}

/// A phone with passes of one type. The phone has registered, listed and fetched them.
struct Phone<'a> {
    session: &'a Session,
    device: Device,
    tag: String,
    /// Each pass with its date.
    passes: Vec<(&'a Subject, String)>,
}

impl<'a> Phone<'a> {
    async fn with(session: &'a Session, passes: Vec<&'a Subject>) -> Result<Self, Stop> {
        let device = session.device()?;
        let tag = registered_and_listed(session, &device, &passes).await?;
        let mut dated = Vec::new();
        for pass in passes {
            dated.push((pass, fetched(session, pass).await?));
        }
        Ok(Self {
            session,
            device,
            tag,
            passes: dated,
        })
    }

    /// Changes one of the passes, in a later second than the date of the version on the phone.
    async fn change(&self, index: usize) -> CaseResult {
        let (pass, date) = &self.passes[index];
        until_past(date).await;
        self.session.change(pass).await
    }

    /// Asks for the list with the tag.
    async fn list(&self) -> Result<Answer, Stop> {
        list(
            self.session,
            &self.device,
            self.passes[0].0,
            Some(&self.tag),
        )
        .await
    }

    /// Asks for the list with the tag, expects exactly these passes, and keeps the new tag.
    async fn is_told_of(&mut self, expected: &[&Subject], rule: Rule) -> CaseResult {
        self.tag = names(&self.list().await?, expected, rule)?;
        Ok(())
    }

    async fn is_up_to_date(&self) -> CaseResult {
        is_quiet(self.session.kind(), &self.list().await?)
    }

    /// Fetches a pass that changed, and keeps its new date.
    async fn fetches_new(&mut self, index: usize) -> CaseResult {
        let (pass, date) = &mut self.passes[index];
        let answer = self.session.fetch(pass, Some(date)).await?;
        is_newer(&answer, date)?;
        *date = answer.archive()?;
        Ok(())
    }

    async fn has_newest(&self, index: usize) -> CaseResult {
        let (pass, date) = &self.passes[index];
        is_not_sent_again(self.session, pass, date).await
    }
}

async fn first_pass(session: &Session) -> CaseResult {
    Phone::with(session, vec![session.one()?]).await.map(drop)
}

async fn second_pass(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    let phone = Phone::with(session, vec![one]).await?;
    session.given(&phone.device, two).await?;
    let answer = phone.list().await?;
    if answer.status() != 204 {
        names(&answer, &[two], Rule::LIST_2)?;
    }
    fetched(session, two).await.map(drop)
}

async fn update(session: &Session) -> CaseResult {
    session.can_change()?;
    let mut phone = Phone::with(session, session.rested(1)?).await?;
    let pass = phone.passes[0].0;
    phone.change(0).await?;
    phone.is_told_of(&[pass], Rule::LIST_2).await?;
    phone.fetches_new(0).await?;
    phone.is_up_to_date().await?;
    phone.has_newest(0).await
}

async fn two_passes_changed(session: &Session) -> CaseResult {
    session.can_change()?;
    let both = session.rested(2)?;
    let mut phone = Phone::with(session, both.clone()).await?;
    phone.change(0).await?;
    phone.change(1).await?;
    phone.is_told_of(&both, Rule::LIST_2).await?;
    phone.fetches_new(0).await?;
    phone.fetches_new(1).await
}

async fn two_changes_before_the_phone_acts(session: &Session) -> CaseResult {
    session.can_change()?;
    let mut phone = Phone::with(session, session.rested(1)?).await?;
    let pass = phone.passes[0].0;
    phone.change(0).await?;
    session.change_at_once(pass).await?;
    phone.is_told_of(&[pass], Rule::LIST_2).await?;
    phone.fetches_new(0).await?;
    phone.is_up_to_date().await
}

async fn change_between_list_and_fetch(session: &Session) -> CaseResult {
    session.can_change()?;
    let mut phone = Phone::with(session, session.rested(1)?).await?;
    let pass = phone.passes[0].0;
    phone.change(0).await?;
    phone.is_told_of(&[pass], Rule::LIST_2).await?;
    session.change_at_once(pass).await?;
    phone.fetches_new(0).await?;
    phone.is_told_of(&[pass], Rule::CON_1).await?;
    phone.has_newest(0).await?;
    phone.is_up_to_date().await
}

async fn nothing_to_report(session: &Session) -> CaseResult {
    let phone = Phone::with(session, vec![session.one()?]).await?;
    phone.is_up_to_date().await?;
    let complaint = serde_json::json!({ "logs": [
        "[2026-11-23 08:00:41 +0000] Device received spurious push. (This was written by a test of the web service.)"
    ] });
    session
        .send(ServiceRequest::new(Method::POST, "/v1/log").json(complaint.to_string()))
        .await?
        .is(200, Rule::LOG_1)
}

async fn registered_again(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    session.register(&device, one).await?.is(200, Rule::REG_1)?;
    names(
        &list(session, &device, one, None).await?,
        &[one],
        Rule::LIST_11,
    )
    .map(drop)
}

async fn new_push_token(session: &Session) -> CaseResult {
    session.can_change()?;
    let mut phone = Phone::with(session, session.rested(1)?).await?;
    let pass = phone.passes[0].0;
    phone.device.push_token = session.device()?.push_token;
    session
        .register(&phone.device, pass)
        .await?
        .is(200, Rule::REG_1)?;
    // The list may name the pass, because the service may treat a repeated registration as a
    // change.
    let answer = phone.list().await?;
    if answer.status() != 204 {
        phone.tag = names(&answer, &[pass], Rule::LIST_2)?;
    }
    phone.change(0).await?;
    phone.is_told_of(&[pass], Rule::LIST_2).await
}

async fn new_device_identifier(session: &Session) -> CaseResult {
    session.can_change()?;
    let pass = session.rested(1)?[0];
    let (old, new) = (session.device()?, session.device()?);
    let old_tag = registered_and_listed(session, &old, &[pass]).await?;
    let new_tag = registered_and_listed(session, &new, &[pass]).await?;
    session.change(pass).await?;
    names(
        &list(session, &old, pass, Some(&old_tag)).await?,
        &[pass],
        Rule::LIST_2,
    )?;
    names(
        &list(session, &new, pass, Some(&new_tag)).await?,
        &[pass],
        Rule::LIST_2,
    )
    .map(drop)
}

async fn deleted(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    let device = session.device()?;
    registered_and_listed(session, &device, &[one, two]).await?;
    session
        .unregister(&device, one)
        .await?
        .is(200, Rule::UNR_1)?;
    names(
        &list(session, &device, one, None).await?,
        &[two],
        Rule::UNR_1,
    )?;
    fetched(session, one).await.map(drop)
}

async fn deleted_twice(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session
        .unregister(&device, one)
        .await?
        .is(200, Rule::UNR_2)?;
    session.given(&device, one).await?;
    session
        .unregister(&device, one)
        .await?
        .is(200, Rule::UNR_1)?;
    session.unregister(&device, one).await?.is(200, Rule::UNR_2)
}

async fn one_after_the_other_deleted(session: &Session) -> CaseResult {
    session.can_change()?;
    let both = session.rested(2)?;
    let device = session.device()?;
    let tag = registered_and_listed(session, &device, &both).await?;
    let (gone, kept) = (both[0], both[1]);
    session
        .unregister(&device, gone)
        .await?
        .is(200, Rule::UNR_1)?;
    names(
        &list(session, &device, kept, None).await?,
        &[kept],
        Rule::UNR_3,
    )?;
    session.change(kept).await?;
    names(
        &list(session, &device, kept, Some(&tag)).await?,
        &[kept],
        Rule::UNR_3,
    )?;
    session
        .unregister(&device, kept)
        .await?
        .is(200, Rule::UNR_1)?;
    list(session, &device, kept, None)
        .await?
        .lists_nothing(session.kind(), Rule::UNR_1)
}

async fn added_again(session: &Session) -> CaseResult {
    let one = session.one()?;
    let phone = Phone::with(session, vec![one]).await?;
    session
        .unregister(&phone.device, one)
        .await?
        .is(200, Rule::UNR_1)?;
    session.given(&phone.device, one).await?;
    phone.list().await?.is_list()?;
    names(
        &list(session, &phone.device, one, None).await?,
        &[one],
        Rule::LIST_1,
    )?;
    fetched(session, one).await.map(drop)
}

async fn updates_off_and_on(session: &Session) -> CaseResult {
    let one = session.one()?;
    let phone = Phone::with(session, vec![one]).await?;
    session
        .unregister(&phone.device, one)
        .await?
        .is(200, Rule::UNR_1)?;
    list(session, &phone.device, one, None)
        .await?
        .lists_nothing(session.kind(), Rule::UNR_1)?;
    session.given(&phone.device, one).await?;
    phone.list().await?.is_list()?;
    names(
        &list(session, &phone.device, one, None).await?,
        &[one],
        Rule::LIST_1,
    )?;
    phone.has_newest(0).await
}

/// Makes the three calls that need credentials, with these credentials.
fn guarded_calls(
    session: &Session,
    device: &Device,
    subject: &Subject,
    auth: &Auth<'_>,
) -> [ServiceRequest; 3] {
    let path = session.registration_path(&device.id, &subject.pass);
    let mut calls = [
        session.register_call(device, subject),
        ServiceRequest::new(Method::DELETE, path),
        ServiceRequest::new(Method::GET, session.pass_path(&subject.pass)),
    ];
    for call in &mut calls {
        call.headers
            .retain(|(name, _)| name != header::AUTHORIZATION);
    }
    calls.map(|call| call.auth(auth))
}

async fn wrong_token(session: &Session) -> CaseResult {
    let (one, other) = session.two_with_own_tokens()?;
    let (device, stranger) = (session.device()?, session.device()?);
    registered_and_listed(session, &device, &[one]).await?;
    let bearer = Auth::Raw(format!("Bearer {}", one.token.as_str()));
    for (auth, rule) in [
        (Auth::Token(other), Rule::AUTH_2),
        (Auth::None, Rule::AUTH_3),
        (bearer, Rule::AUTH_3),
    ] {
        session.will_register(&stranger, one);
        let [register, ..] = guarded_calls(session, &stranger, one, &auth);
        session.send(register).await?.is(401, rule)?;
        let [_, unregister, fetch] = guarded_calls(session, &device, one, &auth);
        session.send(unregister).await?.is(401, rule)?;
        session.send(fetch).await?.is(401, rule)?;
    }
    names(
        &list(session, &device, one, None).await?,
        &[one],
        Rule::AUTH_5,
    )?;
    list(session, &stranger, one, None)
        .await?
        .lists_nothing(session.kind(), Rule::AUTH_5)
}

async fn unknown_pass(session: &Session) -> CaseResult {
    let (device, unknown) = (session.device()?, session.unknown(session.one()?)?);
    session.will_register(&device, &unknown);
    for call in guarded_calls(session, &device, &unknown, &Auth::Token(&unknown)) {
        session.send(call).await?.is(401, Rule::REG_6)?;
    }
    Ok(())
}

async fn same_serial_in_two_types(session: &Session) -> CaseResult {
    let (one, other) = session.two_types_with_own_tokens()?;
    let mut namesake = one.clone();
    namesake.pass.type_id = other.pass.type_id.clone();
    let is_namesake = |known: &&Subject| known.pass == namesake.pass && known.has_token_of(one);
    if let Some(known) = session.all().iter().find(is_namesake) {
        return Err(shared_token(one, known));
    }
    let device = session.device()?;
    registered_and_listed(session, &device, &[one]).await?;
    session.will_register(&device, &namesake);
    for call in guarded_calls(session, &device, &namesake, &Auth::Token(one)) {
        session.send(call).await?.is(401, Rule::AUTH_2)?;
    }
    list(session, &device, other, None)
        .await?
        .lists_nothing(session.kind(), Rule::LIST_3)
}

async fn shared_pass(session: &Session) -> CaseResult {
    session.can_change()?;
    let pass = session.rested(1)?[0];
    let (first, second) = (session.device()?, session.device()?);
    let first_tag = registered_and_listed(session, &first, &[pass]).await?;
    let second_tag = registered_and_listed(session, &second, &[pass]).await?;
    session.change(pass).await?;
    names(
        &list(session, &first, pass, Some(&first_tag)).await?,
        &[pass],
        Rule::LIST_2,
    )?;
    session
        .unregister(&first, pass)
        .await?
        .is(200, Rule::UNR_1)?;
    list(session, &first, pass, None)
        .await?
        .lists_nothing(session.kind(), Rule::UNR_1)?;
    names(
        &list(session, &second, pass, Some(&second_tag)).await?,
        &[pass],
        Rule::UNR_3,
    )
    .map(drop)
}

async fn pull_to_refresh(session: &Session) -> CaseResult {
    session.can_change()?;
    let mut phone = Phone::with(session, session.rested(1)?).await?;
    phone.has_newest(0).await?;
    phone.change(0).await?;
    phone.fetches_new(0).await
}

async fn answer_lost(session: &Session) -> CaseResult {
    session.can_change()?;
    let (device, changed) = (session.device()?, session.rested(1)?);
    let tag = registered_and_listed(session, &device, &changed).await?;
    session.change(changed[0]).await?;
    names(
        &list(session, &device, changed[0], Some(&tag)).await?,
        &changed,
        Rule::LIST_2,
    )?;
    names(
        &list(session, &device, changed[0], Some(&tag)).await?,
        &changed,
        Rule::LIST_10,
    )
    .map(drop)
}

async fn order_from_apple_pay(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.fetch(one, None).await?.is(200, Rule::ORD_3)?;
    registered_and_listed(session, &device, &[one])
        .await
        .map(drop)
}
