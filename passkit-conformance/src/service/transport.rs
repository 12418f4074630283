//! Cases about requests of any kind.

use http::{Method, header};

use super::{
    answer::Answer,
    case::catalogue,
    fetching::fetched,
    session::{Auth, ServiceRequest, Session},
};
use crate::{CaseResult, Rule, Stop, Violation, message::SendError};

catalogue! {
    "http/any-user-agent" Pass Should [HTTP_3] any_user_agent,
        "Register, list, fetch and unregister with the User-Agent of a phone, with the User-Agent of another program, \
        and without one. The statuses must be the same.",
        "No pass is updated any more on a new version of iOS, or on a watch.";
    "http/header-names-in-any-case" Pass Must [HTTP_1] header_names_in_any_case,
        "A pass is fetched without and with its date, each time with header names in lower case and With-Capitals. \
        The statuses must be the same.",
        "Phones write header names With-Capitals over HTTP/1.1 and in lower case over HTTP/2. A proxy in front of the \
        service may change the names. Then the service refuses all phones, or each phone loads the pass every time.";
    "http/wrong-method-is-405" Pass Advisory [HTTP_11] wrong_method_is_405,
        "POST is sent to the path of a list and to the path of a pass, and GET to the path of the log.",
        "Phones don't notice. But authors of clients and operators of the service get a misleading status.";
    "http/unknown-path-is-404" Pass Advisory [HTTP_11] unknown_path_is_404,
        "GET is sent to paths that are not endpoints, and to a path of another version of the interface.",
        "Phones don't notice. But authors of clients and operators of the service get a misleading status.";
    "http/long-registration-is-413" Pass Advisory [HTTP_13] long_registration_is_413,
        "A registration is sent with a body of 300 KiB and the right token. The service may also hang up.",
        "Anyone who has a pass can fill the service's memory.";
    "http/long-log-is-413" Pass Advisory [HTTP_13] long_log_is_413,
        "Log messages of 1 MiB are posted. The service may also hang up.",
        "Anyone can fill the service's memory and disk.";
    "http/long-path-or-header-is-refused" Pass Advisory [HTTP_2] long_path_or_header_is_refused,
        "One request has a path of 30,000 characters, another an Authorization header of 60,000 characters. The \
        service may also hang up.",
        "Anyone can make the service fail, or block it.";
}

async fn any_user_agent(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let mut as_phone = Vec::new();
    for other in [
        None,
        Some((Some("curl/8.5.0"), "the User-Agent curl")),
        Some((None, "no User-Agent")),
    ] {
        let device = session.device()?;
        session.will_register(&device, subject);
        let registration = session.registration_path(&device.id, &subject.pass);
        let calls = [
            session.register_call(&device, subject),
            ServiceRequest::new(
                Method::GET,
                session.list_path(&device.id, &subject.pass.type_id),
            ),
            ServiceRequest::new(Method::GET, session.pass_path(&subject.pass))
                .auth(&Auth::Token(subject)),
            ServiceRequest::new(Method::DELETE, registration).auth(&Auth::Token(subject)),
        ];
        for (i, mut call) in calls.into_iter().enumerate() {
            let Some((user_agent, what)) = other else {
                as_phone.push(session.send(call).await?.status());
                continue;
            };
            call.user_agent = user_agent;
            let about = format!("{} with {what}", call.method);
            session
                .send(call)
                .await?
                .about(about)
                .is(as_phone[i], Rule::HTTP_3)?;
        }
    }
    Ok(())
}

async fn header_names_in_any_case(session: &Session) -> CaseResult {
    if !session.is_network() {
        return Err(Stop::Skip(
            "a service in this process does not see whether header names are in upper or lower case".into(),
        ));
    }
    let one = session.one()?;
    let in_both = async |since: Option<&str>| {
        let mut call = session.fetch_call(one, since);
        let in_lower_case = session.send(call.clone()).await?;
        call.with_capitals = true;
        let with_capitals = session.send(call).await?;
        let [lower, capitals] = [in_lower_case.status(), with_capitals.status()];
        if lower == capitals {
            return Ok(());
        }
        let actual = format!("{lower} for names in lower case, {capitals} for names With-Capitals");
        Err(with_capitals.violation(
            Rule::HTTP_1,
            "the same status for names in lower case and With-Capitals",
            actual,
        ))
    };
    session.rest(one).await;
    in_both(None).await?;
    in_both(Some(&fetched(session, one).await?)).await
}

