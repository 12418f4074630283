//! Cases about unregistering a pass from a device.

use super::{case::catalogue, session::Session, steps::together};
use crate::{CaseResult, Rule};

catalogue! {
    "unregister/known-pass-is-200" Pass Must [UNR_1 LIST_3] known_pass_is_200,
        "A device registers, unregisters, asks for its list, and fetches the pass. The fetch must still work.",
        "The phone keeps trying to unregister a pass that its owner deleted, or gets pushes for it forever.";
    "unregister/again-is-200" Pass Must [UNR_2] again_is_200,
        "A device registers, and unregisters twice.",
        "A phone that got no answer repeats the request. It gets an error, and repeats the request again.";
    "unregister/never-registered-is-200" Pass Must [UNR_2] never_registered_is_200,
        "A new device unregisters a pass that it never registered.",
        "Phones do this for passes that were added with automatic updates off. They repeat the request again and \
        again, and fill the log.";
    "unregister/leaves-other-passes" Pass Must [UNR_3] leaves_other_passes,
        "A device registers for two passes, and unregisters them one after the other. Each time, it asks for its \
        list.",
        "After a user deletes one pass, the others get no more updates.";
    "unregister/leaves-other-devices" Pass Must [UNR_3] leaves_other_devices,
        "Two devices register for one pass. The first unregisters it. Both ask for their lists.",
        "When one holder of a shared pass deletes it, all others get no more updates.";
    "unregister/in-parallel-is-200" Pass Must [UNR_2] in_parallel_is_200,
        "A device registers, sends twenty equal requests to unregister at once, and asks for its list.",
        "A phone that repeats a slow request gets an error.";
    "unregister/unknown-pass-is-401" Pass Must [AUTH_4] unknown_pass_is_401,
        "A device unregisters a serial number that does not exist, with the token of another pass.",
        "Anyone who has a pass can find out which other serial numbers exist.";
    "orders/unregister-is-200" Order Must [ORD_1 UNR_1] known_pass_is_200,
        "A device registers for an order, unregisters, asks for its list, and fetches the order. The fetch must still \
        work.",
        "The phone keeps trying to unregister an order that its owner removed, or gets pushes for it forever.";
    "orders/unregister-again-is-200" Order Must [ORD_1 UNR_2] again_is_200,
        "A device registers for an order, and unregisters twice.",
        "A phone that got no answer repeats the request. It gets an error, and repeats the request again.";
}

async fn known_pass_is_200(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    session.given(&device, pass).await?;
    session
        .unregister(&device, pass)
        .await?
        .is(200, Rule::UNR_1)?;
    session.holds(&device, pass, &[], Rule::UNR_1).await?;
    session
        .fetch(pass, None)
        .await?
        .about("a fetch after unregistering")
        .is(200, Rule::GET_9)
}

async fn again_is_200(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    session.given(&device, pass).await?;
    session
        .unregister(&device, pass)
        .await?
        .is(200, Rule::UNR_1)?;
    session
        .unregister(&device, pass)
        .await?
        .about("the second time")
        .is(200, Rule::UNR_2)
}

async fn never_registered_is_200(session: &Session) -> CaseResult {
    session
        .unregister(&session.device()?, session.one()?)
        .await?
        .is(200, Rule::UNR_2)
}

async fn leaves_other_passes(session: &Session) -> CaseResult {
    let (device, (one, two)) = (session.device()?, session.two()?);
    session.given_all(&device, &[one, two]).await?;
    session
        .unregister(&device, one)
        .await?
        .is(200, Rule::UNR_1)?;
    session.holds(&device, one, &[two], Rule::UNR_3).await?;
    session
        .unregister(&device, two)
        .await?
        .is(200, Rule::UNR_1)?;
    session.holds(&device, one, &[], Rule::UNR_1).await
}

async fn leaves_other_devices(session: &Session) -> CaseResult {
    let (leaver, other, pass) = (session.device()?, session.device()?, session.one()?);
    session.given_all(&leaver, &[pass]).await?;
    session.given_all(&other, &[pass]).await?;
    session
        .unregister(&leaver, pass)
        .await?
        .is(200, Rule::UNR_1)?;
    session.holds(&other, pass, &[pass], Rule::UNR_3).await?;
    session.holds(&leaver, pass, &[], Rule::UNR_1).await
}

async fn in_parallel_is_200(session: &Session) -> CaseResult {
    let (device, pass) = (session.device()?, session.one()?);
    session.given(&device, pass).await?;
    for answer in together((0..20).map(|_| session.unregister(&device, pass))).await {
        answer?
            .about("one of twenty equal requests at once")
            .is(200, Rule::UNR_2)?;
    }
    session.holds(&device, pass, &[], Rule::UNR_1).await
}

async fn unknown_pass_is_401(session: &Session) -> CaseResult {
    let unknown = session.unknown(session.one()?)?;
    session
        .unregister(&session.device()?, &unknown)
        .await?
        .is(401, Rule::AUTH_4)
}
