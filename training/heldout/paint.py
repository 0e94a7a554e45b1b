"""Pictures drawn by cairo: faces by their families, text, shapes, and what a camera or a file format does to a picture."""

from __future__ import annotations

import io
import math
import random
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cairocffi as cairo
import numpy as np
from PIL import Image

Colour = tuple[float, float, float]  # each 0 to 1
TILE = 336  # pixels that the longer side of a picture has in the model's view


@dataclass(frozen=True)
class Face:
    """A face by its family, and the Debian package that has it."""

    family: str
    package: str
    bold: bool = False
    italic: bool = False

    @property
    def name(self) -> str:
        """The family and its style."""
        return self.family + " bold" * self.bold + " italic" * self.italic


_URW, _LM = "fonts-urw-base35", "fonts-lmodern"
# Training has none of these families
FACES = (
    Face("Nimbus Sans", _URW), Face("Nimbus Sans", _URW, bold=True), Face("Nimbus Sans", _URW, italic=True), Face("Nimbus Sans Narrow", _URW),
    Face("Nimbus Roman", _URW), Face("Nimbus Roman", _URW, bold=True), Face("C059", _URW, italic=True), Face("P052", _URW),
    Face("URW Bookman", _URW), Face("URW Gothic", _URW), Face("Nimbus Mono PS", _URW), Face("Nimbus Mono PS", _URW, bold=True),
    Face("Latin Modern Roman", _LM), Face("Latin Modern Sans", _LM), Face("EB Garamond", "fonts-ebgaramond"),
    Face("Cantarell", "fonts-cantarell"), Face("Cantarell", "fonts-cantarell", bold=True), Face("Carlito", "fonts-crosextra-carlito"),
    Face("Caladea", "fonts-crosextra-caladea", bold=True), Face("Hack", "fonts-hack"),
)
PLAIN = tuple(f for f in FACES if f.family in ("Nimbus Sans", "Cantarell", "Carlito", "Latin Modern Sans") and not (f.bold or f.italic))
MONO = tuple(f for f in FACES if f.family in ("Nimbus Mono PS", "Hack"))


@lru_cache(maxsize=1)
def check_faces() -> None:
    """Raises unless all families are installed: fontconfig would quietly take others."""
    listed = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True, check=True).stdout
    families = {name.strip() for row in listed.splitlines() for name in row.split(",")}
    missing = sorted({f.package for f in FACES if f.family not in families})
    if missing:
        raise RuntimeError(f"faces of the held-out cases are missing: apt-get install {' '.join(missing)}")


class Sheet:
    """A picture being drawn."""

    def __init__(self, width: int, height: int, back: Colour) -> None:
        check_faces()
        self.width, self.height, self.back = width, height, back
        self.surface = cairo.ImageSurface(cairo.FORMAT_RGB24, width, height)
        self.pen = cairo.Context(self.surface)
        options = cairo.FontOptions()
        options.set_antialias(cairo.ANTIALIAS_GRAY)
        options.set_hint_style(cairo.HINT_STYLE_SLIGHT)
        self.pen.set_font_options(options)
        self.pen.set_source_rgb(*back)
        self.pen.paint()

    @property
    def zoom(self) -> float:
        """Pixels of the picture for one of the tile."""
        return max(self.width, self.height) / TILE

    def face(self, face: Face, size: float) -> None:
        """Sets the face, at a size of so many pixels of the picture."""
        slant = cairo.FONT_SLANT_ITALIC if face.italic else cairo.FONT_SLANT_NORMAL
        self.pen.select_font_face(face.family, slant, cairo.FONT_WEIGHT_BOLD if face.bold else cairo.FONT_WEIGHT_NORMAL)
        self.pen.set_font_size(size)

    def wide(self, text: str) -> float:
        """The width of a line in the face that is set."""
        return self.pen.text_extents(text)[4]

    def fitting(self, lines: list[str], face: Face, size: float, room: float) -> float:
        """Sets the face as large as `size` (pixels of the tile) and the room allow; returns the pixels of a line."""
        self.face(face, size * self.zoom)
        widest = max(self.wide(line) for line in lines)
        self.face(face, size * self.zoom * min(1.0, room / widest))
        return self.pen.font_extents()[2]

    def write(self, text: str, x: float, y: float, ink: Colour, align: float = 0.0) -> None:
        """Writes a line on the base line `y`; `align` is the share of its width that stands left of `x`."""
        self.pen.set_source_rgb(*ink)
        self.pen.move_to(x - align * self.wide(text), y)
        self.pen.show_text(text)

    def box(self, x: float, y: float, wide: float, high: float, fill: Colour, round_: float = 0.0) -> None:
        """A filled box, its corners round."""
        pen = self.pen
        pen.new_sub_path()
        for at, (cx, cy) in enumerate(((x + wide, y), (x + wide, y + high), (x, y + high), (x, y))):
            dx, dy = (-round_ if at < 2 else round_), (round_ if at in (0, 3) else -round_)
            pen.arc(cx + dx, cy + dy, round_, (at - 1) * math.pi / 2, at * math.pi / 2)
        pen.close_path()
        pen.set_source_rgb(*fill)
        pen.fill()

    def shade(self, first: Colour, last: Colour) -> None:
        """Fills the whole picture with a slanted gradient."""
        run = cairo.LinearGradient(0, 0, self.width * 0.6, self.height)
        run.add_color_stop_rgb(0, *first)
        run.add_color_stop_rgb(1, *last)
        self.pen.set_source(run)
        self.pen.paint()

    def pixels(self) -> np.ndarray:
        """RGB u8 [height, width, 3]."""
        self.surface.flush()
        raw = np.frombuffer(self.surface.get_data(), np.uint8).reshape(self.height, -1, 4)
        return raw[:, : self.width, 2::-1].copy()


def turned(pixels: np.ndarray, degrees: float, back: Colour) -> np.ndarray:
    """The picture turned about its middle, on its own background."""
    fill = tuple(round(255 * c) for c in back)
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill))


def photographed(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    """The picture with a shadow across it, the grain of a sensor and the artefacts of JPEG."""
    high, wide, _ = pixels.shape
    x, y = np.meshgrid(np.linspace(-1, 1, wide), np.linspace(-1, 1, high))
    angle = rng.uniform(0, 2 * math.pi)
    light = 1 - rng.uniform(0.05, 0.3) / (1 + np.exp(-6 * (x * math.cos(angle) + y * math.sin(angle) - rng.uniform(-0.5, 0.5))))
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(1, 6), pixels.shape)
    seen = (pixels * light[..., None] + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(seen).save(file, "JPEG", quality=rng.randint(45, 85))
    return np.asarray(Image.open(file))


def save(pixels: np.ndarray, path: Path) -> None:
    """Writes a PNG file."""
    Image.fromarray(pixels).save(path)


def bright(colour: Colour) -> float:
    """Perceived brightness, 0 to 1."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def two_colours(rng: random.Random, plain: bool) -> tuple[Colour, Colour]:
    """Paper and ink; `plain` ones are black on white or the like."""
    if plain:
        paper = rng.choice(((1.0, 1.0, 1.0), (0.97, 0.95, 0.9), (0.9, 0.94, 0.98)))
        return paper, rng.choice(((0.0, 0.0, 0.0), (0.1, 0.12, 0.3), (0.35, 0.05, 0.08)))
    while True:
        paper, ink = (tuple(rng.random() for _ in range(3)) for _ in range(2))
        if abs(bright(paper) - bright(ink)) > 0.4:
            return paper, ink  # type: ignore[return-value]
