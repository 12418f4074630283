use http::{Response, StatusCode};

use crate::{
    DeviceIdentifier, PassId, RegistrationStore, ResponseBody, refusal::Refusal, response, route::decode,
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
