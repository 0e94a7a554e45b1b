"""The tasks' pictures as users bring them: any face and size, textures, slants, signs, receipts, plots, free shapes; and pictures of nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from drawing import tasks
from drawing.canvas import COLOURS, Canvas, Colour, font, ink_on, jitter, luminance
from drawing.example import Example, Look, Pointer, draw_block, joined, legible, line_marks, scale_of
from drawing.faces import FIXED, any_face
from drawing.plots import plot
from drawing.wear import scenery, textured, worn
from drawing.words import plain_word


def ground(rng: random.Random, canvas: Canvas, ink: Colour) -> None:
    """A texture behind two pictures in five."""
    if rng.random() < 0.4:
        textured(rng, canvas, ink)


def sizes(least: float, most: float) -> Callable[[random.Random], float]:
    """Draws a factor so that letters of 32 pixels come to lie between two sizes, all magnitudes alike."""
    return lambda rng: math.exp(rng.uniform(math.log(least / 32), math.log(most / 32)))


LARGE = Look(any_face, sizes(15, 80), 14, ground)
SMALL = Look(any_face, sizes(8, 15), 7, ground)  # for pictures looked at with crops, which show them twice as large


def aged(rng: random.Random, example: Example) -> Example:
    """The example with its pictures as a camera or a file format leaves them."""
    return replace(example, canvases=[worn(rng, canvas) for canvas in example.canvases])


def made(make: Callable[[], Example]) -> Example:
    """The first example of which everything can be read."""
    while True:
        example = make()
        if all(legible(canvas) for canvas in example.canvases):
            return example


def cover(rng: random.Random, look: Look = LARGE) -> Example:
    """A book's cover."""
    look = replace(look, grow=sizes(20, 48)) if look is LARGE else look
    return aged(rng, made(lambda: tasks.cover(rng, look=look)))


def chart(rng: random.Random, look: Look = LARGE) -> Example:
    """A chart in any style."""
    return aged(rng, made(lambda: plot(rng)))


def text(rng: random.Random, look: Look = LARGE) -> Example:
    """Lines of text, a sign, or a receipt; one in eight in characters of no order."""
    kind = rng.random()
    if kind < 0.2 and look is LARGE:
        example = sign(rng)
    elif kind < 0.35 and look is LARGE:
        example = receipt(rng)
    else:
        example = made(lambda: tasks.text(rng, wild=kind > 0.875, look=look))
    return aged(rng, example)


def sign(rng: random.Random) -> Example:
    """A board on a wall with one to three centred lines."""
    width, height = rng.choice(((640, 480), (480, 640), (600, 400), (480, 480)))
    wall, board = (tuple(rng.randint(40, 220) for _ in range(3)) for _ in range(2))
    ink = ink_on(rng, board)  # type: ignore[arg-type]
    canvas = Canvas.blank(width, height, wall)  # type: ignore[arg-type]
    textured(rng, canvas, board)  # type: ignore[arg-type]
    edge, zoom = 0.08 * min(width, height), scale_of(canvas)
    box = (edge, edge, width - edge, height - edge)
    canvas.draw.rounded_rectangle(box, rng.choice((0, 12, 40)), fill=board, outline=ink, width=rng.choice((0, 3, 6)))
    lines, size, face = [tasks.phrase(rng) for _ in range(rng.choice((1, 2, 2, 3)))], rng.uniform(20, 60) * zoom, any_face(rng)
    while size > 14 * zoom and (
        max(font(face, round(size)).getlength(line) for line in lines) > width - 3 * edge or len(lines) * 1.3 * size > height - 3 * edge
    ):
        size *= 0.94
    letters = font(face, round(size))
    top = (height - len(lines) * 1.25 * sum(letters.getmetrics())) / 2
    marks = draw_block(rng, canvas, lines, max(top, edge), letters, ink, "centre")
    return text_example(canvas, lines, marks)


def receipt(rng: random.Random) -> Example:
    """A shop's name over goods with prices at the right and a sum, in a fixed-width face."""
    width, height = rng.choice(((400, 520), (420, 560), (360, 600), (480, 480)))
    canvas = Canvas.blank(width, height, jitter(rng, (244, 243, 238), 10))
    ink, zoom = jitter(rng, (40, 40, 45), 25), scale_of(canvas)
    goods = [plain_word(rng).capitalize() for _ in range(rng.randint(1, 4))]
    prices = [rng.randint(20, 2999) for _ in goods]
    rows = [(name, f"{price / 100:.2f}") for name, price in zip(goods, prices, strict=True)]
    rows.append((rng.choice(("Total", "TOTAL", "Sum", "SUM")), f"{sum(prices) / 100:.2f}"))
    face = font(rng.choice(FIXED), round(rng.uniform(15, 24) * zoom))
    step, y = sum(face.getmetrics()) * rng.uniform(1.1, 1.5), rng.uniform(0.03, 0.12) * height
    shop = f"{plain_word(rng)} {rng.choice(('shop', 'market', 'store', 'cafe', 'bar'))}".upper()
    shop_line = canvas.text(((width - face.getlength(shop)) / 2, y), shop, face, ink)
    lines, marks = [shop], line_marks(canvas, shop_line)
    for name, price in rows:
        y += step
        left = line_marks(canvas, canvas.text((0.05 * width, y), name, face, ink))
        right = line_marks(canvas, canvas.text((0.95 * width - face.getlength(price), y), price, face, ink))
        lines.append(f"{name} {price}")
        marks += [*left, right[0], *right]  # the space between points at what follows it
    if y + step > height or max(face.getlength(f"{line}  ") for line in lines) > 0.9 * width:
        return receipt(rng)
    return text_example(canvas, lines, marks)


