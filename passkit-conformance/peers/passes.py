"""The passes of the Python peers, and the way of their pushes to the push service of the kit."""

import asyncio, hashlib, io, json, os, zipfile

PASSES = {
    ("pass.com.example.a", "A-1"): "token-of-a-1-0123456789",
    ("pass.com.example.a", "A-2"): "token-of-a-2-0123456789",
    ("pass.com.example.a", "A-3"): "token-of-a-3-0123456789",
    ("pass.com.example.b", "A-1"): "token-of-b-1-0123456789",
}
PUSH_PORT = int(os.environ.get("PUSH_PORT", "2197"))


def archive(key, version):
    """Makes an archive without a signature. The kit demands a signature only if there is one."""
    content = json.dumps({
        "formatVersion": 1, "passTypeIdentifier": key[0], "serialNumber": key[1], "teamIdentifier": "EXAMPLE123",
        "organizationName": "Example", "description": "A pass",
        "generic": {"primaryFields": [{"key": "version", "value": version}]},
        "webServiceURL": "https://wallet.example.com", "authenticationToken": PASSES[key],
    }).encode()
    manifest = json.dumps({"pass.json": hashlib.sha1(content).hexdigest()}).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zip:
        for name, data in ("pass.json", content), ("manifest.json", manifest):
            zip.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def pushes_to_the_kit():
    """Redirects connections to APNs, because the libraries can't be set up for another push service."""
    connect = asyncio.BaseEventLoop.create_connection

    async def redirected(self, protocol_factory, host=None, port=None, **options):
        if port == 443:
            host, port = "127.0.0.1", PUSH_PORT
            if options.get("ssl"):
                options.setdefault("server_hostname", "api.push.apple.com")
        return await connect(self, protocol_factory, host, port, **options)

    async def resolved(self, host, port, **options):
        import socket
        if host in ("api.push.apple.com", b"api.push.apple.com"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return await resolve(self, host, port, **options)

    resolve = asyncio.BaseEventLoop.getaddrinfo
    asyncio.BaseEventLoop.create_connection = redirected
    asyncio.BaseEventLoop.getaddrinfo = resolved
