"""Make the TIFF files of testdata/tiff and what Pillow reads from them.

    pip install pillow==10.3.0 numpy==1.26.4
    python scripts/reference/tiff_fixtures.py testdata/tiff

Pillow writes the fax compressions; the rest is put together here, because few programs write it any more: old-style
LZW and JPEG, subsampled YCbCr, wide gray, and files whose lengths of strips are wrong. Writes expected.json: width,
height and SHA-256 of Pillow's convert("RGB") per file.
"""

import hashlib
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(sys.argv[1])
rng = np.random.default_rng(6)
BYTE, SHORT, LONG, RATIONAL = 1, 3, 4, 5
FORMATS = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "II"}
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS = 256, 257, 258, 259, 262, 266, 273
SAMPLES, ROWS, COUNTS, PLANAR, T4_OPTIONS, PREDICTOR = 277, 278, 279, 284, 292, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_COUNTS, FORMAT = 322, 323, 324, 325, 339
JPEG_START, JPEG_BYTES, Q_TABLES, DC_TABLES, AC_TABLES = 513, 514, 519, 520, 521
COEFFICIENTS, SUBSAMPLING, BLACK_WHITE = 529, 530, 532


def tiff(name, tags, chunks, order="<", places=STRIPS, counts=True, blobs=None):
    """A file of these chunks; `counts` False leaves their lengths out, a list says others. `blobs` maps tags of offsets
    to the bytes that they point to."""
    data, starts = b"", []

    def put(piece):
        nonlocal data
        start = 8 + len(data)
        data += piece + bytes(len(piece) % 2)
        return start

    for tag, pieces in (blobs or {}).items():
        tags = {**tags, tag: (LONG, [put(piece) for piece in pieces])}
    starts = [put(chunk) for chunk in chunks]
    tags = {**tags, places: (LONG, starts)}
    if counts:
        lengths = counts if isinstance(counts, list) else [len(chunk) for chunk in chunks]
        tags[TILE_COUNTS if places == TILES else COUNTS] = (LONG, lengths)
    first = 8 + len(data)
    behind, entries = first + 2 + 12 * len(tags) + 4, b""
    tail = b""
    for tag, (kind, values) in sorted(tags.items()):
        value = struct.pack(order + FORMATS[kind] * len(values), *np.ravel(values).tolist())
        if len(value) > 4:
            at, tail = behind + len(tail), tail + value + bytes(len(value) % 2)
            value = struct.pack(order + "I", at)
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    (OUT / name).write_bytes(head + data + directory + tail)


def header(width, height, bits, compression, photometric, **more):
    """The tags that every file has."""
    tags = {WIDTH: width, HEIGHT: height, COMPRESSION: compression, PHOTOMETRIC: photometric, SAMPLES: len(bits)}
    tags = {tag: (SHORT, [value]) for tag, value in tags.items()} | {BITS: (SHORT, bits)}
    named = {"rows": ROWS, "planar": PLANAR, "predictor": PREDICTOR, "format": FORMAT, "fill": FILL_ORDER}
    return tags | {named[key]: (SHORT, [value]) for key, value in more.items()}


