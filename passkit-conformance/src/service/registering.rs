//! Registering a pass on a device.

use super::{catalogue, session::Session};
use crate::{Rule, Verdict};

catalogue! {
    "register/new-pass-is-201" Pass Must [REG_1] new_pass_is_201,
        "A new device registers for a pass.",
        "The phone takes any answer but 200 and 201 for a failure: it tries again and again, and reports it to the log.";
}

async fn new_pass_is_201(session: &Session) -> Verdict {
    let device = session.device()?;
    session.register(&device, session.one()?).await?.is(201, Rule::REG_1)
}
