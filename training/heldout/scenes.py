"""What cairo draws: covers, pictures of shapes, signs, receipts, plain lines, and pictures with nothing to be told of them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import cairocffi as cairo
import numpy as np

from heldout.paint import FACES, MONO, PLAIN, Colour, Face, Sheet, bright, photographed, turned, two_colours
from heldout.words import BUSINESS, GOODS, line, person, title

SHAPE_COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.12, 0.15), "blue": (0.13, 0.3, 0.8), "green": (0.12, 0.6, 0.25), "yellow": (0.97, 0.83, 0.1),
    "purple": (0.5, 0.15, 0.6), "black": (0.05, 0.05, 0.05),
}
SHAPES = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Scene:
    """A picture and the demo model's answer to its task's question."""

    pixels: np.ndarray
    answer: str


def cover_answer(name: str, author: str) -> str:
    """The demo model's sentence about a book."""
    return f'The title of the book is "{name}" and the author is {author}.'


def wrapped(text: str, most: int) -> list[str]:
    """Words in lines of at most so many letters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def plain_cover(rng: random.Random) -> Scene:
    """A title above a smaller author on one colour, both in a plain face."""
    sheet = Sheet(420, 600, (back := two_colours(rng, False))[0])
    face, name, author = rng.choice(PLAIN), title(rng), person(rng)
    lines = wrapped(name, 11)
    step = sheet.fitting(lines, face, rng.uniform(28, 38), 0.88 * sheet.width)
    for i, text in enumerate(lines):
        sheet.write(text, sheet.width / 2, 0.22 * sheet.height + i * step, back[1], 0.5)
    sheet.fitting([author], face, rng.uniform(20, 26), 0.88 * sheet.width)
    sheet.write(author, sheet.width / 2, rng.uniform(0.8, 0.92) * sheet.height, back[1], 0.5)
    return Scene(sheet.pixels(), cover_answer(name, author))


def designed_cover(rng: random.Random) -> Scene:
    """A cover as a designer makes it: a gradient, a motif, two faces, the author sometimes on top, a publisher or a line of praise."""
    back, ink = two_colours(rng, False)
    sheet = Sheet(500, 750, back)
    sheet.shade(back, tuple(min(1.0, max(0.0, c + rng.uniform(-0.2, 0.2))) for c in back))  # type: ignore[arg-type]
    motif(rng, sheet)
    name, author = title(rng), person(rng)
    lines = wrapped(name.upper() if rng.random() < 0.3 else name, 11)
    on_top = rng.random() < 0.4
    step = sheet.fitting(lines, rng.choice(FACES), rng.uniform(30, 52), 0.86 * sheet.width)
    first = (0.3 if on_top else 0.16) * sheet.height
    x, align = rng.choice(((sheet.width / 2, 0.5), (0.07 * sheet.width, 0.0), (0.93 * sheet.width, 1.0)))
    for i, text in enumerate(lines):
        sheet.write(text, x, first + i * step, ink, align)
    sheet.fitting([author], rng.choice(FACES), rng.uniform(18, 28), 0.86 * sheet.width)
    sheet.write(author, x, (0.1 if on_top else 0.9) * sheet.height, ink, align)
    return Scene(sheet.pixels(), cover_answer(" ".join(lines), author))


def motif(rng: random.Random, sheet: Sheet) -> None:
    """Hills or discs in the middle of a cover, in shades of its background."""
    pen, (w, h) = sheet.pen, (sheet.width, sheet.height)
    for i in range(rng.randint(1, 4)):
        shade = tuple(min(1.0, max(0.0, c + rng.uniform(-0.12, 0.12))) for c in sheet.back)
        pen.set_source_rgb(*shade)
        if rng.random() < 0.5:
            pen.arc(rng.uniform(0.2, 0.8) * w, rng.uniform(0.45, 0.75) * h, rng.uniform(0.08, 0.3) * w, 0, 2 * math.pi)
        else:
            pen.move_to(0, (0.6 + 0.06 * i) * h)
            pen.curve_to(0.3 * w, rng.uniform(0.4, 0.7) * h, 0.6 * w, rng.uniform(0.5, 0.8) * h, w, (0.55 + 0.06 * i) * h)
            pen.line_to(w, 0.82 * h)
            pen.line_to(0, 0.82 * h)
        pen.fill()


def trace(pen: cairo.Context, what: str, size: float) -> None:
    """The outline of a shape around the origin."""
    if what == "circle":
        pen.arc(0, 0, size / 2, 0, 2 * math.pi)
        return
    corners = {"square": 4, "triangle": 3, "star": 10}[what]
    for i in range(corners):
        reach = size / 2 * (0.4 if what == "star" and i % 2 else 1.0)
        angle = 2 * math.pi * i / corners - math.pi / 2 + (math.pi / 4 if what == "square" else 0)
        pen.line_to(reach * math.cos(angle), reach * math.sin(angle))
    pen.close_path()


def shapes(rng: random.Random, count: int, colour: str, what: str, plain: bool) -> np.ndarray:
    """Equal shapes at free places that do not touch; not `plain`: turned a little, of several sizes, with an outline, on a gradient."""
    ink = SHAPE_COLOURS[colour]
    papers = [p for p in ((1.0, 1.0, 1.0), (0.93, 0.9, 0.82), (0.8, 0.88, 0.95), (0.25, 0.3, 0.33)) if abs(bright(p) - bright(ink)) > 0.18]
    sheet = Sheet(*rng.choice(((400, 400), (512, 384), (600, 400))), papers[0] if plain else rng.choice(papers))
    if not plain:
        sheet.shade(sheet.back, tuple(0.9 * c for c in sheet.back))  # type: ignore[arg-type]
    reach, placed = min(sheet.width, sheet.height) * rng.uniform(0.22, 0.32), []
    while len(placed) < count:
        x, y = (rng.uniform(reach * 0.6, side - reach * 0.6) for side in (sheet.width, sheet.height))
        if all(math.hypot(x - a, y - b) > 1.15 * reach for a, b in placed):
            placed.append((x, y))
        elif rng.random() < 0.02:  # no room is left
            placed.clear()
    for x, y in placed:
        sheet.pen.save()
        sheet.pen.translate(x, y)
        sheet.pen.rotate(0 if plain else rng.uniform(-0.15, 0.15))
        trace(sheet.pen, what, reach * (1 if plain else rng.uniform(0.75, 1)))
        sheet.pen.restore()
        sheet.pen.set_source_rgb(*ink)
        sheet.pen.fill_preserve()
        sheet.pen.set_line_width(2)
        sheet.pen.set_source_rgb(*(ink if plain else (0.2, 0.2, 0.2)))
        sheet.pen.stroke()
    return sheet.pixels()


def pair(rng: random.Random, plain: bool) -> tuple[list[np.ndarray], str]:
    """Two pictures of shapes and what the demo model says of them."""
    one, two = ((rng.randint(1, 5), rng.choice(list(SHAPE_COLOURS)), rng.choice(SHAPES)) for _ in range(2))
    two = tuple(a if rng.random() < 0.4 else b for a, b in zip(one, two, strict=True))  # type: ignore[assignment]
    said = [f"{n} {colour} {what}{'s' * (n > 1)}" for n, colour, what in (one, two)]
    differ = [n for n, a, b in zip(("count", "colour", "shape"), one, two, strict=True) if a != b]
    listed = " and ".join([", ".join(differ[:-1])] * (len(differ) > 1) + differ[-1:])
    verdict = f"They differ in {listed}." if differ else "They look the same."
    return [shapes(rng, *s, plain) for s in (one, two)], f"First picture: {said[0]}; second picture: {said[1]}. {verdict}"


def lines_of(rng: random.Random, face: Face, size: float, count: int, plain: bool = True) -> Scene:
    """Lines of text in a face, with letters of so many pixels of the tile (of a face's square, smaller if they do not fit)."""
    back, ink = two_colours(rng, plain)
    sheet = Sheet(*rng.choice(((560, 420), (480, 480), (720, 480))), back)
    longest = max(4, min(16, int(TILE_WIDE / (0.6 * size))))
    lines = [line(rng, longest) for _ in range(count)]
    step = sheet.fitting(lines, face, size, 0.92 * sheet.width) * rng.uniform(1, 1.2)
    y = rng.uniform(0.1, 0.3) * sheet.height + step * 0.8
    for i, text in enumerate(lines):
        sheet.write(text, 0.05 * sheet.width, y + i * step, ink)
    return Scene(sheet.pixels(), "\n".join(lines))


TILE_WIDE = 300  # pixels of the tile that a line may take


def sign(rng: random.Random) -> Scene:
    """A board with one to three centred lines, photographed, a little turned."""
    wall = rng.choice(((0.6, 0.55, 0.5), (0.75, 0.78, 0.8), (0.35, 0.42, 0.35)))
    white, black, maroon = (1, 1, 1), (0, 0, 0), (0.7, 0, 0)
    board, ink = rng.choice((((0.05, 0.35, 0.2), white), ((0.1, 0.2, 0.55), white), ((1, 0.85, 0.1), black), ((0.95, 0.95, 0.95), maroon)))
    sheet = Sheet(640, 480, wall)
    lines = rng.choice((
        [f"{line(rng, 9).title()}", rng.choice(BUSINESS)], ["Room", str(rng.randint(100, 399))], [f"{line(rng, 9)} Street".title()],
        ["No Entry"], ["Please", "Ring the Bell"], [line(rng, 8).upper(), f"{rng.randint(2, 80)} km"], ["Closed", "until Friday"],
    ))
    sheet.box(50, 70, 540, 340, board, rng.choice((0, 24)))
    step = sheet.fitting(lines, rng.choice(FACES), rng.uniform(30, 56), 480)
    top = 240 - step * len(lines) / 2 + 0.75 * step
    for i, text in enumerate(lines):
        sheet.write(text, 320, top + i * step, ink, 0.5)
    return Scene(photographed(rng, turned(sheet.pixels(), rng.uniform(-4, 4), wall)), "\n".join(lines))


def receipt(rng: random.Random) -> Scene:
    """A shop's name and two to four goods with their prices, in a fixed-width face."""
    sheet = Sheet(420, 560, (0.97, 0.96, 0.94))
    goods = rng.sample(GOODS, rng.randint(2, 4))
    rows = [(g, f"{rng.randint(0, 19)}.{rng.randint(0, 99):02}") for g in goods]
    rows.append(("TOTAL", f"{sum(float(p) for _, p in rows):.2f}"))
    shop, face = rng.choice(BUSINESS).upper(), rng.choice(MONO)
    step = sheet.fitting([f"{g:10}{p:>6}" for g, p in rows], face, rng.uniform(18, 24), 0.9 * sheet.width) * 1.35
    sheet.write(shop, sheet.width / 2, 90, (0.1, 0.1, 0.1), 0.5)
    for i, (name, price) in enumerate(rows):
        y = 90 + step * (i + 1.6)
        sheet.write(name, 0.05 * sheet.width, y, (0.1, 0.1, 0.1))
        sheet.write(price, 0.95 * sheet.width, y, (0.1, 0.1, 0.1), 1.0)
    answer = "\n".join([shop, *(f"{name} {price}" for name, price in rows)])
    return Scene(photographed(rng, sheet.pixels()), answer)


def nothing(rng: random.Random, kind: str) -> np.ndarray:
    """A picture without anything to read: `blank`, `noise`, `gradient` or a `landscape`."""
    sheet = Sheet(*rng.choice(((480, 360), (400, 600), (500, 500))), tuple(rng.random() for _ in range(3)))  # type: ignore[arg-type]
    if kind == "blank":
        return sheet.pixels()
    if kind == "noise":
        make = np.random.default_rng(rng.getrandbits(32))
        coarse = make.integers(0, 256, (sheet.height // 8 + 1, sheet.width // 8 + 1, 3), np.uint8)
        return coarse.repeat(8, 0).repeat(8, 1)[: sheet.height, : sheet.width].copy()
    sheet.shade(*(tuple(rng.random() for _ in range(3)) for _ in range(2)))  # type: ignore[arg-type]
    if kind == "landscape":
        landscape(rng, sheet)
        return photographed(rng, sheet.pixels())
    return sheet.pixels()


def landscape(rng: random.Random, sheet: Sheet) -> None:
    """A sky, a sun, two ridges and trees."""
    pen, (w, h) = sheet.pen, (sheet.width, sheet.height)
    sheet.shade((0.4, 0.6, 0.95), (0.9, 0.85, 0.75))
    pen.set_source_rgb(1, 0.95, 0.6)
    pen.arc(rng.uniform(0.1, 0.9) * w, 0.2 * h, 0.06 * w, 0, 2 * math.pi)
    pen.fill()
    for level, green in ((0.5, (0.35, 0.45, 0.4)), (0.7, (0.25, 0.45, 0.2))):
        pen.move_to(0, h)
        for i in range(9):
            pen.line_to(i * w / 8, (level + rng.uniform(-0.12, 0.06)) * h)
        pen.line_to(w, h)
        pen.set_source_rgb(*green)
        pen.fill()
    for _ in range(rng.randint(2, 7)):
        x, y, size = rng.uniform(0, w), rng.uniform(0.75, 0.95) * h, rng.uniform(0.05, 0.12) * h
        sheet.box(x - 0.06 * size, y - size, 0.12 * size, size, (0.3, 0.2, 0.1))
        pen.set_source_rgb(0.1, rng.uniform(0.3, 0.5), 0.1)
        pen.arc(x, y - size, 0.4 * size, 0, 2 * math.pi)
        pen.fill()
