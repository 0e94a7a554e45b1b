"""Charts in the styles of plotting libraries, spreadsheets and web pages: scales, grids, legends, decimals, labels at an angle, two series."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from drawing.canvas import Canvas, Colour, font, ink_on, luminance
from drawing.charts import Facts, Plot, chart_example, draw_bars, draw_line, heading, labels_of, series_colour, values_of
from drawing.example import Example, scale_of
from drawing.faces import any_face
from drawing.wordings import wording
from drawing.words import ALPHABET, plain_word

FORMS = ("{:.0f}", "{:.0f}", "{:.0f}", "{:.1f}", "{:.0f}%", "${:.0f}", "{:.2f}")


@dataclass(frozen=True)
class Style:
    """How a chart is dressed."""

    scale: bool  # numbers along the value axis
    grid: bool
    box: bool  # a frame around the plot, else an L or a base line
    legend: str  # the name of the series, or nothing
    slant: int  # degrees that the labels rise by
    size: float  # of labels and values, pixels of the tile


def style_of(rng: random.Random) -> Style:
    """A library's, a spreadsheet's or a page's style."""
    kind, size = rng.random(), rng.uniform(13, 24)
    legend = rng.choice(("", "", plain_word(rng).capitalize(), "Series 1"))
    if kind < 0.4:
        return Style(True, rng.random() < 0.3, True, legend if rng.random() < 0.4 else "", rng.choice((0, 0, 0, 30, 45)), size)
    if kind < 0.7:
        return Style(rng.random() < 0.7, True, False, legend, 0, size)
    return Style(rng.random() < 0.3, rng.random() < 0.5, False, "", rng.choice((0, 0, 0, 0, 90)), size)


def fitted_face(rng: random.Random, items: list[str], wide: float, size: float, zoom: float):
    """A face of so many tile pixels, smaller until every item fits its column."""
    face, size = any_face(rng), size * zoom
    while max(font(face, round(size)).getlength(item) for item in items) > wide and size > 11 * zoom:
        size *= 0.95
    return font(face, round(size))


def plot(rng: random.Random) -> Example:
    """A chart of one series."""
    canvas, facts = drawn(rng, 1)
    return chart_example(wording(rng, "chart"), canvas, facts)


def two_series(rng: random.Random) -> Canvas:
    """A chart of two series, of which the answer's sentence cannot tell."""
    return drawn(rng, 2)[0]


def data(rng: random.Random) -> tuple[list[float], list[str]]:
    """Three to six values, and how they are printed, all different."""
    while True:
        form, values = rng.choice(FORMS), [float(v) for v in values_of(rng, rng.randint(3, 6))]
        if form in ("{:.1f}", "{:.2f}"):
            values = [v / rng.choice((1, 10)) + rng.randint(1, 9) / 10 for v in values]
        printed = [form.format(v) for v in values]
        if len(set(printed)) == len(printed):
            return values, printed


def free_labels(rng: random.Random, count: int) -> list[str]:
    """Labels of no known series, all different: words in one case, numbers, letters with numbers, characters in no order."""
    kind, case = rng.random(), rng.choice((str.lower, str.capitalize, str.capitalize, str.upper))
    first, step, letter = rng.randint(0, 2090), rng.choice((1, 1, 2, 5, 10)), rng.choice("ABCDEFGHKLMNPRSTVWX")
    while True:
        if kind < 0.5:
            found = [case(plain_word(rng)[: rng.choice((3, 3, 4, 5, 7))]) for _ in range(count)]
        elif kind < 0.65:
            found = [str(first + step * i) for i in range(count)]
        elif kind < 0.75:
            found = [f"{letter}{first % 90 + i}" for i in range(count)]
        else:
            found = ["".join(rng.choice(ALPHABET[:62]) for _ in range(rng.randint(1, 4))) for _ in range(count)]
        if len(set(found)) == count:
            return found