async fn wrong_method_is_405(session: &Session) -> CaseResult {
    let (device, subject) = (session.device()?, session.one()?);
    let calls = [
        ServiceRequest::new(
            Method::POST,
            session.list_path(&device.id, &subject.pass.type_id),
        ),
        ServiceRequest::new(Method::POST, session.pass_path(&subject.pass)),
        ServiceRequest::new(Method::GET, "/v1/log"),
    ];
    for call in calls {
        let what = format!("{} to a path with other methods", call.method);
        let answer = session.send(call).await?.about(what);
        answer.is(405, Rule::HTTP_11)?;
        if answer.header(header::ALLOW).is_none() {
            return Err(answer.violation(Rule::HTTP_11, "the header Allow", "none"));
        }
    }
    Ok(())
}

async fn unknown_path_is_404(session: &Session) -> CaseResult {
    let subject = session.one()?;
    for path in [
        "/v1/no-endpoint".to_owned(),
        session.pass_path(&subject.pass).replacen("/v1/", "/v9/", 1),
    ] {
        let call = ServiceRequest::new(Method::GET, path).auth(&Auth::Token(subject));
        session
            .send(call)
            .await?
            .about("GET of a path that is not an endpoint")
            .is(404, Rule::HTTP_11)?;
    }
    Ok(())
}

/// Sends a call that is far too large. Returns the answer. Returns `None` if the service hung up,
/// because a service need not read the entire call.
async fn answer_to_too_much(
    session: &Session,
    call: ServiceRequest,
) -> Result<Option<Answer>, Stop> {
    match session.try_send(call).await? {
        Ok(answer) => Ok(Some(answer)),
        Err(SendError::TooSlow(reason)) => Err(Violation::new(
            Rule::HTTP_2,
            "an answer, or the end of the connection",
            reason,
        )
        .into()),
        Err(_) => Ok(None),
    }
}

async fn long_registration_is_413(session: &Session) -> CaseResult {
    let (device, subject) = (session.device()?, session.one()?);
    session.will_register(&device, subject);
    let body = format!(
        r#"{{"pushToken":"{}","more":"{}"}}"#,
        device.push_token.as_str(),
        "x".repeat(300 * 1024)
    );
    match answer_to_too_much(session, session.register_call(&device, subject).body(body)).await? {
        Some(answer) => answer
            .about("a registration of 300 KiB")
            .is_one_of(&[413, 400], Rule::HTTP_13),
        None => Ok(()),
    }
}

async fn long_log_is_413(session: &Session) -> CaseResult {
    let body = format!(
        r#"{{"logs":["A test of passkit-conformance: {}"]}}"#,
        "x".repeat(1024 * 1024)
    );
    match answer_to_too_much(
        session,
        ServiceRequest::new(Method::POST, "/v1/log").json(body),
    )
    .await?
    {
        Some(answer) => answer.about("log messages of 1 MiB").is(413, Rule::HTTP_13),
        None => Ok(()),
    }
}

async fn long_path_or_header_is_refused(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let (serial, token) = ("x".repeat(30_000), "y".repeat(60_000));
    session.hide(&serial, "<30,000 times x>");
    session.hide(&token, "<60,000 times y>");
    let path = session.pass_path(&subject.pass);
    let calls = [
        (
            "a path of 30,000 characters",
            ServiceRequest::new(Method::GET, format!("{path}{serial}")).auth(&Auth::Token(subject)),
        ),
        (
            "an Authorization of 60,000 characters",
            ServiceRequest::new(Method::GET, path).auth(&Auth::Raw(token)),
        ),
    ];
    for (what, call) in calls {
        if let Some(answer) = answer_to_too_much(session, call).await? {
            answer.about(what).is_client_error(Rule::HTTP_2)?;
        }
    }
    Ok(())
}
