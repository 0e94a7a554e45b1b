"""The held-out cases: two sets of kinds, written as files that `evaluate.py --cases` reads.

`near` keeps to what docs/guide/demo.md says the model can do, in other words, faces and layouts than it was trained on;
`plausible` is what users bring. A case's `answer` is the model's own wording, None where it has to decline; `of` parts a kind.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heldout import charts, scenes
from heldout.paint import FACES, PLAIN, save
from heldout.words import CHATTER, DOCS, GREETINGS, OPEN, SYSTEMS, WORDINGS

Picture = np.ndarray
SIZES = (10, 12, 14, 16, 20, 26, 32, 40, 50, 64, 80)
BOOK = {
    "type": "object", "additionalProperties": False, "required": ["title", "author"],
    "properties": {"title": {"type": "string", "maxLength": 40}, "author": {"type": "string", "maxLength": 40}},
}


@dataclass
class Turn:
    """A question about pictures, and its right answer."""

    pictures: list[Picture]
    question: str
    answer: str | None


@dataclass
class Case:
    """One turn or several, and what goes with the request."""

    turns: list[Turn]
    more: dict[str, object] = field(default_factory=dict)  # of, detail, system, schema


def asked(task: str, pictures: list[Picture], answer: str, **more: object) -> Case:
    """A task's question as the docs have it."""
    return Case([Turn(pictures, DOCS[task], answer)], more)


def of_task(rng: random.Random, task: str) -> Turn:
    """A picture near the docs' description with the docs' question."""
    if task == "cover":
        scene = scenes.plain_cover(rng)
        return Turn([scene.pixels], DOCS[task], scene.answer)
    if task == "chart":
        pixels, chart = charts.near(rng)
        return Turn([pixels], DOCS[task], chart.answer)
    if task == "pair":
        return Turn(*_pair(rng))
    scene = scenes.lines_of(rng, rng.choice(PLAIN), rng.uniform(24, 36), rng.randint(1, 2))
    return Turn([scene.pixels], DOCS[task], scene.answer)


def _pair(rng: random.Random) -> tuple[list[Picture], str, str]:
    pictures, answer = scenes.pair(rng, True)
    return pictures, DOCS["pair"], answer


def plain(task: str) -> Callable[[random.Random, int], Case]:
    """Makes cases of a task near the docs' description."""
    return lambda rng, _: Case([of_task(rng, task)])


