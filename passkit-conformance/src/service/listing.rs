//! Cases about the list of changed passes.

use http::Method;
use passkit_server::identifiers::{Kind, TypeIdentifier};

use super::{
    answer::Answer,
    case::catalogue,
    fetching::fetched,
    session::{Auth, Device, ServiceRequest, Session},
    steps::{rule_of_names, scene},
    target::Subject,
};
use crate::{
    CaseResult, Rule, Stop, random_hex,
    service_url::{encoded, encoded_where_needed},
    wire::{ListAnswer, first_few},
};

catalogue! {
    "list/no-tag-lists-all" Pass Must [LIST_1] no_tag_lists_all,
        "A device registers for two passes and asks what changed, without a tag.",
        "A phone that just added its passes gets no list of them, and fetches none.";
    "orders/no-tag-lists-all" Order Must [ORD_1 LIST_1] no_tag_lists_all,
        "A device registers for two orders and asks what changed, without a tag.",
        "A phone that just added its orders gets no list of them, and fetches none.";
    "list/empty-tag-lists-all" Pass Must [LIST_1] empty_tag_lists_all,
        "A registered device asks with an empty tag.",
        "Some phones without a tag send an empty tag. They never get an update.";
    "list/is-json" Pass Must [HTTP_7] is_json,
        "A registered device asks what changed. The answer's content-type must be JSON.",
        "A proxy or client that relies on the content-type treats the list as a file.";
    "list/values-are-strings" Pass Must [LIST_4] values_are_strings,
        "A registered device asks what changed, and reads the answer as a phone does.",
        "The phone drops the entire answer as malformed, and asks again until it gives up. No update arrives.";
    "list/only-what-was-registered" Pass Must [LIST_3] only_what_was_registered,
        "A device registers for two of three passes of a type, and asks what changed.",
        "The list names passes that the phone does not have. Some may belong to other people.";
    "list/keeps-devices-apart" Pass Must [LIST_3] keeps_devices_apart,
        "Two devices register for one pass each. Both ask what changed.",
        "The list of a phone names somebody else's passes.";
    "list/keeps-types-apart" Pass Must [LIST_3] keeps_types_apart,
        "A device registers for a pass of one type, and asks for the list of another type. Then the device registers for a \
        pass of the other type too.",
        "The phone asks once for each type. The answer names serial numbers that the phone does not have in this type.";
    "list/tag-lists-only-newer" Pass Must [LIST_2] tag_lists_only_newer,
        "A device with two passes keeps the tag of its list. One pass changes, and the device asks with the tag.",
        "Either the change is missed, or the phone fetches unchanged passes with every push.";
    "orders/tag-lists-only-newer" Order Must [ORD_1 LIST_2] tag_lists_only_newer,
        "A device with two orders keeps the tag of its list. One order changes, and the device asks with the tag.",
        "Either the change is missed, or the phone fetches unchanged orders with every push.";
    "list/all-changes-are-listed" Pass Must [LIST_2] all_changes_are_listed,
        "Two or three passes of a device change before the device asks.",
        "The phone keeps old content of some passes, because no later list names them.";
    "list/each-change-is-listed" Pass Must [LIST_2] each_change_is_listed,
        "A pass changes. The device asks with its tag and keeps the new tag. Another pass changes, and so on.",
        "Only the first update arrives, because the service does not understand the phone's second tag.";
    "list/changes-close-together" Pass Must [TAG_1] changes_close_together,
        "A pass changes twice within a second, and the device asks in between.",
        "The second change is never listed, and the phone keeps old content.";
    "list/tag-moves-with-each-list" Pass Must [LIST_6] tag_moves_with_each_list,
        "A pass changes. The device asks with its tag, and must get another tag.",
        "The phone reports that the tag stayed the same, and fetches the same passes with every push.";
    "list/nothing-new-is-204" Pass Must [LIST_7 LIST_2] nothing_new_is_204,
        "A device asks with the tag that it just got.",
        "The phone fetches everything again and again, or logs that the answer is unexpected.";
    "orders/nothing-new-is-204" Order Must [ORD_1 LIST_7 LIST_2] nothing_new_is_204,
        "A device asks with the tag that it just got.",
        "The phone fetches everything again and again, or logs that the answer is unexpected.";
    "list/unknown-device-is-204" Pass Should [LIST_8] unknown_device_is_204,
        "A device that never registered asks what changed, without a tag and with a tag.",
        "A phone whose registrations are gone treats the answer as an error. It asks again, and reports the error to \
        the log.";
    "list/unknown-type-is-204" Pass Should [LIST_8] unknown_type_is_204,
        "A registered device asks for the list of a type that the service does not have.",
        "After the service drops a type, phones that still have such passes ask again and again, and report errors to the \
        log.";
    "list/unreadable-tag-is-no-error" Pass Must [LIST_9] unreadable_tag_is_no_error,
        "A registered device asks with tags that the service never issued: words, dates, huge numbers, broken escapes.",
        "A phone gets a new tag only with a good answer. If the service changed its software, phones keep the old tag \
        forever.";
    "orders/unreadable-tag-is-no-error" Order Must [ORD_1 LIST_9] unreadable_tag_is_no_error,
        "A registered device asks with tags that the service never issued: words, dates, huge numbers, broken escapes.",
        "A phone gets a new tag only with a good answer. If the service changed its software, phones keep the old tag \
        forever.";
    "list/unreadable-tag-lists-all" Pass Must [LIST_9] unreadable_tag_lists_all,
        "A registered device asks with texts that cannot be a tag of the service.",
        "After the service moved to other software, a phone with an old tag never learns which changes it missed.";
    "list/tag-of-another-type-is-no-error" Pass Must [LIST_9] tag_of_another_type_is_no_error,
        "A device with passes of two types asks for the list of one type with the tag of the other.",
        "A phone that sends such a tag gets an error and no new tag. It therefore sends the same tag forever.";
    "list/tag-ahead-lists-all" Pass Advisory [LIST_9] tag_ahead_lists_all,
        "A registered device asks with a number far above all tags that the service can have issued.",
        "After a backup is restored, phones have tags ahead of the service. They get no update until the service \
        catches up.";
    "list/asking-again-gives-the-same" Pass Must [LIST_10] asking_again_gives_the_same,
        "A registered device sends the same list request twice.",
        "If an answer is lost, the update is lost too, because the second answer does not name the pass.";
    "list/no-serial-twice" Pass Should [LIST_11] no_serial_twice,
        "A device registers twice for the same pass, and asks what changed.",
        "The phone fetches the same pass several times.";
    "list/needs-no-authorization" Pass Must [LIST_12] needs_no_authorization,
        "A registered device asks without an Authorization header, as all phones do.",
        "No phone ever gets an update, because all its list requests are refused.";
    "list/ignores-authorization" Pass Should [LIST_12] ignores_authorization,
        "A registered device asks with Authorization headers that fit no pass.",
        "Clients that send the header with each call get no updates.";
    "list/tag-survives-the-url" Pass Must [URL_8] tag_survives_the_url,
        "A device asks with the tag that it got, once percent-encoded and once unencoded.",
        "Phones don't encode characters such as + and :. The service then reads an older tag, or no tag.";
    "list/new-registration-is-listed" Pass Advisory [C3] new_registration_is_listed,
        "A device asks, then registers for a second pass, and asks with its tag.",
        "If a pass changes between its download and its registration, the phone shows old content until the next change.";
    "list/saved-unchanged-is-not-listed" Pass Should [TAG_4] saved_unchanged_is_not_listed,
        "A device is up to date. One of its passes is saved unchanged. The device asks with its tag, and fetches the \
        pass with its date.",
        "After each save, all phones that have the pass get a push and load the pass again. Owners stop reading \
        notifications.";
}

