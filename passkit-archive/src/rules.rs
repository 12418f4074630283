//! The table of everything that can be found in an archive.
//!
//! A rule has a code that never changes, a level, and its meaning for a phone. The check that finds
//! a problem names the rule, and says what is wrong and where. So the levels are all decided in
//! this table.

use std::fmt;

/// How much a finding matters. A later level is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Good to know. Nothing is wrong.
    Note,
    /// Probably not what the maker wants. Phones accept the archive.
    Warning,
    /// Phones accept the archive, but something in it cannot work.
    Error,
    /// Phones refuse the archive, or the update to it.
    Refused,
}

impl Level {
    /// Returns the level in one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that is checked.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rule {
    /// A name that never changes, such as `icon-missing`.
    pub code: &'static str,
    /// How much a finding of this rule matters.
    pub level: Level,
    /// The meaning of the rule, in a sentence.
    pub meaning: &'static str,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
    }
}

impl Eq for Rule {}

macro_rules! rules {
    ($($name:ident $code:literal $level:ident $meaning:literal;)*) => {
        $(
            pub(crate) static $name: Rule = Rule {
                code: $code,
                level: Level::$level,
                meaning: $meaning,
            };
        )*

        /// Every rule, in the order of checking.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

rules! {
    // The zip archive.
    NOT_ZIP "not-zip" Refused "The file is something else than a zip archive, or only a part of one.";
    BUNDLE "bundle" Refused "The file is a bundle of passes. A web service serves passes one by one.";
    ZIP_STRUCTURE "zip-structure" Refused "Readers of zip archives disagree about what is in this one.";
    ZIP_TAIL "zip-tail" Warning "Something follows after the zip archive. Most readers ignore it.";
    TOO_LARGE "too-large" Refused "The archive is larger than phones or this program read.";
    NO_DESCRIPTION "no-description" Refused "The archive has neither pass.json nor order.json at its root, or both.";
    NAME "file-name" Refused "A file has a name that phones do not take.";
    NAME_TWICE "file-name-twice" Refused "Two files have the same name, or names that differ in upper and lower case only.";
    ENTRY "file-unreadable" Refused "A file can't be unpacked.";
    MACOS "macos-file" Warning "macOS added a file that nobody needs.";
    APPLE_DOUBLE "apple-double" Refused "The manifest lists a file that macOS added (._name). Phones do not find it.";

    // JSON, of the description and the manifest.
    JSON "json" Refused "The file is not a JSON object in UTF-8.";
    JSON_LIMIT "json-limit" Refused "The JSON has more values, or nests deeper, than this program reads.";
    JSON_COMMA "json-comma" Warning "A comma follows the last member. Phones take it, JSON does not allow it.";
    JSON_MARK "json-byte-order-mark" Warning "The file starts with a byte order mark. Phones take it, JSON does not allow it.";
    JSON_ENCODING "json-encoding" Warning "The file is UTF-16 or UTF-32. Apple's parser reads both, many others do not.";
    JSON_TWICE "json-key-twice" Error "A key occurs twice. Readers differ in which value they take.";

    // The manifest.
    MANIFEST_MISSING "manifest-missing" Refused "There is no manifest.json.";
    MANIFEST_VALUE "manifest-value" Refused "The manifest lists something else than the digest of a file.";
    MANIFEST_CASE "manifest-case" Warning "The manifest lists a digest in upper case.";
    DIGEST "digest" Refused "A file differs from what the manifest lists.";
    NOT_LISTED "file-not-listed" Refused "The manifest does not list a file.";
    NOT_THERE "file-missing" Refused "The manifest lists a file that is not there.";

    // The signature and its certificates.
    SIGNATURE_MISSING "signature-missing" Refused "There is no signature.";
    SIGNATURE "signature" Refused "The signature does not verify over the manifest.";
    INTERMEDIATE_MISSING "intermediate-missing" Refused "The signature lacks Apple's intermediate certificate.";
    INTERMEDIATE_OTHER "intermediate-other" Warning "The intermediate in the signature did not issue the certificate. Some phones refuse the pass.";
    INTERMEDIATE_EXPIRED "intermediate-expired" Warning "The intermediate certificate has expired.";
    ROOT "root" Warning "The certificates do not lead to Apple. Phones take only Apple's; this is for tests.";
    CERTIFICATE "certificate" Refused "A certificate in the signature is damaged.";
    CERTIFICATE_DAYS "certificate-days" Refused "The signature was made outside the days of its certificate.";
    SIGNING_TIME "signing-time" Refused "The signature does not say when it was made.";
    CERTIFICATE_EXPIRED "certificate-expired" Warning "The certificate has expired since it signed. It can sign no update.";
    CERTIFICATE_ENDS "certificate-ends" Warning "The certificate expires within 90 days.";
    CERTIFICATE_TYPE "certificate-type" Refused "The certificate is for another type.";
    CERTIFICATE_TEAM "certificate-team" Refused "The certificate is of another team.";
    CERTIFICATE_PLAIN "certificate-plain" Note "The certificate lacks the extension in which Apple names the type.";
    CERTIFICATE_NFC "certificate-nfc" Refused "The pass uses NFC or rewards enrolment, and its certificate does not allow that.";

    // The description.
    KEY_MISSING "key-missing" Refused "A required key is missing.";
    TYPE "type" Refused "A value has another JSON type than phones expect.";
    BARCODE "barcode" Error "A barcode lacks its format, message or encoding.";
    TYPE_MINOR "type-ignored" Error "A value has another JSON type than phones expect. They ignore it.";
    VALUE "value" Refused "A value can't be used.";
    VALUE_MINOR "value-ignored" Error "A value is none of those that phones know.";
    STYLE_MISSING "style-missing" Refused "The pass has no style.";
    STYLE_UNKNOWN "style-unknown" Warning "The style of the pass is not known to this program. Older phones may not show it.";
    STYLE_NEW "style-new" Warning "Only phones with iOS 27 show this style.";
    STYLE_TWICE "style-twice" Warning "The pass has several styles. Phones show one of them.";
    FIELD "field" Refused "A field lacks its key or its value.";
    FIELD_TWICE "field-twice" Refused "Two fields of a style have the same key.";
    TRANSIT_TYPE "transit-type" Refused "A boarding pass lacks its kind of transport.";
    DATE "date" Refused "A date is not in the form that phones read.";
    DATE_MINOR "date-ignored" Error "A date is not in the form that phones read. They ignore it.";
    COLOR "color" Refused "A colour is not in the form that phones read.";
    ICON "icon-missing" Refused "The pass has no icon.";
    LOGO "logo-missing" Refused "The order names a logo that is not in the archive.";

    // Updates.
    TOKEN "token" Refused "The authentication token is shorter than 16 characters, or missing.";
    TOKEN_MINOR "token-unusable" Error "The authentication token can't be sent in a header, so no update arrives.";
    NO_URL "no-url" Warning "There is a token, but no web service. The pass is never updated.";
    NO_WEB_SERVICE "no-web-service" Warning "The pass has no web service. It is never updated.";
    URL "url" Error "Phones can't call this web service, so no update arrives.";
    URL_HTTP "url-http" Warning "Phones call a web service without TLS only if a switch for developers is on.";
    URL_USER "url-user" Warning "The address of the web service has a user name. Everyone who has the pass can read this name, and phones may not send it.";
    URL_QUERY "url-query" Warning "The address of the web service has a query or a fragment. Phones append their path to it.";
    URL_SCRIPT "url-script" Warning "The address of the web service is that of a script. Phones append their path to it.";
    URL_VERSION "url-version" Error "The address of the web service ends in /v1, which phones append themselves.";
    URL_FILE "url-file" Error "The address of the web service is that of a file. Phones append their path to it.";

    MORE "more" Note "There are more findings than are listed.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_is_of_one_rule_and_each_meaning_is_a_sentence() {
        let codes: BTreeSet<_> = RULES.iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), RULES.len());
        for rule in RULES {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(rule.code.chars().all(plain), "{}", rule.code);
            assert!(rule.meaning.ends_with('.'), "{}", rule.code);
        }
    }

    #[test]
    fn levels_are_in_order() {
        assert!(Level::Note < Level::Warning && Level::Warning < Level::Error);
        assert!(Level::Error < Level::Refused);
    }
}
