//! All rules that the cases check, one sentence each.

use std::fmt;

/// A requirement on a web service or a store: a stable name, one sentence and its source.
///
/// The rules are the associated constants, such as `Rule::REG_1` and `Rule::C10`.
#[derive(Clone, Copy)]
pub struct Rule(&'static Definition);

struct Definition {
    id: &'static str,
    sentence: &'static str,
    fix: &'static str,
    source: &'static str,
    link: &'static str,
}

impl Rule {
    /// The short name, such as `REG-1` or `C10`.
    #[must_use]
    pub const fn id(self) -> &'static str {
        self.0.id
    }

    /// The rule in one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        self.0.sentence
    }

    /// How implementations usually keep the rule, as advice to someone who broke it.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.0.fix
    }

    /// The address of the page that states the rule, or what it follows from.
    #[must_use]
    pub const fn link(self) -> &'static str {
        self.0.link
    }

    /// The document that states the rule, or what the rule follows from.
    #[must_use]
    pub const fn source(self) -> &'static str {
        self.0.source
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.id)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.id)
    }
}

/// Each rule: its name, its sentence, how to keep it, and its page if that is not its source's.
macro_rules! rules {
    (@link $of_source:literal) => { $of_source };
    (@link $of_source:literal $link:literal) => { $link };
    ($($source:literal $of_source:literal {
        $($name:ident $id:literal $sentence:literal $fix:literal $($link:literal)?;)+
    })+) => {
        impl Rule {
            $($(
                #[doc = concat!("`", $id, "`: ", $sentence, ".")]
                pub const $name: Rule = Rule(&Definition {
                    id: $id,
                    sentence: $sentence,
                    fix: $fix,
                    source: $source,
                    link: rules!(@link $of_source $($link)?),
                });
            )+)+

            /// All rules.
            pub const ALL: &[Rule] = &[$($(Rule::$name,)+)+];
        }
    };
}

