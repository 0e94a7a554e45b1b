"""The pictures of the four tasks, each with its question, its answer and its facts."""

from __future__ import annotations

import random
from collections.abc import Callable

from drawing.canvas import COLOURS, SHAPES, Canvas, Colour, ink_on, jitter, palette
from drawing.charts import chart
from drawing.example import PLAIN, Example, Look, Pointer, ask, backdrop, draw_block, fitted, joined, scale_of, wrap
from drawing.questions import CHART, COVER, HELD, PAIR, TEXT, off_topic, varied
from drawing.words import ALPHABET, number, person, plain_word, title
from samples.tokens import DECLINE, PHRASES


def cover(rng: random.Random, easy: bool = False, look: Look = PLAIN) -> Example:
    """A book cover: a large title above (or below) a smaller author's name."""
    width, height = rng.choice(((480, 640), (400, 600), (600, 800), (384, 512), (450, 600), (480, 480)))
    canvas, ink = backdrop(rng, width, height, look)
    zoom = scale_of(canvas)
    name, author = title(rng), person(rng)
    lines = wrap(rng, name.split(" "), 12)
    upper = rng.random() < 0.1
    drawn = [t.upper() for t in lines] if upper else lines
    by = rng.random() < 0.2 and not easy
    wrote = [("by " if by else "") + author]
    if rng.random() < 0.15:
        first, last = author.split(" ")
        wrote = [("by " if by else "") + first, last]
    face = fitted(rng, drawn, 0.9 * width, (28, 40), zoom, look)
    small = fitted(rng, wrote, 0.9 * width, (20, 26), zoom, look)
    top = rng.uniform(0.06, 0.3) * height
    below = top + len(drawn) * sum(face.getmetrics()) * 1.25
    low = rng.uniform(max(below / height + 0.04, 0.55), 0.84)
    if below > 0.8 * height:
        low = below / height + 0.02
    if not easy:
        ink2 = decorate(rng, canvas, below, low * height - 4, ink)
    else:
        ink2 = ink
    align = rng.choice(("centre", "centre", "left", "right"))
    over = rng.random() < 0.15 and not easy
    if over:  # the author stands above the title
        shift = 0.2 * height
        wrote_marks = draw_block(rng, canvas, wrote, 0.05 * height, small, ink, align)
        marks = draw_block(rng, canvas, drawn, shift, face, ink, align)
    else:
        marks = draw_block(rng, canvas, drawn, top, face, ink, align)
        wrote_marks = draw_block(rng, canvas, wrote, low * height, small, ink2, align)
    text, pointers = joined(drawn, marks, " ")
    author_text, author_pointers = joined(wrote, wrote_marks, " ")
    cut = 3 if by else 0
    parts = [
        ('The title of the book is "', None), (text, Pointer(0, pointers)),
        ('" and the author is ', None), (author_text[cut:], Pointer(0, author_pointers[cut:])), (".", None),
    ]
    return Example("cover", [canvas], ask(rng, COVER), parts, {"title": text, "author": author})


def decorate(rng: random.Random, canvas: Canvas, top: float, low: float, ink: Colour) -> Colour:
    """A band below the title, a rule, or a round ornament; returns the colour for text at the bottom."""
    kind, (width, height) = rng.random(), canvas.image.size
    if kind < 0.25:
        band = palette(rng)[0]
        canvas.draw.rectangle((0, low, width, height), fill=band)
        return ink_on(rng, band)
    if kind < 0.4:
        canvas.draw.line((0.15 * width, low - 2, 0.85 * width, low - 2), fill=ink, width=rng.randint(1, 4))
    elif kind < 0.6 and low - top > 0.12 * height:
        r = min((low - top) * 0.42, 0.25 * width)
        x, y = width * rng.uniform(0.35, 0.65), (top + low) / 2
        fill = tuple(rng.randint(0, 255) for _ in range(3))
        shape = canvas.draw.ellipse if rng.random() < 0.5 else canvas.draw.rectangle
        shape((x - r, y - r, x + r, y + r), fill=fill)
    return ink