/// Tags that no service issues, as they appear in a query.
const FOREIGN_TAGS: [&str; 12] = [
    "garbage",
    "0",
    "-1",
    "1e3",
    "99999999999999999999999999",
    "2001-01-01T00:00:00Z",
    "%00",
    "%C3%BC%E2%9C%93",
    "%27%22%3B--",
    "%zz",
    "%ff",
    "%",
];

/// Expects a list of exactly these passes. All passes must be of one type. Returns the tag of the
/// list.
pub(super) fn names(answer: &Answer, expected: &[&Subject], rule: Rule) -> Result<String, Stop> {
    let kind = expected
        .first()
        .map_or(Kind::Pass, |one| one.pass.type_id.kind());
    let mut expected: Vec<_> = expected
        .iter()
        .map(|one| one.pass.serial.as_str())
        .collect();
    expected.sort_unstable();
    let wanted = format!("status 200 and a list of exactly {}", first_few(&expected));
    answer.is_list()?;
    if answer.status() == 204 {
        return Err(answer.violation(rule, wanted, "status 204"));
    }
    let listed = answer.listed(kind)?;
    let found: Vec<_> = listed
        .serials
        .iter()
        .map(|serial| serial.as_str())
        .collect();
    if found != expected {
        let rule = rule_of_names(rule, &found, &expected);
        return Err(answer.violation(rule, wanted, format!("a list of {}", first_few(&found))));
    }
    Ok(listed.tag)
}

