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


def missing(rng: random.Random, source: Source) -> Example:
    """A task's question about a picture that has no answer to it: it is said what is missing."""
    task = rng.choice(TASKS)
    if task == "chart" and rng.random() < 0.3:
        return lacking(rng, task, MISSING["series"], [two_series(rng)])
    if task == "text" and rng.random() < 0.4:
        return lacking(rng, task, UNREADABLE, [wider.blurred(rng)])
    if task == "pair" and rng.random() < 0.3:
        return lacking(rng, task, MISSING[task], source(rng, task).canvases[:1])
    count = 2 if task == "pair" else 1
    if rng.random() < 0.5:
        canvases = [wider.scene(rng) for _ in range(count)]
    else:
        other = rng.choice(OTHERS[task])
        canvases = [source(rng, other).canvases[0] for _ in range(count)]
    return lacking(rng, task, MISSING[task], canvases)


def lacking(rng: random.Random, task: str, answer: str, canvases: list[Canvas]) -> Example:
    """The example of a task's question that is answered by what is missing."""
    return Example("decline", canvases, wording(rng, task), [(answer, None)], {})


def decline(rng: random.Random, source: Source) -> Example:
    """Chatter and greetings of several languages, with a picture of any kind or without."""
    question = rng.choice(GREETINGS) if rng.random() < 0.25 else off_topic(rng)
    canvases: list[Canvas] = []
    kind = rng.random()
    if kind < 0.48:
        canvases = source(rng, rng.choice(TASKS)).canvases
    elif kind < 0.6:
        canvases = [wider.scene(rng)]
        question = rng.choice(OPEN) if rng.random() < 0.5 else question
    return Example("decline", canvases, question, [(DECLINE, None)], {})


KINDS: dict[str, Callable[[random.Random, Source], Example]] = {
    **{task: (lambda rng, source, task=task: asked(rng, source, task)) for task in TASKS}, "form": form, "missing": missing, "decline": decline,
}


def prompt(rng: random.Random, source: Source, kind: str) -> Example:
    """An example of a kind, sometimes after a system message."""
    example = KINDS[kind](rng, source)
    if rng.random() < SYSTEM_SHARE:
        example.system = rng.choice(SYSTEMS)
    return example
