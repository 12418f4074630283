//! Finds passes by what somebody typed: a serial number, a type with a serial number, or a URL of
//! the web service.

use passkit_server::{
    PassId, PassSource as _, SourceError,
    identifiers::{SerialNumber, TypeIdentifier},
};
use percent_encoding::percent_decode_str;

use super::{
    Page,
    answer::Answer,
    request::{Form, Refusal, query_of},
    view::{self, Found, PassLink},
};

/// A serial number is looked up in this many types.
const MAX_TYPES: usize = 50;

impl PassLink {
    pub(super) fn to(pass: &PassId) -> Self {
        Self {
            query: query_of(pass),
            type_id: pass.type_id.to_string(),
            serial: pass.serial.to_string(),
        }
    }
}

impl Page {
    pub(super) async fn search(&self, query: &Form) -> Result<Answer, Refusal> {
        let typed = query.get("q").unwrap_or_default().trim();
        let (found, advice) = match named(typed) {
            // The page of a pass says so if the pass is unknown.
            Some(pass) => (vec![pass], ""),
            None => self.with_serial(typed).await?,
        };
        if let [pass] = &found[..] {
            return Ok(Answer::see_other(&format!("/pass?{}", query_of(pass))));
        }
        Ok(view::page(&Found {
            passes: found.iter().map(PassLink::to).collect(),
            advice,
            signed_in: true,
            search: typed.to_owned(),
        }))
    }

    /// Returns the passes with this serial number, and what to do if there is none.
    async fn with_serial(&self, serial: &str) -> Result<(Vec<PassId>, &'static str), Refusal> {
        let advice = "A serial number must be complete. Upper and lower case differ.";
        let Ok(serial) = SerialNumber::new(serial) else {
            return Ok((Vec::new(), advice));
        };
        let mut types = self.in_folders().await?.types.clone();
        let in_store = self.in_store_soon().await;
        types.extend(in_store.iter().flat_map(|known| known.types.clone()));
        let advice = if self.source.archives.is_some() && in_store.is_none() {
            "The types in the store are not known yet, so write the type before the serial number."
        } else if types.len() > MAX_TYPES {
            "There are many types, so write the type before the serial number."
        } else {
            advice
        };
        let look = async {
            let mut found = Vec::new();
            for type_id in types.into_iter().take(MAX_TYPES) {
                let pass = PassId {
                    type_id,
                    serial: serial.clone(),
                };
                if self.knows(&pass).await? {
                    found.push(pass);
                }
            }
            Ok::<_, SourceError>(found)
        };
        Ok((self.ask(look).await?, advice))
    }

    /// Returns whether the folder or the store knows a pass.
    async fn knows(&self, pass: &PassId) -> Result<bool, SourceError> {
        if let Some(folder) = &self.source.folder
            && folder.credentials(pass).await?.is_some()
        {
            return Ok(true);
        }
        let store = &*self.store.store;
        let state = store.pass_state(pass).await?;
        let is_marked = state.published.is_some() || state.version > 0;
        Ok(is_marked || store.count_devices(pass, 1).await? > 0)
    }
}

/// Returns the pass that a text names completely: `TYPE SERIAL`, or a URL of the web service.
fn named(text: &str) -> Option<PassId> {
    let is_type = |text: &str| {
        let type_id = TypeIdentifier::new(text).ok()?;
        (text.starts_with("pass.") || text.starts_with("order.")).then_some(type_id)
    };
    let pass = |type_id: &str, serial: &str| {
        Some(PassId {
            type_id: is_type(type_id)?,
            serial: SerialNumber::new(serial.trim()).ok()?,
        })
    };
    if let Some((type_id, serial)) = text.split_once(char::is_whitespace) {
        return pass(type_id, serial);
    }
    let (_, path) = text.split_once("/v1/")?;
    let path = path.split(['?', '#']).next()?;
    let path = match path.split_once('/')? {
        ("passes" | "orders", path) => path,
        ("devices", path) => path.split_once("/registrations/")?.1,
        _ => return None,
    };
    let (type_id, serial) = path.split_once('/')?;
    let decode = |text: &str| {
        percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(String::from)
    };
    pass(&decode(type_id)?, &decode(serial.trim_end_matches('/'))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_types_name_a_pass() {
        let pass = |serial| PassId::new("pass.com.example.ticket", serial).ok();
        for (text, expected) in [
            ("pass.com.example.ticket A 1", pass("A 1")),
            (
                "https://example.org/wallet/v1/passes/pass.com.example.ticket/A%2F1/?x=/v1/",
                pass("A/1"),
            ),
            (
                "/v1/devices/secret/registrations/pass.com.example.ticket/A-1",
                pass("A-1"),
            ),
            ("A-1", None),
            ("two words", None),
            ("https://example.org/", None),
            (
                "https://example.org/v1/passes/pass.com.example.ticket",
                None,
            ),
            ("https://example.org/v1/log", None),
            ("", None),
        ] {
            assert_eq!(named(text), expected, "{text}");
        }
    }
}
