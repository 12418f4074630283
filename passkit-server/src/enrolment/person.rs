use std::fmt;

use serde_json::{Map, Value};

use crate::refusal::{Part, Refusal};

/// The longest value in characters.
const LONGEST: usize = 256;

/// The data that a customer gave. `personalization.json` decides which values Wallet asks for.
///
/// Each value has at most 256 characters and no NUL. Apart from that, the values are as the
/// customer typed them. `Debug` shows no value.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Person {
    /// The full name.
    pub full_name: Option<String>,
    /// The given name.
    pub given_name: Option<String>,
    /// The family name.
    pub family_name: Option<String>,
    /// The email address.
    pub email_address: Option<String>,
    /// The postal code.
    pub postal_code: Option<String>,
    /// The country, as two letters of ISO 3166.
    pub country_code: Option<String>,
    /// The phone number, as digits.
    pub phone_number: Option<String>,
}

impl Person {
    /// Returns the values that are there, with the names that phones use, such as `emailAddress`.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [
            ("fullName", &self.full_name),
            ("givenName", &self.given_name),
            ("familyName", &self.family_name),
            ("emailAddress", &self.email_address),
            ("postalCode", &self.postal_code),
            ("ISOCountryCode", &self.country_code),
            ("phoneNumber", &self.phone_number),
        ];
        values
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person(redacted)")
    }
}

/// A token that a phone sends, and that the service signs.
///
/// It has 1 to 256 ASCII letters, digits and characters of `._~+/=-`, and is not JSON. A manifest
/// is JSON, so nobody can get a signature over a manifest instead of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonalizationToken(Box<str>);

/// The error for a text that is not a [`PersonalizationToken`]. It does not contain the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the text is not a personalization token; a token has 1 to 256 ASCII letters, digits and \
     characters of \"._~+/=-\", and is not JSON"
)]
pub struct InvalidToken;

impl PersonalizationToken {
    /// Checks a text.
    ///
    /// # Errors
    /// Fails if the text is not a token.
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte);
        let is_token = (1..=256).contains(&text.len()) && text.bytes().all(is_allowed);
        if !is_token || serde_json::from_str::<Value>(text).is_ok() {
            return Err(InvalidToken);
        }
        Ok(Self(text.into()))
    }

    /// Returns the token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PersonalizationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonalizationToken(redacted)")
    }
}

/// Reads the body of a request. Ignores members that it does not know.
pub(super) fn parse(body: &[u8]) -> Result<(PersonalizationToken, Person), Refusal> {
    // An error of the parser could show a part of the body, so it is left out.
    let body: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| malformed("the body is not a JSON object"))?;
    let Some(Value::String(token)) = body.get("personalizationToken") else {
        return Err(malformed("there is no string \"personalizationToken\""));
    };
    let token = PersonalizationToken::new(token)
        .map_err(|error| Refusal::Malformed(Part::Body, error.to_string()))?;
    let mut info = match body.get("requiredPersonalizationInfo") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(info)) => info.clone(),
        Some(_) => {
            return Err(malformed(
                "\"requiredPersonalizationInfo\" is not an object",
            ));
        }
    };
    let mut value = |name: &str| match info.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() > LONGEST => {
            Err(malformed("a value has more than 256 characters"))
        }
        Some(Value::String(text)) if text.contains('\0') => {
            Err(malformed("a value contains a NUL character"))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed("a value is not a string")),
    };
    let person = Person {
        full_name: value("fullName")?,
        given_name: value("givenName")?,
        family_name: value("familyName")?,
        email_address: value("emailAddress")?,
        postal_code: value("postalCode")?,
        country_code: value("ISOCountryCode")?,
        phone_number: value("phoneNumber")?,
    };
    Ok((token, person))
}

fn malformed(problem: &str) -> Refusal {
    Refusal::Malformed(Part::Body, problem.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_tokens_of_phones_are_signed() {
        for token in ["a", "AbC123._~+/=-", &"a".repeat(256), "1a", "-"] {
            assert!(PersonalizationToken::new(token).is_ok(), "{token}");
        }
        for token in [
            "",
            "{}",
            "[]",
            "\"a\"",
            "1",
            "-1.5e3",
            "true",
            "null",
            "a b",
            "a\n",
            "ü",
            &"a".repeat(257),
        ] {
            assert!(PersonalizationToken::new(token).is_err(), "{token}");
        }
    }

    #[test]
    fn a_body_is_read_as_phones_write_it() {
        let info = json!({
            "fullName": "Ada Lovelace", "givenName": "Ada", "familyName": "Lovelace", "emailAddress": "<b>@example.org",
            "postalCode": "10115", "ISOCountryCode": "DE", "phoneNumber": null, "more": [1],
        });
        let body = json!({ "personalizationToken": "abc", "requiredPersonalizationInfo": info, "more": 1 });
        let (token, person) = parse(body.to_string().as_bytes()).ok().unwrap();
        assert_eq!(token.as_str(), "abc");
        let values: Vec<_> = person.values().collect();
        assert_eq!(
            values,
            [
                ("fullName", "Ada Lovelace"),
                ("givenName", "Ada"),
                ("familyName", "Lovelace"),
                ("emailAddress", "<b>@example.org"),
                ("postalCode", "10115"),
                ("ISOCountryCode", "DE"),
            ]
        );
        assert_eq!(
            format!("{token:?} {person:?}"),
            "PersonalizationToken(redacted) Person(redacted)"
        );
        let (_, nobody) = parse(br#"{"personalizationToken":"abc"}"#).ok().unwrap();
        assert_eq!(nobody, Person::default());
    }

    #[test]
    fn other_bodies_are_refused_without_their_content() {
        let info = |info: Value| json!({ "personalizationToken": "abc", "requiredPersonalizationInfo": info });
        for body in [
            json!(null),
            json!([]),
            json!({}),
            json!({ "personalizationToken": 1 }),
            json!({ "personalizationToken": "{\"secret\":1}" }),
            info(json!("secret")),
            info(json!({ "fullName": 1 })),
            info(json!({ "fullName": { "secret": 1 } })),
            info(json!({ "fullName": "secret\0" })),
            info(json!({ "fullName": "s".repeat(257) })),
        ] {
            let Err(refusal) = parse(body.to_string().as_bytes()) else {
                panic!("{body}");
            };
            assert_eq!(refusal.status(), 400, "{body}");
            assert!(!refusal.detail().contains("secret"), "{}", refusal.detail());
        }
        assert!(parse(b"").is_err() && parse(b"\xff").is_err() && parse(&[b'['; 9_000]).is_err());
    }
}