def text_example(canvas: Canvas, lines: list[str], marks: list[int]) -> Example:
    """The example of a picture of lines."""
    string, pointers = joined(lines, marks, "\n")
    return Example("text", [canvas], "", [(string, Pointer(0, pointers))], {"text": string})


def shapes(rng: random.Random, count: int, colour: str, what: str) -> Canvas:
    """Equal shapes at free places, their sizes a little different."""
    width, height = rng.choice(((336, 336), (400, 400), (480, 360), (640, 480), (600, 400), (360, 480)))
    while True:
        back: Colour = (255, 255, 255) if rng.random() < 0.3 else tuple(rng.randint(0, 255) for _ in range(3))  # type: ignore[assignment]
        if sum(abs(a - b) for a, b in zip(back, COLOURS[colour], strict=True)) > 170 and abs(luminance(back) - luminance(COLOURS[colour])) > 35:
            break
    canvas = Canvas.blank(width, height, back)
    ground(rng, canvas, COLOURS[colour])
    reach, fill = min(width, height) * rng.uniform(0.16, 0.34), jitter(rng, COLOURS[colour])
    placed: list[tuple[float, float]] = []
    while len(placed) < count:
        x, y = (rng.uniform(0.55 * reach, side - 0.55 * reach) for side in (width, height))
        if all(math.hypot(x - a, y - b) > 1.12 * reach for a, b in placed):
            placed.append((x, y))
        elif rng.random() < 0.03:  # no room: begin anew, smaller
            placed.clear()
            reach *= 0.95
    for place in placed:
        canvas.shape(what, colour, place, reach * rng.uniform(0.8, 1.0), fill)
    return canvas


def pair(rng: random.Random, look: Look = LARGE) -> Example:
    """Two pictures of free shapes."""
    return aged(rng, tasks.pair(rng, draw=shapes))


def scene(rng: random.Random) -> Canvas:
    """A picture without anything that the model can tell of: blank, noise, a gradient, blobs, or scenery."""
    width, height = rng.choice(((480, 360), (400, 400), (360, 480), (640, 480)))
    canvas, kind = Canvas.blank(width, height, tuple(rng.randint(0, 255) for _ in range(3))), rng.random()  # type: ignore[arg-type]
    make = np.random.default_rng(rng.getrandbits(32))
    if kind < 0.25:
        return canvas
    if kind < 0.6:
        side = rng.choice((2, 3, 5, 12, 60))
        coarse = Image.fromarray(make.integers(0, 256, (side, side, 3), np.uint8))
        how = rng.choice((Image.Resampling.NEAREST, Image.Resampling.BICUBIC))
        return worn(rng, Canvas(coarse.resize((width, height), how)))
    return worn(rng, Canvas(scenery(rng, width, height)))


def blurred(rng: random.Random) -> Canvas:
    """Text too small or too unsharp for anyone."""
    canvas = tasks.text(rng).canvases[0]
    if rng.random() < 0.5:
        radius = scale_of(canvas) * rng.uniform(7, 14)
        return Canvas(canvas.image.filter(ImageFilter.GaussianBlur(radius)))
    part, (width, height) = rng.uniform(0.08, 0.13), canvas.image.size
    small = canvas.image.resize((round(width * part), round(height * part)), Image.Resampling.LANCZOS)
    canvas = Canvas.blank(width, height, canvas.image.getpixel((1, 1)))
    canvas.image.paste(small, (rng.randint(0, width - small.width), rng.randint(0, height - small.height)))
    return canvas


Source = Callable[[random.Random, str], Example]


def plain_source(rng: random.Random, task: str) -> Example:
    """An example of a task with the plain pictures."""
    return tasks.MAKERS[task](rng)


def wide_source(rng: random.Random, task: str) -> Example:
    """An example of a task with wide pictures; the plain ones three times in ten."""
    if rng.random() < 0.3:
        return tasks.MAKERS[task](rng)
    return {"cover": cover, "chart": chart, "pair": pair, "text": text}[task](rng)


def small_source(rng: random.Random, task: str) -> Example:
    """An example for pictures of crops: half of the covers and texts have letters that only the crops show large enough."""
    if task in ("cover", "text") and rng.random() < 0.5:
        return {"cover": cover, "text": text}[task](rng, SMALL)
    return wide_source(rng, task)
