"""The pictures of the four tasks, each with its question, its answer and its facts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from drawing.canvas import COLOURS, FONTS, SHAPES, TILE, Canvas, Colour, font, ink_on, jitter, luminance, palette
from drawing.questions import CHART, COVER, HELD, PAIR, TEXT, off_topic, varied
from drawing.words import ALPHABET, made_up, number, person, plain_word, title, word
from samples.tokens import DECLINE, PHRASES


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
    they are equal) and the verdict starts at `verdict`.
    """

    task: str
    canvases: list[Canvas]
    question: str
    parts: list[tuple[str, Pointer | None]]
    facts: dict[str, object] = field(default_factory=dict)
    alike: list[tuple[int, int, bool]] = field(default_factory=list)
    verdict: int = -1

    @property
    def answer(self) -> str:
        return "".join(text for text, _ in self.parts)


def line_marks(canvas: Canvas, line: int) -> list[int]:
    """The mark numbers of a drawn line."""
    return [i for i, m in enumerate(canvas.marks) if m.line == line]


def ask(rng: random.Random, questions: tuple[str, ...]) -> str:
    """The cookbook's question a third of the time, else any of its paraphrases."""
    return questions[0] if rng.random() < 0.35 else varied(rng, rng.choice(questions))


def scale_of(canvas: Canvas) -> float:
    """Picture pixels for one tile pixel."""
    return max(canvas.image.size) / TILE


def fitted(rng: random.Random, lines: list[str], wide: float, sizes: tuple[float, float], zoom: float):
    """A face in a random size (tile pixels) of the range, made smaller until all lines fit `wide`."""
    face = rng.choice(FONTS)
    size = rng.uniform(*sizes) * zoom
    while max(font(face, round(size)).getlength(t) for t in lines) > wide and size > 18 * zoom:
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


def backdrop(rng: random.Random, width: int, height: int) -> tuple[Canvas, Colour]:
    """A plain canvas, sometimes with a frame; and its text colour."""
    back, ink = palette(rng)
    canvas = Canvas.blank(width, height, back)
    if rng.random() < 0.3:
        inset = round(rng.uniform(0.01, 0.03) * width)
        box = (inset, inset, width - inset, height - inset)
        canvas.draw.rectangle(box, outline=ink, width=rng.randint(1, 4))
    return canvas, ink


def cover(rng: random.Random, easy: bool = False) -> Example:
    """A book cover: a large title above (or below) a smaller author's name."""
    width, height = rng.choice(((480, 640), (400, 600), (600, 800), (384, 512), (450, 600), (480, 480)))
    canvas, ink = backdrop(rng, width, height)
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
    face = fitted(rng, drawn, 0.9 * width, (28, 40), zoom)
    small = fitted(rng, wrote, 0.9 * width, (20, 26), zoom)
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


def text(rng: random.Random, wild: bool = False) -> Example:
    """One to three lines of large text; `wild` ones are characters in no order at all."""
    width, height = rng.choice(((640, 480), (640, 360), (400, 400), (480, 640), (336, 336), (800, 600)))
    canvas, ink = backdrop(rng, width, height)
    zoom = scale_of(canvas)
    lines = [(wild_phrase if wild else phrase)(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    face = fitted(rng, lines, 0.92 * width, (24, 40), zoom)
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
    canvas_title = canvas.text(((width - big.getlength(name)) * rng.choice((0.5, 0.5, 0.2)), 0.02 * height), name, big, ink)
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
    return chart_example(rng, canvas, bars, (name, canvas_title), labels, label_lines, values, value_lines)


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


def chart_example(rng, canvas, bars, name, labels, label_lines, values, value_lines) -> Example:
    """Puts a chart's answer together."""

    def at(i: int) -> list[tuple[str, Pointer | None]]:
        label, value = line_marks(canvas, label_lines[i]), line_marks(canvas, value_lines[i])
        return [(labels[i], Pointer(0, label)), (" (", None), (str(values[i]), Pointer(0, value))]

    low, high = values.index(min(values)), values.index(max(values))
    trend = "rising" if values[-1] > values[0] else "falling"
    parts: list[tuple[str, Pointer | None]] = [(f'A {"bar" if bars else "line"} chart titled "', None)]
    parts += [(name[0], Pointer(0, line_marks(canvas, name[1]))), ('". It starts at ', None), *at(0)]
    parts += [(") and ends at ", None), *at(len(values) - 1), ("). The lowest is ", None), *at(low)]
    parts += [(") and the highest is ", None), *at(high), (f"). It is {trend}.", None)]
    facts = {
        "kind": "bar" if bars else "line", "title": name[0], "first": labels[0], "last": labels[-1],
        "lowest": [labels[low], values[low]], "highest": [labels[high], values[high]], "trend": trend,
        "first_value": values[0], "last_value": values[-1],
    }
    return Example("chart", [canvas], ask(rng, CHART), parts, facts)


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


def pair(rng: random.Random) -> Example:
    """Two pictures of shapes that differ in count, colour, shape, or nothing."""
    one = (rng.randint(1, MOST_SHAPES), rng.choice(list(COLOURS)), rng.choice(SHAPES))
    other = (rng.randint(1, MOST_SHAPES), rng.choice(list(COLOURS)), rng.choice(SHAPES))
    two = tuple(b if rng.random() < 0.6 else a for a, b in zip(one, other, strict=True))
    canvases = [shapes(rng, *one), shapes(rng, *two)]  # type: ignore[arg-type]
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
