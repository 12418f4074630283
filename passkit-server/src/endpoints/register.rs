use http::{Response, StatusCode};
use serde_json::Value;

use crate::{
    PassId,
    body::ResponseBody,
    delivery::DeliveryRecorder,
    device_limit::DeviceLimit,
    identifiers::{DeviceIdentifier, PushToken},
    refusal::{Part, Refusal},
    response,
    route::decode,
    store::{Registered, RegistrationStore},
};

/// The largest body in bytes. The body is `{"pushToken":"…"}`, with other keys that a wallet adds.
pub(crate) const BODY_LIMIT: usize = 16 * 1024;

/// `POST /v1/devices/{device}/registrations/{type}/{serial}`. The request is already authorized.
pub(crate) async fn register<S: RegistrationStore>(
    store: &S,
    limit: &DeviceLimit,
    device: &str,
    pass: &PassId,
    body: &[u8],
    other_wallets: bool,
    recorder: Option<&DeliveryRecorder>,
) -> Result<Response<ResponseBody>, Refusal> {
    let device = DeviceIdentifier::new(&decode(device)?)?;
    let push_token = push_token(body, other_wallets)?;
    limit.admit(store, &device, pass).await?;
    let registered = store.register(&device, pass, &push_token).await?;
    limit.registered(store, pass, registered).await?;
    if let (Registered::Created, Some(recorder)) = (registered, recorder) {
        recorder.registered(&pass.type_id, device);
    }
    Ok(response::empty(match registered {
        Registered::Created => StatusCode::CREATED,
        Registered::Existing => StatusCode::OK,
    }))
}

/// Reads the body as JSON, whatever its `Content-Type`. Keys other than `pushToken` are ignored.
fn push_token(body: &[u8], other_wallets: bool) -> Result<PushToken, Refusal> {
    let body: Value = serde_json::from_slice(body).map_err(|error| {
        Refusal::Malformed(Part::Body, format!("the body is not JSON: {error}"))
    })?;
    let Some(Value::String(token)) = body.get("pushToken") else {
        let problem = "the body is not a JSON object with a string \"pushToken\"";
        return Err(Refusal::Malformed(Part::Body, problem.into()));
    };
    let token = PushToken::new(token)
        .map_err(|error| Refusal::Malformed(Part::PushToken, error.to_string()))?;
    if !other_wallets && !token.is_apns() {
        let problem = "push token is not an APNs token, which has an even number of hexadecimal digits, 2 to 400";
        return Err(Refusal::Malformed(Part::PushToken, problem.into()));
    }
    Ok(token)
}