/// Expects an answer that says that nothing changed.
pub(super) fn is_quiet(kind: Kind, answer: &Answer) -> CaseResult {
    answer.is_list_with(&[200, 204], Rule::LIST_7)?;
    let again = ListAnswer::read(kind, answer.body()).filter(|list| !list.serials.is_empty());
    if let (200, Some(again)) = (answer.status(), again) {
        let actual = format!("status 200 and a list of {} passes", again.serials.len());
        return Err(answer.violation(
            Rule::LIST_2,
            "status 204, because nothing changed after the tag",
            actual,
        ));
    }
    answer.is(204, Rule::LIST_7)
}

/// Registers for passes of one type, asks for the list, and returns its tag.
pub(super) async fn registered_and_listed(
    session: &Session,
    device: &Device,
    subjects: &[&Subject],
) -> Result<String, Stop> {
    scene(lists_all(session, device, subjects).await)
}

async fn lists_all(
    session: &Session,
    device: &Device,
    subjects: &[&Subject],
) -> Result<String, Stop> {
    for subject in subjects {
        session.given(device, subject).await?;
    }
    names(
        &list(session, device, subjects[0], None).await?,
        subjects,
        Rule::LIST_1,
    )
}

/// Asks for the changed passes of the type of `like`.
pub(super) async fn list(
    session: &Session,
    device: &Device,
    subject: &Subject,
    tag: Option<&str>,
) -> Result<Answer, Stop> {
    session.list(device, &subject.pass.type_id, tag).await
}

/// Asks with this query. The query is sent without encoding.
async fn list_raw(
    session: &Session,
    device: &Device,
    subject: &Subject,
    tag: &str,
) -> Result<Answer, Stop> {
    let path = session.list_path(&device.id, &subject.pass.type_id);
    let parameter = session.kind().since_parameter();
    session
        .send(ServiceRequest::new(
            Method::GET,
            format!("{path}?{parameter}={tag}"),
        ))
        .await
}

async fn no_tag_lists_all(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    lists_all(session, &session.device()?, &[one, two])
        .await
        .map(drop)
}

async fn empty_tag_lists_all(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    names(
        &list_raw(session, &device, one, "").await?,
        &[one],
        Rule::LIST_1,
    )
    .map(drop)
}

async fn is_json(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    let answer = list(session, &device, one, None).await?;
    names(&answer, &[one], Rule::LIST_1)?;
    answer.media_type(&["application/json"], Rule::HTTP_7)
}

async fn values_are_strings(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    list(session, &device, one, None)
        .await?
        .listed(session.kind())
        .map(drop)
}

async fn only_what_was_registered(session: &Session) -> CaseResult {
    let mut held = session.rested(3)?;
    held.pop();
    let device = session.device()?;
    for one in &held {
        session.given(&device, one).await?;
    }
    names(
        &list(session, &device, held[0], None).await?,
        &held,
        Rule::LIST_3,
    )
    .map(drop)
}

async fn keeps_devices_apart(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    let (first, second) = (session.device()?, session.device()?);
    session.given(&first, one).await?;
    session.given(&second, two).await?;
    names(
        &list(session, &first, one, None).await?,
        &[one],
        Rule::LIST_3,
    )?;
    names(
        &list(session, &second, two, None).await?,
        &[two],
        Rule::LIST_3,
    )
    .map(drop)
}

async fn keeps_types_apart(session: &Session) -> CaseResult {
    let (one, other) = session.two_types()?;
    let device = session.device()?;
    session.given(&device, one).await?;
    list(session, &device, other, None)
        .await?
        .lists_nothing(session.kind(), Rule::LIST_3)?;
    session.given(&device, other).await?;
    names(
        &list(session, &device, one, None).await?,
        &[one],
        Rule::LIST_3,
    )?;
    names(
        &list(session, &device, other, None).await?,
        &[other],
        Rule::LIST_3,
    )
    .map(drop)
}