def drawn(rng: random.Random, series: int) -> tuple[Canvas, Facts]:
    """A chart in any style, and what it shows."""
    width, height = rng.choice(((640, 480), (640, 480), (800, 600), (640, 400), (480, 480), (720, 480), (800, 450)))
    back: Colour = rng.choice(((255, 255, 255), (255, 255, 255), (250, 250, 250), (229, 236, 246), (30, 32, 40), (245, 240, 230)))
    canvas, ink, style = Canvas.blank(width, height, back), ink_on(rng, back), style_of(rng)
    if series > 1 and not style.legend:
        style = replace(style, legend="First")
    (values, printed), zoom, bars = data(rng), scale_of(canvas), rng.random() < 0.55
    labels, name = (labels_of if rng.random() < 0.4 else free_labels)(rng, len(values)), heading(rng)
    face = fitted_face(rng, printed + labels * (style.slant == 0), 0.86 * width / len(values), style.size, zoom)
    big = fitted_face(rng, [name], 0.94 * width, style.size * rng.uniform(1.0, 1.4), zoom)
    title_line = canvas.text(((width - big.getlength(name)) * rng.choice((0.5, 0.5, 0.1)), 0.02 * height), name, big, ink)
    area = area_of(canvas, style, values, labels, (sum(big.getmetrics()), face), bars)
    dress(rng, canvas, area, style, face, ink)
    fills = [series_colour(rng, back) for _ in range(series)]
    for n, fill in enumerate(fills):
        part = [v * rng.uniform(0.4, 1.0) for v in values] if n else values
        (draw_bars if bars else draw_line)(rng, canvas, area, part, fill)
    if style.legend:
        legend(canvas, [style.legend, "Second"], fills, face, ink)
    value_lines = values_over(canvas, area, printed, values, face, ink)
    label_lines = labels_under(canvas, area, labels, face, ink, style.slant)
    return canvas, Facts(bars, name, title_line, labels, label_lines, values, printed, value_lines)


def area_of(canvas: Canvas, style: Style, values: list[float], labels: list[str], letters: tuple, bars: bool) -> Plot:
    """Where the plot has room between the title, the labels, the scale and the legend; `letters`: the title's height and the face."""
    (width, height), (head, face) = canvas.image.size, letters
    row, most, least = sum(face.getmetrics()), max(values), min(values)
    foot = max(face.getlength(label) for label in labels) if style.slant else row
    foot += 1.2 * row if style.legend else 0.6 * row
    left = 0.04 * width + face.getlength(str(round(most))) * 1.2 if style.scale else 0.05 * width
    low = 0.0 if bars else least - 0.2 * (most - least)
    return Plot(left, 0.97 * width, head + 1.6 * row + 0.02 * height, height - foot, low, most + 0.05 * (most - least))


def dress(rng: random.Random, canvas: Canvas, area: Plot, style: Style, face, ink: Colour) -> None:
    """Draws the frame, the grid and the numbers of the scale (which no answer names)."""
    draw, back = canvas.draw, canvas.image.getpixel((1, 1))
    faint = tuple(round(0.82 * b + 0.18 * i) for b, i in zip(back, ink, strict=True))
    steps = rng.choice((3, 4, 5))
    for i in range(steps + 1):
        value = area.low + (area.high - area.low) * i / steps
        y = area.y(value)
        if style.grid:
            draw.line((area.left, y, area.right, y), fill=faint)
        if style.scale:
            told = f"{value:.0f}"
            canvas.text((area.left - face.getlength(told) - 6, y - 0.5 * sum(face.getmetrics())), told, face, ink)
    if style.box:
        draw.rectangle((area.left, area.top - 1.5 * sum(face.getmetrics()), area.right, area.bottom), outline=ink)
    else:
        draw.line((area.left, area.bottom, area.right, area.bottom), fill=ink if rng.random() < 0.7 else faint, width=2)


def legend(canvas: Canvas, names: list[str], fills: list[Colour], face, ink: Colour) -> None:
    """The names of the series with a swatch each, along the bottom."""
    width, height = canvas.image.size
    row, x = sum(face.getmetrics()), 0.3 * width
    for name, fill in zip(names, fills, strict=False):
        y = height - 1.15 * row
        canvas.draw.rectangle((x, y + 0.3 * row, x + 0.5 * row, y + 0.8 * row), fill=fill)
        canvas.text((x + 0.7 * row, y), name, face, ink)
        x += face.getlength(name) + 1.6 * row


def values_over(canvas: Canvas, area: Plot, printed: list[str], values: list[float], face, ink: Colour) -> list[int]:
    """Prints each value over its bar or point."""
    row = sum(face.getmetrics())
    lines = []
    for i, (told, value) in enumerate(zip(printed, values, strict=True)):
        x, y = area.x(i, len(values)) - face.getlength(told) / 2, area.y(value) - 1.2 * row
        behind = canvas.image.getpixel((round(min(max(x, 0), canvas.image.width - 1)), round(max(y + row / 2, 0))))
        clear = ink if abs(luminance(behind) - luminance(ink)) > 60 else (255, 255, 255) if luminance(behind) < 128 else (0, 0, 0)
        lines.append(canvas.text((x, y), told, face, clear))
    return lines


def labels_under(canvas: Canvas, area: Plot, labels: list[str], face, ink: Colour, slant: int) -> list[int]:
    """Prints the labels below the plot, level or rising."""
    row, lines = sum(face.getmetrics()), []
    for i, label in enumerate(labels):
        x = area.x(i, len(labels))
        if slant:
            lines.append(canvas.slanted((x, area.bottom + 0.5 * row), label, face, ink, slant))
        else:
            lines.append(canvas.text((x - face.getlength(label) / 2, area.bottom + 0.15 * row), label, face, ink))
    return lines
