//! Cases about how the service reads paths and queries.

use http::Method;
use passkit_server::identifiers::SerialNumber;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{
    case::catalogue,
    listing::is_quiet,
    session::{Auth, ServiceRequest, Session},
    steps::{random, scene},
    target::Subject,
};
use crate::{CaseResult, Rule, Stop, service_url::encoded};

catalogue! {
    "url/double-slash-is-one" Pass Must [URL_4 HTTP_5] double_slash_is_one,
        "All calls are made with //v1/ instead of /v1/: register, list, fetch, log, unregister.",
        "Phones and wallets that join 'https://host/' and '/v1/' into 'https://host//v1/' never get an update.";
    "url/slash-at-the-end-changes-nothing" Pass Should [URL_4 HTTP_5] slash_at_the_end,
        "All calls are made with a slash at the end of the path.",
        "Clients that put a slash at the end never get an update.";
    "url/encoded-characters-are-decoded" Pass Should [URL_7] encoded_characters_are_decoded,
        "A device registers and fetches with completely percent-encoded device identifier, type and serial number. \
        It asks for the list as usual.",
        "Clients that encode more characters than necessary are refused.";
    "url/undecodable-escapes-are-refused" Pass Should [URL_7] undecodable_escapes_are_refused,
        "Passes are fetched with the right token, but with serial numbers whose escapes are malformed, are not UTF-8, \
        or mean a NUL.",
        "Anyone can make the service fail with a short request.";
    "url/tag-is-read-from-the-raw-query" Pass Must [URL_8] tag_is_read_from_the_raw_query,
        "A device asks for the list with the tag of the last list: first percent-encoded, then encoded only where a query \
        requires it.",
        "The service does not recognise a tag that it issued. With every push, phones fetch all passes, or none.";
    "url/unknown-parameters-are-ignored" Pass Should [URL_9] unknown_parameters_are_ignored,
        "A device asks for the list with other parameters before and after the tag, and fetches a pass with parameters.",
        "If phones, or caches in front of the service, add a parameter, there are no more updates.";
    "url/serial-with-reserved-characters" Pass Must [URL_10] serial_with_reserved_characters,
        "A pass whose serial number needs encoding is registered, listed, fetched and unregistered. The serial number \
        is encoded as one path segment.",
        "Airlines issue passes with such serial numbers. These passes are never updated.";
    "url/serial-with-raw-slashes" Pass Must [URL_10] serial_with_raw_slashes,
        "A pass whose serial number contains a slash is registered, listed, fetched and unregistered. The slash is \
        not encoded.",
        "Airlines issue passes with such serial numbers. On phones that do not encode the slash, these passes are \
        never updated.";
}

/// The paths to register, list and fetch one pass.
struct Paths {
    registration: String,
    list: String,
    pass: String,
}

/// Registers, lists, fetches and unregisters a pass at these paths. If an answer differs from the
/// usual one, `rule` is broken.
async fn life(
    session: &Session,
    subject: &Subject,
    rule: Rule,
    how: &str,
    paths: fn(Paths, &Subject) -> Paths,
) -> CaseResult {
    let device = session.device()?;
    let auth = Auth::Token(subject);
    let plain = Paths {
        registration: session.registration_path(&device.id, &subject.pass),
        list: session.list_path(&device.id, &subject.pass.type_id),
        pass: session.pass_path(&subject.pass),
    };
    let paths = paths(plain, subject);
    session.will_register(&device, subject);
    let mut register = session.register_call(&device, subject);
    register.path.clone_from(&paths.registration);
    let ask = async |call: ServiceRequest, what| {
        Ok::<_, Stop>(session.send(call).await?.about(format!("{what} {how}")))
    };

    ask(register, "POST").await?.is_one_of(&[200, 201], rule)?;
    let list = ask(ServiceRequest::new(Method::GET, paths.list), "the list").await?;
    list.is_list_with(&[200, 204, 404], rule)?;
    session.names(&list, &[subject], rule)?;
    ask(
        ServiceRequest::new(Method::GET, paths.pass).auth(&auth),
        "GET",
    )
    .await?
    .is(200, rule)?;
    // Status 204 is accepted here, because the cases about unregistering report it.
    ask(
        ServiceRequest::new(Method::DELETE, paths.registration).auth(&auth),
        "DELETE",
    )
    .await?
    .is_one_of(&[200, 204], rule)
}

