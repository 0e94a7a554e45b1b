"""Small HEIC files for the tests, and what libheif reads from them.

    apt-get install libheif-examples     # 1.15.1, with x265
    pip install numpy==2.1.3 pillow==10.3.0
    python scripts/reference/heic_fixtures.py testdata/heic

Each NAME.heic is a made-up picture coded by heif-enc, NAME.png what heif-convert makes of it. Grids, turned and cropped pictures
are put together here of what heif-enc has coded, as it makes none. In bounds/ are those that cost more than they look like.
"""

import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CASES = {
    "color_420": ("color", ["-q", "60", "-p", "chroma=420"]),
    "color_422": ("color", ["-q", "60", "-p", "chroma=422"]),
    "color_444": ("color", ["-q", "60", "-p", "chroma=444"]),
    "lossless": ("color", ["-L", "-p", "chroma=444", "--matrix_coefficients=0"]),
    "ten_bits": ("deep", ["-q", "60", "-b", "10", "-p", "chroma=444"]),
    "gray": ("gray", ["-q", "60"]),
    "alpha": ("alpha", ["-q", "60", "-p", "chroma=444"]),
    "odd": ("odd", ["-q", "60", "-p", "chroma=444"]),
    "thumbnail": ("color", ["-q", "60", "-t", "32"]),
    "ten_bits_420": ("deep", ["-q", "60", "-b", "10", "-p", "chroma=420"]),
    "alpha_420": ("alpha", ["-q", "60", "-p", "chroma=420"]),
}

# Sides of pictures of one colour, which take few bytes whatever their size.
FLAT, LARGE = 1024, 4096


def picture(width, height):
    y, x = np.mgrid[:height, :width]
    red, green = x * 255 // (width - 1), y * 255 // (height - 1)
    blue = np.where((x // 8 + y // 8) % 2, 220, 40)
    return np.stack([red, green, blue], axis=-1).astype("uint8")


def deep_png(pixels):
    """A PNG of 16 bits, which Pillow does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def box(name, *content):
    content = b"".join(content)
    return struct.pack(">I", 8 + len(content)) + name + content


def full_box(name, version, *content):
    return box(name, bytes([version, 0, 0, 0]), *content)


class Coded:
    """A picture coded by heif-enc: what decodes it, what its colours mean, and its data."""

    def __init__(self, path):
        data = path.read_bytes()
        self.properties = [self._box(data, name) for name in (b"hvcC", b"colr") if name in data]
        self.data = self._box(data, b"mdat")[8:]

    @staticmethod
    def _box(data, name):
        start = data.index(name) - 4
        return data[start : start + int.from_bytes(data[start : start + 4], "big")]


def ispe(width, height):
    return full_box(b"ispe", 0, struct.pack(">II", width, height))


def irot(quarters):
    return box(b"irot", bytes([quarters]))


def imir(axis):
    return box(b"imir", bytes([axis]))


def clap(width, height, right, down):
    """A crop to `width` x `height`, its middle so far from the picture's, each in halves."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, right, 2, down, 2))


def nclx(matrix, full_range):
    """How samples stand for colours, whatever the coded picture says."""
    return box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, matrix, 0x80 if full_range else 0))


def put_together(path, items, references=b""):
    """A file of items, the first of which is the picture: (kind, properties, data)."""
    properties = [property for _, own, _ in items for property in own]
    owners, first = b"", 1
    for number, (_, own, _) in enumerate(items, 1):
        owners += struct.pack(">HB", number, len(own)) + bytes(range(first, first + len(own)))
        first += len(own)
    # what others are made of is hidden
    infos = [
        box(b"infe", bytes([2, 0, 0, number > 1]), struct.pack(">HH", number, 0), kind, b"\0")
        for number, (kind, _, _) in enumerate(items, 1)
    ]

    def meta(start):
        places, at = b"", start
        for number, (_, _, data) in enumerate(items, 1):
            places += struct.pack(">HHHII", number, 0, 1, at, len(data))
            at += len(data)
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", 1)),
            full_box(b"iloc", 0, bytes([0x44, 0]), struct.pack(">H", len(items)), places),
            full_box(b"iinf", 0, struct.pack(">H", len(items)), *infos),
            full_box(b"iref", 0, references) if references else b"",
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, struct.pack(">I", len(items)), owners)),
        )

    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + box(b"mdat", *(data for _, _, data in items)))


def composed(folder, coded):
    """The pictures that are put together: a grid of four tiles that is cropped, and pictures that are turned."""
    tiles = [(b"hvc1", [ispe(64, 64), *tile.properties], tile.data) for tile in map(coded, "abcd")]
    grid = bytes([0, 0, 1, 1]) + struct.pack(">HH", 120, 100)
    derived = box(b"dimg", struct.pack(">HH4H", 1, 4, 2, 3, 4, 5))
    put_together(folder / "grid.heic", [(b"grid", [ispe(120, 100)], grid), *tiles], derived)
    grid_turned = [ispe(120, 100), irot(1), imir(0)]
    put_together(folder / "grid_turned.heic", [(b"grid", grid_turned, grid), *tiles], derived)
    whole = coded("whole")
    for name, changes in {
        "narrow": [nclx(1, False)],
        "wide_gamut": [nclx(9, True)],
        "ycgco": [nclx(8, True)],
        "turned": [irot(3)],
        "mirrored": [imir(1), irot(2)],
        "cropped": [clap(77, 40, 3, -5)],
        "cropped_and_turned": [clap(50, 41, -1, 2), irot(1), imir(1)],
    }.items():
        put_together(folder / f"{name}.heic", [(b"hvc1", [ispe(96, 64), *whole.properties, *changes], whole.data)])
    layer = [(b"hvc1", [ispe(96, 64), *whole.properties], whole.data)]
    overlay = bytes([0, 0]) + struct.pack(">4H", 0x2000, 0xFFFF, 0x4000, 0xFFFF) + struct.pack(">HHhhhh", 90, 60, -3, -2, 40, 30)
    layers = box(b"dimg", struct.pack(">HH2H", 1, 2, 2, 2))
    put_together(folder / "layers.heic", [(b"iovl", [ispe(90, 60)], overlay), *layer], layers)


