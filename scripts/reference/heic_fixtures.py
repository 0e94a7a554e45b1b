"""Small HEIC files for the tests, and what libheif reads from them.

    apt-get install libheif-examples     # 1.15.1, with x265
    pip install numpy==2.1.3 pillow==10.3.0
    python scripts/reference/heic_fixtures.py testdata/heic

Each NAME.heic is a made-up picture coded by heif-enc, NAME.png what heif-convert makes of it.
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
}


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
        (work / "deep.png").write_bytes(deep_png(color.astype("uint16") * 257))
        for name, (source, options) in CASES.items():
            coded = folder / f"{name}.heic"
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
            subprocess.run(["heif-enc", work / f"{source}.png", "-o", coded, *options], **quiet)
            subprocess.run(["heif-convert", coded, work / "read.png"], **quiet)
            read = Image.open(work / "read.png")
            if read.mode.startswith("I"):
                read = Image.fromarray((np.asarray(read) >> 8).astype("uint8"))
            read.convert("RGBA" if name == "alpha" else "RGB").save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
