"""Charts as matplotlib draws them: near the docs' description, and with what people leave in."""

from __future__ import annotations

import random
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from heldout.words import WORDS  # noqa: E402

STYLES = ("default", "ggplot", "seaborn-v0_8-whitegrid", "bmh", "fivethirtyeight", "Solarize_Light2", "grayscale")
SERIES = (
    "January February March April May June July August".split(), "2011 2012 2013 2014 2015 2016 2017 2018".split(),
    "North South East West Centre Coast".split(), "Oslo Bern Rome Lima Cairo Delhi Quito".split(), "1st 2nd 3rd 4th 5th 6th".split(),
    "I II III IV V VI".split(), "cats dogs birds fish mice".split(), "10h 11h 12h 13h 14h 15h".split(),
)


@dataclass(frozen=True)
class Chart:
    """What a chart shows; `printed` are its values as they stand in it."""

    bars: bool
    title: str
    labels: list[str]
    values: list[float]
    printed: list[str]

    @property
    def answer(self) -> str:
        """The demo model's sentence about it."""
        def at(i: int) -> str:
            return f"{self.labels[i]} ({self.printed[i]})"

        low, high = self.values.index(min(self.values)), self.values.index(max(self.values))
        trend = "rising" if self.values[-1] > self.values[0] else "falling"
        return (
            f'A {"bar" if self.bars else "line"} chart titled "{self.title}". It starts at {at(0)} and ends at {at(-1)}. '
            f"The lowest is {at(low)} and the highest is {at(high)}. It is {trend}."
        )


def facts(rng: random.Random, most: int, form: str) -> Chart:
    """A chart of 3 to `most` different values, printed by a format."""
    labels = rng.choice(SERIES)[: rng.randint(3, most)]
    values = rng.sample(range(3, 97), len(labels))
    scale = rng.choice((1, 10)) if form == "{:.0f}" else rng.choice((1, 0.1)) if form == "{:.1f}" else 1
    values = [v * scale + (0.5 if form == "{:.1f}" else 0) for v in values]
    title = " ".join(rng.choice(WORDS).capitalize() for _ in range(rng.randint(1, 2)))
    return Chart(rng.random() < 0.6, title[:16].strip(), labels, values, [form.format(v) for v in values])


def draw(chart: Chart, style: str, points: float, second: list[float] | None = None, slant: int = 0, scale: bool = True) -> np.ndarray:
    """RGB u8 [height, width, 3]: the chart in a style of matplotlib's, with letters of so many points.

    `second` is another series, with a legend; `slant` turns the labels by so many degrees; `scale` leaves the value axis and the margins as they are.
    """
    with plt.style.context(style), plt.rc_context({"font.size": points, "axes.titlesize": points * 1.15, "figure.autolayout": True}):
        figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=100)
        for values, name in ((chart.values, "A"), (second, "B")):
            if values is None:
                continue
            if chart.bars and second is None:
                axes.bar(chart.labels, values)
            elif chart.bars:
                axes.bar(np.arange(len(values)) + (0.2 if name == "A" else -0.2), values, 0.4, label=name)
            else:
                axes.plot(chart.labels, values, marker="o", label=name)
            for i, value in enumerate(values):
                shown = chart.printed[i] if values is chart.values else f"{value:.0f}"
                axes.annotate(shown, (i, value), xytext=(0, 4), textcoords="offset points", ha="center")
        if second:
            axes.legend()
        axes.margins(y=0.22)
        axes.set_title(chart.title)
        axes.tick_params(axis="x", rotation=slant)
        if not scale:
            axes.set_yticks([])
            axes.margins(x=0.15)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        plt.close(figure)
    return pixels


def near(rng: random.Random) -> tuple[np.ndarray, Chart]:
    """A few bars or points with large whole numbers and short labels, nothing beside them."""
    chart = facts(rng, 4, "{:.0f}")
    short = [label[:3] for label in chart.labels]
    if len(set(short)) < len(short):  # years: matplotlib draws all values of one label at one place
        short = chart.labels
    chart = Chart(chart.bars, chart.title, short, chart.values, chart.printed)
    return draw(chart, "default", rng.uniform(22, 28), scale=False), chart


def plausible(rng: random.Random) -> tuple[np.ndarray, Chart]:
    """Any style, smaller letters, percentages or decimals, sometimes labels at an angle."""
    chart = facts(rng, 6, rng.choice(("{:.0f}", "{:.0f}", "{:.1f}", "{:.0f}%")))
    return draw(chart, rng.choice(STYLES), rng.uniform(13, 21), slant=rng.choice((0, 0, 30))), chart


def two_series(rng: random.Random) -> np.ndarray:
    """A chart with two series, of which the demo model cannot tell."""
    chart = facts(rng, 4, "{:.0f}")
    return draw(chart, rng.choice(STYLES), rng.uniform(16, 22), second=[v * rng.uniform(0.4, 0.9) for v in chart.values])
