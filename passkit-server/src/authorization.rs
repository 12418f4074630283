//! Who may touch a pass: the one check that register, unregister and get share.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    Credentials, Kind, PassId, PassSource, TokenDigest, TypeIdentifier,
    refusal::Refusal,
    route::{decode, serial_candidates},
};

/// How wallets for Android that speak this protocol name the scheme.
const ANDROID_SCHEME: &str = "AndroidPass";

/// What a request is about to do with a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Register it or fetch it.
    Use,
    /// Unregister it, which stays allowed when the pass is withdrawn.
    Unregister,
}

/// The pass that a path names, once the request has shown one of its tokens.
///
/// An unknown pass and a wrong token take the same steps and end in the same refusal.
pub(crate) async fn authorize<P: PassSource>(
    source: &P,
    android_wallets: bool,
    headers: &HeaderMap,
    kind: Option<Kind>,
    (type_id, serial): (&str, &str),
    access: Access,
) -> Result<PassId, Refusal> {
    let type_id = TypeIdentifier::new(&decode(type_id)?);
    let serials = serial_candidates(serial)?;
    let kind = kind.or(type_id.as_ref().ok().map(TypeIdentifier::kind)).unwrap_or(Kind::Pass);
    let unauthorized = Refusal::Unauthorized(kind);

    let Some(token) = presented_token(headers, kind, android_wallets) else { return Err(unauthorized) };
    let Some(type_id) = type_id.ok().filter(|id| id.kind() == kind) else { return Err(unauthorized) };
    let token = TokenDigest::of(token);
    for serial in serials {
        let pass = PassId { type_id: type_id.clone(), serial };
        let credentials: Credentials =
            source.credentials(&pass).await.map_err(Refusal::Source)?.unwrap_or_default();
        let open = access == Access::Unregister || !credentials.is_withdrawn();
        if credentials.accept(&token) && open {
            return Ok(pass);
        }
    }
    Err(unauthorized)
}

/// The token of `Authorization: <scheme> <token>`.
fn presented_token(headers: &HeaderMap, kind: Kind, android_wallets: bool) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii();
    let space = value.iter().position(|b| *b == b' ')?;
    let (scheme, token) = value.split_at(space);
    let known = scheme.eq_ignore_ascii_case(kind.auth_scheme().as_bytes())
        || (android_wallets && kind == Kind::Pass && scheme.eq_ignore_ascii_case(ANDROID_SCHEME.as_bytes()));
    known.then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_fits_the_kind_and_the_token_is_exact() {
        let token = |header: &'static str, kind, android| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
            presented_token(&headers, kind, android).map(|t| String::from_utf8(t.to_vec()).unwrap())
        };
        assert_eq!(token("ApplePass abc", Kind::Pass, false).as_deref(), Some("abc"));
        assert_eq!(token(" applepass   a b ", Kind::Pass, false).as_deref(), Some("a b"));
        assert_eq!(token("AppleOrder abc", Kind::Order, false).as_deref(), Some("abc"));
        assert_eq!(token("AndroidPass abc", Kind::Pass, true).as_deref(), Some("abc"));
        for (header, kind) in [
            ("AppleOrder abc", Kind::Pass),
            ("ApplePass abc", Kind::Order),
            ("AndroidPass abc", Kind::Pass),
            ("Bearer abc", Kind::Pass),
            ("ApplePass", Kind::Pass),
            ("ApplePassabc", Kind::Pass),
            ("", Kind::Pass),
        ] {
            assert_eq!(token(header, kind, false), None, "{header:?}");
        }
        assert_eq!(token("AndroidPass abc", Kind::Order, true), None);
        assert_eq!(presented_token(&HeaderMap::new(), Kind::Pass, false), None);
    }
}
