"""Conversations: one task after the other, a second question about the same picture, chatter in between."""

from __future__ import annotations

import random
from dataclasses import replace

from drawing.example import Example
from drawing.prompts import prompt
from drawing.wider import Source
from drawing.wordings import wording

FOLLOWS = (
    "Say it again.", "Again, please.", "Repeat that.", "Are you sure?", "Once more?", "What was it?", "Check it again.", "Really?",
    "And in one sentence?",
)
MOST_PICTURES = 4


def conversation(rng: random.Random, source: Source) -> Example:
    """Two or three turns with at most four pictures; the last turn is the example, the others its earlier ones."""
    turns: list[Example] = []
    for _ in range(rng.choice((2, 2, 3))):
        last = turns[-1] if turns else None
        if last is not None and last.task != "decline" and rng.random() < 0.4:
            turns.append(followed(rng, last))
        else:
            turns.append(opened(rng, source, MOST_PICTURES - sum(len(t.canvases) for t in turns)))
    *earlier, example = turns
    return replace(example, earlier=earlier, system=turns[0].system)


def opened(rng: random.Random, source: Source, room: int) -> Example:
    """A turn with pictures of its own, or chatter without."""
    kinds = ["decline"] + ["cover", "chart", "text"] * (room > 0) + ["pair"] * 2 * (room > 1)
    return prompt(rng, source, rng.choice(kinds), 0)


def followed(rng: random.Random, last: Example) -> Example:
    """A second question about the pictures of the turn before, which is answered as the first was."""
    question = rng.choice(FOLLOWS) if rng.random() < 0.4 else wording(rng, last.task)
    return replace(last, canvases=[], question=question, back=last.back or len(last.canvases))
