//! Cases about fetching a pass, and about not fetching it again while it is unchanged.

use std::time::{Duration, SystemTime};

use http::{Method, header};

use super::{
    answer::Answer,
    case::catalogue,
    session::{Auth, Session},
    steps::scene,
    target::Subject,
};
use crate::{CaseResult, Rule, Stop, wire::archive_types};

catalogue! {
    "get/works-unregistered" Pass Must [GET_9] works_unregistered,
        "A pass is fetched with its token. No device of the kit is registered for it.",
        "Phones sometimes fetch a pass before they register, and other wallets always do. Their fetch fails.";
    "get/is-a-pkpass" Pass Must [HTTP_7] has_media_type,
        "A pass is fetched. Its content-type must be the media type of passes.",
        "A browser, a mail program or another wallet does not recognise the answer as a pass.";
    "get/has-last-modified" Pass Must [GET_1] has_last_modified,
        "A pass is fetched. Its Last-Modified must have the form that HTTP prescribes.",
        "The phone has no date for its next request. It loads the entire pass each time, and reports that to the log.";
    "get/last-modified-stays" Pass Must [GET_1] last_modified_stays,
        "An unchanged pass is fetched in two different seconds. Its Last-Modified must stay the same.",
        "If Last-Modified is the time of the answer, not of the change, a later change in the same second is never \
        fetched.";
    "get/last-modified-is-past" Pass Should [GET_1] last_modified_is_past,
        "A pass is fetched. It changes four times in quick succession, and is fetched again. \
        Each Last-Modified must not be after Date.",
        "Proxies and other clients treat the answer as broken. Some keep it, some drop it.";
    "get/date-given-back-is-304" Pass Must [GET_2] date_given_back_is_304,
        "A pass is fetched, and fetched again with its Last-Modified as If-Modified-Since.",
        "The phone loads the entire pass with every push, and reports to the log that its date was ignored.";
    "orders/date-given-back-is-304" Order Must [ORD_1 GET_2] date_given_back_is_304,
        "An order is fetched, and fetched again with its Last-Modified as If-Modified-Since.",
        "The phone loads the entire order with every push.";
    "get/changed-pass-is-200" Pass Must [GET_2] changed_pass_is_200,
        "A pass is fetched, changed, and fetched with the earlier date.",
        "The answer says that nothing changed, and the phone keeps old content.";
    "orders/changed-order-is-200" Order Must [ORD_1 GET_2] changed_pass_is_200,
        "An order is fetched, changed, and fetched with the earlier date.",
        "The answer says that nothing changed, and the phone keeps old content.";
    "get/two-changes-in-a-second-have-two-dates" Pass Should [GET_2] two_changes_have_two_dates,
        "A pass is changed and fetched, changed again within the same second, and fetched with the earlier date. \
        After that second, a fetch with the newest date must be answered 304.",
        "The answer says that nothing changed, and the phone keeps the first of the two versions until the next \
        change.";
    "get/unreadable-date-is-no-date" Pass Should [GET_3] unreadable_date_is_no_date,
        "A pass is fetched with words, a number and an ISO date as If-Modified-Since.",
        "A phone may have such a date from earlier software of the service. It gets an error, or a 304 forever.";
    "get/all-date-forms-are-read" Pass Advisory [GET_3] all_date_forms_are_read,
        "A pass is fetched with the date of its Last-Modified, written in the two older forms of HTTP dates.",
        "Phones send the date as they received it. Other clients may write it in another form, and load the pass \
        again.";
    "get/older-date-is-200" Pass Must [GET_4] older_date_is_200,
        "A pass is fetched with a date that is one second before its Last-Modified.",
        "The answer says that nothing changed, and the phone keeps old content.";
    "get/newer-date-is-304" Pass Advisory [GET_4] newer_date_is_304,
        "A pass is fetched with a date that is one second after its Last-Modified.",
        "Some clients send the time of their last request as the date. They load the pass again each time.";
    "get/wrong-token-with-date-is-401" Pass Must [GET_4 AUTH_5] wrong_token_with_date_is_401,
        "A pass is fetched with its Last-Modified and a wrong token.",
        "A stranger learns when somebody's pass changes.";
    "get/304-repeats-last-modified" Pass Advisory [GET_5] not_modified_repeats_last_modified,
        "A pass is fetched with the date of its Last-Modified. The 304 must repeat Last-Modified.",
        "Phones don't need the date in a 304. But caches between phone and service need it to keep their copies up \
        to date.";
    "get/head-is-like-get" Pass Must [HTTP_10] head_is_like_get,
        "A HEAD request for a pass is sent with its token. Status, content-type and date must be the same as with GET.",
        "A phone or proxy that sends HEAD first acts as if the pass were gone.";
    "get/head-is-conditional" Pass Must [HTTP_10] head_is_conditional,
        "A HEAD request for a pass is sent with its date, and another without a token.",
        "A phone or proxy that sends HEAD first loads an unchanged pass again. Or a stranger learns about the pass.";
    "get/is-not-compressed" Pass Should [GET_11] is_not_compressed,
        "A pass is fetched with an Accept-Encoding that allows compression.",
        "A client that does not decompress the answer saves a file that no wallet opens. An archive does not get \
        smaller anyway.";
    "get/is-not-for-shared-caches" Pass Advisory [GET_11] is_not_for_shared_caches,
        "A pass is fetched. Cache-Control must keep it out of shared caches.",
        "A cache between phone and service gives a pass to anyone who knows its URL.";
    "get/etag-given-back-is-304" Pass Advisory [GET_8] etag_given_back_is_304,
        "A pass is fetched, and fetched again with its ETag as If-None-Match.",
        "Phones don't use the ETag. Clients that use it load the pass each time.";
}

