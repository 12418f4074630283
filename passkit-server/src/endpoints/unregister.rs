use http::{Response, StatusCode};

use crate::{
    PassId, body::ResponseBody, delivery::DeliveryRecorder, identifiers::DeviceIdentifier,
    refusal::Refusal, response, route::decode, store::RegistrationStore,
};

/// `DELETE /v1/devices/{device}/registrations/{type}/{serial}`. The request is already authorized.
///
/// The answer is 200 even if there was no registration. Devices send this call without a
/// registration, and repeat it after any other status.
pub(crate) async fn unregister<S: RegistrationStore>(
    store: &S,
    device: &str,
    pass: &PassId,
    recorder: Option<&DeliveryRecorder>,
) -> Result<Response<ResponseBody>, Refusal> {
    let device = DeviceIdentifier::new(&decode(device)?)?;
    let existed = store.unregister(&device, pass).await?;
    if let (true, Some(recorder)) = (existed, recorder) {
        recorder.left(&pass.type_id, &device);
    }
    Ok(response::empty(StatusCode::OK))
}
