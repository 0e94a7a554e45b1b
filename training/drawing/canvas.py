"""A picture under construction that remembers where every character and shape was drawn."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_ROOT = Path("/usr/share/fonts/truetype")
FONTS = (
    "dejavu/DejaVuSans.ttf",
    "liberation/LiberationSans-Regular.ttf",
)
TILE = 336

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

SHAPES = ("circle", "square", "triangle", "star")
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "blue": (38, 84, 200),
    "green": (44, 150, 66),
    "yellow": (240, 200, 30),
    "purple": (130, 50, 160),
    "black": (24, 24, 24),
}


@lru_cache(maxsize=512)
def font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """The face at a size in pixels, with plain (not shaped) layout."""
    return ImageFont.truetype(str(FONT_ROOT / face), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass
class Mark:
    """A drawn character or shape: what it is, its line (or -1), and its box in pixels."""

    what: str
    line: int
    box: Box

    @property
    def top(self) -> tuple[int, int]:
        """A shape's topmost point (a square's upper left corner), a little inside."""
        x0, y0, x1, _ = self.box
        if self.what.endswith("square"):
            return round(x0 + 5), round(y0 + 5)
        return round((x0 + x1) / 2), round(y0 + 5)

    @property
    def foot(self) -> tuple[int, int]:
        """A shape's lowest point (a square's lower right corner, else the left one of two), a little inside."""
        x0, _, x1, y1 = self.box
        shape = self.what.split(" ")[-1]
        along = {"circle": 0.5, "square": 1.0, "triangle": 0.0, "star": 0.19}[shape] * (x1 - x0)
        inside = {"square": -5, "triangle": 7, "star": 3}.get(shape, 0)
        return round(x0 + along + inside), round(y1 - 5)


@dataclass
class Canvas:
    """An RGB picture and its marks, in drawing order."""

    image: Image.Image
    marks: list[Mark] = field(default_factory=list)
    lines: int = 0

    @classmethod
    def blank(cls, width: int, height: int, colour: Colour) -> Canvas:
        return cls(Image.new("RGB", (width, height), colour))

    @property
    def draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def text(self, xy: tuple[float, float], text: str, face: ImageFont.FreeTypeFont, colour: Colour) -> int:
        """Draws one line with its left ascender corner at `xy`; returns its line number."""
        x, y = round(xy[0]), round(xy[1])
        self.draw.text((x, y), text, font=face, fill=colour)
        ascent, descent = face.getmetrics()
        edges = [x + face.getlength(text[:i]) for i in range(len(text) + 1)]
        top, bottom = y + 0.18 * ascent, y + ascent + 0.6 * descent
        for i, char in enumerate(text):
            self.marks.append(Mark(char, self.lines, (edges[i], top, edges[i + 1], bottom)))
        self.lines += 1
        return self.lines - 1

    def slanted(self, end: tuple[float, float], text: str, face: ImageFont.FreeTypeFont, colour: Colour, degrees: float) -> int:
        """Draws one line that rises by so many degrees and ends at `end`; returns its line number."""
        long, (ascent, descent) = face.getlength(text), face.getmetrics()
        mask = Image.new("L", (math.ceil(long) + 2, ascent + descent))
        ImageDraw.Draw(mask).text((1, 0), text, font=face, fill=255)
        mask = mask.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
        dx, dy = math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        x, y = end[0] - dx * long / 2, end[1] - dy * long / 2  # the middle
        self.image.paste(colour, (round(x - mask.width / 2), round(y - mask.height / 2)), mask)
        high = ascent + descent
        for i, char in enumerate(text):
            left, right = (face.getlength(text[: i + n]) - long / 2 for n in (0, 1))
            cx, cy, half = x + dx * (left + right) / 2, y + dy * (left + right) / 2, max(right - left, 2) / 2
            self.marks.append(Mark(char, self.lines, (cx - half, cy - 0.4 * high, cx + half, cy + 0.4 * high)))
        self.lines += 1
        return self.lines - 1

    def shape(self, what: str, colour: str, centre: tuple[float, float], size: float, fill: Colour) -> None:
        """Draws a filled shape of diameter `size`."""
        points = outline(what, centre, size)
        if what == "circle":
            (x, y), r = centre, size / 2
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        else:
            self.draw.polygon(points, fill=fill)
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        self.marks.append(Mark(f"{colour} {what}", -1, (min(xs), min(ys), max(xs), max(ys))))


def outline(what: str, centre: tuple[float, float], size: float) -> list[tuple[float, float]]:
    """The corner points of a shape around its centre."""
    (x, y), r = centre, size / 2
    if what in ("circle", "square"):
        r = r if what == "circle" else r * 0.88
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    if what == "triangle":
        return [(x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)]
    tips = [(r if i % 2 == 0 else 0.42 * r, math.pi * (i / 5 - 0.5)) for i in range(10)]
    return [(x + d * math.cos(a), y + d * math.sin(a)) for d, a in tips]


def jitter(rng: random.Random, colour: Colour, amount: int = 14) -> Colour:
    """The colour, each channel moved by at most `amount`."""
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in colour)  # type: ignore[return-value]


def luminance(colour: Colour) -> float:
    """Perceived brightness, 0..255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def palette(rng: random.Random) -> tuple[Colour, Colour]:
    """A background and a text colour that stand clear of each other."""
    while True:
        kind = rng.random()
        back = (255, 255, 255) if kind < 0.3 else tuple(rng.randint(0, 255) for _ in range(3))
        ink = (0, 0, 0) if kind < 0.2 else tuple(rng.randint(0, 255) for _ in range(3))
        if rng.random() < 0.3:
            ink = (255, 255, 255) if luminance(back) < 128 else (10, 10, 10)
        if abs(luminance(back) - luminance(ink)) > 90:
            return back, ink  # type: ignore[return-value]


def ink_on(rng: random.Random, back: Colour) -> Colour:
    """A text colour that stands clear of a given background."""
    if rng.random() < 0.5:
        return (255, 255, 255) if luminance(back) < 128 else (10, 10, 10)
    while True:
        ink = tuple(rng.randint(0, 255) for _ in range(3))
        if abs(luminance(back) - luminance(ink)) > 90:
            return ink  # type: ignore[return-value]


def to_tile(canvas: Canvas, side: int = TILE) -> tuple[np.ndarray, list[Mark]]:
    """The HD transform to a square: the 336x336 tile of one crop (672 for four) and the marks moved with it.

    The longer side becomes `side`, the shorter one is padded with white on both sides; portrait
    pictures are transposed first and back at the end, as the reference does.
    """
    image = canvas.image
    upright = image.width < image.height
    if upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    height = int(side / (image.width / image.height))
    small = image.resize((side, height), Image.Resampling.BILINEAR)
    top = int((side - height) / 2)
    tile = np.full((side, side, 3), 255, np.uint8)
    tile[top : top + height] = np.asarray(small)
    sx, sy = side / image.width, height / image.height
    if upright:
        tile = np.ascontiguousarray(tile.transpose(1, 0, 2))
    moved = [Mark(m.what, m.line, _move(m.box, sx, sy, top, upright)) for m in canvas.marks]
    return tile, moved


def _move(box: Box, sx: float, sy: float, top: int, upright: bool) -> Box:
    """A box of the picture in tile pixels; `sx`, `top` belong to the transposed axes if upright."""
    x0, y0, x1, y1 = box
    if upright:
        return (x0 * sy + top, y0 * sx, x1 * sy + top, y1 * sx)
    return (x0 * sx, y0 * sy + top, x1 * sx, y1 * sy + top)