/// Fetches a pass as a phone does the first time. Returns its date.
pub(super) async fn fetched(session: &Session, subject: &Subject) -> Result<String, Stop> {
    session.rest(subject).await;
    scene(session.fetch(subject, None).await?.archive())
}

async fn works_unregistered(session: &Session) -> CaseResult {
    session
        .send(session.fetch_call(session.one()?, None))
        .await?
        .is(200, Rule::GET_9)
}

async fn has_media_type(session: &Session) -> CaseResult {
    let answer = session.fetch(session.one()?, None).await?;
    answer.is(200, Rule::GET_9)?;
    answer.media_type(archive_types(session.kind()), Rule::HTTP_7)
}

async fn has_last_modified(session: &Session) -> CaseResult {
    session
        .fetch(session.one()?, None)
        .await?
        .archive()
        .map(drop)
}

async fn last_modified_stays(session: &Session) -> CaseResult {
    let one = session.one()?;
    let first = fetched(session, one).await?;
    // A service that sends the time of the answer as Last-Modified would now send another date.
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let answer = session.fetch(one, None).await?;
    let second = answer.archive()?;
    if first == second {
        Ok(())
    } else {
        Err(answer.violation(
            Rule::GET_1,
            format!("Last-Modified '{first}', as before"),
            format!("'{second}'"),
        ))
    }
}

async fn last_modified_is_past(session: &Session) -> CaseResult {
    let one = session.rested(1)?[0];
    fetched(session, one).await?;
    is_past(session, &session.fetch(one, None).await?)?;
    if session.can_change().is_ok() {
        // There are four changes, because the Date of some servers is up to a second old.
        session.early_in_a_second().await;
        for _ in 0..4 {
            session.change_at_once(one).await?;
        }
        is_past(session, &session.fetch(one, None).await?)?;
    }
    Ok(())
}

/// Expects a Last-Modified that is not after Date.
fn is_past(session: &Session, answer: &Answer) -> CaseResult {
    let modified = answer.archive()?;
    let now = match answer.header(header::DATE) {
        Some(date) => date,
        // Within this process, no HTTP server adds a Date. The service and the kit use the same
        // clock.
        None if !session.is_network() => httpdate::fmt_http_date(SystemTime::now()),
        None => {
            return Err(Stop::Skip(
                "the service sends no Date to compare with".into(),
            ));
        }
    };
    let is_ahead = match (
        httpdate::parse_http_date(&modified),
        httpdate::parse_http_date(&now),
    ) {
        // Some servers, such as uvicorn, read the clock for Date only once a second.
        (Ok(modified), Ok(now)) if session.is_network() => modified > now + Duration::from_secs(1),
        (Ok(modified), Ok(now)) => modified > now,
        _ => false,
    };
    let expected = format!("Last-Modified not after Date, '{now}'");
    if is_ahead {
        Err(answer.violation(Rule::GET_1, expected, format!("'{modified}'")))
    } else {
        Ok(())
    }
}

async fn date_given_back_is_304(session: &Session) -> CaseResult {
    let one = session.one()?;
    let date = fetched(session, one).await?;
    session.fetch(one, Some(&date)).await?.is(304, Rule::GET_2)
}

async fn changed_pass_is_200(session: &Session) -> CaseResult {
    session.can_change()?;
    let one = session.rested(1)?[0];
    let before = fetched(session, one).await?;
    until_past(&before).await;
    session.change(one).await?;
    is_newer(&session.fetch(one, Some(&before)).await?, &before)
}

/// Expects a pass whose date differs from `before`. The pass must have changed after the second of
/// that date.
pub(super) fn is_newer(answer: &Answer, before: &str) -> CaseResult {
    if is_sent(answer, before)? == before {
        let expected = "a different Last-Modified from before the change";
        return Err(answer.violation(Rule::GET_2, expected, format!("'{before}' again")));
    }
    Ok(())
}