def text(rng: random.Random, wild: bool = False, look: Look = PLAIN) -> Example:
    """One to three lines of large text; `wild` ones are characters in no order at all."""
    width, height = rng.choice(((640, 480), (640, 360), (400, 400), (480, 640), (336, 336), (800, 600)))
    canvas, ink = backdrop(rng, width, height, look)
    zoom = scale_of(canvas)
    lines = [(wild_phrase if wild else phrase)(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    face = fitted(rng, lines, 0.92 * width, (24, 40), zoom, look)
    tall = len(lines) * sum(face.getmetrics()) * 1.25
    top = rng.uniform(0.03 * height, max(0.04 * height, height - tall - 0.03 * height))
    marks = draw_block(rng, canvas, lines, top, face, ink, rng.choice(("left", "centre", "centre", "right")))
    string, pointers = joined(lines, marks, "\n")
    parts: list[tuple[str, Pointer | None]] = [(string, Pointer(0, pointers))]
    return Example("text", [canvas], ask(rng, TEXT), parts, {"text": string})


def phrase(rng: random.Random) -> str:
    """A line of text: one or two words or numbers, at most 18 characters."""
    while True:
        style = rng.random()
        items = []
        for i in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < 0.15:
                items.append(number(rng))
            elif style < 0.2:
                items.append(plain_word(rng).upper())
            else:
                items.append(plain_word(rng).capitalize() if style < 0.8 or i == 0 else plain_word(rng))
        line = " ".join(items)
        if rng.random() < 0.08:
            line += rng.choice("!?.")
        if len(line) <= 18 and all(c in ALPHABET for c in line):
            return line


def wild_phrase(rng: random.Random) -> str:
    """A line that cannot be guessed from its beginning: capitals, small letters, digits, or all there is."""
    of = rng.choice((ALPHABET[:26], ALPHABET[26:52], ALPHABET[52:62], ALPHABET, ALPHABET[:62]))
    while True:
        line = "".join(rng.choice(of) if rng.random() < 0.85 else " " for _ in range(rng.randint(2, 16)))
        line = " ".join(line.split())
        if line and not any(seed in line for _, seed in PHRASES):  # such a pair would be one token
            return line


MOST_SHAPES = 5


def shapes(rng: random.Random, count: int, colour: str, what: str) -> Canvas:
    """A picture of `count` equal shapes at different places."""
    width, height = rng.choice(((336, 336), (400, 400), (480, 480), (480, 360), (360, 480), (640, 480)))
    while True:
        back = (255, 255, 255) if rng.random() < 0.5 else tuple(rng.randint(0, 255) for _ in range(3))
        if sum(abs(a - b) for a, b in zip(back, COLOURS[colour], strict=True)) > 170:
            break
    canvas = Canvas.blank(width, height, back)
    cols, rows = (3, 2) if width >= height else (2, 3)
    if count <= 4 and rng.random() < 0.5:
        cols, rows = 2, 2
    cell_w, cell_h = width / cols, height / rows
    size = min(cell_w, cell_h) * rng.uniform(0.45, 0.8)
    fill = jitter(rng, COLOURS[colour])
    for cell in rng.sample(range(cols * rows), count):
        x = cell % cols * cell_w + size / 2 + rng.uniform(0.02, 0.98) * (cell_w - size)
        y = cell // cols * cell_h + size / 2 + rng.uniform(0.02, 0.98) * (cell_h - size)
        canvas.shape(what, colour, (x, y), size, fill)
    return canvas


def pair(rng: random.Random, draw: Callable[[random.Random, int, str, str], Canvas] = shapes) -> Example:
    """Two pictures of shapes that differ in count, colour, shape, or nothing."""
    one = (rng.randint(1, MOST_SHAPES), rng.choice(list(COLOURS)), rng.choice(SHAPES))
    other = (rng.randint(1, MOST_SHAPES), rng.choice(list(COLOURS)), rng.choice(SHAPES))
    two = tuple(b if rng.random() < 0.6 else a for a, b in zip(one, other, strict=True))
    canvases = [draw(rng, *one), draw(rng, *two)]  # type: ignore[arg-type]
    parts: list[tuple[str, Pointer | None]] = []
    tells: list[tuple[int, int, int]] = []  # where the count, the colour and the shape can be told
    for i, (count, colour, what) in enumerate((one, two)):
        parts.append((("First picture: ", "; second picture: ")[i], None))
        at = sum(len(t) for t, _ in parts)
        parts.append((str(count), Pointer(i, list(range(count)), count=True)))
        parts.append((f" {colour} {what}{'s' if count > 1 else ''}", Pointer(i, list(range(count)))))
        # the third letter with the second tells a colour, the second with the first a shape
        tells.append((at, at + 2 + 2, at + 2 + len(colour) + 1 + 1))
    alike = [(i, j, a == b) for i, j, a, b in zip(*tells, one, two, strict=True)]
    verdict = sum(len(t) for t, _ in parts)
    names = [n for n, a, b in zip(("count", "colour", "shape"), one, two, strict=True) if a != b]
    last = " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
    parts.append((f". They differ in {last}." if names else ". They look the same.", None))
    return Example("pair", canvases, ask(rng, PAIR), parts, {"first": one, "second": two, "differ": names}, alike, verdict)


def decline(rng: random.Random, held: bool = False) -> Example:
    """A question that has to be declined, with and without a picture."""
    question = rng.choice(HELD) if held else off_topic(rng)
    canvases: list[Canvas] = []
    if rng.random() < 0.6:
        canvases = rng.choice((cover, chart, text))(rng).canvases
    elif rng.random() < 0.3 and not held:
        question = varied(rng, rng.choice(COVER + CHART + TEXT + PAIR))
    return Example("decline", canvases, question, [(DECLINE, None)], {})


MAKERS = {"cover": cover, "chart": chart, "pair": pair, "text": text, "decline": decline}
