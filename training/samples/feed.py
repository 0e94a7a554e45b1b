"""Samples of wide prompts by number of pictures: wordings, forms, what has to be declined, conversations."""

from __future__ import annotations

import random
from collections import deque

from drawing.prompts import prompt
from drawing.talks import conversation
from drawing.wider import Source
from samples.dataset import BRIEF, Sample, prepare

# Shares of the kinds among samples of so many pictures
SHARES: dict[int, dict[str, float]] = {
    0: {"decline": 1.0},
    1: {"cover": 0.2, "chart": 0.22, "text": 0.22, "decline": 0.16, "missing": 0.12, "form": 0.04, "talk": 0.04},
    2: {"pair": 0.76, "decline": 0.06, "missing": 0.08, "talk": 0.1},
    3: {"talk": 1.0},
    4: {"talk": 1.0},
}
GROUPS = {1: 0.62, 2: 0.24, 0: 0.04, 3: 0.05, 4: 0.05}  # shares of the numbers of pictures


class Prompts:
    """Fresh samples from one source of pictures; conversations about another number of pictures than wanted are kept for when that is.

    `fine`: for pictures of four crops; `labels`: with what a patch shows, which the cells' loss asks for.
    """

    def __init__(self, rng: random.Random, source: Source, fine: bool = False, labels: bool = False) -> None:
        self.rng, self.source, self.fine, self.labels = rng, source, fine, labels
        self.spare: dict[tuple[int, str], deque[Sample]] = {}

    def sample(self, kind: str, images: int) -> Sample:
        """A sample of a kind with so many pictures."""
        wanted = self._spare(images, kind)
        while not wanted:
            example = conversation(self.rng, self.source) if kind == "talk" else prompt(self.rng, self.source, kind, images)
            found = prepare(example, self.labels, self.fine)
            if found.fits and (kind == "talk" or len(found.text) <= BRIEF):
                self._spare(len(found.tiles), kind).append(found)
        return wanted.popleft()

    def batch(self, images: int, count: int, kinds: dict[str, float] | None = None) -> list[Sample]:
        """Samples with so many pictures, of all kinds unless told which in what shares."""
        shares = kinds or SHARES[images]
        return [self.sample(kind, images) for kind in self.rng.choices(list(shares), list(shares.values()), k=count)]

    def _spare(self, images: int, kind: str) -> deque[Sample]:
        return self.spare.setdefault((images, kind), deque(maxlen=32))