def page(width, height):
    """Black and white with long and short runs."""
    y, x = np.mgrid[0:height, 0:width]
    return ((x // 9 + y // 5) % 3 == 0) ^ (rng.random((height, width)) < 0.04)


def colors(width, height):
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 5, y * 7, (x + y) * 3], 2) % 256
    return (smooth // 2 + rng.integers(0, 30, smooth.shape)).astype(np.uint8)


def strips(array, rows):
    return [array[y : y + rows] for y in range(0, len(array), rows)]


def fax():
    """Group 3 in its forms, Group 4 and run-length."""
    kinds = {"1d": 0, "2d": 1, "1d_fill": 4, "2d_fill": 5}
    for width, height, rows in [(61, 23, 23), (200, 40, 7), (1730, 9, 4), (3, 30, 30)]:
        image = Image.fromarray(page(width, height))
        for inverted in (0, 1):
            for kind, options in kinds.items():
                if inverted == 1 and width != 61:
                    continue
                info = {PHOTOMETRIC: inverted, ROWS: rows, T4_OPTIONS: options}
                image.save(OUT / f"g3_{kind}_{width}_{inverted}.tif", compression="group3", tiffinfo=info)
        for name in ("group4", "tiff_ccitt"):
            image.save(OUT / f"{name}_{width}.tif", compression=name, tiffinfo={ROWS: rows})
    image = Image.fromarray(page(77, 20))
    image.save(OUT / "g3_2d_lsb.tif", compression="group3", tiffinfo={T4_OPTIONS: 1, FILL_ORDER: 2, ROWS: 6})
    image.save(OUT / "g4_lsb.tif", compression="group4", tiffinfo={FILL_ORDER: 2})


def strip_of(image, compression):
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression)
    tags = Image.open(buffer).tag_v2
    return buffer.getvalue()[tags[STRIPS][0] :][: tags[COUNTS][0]]


