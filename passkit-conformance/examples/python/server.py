#!/usr/bin/env python3
"""A Wallet web service in Python that needs only the standard library. passkit-conformance can test it.

    python3 server.py [PORT]

It serves unsigned archives and keeps everything in memory. Answer requests as it does. Like it, use one lock
and one integer clock, so that no update is lost. Do not copy /touch and /save, because anyone can use them.
For rewards enrolment, the program openssl signs, with a certificate that no phone accepts.
"""

import calendar, hashlib, hmac, io, json, re, subprocess, sys, tempfile, threading, time, urllib.parse, zipfile
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {
    "passes": dict(prefix="pass.", scheme="ApplePass", since="passesUpdatedSince", serials="serialNumbers",
                   tag="lastUpdated", media_type="application/vnd.apple.pkpass", file="pass.json",
                   names=("passTypeIdentifier", "serialNumber"), digest=hashlib.sha1),
    "orders": dict(prefix="order.", scheme="AppleOrder", since="ordersModifiedSince", serials="orderIdentifiers",
                   tag="lastModified", media_type="application/vnd.apple.finance.order", file="order.json",
                   names=("orderTypeIdentifier", "orderIdentifier"), digest=hashlib.sha256),
}
REWARDS_TYPE = "pass.com.example.e"  # its passes offer rewards enrolment
REPEATS = 24 * 3600  # for so long after an enrolment, a phone may repeat it, because the answer may get lost
ANSWERS = "fullName", "givenName", "familyName", "emailAddress", "postalCode", "ISOCountryCode", "phoneNumber"
DATES = "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"


def kind_of(type_id):
    return KINDS["orders" if type_id.startswith("order.") else "passes"]


class Wallet:
    """Passes and registrations. Readers and writers hold the lock, so that nobody sees a tag before its change."""

    def __init__(self, tokens):
        self.lock = threading.Lock()
        self.clock = time.time_ns() // 1000  # ahead of all tags from before a restart
        self.tokens = tokens                 # (type, serial) -> token
        self.passes = {key: dict(content=1, person=None, tag=self.clock, modified=int(time.time())) for key in tokens}
        self.enrolled = {}                   # (type, serial) -> time of the enrolment
        self.registered = {}                 # (device, type) -> {serial: clock when registered}
        self.push_tokens = {}                # device -> push token

    def tick(self):
        self.clock += 1
        return self.clock

    def save(self, key, change):
        """Replaces the content with `change(content)`. Equal content gets no new tag, so no phone loads it again."""
        with self.lock:
            one = self.passes[key]
            content = change(one["content"])
            if content != one["content"]:
                self.change(one, content=content)

    def change(self, one, **content):
        # Two versions never have the same date, even within a second.
        one.update(content, tag=self.tick(), modified=max(int(time.time()), one["modified"] + 1))

    def can_enrol(self, key):
        with self.lock:
            return key[0] == REWARDS_TYPE and time.time() < self.enrolled.get(key, time.time()) + REPEATS

    def enrol(self, key, person):
        """Stores the data, and makes the personal version. The first data stay."""
        with self.lock:
            if key not in self.enrolled:
                self.enrolled[key] = time.time()
                self.change(self.passes[key], person=person)

    def register(self, device, key, push_token):
        with self.lock:
            self.push_tokens[device] = push_token
            serials = self.registered.setdefault((device, key[0]), {})
            if key[1] in serials:
                return 200
            serials[key[1]] = self.tick()
            return 201

    def unregister(self, device, key):
        with self.lock:
            serials = self.registered.get((device, key[0]), {})
            serials.pop(key[1], None)
            if not serials:
                self.registered.pop((device, key[0]), None)
            if not any(known == device for known, _ in self.registered):
                self.push_tokens.pop(device, None)

    def changed(self, device, type_id, since):
        """The passes that changed or were registered after the tag, and the new tag."""
        with self.lock:
            after = int(since) if re.fullmatch("[0-9]{1,18}", since) else 0
            if after > self.clock:
                after = 0  # the tag is not from this service
            stamps = {serial: max(registered, self.passes[type_id, serial]["tag"])
                      for serial, registered in self.registered.get((device, type_id), {}).items()}
            return [serial for serial, stamp in stamps.items() if stamp > after], max(stamps.values(), default=0)

    def newest(self, key):
        with self.lock:
            return dict(self.passes[key])


