//! Authorization of register, unregister and get calls.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    PassId, PassSource,
    identifiers::{Kind, TokenDigest, TypeIdentifier},
    refusal::{Denied, Refusal},
    route::{MalformedEscape, decode, serial_candidates},
    store::RegistrationStore,
};

/// The schemes of wallets other than Apple's that use this protocol.
const OTHER_SCHEMES: [&str; 3] = ["AndroidPass", "WalletPass", "WalletUnionPass"];

/// What a request wants to do with a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Register,
    Fetch,
    /// Still allowed after the pass was withdrawn.
    Unregister,
}

/// Returns the pass that the path names, if the request has an authentication token of this pass.
///
/// If the source does not accept the token, the service asks the store once for the published
/// tokens. An unknown pass and a wrong token take the same steps and get the same answer.
pub(crate) async fn authorize<S: RegistrationStore, P: PassSource>(
    (store, source): (&S, &P),
    other_wallets: bool,
    headers: &HeaderMap,
    kind: Option<Kind>,
    (type_id, serial): (&str, &str),
    access: Access,
) -> Result<PassId, Refusal> {
    let type_id = TypeIdentifier::new(&decode(type_id)?);
    let serials = serial_candidates(serial);
    let kind = kind
        .or(type_id.as_ref().ok().map(TypeIdentifier::kind))
        .unwrap_or(Kind::Pass);
    let is_malformed = serials.is_malformed;
    let unauthorized = |denied| {
        if is_malformed {
            MalformedEscape.into()
        } else {
            Refusal::Unauthorized(kind, denied)
        }
    };

    let token = presented_token(headers, kind, other_wallets).map_err(unauthorized)?;
    let Some(type_id) = type_id.ok().filter(|id| id.kind() == kind) else {
        return Err(unauthorized(Denied::Type));
    };
    let token = TokenDigest::of(token);
    let mut candidates = Vec::new();
    for serial in serials.serials() {
        let pass = PassId {
            type_id: type_id.clone(),
            serial,
        };
        let credentials = source.credentials(&pass).await.map_err(Refusal::Source)?;
        let offered = credentials
            .as_ref()
            .map(|credentials| !credentials.is_withdrawn());
        let open = access == Access::Unregister || offered == Some(true);
        if open && credentials.is_some_and(|credentials| credentials.accept(&token)) {
            return Ok(pass);
        }
        candidates.push(Candidate { pass, offered });
    }
    // Boxed, so that the future of the usual request stays small.
    Box::pin(authorize_published(store, candidates, token, access))
        .await?
        .map_err(unauthorized)
}

/// A pass that a path may name.
struct Candidate {
    pass: PassId,
    /// Whether the source offers the pass. `None` if the source does not know the pass.
    offered: Option<bool>,
}

/// Returns the candidate that `token` opens, according to the published tokens. If it opens none,
/// returns why the request is denied.
async fn authorize_published<S: RegistrationStore>(
    store: &S,
    candidates: Vec<Candidate>,
    token: TokenDigest,
    access: Access,
) -> Result<Result<PassId, Denied>, Refusal> {
    let mut denied = Denied::Unknown;
    if candidates.is_empty() {
        return Ok(Err(denied));
    }
    let passes: Vec<PassId> = candidates
        .iter()
        .map(|candidate| candidate.pass.clone())
        .collect();
    let published = store.published(&passes).await?;
    for (Candidate { pass, offered }, published) in candidates.into_iter().zip(published) {
        match offered {
            Some(false) => denied = Denied::Removed,
            None if published.is_none() => {}
            _ if denied == Denied::Unknown => denied = Denied::WrongToken,
            _ => {}
        }
        let Some(published) = published else { continue };
        if !published
            .tokens
            .iter()
            .fold(false, |found, known| found | (*known == token))
        {
            continue;
        }
        let withdrawn = published.removed || offered == Some(false);
        match access {
            Access::Unregister => return Ok(Ok(pass)),
            _ if withdrawn => denied = Denied::Removed,
            Access::Fetch if offered.is_none() => return Err(Refusal::Behind(pass)),
            Access::Fetch | Access::Register => return Ok(Ok(pass)),
        }
    }
    Ok(Err(denied))
}

/// Returns the token of `Authorization: <scheme> <token>`.
fn presented_token(headers: &HeaderMap, kind: Kind, other_wallets: bool) -> Result<&[u8], Denied> {
    let value = headers.get(AUTHORIZATION).ok_or(Denied::NoAuthorization)?;
    let value = value.as_bytes().trim_ascii();
    let space = value
        .iter()
        .position(|b| *b == b' ')
        .ok_or(Denied::Scheme)?;
    let (scheme, token) = value.split_at(space);
    if scheme.eq_ignore_ascii_case(kind.auth_scheme().as_bytes()) {
        return Ok(token.trim_ascii());
    }
    match kind == Kind::Pass && is_other_scheme(scheme) {
        true if other_wallets => Ok(token.trim_ascii()),
        true => Err(Denied::OtherWallet),
        false => Err(Denied::Scheme),
    }
}

fn is_other_scheme(scheme: &[u8]) -> bool {
    OTHER_SCHEMES
        .iter()
        .any(|other| scheme.eq_ignore_ascii_case(other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_scheme_fits_the_kind_and_the_token_is_exact() {
        let token = |header: &'static str, kind, other_wallets| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
            presented_token(&headers, kind, other_wallets)
                .ok()
                .map(|t| String::from_utf8(t.to_vec()).unwrap())
        };
        assert_eq!(
            token("ApplePass abc", Kind::Pass, false).as_deref(),
            Some("abc")
        );
        assert_eq!(
            token(" applepass   a b ", Kind::Pass, false).as_deref(),
            Some("a b")
        );
        assert_eq!(
            token("AppleOrder abc", Kind::Order, false).as_deref(),
            Some("abc")
        );
        for scheme in ["AndroidPass abc", "WalletPass abc", "walletunionpass abc"] {
            assert_eq!(token(scheme, Kind::Pass, true).as_deref(), Some("abc"));
            assert_eq!(token(scheme, Kind::Pass, false), None);
            assert_eq!(token(scheme, Kind::Order, true), None);
        }
        for (header, kind) in [
            ("AppleOrder abc", Kind::Pass),
            ("ApplePass abc", Kind::Order),
            ("Bearer abc", Kind::Pass),
            ("ApplePass", Kind::Pass),
            ("ApplePassabc", Kind::Pass),
            ("", Kind::Pass),
        ] {
            assert_eq!(token(header, kind, false), None, "{header:?}");
        }
        assert_eq!(
            presented_token(&HeaderMap::new(), Kind::Pass, false),
            Err(Denied::NoAuthorization)
        );
    }
}
