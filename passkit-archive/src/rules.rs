//! The table of everything that can be found, with its level.
//!
//! A rule has a code that never changes, a level, its meaning for a phone, and advice. The check
//! that finds a problem names the rule, and says what is wrong and where. This table alone decides
//! the levels.

use std::fmt;

use passkit_server::text::closest;

/// How much a finding matters. A later level is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Good to know. Nothing is wrong.
    Note,
    /// Phones accept the archive, but its maker probably made a mistake.
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

/// The part of an archive that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Area {
    /// The zip archive.
    Zip,
    /// The JSON syntax of `pass.json`, `order.json` and `manifest.json`.
    Json,
    /// `manifest.json`.
    Manifest,
    /// The signature and its certificates.
    Signature,
    /// The keys of `pass.json` and `order.json`.
    Keys,
    /// The style and its fields.
    Fields,
    /// Barcodes.
    Barcodes,
    /// Images and colours.
    Appearance,
    /// Translations: the folders `*.lproj`.
    Translations,
    /// Times, places, NFC and rewards enrolment.
    Use,
    /// The address and token with which phones fetch updates.
    Updates,
    /// The web service itself. Only `passkit check --online` checks it.
    Online,
}

impl Area {
    /// Returns the name of the area, as a heading.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zip => "The zip archive",
            Self::Json => "JSON",
            Self::Manifest => "The manifest",
            Self::Signature => "The signature",
            Self::Keys => "Keys",
            Self::Fields => "Style and fields",
            Self::Barcodes => "Barcodes",
            Self::Appearance => "Images and colours",
            Self::Translations => "Translations",
            Self::Use => "Times, places, NFC and rewards",
            Self::Updates => "Updates",
            Self::Online => "The web service (`--online`)",
        }
    }
}

/// A rule that is checked. `Debug` shows its code.
#[non_exhaustive]
pub struct Rule {
    /// A name that never changes, such as `icon-missing`.
    pub code: &'static str,
    /// How much a finding of this rule matters.
    pub level: Level,
    /// The part of the archive that the rule is about.
    pub area: Area,
    /// The meaning of the rule, in one or two sentences.
    pub meaning: &'static str,
    /// How to fix a finding, in one or two sentences.
    pub fix: &'static str,
    /// The URL of a document on the subject.
    pub source: &'static str,
}

impl Rule {
    /// Returns the rule with this code.
    #[must_use]
    pub fn of(code: &str) -> Option<&'static Self> {
        RULES.iter().copied().find(|rule| rule.code == code)
    }

    /// Returns up to three codes that resemble `code`, the closest first.
    #[must_use]
    pub fn nearest(code: &str) -> Vec<&'static str> {
        closest(code, RULES.iter().map(|rule| rule.code))
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.code)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.code == other.code
    }
}

impl Eq for Rule {}

/// The documents that rules refer to.
mod source {
    macro_rules! wallet_passes {
        ($($name:ident $page:literal;)*) => {
            $(pub(super) const $name: &str =
                concat!("https://developer.apple.com/documentation/walletpasses/", $page);)*
        };
    }
    wallet_passes! {
        PASS "pass";
        SOURCE "creating-the-source-for-a-pass";
        BUILDING "building-a-pass";
        FIELDS "passfields";
        FIELD "passfieldcontent";
        SEMANTICS "semantictags";
        UPDATES "adding-a-web-service-to-update-passes";
        LIST "get-the-list-of-updatable-passes";
        GET "send-an-updated-pass";
        DESIGNER "creating-a-pass-with-pass-designer";
        BUNDLE "distributing-and-updating-a-pass";
    }
    pub(super) const ORDER: &str = "https://developer.apple.com/documentation/walletorders/order";
    pub(super) const WALLET_DESIGN: &str =
        "https://developer.apple.com/design/human-interface-guidelines/wallet";
    pub(super) const REWARDS: &str = "https://developer.apple.com/library/archive/documentation/UserExperience/Conceptual/PassKit_PG/PassPersonalization.html";
    pub(super) const AUTHORITY: &str = "https://www.apple.com/certificateauthority/";
    pub(super) const ZIP: &str = "https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT";
    pub(super) const JSON: &str = "https://www.rfc-editor.org/rfc/rfc8259";
    pub(super) const CMS: &str = "https://www.rfc-editor.org/rfc/rfc5652";
    pub(super) const URI: &str = "https://www.rfc-editor.org/rfc/rfc3986";
    pub(super) const DATE: &str = "https://www.w3.org/TR/NOTE-datetime";
    pub(super) const CONTRAST: &str = "https://www.w3.org/TR/WCAG21/#contrast-minimum";
    pub(super) const PNG: &str = "https://www.w3.org/TR/png/";
    pub(super) const LANGUAGE: &str = "https://www.rfc-editor.org/info/bcp47";
    pub(super) const ENCODING: &str =
        "https://www.iana.org/assignments/character-sets/character-sets.xhtml";
}

