"""Stage-1 material: pages full of text and shapes with a class for every pixel."""

from __future__ import annotations

import random

import numpy as np

from drawing.canvas import COLOURS, FONTS, SHAPES, TILE, Canvas, Mark, font, ink_on, jitter, palette, to_tile
from drawing.faces import any_face
from drawing.wear import textured, worn
from drawing.words import ALPHABET, page_word

# Classes: 0 none, then the characters, then the shapes.
CHAR_CLASS = {c: i + 1 for i, c in enumerate(ALPHABET)}
SHAPE_CLASS = {s: len(ALPHABET) + 1 + i for i, s in enumerate(SHAPES)}
NUM_CLASSES = 1 + len(ALPHABET) + len(SHAPES)
COLOUR_CLASS = {c: i + 1 for i, c in enumerate(COLOURS)}
NEIGHBOURS = (-2, -1, 0, 1, 2)
COLOUR_COLUMN = len(NEIGHBOURS)
TOP_COLUMN = COLOUR_COLUMN + 1
FOOT_COLUMN = TOP_COLUMN + 1


def page(rng: random.Random, wide: bool = False) -> tuple[np.ndarray, list[Mark]]:
    """One page of 336x336 pixels filled with lines of 16 to 40 px (and some shapes); a `wide` one has any face, letters of
    10 to 80 px, often a texture behind them, and may be worn."""
    zoom = rng.uniform(1.0, 2.0) if rng.random() < 0.7 else 1.0
    side = round(TILE * zoom)
    back, ink = palette(rng)
    canvas = Canvas.blank(side, side, back)
    if wide and rng.random() < 0.4:
        textured(rng, canvas, ink)
    y = rng.uniform(-10, 6) * zoom
    while y < side:
        if rng.random() < 0.3:
            y = _band(rng, canvas, y, zoom)
            back_now = canvas.image.getpixel((side // 2, min(side - 1, int(y) + 1)))
            ink = ink_on(rng, back_now)
        if rng.random() < 0.15:
            y += _shape_row(rng, canvas, y, zoom)
        else:
            y += _text_row(rng, canvas, y, zoom, ink, wide)
    return to_tile(worn(rng, canvas) if wide else canvas)


def _band(rng: random.Random, canvas: Canvas, y: float, zoom: float) -> float:
    """Changes the background from `y` down."""
    side = canvas.image.width
    colour = palette(rng)[0]
    canvas.draw.rectangle((0, y, side, side), fill=colour)
    return y + 2 * zoom


def _size(rng: random.Random) -> float:
    """A font size in tile pixels."""
    return rng.uniform(16, 26) if rng.random() < 0.55 else rng.uniform(24, 40)


def _text_row(rng: random.Random, canvas: Canvas, y: float, zoom: float, ink: tuple[int, int, int], wide: bool) -> float:
    """Fills one row with words; returns its height."""
    size = (10 * 8 ** rng.random() if wide else _size(rng)) * zoom
    face = font(any_face(rng) if wide else rng.choice(FONTS), round(size))
    x = rng.uniform(-0.5, 1.0) * size
    side = canvas.image.width
    while x < side:
        text = page_word(rng)
        if rng.random() < 0.6:
            text += " " + page_word(rng)
        canvas.text((x, y), text, face, ink)
        x += face.getlength(text) + size * rng.uniform(0.8, 1.6)
    return size * rng.uniform(1.05, 1.5)


def _shape_row(rng: random.Random, canvas: Canvas, y: float, zoom: float) -> float:
    """One row of shapes; returns its height."""
    size = (rng.uniform(34, 90) if rng.random() < 0.7 else rng.uniform(90, 135)) * zoom
    x = rng.uniform(0.2, 1.2) * size
    while x < canvas.image.width:
        what, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
        fill = jitter(rng, COLOURS[colour])
        canvas.shape(what, colour, (x, y + size / 2), size, fill)
        x += size * rng.uniform(1.1, 1.8)
    return size * 1.08


def label_maps(marks: list[Mark]) -> tuple[np.ndarray, np.ndarray]:
    """Per-pixel numbers [336, 336] (0 = none) and their classes [numbers, 8].

    The columns are the characters at NEIGHBOURS of a mark in its line, its colour, and 1 for the
    patch-sized boxes around a shape's topmost and its lowest point, which have numbers of their own.
    """
    where = np.zeros((TILE, TILE), np.int16)
    shapes = [i for i, mark in enumerate(marks) if mark.line < 0]
    points = [(i, TOP_COLUMN, marks[i].top) for i in shapes] + [(i, FOOT_COLUMN, marks[i].foot) for i in shapes]
    table = np.zeros((len(marks) + len(points) + 1, FOOT_COLUMN + 1), np.uint8)
    for i, mark in enumerate(marks):
        x0, y0, x1, y1 = (int(round(v)) for v in mark.box)
        where[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = i + 1
        if mark.line < 0:
            colour, what = mark.what.split(" ")
            table[i + 1, 2], table[i + 1, COLOUR_COLUMN] = SHAPE_CLASS[what], COLOUR_CLASS[colour]
            continue
        for column, step in enumerate(NEIGHBOURS):
            j = i + step
            if 0 <= j < len(marks) and marks[j].line == mark.line:
                table[i + 1, column] = CHAR_CLASS[marks[j].what]
    for n, (i, column, (x, y)) in enumerate(points, len(marks) + 1):
        where[max(y - 7, 0) : max(y + 7, 0), max(x - 7, 0) : max(x + 7, 0)] = n
        table[n] = table[i + 1]
        table[n, column] = 1
    return where, table


def make_pages(seed: int, count: int, wide: bool = False) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """`count` pages: pixels u8 [count, 336, 336, 3], mark maps i16 [count, 336, 336], class tables."""
    pixels = np.empty((count, TILE, TILE, 3), np.uint8)
    maps = np.empty((count, TILE, TILE), np.int16)
    tables = []
    for i in range(count):
        tile, marks = page(random.Random(seed * 1_000_003 + i), wide)
        pixels[i] = tile
        maps[i], table = label_maps(marks)
        tables.append(table)
    return pixels, maps, tables
