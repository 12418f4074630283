"""Writes unsigned passes and orders, which all have the same token. Usage: archives.py FOLDER TOKEN"""

import hashlib
import json
import pathlib
import sys
import zipfile

folder, token = sys.argv[1:]
ICON = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
SERVICE = {"webServiceURL": "https://wallet.example.com", "authenticationToken": token}


def write(name, digest, files):
    path = pathlib.Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = {name: digest(content).hexdigest() for name, content in files.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, content)


for number, serial in enumerate(["A-1", "ORD07/09", "100%", "Zürich ✈", "in the store"]):
    passes, orders = ("passes", "orders") if number < 4 else ("handed-in", "handed-in")
    description = {
        "formatVersion": 1,
        "passTypeIdentifier": "pass.com.example.ticket",
        "serialNumber": serial,
        "teamIdentifier": "EXAMPLE123",
        "organizationName": "Example",
        "description": "A pass",
        "generic": {"primaryFields": [{"key": "number", "value": number}]},
        **SERVICE,
    }
    files = {"pass.json": json.dumps(description).encode(), "icon.png": ICON}
    write(f"{passes}/{number}.pkpass", hashlib.sha1, files)
    description = {
        "schemaVersion": 1,
        "orderTypeIdentifier": "order.com.example.shop",
        "orderIdentifier": serial,
        "orderType": "ecommerce",
        "orderManagementURL": "https://shop.example.com/",
        "merchant": {
            "displayName": "Shop",
            "merchantIdentifier": "merchant.com.example",
            "url": "https://shop.example.com/",
        },
        "status": "open",
        "createdAt": "2026-11-22T10:00:00Z",
        "updatedAt": "2026-11-22T10:00:00Z",
        **SERVICE,
    }
    files = {"order.json": json.dumps(description).encode(), "icon.png": ICON}
    write(f"{orders}/{number}.order", hashlib.sha256, files)
