//! Cases about the credentials of a pass.

use http::{Method, header};

use super::{
    answer::Answer,
    case::catalogue,
    session::{Auth, Device, ServiceRequest, Session},
    target::Subject,
};
use crate::{CaseResult, Rule};

catalogue! {
    "auth/token-of-another-pass-is-401" Pass Must [AUTH_2] token_of_another_pass,
        "Register, unregister and fetch a pass with the token of another pass of its type, then ask for the list.",
        "Anyone who has one pass can read and unregister the passes of everybody.";
    "auth/token-of-another-type-is-401" Pass Must [AUTH_2] token_of_another_type,
        "Register, unregister and fetch a pass with the token of a pass of another type, with the same serial number \
        if there is one. Then ask for the list.",
        "Anyone who has one pass can read and unregister a pass of another type.";
    "auth/no-token-is-401" Pass Must [AUTH_3 HTTP_12] no_token_is_401,
        "Register, unregister and fetch without Authorization, and with an empty token. Then ask for the list.",
        "Anyone who knows or guesses a serial number can read the pass, and end its updates.";
    "auth/almost-the-token-is-401" Pass Must [AUTH_2] almost_the_token_is_401,
        "Register, unregister and fetch with a shortened token, a token with one more character, and a token whose \
        letters have the other case. Then ask for the list.",
        "A token can be guessed character by character.";
    "auth/wrong-scheme-is-401" Pass Should [AUTH_3 AUTH_1] wrong_scheme_is_401,
        "Register, unregister and fetch with the right token, but with the scheme Bearer, with the scheme of orders, \
        and without a scheme.",
        "Credentials for other clients and proxies are accepted as if they came from a phone.";
    "auth/unknown-pass-is-not-served" Pass Must [AUTH_4] unknown_pass_is_not_served,
        "A serial number that does not exist is fetched with the token of another pass.",
        "The phone understands no answer but 401, and reports the answer to the log each time.";
    "auth/unknown-and-wrong-look-alike" Pass Should [AUTH_4] unknown_and_wrong_look_alike,
        "Register, unregister and fetch with a wrong token, for a pass that exists and for a pass that does not. The \
        answers must be the same.",
        "Anyone can find out which serial numbers exist, how many passes there are, and sometimes whose they are.";
    "auth/each-request-is-checked-alone" Pass Must [AUTH_3] each_request_is_checked_alone,
        "A pass is fetched with its token, then without a token, then with a wrong token.",
        "Once a phone has fetched its pass, strangers get it too.";
    "auth/token-survives-a-change" Pass Must [AUTH_6] token_survives_a_change,
        "A pass is changed, and fetched with the token that it had before.",
        "A phone that missed the update still has the old token, and can never update the pass again.";
    "auth/scheme-in-any-case" Pass Advisory [AUTH_1] scheme_in_any_case,
        "A pass is fetched with the scheme in lower case and in upper case, and with extra spaces around the token.",
        "No phone sends this today. Other wallets may, because HTTP ignores the case of schemes.";
    "orders/token-of-another-order-is-401" Order Must [ORD_1 AUTH_2] token_of_another_pass,
        "Register, unregister and fetch an order with the token of another order of its type. Then ask for the list.",
        "Anyone who has one order can read the orders of everybody.";
    "orders/no-token-is-401" Order Must [ORD_1 AUTH_3] no_token_is_401,
        "Register, unregister and fetch an order without Authorization, and with an empty token. Then ask for the \
        list.",
        "Anyone who knows or guesses an order's identifier can read the order, and end its updates.";
    "orders/wrong-scheme-is-401" Order Should [AUTH_3 ORD_2] wrong_scheme_is_401,
        "Register, unregister and fetch an order with the right token, but with the scheme Bearer, with the scheme \
        ApplePass, and without a scheme.",
        "Credentials for other clients and proxies are accepted as if they came from a phone.";
}

/// A token that opens no pass.
const NO_TOKEN: &str = "a-token-of-no-pass-at-all";

