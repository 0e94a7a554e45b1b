"""Charts: bars or a line, with a title, labels and printed values."""

from __future__ import annotations

import random
from dataclasses import dataclass

from drawing.canvas import COLOURS, FONTS, Canvas, Colour, font, ink_on, jitter, luminance, palette
from drawing.example import Example, Pointer, ask, fitted, line_marks, scale_of
from drawing.questions import CHART
from drawing.words import made_up, word

_LABELS = (
    "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), "Mon Tue Wed Thu Fri Sat Sun".split(),
    [str(y) for y in range(1990, 2040)], "Q1 Q2 Q3 Q4".split(), list("ABCDEFGHIJ"),
    [f"W{i}" for i in range(1, 13)], "Anna Ben Carl Dora Emil Finn Gina Hugo".split(),
    "Tea Milk Wine Beer Rice Corn Salt Oil".split(), [str(y) for y in range(1, 13)],
)


def labels_of(rng: random.Random, count: int) -> list[str]:
    """Axis labels: neighbours of a known series, or made-up words."""
    if rng.random() < 0.15:
        return [made_up(rng, 4).capitalize()[:4] for _ in range(count)]
    series = rng.choice([s for s in _LABELS if len(s) >= count])
    at = rng.randrange(len(series) - count + 1)
    return series[at : at + count]


def values_of(rng: random.Random, count: int) -> list[int]:
    """Whole numbers with a clear lowest, a clear highest, and clearly different ends."""
    top = rng.choice((20, 50, 99, 99, 99, 99, 500))
    while True:
        values = [rng.randint(1, top) for _ in range(count)]
        order = sorted(values)
        gap = 0.1 * (order[-1] - order[0])
        apart = order[1] - order[0] > gap and order[-1] - order[-2] > gap
        if order[-1] - order[0] >= 6 and apart and abs(values[-1] - values[0]) > 1.5 * gap:
            return values


@dataclass
class Plot:
    """Where the axes stand and how values map to rows."""

    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float

    def y(self, value: float) -> float:
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)

    def x(self, i: int, count: int) -> float:
        return self.left + (i + 0.5) * (self.right - self.left) / count


def chart(rng: random.Random, easy: bool = False) -> Example:
    """A bar or line chart whose values are printed over the points."""
    width, height = rng.choice(((640, 480), (640, 480), (800, 600), (640, 400), (480, 480), (720, 480)))
    white = rng.random() < 0.6
    back = (255, 255, 255) if white else palette(rng)[0]
    canvas = Canvas.blank(width, height, back)
    ink = (0, 0, 0) if white and rng.random() < 0.7 else ink_on(rng, back)
    zoom = scale_of(canvas)
    count = rng.randint(3, 4 if easy else rng.choice((4, 5, 6)))
    labels, values = labels_of(rng, count), values_of(rng, count)
    name = heading(rng)
    big = fitted(rng, [name], 0.9 * width, (21, 28), zoom)
    face = fitted_labels(rng, labels + [str(v) for v in values], 0.88 * width / count, zoom)
    title_line = canvas.text(((width - big.getlength(name)) * rng.choice((0.5, 0.5, 0.2)), 0.02 * height), name, big, ink)
    bars = rng.random() < 0.5
    high, low = max(values), 0 if bars else min(values)
    low = low - (0 if bars else 0.15 * (high - low) + 1)
    row = sum(face.getmetrics())
    plot = Plot(0.07 * width, 0.97 * width, sum(big.getmetrics()) + 1.5 * row + 0.02 * height, height - 1.45 * row, low, high)
    frame(rng, canvas, plot, ink)
    fill = series_colour(rng, back)
    drawer = draw_bars if bars else draw_line
    drawer(rng, canvas, plot, values, fill)
    value_lines = value_labels(canvas, plot, values, face, ink, bars)
    label_lines = []
    for i, text_ in enumerate(labels):
        x = plot.x(i, count) - face.getlength(text_) / 2
        label_lines.append(canvas.text((x, plot.bottom + 0.15 * row), text_, face, ink))
    printed = [str(v) for v in values]
    return chart_example(ask(rng, CHART), canvas, Facts(bars, name, title_line, labels, label_lines, values, printed, value_lines))


def heading(rng: random.Random) -> str:
    """A chart title of one or two words."""
    kind = rng.random()
    if kind < 0.3:
        return made_up(rng, 6).upper()
    if kind < 0.5:
        return f"{made_up(rng, 7).capitalize()} {rng.choice(('Inc', 'stock', 'Sales', 'Stock', 'price', 'Ltd', 'Index'))}"
    return " ".join(word(rng, 8).capitalize() for _ in range(rng.randint(1, 2)))


def fitted_labels(rng: random.Random, items: list[str], wide: float, zoom: float):
    """A face of 16 to 23 tile pixels in which every item fits its column."""
    face, size = rng.choice(FONTS), rng.uniform(18, 23) * zoom
    while max(font(face, round(size)).getlength(t) for t in items) > wide and size > 16 * zoom:
        size *= 0.96
    return font(face, round(size))


