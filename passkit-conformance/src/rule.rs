//! All rules that the cases check, one sentence each.

use std::fmt;

/// A requirement on a web service or a store. A rule has a stable name, one sentence and a source.
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

    /// Advice on how to keep the rule: what implementations usually do.
    #[must_use]
    pub const fn fix(self) -> &'static str {
        self.0.fix
    }

    /// The URL of the page that states the rule, or of a page from which the rule follows.
    #[must_use]
    pub const fn link(self) -> &'static str {
        self.0.link
    }

    /// The document that the rule comes from.
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

/// Each rule has a name, a sentence, and advice on how to keep it. A rule also has a link if its
/// page is not the page of its source.
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
        "write the new reading of the type's clock into each marked pass in the same commit, and read the clocks before the passes or in the same snapshot";
    C2 "C2" "the list for the tag of the last answer is empty if no pass was marked or registered since that answer"
        "list only what is newer than the tag, and return the clock readings of the moment when the list was read";
    C3 "C3" "a pass that is registered after a tag was issued is in the list for that tag"
        "give each registration the device's new clock reading, and compare it with the device part of the tag";
    C4 "C4" "tags never go backwards, and an answer with serial numbers has a different tag from its request"
        "advance each clock to max(last + 1, now); if a removed device comes back, its clock must not go back";
    C5 "C5" "a tag ahead of the store's clocks counts as no tag"
        "compare each part of the tag with the store's clock, and list everything if either is ahead";
    C6 "C6" "acknowledged changes are still there when the data are opened again, even after a crash"
        "acknowledge a call only after its commit is durable, clocks and dates included";
    C7 "C7" "a list may name passes of the device that did not change, but never leaves out a pass that did change"
        "if in doubt, list the pass";
    C9 "C9" "marking an entire type takes constant time, and the next list of each device names all its passes of the type once"
        "write one version and date for the type (a floor), and don't loop over its passes or registrations";
    C10 "C10" "if equal calls of register run in parallel, one creates the registration, each stores the push token, and none fails"
        "register with one atomic upsert that also stores the push token and reports whether it inserted";
    C11 "C11" "a device that stays registered while all pages of devices are read is on one of the pages"
        "use a position in a fixed order as the cursor, not a count; the position must work even if its device was removed";
    C12 "C12" "if the future of a call is dropped, the store is as before the call or as after it"
        "make each call one transaction, or a series of steps that leaves the store correct after each step";
    C13 "C13" "a device is forgotten only if it last registered at or before the given time"
        "compare the device's clock with the time in the same step that removes the device";
    C14 "C14" "every mark makes the date of a pass later, and nothing else changes the date"
        "set the date to max(now, last date + 1), where the last date includes the floor of the type, and change dates nowhere else";
    P1 "P1" "if several callers publish the same content, the pass is marked once"
        "compare and write the digest in one step";
    P2 "P2" "publishing content marks the pass if and only if the digest differs from the one published last"
        "compare the digest with the one published last, not with earlier ones";
    P3 "P3" "when content is published, its digest, authentication tokens, mark and pending push become visible together"
        "write digest, tokens, mark and pending push in one transaction";
    P4 "P4" "marking passes or a type does not change the published digest"
        "don't write the digest if a mark brings no content";
    P5 "P5" "new authentication tokens are added to the earlier ones, and the last 16 are kept; if a pass is published as removed, it is not marked, and keeps its digest and tokens"
        "add tokens with unite_tokens; if a pass was removed, change only its removed flag";
    P6 "P6" "what was published is still there when the data are opened again, even after a crash"
        "make published content as durable as marks";
    UNREGISTER "unregister" "unregister removes the registration and returns whether there was one; if it was the device's last one, the device is removed too"
        "delete exactly the named registration, then the device if it has no other; return whether a registration was deleted";
    CHANGES_SINCE "changes_since" "a list names only passes of the requested type that are registered on the device, and each at most once"
        "select by device and by type, and select each pass once";
    MARK "mark" "a batch may name unknown passes, or a pass twice, and an empty batch does nothing"
        "ignore repeated serial numbers, create marks for unknown passes, and return early for an empty batch";
    PUBLISHED "published" "the answers are in the order of the requested passes, and are None for a pass that was never published"
        "look up each pass, and answer in the order of the request";
    COUNT_DEVICES "count_devices" "the number of devices of a pass is right, up to the requested limit"
        "count the registrations of the pass itself, up to the limit";
    NAMES "names" "two passes are the same only if type and serial number are exactly equal, and two devices are the same only if their identifiers are exactly equal"
        "compare whole identifiers byte by byte: no prefixes, patterns, case folding, truncated columns or ambiguously joined keys";
    ERRORS "errors" "a call fails only if the storage fails"
        "return an error only if the storage failed, and never panic or block the thread";
}
"the contract of StoreMaintenance" "https://docs.rs/passkit-server/latest/passkit_server/maintenance/trait.StoreMaintenance.html" {
    MAINTENANCE "maintenance" "bulk import and export give the same result as single calls, and the counts are right"
        "use the same code for bulk calls as for single calls, and count the stored items";
    FORGET_PASS "forget_pass" "a forgotten pass is like one that the store never knew, and nothing else is forgotten"
        "remove exactly the rows of this pass: its mark, digest, tokens and pending push; change nothing while its date is not past";
}
"the contract of Coordination" "https://docs.rs/passkit-server/latest/passkit_server/store/trait.Coordination.html" {
    K1 "K1" "a claimed name has one owner until the claim is released or expires"
        "make a claim with one compare-and-set that includes the expiry";
    K2 "K2" "only the owner of a claim can release it"
        "compare the owner in the same step that releases";
    K3 "K3" "if several callers replace the same note, one succeeds, and the others change nothing"
        "replace a note with one compare-and-set";
    K4 "K4" "notes are still there when the data are opened again, even after a crash"
        "make notes as durable as marks";
}
"the contract of PushQueue" "https://docs.rs/passkit-server/latest/passkit_server/push/trait.PushQueue.html" {
    Q1 "Q1" "mark_and_push makes pushes pending in the same step as its marks, and no other mark makes a push pending"
        "write the pending push in the transaction of the mark";
    Q2 "Q2" "a change stays pending until its newest version is finished, and its progress is kept"
        "remove a pending change only if its version is still the finished one";
    Q3 "Q3" "a change is gone once its newest version is finished, and a type without pending changes and deferred pushes has no backlog"
        "remove a finished change, and count only the changes that are left";
    Q4 "Q4" "the last deferred push of each device and type is kept until it is removed"
        "keep one deferred push for each device and type, replace it as a whole, and remove it only when asked";
}
"the contract of DeliveryLog" "https://docs.rs/passkit-server/latest/passkit_server/delivery/trait.DeliveryLog.html" {
    D1 "D1" "records of the same subject and event are merged, in any order and from any number of callers: the newest version stays, its counts are added, and its last time stays with its detail"
        "merge with one upsert that follows Record::merge, and lock the rows of a batch in a fixed order";
    D2 "D2" "the answers are in the order of the requested subjects, and contain exactly the records of each subject"
        "look up each subject by its kind, its type and its name, and answer in the order of the request";
    D3 "D3" "a forgotten subject has no records, and discarding removes exactly the records before the given time"
        "delete by the whole key of the subject, and compare the current last time of each record with <";
    D4 "D4" "every instance that shares the store sees the effect of an acknowledged call"
        "write the records before the call returns, and don't keep records in a cache";
}
"Apple, Adding a Web Service to Update Passes" "https://developer.apple.com/documentation/walletpasses/adding-a-web-service-to-update-passes" {
    URL_1 "URL-1" "the URL of an endpoint is the webServiceURL, then /v1/, then the path of the endpoint"
        "serve the paths below /v1/ under the webServiceURL";
    AUTH_1 "AUTH-1" "the header is 'Authorization: ApplePass' (for orders 'AppleOrder'), then the authentication token of the pass"
        "compare the scheme without regard to case, and the token exactly";
    AUTH_2 "AUTH-2" "an authentication token opens only the pass that it belongs to, by type and serial number"
        "look the token up by type and serial number, and compare it with the token of that pass alone";
    AUTH_5 "AUTH-5" "the credentials are checked before anything else is read or changed"
        "check the credentials before the body is read or anything is written";
    AUTH_6 "AUTH-6" "an authentication token stays valid when its pass changes"
        "keep accepting the token that a pass was issued with";
    CON_1 "CON-1" "if a pass changes between a list and its fetch, the fetch returns the new version, and the next list names the pass"
        "make the new content available before the pass is marked, and mark it on each change";
    TAG_1 "TAG-1" "each update gets its own update tag, even if two updates are close together"
        "use a counter or microseconds as the tag, not seconds, and give each change a greater value";
    TAG_4 "TAG-4" "a pass that did not change gets no new update tag"
        "mark a pass only if its content changed";
}
"Apple, Adding a Web Service to Update Passes, about pushes" "https://developer.apple.com/documentation/walletpasses/adding-a-web-service-to-update-passes" {
    PUSH_1 "PUSH-1" "a change of a pass is pushed to every device that has the pass"
        "after each change, send a push to the push token of every device that is registered for the pass";
    PUSH_2 "PUSH-2" "a push is sent only after its change can be listed and fetched"
        "commit the change first, then push";
    PUSH_3 "PUSH-3" "pushes go only to devices that have the changed pass, and only to their current push tokens"
        "read the push tokens from the registrations of the changed pass when you push";
    PUSH_4 "PUSH-4" "nothing is pushed unless a pass changed"
        "push only if the content of a pass changed";
    PUSH_5 "PUSH-5" "changes that are close together share a push, because phones limit the pushes of a type"
        "collect changes for a moment, and send one push for each type and push token";
}
"Apple, Handling notification responses from APNs" "https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns" {
    PUSH_6 "PUSH-6" "after a 410, a device is removed if it registered before the time in the answer, and kept if it registered later"
        "store when each device registered, and compare it with the timestamp of the 410";
    PUSH_7 "PUSH-7" "a push token that APNs refuses does not end the pushes to other devices"
        "handle the answer to each push by itself, and go on with the next device";
}
"Apple, Sending notification requests to APNs" "https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns" {
    PUSH_8 "PUSH-8" "the topic of a push is the type identifier of the pass, and the certificate is for this type"
        "set apns-topic to the type identifier, and use the certificate of the type"
        "https://developer.apple.com/documentation/walletpasses/adding-a-web-service-to-update-passes";
    PUSH_9 "PUSH-9" "the payload of a push is an empty JSON dictionary"
        "send the two bytes {} as payload"
        "https://developer.apple.com/documentation/walletpasses/adding-a-web-service-to-update-passes";
    PUSH_10 "PUSH-10" "APNs accepts the headers of a push, and the push type fits the payload"
        "set apns-push-type to background and apns-priority to 5, or leave apns-push-type out";
    PUSH_11 "PUSH-11" "APNs keeps a push for phones that are off"
        "set apns-expiration to a time some days ahead, not to 0";
}
"RFC 9110 and what phones send" "https://www.rfc-editor.org/rfc/rfc9110" {
    URL_4 "URL-4" "//v1/ means the same as /v1/, and a slash at the end of a path changes nothing"
        "collapse repeated slashes, and ignore a slash at the end, without a redirect"
        "https://www.rfc-editor.org/rfc/rfc3986#section-6.2.3";
    URL_7 "URL-7" "each path segment is percent-decoded once; if that fails, the answer is 400 or the same as for an unknown pass"
        "split the path first, then percent-decode each segment once as UTF-8"
        "https://www.rfc-editor.org/rfc/rfc3986#section-2.4";
    URL_8 "URL-8" "the tag is read from the raw query: a plus sign does not mean a space"
        "read the tag from the raw query, and percent-decode it without turning plus signs into spaces"
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.4";
    URL_9 "URL-9" "unknown query parameters are ignored"
        "read the parameters that you know, and ignore the others"
        "https://www.rfc-editor.org/rfc/rfc3986#section-3.4";
    URL_10 "URL-10" "a serial number may contain any character, even a slash, which may be sent as %2F or unencoded"
        "split the path before percent-decoding; all segments after the type, joined with slashes, are the serial number"
        "https://www.rfc-editor.org/rfc/rfc3986#section-2.2";
    HTTP_1 "HTTP-1" "header names may be in upper or lower case"
        "compare header names without regard to case"
        "https://www.rfc-editor.org/rfc/rfc9110#section-5.1";
    HTTP_2 "HTTP-2" "every request gets one complete, well-formed answer, in well under ten seconds"
        "answer every request, and limit what a request can cost"
        "https://www.rfc-editor.org/rfc/rfc9110#section-3.4";
    HTTP_3 "HTTP-3" "no answer depends on the User-Agent"
        "do not look at the User-Agent"
        "https://www.rfc-editor.org/rfc/rfc9110#section-10.1.5";
    HTTP_5 "HTTP-5" "no answer is a redirect: the phone would drop its token, or turn a POST into a GET"
        "answer at the requested path, and write a webServiceURL into passes that needs no redirect"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.4";
    HTTP_7 "HTTP-7" "the Content-Type of a list is application/json, and that of a pass is application/vnd.apple.pkpass"
        "set the Content-Type of lists and passes"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.3";
    HTTP_8 "HTTP-8" "204 and 304 have no body"
        "send 204 and 304 without a body"
        "https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1";
    HTTP_9 "HTTP-9" "a JSON body is accepted with any Content-Type"
        "parse the body as JSON without looking at the Content-Type"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.3";
    HTTP_10 "HTTP-10" "HEAD of a pass gets the same answer as GET, without the body"
        "route HEAD to the handler of GET"
        "https://www.rfc-editor.org/rfc/rfc9110#section-9.3.2";
    HTTP_11 "HTTP-11" "a wrong method on a known path is answered 405 with an Allow header, and an unknown path 404"
        "answer 405 with Allow, or 404, in the router"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6";
    HTTP_12 "HTTP-12" "a 401 never asks for Basic, Digest, Bearer or Negotiate"
        "send WWW-Authenticate: ApplePass or AppleOrder, or leave the header out"
        "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1";
    HTTP_13 "HTTP-13" "a body that is much longer than phones send is answered 413"
        "limit bodies: 16 KiB for a registration, 256 KiB for a log"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14";
    AUTH_3 "AUTH-3" "a missing Authorization header, another scheme or an empty token is answered 401"
        "answer 401 unless the header has the right scheme and a token"
        "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.2";
    AUTH_4 "AUTH-4" "an unknown pass and a wrong token get the same answer: 401 with the same body"
        "send the same 401 for an unknown pass as for a wrong token"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2";
}
"Apple, Register a Pass for Update Notifications" "https://developer.apple.com/documentation/walletpasses/register-a-pass-for-update-notifications" {
    REG_1 "REG-1" "the first registration of a pass on a device is answered 201, and every further one 200"
        "answer 201 if the registration was inserted, else 200";
    REG_2 "REG-2" "every registration stores the push token of the device"
        "store the push token of the device with every registration, even if the registration exists already";
    REG_3 "REG-3" "if equal registrations arrive in parallel, one is answered 201, and the others 200"
        "use one atomic upsert, with a unique key on device and pass";
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
    UNR_3 "UNR-3" "unregistering does not affect other passes or other devices"
        "delete by device, type and serial number together";
}
"Apple, Get the List of Updatable Passes" "https://developer.apple.com/documentation/walletpasses/get-the-list-of-updatable-passes" {
    LIST_1 "LIST-1" "without a tag, or with an empty tag, all registered passes of the type are listed"
        "list every registration of the device and type if there is no tag";
    LIST_2 "LIST-2" "with a tag, the registered passes that changed after it are listed"
        "list all registered passes that are strictly newer than the tag";
    LIST_3 "LIST-3" "a list names only passes of the type in the path, and only passes that the device registered"
        "select registrations by device and by type";
    LIST_4 "LIST-4" "the answer is an object with serialNumbers, a list of strings, and lastUpdated, a string"
        "send an object with serialNumbers and lastUpdated, and write the tag as a string";
    LIST_5 "LIST-5" "lastUpdated belongs to the same state as the list: a change that this list misses is in the next list"
        "read the tag in the same snapshot as the list, not from the wall clock";
    LIST_6 "LIST-6" "an answer with serial numbers has a different tag from its request"
        "return the tag of the newest change in the list";
    LIST_7 "LIST-7" "if there is nothing to list, the answer is 204 without a body"
        "answer 204 without a body if nothing is listed";
    LIST_8 "LIST-8" "an unknown device or type is answered 204"
        "answer 204 for a device or type that you do not know";
    LIST_9 "LIST-9" "a tag that can't be read counts as no tag"
        "treat a tag that you can't read, or that is ahead of your clock, as no tag";
    LIST_10 "LIST-10" "a repeated request gets the same answer"
        "don't change stored data when a list is requested";
    LIST_11 "LIST-11" "no serial number is listed twice"
        "select each pass once";
    LIST_12 "LIST-12" "the list needs no credentials, and ignores any that are sent"
        "answer the list without checking credentials";
}
"Apple, Send an Updated Pass" "https://developer.apple.com/documentation/walletpasses/send-an-updated-pass" {
    GET_1 "GET-1" "every 200 has a Last-Modified in the form of an IMF-fixdate, which stays the same until the pass changes and is not later than Date"
        "send the date of the last change, in GMT, never later than Date: min(date, now)"
        "https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2";
    GET_2 "GET-2" "If-Modified-Since with the last Last-Modified is answered 304 while nothing changed, and 200 after a change"
        "date each change at least a second after the one before, and answer 304 only if the date of the last change is at or before If-Modified-Since"
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.3";
    GET_3 "GET-3" "all three date forms of HTTP are understood, and a value that is not a date is ignored"
        "parse If-Modified-Since as an HTTP date, and ignore the header if that fails"
        "https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7";
    GET_4 "GET-4" "the answer is 304 if the pass is not newer than If-Modified-Since, otherwise 200; the credentials are checked first"
        "check the token first, then compare dates with <="
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.3";
    GET_5 "GET-5" "a 304 repeats Last-Modified"
        "send Last-Modified with the 304 too"
        "https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5";
    GET_6 "GET-6" "an unchanged pass has the same files every time it is served"
        "build pass.json and the images the same way each time; only the signature may differ";
    GET_7 "GET-7" "the archive has the type and serial number of the requested pass"
        "load the pass by type and serial number";
    GET_8 "GET-8" "If-None-Match with the ETag of the last answer is answered 304 while nothing changed"
        "compare If-None-Match with the ETag that you send"
        "https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2";
    GET_9 "GET-9" "a pass can be fetched without being registered"
        "serve a pass to everyone who has its authentication token";
    GET_11 "GET-11" "the archive is sent without compression, and shared caches may not keep it"
        "leave archives uncompressed, and send Cache-Control: private, no-cache"
        "https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.7";
    ARCHIVE "archive" "the served pass is a signed archive that phones accept"
        "sign the manifest with the pass's certificate, and include every file in it"
        "https://developer.apple.com/documentation/walletpasses/building-a-pass";
}
"Apple, Log a Message" "https://developer.apple.com/documentation/walletpasses/log-a-message" {
    LOG_1 "LOG-1" "a log message is answered 200, and with no other status"
        "answer 200 to every log message";
    LOG_2 "LOG-2" "a malformed log body is answered 200 too"
        "answer 200 even if the body can't be read";
    LOG_3 "LOG-3" "a bare array and an object with a description are accepted as log messages too"
        "accept a bare array and an object with a description";
    LOG_4 "LOG-4" "the log needs no credentials"
        "accept log messages without checking credentials";
}
"Apple, Wallet Orders" "https://developer.apple.com/documentation/walletorders" {
    ORD_1 "ORD-1" "orders are registered, listed, fetched and unregistered under the same rules as passes"
        "use the same code for orders as for passes";
    ORD_2 "ORD-2" "orders use other names than passes: orderIdentifiers, lastModified, ordersModifiedSince, /v1/orders/, AppleOrder"
        "choose the names by the start of the type identifier: pass. or order."
        "https://developer.apple.com/documentation/walletorders/retrieve-the-registrations-for-a-device";
    ORD_3 "ORD-3" "an order can be fetched before it is registered"
        "serve an order to everyone who has its authentication token, registered or not"
        "https://developer.apple.com/documentation/walletorders/retrieve-the-latest-version-of-an-order";
    ORD_4 "ORD-4" "the Content-Type of an order is application/vnd.apple.finance.order"
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