def group4_ends():
    """Group 4 whose end mark is missing, or stands before the last rows."""
    image = Image.fromarray(page(45, 19))
    bits = "".join(f"{byte:08b}" for byte in strip_of(image, "group4"))
    rows = bits[: bits.rindex("000000000001" * 2)]
    packed = bytes(int(rows[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(rows), 8))
    tags = header(45, 19, [1], 4, 0)
    tiff("g4_no_end_mark.tif", tags, [packed])
    for fault in (20, 61):
        damaged = bytearray(packed)
        damaged[fault] ^= 4
        # as many rows as are left
        tiff(f"g4_damaged_{fault}.tif", tags | {HEIGHT: (SHORT, [6])}, [bytes(damaged)])
    packed = bytearray(strip_of(image, "group3"))
    packed[40] ^= 0x10
    tiff("g3_damaged.tif", header(45, 19, [1], 3, 0), [bytes(packed)])


def lzw_old(data):
    """Codes with their lowest bits first, widened when they no longer fit."""
    bits, table, width, string = "", {bytes([i]): i for i in range(256)}, 9, b""

    def code(number):
        nonlocal bits
        bits = f"{number:0{width}b}" + bits

    code(256)
    for byte in data:
        longer = string + bytes([byte])
        if longer in table:
            string = longer
            continue
        code(table[string])
        table[longer] = 258 + len(table) - 256
        if 258 + len(table) - 256 > 1 << width:
            width += 1
        string = bytes([byte])
    code(table[string])
    code(257)
    packed = int(bits, 2)
    return packed.to_bytes((len(bits) + 7) // 8, "little")


def lengths():
    """Lengths of strips that are 0, wrong or absent; old-style LZW; tiles under the tags of strips."""
    pixels = colors(31, 22)
    tags = header(31, 22, [8] * 3, 1, 2, rows=8)
    raw = [strip.tobytes() for strip in strips(pixels, 8)]
    for name, counts in {"zero": [0] * 3, "small": [5, 5, 5], "large": [9999] * 3, "none": False}.items():
        tiff(f"bytes_{name}.tif", tags, raw, counts=counts)
    one = tags | {ROWS: (SHORT, [22]), COMPRESSION: (SHORT, [8])}
    whole = zlib.compress(pixels.tobytes())
    for name, counts in {"zero": [0], "none": False}.items():
        tiff(f"deflate_bytes_{name}.tif", one, [whole], counts=counts)
    tiff("lzw_old.tif", tags | {COMPRESSION: (SHORT, [5])}, [lzw_old(strip) for strip in raw])
    differences = pixels.astype(int)
    differences[:, 1:] -= pixels[:, :-1]
    old = lzw_old(differences.astype(np.uint8).tobytes())
    tiff("lzw_old_predictor.tif", one | {COMPRESSION: (SHORT, [5]), PREDICTOR: (SHORT, [2])}, [old])
    tiled = header(31, 22, [8] * 3, 8, 2) | {TILE_WIDTH: (SHORT, [16]), TILE_HEIGHT: (SHORT, [16])}
    padded = np.pad(pixels, ((0, 10), (0, 1), (0, 0)))
    tiles = [zlib.compress(padded[y : y + 16, x : x + 16].tobytes()) for y in (0, 16) for x in (0, 16)]
    tiff("tiles.tif", tiled, tiles, places=TILES)
    tiff("tiles_as_strips.tif", tiled, tiles)
    turned = header(31, 22, [8] * 3, 8, 2) | {274: (BYTE, [6])}
    tiff("orientation_byte.tif", turned, [whole])


def blocks(pixels, across, down):
    """Samples of YCbCr: those of `across * down` pixels, then one pair of colours."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % down), (0, -width % across), (0, 0)), "edge")
    out = b""
    for y in range(0, height, down):
        for x in range(0, width, across):
            out += padded[y : y + down, x : x + across, 0].tobytes() + padded[y, x, 1:].tobytes()
    return out


def ycbcr():
    pixels = rng.integers(0, 256, (21, 35, 3), dtype=np.uint8)
    video = [(16, 1), (235, 1), (128, 1), (240, 1), (128, 1), (240, 1)]
    for across, down in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (1, 2)]:
        tags = header(35, 21, [8] * 3, 8, 6, rows=8) | {SUBSAMPLING: (SHORT, [across, down])}
        if across == 2:
            tags |= {COEFFICIENTS: (RATIONAL, [(2126, 10000), (7152, 10000), (722, 10000)])}
        if down == 2:
            tags |= {BLACK_WHITE: (RATIONAL, video)}
        packed = [zlib.compress(blocks(strip, across, down)) for strip in strips(pixels, 8)]
        tiff(f"ycbcr_{across}{down}.tif", tags, packed, ">" if across == 4 else "<")
    tags = header(35, 21, [8] * 3, 8, 6, planar=2) | {SUBSAMPLING: (SHORT, [1, 1])}
    planes = [pixels[:, :, c].tobytes() for c in range(3)]
    tiff("ycbcr_planes.tif", tags, [zlib.compress(plane) for plane in planes])
    tiff("ycbcr_planes_raw.tif", tags | {COMPRESSION: (SHORT, [1])}, planes)


def gray():
    """More than 8 bits, signed, floating point, with and without predictors."""
    kinds = {"u16": "u2", "i16": "i2", "u32": "u4", "i32": "i4", "f32": "f4"}
    for name, kind in kinds.items():
        values = rng.integers(-200, 600, (9, 13)) if name[0] != "u" else rng.integers(0, 600, (9, 13))
        if name[0] == "f":
            values = values + rng.random((9, 13))
        for order in "<>":
            if name == "u32" and order == ">":
                continue
            array = values.astype(order + kind)
            size = array.itemsize
            sample_format = {"u": 1, "i": 2, "f": 3}[name[0]]
            tags = header(13, 9, [size * 8], 1, 1, format=sample_format)
            suffix = "le" if order == "<" else "be"
            tiff(f"gray_{name}_{suffix}.tif", tags, [array.tobytes()], order)
            number = array.view(f"{order}u{size}")
            differences = number.copy()
            differences[:, 1:] -= number[:, :-1]
            packed = [zlib.compress(differences.tobytes())]
            tags |= {COMPRESSION: (SHORT, [8]), PREDICTOR: (SHORT, [2])}
            tiff(f"gray_{name}_{suffix}_predictor.tif", tags, packed, order)
            if name == "f32":
                rows = np.stack([np.frombuffer(row.astype(">f4").tobytes(), np.uint8) for row in array])
                sorted_bytes = rows.reshape(9, 13, 4).transpose(0, 2, 1).reshape(9, 52)
                sorted_bytes = np.diff(sorted_bytes, prepend=np.uint8(0)).astype(np.uint8)
                packed = [zlib.compress(sorted_bytes.tobytes())]
                tiff(f"gray_f32_{suffix}_predictor3.tif", tags | {PREDICTOR: (SHORT, [3])}, packed, order)
    twelve = rng.integers(0, 600, (9, 13))
    rows = ["".join(f"{value:012b}" for value in row) for row in twelve]
    packed = b"".join(int(row.ljust(160, "0"), 2).to_bytes(20, "big") for row in rows)
    tiff("gray_12.tif", header(13, 9, [12], 1, 1), [packed])
    planes = rng.integers(0, 65536, (3, 9, 13)).astype("<u2")
    tags = header(13, 9, [16] * 3, 1, 2, planar=2)
    tiff("rgb16_planes_raw.tif", tags, [plane.tobytes() for plane in planes])


def jpeg_parts(pixels, subsampling, restart_rows=0):
    """A JPEG stream, its header up to the scan's data, and its tables: of quantization, DC and AC."""
    buffer = io.BytesIO()
    options = {"restart_marker_rows": restart_rows} if restart_rows else {}
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80, subsampling=subsampling, **options)
    stream, at, tables = buffer.getvalue(), 2, {"q": [], "dc": [], "ac": []}
    while stream[at + 1] != 0xDA:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        body = stream[at + 5 : at + 2 + length]
        if marker == 0xDB:
            tables["q"].append(body)
        elif marker == 0xC4:
            tables["ac" if stream[at + 4] >= 16 else "dc"].append(body)
        at += 2 + length
    scan = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return stream, stream[:scan], stream[:at], tables


def old_jpeg():
    """Old-style JPEG in the ways it was written."""
    for subsampling, pair in [(0, [1, 1]), (1, [2, 1]), (2, [2, 2])]:
        pixels = colors(50, 37)
        stream, head, before_scan, tables = jpeg_parts(pixels, subsampling)
        tags = header(50, 37, [8] * 3, 6, 6) | {SUBSAMPLING: (SHORT, pair)}
        name = "".join(map(str, pair))
        scan = stream[len(head) :]
        size = {JPEG_BYTES: (LONG, [len(stream)])}
        tiff(f"old_jpeg_whole_{name}.tif", tags | size, [stream], blobs={JPEG_START: [stream]})
        size = {JPEG_BYTES: (LONG, [len(before_scan)])}
        strip = stream[len(before_scan) :]
        tiff(f"old_jpeg_head_{name}.tif", tags | size, [strip], blobs={JPEG_START: [before_scan]})
        q, dc, ac = (tables[key] for key in ("q", "dc", "ac"))
        shared = {Q_TABLES: [q[0], q[1], q[1]], DC_TABLES: [dc[0], dc[1], dc[1]], AC_TABLES: [ac[0], ac[1], ac[1]]}
        tiff(f"old_jpeg_tables_{name}.tif", tags, [scan.removesuffix(b"\xff\xd9")], blobs=shared)
    pixels = colors(40, 48)
    stream, head, before_scan, _ = jpeg_parts(pixels, 2, 1)
    scan = stream[len(before_scan) :]
    marks = [scan.index(bytes([0xFF, 0xD0 + i])) for i in range(2)]
    pieces = [scan[: marks[0]], scan[marks[0] + 2 : marks[1]], scan[marks[1] + 2 :].removesuffix(b"\xff\xd9")]
    tags = header(40, 48, [8] * 3, 6, 6, rows=16) | {SUBSAMPLING: (SHORT, [2, 2])}
    tags |= {JPEG_BYTES: (LONG, [len(before_scan)])}
    tiff("old_jpeg_strips.tif", tags, pieces, blobs={JPEG_START: [before_scan]})
    stream, _, _, _ = jpeg_parts(colors(30, 20)[:, :, 0], 0)
    tags = header(30, 20, [8], 6, 1) | {JPEG_BYTES: (LONG, [len(stream)])}
    tiff("old_jpeg_gray.tif", tags, [stream], blobs={JPEG_START: [stream]})


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for part in (fax, group4_ends, lengths, ycbcr, gray, old_jpeg):
        part()
    expected = {}
    for path in sorted(OUT.glob("*.tif")):
        image = Image.open(path).convert("RGB")
        expected[path.name] = [*image.size, hashlib.sha256(image.tobytes()).hexdigest()]
    (OUT / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


main()
