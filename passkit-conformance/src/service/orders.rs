//! Cases about orders, where their names and rules differ from passes.

use http::{Method, header};

use super::{
    case::catalogue,
    listing::{is_quiet, list, names, registered_and_listed},
    session::{Auth, ServiceRequest, Session},
};
use crate::{CaseResult, Rule, wire::archive_types};

catalogue! {
    "orders/list-has-its-own-words" Order Must [ORD_2] list_has_its_own_words,
        "A registered device asks what changed, and reads orderIdentifiers and lastModified.",
        "The phone drops the answer as malformed, so no order is ever updated.";
    "orders/tag-has-its-own-word" Order Must [ORD_2] tag_has_its_own_word,
        "A device sends the tag that it just got in the parameter ordersModifiedSince.",
        "The service does not see the tag, and the phone fetches all its orders with every push.";
    "orders/scheme-is-appleorder" Order Must [ORD_2 AUTH_3] scheme_is_appleorder,
        "An order is fetched with its token, but with the scheme ApplePass.",
        "Phones don't notice. But the service confuses passes with orders. A token should open \
        only one of the two.";
    "orders/fetched-before-registered" Order Must [ORD_3] fetched_before_registered,
        "An order is fetched with its token. No device of the kit is registered for it.",
        "After a payment, the phone fetches the order before it registers. The fetch fails, and the order never \
        appears.";
    "orders/has-media-type" Order Must [ORD_4] has_media_type,
        "An order is fetched. Its content-type must be one of the two media types that services use.",
        "A browser or a mail program does not recognise the answer as an order.";
    "orders/has-apples-media-type" Order Advisory [ORD_4] has_apples_media_type,
        "An order is fetched. Its content-type must be the media type that Apple documents.",
        "Programs that know only the documented type do not open the order.";
    "orders/lists-go-by-type" Order Must [LIST_3 ORD_2] lists_go_by_type,
        "A device registers for a pass and for an order, and asks for the list of each type without a tag.",
        "The phone drops an answer that has the wrong key names, and gets no updates.";
}

async fn list_has_its_own_words(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    session.given(&device, one).await?;
    list(session, &device, one, None)
        .await?
        .listed(session.kind())
        .map(drop)
}

async fn tag_has_its_own_word(session: &Session) -> CaseResult {
    let (device, one) = (session.device()?, session.one()?);
    let tag = registered_and_listed(session, &device, &[one]).await?;
    let answer = list(session, &device, one, Some(&tag)).await?;
    if answer.status() == 200 {
        let expected = "status 204 if ordersModifiedSince is the newest tag";
        return Err(answer.violation(Rule::ORD_2, expected, "status 200"));
    }
    is_quiet(session.kind(), &answer)
}

async fn scheme_is_appleorder(session: &Session) -> CaseResult {
    let one = session.one()?;
    let mut call = session.fetch_call(one, None);
    call.headers
        .retain(|(name, _)| name != header::AUTHORIZATION);
    let other = Auth::Raw(format!("ApplePass {}", one.token.as_str()));
    session.send(call.auth(&other)).await?.is(401, Rule::ORD_2)
}

async fn fetched_before_registered(session: &Session) -> CaseResult {
    session
        .fetch(session.one()?, None)
        .await?
        .is(200, Rule::ORD_3)
}

async fn has_media_type(session: &Session) -> CaseResult {
    let answer = session.fetch(session.one()?, None).await?;
    answer.is(200, Rule::ORD_3)?;
    answer.media_type(archive_types(session.kind()), Rule::ORD_4)
}

async fn has_apples_media_type(session: &Session) -> CaseResult {
    let answer = session.fetch(session.one()?, None).await?;
    answer.is(200, Rule::ORD_3)?;
    answer.media_type(&[session.kind().media_type()], Rule::ORD_4)
}

async fn lists_go_by_type(session: &Session) -> CaseResult {
    let (pass, order) = session.one_of_each()?;
    let device = session.device()?;
    session.given(&device, pass).await?;
    session.given(&device, order).await?;
    for one in [pass, order] {
        let path = session.list_path(&device.id, &one.pass.type_id);
        names(
            &session.send(ServiceRequest::new(Method::GET, path)).await?,
            &[one],
            Rule::LIST_3,
        )?;
    }
    Ok(())
}