macro_rules! rules {
    ($($area:ident { $(
        $name:ident $code:literal $level:ident $source:ident
            $meaning:literal
            $fix:literal
    )* })*) => {
        $($(
            #[doc = $meaning]
            pub static $name: Rule = Rule {
                code: $code,
                level: Level::$level,
                area: Area::$area,
                meaning: $meaning,
                fix: $fix,
                source: source::$source,
            };
        )*)*

        /// Every rule, in the order of checking.
        pub static RULES: &[&Rule] = &[$($(&$name),*),*];
    };
}

rules! {
Zip {
    NOT_ZIP "not-zip" Refused ZIP
        "The file is not a zip archive, or is only a part of one."
        "Zip all files of the pass. If the file was downloaded, look at what the server sent."
    BUNDLE "bundle" Refused BUNDLE
        "The file is a bundle of passes, which only Safari and Mail open. A web service serves passes one by one."
        "Unzip the bundle, and serve the passes in it."
    ZIP_STRUCTURE "zip-structure" Refused ZIP
        "Readers of zip archives find different files in this archive. A phone may find different files from the \
         signer."
        "Zip the files again, with a common program and without zip64."
    ZIP_TAIL "zip-tail" Warning ZIP
        "The file has more bytes after the zip archive. Most readers ignore them."
        "Remove the bytes after the end, such as a line feed that a script added."
    TOO_LARGE "too-large" Refused BUILDING
        "The archive is larger than phones or this program read."
        "Use smaller images, and leave out files that the pass does not need."
    NO_DESCRIPTION "no-description" Refused SOURCE
        "The archive has neither pass.json nor order.json at its root, or has both. A phone looks for the file only there."
        "Zip the files themselves, not the folder they are in."
    NAME "file-name" Refused BUILDING
        "A file is a link, or has a name that phones do not accept: absolute, with a backslash, or with \"..\"."
        "Add the file itself, under a plain name relative to the root of the archive."
    NAME_TWICE "file-name-twice" Refused BUILDING
        "Two files have the same name, or names that differ only in upper and lower case."
        "Remove or rename one of them."
    ENTRY "file-unreadable" Refused ZIP
        "A file can't be unpacked, because it is encrypted, damaged, too large, or compressed in an unusual way."
        "Zip the files again, with deflate or without compression, and without a password."
    MACOS "macos-file" Warning BUILDING
        "macOS added a file that nobody needs, such as .DS_Store. Phones ignore it."
        "Zip with `zip -X`, and leave out .DS_Store and __MACOSX."
    APPLE_DOUBLE "apple-double" Refused BUILDING
        "The manifest lists a file that macOS added (._name). Phones do not find such a file, and refuse the pass."
        "Remove the file, write the manifest again and sign again."
}
Json {
    JSON "json" Refused JSON
        "The file is not a JSON object in UTF-8, so a phone can't read it."
        "Correct the syntax at the reported position."
    JSON_LIMIT "json-limit" Refused JSON
        "The JSON has more values or deeper nesting than this program reads."
        "Remove what the pass does not need. Real passes have a few hundred values."
    JSON_COMMA "json-comma" Warning JSON
        "A comma follows the last member. Phones accept it, but JSON does not allow it."
        "Remove the comma."
    JSON_MARK "json-byte-order-mark" Warning JSON
        "The file starts with a byte order mark. Phones accept it, but JSON does not allow it."
        "Write UTF-8 without a byte order mark."
    JSON_ENCODING "json-encoding" Warning JSON
        "The file is UTF-16 or UTF-32. Apple's parser reads both encodings, but many other parsers do not."
        "Write the file in UTF-8."
    JSON_TWICE "json-key-twice" Error JSON
        "A key occurs twice in the object. Some readers use the first value, others the last."
        "Remove one of the two members."
}
Manifest {
    MANIFEST_MISSING "manifest-missing" Refused BUILDING
        "There is no manifest.json, so the signature covers no file."
        "Write a manifest.json that lists the digest of every file: SHA-1 in a pass, SHA-256 in an order."
    MANIFEST_VALUE "manifest-value" Refused BUILDING
        "The manifest lists a value that is not the digest of a file."
        "List one digest for each file, in hexadecimal digits. Leave out manifest.json and signature."
    MANIFEST_CASE "manifest-case" Warning BUILDING
        "The manifest lists a digest in upper case."
        "Write digests in lower-case hexadecimal digits."
    DIGEST "digest" Refused BUILDING
        "A file differs from what the manifest lists. A phone treats the pass as forged."
        "Write the manifest after the last change of a file, then sign."
    NOT_LISTED "file-not-listed" Refused BUILDING
        "The manifest does not list a file of the archive."
        "List the file, or leave it out of the archive."
    NOT_THERE "file-missing" Refused BUILDING
        "The manifest lists a file that is not in the archive."
        "Add the file, or remove it from the manifest and sign again."
}
Signature {
    SIGNATURE_MISSING "signature-missing" Refused BUILDING
        "There is no signature."
        "Sign manifest.json with the certificate of the pass type, and add the result as the file signature."
    SIGNATURE "signature" Refused CMS
        "The signature does not match the manifest."
        "Make a detached CMS signature in DER over the bytes of manifest.json, after its last change."
    INTERMEDIATE_MISSING "intermediate-missing" Refused AUTHORITY
        "The signature lacks Apple's intermediate certificate. Phones then do not show the pass, and give no reason."
        "Include the \"Worldwide Developer Relations\" certificate that issued your certificate."
    INTERMEDIATE_OTHER "intermediate-other" Warning AUTHORITY
        "The intermediate in the signature did not issue the certificate. Some phones refuse the pass."
        "Include the intermediate of the generation (G1, G3, G4) that the issuer of your certificate names."
    INTERMEDIATE_EXPIRED "intermediate-expired" Warning AUTHORITY
        "The intermediate certificate has expired. Only phones that have a newer intermediate accept the pass."
        "Include the current intermediate certificate, and renew your certificate if its issuer has changed."
    INTERMEDIATE_ENDS "intermediate-ends" Warning AUTHORITY
        "The intermediate certificate expires within 90 days."
        "Renew your certificate, and sign with the newer intermediate."
    ROOT "root" Warning AUTHORITY
        "The certificates do not lead to Apple. Phones accept only Apple's certificates, so this pass is only for tests."
        "Sign with a certificate from Apple before you give the pass to phones."
    CERTIFICATE "certificate" Refused CMS
        "A certificate in the signature is damaged, or its issuer did not sign it."
        "Export the certificate again, and sign again."
    CERTIFICATE_DAYS "certificate-days" Refused BUILDING
        "The signature was made before its certificate was valid, or after it expired."
        "Sign with a certificate that is valid today, on a machine whose clock is right."
    SIGNING_TIME "signing-time" Refused BUILDING
        "The signature does not say when it was made. Phones can't tell whether the certificate was valid then."
        "Sign with signed attributes, and with the signing time among them."
    CERTIFICATE_EXPIRED "certificate-expired" Warning BUILDING
        "The certificate has expired since it signed. Passes on phones stay valid, but updates can't be signed with it."
        "Sign updates with a renewed certificate of the same pass type."
    CERTIFICATE_ENDS "certificate-ends" Warning BUILDING
        "The certificate expires within 90 days. After that, it can't be used to sign updates or to send pushes."
        "Renew the certificate of the pass type."
    CERTIFICATE_TYPE "certificate-type" Refused BUILDING
        "The certificate is for another type identifier."
        "Sign with the certificate of the type that the pass names, or write the type of the certificate into the pass."
    CERTIFICATE_TEAM "certificate-team" Refused BUILDING
        "The certificate belongs to another team."
        "Write the team of the certificate (its OU) as teamIdentifier."
    CERTIFICATE_PLAIN "certificate-plain" Note BUILDING
        "The certificate lacks the extension in which Apple names the type. Only certificates for tests lack it."
        "If this is a test, you need not do anything."
    CERTIFICATE_NFC "certificate-nfc" Refused PASS
        "The pass uses NFC or rewards enrolment, but its certificate does not allow this."
        "Ask Apple for an NFC certificate, or remove nfc and personalization.json."
}
Keys {
    KEY_MISSING "key-missing" Refused PASS
        "A required key is missing."
        "Add the key."
    KEY_UNKNOWN "key-unknown" Warning PASS
        "Phones do not know this key, and ignore it. It may be a typing error."
        "Correct the name. Put your own data into userInfo."
    KEY_IGNORED "key-ignored" Warning PASS
        "Passes of this style do not use the key."
        "Remove the key, or choose the style that uses it."
    KEY_DEPRECATED "key-deprecated" Note PASS
        "Apple has replaced this key. Phones still read it."
        "Add the newer key. You can keep the older key for old phones."
    TYPE "type" Refused PASS
        "A value does not have the JSON type that phones expect. Phones refuse the pass."
        "Write the value in the type that the message names."
    TYPE_MINOR "type-ignored" Error PASS
        "A value does not have the JSON type that phones expect. Phones ignore the value."
        "Write the value in the type that the message names."
    VALUE "value" Refused PASS
        "A value can't be used."
        "Write a value of the kind that the message names."
    VALUE_MINOR "value-ignored" Error FIELD
        "Phones do not know this value, and ignore it."
        "Write one of the values that the message lists."
    LOGO "logo-missing" Refused ORDER
        "The order names a logo that is not in the archive."
        "Add the file, or correct its name in order.json."
    DESIGNER_ID "designer-id" Warning DESIGNER
        "The key _id is only for Pass Designer. It does not belong in a pass."
        "Remove every _id when you make a pass from a template."
    TOOLING "tooling-file" Warning DESIGNER
        "The archive has the file tooling.json, which Pass Designer keeps in its templates."
        "Leave tooling.json out of the archive."
    SAMPLE "sample-text" Warning DESIGNER
        "A field still has a placeholder text."
        "Write the value of this pass into the field, in every style that has it."
}
Fields {
    STYLE_MISSING "style-missing" Refused PASS
        "The pass has no style, so a phone can't show it."
        "Add one of boardingPass, coupon, eventTicket, generic and storeCard."
    STYLE_UNKNOWN "style-unknown" Warning PASS
        "The style of the pass is not known to this program. Older phones may not show it."
        "Also add a style that older phones know."
    STYLE_NEW "style-new" Warning PASS
        "Only phones with iOS 27 show this style."
        "Keep posterGeneric, and add generic for older phones."
    STYLE_TWICE "style-twice" Warning PASS
        "The pass has several styles. Phones show only one of them."
        "Keep one style. Only posterGeneric may be combined with another style."
    TRANSIT_TYPE "transit-type" Refused PASS
        "A boarding pass lacks its kind of transport."
        "Add transitType: PKTransitTypeAir, PKTransitTypeBoat, PKTransitTypeBus, PKTransitTypeGeneric or PKTransitTypeTrain."
    FIELD "field" Refused FIELD
        "A field lacks its key or its value."
        "Add both keys to every field."
    FIELD_TWICE "field-twice" Refused FIELD
        "Two fields of a style have the same key."
        "Give each field a different key."
    FIELD_FORMAT "field-format" Error FIELD
        "A field has the format of a date or a number, but its value is something else."
        "Remove the format, or write the value as a date or as a JSON number."
    CHANGE_MESSAGE "change-message" Warning FIELD
        "A change message does not have %@ exactly once. A phone puts the new value there."
        "Write a text such as \"Gate changed to %@\"."
    NO_CHANGE_MESSAGE "no-change-message" Note FIELD
        "No field has a change message. Phones update the pass without a notification."
        "Add a changeMessage to the fields whose changes matter."
    TEXT_ALIGNMENT "text-alignment" Warning FIELD
        "Phones ignore the alignment of primary and back fields."
        "Remove textAlignment."
    ATTRIBUTED_VALUE "attributed-value" Warning FIELD
        "An attributed value has markup other than links. Phones show only links (an a element with href)."
        "Remove the other tags."
    FIELDS_MANY "fields-many" Warning FIELDS
        "The front of the pass has more fields than phones show. Phones leave out the last fields."
        "Move fields to the back."
}
Barcodes {
    BARCODE "barcode" Error PASS
        "A barcode lacks its format, message or encoding. Phones do not show it."
        "Add format, message and messageEncoding."
    BARCODE_FORMAT "barcode-format" Warning PASS
        "A barcode has an unknown format. Phones use the first barcode that they can show."
        "Use PKBarcodeFormatQR, PKBarcodeFormatPDF417, PKBarcodeFormatAztec or PKBarcodeFormatCode128."
    BARCODE_NEW "barcode-new" Warning PASS
        "All barcodes have formats that are new in iOS 27. Older phones show no barcode."
        "After the new barcode, add a barcode in one of the older formats."
    BARCODE_MESSAGE "barcode-message" Error PASS
        "The encoding can't express the message. A phone shows a wrong barcode, or none."
        "Set messageEncoding to utf-8, or remove the character."
    BARCODE_ENCODING "barcode-encoding" Warning ENCODING
        "This program does not know the encoding. Phones may not know it either."
        "Use iso-8859-1 or utf-8, which all scanners read."
    BARCODE_CONTENT "barcode-content" Warning PASS
        "Barcodes of this format can't have this message."
        "Write only the characters that the format has, with the right length and check digit."
}
Appearance {
    ICON "icon-missing" Refused SOURCE
        "The pass has no icon. Phones refuse it."
        "Add icon.png, icon@2x.png and icon@3x.png."
    ICON_SCALE "icon-scale" Warning SOURCE
        "The icon is missing for some kinds of display. Phones scale another icon."
        "Add the missing file of icon.png, icon@2x.png and icon@3x.png."
    IMAGE_FORMAT "image-format" Warning PNG
        "An image is not PNG, or can't be read. Phones leave it out."
        "Save the image as PNG."
    IMAGE_SIZE "image-size" Warning WALLET_DESIGN
        "An image does not have the size that its name says, or is larger than its place on the pass. Phones scale or cut it."
        "Save the image in the size that the message names. An image with @2x has twice as many pixels in each direction, and an image with @3x three times as many."
    IMAGE_LARGE "image-large" Warning WALLET_DESIGN
        "An image file has more than 1 MB. A large image makes every download and update slow."
        "Save the image in a smaller size, or with fewer colours."
    IMAGE_UNUSED "image-unused" Warning WALLET_DESIGN
        "Passes of this style do not show the image."
        "Remove the image, or correct its name."
    IMAGE_CONFLICT "image-conflict" Warning WALLET_DESIGN
        "The pass has a strip and also a background or a thumbnail. Phones do not show both."
        "Keep only the strip, or remove the strip."
    IMAGE_TWICE "image-twice" Warning SOURCE
        "An image is at the top level and in a language folder. Phones show the image at the top level."
        "Remove the image at the top level."
    COLOR "color" Refused PASS
        "A colour is not in the form that phones read."
        "Write colours as rgb(255, 0, 10)."
    CONTRAST "contrast" Warning CONTRAST
        "Text and background have a contrast of less than 3:1. Many people can't read the text."
        "Choose a lighter or a darker colour for one of them."
}
Translations {
    LANGUAGE "language-name" Warning LANGUAGE
        "The name of a language folder is not a language tag. Phones never choose this folder."
        "Name the folder like en.lproj, pt-BR.lproj or zh-Hans.lproj."
    STRINGS "strings-unreadable" Warning SOURCE
        "A file pass.strings can't be read, so its language is not translated."
        "Write lines like \"key\" = \"text\"; in UTF-8, or in UTF-16 with a byte order mark."
    STRINGS_DIFFER "strings-differ" Warning SOURCE
        "A language lacks keys that another language has. Phones show the key itself."
        "Add the missing keys."
    STRINGS_UNUSED "strings-unused" Warning SOURCE
        "A key of pass.strings does not occur in pass.json. It may be a typing error."
        "Remove the key, or write it exactly as the text in pass.json."
    STRINGS_MISSING "strings-missing" Warning SOURCE
        "The pass has translations, but none for this text."
        "Add the text as a key to every pass.strings."
}
Use {
    DATE "date" Refused DATE
        "A date is not in the form that phones read. Phones refuse the pass."
        "Write dates like 2026-01-31T12:00:00Z or 2026-01-31T12:00+01:00."
    DATE_MINOR "date-ignored" Error DATE
        "A date is not in the form that phones read. Phones ignore the date, or show it unchanged."
        "Write dates like 2026-01-31T12:00:00Z or 2026-01-31T12:00+01:00."
    EXPIRED "pass-expired" Warning PASS
        "The pass has expired. Phones show it as invalid."
        "Set expirationDate to a later time if the pass is still valid."
    VOIDED "pass-voided" Warning PASS
        "The pass is marked as void. Phones show it as invalid."
        "Remove voided if the pass is still valid."
    RELEVANT_DATES "relevant-dates" Error PASS
        "An entry of relevantDates has neither a date nor an interval, or has both, or ends before it starts."
        "Write either date, or startDate and a later endDate."
    LOCATIONS_MANY "locations-many" Warning PASS
        "The pass has more than 10 locations. Phones use 10."
        "Keep the 10 that matter most."
    LOCATION "location" Warning PASS
        "A location lacks a coordinate, or has a coordinate outside the range."
        "Write latitude from -90 to 90 and longitude from -180 to 180, in degrees."
    BEACON "beacon" Warning PASS
        "A beacon has no UUID, or a major or minor number that is not from 0 to 65535."
        "Correct the values."
    NFC "nfc" Error PASS
        "Readers can't use the nfc dictionary."
        "Write a message of at most 64 bytes, and a P-256 public key as SubjectPublicKeyInfo in base64."
    SCHEME "style-scheme" Warning PASS
        "The pass prefers a style scheme whose requirements it does not meet. Phones show the plain style instead, without a message."
        "Add what the message names, or remove the scheme."
    SEMANTICS_TYPE "semantics-type" Warning SEMANTICS
        "A semantic tag does not have the JSON type that phones expect. Phones ignore it."
        "Write the value in the type that the message names."
    SEMANTICS_VALUE "semantics-value" Warning SEMANTICS
        "A semantic tag has a value that phones do not know, or lacks a required part."
        "Write a value of the kind that the message names."
    FEATURED_ACTIONS "featured-actions" Warning PASS
        "Phones do not show all featured actions: there are more than two, one has an unknown type, or the style shows none."
        "Keep two actions with known types."
    APP_LAUNCH_URL "app-launch-url" Warning PASS
        "The pass has appLaunchURL, but names no app to launch."
        "Add associatedStoreIdentifiers."
    PERSONALIZATION "personalization" Error REWARDS
        "The sign-up for rewards can't work."
        "Give personalization.json its fields and a description, and the pass a personalizationLogo, nfc and a web service."
}
Updates {
    TOKEN "token" Refused UPDATES
        "The authentication token is shorter than 16 characters, or missing."
        "Write an authenticationToken of 16 characters or more that nobody can guess."
    TOKEN_MINOR "token-unusable" Error UPDATES
        "The authentication token can't be sent in a header, so no update arrives."
        "Use letters and digits."
    NO_URL "no-url" Warning UPDATES
        "There is a token, but no web service. The pass is never updated."
        "Add webServiceURL, or remove the token."
    NO_WEB_SERVICE "no-web-service" Warning UPDATES
        "The pass has no web service. It is never updated."
        "Add webServiceURL and authenticationToken if you want to update the pass. A pass that is already on a phone can't get them later."
    URL "url" Error UPDATES
        "Phones can't call this web service, so no update arrives."
        "Write an address like https://wallet.example.com/."
    URL_HTTP "url-http" Warning UPDATES
        "Phones call a web service without TLS only if a switch for developers is on."
        "Use https:// in all passes except passes for tests."
    URL_USER "url-user" Warning URI
        "The address of the web service has a user name. Everyone who has the pass can read this name, and phones may not send it."
        "Remove the user name and password. The token identifies the pass."
    URL_QUERY "url-query" Warning UPDATES
        "The address of the web service has a query or a fragment. Phones append their path to it."
        "Remove the query and the fragment."
    URL_SCRIPT "url-script" Warning UPDATES
        "The address of the web service leads to a script. Phones append their path to it."
        "Make sure that your web server passes the longer path to the script."
    URL_VERSION "url-version" Error UPDATES
        "The address of the web service ends in /v1, but phones append /v1 themselves. They request /v1/v1."
        "Remove /v1 from webServiceURL."
    URL_FILE "url-file" Error UPDATES
        "The address of the web service leads to a file. Phones append their path to it."
        "Name the folder below which the service answers /v1/…."
    MORE "more" Note UPDATES
        "There are more findings than the list shows."
        "Fix the listed findings, and check again."
}
Online {
    ONLINE_UNREACHABLE "online-unreachable" Error UPDATES
        "The web service gives no complete answer, so no update arrives."
        "Make sure that the service runs, and that its address can be reached from outside."
    ONLINE_CERTIFICATE "online-certificate" Error UPDATES
        "The TLS certificate of the web service is not trusted. Phones do not connect to the service."
        "Install a certificate of a public authority, with its intermediates, for the host of webServiceURL."
    ONLINE_REDIRECT "online-redirect" Error UPDATES
        "The web service answers with a redirect. A phone may lose its token when it follows the redirect."
        "Use the target of the redirect as webServiceURL."
    ONLINE_LIST "online-list" Error LIST
        "The web service does not answer the list of changed passes with 200 or 204."
        "Answer GET /v1/devices/{device}/registrations/{type} with 204 for an unknown device."
    ONLINE_TOKEN "online-token" Error GET
        "The web service does not refuse a wrong authentication token with 401. Strangers may read the pass."
        "Compare the token of each request with the token of the pass, and answer 401 if they differ."
}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_is_of_one_rule_and_each_text_is_a_sentence() {
        let codes: BTreeSet<_> = RULES.iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), RULES.len());
        for rule in RULES {
            let plain = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(rule.code.chars().all(plain), "{}", rule.code);
            for text in [rule.meaning, rule.fix] {
                assert!(text.ends_with('.') && !text.contains('\n'), "{text}");
            }
            assert!(rule.source.starts_with("https://"), "{}", rule.code);
            assert_eq!(Rule::of(rule.code), Some(*rule));
        }
        assert_eq!(Rule::of("no-such-code"), None);
        assert_eq!(Rule::nearest("icon-mising"), ["icon-missing"]);
    }

    #[test]
    fn levels_are_in_order() {
        assert!(Level::Note < Level::Warning && Level::Warning < Level::Error);
        assert!(Level::Error < Level::Refused);
    }
}
