//! Cases about rewards enrolment. Each pass can be enrolled only once, so each case takes a pass
//! that no other case has taken.

use http::Method;
use passkit_archive::{Level, PassFiles, check_token_signature};
use serde_json::json;

use super::{
    answer::Answer,
    case::catalogue,
    session::{Auth, ServiceRequest, Session},
    steps::{random, together},
    target::Subject,
};
use crate::{CaseResult, Rule, Stop};

catalogue! {
    "enrol/no-token-is-401" Pass Must [PER_5] no_token_is_401,
        "A pass that offers enrolment is enrolled without Authorization, with a wrong token, and with the token of \
        another pass.",
        "Anyone can enrol under a stranger's serial number, and gets texts signed with the certificate of the pass type.";
    "enrol/only-tokens-are-signed" Pass Must [PER_5] only_tokens_are_signed,
        "A manifest, a text with a line feed, an empty text and 257 letters are sent as personalization token.",
        "Anyone who has a pass can get a forged pass signed with the certificate of the pass type.";
    "enrol/malformed-is-400" Pass Should [PER_6] malformed_is_400,
        "Some bodies are sent: an empty body, a body that is not JSON, a body without a token, and data of the wrong \
        type.",
        "The customer sees an error in each case. The log of the service can't tell why.";
    "enrol/other-pass-is-404" Pass Should [PER_6] other_pass_is_404,
        "A pass that offers no enrolment is enrolled with its token.",
        "Anyone who has a pass gets texts signed with the certificate of the pass type.";
    "enrol/token-is-signed" Pass Must [PER_1 PER_2] token_is_signed,
        "A pass is enrolled. The signature in the answer is checked as on a phone.",
        "The phone shows an error to the customer, and reports the signature to the log.";
    "enrol/pass-is-personalized" Pass Must [PER_3 PER_4] pass_is_personalized,
        "A pass is registered and fetched, then enrolled, then listed and fetched with the date of the first fetch.",
        "The phone keeps the pass that offers enrolment. The customer has given the data, and gets nothing.";
    "enrol/repeat-changes-nothing" Pass Must [PER_8] repeat_changes_nothing,
        "A pass is enrolled, fetched, and enrolled again with other data. Then it is fetched once more.",
        "If the answer gets lost, the customer can't repeat the enrolment. Or anyone with the pass can replace the data.";
    "enrol/at-the-same-time-is-once" Pass Should [PER_8] at_the_same_time_is_once,
        "Twenty enrolments of a pass with different data are sent at the same time. Then the pass is fetched twice.",
        "Two devices of a customer enrol at once, and one of them gets an error or another customer's pass.";
}

const PERSONALIZATION: &str = "personalization.json";

/// Returns the next pass that offers enrolment.
async fn offered(session: &Session) -> Result<Subject, Stop> {
    loop {
        let Some(subject) = session.target().rewards().pop_front() else {
            return Err(Stop::Skip(
                "needs one more pass that offers rewards enrolment and was never enrolled: add it as [[rewards]] to \
                 the target file"
                    .into(),
            ));
        };
        let answer = session.fetch(&subject, None).await?;
        answer.is(200, Rule::GET_9)?;
        if offers_enrolment(&answer) {
            return Ok(subject);
        }
    }
}

/// Returns a pass that offers enrolment. Another case may use it too, because this case does not enrol
/// it.
async fn borrowed(session: &Session) -> Result<Subject, Stop> {
    let subject = offered(session).await?;
    session.target().rewards().push_front(subject.clone());
    Ok(subject)
}

fn offers_enrolment(answer: &Answer) -> bool {
    PassFiles::of_archive(answer.body()).is_ok_and(|files| files.get(PERSONALIZATION).is_some())
}

fn path(session: &Session, subject: &Subject) -> String {
    format!("{}/personalize", session.pass_path(&subject.pass))
}

fn call(session: &Session, subject: &Subject, body: String) -> ServiceRequest {
    ServiceRequest::new(Method::POST, path(session, subject))
        .auth(&Auth::Token(subject))
        .json(body)
}