/// Expects a pass in answer to a date that is older than its last change. Returns the new date.
fn is_sent(answer: &Answer, before: &str) -> Result<String, Stop> {
    if answer.status() == 304 {
        let expected = format!(
            "status 200, because the pass changed after it was fetched with the date '{before}'"
        );
        return Err(answer.violation(Rule::GET_2, expected, "status 304"));
    }
    answer.archive()
}

/// Expects that the pass is not sent again to a device that has the version of `date`.
///
/// A service may give a change a date in the next second. A date must not be ahead of the clock, so
/// the service may send the pass again until that second begins. The date may then change once.
pub(super) async fn is_not_sent_again(
    session: &Session,
    subject: &Subject,
    date: &str,
) -> CaseResult {
    if session.fetch(subject, Some(date)).await?.status() == 304 {
        return Ok(());
    }
    session.rest(subject).await;
    let answer = session.fetch(subject, Some(date)).await?;
    if answer.status() == 304 {
        return Ok(());
    }
    let date = answer.archive()?;
    session
        .fetch(subject, Some(&date))
        .await?
        .is(304, Rule::GET_2)
}

/// Waits until the second of `date` is over, if it is the current second on this machine's clock.
///
/// Only one case may make two versions within one second. All other cases wait here.
pub(super) async fn until_past(date: &str) {
    let Ok(date) = httpdate::parse_http_date(date) else {
        return;
    };
    if let Ok(left) = (date + Duration::from_secs(1)).duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(Duration::from_secs(2))).await;
    }
}

async fn two_changes_have_two_dates(session: &Session) -> CaseResult {
    session.can_change()?;
    let one = session.rested(1)?[0];
    until_past(&fetched(session, one).await?).await;
    session.early_in_a_second().await;
    session.change(one).await?;
    let before = session.fetch(one, None).await?.archive()?;
    session.change_at_once(one).await?;
    // The date may stay the same until the second is over.
    let date = is_sent(&session.fetch(one, Some(&before)).await?, &before)?;
    is_not_sent_again(session, one, &date).await
}

async fn unreadable_date_is_no_date(session: &Session) -> CaseResult {
    let one = session.one()?;
    for date in [
        "garbage",
        "4102444800",
        "2100-01-01T00:00:00Z",
        "Fri, 99 Foo 2100 00:00:00 GMT",
    ] {
        let answer = session.fetch(one, Some(date)).await?;
        if answer.status() != 200 {
            let expected = format!("status 200, because '{date}' is not an HTTP date");
            return Err(answer.violation(
                Rule::GET_3,
                expected,
                format!("status {}", answer.status()),
            ));
        }
    }
    Ok(())
}

async fn all_date_forms_are_read(session: &Session) -> CaseResult {
    let one = session.one()?;
    let date = fetched(session, one).await?;
    for form in older_forms(&date) {
        session
            .fetch(one, Some(&form))
            .await?
            .is(304, Rule::GET_3)?;
    }
    Ok(())
}

/// Writes an IMF-fixdate, such as `Fri, 18 Sep 2026 08:00:41 GMT`, in the two older forms.
fn older_forms(date: &str) -> Vec<String> {
    let parts: Vec<_> = date.split(' ').collect();
    let [day, number, month, year, time, _] = parts[..] else {
        return Vec::new();
    };
    let day = day.trim_end_matches(',');
    let long = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ]
    .into_iter()
    .find(|long| long.starts_with(day))
    .unwrap_or(day);
    let short_year = year.get(2..).unwrap_or(year);
    let padded = number
        .strip_prefix('0')
        .map_or_else(|| number.to_owned(), |digit| format!(" {digit}"));
    vec![
        format!("{long}, {number}-{month}-{short_year} {time} GMT"),
        format!("{day} {month} {padded} {time} {year}"),
    ]
}

/// Returns the date one second after `date`, or one second before it.
fn moved(answer: &Answer, date: &str, later: bool) -> Result<String, Stop> {
    let date = httpdate::parse_http_date(date)
        .map_err(|_| answer.violation(Rule::GET_1, "a Last-Modified that is a date", date))?;
    let second = Duration::from_secs(1);
    Ok(httpdate::fmt_http_date(if later {
        date + second
    } else {
        date - second
    }))
}

async fn older_date_is_200(session: &Session) -> CaseResult {
    let one = session.one()?;
    session.rest(one).await;
    let answer = session.fetch(one, None).await?;
    let before = moved(&answer, &answer.archive()?, false)?;
    let answer = session.fetch(one, Some(&before)).await?;
    if answer.status() == 304 {
        // The reason may be that Last-Modified is the time of the answer. This fault breaks another
        // rule.
        scene(last_modified_stays(session).await)?;
    }
    answer.is(200, Rule::GET_4)
}