async fn tag_lists_only_newer(session: &Session) -> CaseResult {
    session.can_change()?;
    let both = session.rested(2)?;
    let device = session.device()?;
    let tag = registered_and_listed(session, &device, &both).await?;
    session.change(both[0]).await?;
    names(
        &list(session, &device, both[0], Some(&tag)).await?,
        &both[..1],
        Rule::LIST_2,
    )
    .map(drop)
}

async fn all_changes_are_listed(session: &Session) -> CaseResult {
    session.can_change()?;
    let changed = match session.rested(3) {
        Ok(three) => three,
        Err(_) => session.rested(2)?,
    };
    let device = session.device()?;
    let tag = registered_and_listed(session, &device, &changed).await?;
    for one in &changed {
        session.change(one).await?;
    }
    names(
        &list(session, &device, changed[0], Some(&tag)).await?,
        &changed,
        Rule::LIST_2,
    )
    .map(drop)
}

async fn each_change_is_listed(session: &Session) -> CaseResult {
    session.can_change()?;
    let both = session.rested(2)?;
    let device = session.device()?;
    let mut tag = registered_and_listed(session, &device, &both).await?;
    for one in both {
        session.change(one).await?;
        tag = names(
            &list(session, &device, one, Some(&tag)).await?,
            &[one],
            Rule::LIST_2,
        )?;
    }
    Ok(())
}

async fn changes_close_together(session: &Session) -> CaseResult {
    session.can_change()?;
    let (device, changed) = (session.device()?, session.rested(1)?);
    let tag = registered_and_listed(session, &device, &changed).await?;
    session.rest(changed[0]).await;
    session.early_in_a_second().await;
    session.change(changed[0]).await?;
    let tag = names(
        &list(session, &device, changed[0], Some(&tag)).await?,
        &changed,
        Rule::LIST_2,
    )?;
    session.change_at_once(changed[0]).await?;
    names(
        &list(session, &device, changed[0], Some(&tag)).await?,
        &changed,
        Rule::TAG_1,
    )
    .map(drop)
}

async fn tag_moves_with_each_list(session: &Session) -> CaseResult {
    session.can_change()?;
    let (device, changed) = (session.device()?, session.rested(1)?);
    let tag = registered_and_listed(session, &device, &changed).await?;
    session.change(changed[0]).await?;
    let answer = list(session, &device, changed[0], Some(&tag)).await?;
    let again = names(&answer, &changed, Rule::LIST_2)?;
    let expected = format!(
        "a {} that differs from '{tag}' in the request",
        session.kind().tag_key()
    );
    if again == tag {
        Err(answer.violation(Rule::LIST_6, expected, "the same tag"))
    } else {
        Ok(())
    }
}

async fn nothing_new_is_204(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    let tag = registered_and_listed(session, &device, &[one]).await?;
    is_quiet(
        session.kind(),
        &list(session, &device, one, Some(&tag)).await?,
    )
}

async fn unknown_device_is_204(session: &Session) -> CaseResult {
    let (device, stranger, one) = (session.device()?, session.device()?, session.one()?);
    let tag = registered_and_listed(session, &device, &[one]).await?;
    list(session, &stranger, one, None)
        .await?
        .is_list_with(&[204], Rule::LIST_8)?;
    list(session, &stranger, one, Some(&tag))
        .await?
        .is_list_with(&[204], Rule::LIST_8)
}

async fn unknown_type_is_204(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    let unusable = |error: &dyn std::fmt::Display| Stop::Error(format!("no random type: {error}"));
    let random = random_hex::<8>().map_err(|error| unusable(&error))?;
    let type_id = TypeIdentifier::new(&format!("{}unknown.{random}", session.kind().type_prefix()))
        .map_err(|error| unusable(&error))?;
    session
        .list(&device, &type_id, None)
        .await?
        .is_list_with(&[204], Rule::LIST_8)
}

async fn unreadable_tag_is_no_error(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    let long = "x".repeat(1_000);
    for tag in FOREIGN_TAGS.into_iter().chain([long.as_str()]) {
        list_raw(session, &device, one, tag)
            .await?
            .is_list_with(&[200, 204], Rule::LIST_9)?;
    }
    Ok(())
}