/// Makes the body that a phone sends.
fn body(token: &str, name: &str) -> String {
    let info = json!({ "fullName": name, "emailAddress": format!("{name}@example.com") });
    json!({ "personalizationToken": token, "requiredPersonalizationInfo": info }).to_string()
}

fn token() -> Result<String, Stop> {
    // Digits alone would be JSON, which a service may refuse.
    Ok(format!("t{}{}", random()?, random()?))
}

/// Enrols a pass as a phone does, and checks the answer.
async fn enrol(session: &Session, subject: &Subject, name: &str) -> CaseResult {
    let token = token()?;
    let answer = session
        .send(call(session, subject, body(&token, name)))
        .await?;
    signed(&answer.authorized(), subject, &token)
}

/// Expects a signature over the token.
fn signed(answer: &Answer, subject: &Subject, token: &str) -> CaseResult {
    answer.is(200, Rule::PER_1)?;
    let findings = check_token_signature(&subject.pass.type_id, token, answer.body());
    if let Some(finding) = findings
        .first()
        .filter(|finding| finding.level() == Level::Refused)
    {
        let expected = "a detached signature over the token that phones accept";
        return Err(answer.violation(Rule::PER_2, expected, finding.to_string()));
    }
    answer.media_type(&["application/octet-stream"], Rule::PER_1)
}

/// Checks that nobody has enrolled the pass.
async fn still_offers(session: &Session, subject: &Subject, rule: Rule) -> CaseResult {
    let answer = session.fetch(subject, None).await?;
    answer.is(200, Rule::GET_9)?;
    if offers_enrolment(&answer) {
        return Ok(());
    }
    let expected = "a pass that still offers enrolment, because nobody was enrolled";
    Err(answer.violation(rule, expected, "a pass without personalization.json"))
}

async fn no_token_is_401(session: &Session) -> CaseResult {
    let subject = borrowed(session).await?;
    let scheme = session.kind().auth_scheme();
    let mut keys = vec![
        ("no Authorization", Auth::None),
        (
            "a wrong token",
            Auth::Raw(format!("{scheme} a-token-of-no-pass-at-all")),
        ),
    ];
    let other = session
        .all()
        .iter()
        .find(|other| !other.has_token_of(&subject));
    keys.extend(other.map(|other| ("the token of another pass", Auth::Token(other))));
    for (key, auth) in keys {
        let call = ServiceRequest::new(Method::POST, path(session, &subject));
        let call = call.auth(&auth).json(body(&token()?, "stranger"));
        let answer = session
            .send(call)
            .await?
            .about(format!("an enrolment with {key}"));
        answer.is(401, Rule::PER_5)?;
    }
    still_offers(session, &subject, Rule::PER_5).await
}

async fn only_tokens_are_signed(session: &Session) -> CaseResult {
    let subject = borrowed(session).await?;
    let manifest = json!({ "pass.json": "0".repeat(40), "icon.png": "0".repeat(40) }).to_string();
    for (what, text) in [
        ("a manifest", &*manifest),
        ("a text with a line feed", "abc\n"),
        ("an empty text", ""),
        ("257 letters", &"a".repeat(257)),
    ] {
        let answer = session
            .send(call(session, &subject, body(text, "stranger")))
            .await?;
        answer
            .about(format!("an enrolment with {what} as its token"))
            .is_client_error(Rule::PER_5)?;
    }
    still_offers(session, &subject, Rule::PER_5).await
}

async fn malformed_is_400(session: &Session) -> CaseResult {
    let subject = borrowed(session).await?;
    let wrong_type = json!({ "personalizationToken": token()?, "requiredPersonalizationInfo": { "fullName": 1 } });
    for (what, body) in [
        ("an empty body", String::new()),
        ("a body that is not JSON", "personalizationToken=abc".into()),
        (
            "a body without a token",
            json!({ "requiredPersonalizationInfo": {} }).to_string(),
        ),
        ("a number as name", wrong_type.to_string()),
    ] {
        let answer = session.send(call(session, &subject, body)).await?;
        answer
            .about(format!("an enrolment with {what}"))
            .is(400, Rule::PER_6)?;
    }
    still_offers(session, &subject, Rule::PER_6).await
}