def wording(rng: random.Random, n: int) -> Case:
    """The same pictures twice: asked as the docs do, and in words not trained on."""
    task = list(DOCS)[n // 2 % 4]
    turn = of_task(random.Random(f"wording {n // 2}"), task)
    if n % 2:
        turn.question = WORDINGS[task][n // 8 % len(WORDINGS[task])]
    return Case([turn], {"of": "untrained" if n % 2 else "docs"})


def open_question(rng: random.Random, n: int) -> Case:
    """A question that names no kind; the picture's kind says what to tell."""
    turn = of_task(rng, list(DOCS)[n % 4])
    turn.question = OPEN[n // 4 % len(OPEN)]
    return Case([turn])


def declined(rng: random.Random, n: int) -> Case:
    """Chatter and greetings, with a picture or without."""
    pictures = of_task(rng, rng.choice(list(DOCS))).pictures if n % 3 == 0 else []
    return Case([Turn(pictures, rng.choice(CHATTER if n % 2 else GREETINGS), None)])


def unanswerable(rng: random.Random, n: int) -> Case:
    """A task's question about a picture that has no answer to it."""
    kind = ("blank", "noise", "gradient", "landscape", "wrong kind", "one picture", "two series")[n % 7]
    task = list(DOCS)[n // 7 % 4]
    if kind == "wrong kind":
        other = {"cover": "pair", "chart": "cover", "pair": "chart", "text": "pair"}[task]
        pictures = of_task(rng, other).pictures[: 2 if task == "pair" else 1]
    elif kind == "one picture":
        task, pictures = "pair", of_task(rng, "pair").pictures[:1]
    elif kind == "two series":
        task, pictures = "chart", [charts.two_series(rng)]
    else:
        pictures = [scenes.nothing(rng, kind) for _ in range(2 if task == "pair" else 1)]
    return Case([Turn(pictures, DOCS[task], None)], {"of": kind})


def detail(rng: random.Random, n: int) -> Case:
    """Large text, looked at closely; the same pictures with the model's own detail."""
    turn = of_task(random.Random(f"detail {n // 2}"), ("text", "cover", "chart")[n // 2 % 3])
    return Case([turn], {"of": "high", "detail": "high"} if n % 2 else {"of": "auto"})


def conversation(rng: random.Random, n: int) -> Case:
    """The three tasks one after the other, or one picture and a second question about it."""
    if n % 2:
        turns = [of_task(rng, task) for task in ("cover", "chart", "pair")]
        return Case(turns, {"of": "three tasks"})
    first = of_task(rng, "text")
    return Case([first, Turn([], "What text is in this image?", first.answer)], {"of": "again"})


def system(rng: random.Random, n: int) -> Case:
    """A system prompt before a task's question."""
    return Case([of_task(rng, list(DOCS)[n % 4])], {"system": SYSTEMS[n // 4 % len(SYSTEMS)]})


def form(rng: random.Random, n: int) -> Case:
    """A cover's title and author as JSON under a schema."""
    scene = scenes.plain_cover(rng)
    name, author = scene.answer.removeprefix('The title of the book is "').removesuffix(".").split('" and the author is ')
    answer = json.dumps({"title": name, "author": author})
    return Case([Turn([scene.pixels], "What are the title and the author? Answer in JSON.", answer)], {"schema": BOOK})


def designed(rng: random.Random, n: int) -> Case:
    """A designer's cover."""
    scene = scenes.designed_cover(rng)
    return asked("cover", [scene.pixels], scene.answer)


def library_chart(rng: random.Random, n: int) -> Case:
    """A chart in any of matplotlib's styles."""
    pixels, chart = charts.plausible(rng)
    return asked("chart", [pixels], chart.answer)


def free_pair(rng: random.Random, n: int) -> Case:
    """Shapes of several sizes, outlined, on gradients."""
    pictures, answer = scenes.pair(rng, False)
    return asked("pair", pictures, answer)


def face(rng: random.Random, n: int) -> Case:
    """One line in one of twenty faces."""
    chosen = FACES[n % len(FACES)]
    scene = scenes.lines_of(rng, chosen, rng.uniform(24, 36), 1)
    return asked("text", [scene.pixels], scene.answer, of=chosen.name)


def size(rng: random.Random, n: int) -> Case:
    """One line of letters between 10 and 80 pixels of the tile."""
    scene = scenes.lines_of(rng, rng.choice(PLAIN), (chosen := SIZES[n % len(SIZES)]), 1)
    return asked("text", [scene.pixels], scene.answer, of=f"{chosen} pixels")


def closer(rng: random.Random, n: int) -> Case:
    """Letters that only the crops show large enough."""
    scene = scenes.lines_of(rng, rng.choice(PLAIN), rng.uniform(8, 15), rng.randint(1, 3))
    return asked("text", [scene.pixels], scene.answer, detail="high")


def unreadable(rng: random.Random, n: int) -> Case:
    """Letters too small for anyone."""
    scene = scenes.lines_of(rng, rng.choice(PLAIN), rng.uniform(2, 3.5), 3)
    return Case([Turn([scene.pixels], DOCS["text"], None)])


def scenery(make: Callable[[random.Random], scenes.Scene]) -> Callable[[random.Random, int], Case]:
    """Makes cases that ask what is written in a scene."""
    def case(rng: random.Random, _: int) -> Case:
        scene = make(rng)
        return asked("text", [scene.pixels], scene.answer)
    return case


SETS: dict[str, dict[str, Callable[[random.Random, int], Case]]] = {
    "near": {
        **{task: plain(task) for task in DOCS}, "wording": wording, "decline": declined, "unanswerable": unanswerable, "detail": detail,
        "conversation": conversation, "system": system, "json": form,
    },
    "plausible": {
        "cover": designed, "chart": library_chart, "pair": free_pair, "sign": scenery(scenes.sign), "receipt": scenery(scenes.receipt),
        "open": open_question, "face": face, "size": size, "closer": closer, "unreadable": unreadable,
    },
}


def write(folder: Path, count: int, seed: int) -> None:
    """Renders `count` cases of each kind into a folder for each set."""
    for name, kinds in SETS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        with (folder / name / "cases.jsonl").open("w") as out:
            for kind, make in kinds.items():
                for n in range(count):
                    case = make(random.Random(f"held out {seed} {name} {kind} {n}"), n)
                    print(json.dumps(row_of(case, kind, n, folder / name)), file=out)


def row_of(case: Case, kind: str, n: int, folder: Path) -> dict[str, object]:
    """Saves a case's pictures; its line of cases.jsonl, where further turns are `turns` after the first."""
    rows: list[dict[str, object]] = []
    for t, turn in enumerate(case.turns):
        names = [f"{kind}{n:03}_{t}{i}.png" for i in range(len(turn.pictures))]
        for picture, file in zip(turn.pictures, names, strict=True):
            save(picture, folder / file)
        rows.append({"images": names, "question": turn.question, "answer": turn.answer})
    return {"task": kind, **rows[0], **({"turns": rows[1:]} if rows[1:] else {}), **case.more}
