"""What happens to a picture on its way to a user's screen: paper and texture behind, a slant, a shadow, grain, JPEG."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from drawing.canvas import Canvas, Colour, Mark, luminance

Corners = list[tuple[float, float]]


def textured(rng: random.Random, canvas: Canvas, ink: Colour) -> None:
    """Gives a fresh canvas a texture in which the ink still stands out: a gradient, paper, bricks, blobs or a pale scene."""
    width, height = canvas.image.size
    kind, make = rng.random(), np.random.default_rng(rng.getrandbits(32))
    base = np.asarray(canvas.image, np.float32)
    room = max(10.0, min(70.0, abs(luminance(canvas.image.getpixel((1, 1))) - luminance(ink)) - 80))
    if kind < 0.35:
        angle = rng.uniform(0, 2 * math.pi)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        change = (x * math.cos(angle) + y * math.sin(angle)) * room * rng.uniform(0.2, 0.5)
    elif kind < 0.65:
        change = make.standard_normal((height, width), np.float32) * (room * rng.uniform(0.04, 0.14))
    elif kind < 0.75:
        high, wide = rng.randint(14, 40), rng.randint(30, 90)
        y, x = np.mgrid[0:height, 0:width]
        joint = (y % high < 2) | ((x + (y // high % 2) * wide // 2) % wide < 2)
        change = joint * -room * rng.uniform(0.2, 0.5)
    else:
        seen = scenery(rng, width, height) if kind < 0.88 else blobs(rng, make, width, height)
        change = (np.asarray(seen, np.float32) / 255 - 0.5) * room
    change = np.asarray(change, np.float32).reshape(height, width, -1)  # of one tint or of three colours
    canvas.image.paste(Image.fromarray((base + change).clip(0, 255).astype(np.uint8)))


def blobs(rng: random.Random, make: np.random.Generator, width: int, height: int) -> Image.Image:
    """Light and dark, as a photograph out of focus."""
    coarse = Image.fromarray(make.integers(0, 256, (rng.randint(3, 9), rng.randint(3, 9)), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def scenery(rng: random.Random, width: int, height: int) -> Image.Image:
    """Ground, sky and things of any colour between, as a photograph has them, more or less sharp."""
    image = Image.new("RGB", (width, height), tuple(rng.randint(0, 255) for _ in range(3)))  # type: ignore[arg-type]
    draw = ImageDraw.Draw(image)
    horizon = rng.uniform(0.3, 0.7) * height
    draw.rectangle((0, horizon, width, height), fill=tuple(rng.randint(20, 160) for _ in range(3)))
    for _ in range(rng.randint(3, 12)):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.3) * width
        tint = tuple(rng.randint(0, 255) for _ in range(3))
        draw.polygon([(x + rng.uniform(-r, r), y + rng.uniform(-r, r)) for _ in range(rng.randint(3, 9))], fill=tint)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 6)))


def _homography(source: Corners, target: Corners) -> np.ndarray:
    """The 3x3 map that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(values, float)), 1).reshape(3, 3)


def warped(rng: random.Random, canvas: Canvas, degrees: float, depth: float) -> Canvas:
    """The picture turned about its middle and seen from a side: corners move by up to `depth` of a side; marks move with it."""
    width, height = canvas.image.size
    turn = math.radians(rng.uniform(-degrees, degrees))
    corners = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]
    moved = []
    for x, y in corners:
        dx, dy = x - width / 2, y - height / 2
        x = width / 2 + dx * math.cos(turn) - dy * math.sin(turn) + rng.uniform(-depth, depth) * width
        y = height / 2 + dx * math.sin(turn) + dy * math.cos(turn) + rng.uniform(-depth, depth) * height
        moved.append((x, y))
    there, back = _homography(corners, moved), _homography(moved, corners)
    fill = canvas.image.getpixel((1, 1))
    image = canvas.image.transform(
        (width, height), Image.Transform.PERSPECTIVE, tuple((back / back[2, 2]).flatten()[:8]), Image.Resampling.BILINEAR, fillcolor=fill
    )
    return Canvas(image, [_moved(mark, there) for mark in canvas.marks], canvas.lines)


def _moved(mark: Mark, there: np.ndarray) -> Mark:
    """The mark with its box around where its middle goes."""
    x0, y0, x1, y1 = mark.box
    x, y, w = there @ ((x0 + x1) / 2, (y0 + y1) / 2, 1.0)
    half_w, half_h = (x1 - x0) / 2, (y1 - y0) / 2
    return Mark(mark.what, mark.line, (x / w - half_w, y / w - half_h, x / w + half_w, y / w + half_h))


def inside(canvas: Canvas) -> bool:
    """Whether all marks lie in the picture."""
    width, height = canvas.image.size
    return all(x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height for x0, y0, x1, y1 in (mark.box for mark in canvas.marks))


def worn(rng: random.Random, canvas: Canvas) -> Canvas:
    """The picture with some of: a slant, a shadow, blur, grain, JPEG. More than half have none of them."""
    if rng.random() < 0.55:
        return canvas
    if rng.random() < 0.5:
        slanted = warped(rng, canvas, 4, 0.015)
        canvas = slanted if inside(slanted) else canvas
    pixels = np.asarray(canvas.image, np.float32)
    height, width, _ = pixels.shape
    if rng.random() < 0.4:
        angle, y, x = rng.uniform(0, 2 * math.pi), *np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        edge = x * math.cos(angle) + y * math.sin(angle) - rng.uniform(-0.7, 0.7)
        pixels = pixels * (1 - rng.uniform(0.05, 0.35) / (1 + np.exp(-rng.uniform(3, 25) * edge)))[..., None].astype(np.float32)
    if rng.random() < 0.4:
        make = np.random.default_rng(rng.getrandbits(32))
        pixels = pixels + make.standard_normal((height, width, 1), np.float32) * rng.uniform(1, 8)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * max(width, height) / 480))
    if rng.random() < 0.6:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(35, 90))
        image = Image.open(file).convert("RGB")
    return Canvas(image, canvas.marks, canvas.lines)