/// Makes the three calls that need credentials, but sends no credentials. `newcomer` registers,
/// another device unregisters, and the pass is fetched.
fn calls(
    session: &Session,
    newcomer: &Device,
    holder: &Device,
    subject: &Subject,
) -> [ServiceRequest; 3] {
    let mut register = session.register_call(newcomer, subject);
    register
        .headers
        .retain(|(name, _)| *name != header::AUTHORIZATION);
    let unregister = ServiceRequest::new(
        Method::DELETE,
        session.registration_path(&holder.id, &subject.pass),
    );
    [
        register,
        unregister,
        ServiceRequest::new(Method::GET, session.pass_path(&subject.pass)),
    ]
}

/// Checks that none of these credentials opens the pass, and that the attempts change nothing. The
/// first value of each entry is its name in messages.
async fn none_opens(
    session: &Session,
    subject: &Subject,
    rule: Rule,
    keys: &[(&str, Auth<'_>)],
) -> CaseResult {
    let (newcomer, holder) = (session.device()?, session.device()?);
    session.given_all(&holder, &[subject]).await?;
    session.will_register(&newcomer, subject);
    for (key, auth) in keys {
        for call in calls(session, &newcomer, &holder, subject) {
            let what = format!("{} with {key}", call.method);
            session
                .send(call.auth(auth))
                .await?
                .about(what)
                .is(401, rule)?;
        }
    }
    session.holds(&holder, subject, &[subject], rule).await?;
    session.holds(&newcomer, subject, &[], rule).await
}

/// Makes the usual header, with this token.
fn key(session: &Session, token: &str) -> Auth<'static> {
    Auth::Raw(format!("{} {token}", session.kind().auth_scheme()))
}

async fn token_of_another_pass(session: &Session) -> CaseResult {
    let (subject, other) = session.two_with_own_tokens()?;
    let keys = [(
        "the token of another pass",
        key(session, other.token.as_str()),
    )];
    none_opens(session, subject, Rule::AUTH_2, &keys).await
}

async fn token_of_another_type(session: &Session) -> CaseResult {
    let (subject, other) = session.two_types_with_own_tokens()?;
    let keys = [(
        "the token of a pass of another type",
        key(session, other.token.as_str()),
    )];
    none_opens(session, subject, Rule::AUTH_2, &keys).await
}

async fn no_token_is_401(session: &Session) -> CaseResult {
    let scheme = session.kind().auth_scheme();
    let keys = [
        ("no Authorization", Auth::None),
        ("a scheme and no token", Auth::Raw(scheme.into())),
        (
            "a scheme and an empty token",
            Auth::Raw(format!("{scheme} ")),
        ),
    ];
    none_opens(session, session.one()?, Rule::AUTH_3, &keys).await
}

async fn almost_the_token_is_401(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let token = subject.token.as_str();
    let swapped: String = token
        .chars()
        .map(|c| {
            if c.is_ascii_lowercase() {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        })
        .collect();
    let short: String = token.chars().take(token.chars().count() - 1).collect();
    for almost in [&swapped, &short] {
        session.hide(almost, "<almost the token>");
    }
    let mut keys = vec![
        ("the token without its last character", key(session, &short)),
        (
            "the token with one more character",
            key(session, &format!("{token}0")),
        ),
    ];
    if swapped != token {
        keys.push((
            "the token with upper and lower case exchanged",
            key(session, &swapped),
        ));
    }
    none_opens(session, subject, Rule::AUTH_2, &keys).await
}

async fn wrong_scheme_is_401(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let token = subject.token.as_str();
    let others = ["ApplePass", "AppleOrder"]
        .into_iter()
        .filter(|one| *one != session.kind().auth_scheme());
    let mut keys = vec![
        ("the token as Bearer", Auth::Raw(format!("Bearer {token}"))),
        ("the token and no scheme", Auth::Raw(token.into())),
    ];
    keys.extend(others.map(|other| {
        (
            "the token with the scheme of the other kind",
            Auth::Raw(format!("{other} {token}")),
        )
    }));
    none_opens(session, subject, Rule::AUTH_3, &keys).await
}

async fn unknown_pass_is_not_served(session: &Session) -> CaseResult {
    let unknown = session.unknown(session.one()?)?;
    session.fetch(&unknown, None).await?.is(401, Rule::AUTH_4)
}

/// Returns the parts of an answer that a stranger can compare. The serial number is removed,
/// because an answer may repeat it.
fn look(answer: &Answer, subject: &Subject) -> [String; 4] {
    let header = |name| answer.header(name).unwrap_or_else(|| "none".into());
    [
        format!("WWW-Authenticate: {}", header(header::WWW_AUTHENTICATE)),
        format!("Content-Type: {}", header(header::CONTENT_TYPE)),
        format!("Cache-Control: {}", header(header::CACHE_CONTROL)),
        String::from_utf8_lossy(answer.body()).replace(subject.pass.serial.as_str(), "…"),
    ]
}

async fn unknown_and_wrong_look_alike(session: &Session) -> CaseResult {
    let (device, known) = (session.device()?, session.one()?);
    let unknown = session.unknown(known)?;
    session.will_register(&device, known);
    let wrong = key(session, NO_TOKEN);
    for method in 0..3 {
        let mut looks = Vec::new();
        // The existing pass is requested twice. If these two bodies differ, for example in a time,
        // then the body can't reveal whether a pass exists.
        for subject in [known, known, &unknown] {
            let [register, unregister, fetch] = calls(session, &device, &device, subject);
            let call = [register, unregister, fetch]
                .into_iter()
                .nth(method)
                .map(|call| call.auth(&wrong));
            let Some(call) = call else { continue };
            let known = if subject.pass == known.pass {
                "a pass that exists"
            } else {
                "a pass that does not exist"
            };
            let what = format!("{} of {known} with a wrong token", call.method);
            let answer = session.send(call).await?.about(what);
            answer.is(401, Rule::AUTH_4)?;
            looks.push((look(&answer, subject), answer));
        }
        if let [(first, _), (second, _), (unknown, answer)] = &looks[..] {
            let differs =
                |(i, part): &(usize, &String)| first[*i] == second[*i] && first[*i] != **part;
            if let Some((i, part)) = unknown.iter().enumerate().find(differs) {
                let shown = |text: &str| {
                    if i == 3 {
                        format!("the body '{text}'")
                    } else {
                        text.to_owned()
                    }
                };
                let expected = format!("{}, as for a pass that exists", shown(&first[i]));
                return Err(answer.violation(Rule::AUTH_4, expected, shown(part)));
            }
        }
    }
    Ok(())
}

async fn each_request_is_checked_alone(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let keys = [
        ("without Authorization", Auth::None),
        ("with a wrong token", key(session, NO_TOKEN)),
    ];
    for (key, auth) in keys {
        session.fetch(subject, None).await?.is(200, Rule::GET_9)?;
        let call = ServiceRequest::new(Method::GET, session.pass_path(&subject.pass)).auth(&auth);
        session
            .send(call)
            .await?
            .about(format!("the next GET, {key}"))
            .is(401, Rule::AUTH_3)?;
    }
    Ok(())
}

async fn token_survives_a_change(session: &Session) -> CaseResult {
    session.can_change()?;
    let subject = session.one()?;
    session.fetch(subject, None).await?.is(200, Rule::GET_9)?;
    session.change(subject).await?;
    session
        .send(session.fetch_call(subject, None))
        .await?
        .about("GET after a change")
        .is(200, Rule::AUTH_6)
}

async fn scheme_in_any_case(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let (scheme, token) = (session.kind().auth_scheme(), subject.token.as_str());
    let keys = [
        (
            "the scheme in lower case",
            format!("{} {token}", scheme.to_lowercase()),
        ),
        (
            "the scheme in upper case",
            format!("{} {token}", scheme.to_uppercase()),
        ),
        ("two spaces before the token", format!("{scheme}  {token}")),
        ("a space at the end", format!("{scheme} {token} ")),
    ];
    for (what, header) in keys {
        let call = ServiceRequest::new(Method::GET, session.pass_path(&subject.pass))
            .auth(&Auth::Raw(header));
        session
            .send(call)
            .await?
            .about(format!("GET with {what}"))
            .is(200, Rule::AUTH_1)?;
    }
    Ok(())
}
