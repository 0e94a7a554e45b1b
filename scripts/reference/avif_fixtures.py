"""Small AVIF files for the tests, and what libavif reads from them.

    apt-get install libavif-bin          # 0.11.1, with aom and dav1d
    pip install numpy==2.1.3 pillow==10.3.0
    python scripts/reference/avif_fixtures.py testdata/avif

Each NAME.avif is a made-up picture coded by avifenc, NAME.png what `avifdec -d 8` makes of it. avifdec neither turns,
mirrors nor crops, so that this is done here, as ISO/IEC 23008-12 says. Where tiles meet it blends colours that pixels share,
so that grids have colours of their own for each pixel.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

COARSE = ["--min", "20", "--max", "40"]
CASES = {
    "color_420": ("color", ["-y", "420"]),
    "color_422": ("color", ["-y", "422"]),
    "color_444": ("color", ["-y", "444"]),
    "gray": ("gray", ["-y", "400"]),
    "odd": ("odd", ["-y", "420"]),
    "odd_422": ("odd", ["-y", "422"]),
    "odd_ten_bits": ("odd", ["-y", "420", "-d", "10"]),
    "line": ("line", ["-y", "420"]),
    "lossless": ("small", ["-l"]),
    "ten_bits": ("color", ["-y", "444", "-d", "10"]),
    "ten_bits_420": ("color", ["-y", "420", "-d", "10"]),
    "twelve_bits_422": ("color", ["-y", "422", "-d", "12"]),
    "narrow": ("color", ["-y", "420", "-r", "limited"]),
    "narrow_gray": ("gray", ["-y", "400", "-d", "10", "-r", "limited"]),
    "narrow_ten_bits": ("color", ["-y", "420", "-d", "10", "-r", "limited", "--cicp", "9/16/9"]),
    "bt709": ("color", ["-y", "420", "--cicp", "1/13/1"]),
    "bt2020": ("color", ["-y", "444", "--cicp", "9/14/9"]),
    "primaries": ("color", ["-y", "444", "--cicp", "12/13/12"]),
    "ycgco": ("color", ["-y", "444", "--cicp", "1/13/8"]),
    "alpha": ("alpha", ["-y", "444"]),
    "alpha_420": ("alpha", ["-y", "420", "-d", "10"]),
    "premultiplied": ("alpha", ["-y", "444", "-p"]),
    "grain": ("color", ["-y", "420", "-a", "film-grain-test=2"]),
    "grid": ("large", ["-y", "444", "-g", "2x2"]),
    "grid_alpha": ("large_alpha", ["-y", "444", "-g", "1x2"]),
    "turned": ("color", ["-y", "420", "--irot", "3"]),
    "mirrored": ("color", ["-y", "420", "--imir", "1", "--irot", "2"]),
    "cropped": ("color", ["-y", "420", "--crop", "6,10,44,22"]),
    "all_three": ("color", ["-y", "444", "--crop", "4,2,50,41", "--irot", "1", "--imir", "0"]),
}


def picture(width, height):
    y, x = np.mgrid[:height, :width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    blue = np.where((x // 8 + y // 8) % 2, 220, 40)
    return np.stack([red, green, blue], axis=-1).astype("uint8")


def with_alpha(pixels):
    height, width, _ = pixels.shape
    alpha = np.linspace(0, 255, width).astype("uint8")[None, :, None].repeat(height, axis=0)
    return np.concatenate([pixels, alpha], axis=2)


def run(*command):
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def seen(pixels, options):
    """Cropped, turned against the clock and mirrored, in this order, as avifenc writes it."""
    given = dict(zip(options[::2], options[1::2]))
    if "--crop" in given:
        left, top, width, height = map(int, given["--crop"].split(","))
        pixels = pixels[top : top + height, left : left + width]
    pixels = np.rot90(pixels, int(given.get("--irot", 0)))
    match given.get("--imir"):
        case "0":
            pixels = pixels[::-1]
        case "1":
            pixels = pixels[:, ::-1]
    return pixels


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        color = picture(64, 48)
        sources = {
            "color": color,
            "small": picture(24, 16),
            "gray": color[:, :, 0],
            "odd": picture(37, 23),
            "line": picture(32, 1),
            "large": picture(128, 128),
            "alpha": with_alpha(color),
            "large_alpha": with_alpha(picture(64, 128)),
        }
        for name, pixels in sources.items():
            Image.fromarray(pixels).save(work / f"{name}.png")
        for name, (source, options) in CASES.items():
            quality = [] if "-l" in options else COARSE
            run("avifenc", "-s", "4", *quality, *options, work / f"{source}.png", folder / f"{name}.avif")
        first, second = work / "small.png", work / "second.png"
        Image.fromarray(sources["small"][::-1]).save(second)
        run("avifenc", "-s", "4", *COARSE, "-y", "420", first, second, folder / "sequence.avif")
        # what its samples mean is told by the coded picture alone
        told = (folder / "bt709.avif").read_bytes()
        (folder / "untold.avif").write_bytes(told.replace(b"colrnclx", b"skipnclx"))
        for path in sorted(folder.glob("*.avif")):
            run("avifdec", "-d", "8", path, work / "read.png")
            pixels = np.asarray(Image.open(work / "read.png"))
            options = CASES.get(path.stem, ("", []))[1]
            Image.fromarray(np.ascontiguousarray(seen(pixels, options))).save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