async fn unreadable_tag_lists_all(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    for tag in ["garbage", "%C3%BC%E2%9C%93", "%00"] {
        let answer = list_raw(session, &device, one, tag).await?;
        answer.is_list_with(&[200, 204], Rule::LIST_9)?;
        names(&answer, &[one], Rule::LIST_9)?;
    }
    Ok(())
}

async fn tag_of_another_type_is_no_error(session: &Session) -> CaseResult {
    let (one, other) = session.two_types()?;
    let device = session.device()?;
    session.given(&device, other).await?;
    let tag = registered_and_listed(session, &device, &[one]).await?;
    list(session, &device, other, Some(&tag))
        .await?
        .is_list_with(&[200, 204], Rule::LIST_9)
}

async fn tag_ahead_lists_all(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    let answer = list(session, &device, one, Some("999999999999999999")).await?;
    answer.is_list_with(&[200, 204], Rule::LIST_9)?;
    names(&answer, &[one], Rule::LIST_9).map(drop)
}

async fn asking_again_gives_the_same(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    registered_and_listed(session, &device, &[one]).await?;
    names(
        &list(session, &device, one, None).await?,
        &[one],
        Rule::LIST_10,
    )
    .map(drop)
}

async fn no_serial_twice(session: &Session) -> CaseResult {
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

async fn needs_no_authorization(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    names(
        &list(session, &device, one, None).await?,
        &[one],
        Rule::LIST_12,
    )
    .map(drop)
}

async fn ignores_authorization(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    let scheme = session.kind().auth_scheme();
    for value in [
        format!("{scheme} not-the-token-of-this-pass"),
        "Bearer x".into(),
        scheme.into(),
    ] {
        let path = session.list_path(&device.id, &one.pass.type_id);
        let answer = session
            .send(ServiceRequest::new(Method::GET, path).auth(&Auth::Raw(value)))
            .await?;
        answer.is_list_with(&[200, 204], Rule::LIST_12)?;
        names(&answer, &[one], Rule::LIST_12)?;
    }
    Ok(())
}

async fn tag_survives_the_url(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    let tag = registered_and_listed(session, &device, &[one]).await?;
    let forms = [encoded(&tag), encoded_where_needed(&tag)];
    let answers = [
        list_raw(session, &device, one, &forms[0]).await?,
        list_raw(session, &device, one, &forms[1]).await?,
    ];
    // If both forms fail, the encoding is not the cause.
    for (answer, other, how) in [
        (&answers[0], &answers[1], &forms[0]),
        (&answers[1], &answers[0], &forms[1]),
    ] {
        if answer.status() != 204 && other.status() == 204 {
            let expected = format!("status 204 to the tag '{tag}' sent as '{how}'");
            return Err(answer.violation(
                Rule::URL_8,
                expected,
                format!("status {}", answer.status()),
            ));
        }
    }
    is_quiet(session.kind(), &answers[0])
}

async fn new_registration_is_listed(session: &Session) -> CaseResult {
    let (one, two) = session.two()?;
    let device = session.device()?;
    let tag = registered_and_listed(session, &device, &[one]).await?;
    let again = list(session, &device, one, Some(&tag)).await?;
    scene(is_quiet(session.kind(), &again))?;
    session.given(&device, two).await?;
    names(
        &list(session, &device, two, Some(&tag)).await?,
        &[two],
        Rule::C3,
    )
    .map(drop)
}

async fn saved_unchanged_is_not_listed(session: &Session) -> CaseResult {
    session.can_save()?;
    let (device, one) = (session.device()?, session.rested(1)?[0]);
    let date = fetched(session, one).await?;
    let tag = registered_and_listed(session, &device, &[one]).await?;
    is_quiet(
        session.kind(),
        &list(session, &device, one, Some(&tag)).await?,
    )?;
    session
        .fetch(one, Some(&date))
        .await?
        .is(304, Rule::GET_2)?;
    session.save(one).await?;
    let saved = list(session, &device, one, Some(&tag))
        .await?
        .about("a list after a save");
    saved.is_list_with(&[200, 204], Rule::LIST_7)?;
    saved.lists_nothing(session.kind(), Rule::TAG_4)?;
    session
        .fetch(one, Some(&date))
        .await?
        .about("a fetch after a save")
        .is(304, Rule::TAG_4)
}