/// Checks that the log also works at this path.
async fn log_at(session: &Session, path: &str) -> CaseResult {
    let call = |path| {
        ServiceRequest::new(Method::POST, path)
            .json(r#"{"logs":["A test of passkit-conformance"]}"#)
    };
    let usual = session.send(call("/v1/log")).await?.status();
    session
        .send(call(path))
        .await?
        .about(format!("POST {path}"))
        .is(usual, Rule::URL_4)
}

async fn double_slash_is_one(session: &Session) -> CaseResult {
    let double = |paths: Paths, _: &Subject| Paths {
        registration: format!("/{}", paths.registration),
        list: format!("/{}", paths.list),
        pass: format!("/{}", paths.pass),
    };
    life(session, session.one()?, Rule::URL_4, "with //v1/", double).await?;
    log_at(session, "//v1/log").await
}

async fn slash_at_the_end(session: &Session) -> CaseResult {
    let slash = |paths: Paths, _: &Subject| Paths {
        registration: format!("{}/", paths.registration),
        list: format!("{}/", paths.list),
        pass: format!("{}/", paths.pass),
    };
    life(
        session,
        session.one()?,
        Rule::URL_4,
        "with a slash at the end",
        slash,
    )
    .await?;
    log_at(session, "/v1/log/").await
}

/// Encodes every byte as a percent escape.
fn all_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn encoded_characters_are_decoded(session: &Session) -> CaseResult {
    let subject = session.one()?;
    // The encoded identifier is also a secret, so it is hidden too.
    let device = session.device()?;
    session.hide(&all_encoded(device.id.as_str()), "<device, encoded>");
    let (type_id, serial) = (
        all_encoded(subject.pass.type_id.as_str()),
        all_encoded(subject.pass.serial.as_str()),
    );
    session.will_register(&device, subject);
    let mut register = session.register_call(&device, subject);
    register.path = format!(
        "/v1/devices/{}/registrations/{type_id}/{serial}",
        all_encoded(device.id.as_str())
    );
    session
        .send(register)
        .await?
        .about("POST, all encoded")
        .is_one_of(&[200, 201], Rule::URL_7)?;
    session
        .holds(&device, subject, &[subject], Rule::URL_7)
        .await?;
    let collection = session.kind().collection();
    let fetch = ServiceRequest::new(Method::GET, format!("/v1/{collection}/{type_id}/{serial}"))
        .auth(&Auth::Token(subject));
    session
        .send(fetch)
        .await?
        .about("GET, all encoded")
        .is(200, Rule::URL_7)
}

async fn undecodable_escapes_are_refused(session: &Session) -> CaseResult {
    let subject = session.one()?;
    let (collection, type_id) = (
        session.kind().collection(),
        encoded(subject.pass.type_id.as_str()),
    );
    for escape in ["%zz", "%", "%ff", "%C3", "%00"] {
        let path = format!("/v1/{collection}/{type_id}/unknown-{escape}");
        let answer = session
            .send(ServiceRequest::new(Method::GET, path).auth(&Auth::Token(subject)))
            .await?;
        let answer = answer.about(format!("GET of a serial number with {escape}"));
        answer.is_one_of(&[400, 401, 404], Rule::URL_7)?;
    }
    Ok(())
}

/// The characters that are not allowed in a query, and the characters that end a value.
const NOT_IN_A_VALUE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Registers a pass on a new device. Returns the path of the list, the name of the tag parameter,
/// and the tag of the first list.
async fn with_tag(session: &Session) -> Result<(String, String, String), Stop> {
    let (device, subject) = (session.device()?, session.one()?);
    let type_id = &subject.pass.type_id;
    session.given(&device, subject).await?;
    let tag = session
        .list(&device, type_id, None)
        .await?
        .listed(session.kind())?
        .tag;
    // This checks that the service recognises the tag in its usual form. If it does not, the case
    // shows nothing about other forms.
    let again = session.list(&device, type_id, Some(&tag)).await?;
    let again = again.about("the list with its last tag, percent-encoded");
    scene(is_quiet(session.kind(), &again))?;
    Ok((
        session.list_path(&device.id, type_id),
        session.kind().since_parameter().to_owned(),
        tag,
    ))
}

async fn tag_is_read_from_the_raw_query(session: &Session) -> CaseResult {
    let (path, parameter, tag) = with_tag(session).await?;
    let path = format!(
        "{path}?{parameter}={}",
        utf8_percent_encode(&tag, NOT_IN_A_VALUE)
    );
    let answer = session.send(ServiceRequest::new(Method::GET, path)).await?;
    answer
        .about("the list with its last tag, not encoded")
        .is(204, Rule::URL_8)
}

async fn unknown_parameters_are_ignored(session: &Session) -> CaseResult {
    let (path, parameter, tag) = with_tag(session).await?;
    let (subject, since) = (session.one()?, format!("{parameter}={}", encoded(&tag)));
    for query in [
        format!("{since}&more=1"),
        format!("more=1&{since}"),
        format!("x{parameter}=0&more&{since}"),
    ] {
        let answer = session
            .send(ServiceRequest::new(Method::GET, format!("{path}?{query}")))
            .await?;
        answer
            .about("the list with its last tag and other parameters")
            .is(204, Rule::URL_9)?;
    }
    let answer = session
        .send(ServiceRequest::new(
            Method::GET,
            format!("{path}?more={}", random()?),
        ))
        .await?;
    let answer = answer.about("the list with other parameters");
    answer.is_list_with(&[200, 204, 404], Rule::URL_9)?;
    session.names(&answer, &[subject], Rule::URL_9)?;
    let fetch = ServiceRequest::new(
        Method::GET,
        format!("{}?more=1", session.pass_path(&subject.pass)),
    );
    session
        .send(fetch.auth(&Auth::Token(subject)))
        .await?
        .about("GET with a query")
        .is(200, Rule::URL_9)
}

fn with_serial(
    session: &Session,
    what: &str,
    fits: fn(&SerialNumber) -> bool,
) -> Result<Subject, Stop> {
    let found = session
        .all()
        .iter()
        .find(|one| fits(&one.pass.serial))
        .cloned();
    found.ok_or_else(|| {
        let reason = "add one to the target file if the service issues passes like this";
        Stop::Skip(format!(
            "needs a pass whose serial number contains {what}: {reason}"
        ))
    })
}

async fn serial_with_reserved_characters(session: &Session) -> CaseResult {
    let subject = with_serial(
        session,
        "a character that is encoded in a path, such as a slash or a space",
        |serial| encoded(serial.as_str()) != serial.as_str(),
    )?;
    life(
        session,
        &subject,
        Rule::URL_10,
        "with this serial number",
        |paths, _| paths,
    )
    .await
}

async fn serial_with_raw_slashes(session: &Session) -> CaseResult {
    let subject = with_serial(session, "a slash", |serial| serial.as_str().contains('/'))?;
    let raw = |paths: Paths, subject: &Subject| {
        let encoded = encoded(subject.pass.serial.as_str());
        let raw = encoded.replace("%2F", "/");
        let with_raw = |path: &str| {
            path.strip_suffix(&*encoded)
                .map_or(path.to_owned(), |head| format!("{head}{raw}"))
        };
        Paths {
            registration: with_raw(&paths.registration),
            pass: with_raw(&paths.pass),
            list: paths.list,
        }
    };
    life(
        session,
        &subject,
        Rule::URL_10,
        "with the slashes not encoded",
        raw,
    )
    .await
}
