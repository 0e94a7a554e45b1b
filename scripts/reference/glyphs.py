"""Make testdata/glyphs: the letters and digits that tests write pictures with.

    pip install pillow==10.3.0         (and Debian's fonts-dejavu-core, whose licence permits it)
    python scripts/reference/glyphs.py testdata/glyphs

Writes glyphs.png, a row of cells with one black glyph each on white, and glyphs.json: the characters in their order, the
width of a cell and how far each glyph moves on.
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FACE = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SIZE, CELL = 34, 40


def main(out: Path) -> None:
    face = ImageFont.truetype(FACE, SIZE)
    height = sum(face.getmetrics())
    sheet = Image.new("L", (CELL * len(CHARACTERS), height), 255)
    draw = ImageDraw.Draw(sheet)
    for index, character in enumerate(CHARACTERS):
        # two pixels for what stands out to the left
        draw.text((index * CELL + 2, 0), character, 0, face)
    out.mkdir(parents=True, exist_ok=True)
    # few shades of grey are enough for letters, and make a small file
    sheet.quantize(8).save(out / "glyphs.png", optimize=True)
    widths = [round(face.getlength(character)) for character in CHARACTERS]
    told = {"characters": CHARACTERS, "cell": CELL, "widths": widths}
    (out / "glyphs.json").write_text(json.dumps(told) + "\n")


main(Path(sys.argv[1]))