async fn newer_date_is_304(session: &Session) -> CaseResult {
    let one = session.one()?;
    session.rest(one).await;
    let answer = session.fetch(one, None).await?;
    let after = moved(&answer, &answer.archive()?, true)?;
    session.fetch(one, Some(&after)).await?.is(304, Rule::GET_4)
}

async fn wrong_token_with_date_is_401(session: &Session) -> CaseResult {
    let one = session.one()?;
    let date = fetched(session, one).await?;
    let wrong = format!(
        "{} not-the-token-of-this-pass",
        session.kind().auth_scheme()
    );
    let mut call = session.fetch_call(one, Some(&date));
    call.headers
        .retain(|(name, _)| name != header::AUTHORIZATION);
    session
        .send(call.auth(&Auth::Raw(wrong)))
        .await?
        .is(401, Rule::GET_4)
}

async fn not_modified_repeats_last_modified(session: &Session) -> CaseResult {
    let one = session.one()?;
    let date = fetched(session, one).await?;
    let answer = session.fetch(one, Some(&date)).await?;
    answer.is(304, Rule::GET_2)?;
    match answer.header(header::LAST_MODIFIED) {
        Some(again) if again == date => Ok(()),
        other => {
            let actual = other.map_or("none".into(), |other| format!("'{other}'"));
            Err(answer.violation(
                Rule::GET_5,
                format!("Last-Modified '{date}' with the 304"),
                actual,
            ))
        }
    }
}

async fn head_is_like_get(session: &Session) -> CaseResult {
    let one = session.one()?;
    session.rest(one).await;
    let get = session.fetch(one, None).await?;
    let date = get.archive()?;
    let mut call = session.fetch_call(one, None);
    call.method = Method::HEAD;
    let head = session.send(call).await?;
    head.is(200, Rule::HTTP_10)?;
    if !head.body().is_empty() {
        return Err(head.violation(
            Rule::HTTP_10,
            "no body",
            format!("{} bytes", head.body().len()),
        ));
    }
    for (name, value) in [
        (header::LAST_MODIFIED, Some(date)),
        (header::CONTENT_TYPE, get.header(header::CONTENT_TYPE)),
    ] {
        let found = head.header(&name);
        if found != value {
            let shown = |value: Option<String>| value.unwrap_or_else(|| "none".into());
            let expected = format!("{name}: {}, as with GET", shown(value));
            return Err(head.violation(Rule::HTTP_10, expected, shown(found)));
        }
    }
    Ok(())
}

async fn head_is_conditional(session: &Session) -> CaseResult {
    let one = session.one()?;
    let date = fetched(session, one).await?;
    let mut call = session.fetch_call(one, Some(&date));
    call.method = Method::HEAD;
    session.send(call.clone()).await?.is(304, Rule::HTTP_10)?;
    call.headers
        .retain(|(name, _)| name != header::AUTHORIZATION);
    session.send(call).await?.is(401, Rule::HTTP_10)
}

async fn is_not_compressed(session: &Session) -> CaseResult {
    let call = session
        .fetch_call(session.one()?, None)
        .header(header::ACCEPT_ENCODING, "gzip, deflate, br");
    let answer = session.send(call).await?;
    answer.is(200, Rule::GET_9)?;
    match answer.header(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => Err(answer.violation(
            Rule::GET_11,
            "no Content-Encoding, because an archive is already compressed",
            encoding,
        )),
        _ => Ok(()),
    }
}

async fn is_not_for_shared_caches(session: &Session) -> CaseResult {
    let answer = session.fetch(session.one()?, None).await?;
    answer.is(200, Rule::GET_9)?;
    let control = answer
        .header(header::CACHE_CONTROL)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let is_shared = control
        .split(',')
        .map(str::trim)
        .any(|one| one == "public" || one.starts_with("s-maxage"));
    let expected = "Cache-Control: private, no-cache";
    if is_shared {
        Err(answer.violation(Rule::GET_11, expected, control))
    } else {
        Ok(())
    }
}

async fn etag_given_back_is_304(session: &Session) -> CaseResult {
    let one = session.one()?;
    session.rest(one).await;
    let answer = session.fetch(one, None).await?;
    answer.is(200, Rule::GET_9)?;
    let Some(etag) = answer.header(header::ETAG) else {
        return Err(Stop::Skip(
            "the service sends no ETag, which phones do not need".into(),
        ));
    };
    let call = session
        .fetch_call(one, None)
        .header(header::IF_NONE_MATCH, etag);
    session.send(call).await?.is(304, Rule::GET_8)
}
