"""What a drawn example is, and what all tasks lay out alike: faces that fit, blocks of lines, plain grounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from drawing.canvas import FONTS, TILE, Canvas, Colour, font, palette
from drawing.questions import varied


@dataclass
class Pointer:
    """Where a stretch of the answer is read from: marks of one picture, one per character or all; or their number."""

    image: int
    marks: list[int]
    count: bool = False


@dataclass
class Example:
    """A prompt and its answer; `parts` are the answer's stretches, copied ones with a pointer.

    Where the answer compares, `alike` has the places in it of what is compared (first, second, whether
    they are equal) and the verdict starts at `verdict`. `system` stands before a conversation whose earlier turns
    are `earlier`; the pointers count from the turn's own first picture, or from the one `back` pictures before.
    """

    task: str
    canvases: list[Canvas]
    question: str
    parts: list[tuple[str, Pointer | None]]
    facts: dict[str, object] = field(default_factory=dict)
    alike: list[tuple[int, int, bool]] = field(default_factory=list)
    verdict: int = -1
    system: str = ""
    earlier: list[Example] = field(default_factory=list)
    back: int = 0

    @property
    def turns(self) -> list[Example]:
        """All turns, this one last."""
        return [*self.earlier, self]

    @property
    def answer(self) -> str:
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True)
class Look:
    """How far a task's pictures may stray from the plain ones.

    `face` draws a face; `grow` a factor of all sizes; no letters are made smaller than `least` pixels of the tile to fit; `ground` may change a fresh
    canvas, given its text colour.
    """

    face: Callable[[random.Random], str] = lambda rng: rng.choice(FONTS)
    grow: Callable[[random.Random], float] = lambda rng: 1.0
    least: float = 18
    ground: Callable[[random.Random, Canvas, Colour], None] = lambda rng, canvas, ink: None


PLAIN = Look()


def line_marks(canvas: Canvas, line: int) -> list[int]:
    """The mark numbers of a drawn line."""
    return [i for i, m in enumerate(canvas.marks) if m.line == line]


def legible(canvas: Canvas) -> bool:
    """Whether all marks lie in the picture and those of different lines apart."""
    if not canvas.marks:
        return True
    boxes, lines = np.array([m.box for m in canvas.marks]), np.array([m.line for m in canvas.marks])
    if (boxes[:, :2] < 0).any() or (boxes[:, 2:] > canvas.image.size).any():
        return False
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * 0.36  # boxes are somewhat larger than letters
    near = (abs(middle[:, None] - middle) < half[:, None] + half).all(-1)
    return not (near & (lines[:, None] != lines)).any()


def ask(rng: random.Random, questions: tuple[str, ...]) -> str:
    """The cookbook's question a third of the time, else any of its paraphrases."""
    return questions[0] if rng.random() < 0.35 else varied(rng, rng.choice(questions))


def scale_of(canvas: Canvas) -> float:
    """Picture pixels for one tile pixel."""
    return max(canvas.image.size) / TILE


def fitted(rng: random.Random, lines: list[str], wide: float, sizes: tuple[float, float], zoom: float, look: Look = PLAIN):
    """A face in a random size (tile pixels) of the range, made smaller until all lines fit `wide`."""
    face = look.face(rng)
    size = rng.uniform(*sizes) * zoom * look.grow(rng)
    while max(font(face, round(size)).getlength(t) for t in lines) > wide and size > look.least * zoom:
        size *= 0.94
    return font(face, round(size))


def draw_block(
    rng: random.Random, canvas: Canvas, lines: list[str], top: float, face, ink: Colour, align: str
) -> list[int]:
    """Draws lines below each other from `top`; returns the marks in reading order, one per character."""
    wide = canvas.image.width
    margin = rng.uniform(0.05, 0.1) * wide
    step = (sum(face.getmetrics())) * rng.uniform(1.0, 1.25)
    marks: list[int] = []
    for i, text in enumerate(lines):
        free = wide - face.getlength(text)
        x = {"left": min(margin, free / 2), "centre": free / 2, "right": max(free - margin, free / 2)}[align]
        line = canvas.text((max(x, 2), top + i * step), text, face, ink)
        marks += line_marks(canvas, line)
    return marks


def wrap(rng: random.Random, words: list[str], most: int) -> list[str]:
    """Words set into lines: new line now and then and whenever a line would pass `most` letters."""
    lines = [words[0]]
    for w in words[1:]:
        if len(lines[-1]) + 1 + len(w) > most or rng.random() < 0.45:
            lines.append(w)
        else:
            lines[-1] += " " + w
    return lines


def joined(lines: list[str], marks: list[int], glue: str) -> tuple[str, list[int]]:
    """Lines joined by one glue character; the glue points at the character that follows it."""
    out, at = [], 0
    for i, text in enumerate(lines):
        if i:
            out.append(marks[at])
        out += marks[at : at + len(text)]
        at += len(text)
    return glue.join(lines), out


def backdrop(rng: random.Random, width: int, height: int, look: Look = PLAIN) -> tuple[Canvas, Colour]:
    """A plain canvas, sometimes with a frame; and its text colour."""
    back, ink = palette(rng)
    canvas = Canvas.blank(width, height, back)
    look.ground(rng, canvas, ink)
    if rng.random() < 0.3:
        inset = round(rng.uniform(0.01, 0.03) * width)
        box = (inset, inset, width - inset, height - inset)
        canvas.draw.rectangle(box, outline=ink, width=rng.randint(1, 4))
    return canvas, ink
