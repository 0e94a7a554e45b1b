"""Draws the training logs as one PNG with Pillow: accuracy over minutes for both stages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from drawing.canvas import FONTS, font

SIZE = (640, 300)
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (80, 80, 80), (23, 160, 180), (190, 150, 20))
Series = dict[str, list[tuple[float, float]]]


def plot(title: str, series: Series) -> Image.Image:
    """Lines of shares (0..1) over minutes."""
    image = Image.new("RGB", SIZE, "white")
    draw, face = ImageDraw.Draw(image), font(FONTS[0], 13)
    left, top, right, bottom = 45, 30, SIZE[0] - 150, SIZE[1] - 35
    most = max((x for points in series.values() for x, _ in points), default=1)
    draw.text((left, 6), title, fill="black", font=font(FONTS[0], 15))
    for i in range(6):
        y = bottom - (bottom - top) * i / 5
        draw.line((left, y, right, y), fill=(225, 225, 225))
        draw.text((8, y - 8), f"{i * 20:3} %", fill="black", font=face)
        draw.text((left + (right - left) * i / 5 - 8, bottom + 6), f"{most * i / 5:.{0 if most > 15 else 1}f}", fill="black", font=face)
    draw.text((right - 55, bottom + 19), "minutes", fill="black", font=face)
    for n, (name, points) in enumerate(series.items()):
        at = [(left + (right - left) * x / most, bottom - (bottom - top) * y) for x, y in points]
        draw.line(at, fill=COLOURS[n], width=2)
        draw.text((right + 12, top + 20 * n), name, fill=COLOURS[n], font=face)
    return image


def read(path: Path) -> list[dict]:
    """A log's lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


NAMES = {"character under it": 2, "next character": 3, "next but one": 4, "shape colour": 5}
TASKS = ("cover", "chart", "pair", "text", "decline")


def of_processors(work: Path) -> list[Image.Image]:
    """The plots of stages 1 and 2."""
    one, two = read(work / "stage1.jsonl"), read(work / "stage2.jsonl")
    first = {n: [(r["minutes"], r["page"][i]) for r in one] for n, i in NAMES.items()}
    whole = {t: [(r["minutes"], r[t][0]) for r in two if t in r] for t in TASKS}
    token = {t: [(r["minutes"], r[t][1]) for r in two if t in r] for t in TASKS}
    return [
        plot("Stage 1: patches of unseen pages named right", first),
        plot("Stage 2: tokens of unseen answers right", token),
        plot("Stage 2: whole unseen answers right", whole),
    ]


def of_gpu(lines: list[dict]) -> list[Image.Image]:
    """The plots of a run of `gpu/run.py`."""
    one, two = ([r for r in lines if r.get("stage") == n] for n in (1, 2))
    first = {n: [(0.0, 0.0), *((r["minutes"], r["page"][i]) for r in one)] for n, i in NAMES.items()}
    whole = {t: [(r["minutes"], r["right"][t]) for r in two] for t in TASKS}
    return [plot("Stage 1: patches of pages named right", first), plot("Stage 2: whole unseen answers right", whole)]


def of_tuning(lines: list[dict]) -> list[Image.Image]:
    """The plots of a run of `stages/tune.py`."""
    named = {
        "plain": "Unseen plain answers right", "asked": "Unseen answers to users' words right", "wide": "Unseen answers about wide pictures right",
    }
    groups = [name for name in named if name in lines[0]]
    return [plot(named[g], {t: [(r["minutes"], r[g][t][0]) for r in lines] for t in lines[0][g]}) for g in groups]


def of_widening(lines: list[dict]) -> list[Image.Image]:
    """The plot of a run of `stages/widen.py`."""
    moved = [r for r in lines if not r["heads"]]
    shown = {"plain": ("plain", 2), "plain, the next": ("plain", 3), "wide": ("wide", 2), "wide, the next": ("wide", 3)}
    series = {name: [(r["minutes"], r[kind][i]) for r in moved] for name, (kind, i) in shown.items()}
    return [plot("The tower: characters under unseen patches named right", series)] if moved else []


def main(work: Path, out: Path) -> None:
    """All plots, one under the other."""
    lines, tuned = read(work / "gpu.jsonl"), read(work / "tune.jsonl")
    further = of_widening(read(work / "widen.jsonl")) + (of_tuning(tuned) if tuned else [])
    plots = of_gpu(lines) if lines else further or of_processors(work)
    sheet = Image.new("RGB", (SIZE[0], SIZE[1] * len(plots)), "white")
    for i, image in enumerate(plots):
        sheet.paste(image, (0, i * SIZE[1]))
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
