//! All rules that the cases check, one sentence each.

use std::fmt;

/// A requirement on a web service or a store: a stable name, one sentence and its source.
///
/// The rules are the associated constants, such as `Rule::REG_1` and `Rule::C10`.
#[derive(Clone, Copy)]
pub struct Rule {
    id: &'static str,
    sentence: &'static str,
    source: &'static str,
}

impl Rule {
    /// The short name, such as `REG-1` or `C10`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.id
    }

    /// The rule in one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.sentence
    }

    /// The document that states the rule, or what the rule follows from.
    #[must_use]
    pub const fn source(self) -> &'static str {
        self.source
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

macro_rules! rules {
    ($($source:literal { $($name:ident $id:literal $sentence:literal;)+ })+) => {
        impl Rule {
            $($(
                #[doc = concat!("`", $id, "`: ", $sentence, ".")]
                pub const $name: Rule = Rule { id: $id, sentence: $sentence, source: $source };
            )+)+

            /// All rules.
            pub const ALL: &[Rule] = &[$($(Rule::$name,)+)+];
        }
    };
}

rules! {
"the contract of RegistrationStore" {
    C1 "C1" "a marked pass is in the next list of every device that has it";
    C2 "C2" "a list for the tag of the last answer is empty if there was no mark and no registration in between";
    C3 "C3" "a pass registered after a tag was issued is in the list for that tag";
    C4 "C4" "tags never go backwards, and the tag of an answer with serial numbers differs from the one in the request";
    C5 "C5" "a tag ahead of the store's clocks counts as no tag";
    C6 "C6" "acknowledged changes are still there when the data are opened again, also after a crash";
    C7 "C7" "a list may name too many passes of the device, never too few";
    C9 "C9" "marking an entire type takes constant time and lists every registration once to each device";
    C10 "C10" "one of several equal parallel registers creates, each stores the push token, and none fails";
    C11 "C11" "a device that is registered while all pages are read is in one of them";
    C12 "C12" "a call whose future is dropped leaves the store as before or as after the call";
    C13 "C13" "a device is forgotten only if it last registered at or before the given time";
    C14 "C14" "the date of a pass is strictly greater after every mark and never moves otherwise";
    P1 "P1" "however many callers publish one content, the pass is marked once";
    P2 "P2" "a content marks its pass if and only if its digest is not the one published last";
    P3 "P3" "digest, tokens, mark and pending push of a content become visible together";
    P4 "P4" "marks of passes and of a type leave the published digest alone";
    P5 "P5" "tokens are united, the last 16 are kept, and a removal marks nothing and keeps digest and tokens";
    P6 "P6" "published contents are there when the data are opened again, also after a crash";
    UNREGISTER "unregister" "unregister removes the registration, and the device with its last one, and returns whether there was one";
    CHANGES_SINCE "changes_since" "a list names each pass of that type that is registered on that device at most once, and no other pass";
    MARK "mark" "passes may be unknown or occur twice in a batch, and an empty batch does nothing";
    PUBLISHED "published" "the answers come in the order of the passes, and the answer for a pass that was never published is none";
    COUNT_DEVICES "count_devices" "the number of devices of a pass is right, up to the requested limit";
    NAMES "names" "a pass is named by exactly its type and serial number, a device by exactly its identifier";
    ERRORS "errors" "a call fails only when the storage does";
}
"the contract of StoreMaintenance" {
    MAINTENANCE "maintenance" "bulk import and export give the same result as single calls, and the counts are right";
}
"the contract of Coordination" {
    K1 "K1" "only one of the owners that claim a name has it, until it is released or expires";
    K2 "K2" "only the owner of a claim can release it";
    K3 "K3" "only one of the callers that replace the same note succeeds, and the others change nothing";
    K4 "K4" "notes are there when the data are opened again, also after a crash";
}
"the contract of PushQueue" {
    Q1 "Q1" "mark_and_push makes pushes pending in the same step as its marks, and no other mark makes a push pending";
    Q2 "Q2" "a change is pending until its newest version is finished, and keeps its progress";
    Q3 "Q3" "a change whose newest version is finished is gone, and a type without pending changes and deferred pushes has no backlog";
    Q4 "Q4" "the last deferred push of each device and type is kept until it is removed";
}
"Apple, Adding a Web Service to Update Passes" {
    URL_1 "URL-1" "the endpoints are the webServiceURL with /v1/ and their path behind it";
    AUTH_1 "AUTH-1" "the header is 'Authorization: ApplePass' (for orders 'AppleOrder') and the pass's token";
    AUTH_2 "AUTH-2" "a token opens the one pass that it belongs to, by type and serial number";
    AUTH_5 "AUTH-5" "credentials are checked before anything else is read or changed";
    AUTH_6 "AUTH-6" "a token stays valid when its pass changes";
    CON_1 "CON-1" "a change between list and fetch is fetched, and listed by the next call";
    TAG_1 "TAG-1" "each update has an update tag of its own, however close two of them are";
    TAG_4 "TAG-4" "a pass that did not change gets no new update tag";
}
"RFC 9110 and what phones send" {
    URL_4 "URL-4" "//v1/ is the same as /v1/, and a slash at the end changes nothing";
    URL_7 "URL-7" "each path segment is percent-decoded once; if that fails, the answer is 400 or that for an unknown pass";
    URL_8 "URL-8" "the tag is read from the raw query: a plus sign is no space";
    URL_9 "URL-9" "unknown query parameters are ignored";
    URL_10 "URL-10" "a serial number may contain any character, also a slash, whether it is sent as %2F or not encoded";
    HTTP_1 "HTTP-1" "header names are compared without case";
    HTTP_2 "HTTP-2" "every request gets one complete, well-formed answer, in well under ten seconds";
    HTTP_3 "HTTP-3" "no answer depends on the User-Agent";
    HTTP_5 "HTTP-5" "no answer is a redirect: the phone would drop its token, or turn a POST into a GET";
    HTTP_7 "HTTP-7" "lists are application/json, passes application/vnd.apple.pkpass";
    HTTP_8 "HTTP-8" "204 and 304 have no body";
    HTTP_9 "HTTP-9" "a JSON body is read whatever its Content-Type";
    HTTP_10 "HTTP-10" "HEAD of a pass is answered as GET is, without the body";
    HTTP_11 "HTTP-11" "a wrong method on a known path is answered 405 with Allow, an unknown path 404";
    HTTP_12 "HTTP-12" "a 401 never asks for Basic, Digest, Bearer or Negotiate";
    HTTP_13 "HTTP-13" "a body far beyond what phones send is answered 413";
    AUTH_3 "AUTH-3" "a missing header, another scheme or an empty token is answered 401";
    AUTH_4 "AUTH-4" "an unknown pass and a wrong token are answered alike: 401 and the same body";
}
"Apple, Register a Pass for Update Notifications" {
    REG_1 "REG-1" "the first registration of a pass on a device is answered 201, every further one 200";
    REG_2 "REG-2" "every registration stores the push token of the device";
    REG_3 "REG-3" "of parallel equal registrations one is answered 201, the others 200";
    REG_4 "REG-4" "a body without a hexadecimal pushToken is answered 400 and changes nothing; unknown keys are ignored";
    REG_5 "REG-5" "a device identifier is any text of 1 to 128 unreserved characters";
    REG_6 "REG-6" "a pass that the service does not know is answered 401";
}
"Apple, Unregister a Pass for Update Notifications" {
    UNR_1 "UNR-1" "unregistering is answered 200, and the pass is no longer listed";
    UNR_2 "UNR-2" "unregistering a pass that is not registered is answered 200 too";
    UNR_3 "UNR-3" "unregistering leaves other passes and other devices alone";
}
"Apple, Get the List of Updatable Passes" {
    LIST_1 "LIST-1" "without a tag, or with an empty one, all registered passes of the type are listed";
    LIST_2 "LIST-2" "with a tag, the registered passes that changed after it are listed";
    LIST_3 "LIST-3" "only passes of the type in the path are listed, and only those that the device registered";
    LIST_4 "LIST-4" "the answer is an object with serialNumbers and lastUpdated, all of them strings";
    LIST_5 "LIST-5" "lastUpdated belongs to the same state as the list: a change that this list misses is in the next one";
    LIST_6 "LIST-6" "an answer with serial numbers carries a tag that differs from the one in the request";
    LIST_7 "LIST-7" "when nothing matches, the answer is 204 without a body";
    LIST_8 "LIST-8" "an unknown device or type is answered 204";
    LIST_9 "LIST-9" "a tag that can't be read counts as none";
    LIST_10 "LIST-10" "asking again gives the same answer";
    LIST_11 "LIST-11" "no serial number is listed twice";
    LIST_12 "LIST-12" "the list needs no credentials, and ignores those that are sent";
}
"Apple, Send an Updated Pass" {
    GET_1 "GET-1" "every 200 has Last-Modified as an IMF-fixdate, the same until the pass changes, not ahead of Date";
    GET_2 "GET-2" "If-Modified-Since with that value is answered 304 while nothing changed, and 200 after a change";
    GET_3 "GET-3" "all three date forms of HTTP are understood, and a value that is no date is ignored";
    GET_4 "GET-4" "304 if the pass is not newer than If-Modified-Since, else 200; wrong credentials come first";
    GET_5 "GET-5" "a 304 repeats Last-Modified";
    GET_6 "GET-6" "a pass that did not change is built the same again";
    GET_7 "GET-7" "the pass served is the one asked for, by type and serial number";
    GET_8 "GET-8" "If-None-Match with the ETag of the last answer is answered 304 while nothing changed";
    GET_9 "GET-9" "a pass can be fetched without being registered";
    GET_11 "GET-11" "no compression is applied to the archive, and no cache may give it to others";
    ARCHIVE "archive" "the pass served is a signed archive that phones accept";
}
"Apple, Log a Message" {
    LOG_1 "LOG-1" "a log message is answered 200, nothing else";
    LOG_2 "LOG-2" "a malformed log body is answered 200 too";
    LOG_3 "LOG-3" "a bare array and an object with a description are taken as logs";
    LOG_4 "LOG-4" "the log asks for no credentials";
}
"Apple, Wallet Orders" {
    ORD_1 "ORD-1" "orders are registered, listed, fetched and unregistered by the same rules as passes";
    ORD_2 "ORD-2" "orders have their own words: orderIdentifiers, lastModified, ordersModifiedSince, /v1/orders/, AppleOrder";
    ORD_3 "ORD-3" "an order can be fetched before it is registered";
    ORD_4 "ORD-4" "an order is application/vnd.apple.finance.order";
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Rule::ALL.len());
    }
}
