use http::{Response, StatusCode};

use crate::{
    PassId, body::ResponseBody, identifiers::DeviceIdentifier, refusal::Refusal, response, route::decode,
    store::RegistrationStore,
};

/// `DELETE /v1/devices/{device}/registrations/{type}/{serial}`, already authorized.
///
/// 200 also if there was no registration: devices do send it without having registered, and repeat anything else.
pub(crate) async fn unregister<S: RegistrationStore>(
    store: &S,
    device: &str,
    pass: &PassId,
) -> Result<Response<ResponseBody>, Refusal> {
    let device = DeviceIdentifier::new(&decode(device)?)?;
    store.unregister(&device, pass).await?;
    Ok(response::empty(StatusCode::OK))
}
