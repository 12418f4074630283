"""Makes passes with barcodes, and reads the barcodes of their pictures.

barcodes.py make FOLDER    writes an unzipped pass for each kind of barcode
barcodes.py read FOLDER    reads the PNG file of each pass, and fails if a barcode has another message
"""

import json
import pathlib
import sys

KINDS = {
    "QR": "https://example.org/?a=1&b=<2>",
    "PDF417": "M1LOVELACE/ADA       EABC123 BERLHREX 0417 074Y014C0025 100",
    "Aztec": "5001",
    "Code128": "AB-1234567890",
    "Code39": "CODE-39",
    "EAN13": "4006381333931",
    "I2of5": "12345678901231",
    "QR-utf-8": "Łódź",
    "Aztec-utf-8": "Łódź",
    "PDF417-utf-8": "Łódź",
}


def make(folder):
    for kind, message in KINDS.items():
        name, _, encoding = kind.partition("-")
        barcode = {
            "format": f"PKBarcodeFormat{name}",
            "message": message,
            "messageEncoding": encoding or "iso-8859-1",
        }
        (folder / kind).mkdir(parents=True)
        text = json.dumps({"description": kind, "storeCard": {}, "barcodes": [barcode]})
        (folder / kind / "pass.json").write_text(text)


def read(folder):
    import PIL.Image
    import zxingcpp

    failed = False
    for kind, message in KINDS.items():
        found = zxingcpp.read_barcodes(PIL.Image.open(folder / f"{kind}.png").convert("L"))
        texts = [barcode.text for barcode in found]
        if texts != [message]:
            print(f"browser: {kind}: the reader reads {texts}, and not {message!r}", file=sys.stderr)
            failed = True
    # An empty picture has no barcode, so the reader can fail.
    if zxingcpp.read_barcodes(PIL.Image.new("L", (400, 400), 255)):
        failed = True
    sys.exit(failed)


{"make": make, "read": read}[sys.argv[1]](pathlib.Path(sys.argv[2]))
