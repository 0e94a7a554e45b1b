"""Draws the pictures of `examples/` that look like what people have: a designer's cover, a sign, a library's chart.

    python -m heldout.examples ../examples
"""

from __future__ import annotations

import sys
from pathlib import Path

import cairocffi as cairo
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from heldout.paint import Colour, Face, Sheet

SANS = Face("Nimbus Sans", "fonts-urw-base35")


def book() -> np.ndarray:
    """A title over a moon, on a gradient."""
    sheet = Sheet(440, 640, (0.1, 0.15, 0.35))
    dusk = cairo.LinearGradient(0, 0, 0, sheet.height)
    dusk.add_color_stop_rgb(0, 0.1, 0.15, 0.35)
    dusk.add_color_stop_rgb(1, 0.55, 0.2, 0.3)
    sheet.pen.set_source(dusk)
    sheet.pen.paint()
    cream: Colour = (1.0, 0.98, 0.88)
    sheet.pen.set_source_rgba(*cream, 0.2)
    sheet.pen.arc(220, 390, 110, 0, 7)
    sheet.pen.fill()
    step = sheet.fitting(["Night", "Train"], SANS, 38, 400)
    for row, text in enumerate(("Night", "Train")):
        sheet.write(text, 220, 140 + row * step, cream, 0.5)
    sheet.fitting(["Paul Weber"], SANS, 25, 400)
    sheet.write("Paul Weber", 220, 590, cream, 0.5)
    return sheet.pixels()


def sign() -> np.ndarray:
    """A board at a station."""
    sheet = Sheet(640, 420, (0.85, 0.91, 0.96))
    white: Colour = (1, 1, 1)
    sheet.box(50, 46, 544, 326, white, 34)
    sheet.box(56, 52, 532, 314, (0.05, 0.24, 0.55), 28)
    step = sheet.fitting(["North", "Station"], SANS, 42, 480)
    for row, text in enumerate(("North", "Station")):
        sheet.write(text, 320, 195 + row * 1.15 * step, white, 0.5)
    return sheet.pixels()


def bars(path: Path) -> None:
    """Four values by matplotlib, with large labels and no scale."""
    plt.rcParams.update({"font.size": 22})
    figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=100)
    drawn = axes.bar(("Mon", "Tue", "Wed", "Thu"), (12, 45, 30, 60))
    axes.bar_label(drawn)
    axes.set(title="Sales", yticks=[], ylim=(0, 75))
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for made in (book, sign):
        Image.fromarray(made()).save(folder / f"{made.__name__}.png", optimize=True)
    bars(folder / "bars.png")
