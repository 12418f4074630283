//! Cases about registering a pass on a device.

use http::{Method, header};
use passkit_server::PassId;
use serde_json::json;

use super::{
    case::catalogue,
    session::{Auth, Device, ServiceRequest, Session},
    steps::{random, together},
    target::Subject,
};
use crate::{CaseResult, Rule, Stop};

catalogue! {
    "register/new-pass-is-201" Pass Must [REG_1] new_pass_is_201,
        "A new device registers for a pass.",
        "The phone treats any answer but 200 and 201 as a failure. It tries again and again, and reports the failure \
        to the log.";
    "register/known-pass-is-200" Pass Must [REG_1] known_pass_is_200,
        "A device registers for one pass three times with the same push token, and asks for its list.",
        "A phone that registers again because it got no answer is counted twice, or gets an error.";
    "register/second-device-is-201" Pass Must [REG_1 LIST_3] second_device_is_201,
        "Two devices register for one shared pass. Each asks for its list.",
        "If several phones and watches have a pass, only one of them gets updates.";
    "register/after-unregistering-is-201" Pass Must [REG_1] after_unregistering_is_201,
        "A device registers, unregisters, registers again and asks for its list.",
        "A user who switches automatic updates off and on, or adds a deleted pass again, gets no more updates.";
    "register/new-push-token-is-200" Pass Must [REG_2 REG_1] new_push_token_is_200,
        "A device registers for two passes, then again for the first pass with another push token, and asks for its list.",
        "After the push token of a phone changed, the pass has two registrations, or the other passes of the phone have \
        none.";
    "register/in-parallel-creates-once" Pass Must [REG_3] in_parallel_creates_once,
        "Five times, a new device sends twenty equal registrations at once, and asks for its list.",
        "A phone that repeats a slow request gets an error. Or the phone is registered twice, and gets every push twice.";
    "register/malformed-body-is-400" Pass Should [REG_4 REG_1] malformed_body_is_400,
        "With the right authentication token, a device sends bodies that are empty, not JSON or not an object, or \
        whose pushToken is missing or not a string. Then the device asks for its list, and sends a correct \
        registration, which must be new.",
        "The service keeps a device that no push can reach, or anyone can make it fail with such a body.";
    "register/push-token-is-hexadecimal" Pass Advisory [REG_4] push_token_is_hexadecimal,
        "A device registers with a push token that is not hexadecimal, and asks for its list.",
        "When a push is sent, the text becomes part of a URL. Apple's push service refuses it, or gets a different \
        request than intended.";
    "register/unknown-keys-are-ignored" Pass Should [REG_4] unknown_keys_are_ignored,
        "A device registers with a body that has other keys in addition to pushToken.",
        "If future phones send one more key, they can't register.";
    "register/any-content-type" Pass Should [HTTP_9] any_content_type,
        "Registrations are sent whose Content-Type has a charset, is not JSON, or is absent.",
        "Wallets that send a different Content-Type than today's phones can't register.";
    "register/device-identifier-of-any-form" Pass Should [REG_5] device_identifier_of_any_form,
        "Two devices register, ask for their lists and unregister. One identifier has 128 characters, the other looks \
        like a UUID.",
        "Other wallets can't register. If Apple changes the form of identifiers, phones can't register either.";
    "register/impossible-device-identifier-is-refused" Pass Advisory [REG_5] impossible_device_identifier,
        "Two registrations are sent with the right authentication token. One device identifier has 10,000 characters, the \
        other contains a NUL.",
        "Anyone who has a pass can fill the database with texts of any length, or make the service fail.";
    "register/unknown-pass-is-401" Pass Must [REG_6] unknown_pass_is_401,
        "A device registers for a serial number that does not exist, with the token of another pass, and asks for its \
        list.",
        "Phones are registered for passes that do not exist, and anyone can add more of these registrations.";
    "register/unknown-type-is-401" Pass Should [REG_6] unknown_type_is_401,
        "A device registers for a pass of a type that does not exist, with the token of a pass of another type.",
        "After the service drops a type, phones that still have such passes fill the log with messages.";
    "register/credentials-come-before-the-body" Pass Should [AUTH_5] credentials_come_before_the_body,
        "A registration is sent with a wrong token and a body that is not JSON.",
        "The service reads data from strangers, and reports what is wrong with the data, before it has checked their \
        token.";
    "orders/register-new-is-201" Order Must [ORD_1 REG_1] new_pass_is_201,
        "A new device registers for an order.",
        "The phone treats any answer but 200 and 201 as a failure, and tries again and again.";
    "orders/register-known-is-200" Order Must [ORD_1 REG_1] known_pass_is_200,
        "A device registers for one order three times with the same push token, and asks for its list.",
        "A phone that registers again because it got no answer is counted twice, or gets an error.";
}

