"""Renders the pictures of `examples/` from seeds that neither training nor evaluation uses."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from unittest.mock import patch

from drawing import charts, tasks
from drawing.example import Example
from drawing.tasks import MAKERS

# Everyday words, so that a reader can tell a right answer from a misreading; training draws them at random.
WORDS = {
    "cover": {"title": ["Summer Garden"], "person": ["Anna Porter"]},
    "chart": {"heading": ["Coffee Price"]},
    "pair": {},
    "text": {"phrase": ["Fresh Bread", "Open Daily", "Welcome"]},
}
# Of the first pictures of each kind one that shows most; the model answers nearly all of them right, see README.md here.
SEEDS = {"cover": 3, "chart": 7, "pair": 16, "text": 15}
NAMES = {"cover": ("cover.png",), "chart": ("chart.png",), "pair": ("left.png", "right.png"), "text": ("text.png",)}


def next_of(words: list[str]) -> Callable[[random.Random], str]:
    """A function that gives the words in turn, in place of one that draws some."""
    turn = cycle(words)
    return lambda _: next(turn)


def example(task: str, seed: int) -> Example:
    """The example of a task at a seed."""
    with ExitStack() as fixed:
        for name, words in WORDS[task].items():
            fixed.enter_context(patch.object(charts if task == "chart" else tasks, name, next_of(words)))
        return MAKERS[task](random.Random(f"examples/{task}/{seed}"))


def main(folder: Path) -> None:
    """Writes all pictures and prints their questions' true answers."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, names in NAMES.items():
        made = example(task, SEEDS[task])
        for canvas, name in zip(made.canvases, names, strict=True):
            canvas.image.save(folder / name, optimize=True)
        print(" ".join(names), repr(made.answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