async fn other_pass_is_404(session: &Session) -> CaseResult {
    borrowed(session).await?;
    let one = session.one()?;
    let answer = session
        .send(call(session, one, body(&token()?, "stranger")))
        .await?;
    answer.is(404, Rule::PER_6)
}

async fn token_is_signed(session: &Session) -> CaseResult {
    let subject = offered(session).await?;
    enrol(session, &subject, "ada").await
}

async fn pass_is_personalized(session: &Session) -> CaseResult {
    let subject = offered(session).await?;
    let device = session.device()?;
    session.given(&device, &subject).await?;
    let type_id = &subject.pass.type_id;
    let tag = session
        .list(&device, type_id, None)
        .await?
        .listed(session.kind())?
        .tag;
    let date = session.fetch(&subject, None).await?.archive()?;
    enrol(session, &subject, "ada").await?;

    let listed = session.list(&device, type_id, Some(&tag)).await?;
    session.names(&listed, &[&subject], Rule::PER_4)?;
    let answer = session.fetch(&subject, Some(&date)).await?;
    answer
        .about("a fetch with the date from before the enrolment")
        .is(200, Rule::PER_4)?;
    let answer = session.fetch(&subject, None).await?;
    if !offers_enrolment(&answer) {
        return Ok(());
    }
    let expected = "a pass without personalization.json";
    Err(answer.violation(Rule::PER_3, expected, "a pass with personalization.json"))
}

async fn repeat_changes_nothing(session: &Session) -> CaseResult {
    let subject = offered(session).await?;
    enrol(session, &subject, "ada").await?;
    let first = session.fetch(&subject, None).await?;
    let date = first.archive()?;
    let token = token()?;
    let answer = session
        .send(call(session, &subject, body(&token, "eve")))
        .await?;
    let repeated = answer.about("a repeated enrolment").authorized();
    repeated.is(200, Rule::PER_8)?;
    signed(&repeated, &subject, &token)?;
    let answer = session.fetch(&subject, Some(&date)).await?;
    answer
        .about("a fetch after a repeated enrolment")
        .is(304, Rule::PER_8)?;
    is_same(session, &subject, &first).await
}

/// Checks that the pass has the same files as in an earlier answer.
async fn is_same(session: &Session, subject: &Subject, earlier: &Answer) -> CaseResult {
    let answer = session.fetch(subject, None).await?;
    answer.is(200, Rule::GET_9)?;
    let files = |answer: &Answer| PassFiles::of_archive(answer.body()).ok();
    let files = (files(earlier), files(&answer));
    let is_same = match &files {
        (Some(one), Some(two)) => {
            one.names().eq(two.names()) && one.names().all(|name| one.get(name) == two.get(name))
        }
        _ => false,
    };
    if is_same {
        return Ok(());
    }
    let expected = "the pass of the first enrolment";
    Err(answer.violation(
        Rule::PER_8,
        expected,
        "other files, or files with other content",
    ))
}

async fn at_the_same_time_is_once(session: &Session) -> CaseResult {
    let subject = offered(session).await?;
    let token = token()?;
    let calls = (0..20).map(|number| {
        session.send(call(
            session,
            &subject,
            body(&token, &format!("customer-{number}")),
        ))
    });
    for answer in together(calls).await {
        let answer = answer?
            .about("one of twenty enrolments at the same time")
            .authorized();
        answer.is(200, Rule::PER_8)?;
    }
    let first = session.fetch(&subject, None).await?;
    first.is(200, Rule::GET_9)?;
    let date = first.archive()?;
    let again = session.fetch(&subject, Some(&date)).await?;
    again.about("a second fetch").is(304, Rule::PER_8)?;
    is_same(session, &subject, &first).await
}