async fn new_pass_is_201(session: &Session) -> CaseResult {
    let device = session.device()?;
    session
        .register(&device, session.one()?)
        .await?
        .is(201, Rule::REG_1)
}

async fn known_pass_is_200(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    session.given_all(&device, &[pass]).await?;
    for time in ["the second registration", "the third registration"] {
        session
            .register(&device, pass)
            .await?
            .about(time)
            .is(200, Rule::REG_1)?;
    }
    session.holds(&device, pass, &[pass], Rule::REG_1).await
}

async fn second_device_is_201(session: &Session) -> CaseResult {
    let (first, second, pass) = (session.device()?, session.device()?, session.one()?);
    session.given_all(&first, &[pass]).await?;
    let answer = session.register(&second, pass).await?;
    let answer = answer.about("the second device");
    session.is_created(&answer, pass).await?;
    session.holds(&first, pass, &[pass], Rule::LIST_3).await?;
    session.holds(&second, pass, &[pass], Rule::LIST_3).await
}

async fn after_unregistering_is_201(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    session.given_all(&device, &[pass]).await?;
    session
        .unregister(&device, pass)
        .await?
        .is(200, Rule::UNR_1)?;
    let answer = session.register(&device, pass).await?;
    let answer = answer.about("the registration after unregistering");
    session.is_created(&answer, pass).await?;
    session.holds(&device, pass, &[pass], Rule::REG_1).await
}

async fn new_push_token_is_200(session: &Session) -> CaseResult {
    let (device, (one, two)) = (session.device()?, session.two()?);
    session.given_all(&device, &[one, two]).await?;
    let renewed = Device {
        id: device.id.clone(),
        push_token: session.device()?.push_token,
    };
    let answer = session.register(&renewed, one).await?;
    answer
        .about("the registration with another push token")
        .is(200, Rule::REG_1)?;
    session.holds(&device, one, &[one, two], Rule::REG_2).await
}

async fn in_parallel_creates_once(session: &Session) -> CaseResult {
    // There are several rounds, because one round finds a race of a few milliseconds only by
    // chance. The first round opens the connections, so its requests are spread over a longer time.
    for _ in 0..5 {
        creates_once(session, &session.device()?, session.one()?).await?;
    }
    Ok(())
}

async fn creates_once(session: &Session, device: &Device, pass: &Subject) -> CaseResult {
    let mut created = 0;
    for answer in together((0..20).map(|_| session.register(device, pass))).await {
        let answer = answer?.about("one of twenty equal registrations at once");
        answer.is_one_of(&[200, 201], Rule::REG_3)?;
        created += usize::from(answer.status() == 201);
        if created > 1 {
            return Err(answer.violation(
                Rule::REG_3,
                "status 201 once, otherwise 200",
                "status 201 more than once",
            ));
        }
    }
    let list = session.list(device, &pass.pass.type_id, None).await?;
    if created == 0 {
        // If the service never answers 201, the statuses show nothing about parallel requests.
        let alone = session.register(&session.device()?, pass).await?;
        session.is_created(&alone, pass).await?;
        return Err(list.violation(
            Rule::REG_3,
            "status 201 to one of twenty equal registrations",
            "status 200 twenty times",
        ));
    }
    session.names(&list, &[pass], Rule::REG_3)
}

/// Makes a registration with the given body.
fn with_body(session: &Session, device: &Device, pass: &Subject, body: &str) -> ServiceRequest {
    session.will_register(device, pass);
    session.register_call(device, pass).body(body.to_owned())
}

async fn malformed_body_is_400(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    let bodies = [
        "",
        "not json",
        "[]",
        "null",
        "{}",
        r#"{"pushToken":1}"#,
        r#"{"pushToken":null}"#,
        r#"{"pushToken":""}"#,
    ];
    for body in bodies {
        let answer = session
            .send(with_body(session, &device, pass, body))
            .await?;
        let what = if body.is_empty() {
            "an empty body".into()
        } else {
            format!("the body {body}")
        };
        answer.about(what).is(400, Rule::REG_4)?;
    }
    session.holds(&device, pass, &[], Rule::REG_4).await?;
    let answer = session.register(&device, pass).await?;
    let answer = answer.about("the first correct registration");
    session.is_created(&answer, pass).await
}

async fn push_token_is_hexadecimal(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    for token in ["not hexadecimal", "../../1"] {
        let body = json!({ "pushToken": token }).to_string();
        let answer = session
            .send(with_body(session, &device, pass, &body))
            .await?;
        answer
            .about(format!("the body {body}"))
            .is(400, Rule::REG_4)?;
    }
    session.holds(&device, pass, &[], Rule::REG_4).await
}