class Signer:
    """Signs the tokens of enrolments. Makes its certificate and the issuer's when they are needed."""

    def __init__(self):
        self.lock = threading.Lock()
        self.folder = None

    def sign(self, token):
        """A detached signature with both certificates. Phones check it like the signature of a pass."""
        with self.lock:
            self.folder = self.folder or self.new_certificate()
        return self.openssl("cms -sign -binary -outform DER -signer pass.pem -inkey pass.key -certfile issuer.pem",
                            self.folder, token.encode())

    def new_certificate(self):
        folder = tempfile.TemporaryDirectory()
        new = "req -x509 -days 30 -newkey rsa:2048 -nodes -keyout {0}.key -out {0}.pem -subj".format
        self.openssl(new("issuer") + " /CN=Throw-away", folder)
        extension = f"-addext 1.2.840.113635.100.6.1.16=ASN1:UTF8String:{REWARDS_TYPE}"  # Apple names the type here
        self.openssl(f"{new('pass')} /UID={REWARDS_TYPE}/CN=Example/OU=EXAMPLE123 {extension} "
                     "-CA issuer.pem -CAkey issuer.key", folder)
        return folder

    def openssl(self, arguments, folder, data=b""):
        command = ["openssl", *arguments.split()]
        return subprocess.run(command, cwd=folder.name, input=data, capture_output=True, check=True, timeout=20).stdout


