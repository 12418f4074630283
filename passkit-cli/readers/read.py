"""Reads a signed archive with libraries of others, and compares it with the folder that was signed.

Usage: read.py FOLDER ARCHIVE ROOT. ROOT is the certificate to which the signature must lead.

pyHanko verifies the signature with its chain, and edutap.wallet_apple opens passes. No library of PyPI opens orders.
"""

import asyncio
import hashlib
import json
import pathlib
import sys
import zipfile

from asn1crypto import cms
from edutap.wallet_apple import api
from pyhanko.keys import load_cert_from_pemder
from pyhanko.sign.validation.generic_cms import async_validate_detached_cms
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko_certvalidator import ValidationContext

STYLES = {"boardingPass", "coupon", "eventTicket", "generic", "storeCard", "posterGeneric"}

folder, archive, root = map(pathlib.Path, sys.argv[1:])


def same(what, found, expected):
    if found != expected:
        sys.exit(f"{archive.name}: {what} is {found!r}, not {expected!r}")


sources = {
    str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
}
with zipfile.ZipFile(archive) as opened:
    same("the first damaged file", opened.testzip(), None)
    files = {name: opened.read(name) for name in opened.namelist()}
manifest, signature = files.pop("manifest.json"), files.pop("signature")
same("the list of files", sorted(files), sorted(sources))
same("the content of the files", files, sources)

digest = hashlib.sha256 if "order.json" in files else hashlib.sha1
same("the manifest", json.loads(manifest), {name: digest(file).hexdigest() for name, file in files.items()})

content = cms.ContentInfo.load(signature, strict=True)
same("the type of the signature", content["content_type"].native, "signed_data")
status = asyncio.run(
    async_validate_detached_cms(
        manifest,
        content["content"],
        signer_validation_context=ValidationContext(trust_roots=[load_cert_from_pemder(root)]),
        key_usage_settings=KeyUsageConstraints(key_usage={"digital_signature"}),
    )
)
same("the state of the signature", (status.intact, status.valid, status.trusted), (True, True, True))
attributes = {attribute["type"].native for attribute in content["content"]["signer_infos"][0]["signed_attrs"]}
same("the list of signed attributes", attributes, {"content_type", "signing_time", "message_digest"})

source = json.loads(sources.get("pass.json", "{}"))
# edutap.wallet_apple refuses the keys of this scheme, which is from iOS 26.
if source and "semanticBoardingPass" not in source.get("preferredStyleSchemes", []):
    with archive.open("rb") as file:
        read = api.new(file=file)
    for key in ["serialNumber", "passTypeIdentifier", "teamIdentifier", "description"]:
        same(key, getattr(read.pass_object_safe, key), source[key])
    style = next(key for key in source if key in STYLES)
    information = getattr(read.pass_object_safe, style)
    for group in ["headerFields", "primaryFields", "backFields"]:
        fields = [(field.key, field.value, field.label) for field in getattr(information, group) or []]
        expected = [(field["key"], field["value"], field["label"]) for field in source[style].get(group, [])]
        same(group, fields, expected)
    same("whether it is signed", read.is_signed, True)
print(f"{archive.name}: {len(files)} files read, signature verified")