def series_colour(rng: random.Random, back: Colour) -> Colour:
    """A colour that stands clear of the background."""
    while True:
        colour = jitter(rng, rng.choice(((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), *COLOURS.values())), 30)
        if abs(luminance(colour) - luminance(back)) > 40:
            return colour


def frame(rng: random.Random, canvas: Canvas, plot: Plot, ink: Colour) -> None:
    """The axes: an L, a box, or only a base line; sometimes faint grid lines."""
    draw, kind = canvas.draw, rng.random()
    box = (plot.left, plot.top - 4, plot.right, plot.bottom)
    if rng.random() < 0.2:
        back = canvas.image.getpixel((1, 1))
        faint = tuple(round(0.85 * b + 0.15 * i) for b, i in zip(back, ink, strict=True))
        for i in range(1, 4):
            y = plot.top + (plot.bottom - plot.top) * i / 4
            draw.line((plot.left, y, plot.right, y), fill=faint)
    if kind < 0.3 and plot.top > 60:
        draw.rectangle((box[0], box[1] - 30, box[2], box[3]), outline=ink)
    elif kind < 0.8:
        draw.line((plot.left, plot.top, plot.left, plot.bottom), fill=ink, width=2)
    draw.line((plot.left, plot.bottom, plot.right, plot.bottom), fill=ink, width=2)


def draw_bars(rng: random.Random, canvas: Canvas, plot: Plot, values: list[int], fill: Colour) -> None:
    """One bar a value."""
    half = (plot.right - plot.left) / len(values) * rng.uniform(0.2, 0.42)
    for i, value in enumerate(values):
        x = plot.x(i, len(values))
        top = min(plot.y(value), plot.bottom - 2)
        canvas.draw.rectangle((x - half, top, x + half, plot.bottom - 1), fill=fill)


def draw_line(rng: random.Random, canvas: Canvas, plot: Plot, values: list[int], fill: Colour) -> None:
    """A line through the values, usually with round markers."""
    points = [(plot.x(i, len(values)), plot.y(v)) for i, v in enumerate(values)]
    canvas.draw.line(points, fill=fill, width=round(rng.uniform(1.5, 3) * scale_of(canvas)), joint="curve")
    if rng.random() < 0.8:
        r = rng.uniform(2, 4.5) * scale_of(canvas)
        for x, y in points:
            canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def value_labels(canvas: Canvas, plot: Plot, values: list[int], face, ink: Colour, bars: bool) -> list[int]:
    """Prints each value over its point or bar; under the point in a valley of a line."""
    row, count, lines = sum(face.getmetrics()), len(values), []
    for i, value in enumerate(values):
        x = plot.x(i, count) - face.getlength(str(value)) / 2
        near = [values[j] for j in (i - 1, i + 1) if 0 <= j < count]
        under = not bars and all(n > value for n in near) and plot.y(value) + 1.4 * row < plot.bottom
        y = plot.y(value) + (0.3 * row if under else -1.2 * row)
        lines.append(canvas.text((x, y), str(value), face, ink))
    return lines


@dataclass(frozen=True)
class Facts:
    """What a chart shows, its values as they are `printed`, and the lines of its canvas that say so."""

    bars: bool
    title: str
    title_line: int
    labels: list[str]
    label_lines: list[int]
    values: list[float]
    printed: list[str]
    value_lines: list[int]


def chart_example(question: str, canvas: Canvas, facts: Facts) -> Example:
    """Puts a chart's answer together."""
    labels, values, printed = facts.labels, facts.values, facts.printed

    def at(i: int) -> list[tuple[str, Pointer | None]]:
        label, value = line_marks(canvas, facts.label_lines[i]), line_marks(canvas, facts.value_lines[i])
        return [(labels[i], Pointer(0, label)), (" (", None), (printed[i], Pointer(0, value))]

    low, high = values.index(min(values)), values.index(max(values))
    trend = "rising" if values[-1] > values[0] else "falling"
    parts: list[tuple[str, Pointer | None]] = [(f'A {"bar" if facts.bars else "line"} chart titled "', None)]
    parts += [(facts.title, Pointer(0, line_marks(canvas, facts.title_line))), ('". It starts at ', None), *at(0)]
    parts += [(") and ends at ", None), *at(len(values) - 1), ("). The lowest is ", None), *at(low)]
    parts += [(") and the highest is ", None), *at(high), (f"). It is {trend}.", None)]
    told = {
        "kind": "bar" if facts.bars else "line", "title": facts.title, "first": labels[0], "last": labels[-1],
        "lowest": [labels[low], values[low]], "highest": [labels[high], values[high]], "trend": trend,
        "first_value": values[0], "last_value": values[-1],
    }
    return Example("chart", [canvas], question, parts, told)
