"""What a renderer draws: plain samples or wide ones, by kind of block."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor

from drawing.wider import small_source, wide_source
from samples.dataset import BRIEF, ROOM, Sample
from samples.feed import SHARES, Prompts
from stages import crops
from stages.stage2 import Feed

EASY = 0.08  # of stage 2, in which samples are plain ones, the easier first


@dataclass(frozen=True)
class Kind:
    """What a block holds: `count` samples of so many pictures, each of so many views, and texts of at most `text` tokens. Pages have no text."""

    name: str
    pictures: int
    views: int
    count: int
    text: int = BRIEF

    @property
    def tiles(self) -> int:
        """Tiles of a sample."""
        return self.pictures * self.views


PAGE = Kind("page", 1, 1, 36)
NONE, ONE, TWO = Kind("none", 0, 1, 64), Kind("one", 1, 1, 64), Kind("two", 2, 1, 32)
ONE_OF_FOUR, TWO_OF_FOUR = Kind("one of four crops", 1, 5, 12), Kind("two of four crops", 2, 5, 6)
TALKS = tuple(Kind(f"conversation about {n}", n, 1, 48 // n, ROOM) for n in (1, 2, 3, 4))
KINDS = (PAGE, NONE, ONE, TWO, ONE_OF_FOUR, TWO_OF_FOUR, *TALKS)


class Plain:
    """The tasks' own samples; conversations are none of them."""

    def __init__(self, mix: str, seed: int) -> None:
        self.feed = Feed(mix, seed)
        self.rng = self.feed.rng

    def block(self, kind: Kind, progress: float) -> tuple[list[Sample], Tensor | None]:
        """A block's samples, as easy as the progress asks for, and the views of their pictures if these are several."""
        if kind.views > 1:
            return crops.fresh(self.rng, kind.pictures, kind.count)
        return self.feed.fresh(kind.pictures, kind.count, progress), None


class Wide:
    """Wide samples of all kinds; of four crops, those with letters that only these show."""

    def __init__(self, mix: str, seed: int, easy: bool) -> None:
        self.plain, self.rng = Plain(mix, seed), random.Random(-seed)
        self.easy = EASY if easy else 0.0
        self.prompts, self.small = Prompts(self.rng, wide_source, labels=True), Prompts(self.rng, small_source, fine=True)

    def block(self, kind: Kind, progress: float) -> tuple[list[Sample], Tensor | None]:
        """A block's samples and views, as `Plain.block`."""
        if kind.text > BRIEF:
            return self.prompts.batch(kind.pictures, kind.count, {"talk": 1.0}), None
        shares = {name: share for name, share in SHARES[kind.pictures].items() if name != "talk"}
        if kind.views > 1:
            samples = self.small.batch(kind.pictures, kind.count, shares)
            return samples, crops.all_views(samples)
        if progress < self.easy:
            return self.plain.block(kind, progress)
        return self.prompts.batch(kind.pictures, kind.count, shares), None
