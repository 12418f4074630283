#!/usr/bin/env python3
"""Draws the images of the templates, in all scales. Run it in this folder. It needs only Python."""

import math
import struct
import zlib
from pathlib import Path

WHITE = (255, 255, 255)
LEVELS = 8  # steps between two neighbouring colours


def png(path, width, height, rows, palette, alpha=None):
    """Writes an image whose rows are indexes into a palette."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    depth = 4 if len(palette) <= 16 else 8
    lines = bytearray()
    for row in rows:
        if depth == 4:
            row = bytes(row) + b"\0" * (width % 2)
            row = bytes(high << 4 | low for high, low in zip(row[::2], row[1::2]))
        lines += b"\0" + bytes(row)
    chunks = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 3, 0, 0, 0)),
        chunk(b"PLTE", b"".join(bytes(color) for color in palette)),
    ]
    if alpha:
        chunks.append(chunk(b"tRNS", bytes(alpha)))
    chunks += [chunk(b"IDAT", zlib.compress(bytes(lines), 9)), chunk(b"IEND", b"")]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def mix(one, other, part):
    return tuple(round(a + (b - a) * part) for a, b in zip(one, other))


def in_polygon(points, x, y):
    inside = False
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1]):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


def in_bar(x, y, left, top, right, bottom, radius):
    """Returns whether a point is in a rectangle with round corners."""
    dx = max(left + radius - x, x - right + radius, 0)
    dy = max(top + radius - y, y - bottom + radius, 0)
    return left <= x <= right and top <= y <= bottom and math.hypot(dx, dy) <= radius


def in_ring(x, y, cx, cy, inner, outer):
    return inner <= math.hypot(x - cx, y - cy) <= outer


STAR = [
    (0.5 + r * math.sin(i * math.pi / 5), 0.53 - r * math.cos(i * math.pi / 5))
    for i, r in enumerate([0.38, 0.16] * 5)
]

# Each symbol says whether a point of the unit square is in it.
SYMBOLS = {
    "cup": lambda x, y: in_bar(x, y, 0.2, 0.3, 0.64, 0.7, 0.05 + 0.13 * (y > 0.5))
    or (x > 0.64 and in_ring(x, y, 0.64, 0.46, 0.07, 0.13))
    or in_bar(x, y, 0.14, 0.75, 0.72, 0.81, 0.03),
    "percent": lambda x, y: in_ring(x, y, 0.32, 0.34, 0.07, 0.14)
    or in_ring(x, y, 0.68, 0.68, 0.07, 0.14)
    or in_polygon([(0.66, 0.2), (0.75, 0.2), (0.34, 0.82), (0.25, 0.82)], x, y),
    "star": lambda x, y: in_polygon(STAR, x, y),
    "plane": lambda x, y: in_polygon([(0.1, 0.5), (0.88, 0.14), (0.4, 0.6)], x, y)
    or in_polygon([(0.9, 0.17), (0.62, 0.86), (0.44, 0.63)], x, y),
    "person": lambda x, y: math.hypot(x - 0.5, y - 0.34) <= 0.16
    or (y <= 0.82 and math.hypot((x - 0.5) / 0.3, (y - 0.82) / 0.27) <= 1),
    "box": lambda x, y: in_bar(x, y, 0.16, 0.24, 0.84, 0.38, 0.03)
    or (in_bar(x, y, 0.2, 0.42, 0.8, 0.8, 0.03) and not in_bar(x, y, 0.4, 0.5, 0.6, 0.56, 0.03)),
}


def symbol_rows(name, size, width):
    """Yields rows of coverage from 0 to LEVELS. The symbol is at the left of the width."""
    inside = SYMBOLS[name]
    steps = [0.125, 0.375, 0.625, 0.875]
    for row in range(size):
        line = []
        for column in range(width):
            points = [(column + dx, row + dy) for dx in steps for dy in steps]
            hits = sum(x < size and inside(x / size, y / size) for x, y in points)
            line.append(round(hits / len(points) * LEVELS))
        yield line


def scales(folder, name, width, height, draw):
    for scale, end in [(1, ""), (2, "@2x"), (3, "@3x")]:
        draw(Path(folder) / f"{name}{end}.png", width * scale, height * scale)


def plate(symbol, color):
    """Draws a white symbol on a coloured square."""
    palette = [mix(color, WHITE, step / LEVELS) for step in range(LEVELS + 1)]
    return lambda path, width, height: png(
        path, width, height, symbol_rows(symbol, height, width), palette
    )


def logo(folder, name, side, symbol):
    """Draws a white symbol without a background."""
    alpha = [round(255 * step / LEVELS) for step in range(LEVELS + 1)]

    def draw(path, width, height):
        png(path, width, height, symbol_rows(symbol, height, width), [WHITE] * len(alpha), alpha)

    scales(folder, name, side, side, draw)


def waves(folder, name, width, height, dark, light):
    """Draws hills, the darkest in front."""
    shades = [mix(light, dark, part / 4) for part in range(5)]
    palette = [
        mix(shades[shade], shades[min(shade + 1, 4)], step / LEVELS)
        for shade in range(5)
        for step in range(LEVELS)
    ]

    def draw(path, wide, high):
        def crest(hill, x):
            angle = x / wide * math.tau
            wave = math.sin(angle * (0.6 + 0.25 * hill) + 1.9 * hill)
            return high * (0.3 + 0.17 * hill + 0.1 * wave)

        crests = [[crest(hill, x) for hill in range(4)] for x in range(wide)]

        def pixel(x, y):
            index = 0
            for hill, top in enumerate(crests[x]):
                covered = min(max(y + 0.5 - top + 0.5, 0), 1)
                if covered > 0:
                    index = hill * LEVELS + round(covered * LEVELS)
            return index

        rows = ([pixel(x, y) for x in range(wide)] for y in range(high))
        png(path, wide, high, rows, palette)

    scales(folder, name, width, height, draw)


BROWN, RED, VIOLET = (87, 58, 42), (176, 42, 48), (66, 42, 110)
BLUE, GREEN, TEAL = (20, 62, 120), (28, 92, 62), (16, 84, 96)

for folder, symbol, color in [
    ("storeCard", "cup", BROWN),
    ("coupon", "percent", RED),
    ("eventTicket", "star", VIOLET),
    ("posterEventTicket", "star", VIOLET),
    ("boardingPass", "plane", BLUE),
    ("semanticBoardingPass", "plane", BLUE),
    ("generic", "person", GREEN),
    ("posterGeneric", "person", TEAL),
]:
    scales(folder, "icon", 38, 38, plate(symbol, color))
    logo(folder, "logo", 50, symbol)

waves("storeCard", "strip", 375, 144, (58, 36, 24), (140, 98, 70))
waves("coupon", "strip", 375, 144, (128, 24, 34), (226, 104, 84))
waves("eventTicket", "strip", 375, 98, (44, 26, 82), (150, 92, 172))
waves("posterEventTicket", "background", 345, 505, (34, 20, 66), (176, 96, 168))
waves("posterGeneric", "artwork", 358, 448, (8, 56, 68), (96, 178, 170))
for folder, symbol in [("posterGeneric", "person"), ("semanticBoardingPass", "plane")]:
    logo(folder, "primaryLogo", 30, symbol)
scales("generic", "thumbnail", 90, 90, plate("person", (70, 140, 104)))
scales("posterGeneric", "thumbnail", 90, 90, plate("person", (60, 136, 142)))
# The order.json of the template names this file as the logo.
plate("box", BROWN)(Path("order/logo.png"), 180, 180)
