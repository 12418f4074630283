//! All rules that the cases check, one sentence each.

use std::fmt;

/// A requirement on a web service or a store. A rule has a stable name, one sentence and a source.
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

    /// The document that the rule comes from.
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
    C2 "C2" "the list for the tag of the last answer is empty if no pass was marked or registered since that answer";
    C3 "C3" "a pass that is registered after a tag was issued is in the list for that tag";
    C4 "C4" "tags never go backwards, and an answer with serial numbers has another tag than its request";
    C5 "C5" "a tag ahead of the store's clocks counts as no tag";
    C6 "C6" "acknowledged changes are still there when the data are opened again, even after a crash";
    C7 "C7" "a list may name passes of the device that did not change, but never leaves out one that did";
    C9 "C9" "marking an entire type takes constant time, and the next list of each device names all its passes of the type once";
    C10 "C10" "if equal calls of register run in parallel, one creates the registration, each stores the push token, and none fails";
    C11 "C11" "a device that stays registered while all pages of devices are read is on one of the pages";
    C12 "C12" "if the future of a call is dropped, the store is as before the call or as after it";
    C13 "C13" "a device is forgotten only if it last registered at or before the given time";
    C14 "C14" "every mark makes the date of a pass later, and nothing else changes the date";
    P1 "P1" "if several callers publish the same content, the pass is marked once";
    P2 "P2" "publishing content marks the pass if and only if the digest differs from the one published last";
    P3 "P3" "when content is published, its digest, authentication tokens, mark and pending push become visible together";
    P4 "P4" "marking passes or a type does not change the published digest";
    P5 "P5" "new authentication tokens are added to the earlier ones, and the last 16 are kept; publishing that a pass was removed does not mark it, and keeps its digest and tokens";
    P6 "P6" "what was published is still there when the data are opened again, even after a crash";
    UNREGISTER "unregister" "unregister removes the registration and returns whether there was one; if it was the device's last one, the device is removed too";
    CHANGES_SINCE "changes_since" "a list names only passes of the requested type that are registered on the device, and each at most once";
    MARK "mark" "a batch may name unknown passes, or a pass twice, and an empty batch does nothing";
    PUBLISHED "published" "the answers are in the order of the passes, and the answer for a pass that was never published is none";
    COUNT_DEVICES "count_devices" "the number of devices of a pass is right, up to the requested limit";
    NAMES "names" "two passes are the same only if type and serial number are exactly equal, two devices only if their identifiers are";
    ERRORS "errors" "a call fails only if the storage fails";
}
"the contract of StoreMaintenance" {
    MAINTENANCE "maintenance" "bulk import and export give the same result as single calls, and the counts are right";
}
"the contract of Coordination" {
    K1 "K1" "a claimed name has one owner until the claim is released or expires";
    K2 "K2" "only the owner of a claim can release it";
    K3 "K3" "if several callers replace the same note, one succeeds, and the others change nothing";
    K4 "K4" "notes are still there when the data are opened again, even after a crash";
}
"the contract of PushQueue" {
    Q1 "Q1" "mark_and_push makes pushes pending in the same step as its marks, and no other mark makes a push pending";
    Q2 "Q2" "a change stays pending until its newest version is finished, and its progress is kept";
    Q3 "Q3" "a change is gone once its newest version is finished, and a type without pending changes and deferred pushes has no backlog";
    Q4 "Q4" "the last deferred push of each device and type is kept until it is removed";
}
"Apple, Adding a Web Service to Update Passes" {
    URL_1 "URL-1" "the URL of an endpoint is the webServiceURL, then /v1/, then the path of the endpoint";
    AUTH_1 "AUTH-1" "the header is 'Authorization: ApplePass' (for orders 'AppleOrder'), then the authentication token of the pass";
    AUTH_2 "AUTH-2" "an authentication token opens only the pass that it belongs to, by type and serial number";
    AUTH_5 "AUTH-5" "the credentials are checked before anything else is read or changed";
    AUTH_6 "AUTH-6" "an authentication token stays valid when its pass changes";
    CON_1 "CON-1" "if a pass changes between a list and its fetch, the fetch returns the new version, and the next list names the pass";
    TAG_1 "TAG-1" "each update gets its own update tag, even if two updates are close together";
    TAG_4 "TAG-4" "a pass that did not change gets no new update tag";
}
"RFC 9110 and what phones send" {
    URL_4 "URL-4" "//v1/ means the same as /v1/, and a slash at the end of a path changes nothing";
    URL_7 "URL-7" "each path segment is percent-decoded once; if that fails, the answer is 400 or the same as for an unknown pass";
    URL_8 "URL-8" "the tag is read from the raw query: a plus sign does not mean a space";
    URL_9 "URL-9" "unknown query parameters are ignored";
    URL_10 "URL-10" "a serial number may contain any character, even a slash, which may be sent as %2F or unencoded";
    HTTP_1 "HTTP-1" "header names may be in upper or lower case";
    HTTP_2 "HTTP-2" "every request gets one complete, well-formed answer, in well under ten seconds";
    HTTP_3 "HTTP-3" "no answer depends on the User-Agent";
    HTTP_5 "HTTP-5" "no answer is a redirect: the phone would drop its token, or turn a POST into a GET";
    HTTP_7 "HTTP-7" "lists are application/json, passes application/vnd.apple.pkpass";
    HTTP_8 "HTTP-8" "204 and 304 have no body";
    HTTP_9 "HTTP-9" "a JSON body is accepted with any Content-Type";
    HTTP_10 "HTTP-10" "HEAD of a pass gets the same answer as GET, without the body";
    HTTP_11 "HTTP-11" "a wrong method on a known path is answered 405 with an Allow header, and an unknown path 404";
    HTTP_12 "HTTP-12" "a 401 never asks for Basic, Digest, Bearer or Negotiate";
    HTTP_13 "HTTP-13" "a body that is much longer than phones send is answered 413";
    AUTH_3 "AUTH-3" "a missing Authorization header, another scheme or an empty token is answered 401";
    AUTH_4 "AUTH-4" "an unknown pass and a wrong token get the same answer: 401 with the same body";
}
"Apple, Register a Pass for Update Notifications" {
    REG_1 "REG-1" "the first registration of a pass on a device is answered 201, and every further one 200";
    REG_2 "REG-2" "every registration stores the push token of the device";
    REG_3 "REG-3" "if equal registrations arrive in parallel, one is answered 201, and the others 200";
    REG_4 "REG-4" "a body without a hexadecimal pushToken is answered 400 and changes nothing; unknown keys are ignored";
    REG_5 "REG-5" "a device identifier is any text of 1 to 128 unreserved characters";
    REG_6 "REG-6" "a pass that the service does not know is answered 401";
}
"Apple, Unregister a Pass for Update Notifications" {
    UNR_1 "UNR-1" "unregistering is answered 200, and the pass is no longer listed";
    UNR_2 "UNR-2" "unregistering a pass that is not registered is answered 200 too";
    UNR_3 "UNR-3" "unregistering does not affect other passes or other devices";
}
"Apple, Get the List of Updatable Passes" {
    LIST_1 "LIST-1" "without a tag, or with an empty one, all registered passes of the type are listed";
    LIST_2 "LIST-2" "with a tag, the registered passes that changed after it are listed";
    LIST_3 "LIST-3" "a list names only passes of the type in the path, and only passes that the device registered";
    LIST_4 "LIST-4" "the answer is an object with serialNumbers, a list of strings, and lastUpdated, a string";
    LIST_5 "LIST-5" "lastUpdated belongs to the same state as the list: a change that this list misses is in the next one";
    LIST_6 "LIST-6" "an answer with serial numbers has another tag than its request";
    LIST_7 "LIST-7" "if there is nothing to list, the answer is 204 without a body";
    LIST_8 "LIST-8" "an unknown device or type is answered 204";
    LIST_9 "LIST-9" "a tag that can't be read counts as no tag";
    LIST_10 "LIST-10" "a repeated request gets the same answer";
    LIST_11 "LIST-11" "no serial number is listed twice";
    LIST_12 "LIST-12" "the list needs no credentials, and ignores any that are sent";
}
"Apple, Send an Updated Pass" {
    GET_1 "GET-1" "every 200 has a Last-Modified in the form of an IMF-fixdate, which stays the same until the pass changes and is not later than Date";
    GET_2 "GET-2" "If-Modified-Since with the last Last-Modified is answered 304 while nothing changed, and 200 after a change";
    GET_3 "GET-3" "all three date forms of HTTP are understood, and a value that is not a date is ignored";
    GET_4 "GET-4" "the answer is 304 if the pass is not newer than If-Modified-Since, otherwise 200; the credentials are checked first";
    GET_5 "GET-5" "a 304 repeats Last-Modified";
    GET_6 "GET-6" "an unchanged pass has the same files every time it is served";
    GET_7 "GET-7" "the archive has the type and serial number of the requested pass";
    GET_8 "GET-8" "If-None-Match with the ETag of the last answer is answered 304 while nothing changed";
    GET_9 "GET-9" "a pass can be fetched without being registered";
    GET_11 "GET-11" "the archive is sent without compression, and shared caches may not keep it";
    ARCHIVE "archive" "the served pass is a signed archive that phones accept";
}
"Apple, Log a Message" {
    LOG_1 "LOG-1" "a log message is answered 200, and with no other status";
    LOG_2 "LOG-2" "a malformed log body is answered 200 too";
    LOG_3 "LOG-3" "a bare array and an object with a description are accepted as log messages too";
    LOG_4 "LOG-4" "the log needs no credentials";
}
"Apple, Wallet Orders" {
    ORD_1 "ORD-1" "orders are registered, listed, fetched and unregistered under the same rules as passes";
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