rules! {
"the contract of RegistrationStore" "https://docs.rs/passkit-server/latest/passkit_server/store/trait.RegistrationStore.html" {
    C1 "C1" "a marked pass is in the next list of every device that has it"
        "write the type's new clock reading into each marked pass in the same commit, and read clocks before or with the passes";
    C2 "C2" "a list for the tag of the last answer is empty if there was no mark and no registration in between"
        "list only what is newer than the tag, and return the clocks that the list was read with";
    C3 "C3" "a pass registered after a tag was issued is in the list for that tag"
        "give each registration the device's new clock reading, and compare it with the device part of the tag";
    C4 "C4" "tags never go backwards, and the tag of an answer with serial numbers differs from the one in the request"
        "step each clock with max(last + 1, now), and keep or outgrow the clock of a device that was removed";
    C5 "C5" "a tag ahead of the store's clocks counts as no tag"
        "compare each part of the tag with the store's clock, and list everything if either is ahead";
    C6 "C6" "acknowledged changes are still there when the data are opened again, also after a crash"
        "acknowledge a call only after its commit is durable, clocks and dates included";
    C7 "C7" "a list may name too many passes of the device, never too few"
        "if in doubt, list the pass";
    C9 "C9" "marking an entire type takes constant time and lists every registration once to each device"
        "write one version and date for the type (a floor), and never walk its passes or registrations";
    C10 "C10" "one of several equal parallel registers creates, each stores the push token, and none fails"
        "register with one atomic upsert that also stores the push token and reports whether it inserted";
    C11 "C11" "a device that is registered while all pages are read is in one of them"
        "end a page with a cursor that is a position in a fixed order, not a count, and go on even if that device is gone";
    C12 "C12" "a call whose future is dropped leaves the store as before or as after the call"
        "do each call in one transaction, or in steps that a dropped call may leave at any point";
    C13 "C13" "a device is forgotten only if it last registered at or before the given time"
        "compare the device's clock with the time in the same step that removes the device";
    C14 "C14" "the date of a pass is strictly greater after every mark and never moves otherwise"
        "date a mark with max(now, last date + 1) of that pass, its floor included, and change dates nowhere else";
    P1 "P1" "however many callers publish one content, the pass is marked once"
        "compare and write the digest in one step";
    P2 "P2" "a content marks its pass if and only if its digest is not the one published last"
        "compare the digest with the one published last, not with earlier ones";
    P3 "P3" "digest, tokens, mark and pending push of a content become visible together"
        "write digest, tokens, mark and pending push in one transaction";
    P4 "P4" "marks of passes and of a type leave the published digest alone"
        "leave the digest alone in marks without contents";
    P5 "P5" "tokens are united, the last 16 are kept, and a removal marks nothing and keeps digest and tokens"
        "add tokens with unite_tokens, and change only the removed flag in a removal";
    P6 "P6" "published contents are there when the data are opened again, also after a crash"
        "make published contents as durable as marks";
    UNREGISTER "unregister" "unregister removes the registration, and the device with its last one, and returns whether there was one"
        "delete exactly the named registration, then the device if none is left, and report the number of rows";
    CHANGES_SINCE "changes_since" "a list names each pass of that type that is registered on that device at most once, and no other pass"
        "select by device and by type, and each pass once";
    MARK "mark" "passes may be unknown or occur twice in a batch, and an empty batch does nothing"
        "ignore repeated serial numbers, create marks for unknown passes, and return early for an empty batch";
    PUBLISHED "published" "the answers come in the order of the passes, and the answer for a pass that was never published is none"
        "look up each pass, and answer in the order of the request";
    COUNT_DEVICES "count_devices" "the number of devices of a pass is right, up to the requested limit"
        "count the registrations of the pass itself, up to the limit";
    NAMES "names" "a pass is named by exactly its type and serial number, a device by exactly its identifier"
        "compare whole identifiers byte by byte: no prefixes, patterns, case folding, cut columns or joined keys";
    ERRORS "errors" "a call fails only when the storage does"
        "return an error only if the storage failed, and never panic or block the thread";
}
"the contract of StoreMaintenance" "https://docs.rs/passkit-server/latest/passkit_server/maintenance/trait.StoreMaintenance.html" {
    MAINTENANCE "maintenance" "bulk import and export give the same result as single calls, and the counts are right"
        "let bulk calls take the same path as single ones, and count what is there";
}
"the contract of Coordination" "https://docs.rs/passkit-server/latest/passkit_server/store/trait.Coordination.html" {
    K1 "K1" "only one of the owners that claim a name has it, until it is released or expires"
        "claim with one compare-and-set that includes the expiry";
    K2 "K2" "only the owner of a claim can release it"
        "compare the owner in the same step that releases";
    K3 "K3" "only one of the callers that replace the same note succeeds, and the others change nothing"
        "replace a note with one compare-and-set";
    K4 "K4" "notes are there when the data are opened again, also after a crash"
        "make notes as durable as marks";
}
"the contract of PushQueue" "https://docs.rs/passkit-server/latest/passkit_server/push/trait.PushQueue.html" {
    Q1 "Q1" "mark_and_push makes pushes pending in the same step as its marks, and no other mark makes a push pending"
        "write the pending push in the transaction of the mark";
    Q2 "Q2" "a change is pending until its newest version is finished, and keeps its progress"
        "remove a pending change only if its version is still the finished one";
    Q3 "Q3" "a change whose newest version is finished is gone, and a type without pending changes and deferred pushes has no backlog"
        "remove a finished change, and count only what is left";
    Q4 "Q4" "the last deferred push of each device and type is kept until it is removed"
        "keep one deferred push for each device and type, replace it as a whole, and remove it only when asked";
}
"Apple, Adding a Web Service to Update Passes" "https://developer.apple.com/documentation/walletpasses/adding-a-web-service-to-update-passes" {
    URL_1 "URL-1" "the endpoints are the webServiceURL with /v1/ and their path behind it"
        "serve the paths below /v1/ under the webServiceURL";
    AUTH_1 "AUTH-1" "the header is 'Authorization: ApplePass' (for orders 'AppleOrder') and the pass's token"
        "read the scheme without regard to case, and the token exactly";
    AUTH_2 "AUTH-2" "a token opens the one pass that it belongs to, by type and serial number"
        "look the token up by type and serial number, and compare it with the token of that pass alone";
    AUTH_5 "AUTH-5" "credentials are checked before anything else is read or changed"
        "check the credentials before the body is read or anything is written";
    AUTH_6 "AUTH-6" "a token stays valid when its pass changes"
        "keep accepting the token that a pass was issued with";
    CON_1 "CON-1" "a change between list and fetch is fetched, and listed by the next call"
        "make the new content available before the pass is marked, and mark it on each change";
    TAG_1 "TAG-1" "each update has an update tag of its own, however close two of them are"
        "use a counter or a clock of microseconds as the tag, not seconds, and step it with each change";
    TAG_4 "TAG-4" "a pass that did not change gets no new update tag"
        "mark a pass only if its content changed";
}
"RFC 9110 and what phones send" "https://www.rfc-editor.org/rfc/rfc9110" {
    URL_4 "URL-4" "//v1/ is the same as /v1/, and a slash at the end changes nothing"
        "collapse repeated slashes, and ignore one at the end, without a redirect"
        "https://www.rfc-editor.org/rfc/rfc3986#section-6.2.3";
    URL_7 "URL-7" "each path segment is percent-decoded once; if that fails, the answer is 400 or that for an unknown pass"
        "split the path first, then percent-decode each segment once as UTF-8"
        "https://www.rfc-editor.org/rfc/rfc3986#section-2.4";
    URL_8 "URL-8" "the tag is read from the raw query: a plus sign is no space"
        "take the tag from the raw query, and percent-decode it without turning plus signs into spaces"
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.4";
    URL_9 "URL-9" "unknown query parameters are ignored"
        "read the parameters that you know, and ignore the others"
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.4";
    URL_10 "URL-10" "a serial number may contain any character, also a slash, whether it is sent as %2F or not encoded"
        "percent-decode after the path is split, and join all segments behind the type to the serial number"
        "https://www.rfc-editor.org/rfc/rfc3986#section-2.2";
    HTTP_1 "HTTP-1" "header names are compared without case"
        "compare header names without case"
        "https://www.rfc-editor.org/rfc/rfc9110#section-5.1";
    HTTP_2 "HTTP-2" "every request gets one complete, well-formed answer, in well under ten seconds"
        "answer every request, and limit what a request can cost"
        "https://www.rfc-editor.org/rfc/rfc9110#section-3.4";
    HTTP_3 "HTTP-3" "no answer depends on the User-Agent"
        "do not look at the User-Agent"
        "https://www.rfc-editor.org/rfc/rfc9110#section-10.1.5";
    HTTP_5 "HTTP-5" "no answer is a redirect: the phone would drop its token, or turn a POST into a GET"
        "serve the path itself; give passes the URL that needs no redirect"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.4";
    HTTP_7 "HTTP-7" "lists are application/json, passes application/vnd.apple.pkpass"
        "set the Content-Type of lists and passes"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.3";
    HTTP_8 "HTTP-8" "204 and 304 have no body"
        "send 204 and 304 without a body"
        "https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1";
    HTTP_9 "HTTP-9" "a JSON body is read whatever its Content-Type"
        "parse the body as JSON without looking at the Content-Type"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.3";
    HTTP_10 "HTTP-10" "HEAD of a pass is answered as GET is, without the body"
        "route HEAD to the handler of GET"
        "https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2";
    HTTP_11 "HTTP-11" "a wrong method on a known path is answered 405 with Allow, an unknown path 404"
        "answer 405 with Allow, or 404, in the router"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6";
    HTTP_12 "HTTP-12" "a 401 never asks for Basic, Digest, Bearer or Negotiate"
        "send WWW-Authenticate: ApplePass or AppleOrder, or leave the header out"
        "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1";
    HTTP_13 "HTTP-13" "a body far beyond what phones send is answered 413"
        "limit bodies: 16 KiB for a registration, 256 KiB for a log"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14";
    AUTH_3 "AUTH-3" "a missing header, another scheme or an empty token is answered 401"
        "answer 401 unless the header is the right scheme and a token"
        "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.2";
    AUTH_4 "AUTH-4" "an unknown pass and a wrong token are answered alike: 401 and the same body"
        "send the same 401 for an unknown pass as for a wrong token"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2";
}
"Apple, Register a Pass for Update Notifications" "https://developer.apple.com/documentation/walletpasses/register-a-pass-for-update-notifications" {
    REG_1 "REG-1" "the first registration of a pass on a device is answered 201, every further one 200"
        "answer 201 if the registration was inserted, else 200";
    REG_2 "REG-2" "every registration stores the push token of the device"
        "store the push token for the device with every registration, also with a known one";
    REG_3 "REG-3" "of parallel equal registrations one is answered 201, the others 200"
        "insert with one atomic upsert, behind a unique key of device and pass";
    REG_4 "REG-4" "a body without a hexadecimal pushToken is answered 400 and changes nothing; unknown keys are ignored"
        "answer 400 unless pushToken is a hexadecimal string, and ignore other keys";
    REG_5 "REG-5" "a device identifier is any text of 1 to 128 unreserved characters"
        "treat the device identifier as a text of 1 to 128 characters, and refuse others with 400";
    REG_6 "REG-6" "a pass that the service does not know is answered 401"
        "answer 401 for a pass that does not exist, and store nothing";
}
"Apple, Unregister a Pass for Update Notifications" "https://developer.apple.com/documentation/walletpasses/unregister-a-pass-for-update-notifications" {
    UNR_1 "UNR-1" "unregistering is answered 200, and the pass is no longer listed"
        "delete the registration, and answer 200";
    UNR_2 "UNR-2" "unregistering a pass that is not registered is answered 200 too"
        "answer 200 even if nothing was deleted";
    UNR_3 "UNR-3" "unregistering leaves other passes and other devices alone"
        "delete by device, type and serial number together";
}
"Apple, Get the List of Updatable Passes" "https://developer.apple.com/documentation/walletpasses/get-the-list-of-updatable-passes" {
    LIST_1 "LIST-1" "without a tag, or with an empty one, all registered passes of the type are listed"
        "list every registration of the device and type if there is no tag";
    LIST_2 "LIST-2" "with a tag, the registered passes that changed after it are listed"
        "list what is strictly newer than the tag, all of it";
    LIST_3 "LIST-3" "only passes of the type in the path are listed, and only those that the device registered"
        "select registrations by device and by type";
    LIST_4 "LIST-4" "the answer is an object with serialNumbers and lastUpdated, all of them strings"
        "send an object with serialNumbers and lastUpdated, and write the tag as a string";
    LIST_5 "LIST-5" "lastUpdated belongs to the same state as the list: a change that this list misses is in the next one"
        "read the tag in the same snapshot as the list, not from the wall clock";
    LIST_6 "LIST-6" "an answer with serial numbers carries a tag that differs from the one in the request"
        "return the newest tag of what is listed";
    LIST_7 "LIST-7" "when nothing matches, the answer is 204 without a body"
        "answer 204 without a body if nothing is listed";
    LIST_8 "LIST-8" "an unknown device or type is answered 204"
        "answer 204 for a device or type that you do not know";
    LIST_9 "LIST-9" "a tag that can't be read counts as none"
        "treat a tag that you can't read, or that is ahead, as no tag";
    LIST_10 "LIST-10" "asking again gives the same answer"
        "let a list change nothing";
    LIST_11 "LIST-11" "no serial number is listed twice"
        "select each pass once";
    LIST_12 "LIST-12" "the list needs no credentials, and ignores those that are sent"
        "let the list pass without credentials";
}
"Apple, Send an Updated Pass" "https://developer.apple.com/documentation/walletpasses/send-an-updated-pass" {
    GET_1 "GET-1" "every 200 has Last-Modified as an IMF-fixdate, the same until the pass changes, not ahead of Date"
        "send the date of the last change, in GMT, never later than Date: min(date, now)"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2";
    GET_2 "GET-2" "If-Modified-Since with that value is answered 304 while nothing changed, and 200 after a change"
        "date each change at least a second after the one before, and answer 304 only if that date is not after If-Modified-Since"
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.3";
    GET_3 "GET-3" "all three date forms of HTTP are understood, and a value that is no date is ignored"
        "parse If-Modified-Since as an HTTP date, and ignore it if that fails"
        "https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7";
    GET_4 "GET-4" "304 if the pass is not newer than If-Modified-Since, else 200; wrong credentials come first"
        "check the token first, then compare dates with <="
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.3";
    GET_5 "GET-5" "a 304 repeats Last-Modified"
        "send Last-Modified with the 304 too"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5";
    GET_6 "GET-6" "a pass that did not change is built the same again"
        "build pass.json and images the same way each time; only the signature may differ";
    GET_7 "GET-7" "the pass served is the one asked for, by type and serial number"
        "load the pass by type and serial number";
    GET_8 "GET-8" "If-None-Match with the ETag of the last answer is answered 304 while nothing changed"
        "compare If-None-Match with the ETag that you send"
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2";
    GET_9 "GET-9" "a pass can be fetched without being registered"
        "serve a pass to everyone who has its token";
    GET_11 "GET-11" "no compression is applied to the archive, and no cache may give it to others"
        "leave archives uncompressed, and send Cache-Control: private, no-cache"
        "https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.7";
    ARCHIVE "archive" "the pass served is a signed archive that phones accept"
        "sign the manifest with the pass's certificate, and include every file in it"
        "https://developer.apple.com/documentation/walletpasses/building-a-pass";
}
"Apple, Log a Message" "https://developer.apple.com/documentation/walletpasses/log-a-message" {
    LOG_1 "LOG-1" "a log message is answered 200, nothing else"
        "answer 200 to every log message";
    LOG_2 "LOG-2" "a malformed log body is answered 200 too"
        "answer 200 to a body that can't be read too";
    LOG_3 "LOG-3" "a bare array and an object with a description are taken as logs"
        "accept a bare array and an object with a description";
    LOG_4 "LOG-4" "the log asks for no credentials"
        "let the log pass without credentials";
}
"Apple, Wallet Orders" "https://developer.apple.com/documentation/walletorders" {
    ORD_1 "ORD-1" "orders are registered, listed, fetched and unregistered by the same rules as passes"
        "let orders take the same code as passes";
    ORD_2 "ORD-2" "orders have their own words: orderIdentifiers, lastModified, ordersModifiedSince, /v1/orders/, AppleOrder"
        "choose the words by the kind of the type: pass. or order."
        "https://developer.apple.com/documentation/walletorders/retrieve-the-registrations-for-a-device";
    ORD_3 "ORD-3" "an order can be fetched before it is registered"
        "serve an order to everyone who has its token, registered or not"
        "https://developer.apple.com/documentation/walletorders/retrieve-the-latest-version-of-an-order";
    ORD_4 "ORD-4" "an order is application/vnd.apple.finance.order"
        "set the Content-Type application/vnd.apple.finance.order"
        "https://developer.apple.com/documentation/walletorders/retrieve-the-latest-version-of-an-order";
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Rule::ALL.len());
    }
}
