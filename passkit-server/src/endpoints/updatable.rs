use std::fmt::Write as _;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use crate::{
    body::ResponseBody,
    delivery::DeliveryRecorder,
    identifiers::{DeviceIdentifier, Kind, TypeIdentifier},
    refusal::Refusal,
    response,
    route::{decode, query_value},
    store::{Changes, RegistrationStore, UpdateTag},
    traced::List,
};

/// `GET /v1/devices/{device}/registrations/{type}`. The call needs no credentials except the device
/// identifier.
///
/// An unknown device or type has no changes, so a stranger learns nothing. An unreadable tag counts
/// as no tag. If the service refused such a tag, the device would keep the tag forever.
pub(crate) async fn updatable<S: RegistrationStore>(
    store: &S,
    device: &str,
    type_id: &str,
    query: Option<&str>,
    recorder: Option<&DeliveryRecorder>,
) -> Result<Response<ResponseBody>, Refusal> {
    let device = DeviceIdentifier::new(&decode(device)?)?;
    let Ok(type_id) = TypeIdentifier::new(&decode(type_id)?) else {
        return Ok(response::empty(StatusCode::NO_CONTENT));
    };
    let kind = type_id.kind();
    let since = query_value(query, kind.since_parameter())
        .and_then(|tag| decode(tag).ok())
        .and_then(|tag| UpdateTag::parse(&tag));
    let list = List::new(&device, &type_id, since);
    let changes = store.changes_since(&device, &type_id, since).await?;
    list.answered(&changes);
    if let Some(recorder) = recorder {
        recorder.listed(&type_id, &device, since, &changes);
    }
    if changes.serials.is_empty() {
        return Ok(response::empty(StatusCode::NO_CONTENT));
    }
    let mut answer = response::with_body(StatusCode::OK, to_json(kind, &changes));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// Writes `{"serialNumbers":["…"],"lastUpdated":"…"}` with the keys of the kind.
fn to_json(kind: Kind, changes: &Changes) -> Bytes {
    let size: usize = changes
        .serials
        .iter()
        .map(|serial| serial.as_str().len() + 3)
        .sum();
    let mut json = String::with_capacity(size + 96);
    json.extend(["{\"", kind.serials_key(), "\":["]);
    for (index, serial) in changes.serials.iter().enumerate() {
        json.push_str(if index > 0 { ",\"" } else { "\"" });
        push_escaped(&mut json, serial.as_str());
        json.push('"');
    }
    json.extend(["],\"", kind.tag_key(), "\":\""]);
    // Writing to a string can't fail.
    let _written = write!(json, "{}\"}}", changes.tag);
    json.into()
}

/// Only quotes and backslashes need an escape in JSON, because serial numbers have no control
/// characters.
fn push_escaped(json: &mut String, serial: &str) {
    let special = |b: u8| matches!(b, b'"' | b'\\');
    if !serial.bytes().fold(false, |so_far, b| so_far | special(b)) {
        return json.push_str(serial);
    }
    for char in serial.chars() {
        if u8::try_from(char).is_ok_and(special) {
            json.push('\\');
        }
        json.push(char);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identifiers::SerialNumber;

    #[test]
    fn the_answer_is_json_whatever_the_serials_hold() {
        let serials = ["a\"b", "ü/ \\", "plain", "\"\"", "\\\"x"];
        let changes = Changes {
            serials: serials
                .map(|serial| SerialNumber::new(serial).unwrap())
                .to_vec(),
            tag: UpdateTag {
                type_version: 16,
                device_version: 1,
            },
        };
        for kind in Kind::ALL {
            let body: serde_json::Value = serde_json::from_slice(&to_json(kind, &changes)).unwrap();
            assert_eq!(
                body,
                json!({ kind.serials_key(): serials, kind.tag_key(): "10-1" })
            );
        }
    }
}