class Bits:
    """The bits of a parameter set, read from the first on."""

    def __init__(self, content):
        self.text = "".join(f"{byte:08b}" for byte in content)
        self.at = 0

    def number(self):
        """One that says by zeros how many bits it has."""
        zeros = self.text.index("1", self.at) - self.at
        start, self.at = self.at + zeros, self.at + 2 * zeros + 1
        return int(self.text[start : self.at], 2) - 1


def coded_number(value):
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def escaped(content):
    """With a 3 where a start code would be."""
    out = bytearray()
    for byte in content:
        if out[-2:] == b"\0\0" and byte <= 3:
            out.append(3)
        out.append(byte)
    return bytes(out)


def windowed(unit):
    """A sequence parameter set that leaves of its picture, in 4:2:0, the first 2 x 2 pixels."""
    bits = Bits(unit.replace(b"\0\0\3", b"\0\0"))
    bits.at = 16 + 4 + 3 + 1 + 96
    identity, chroma, width, height = (bits.number() for _ in range(4))
    assert (identity, chroma, width, height) == (0, 1, LARGE, LARGE), "there is one set, without layers"
    start = bits.at
    bits.at += 1
    if bits.text[start] == "1":
        for _ in range(4):
            bits.number()
    window = "1" + coded_number(0) + coded_number(LARGE // 2 - 1) + coded_number(0) + coded_number(LARGE // 2 - 1)
    text = (bits.text[:start] + window + bits.text[bits.at :]).rstrip("0")
    text += "0" * (-len(text) % 8)
    return escaped(bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)))


def with_window(config):
    """An `hvcC` box whose sequence parameter set is changed so."""
    head, rest, units = config[8:30], config[31:], []
    for _ in range(config[30]):
        kind, count, rest = rest[0], int.from_bytes(rest[1:3], "big"), rest[3:]
        assert count == 1
        length = int.from_bytes(rest[:2], "big")
        unit, rest = rest[2 : 2 + length], rest[2 + length :]
        unit = windowed(unit) if kind & 63 == 33 else unit
        units.append(bytes([kind]) + struct.pack(">HH", 1, len(unit)) + unit)
    return box(b"hvcC", head, bytes([len(units)]), *units)


def bounds(folder, flat, large):
    """A picture of one colour, and a grid of 1 x 2 larger ones, of each of which 2 x 2 pixels are seen."""
    folder.mkdir(exist_ok=True)
    size = [ispe(FLAT, FLAT)]
    put_together(folder / "flat.heic", [(b"hvc1", size + flat.properties, flat.data)])
    config = next(own for own in large.properties if own[4:8] == b"hvcC")
    tile = (b"hvc1", [ispe(2, 2), with_window(config)], large.data)
    grid = (b"grid", [ispe(2, 4)], bytes([0, 0, 1, 0]) + struct.pack(">HH", 2, 4))
    put_together(folder / "window.heic", [grid, tile], box(b"dimg", struct.pack(">HHHH", 1, 2, 2, 2)))


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        color = picture(96, 64)
        Image.fromarray(color).save(work / "color.png")
        Image.fromarray(picture(37, 23)).save(work / "odd.png")
        Image.fromarray(color[:, :, 0]).save(work / "gray.png")
        alpha = np.linspace(0, 255, 96).astype("uint8")[None, :, None].repeat(64, axis=0)
        Image.fromarray(np.concatenate([color, alpha], axis=2)).save(work / "alpha.png")
        for name, side in [("flat", FLAT), ("large", LARGE)]:
            Image.fromarray(np.full((side, side, 3), 90, "uint8")).save(work / f"{name}.png")
        (work / "deep.png").write_bytes(deep_png(color.astype("uint16") * 257))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        for name, (source, options) in CASES.items():
            subprocess.run(["heif-enc", work / f"{source}.png", "-o", folder / f"{name}.heic", *options], **quiet)

        def coded(name):
            options = ["-q", "60", "-p", "chroma=420"]
            subprocess.run(["heif-enc", work / f"{name}.png", "-o", work / f"{name}.heic", *options], **quiet)
            return Coded(work / f"{name}.heic")

        Image.fromarray(color).save(work / "whole.png")
        for name, left, top in [("a", 0, 0), ("b", 64, 0), ("c", 0, 64), ("d", 64, 64)]:
            Image.fromarray(picture(128, 128)[top : top + 64, left : left + 64]).save(work / f"{name}.png")
        composed(folder, coded)
        bounds(folder / "bounds", coded("flat"), coded("large"))
        for path in sorted(folder.glob("*.heic")):
            (work / "read.png").unlink(missing_ok=True)
            subprocess.run(["heif-convert", path, work / "read.png"], **quiet)
            read = Image.open(work / "read.png")
            if read.mode.startswith("I"):
                read = Image.fromarray((np.asarray(read) >> 8).astype("uint8"))
            read.convert("RGBA" if path.stem.startswith("alpha") else "RGB").save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
