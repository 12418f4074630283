"""Writes the folders of passes and of an order, to be signed. Usage: folders.py FOLDER TEAM PASS_TYPE ORDER_TYPE"""

import json
import pathlib
import struct
import sys
import zlib

target, team, pass_type, order_type = sys.argv[1:]


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + bytes((x * y + x) % 256 for x in range(width)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write(name, files):
    for path, content in files.items():
        file = pathlib.Path(target, name, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def image(name, width, height):
    ends = {1: "", 2: "@2x", 3: "@3x"}
    return {f"{name}{end}.png": png(width * scale, height * scale) for scale, end in ends.items()}


def field(key, value, **more):
    return {"key": key, "label": key, "value": value, **more}


def write_pass(name, styles, files):
    front = {
        "headerFields": [field("gate", "C4", changeMessage="Gate %@")],
        "primaryFields": [field("from", "Zürich ✈ \"Kloten\"")],
        "backFields": [field("terms", "Line one\nline two\u2028")],
    }
    description = {
        "formatVersion": 1,
        "passTypeIdentifier": pass_type,
        "serialNumber": f"{name} / 1",
        "teamIdentifier": team,
        "organizationName": "Example",
        "description": f"A {name}",
        "webServiceURL": "https://wallet.example.com/passes",
        "authenticationToken": "0123456789abcdef",
        "backgroundColor": "rgb(20, 40, 90)",
        "foregroundColor": "rgb(255, 255, 255)",
        "barcodes": [{"format": "PKBarcodeFormatQR", "message": "1", "messageEncoding": "iso-8859-1"}],
        **{style: {**front, **more} for style, more in styles.items()},
    }
    write(name, {"pass.json": json.dumps(description), **image("icon", 38, 38), **files})


write_pass("boardingPass", {"boardingPass": {"transitType": "PKTransitTypeAir"}}, image("logo", 50, 50))
write_pass("coupon", {"coupon": {}}, image("strip", 375, 144))
write_pass("eventTicket", {"eventTicket": {}}, image("strip", 375, 144))
write_pass("generic", {"generic": {}}, image("thumbnail", 90, 90))
write_pass("storeCard", {"storeCard": {}}, {})
write_pass("posterGeneric", {"posterGeneric": {}, "generic": {}}, {})
strings = {"de": ("Flugsteig", "utf-16"), "fr": ("Porte", "utf-8")}
write_pass(
    "translated",
    {"eventTicket": {}},
    {
        f"{language}.lproj/pass.strings": f'"gate" = "{text}";\n"from" = "«{language}»";\n"terms" = "…";\n'.encode(encoding)
        for language, (text, encoding) in strings.items()
    },
)
write(
    "order",
    {
        "order.json": json.dumps({
            "schemaVersion": 1,
            "orderTypeIdentifier": order_type,
            "orderIdentifier": "1042",
            "orderType": "ecommerce",
            "orderManagementURL": "https://example.com/orders/1042",
            "merchant": {
                "displayName": "Example Shop",
                "merchantIdentifier": "com.example.shop",
                "url": "https://example.com",
                "logo": "logo.png",
            },
            "status": "open",
            "createdAt": "2026-01-31T12:00:00Z",
            "updatedAt": "2026-01-31T12:00:00Z",
            "webServiceURL": "https://wallet.example.com/orders",
            "authenticationToken": "0123456789abcdef",
        }),
        "logo.png": png(300, 300),
    },
)
