use http::{Response, StatusCode};
use serde_json::Value;

use crate::{
    body::ResponseBody,
    delivery::DeliveryRecorder,
    device_log::{DeviceLog, LogEntry},
    response,
};

/// The largest body in bytes. A batch may have fifty messages or more.
pub(crate) const BODY_LIMIT: usize = 256 * 1024;

/// `POST /v1/log`. The answer is 200 for every body, because a device repeats the call after any
/// other status.
///
/// Apple's form is `{"logs":["…"]}`. Other forms that were seen are `{"description":"…"}` and a
/// bare array. Any other text counts as one message.
pub(crate) fn log(
    hook: &dyn DeviceLog,
    recorder: Option<&DeliveryRecorder>,
    body: &[u8],
) -> Response<ResponseBody> {
    let record = |text: &str| {
        let entry = LogEntry::parse(text);
        hook.record(&entry);
        if let Some(recorder) = recorder {
            recorder.complained(&entry);
        }
    };
    let messages = match serde_json::from_slice(body) {
        Ok(Value::Object(mut object)) => object
            .remove("logs")
            .or_else(|| object.remove("description")),
        Ok(other) => Some(other),
        Err(_) => Some(Value::String(String::from_utf8_lossy(body).into_owned())),
    };
    match messages {
        Some(Value::Array(messages)) => messages.iter().filter_map(Value::as_str).for_each(record),
        Some(Value::String(message)) if !message.trim().is_empty() => record(&message),
        _ => {}
    }
    response::empty(StatusCode::OK)
}