def archive(kind, key, token, version, modified, person):
    """Makes the same bytes for the same version. A real service adds images, and signs the manifest."""
    content = dict(zip(kind["names"], key), webServiceURL="https://wallet.example.com", authenticationToken=token)
    if kind["file"] == "pass.json":
        content |= {"formatVersion": 1, "teamIdentifier": "EXAMPLE123", "organizationName": "Example",
                    "description": "An example", "generic": {"primaryFields": [{"key": "version", "value": version}]}}
        if person is not None:
            content["generic"]["secondaryFields"] = [{"key": "name", "value": person.get("fullName", "a member")}]
    else:
        changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(modified))
        content |= {"schemaVersion": 1, "orderType": "ecommerce", "orderManagementURL": "https://shop.example.com",
                    "status": "open", "createdAt": "2026-01-01T00:00:00Z", "updatedAt": changed,
                    "merchant": {"merchantIdentifier": "merchant.com.example", "displayName": "Example",
                                 "url": "https://shop.example.com"}}
    files = {kind["file"]: json.dumps(content).encode()}
    if key[0] == REWARDS_TYPE and person is None:
        form = {"requiredPersonalizationFields": ["PKPassPersonalizationFieldName"], "description": "Join the club."}
        files["personalization.json"] = json.dumps(form).encode()
    digests = {name: kind["digest"](data).hexdigest() for name, data in files.items()}
    files["manifest.json"] = json.dumps(digests).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm, timeout = "HTTP/1.1", -1, True, 60
    wallet, signer = None, Signer()

    def answer(self):
        self.body = self.read_body()
        path, _, query = self.path.partition("?")
        try:
            segments = [decoded(part) for part in path.removesuffix("/").lstrip("/").split("/")]
        except ValueError:
            return self.reply(400)
        match segments:
            case ["v1", "log"]:
                return self.only(POST=lambda: self.reply(413 if self.is_long(256) else 200))
            case ["v1", "devices", device, "registrations", type_id]:
                return self.only(GET=lambda: self.list(device, type_id, query))
            case ["v1", "devices", device, "registrations", type_id, *serial]:
                key = type_id, "/".join(serial)  # a serial number may contain slashes, encoded or not
                return self.only(POST=lambda: self.register(device, key), DELETE=lambda: self.unregister(device, key))
            case ["v1", "passes", type_id, *serial, "personalize"] if serial and self.command == "POST":
                return self.enrol((type_id, "/".join(serial)))
            case ["v1", "passes" | "orders" as collection, type_id, *serial] if serial:
                return self.only(GET=lambda: self.fetch(KINDS[collection], (type_id, "/".join(serial))))
            case ["touch", type_id, *serial]:
                return self.only(POST=lambda: self.save((type_id, "/".join(serial)), lambda content: content + 1))
            case ["save", type_id, *serial]:
                return self.only(POST=lambda: self.save((type_id, "/".join(serial)), lambda content: content))
        self.reply(404)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = answer

    def only(self, **methods):
        method = "GET" if self.command == "HEAD" else self.command
        if method in methods:
            return methods[method]()
        self.reply(405, Allow=", ".join([*methods, *(["HEAD"] if "GET" in methods else [])]))

    def is_authorized(self, kind, key):
        """Whether the token belongs to exactly this pass. An unknown pass is answered like a wrong token."""
        scheme, _, token = self.headers.get("Authorization", "").strip().partition(" ")
        known = self.wallet.tokens.get(key, "") if key[0].startswith(kind["prefix"]) else ""
        equal = hmac.compare_digest(token.strip().encode("latin-1", "replace"), known.encode())
        if equal and known and scheme.lower() == kind["scheme"].lower():
            return True
        self.reply(401, WWW_Authenticate=kind["scheme"])
        return False

    def register(self, device, key):
        if not self.is_authorized(kind_of(key[0]), key):
            return
        if self.is_long(16):
            return self.reply(413)
        try:
            push_token = json.loads(self.body)["pushToken"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.reply(400)
        if not isinstance(push_token, str) or not re.fullmatch("([0-9A-Fa-f]{2}){1,200}", push_token):
            return self.reply(400)
        if not re.fullmatch("[A-Za-z0-9._~-]{1,128}", device):
            return self.reply(400)
        self.reply(self.wallet.register(device, key, push_token))

    def unregister(self, device, key):
        if self.is_authorized(kind_of(key[0]), key):
            self.wallet.unregister(device, key)
            self.reply(200)  # also if there was nothing to remove

    def list(self, device, type_id, query):
        kind = kind_of(type_id)
        # The query is not read with a form decoder, which would turn plus signs into spaces.
        start = kind["since"] + "="
        values = [part.removeprefix(start) for part in query.split("&") if part.startswith(start)]
        serials, tag = self.wallet.changed(device, type_id, urllib.parse.unquote(values[0]) if values else "")
        if not serials:
            return self.reply(204)
        body = json.dumps({kind["serials"]: serials, kind["tag"]: str(tag)}).encode()
        self.reply(200, body, Content_Type="application/json", Cache_Control="no-store")

    def fetch(self, kind, key):
        if not self.is_authorized(kind, key):
            return
        newest = self.wallet.newest(key)
        headers = dict(Last_Modified=formatdate(newest["modified"], usegmt=True), Cache_Control="private, no-cache")
        since = parsed(self.headers.get("If-Modified-Since", ""))
        if since is not None and newest["modified"] <= since:
            return self.reply(304, **headers)
        time.sleep(max(0, newest["modified"] - time.time()))  # no date may be ahead of the clock
        body = archive(kind, key, self.wallet.tokens[key], newest["content"], newest["modified"],
                       newest["person"])
        self.reply(200, body, Content_Type=kind["media_type"], **headers)

    def enrol(self, key):
        if not self.is_authorized(KINDS["passes"], key):
            return
        if not self.wallet.can_enrol(key):
            return self.reply(404)
        if self.is_long(16):
            return self.reply(413)
        try:
            body = json.loads(self.body)
            token, person = body["personalizationToken"], body.get("requiredPersonalizationInfo") or {}
            person = {name: person[name] for name in ANSWERS if person.get(name) is not None}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self.reply(400)
        # Whoever has a pass chooses this text. If it could be a manifest, they could get a forged pass signed.
        if not isinstance(token, str) or not re.fullmatch("[A-Za-z0-9._~+/=-]{1,256}", token):
            return self.reply(400)
        if not all(isinstance(value, str) and len(value) <= 256 for value in person.values()):
            return self.reply(400)
        try:
            signature = self.signer.sign(token)  # comes first: if it fails, nothing was stored
        except (OSError, subprocess.SubprocessError):
            return self.reply(503)
        self.wallet.enrol(key, person)
        self.reply(200, signature, Content_Type="application/octet-stream")

    def save(self, key, change):
        if key not in self.wallet.tokens:
            return self.reply(404)
        self.wallet.save(key, change)
        self.reply(200)

    def read_body(self):
        """Reads the body even if nobody needs it, because the next request on the connection comes after it."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdigit() or int(length) > 4 << 20:
            self.close_connection = True
            return b" " * (4 << 20)  # longer than any call accepts
        return self.rfile.read(int(length))

    def is_long(self, kibibytes):
        return len(self.body) > kibibytes << 10

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass  # paths hold device identifiers, which are secrets


def decoded(segment):
    if re.search("%(?![0-9A-Fa-f]{2})", segment):
        raise ValueError(segment)
    return urllib.parse.unquote(segment, errors="strict")


def parsed(date):
    for form in DATES:
        try:
            return calendar.timegm(time.strptime(date, form))
        except ValueError:
            pass
    return None


if __name__ == "__main__":
    Handler.wallet = Wallet({
        ("pass.com.example.a", "A-1"): "token-of-a-1-0123456789",
        ("pass.com.example.a", "A-2"): "token-of-a-2-0123456789",
        ("pass.com.example.a", "A-3"): "token-of-a-3-0123456789",
        ("pass.com.example.a", "H8JP44-ORD07/09/25-MARTINEZ/LANI"): "token-of-a-4-0123456789",
        ("pass.com.example.b", "A-1"): "token-of-b-1-0123456789",
        ("order.com.example.c", "O-1"): "token-of-c-1-0123456789",
        ("order.com.example.c", "O-2"): "token-of-c-2-0123456789",
        ("order.com.example.d", "O-1"): "token-of-d-1-0123456789",
        **{(REWARDS_TYPE, f"R-{n}"): f"token-of-r-{n}-0123456789" for n in range(1, 7)},
    })
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