async fn unknown_keys_are_ignored(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    let token = device.push_token.as_str();
    let body = json!({ "deviceName": "x", "pushToken": token, "more": { "pushToken": [1] } });
    let answer = session
        .send(with_body(session, &device, pass, &body.to_string()))
        .await?;
    answer.is_one_of(&[200, 201], Rule::REG_4)?;
    session.holds(&device, pass, &[pass], Rule::REG_4).await
}

async fn any_content_type(session: &Session) -> CaseResult {
    let pass = session.one()?;
    for content_type in [
        Some("application/json; charset=utf-8"),
        Some("text/plain"),
        None,
    ] {
        let device = session.device()?;
        session.will_register(&device, pass);
        let mut call = session.register_call(&device, pass);
        call.headers
            .retain(|(name, _)| *name != header::CONTENT_TYPE);
        if let Some(content_type) = content_type {
            call = call.header(header::CONTENT_TYPE, content_type);
        }
        let what = content_type.map_or("no Content-Type".into(), |one| {
            format!("the Content-Type {one}")
        });
        session
            .send(call)
            .await?
            .about(what)
            .is_one_of(&[200, 201], Rule::HTTP_9)?;
        session.holds(&device, pass, &[pass], Rule::HTTP_9).await?;
    }
    Ok(())
}

async fn device_identifier_of_any_form(session: &Session) -> CaseResult {
    let pass = session.one()?;
    let uuid = |hex: &str| {
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        parts.join("-").to_uppercase()
    };
    let long = |hex: &str| {
        format!(
            "{hex}.Wallet_of~others-{}",
            "x".repeat(128 - hex.len() - 18)
        )
    };
    let devices = [
        (
            "a device identifier like a UUID",
            session.device_called(uuid)?,
        ),
        (
            "a device identifier of 128 characters",
            session.device_called(long)?,
        ),
    ];
    for (what, device) in devices {
        let answer = session.register(&device, pass).await?.about(what);
        answer.is_one_of(&[200, 201], Rule::REG_5)?;
        let list = session
            .list(&device, &pass.pass.type_id, None)
            .await?
            .about(what);
        list.is_list_with(&[200, 204, 404], Rule::REG_5)?;
        session.names(&list, &[pass], Rule::REG_5)?;
        session
            .unregister(&device, pass)
            .await?
            .about(what)
            .is_one_of(&[200, 204], Rule::REG_5)?;
    }
    Ok(())
}

async fn impossible_device_identifier(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    let path = session.registration_path(&device.id, &pass.pass);
    let long = "x".repeat(10_000);
    session.hide(&long, "<10,000 times x>");
    let forms = [
        ("a device identifier of 10,000 characters", long),
        (
            "a device identifier with a NUL in it",
            format!("{}%00", device.id.as_str()),
        ),
    ];
    for (what, id) in forms {
        let mut call = session.register_call(&device, pass);
        call.path = path.replacen(device.id.as_str(), &id, 1);
        let remove = ServiceRequest::new(Method::DELETE, &*call.path).auth(&Auth::Token(pass));
        let answer = session.send(call).await?.about(what);
        if (200..300).contains(&answer.status()) {
            session.send(remove).await?;
        }
        answer.is_client_error(Rule::REG_5)?;
    }
    Ok(())
}

async fn unknown_pass_is_401(session: &Session) -> CaseResult {
    let (device, unknown) = (session.device()?, session.unknown(session.one()?)?);
    session
        .register(&device, &unknown)
        .await?
        .is(401, Rule::REG_6)?;
    session.holds(&device, &unknown, &[], Rule::REG_6).await
}

async fn unknown_type_is_401(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    let type_id = format!("{}.unknown-{}", pass.pass.type_id, random()?);
    let unknown = PassId::new(&type_id, pass.pass.serial.as_str())
        .map_err(|error| Stop::Error(format!("no unknown type: {error}")))?;
    let unknown = Subject {
        pass: unknown,
        token: pass.token.clone(),
    };
    session
        .register(&device, &unknown)
        .await?
        .is(401, Rule::REG_6)
}

async fn credentials_come_before_the_body(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    let path = session.registration_path(&device.id, &pass.pass);
    let wrong = Auth::Raw(format!(
        "{} a-token-of-no-pass-at-all",
        session.kind().auth_scheme()
    ));
    let call = ServiceRequest::new(Method::POST, path)
        .auth(&wrong)
        .json("not json");
    session.send(call).await?.is(401, Rule::AUTH_5)
}
