"""Prompts as users write them, about pictures of any source: wordings, system messages, forms, and what has to be declined."""

from __future__ import annotations

import random
from collections.abc import Callable

from drawing import wider
from drawing.canvas import Canvas
from drawing.example import Example
from drawing.plots import two_series
from drawing.questions import off_topic, varied
from drawing.wider import Source
from drawing.wordings import GREETINGS, OPEN, SYSTEMS, wording
from samples.tokens import DECLINE, MISSING, UNREADABLE

OPEN_SHARE = 0.12  # of a task's questions that name no kind
SYSTEM_SHARE = 0.1  # of prompts that begin with a system message
TASKS = ("cover", "chart", "pair", "text")
# What a task's question finds nothing to answer it by in: a text has no shapes, but a cover has a text
OTHERS = {"cover": ("chart", "pair"), "chart": ("cover", "text", "pair"), "pair": ("cover", "chart", "text"), "text": ("pair",)}


def asked(rng: random.Random, source: Source, task: str) -> Example:
    """A task's example in a user's words."""
    example = source(rng, task)
    example.question = varied(rng, rng.choice(OPEN)) if rng.random() < OPEN_SHARE else wording(rng, task)
    return example


def form(rng: random.Random, source: Source) -> Example:
    """A cover's or a line's content as JSON, as a schema would have it."""
    said = rng.choice((" Answer in JSON.", " As JSON.", " Reply with JSON only.", " Use the schema.", " Give me JSON."))
    if rng.random() < 0.6:
        example = source(rng, "cover")
        name, author = example.parts[1], example.parts[3]
        example.parts = [('{"title":"', None), name, ('","author":"', None), author, ('"}', None)]
    else:
        while "\n" in (example := source(rng, "text")).answer:
            pass
        example.parts = [('{"text":"', None), example.parts[0], ('"}', None)]
    example.question = wording(rng, example.task) + said
    return example


def missing(rng: random.Random, source: Source, images: int) -> Example:
    """A task's question about so many pictures, one or two, that have no answer to it: it is said what is missing."""
    task = "pair" if images == 2 else rng.choice(TASKS)
    if task == "chart" and rng.random() < 0.3:
        return lacking(rng, task, MISSING["series"], [two_series(rng)])
    if task == "text" and rng.random() < 0.4:
        return lacking(rng, task, UNREADABLE, [wider.blurred(rng)])
    if task == "pair" and images == 1:
        return lacking(rng, task, MISSING[task], source(rng, rng.choice(("pair", "pair", "cover", "chart"))).canvases[:1])
    if rng.random() < 0.5:
        canvases = [wider.scene(rng) for _ in range(images)]
    else:
        other = rng.choice(OTHERS[task])
        canvases = [source(rng, other).canvases[0] for _ in range(images)]
    return lacking(rng, task, MISSING[task], canvases)


def lacking(rng: random.Random, task: str, answer: str, canvases: list[Canvas]) -> Example:
    """The example of a task's question that is answered by what is missing."""
    return Example("decline", canvases, wording(rng, task), [(answer, None)], {})


def decline(rng: random.Random, source: Source, images: int) -> Example:
    """Chatter and greetings of several languages, with so many pictures of any kind; without one a task's question now and then."""
    question = rng.choice(GREETINGS) if rng.random() < 0.25 else off_topic(rng)
    canvases: list[Canvas] = []
    if images == 2:
        canvases = source(rng, "pair").canvases
    elif images == 1 and rng.random() < 0.8:
        canvases = source(rng, rng.choice(("cover", "chart", "text"))).canvases
    elif images == 1:
        canvases = [wider.scene(rng)]
        question = rng.choice(OPEN) if rng.random() < 0.5 else question
    elif rng.random() < 0.3:
        question = rng.choice(OPEN) if rng.random() < 0.2 else wording(rng, rng.choice(TASKS))
    return Example("decline", canvases, question, [(DECLINE, None)], {})


KINDS: dict[str, Callable[[random.Random, Source, int], Example]] = {
    **{task: (lambda rng, source, _, task=task: asked(rng, source, task)) for task in TASKS},
    "form": lambda rng, source, _: form(rng, source), "missing": missing, "decline": decline,
}


def prompt(rng: random.Random, source: Source, kind: str, images: int) -> Example:
    """An example of a kind with so many pictures (of a task's kinds, as many as they have), sometimes after a system message."""
    example = KINDS[kind](rng, source, images)
    if rng.random() < SYSTEM_SHARE:
        example.system = rng.choice(SYSTEMS)
    return example
