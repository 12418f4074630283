use http::Uri;
use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters to encode in a path segment and in a query value: all but the unreserved
/// characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The characters that must be encoded in a query value.
const NOT_IN_QUERIES: &AsciiSet = &RESERVED
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/')
    .remove(b'?');

/// The base URL of a web service, which is the `webServiceURL` of its passes, and the URLs that
/// phones call below it.
#[derive(Clone, Debug)]
pub struct ServiceUrl(String);

impl ServiceUrl {
    /// Parses a base URL. It starts with `https://` or `http://`, and may end with slashes.
    ///
    /// # Errors
    ///
    /// Fails if the URL can't be used. The text continues a sentence that begins with the URL.
    pub fn new(url: &str) -> Result<Self, &'static str> {
        // The messages do not repeat the URL, because any part of a mistyped URL may be a password.
        if url.contains('@') {
            return Err("has a user name in it; in a path, write %40 for @");
        }
        if url.contains('#') || url.contains('?') {
            return Err("has a query or a fragment; the path is appended to it");
        }
        let uri: Uri = url.parse().map_err(|_| "is not a url")?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err("starts with neither https:// nor http://");
        }
        uri.authority().ok_or("names no host")?;
        Ok(Self(url.trim_end_matches('/').to_owned()))
    }

    /// Returns a made-up URL for a service in this process.
    pub(crate) fn in_process() -> Self {
        Self("http://in-process".into())
    }

    /// The base, without trailing slashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL that registers and unregisters a pass on a device.
    #[must_use]
    pub fn registration(&self, device: &DeviceIdentifier, pass: &PassId) -> String {
        format!(
            "{}/{}",
            self.registrations(device, &pass.type_id),
            encoded(pass.serial.as_str())
        )
    }

    /// The URL that lists the passes that changed since the update tag, or all passes of the
    /// device.
    #[must_use]
    pub fn list(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        tag: Option<&str>,
    ) -> String {
        let list = self.registrations(device, type_id);
        match tag {
            Some(tag) => format!(
                "{list}?{}={}",
                type_id.kind().since_parameter(),
                encoded(tag)
            ),
            None => list,
        }
    }

    /// The URL of the newest version of a pass.
    #[must_use]
    pub fn pass(&self, pass: &PassId) -> String {
        let (collection, type_id) = (
            pass.type_id.kind().collection(),
            encoded(pass.type_id.as_str()),
        );
        format!(
            "{}/v1/{collection}/{type_id}/{}",
            self.0,
            encoded(pass.serial.as_str())
        )
    }

    pub(crate) fn log(&self) -> String {
        format!("{}/v1/log", self.0)
    }

    pub(crate) fn registrations(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
    ) -> String {
        let Self(base) = self;
        format!(
            "{base}/v1/devices/{}/registrations/{}",
            encoded(device.as_str()),
            encoded(type_id.as_str())
        )
    }
}

/// Encodes a text as one path segment. The segments "." and ".." are encoded completely, because
/// clients otherwise resolve them as relative paths.
pub(crate) fn encoded(text: &str) -> String {
    match text {
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        _ => utf8_percent_encode(text, RESERVED).to_string(),
    }
}

/// Encodes a text as a query value. Encodes only the characters that a URL does not allow there.
pub(crate) fn encoded_where_needed(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_QUERIES).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_joined_with_one_slash() {
        let pass = PassId::new("pass.t", "S1").unwrap();
        for base in ["https://h", "https://h/", "https://h//"] {
            assert_eq!(
                ServiceUrl::new(base).unwrap().pass(&pass),
                "https://h/v1/passes/pass.t/S1"
            );
            assert_eq!(ServiceUrl::new(base).unwrap().log(), "https://h/v1/log");
        }
        let with_path = ServiceUrl::new("http://h:8080/a/b/").unwrap();
        assert_eq!(with_path.log(), "http://h:8080/a/b/v1/log");
    }

    #[test]
    fn each_segment_is_encoded_separately() {
        let url = ServiceUrl::new("https://h").unwrap();
        let device = DeviceIdentifier::new("d1").unwrap();
        let pass = |serial| PassId::new("order.t", serial).unwrap();
        assert_eq!(
            url.pass(&pass("A/B ü%")),
            "https://h/v1/orders/order.t/A%2FB%20%C3%BC%25"
        );
        assert_eq!(url.pass(&pass("..")), "https://h/v1/orders/order.t/%2E%2E");
        assert_eq!(
            url.registration(&device, &pass("a?b#c")),
            "https://h/v1/devices/d1/registrations/order.t/a%3Fb%23c"
        );
        let order = &pass("x").type_id;
        assert_eq!(
            url.list(&device, order, None),
            "https://h/v1/devices/d1/registrations/order.t"
        );
        assert_eq!(
            url.list(&device, order, Some("2024-01-01T00:00:00+01:00&x")),
            "https://h/v1/devices/d1/registrations/order.t\
             ?ordersModifiedSince=2024-01-01T00%3A00%3A00%2B01%3A00%26x"
        );
    }

    #[test]
    fn a_url_that_cannot_be_a_base_is_refused() {
        for url in [
            "",
            "h",
            "ftp://h",
            "https://h?x",
            "https://h#x",
            "https://u:p@h",
            "https://",
            "/v1",
        ] {
            assert!(ServiceUrl::new(url).is_err(), "{url:?}");
        }
    }
}
