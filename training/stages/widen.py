"""Teaches a finished checkpoint's tower, on processors, to read wide pictures, so that its decoder still understands it.

Throw-away heads first learn to name what the tower already tells of plain pages (`stages/stage1.py`), and then stay as they are: the tower has
to say of any face, size and ground what it said of plain letters, where the heads, and so the decoder, look for it. On plain pages its
features are held near those of before besides.
Stopped, it goes on from the last save.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawing.canvas import Mark, to_tile
from drawing.pages import label_maps, page
from drawing.wider import plain_source, wide_source
from network.model import PLACE, ClipVision, place_mask
from network.rounding import coarse
from optim.shared import Clock, Shared, mixed, run
from optim.update import fill
from stages.export import export
from stages.stage1 import Reader, Windows, accuracy, cache_pages, loss_of
from stages.start import from_folder

SIDE = 20  # patches along a side of a window
WIDE, PLAIN = 5, 3  # windows of wide and of plain pictures in a step
HEADS = 0.04  # of the time, before the tower's, for the heads
ROUNDED = 0.5  # of the time, after which weights are seen as they are exported
NEAR = 4.0  # weight of the distance from the features of before
WIDE_PAGES, PLAIN_PAGES, HELD_WIDE, HELD_PLAIN = 31, 32, 33, 34  # names of the cached pictures
TASKS = ("cover", "chart", "chart", "text", "pair")  # those of the pictures that are not pages


@dataclass(frozen=True)
class Plan:
    """What a run is told."""

    work: Path
    start: Path
    out: Path
    minutes: float
    pages: int
    peak: float
    workers: int


def picture(rng: random.Random, wide: bool) -> tuple[np.ndarray, list[Mark]]:
    """A page full of text or, half of the time, a picture of one of the tasks, with its marks."""
    if rng.random() < 0.5:
        return page(rng, wide)
    example = (wide_source if wide else plain_source)(rng, rng.choice(TASKS))
    return to_tile(rng.choice(example.canvases))


def make_pictures(seed: int, count: int, wide: bool) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """`count` pictures in the form of `make_pages`."""
    rng = random.Random(seed)
    drawn = [(tile, *label_maps(marks)) for tile, marks in (picture(rng, wide) for _ in range(count))]
    tiles, maps, tables = zip(*drawn, strict=True)
    return np.stack(tiles), np.stack(maps), list(tables)


def distance(features: Tensor, before: Tensor) -> Tensor:
    """The mean square by which features [batch, n, hidden] differ from those before, in variances; places do not count."""
    features, before = features[..., PLACE:].float(), before[..., PLACE:].float()
    return ((features - before).square().mean((0, 1)) / before.var((0, 1))).mean()


def parts_of(model: Reader, heads: bool) -> Tensor:
    """Each weight's share of the learning rate, flat: the heads' or the tower's."""
    mask = place_mask(model)
    named = [torch.full((p.numel(),), float(name.startswith("tower.") != heads)) for name, p in model.named_parameters()]
    return mask * torch.cat(named)


class Sources:
    """Windows of both kinds of pictures."""

    def __init__(self, work: Path, seed: int) -> None:
        self.wide, self.plain = Windows(work, WIDE_PAGES, seed), Windows(work, PLAIN_PAGES, -seed % (1 << 31))

    def batch(self, wide: int, plain: int) -> tuple[Tensor, Tensor, Tensor]:
        """Windows as `Windows.batch` gives them, the wide ones first."""
        found = [windows.batch(count, SIDE, SIDE) for windows, count in ((self.wide, wide), (self.plain, plain)) if count]
        patches, places, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return patches, places, labels


def heads_loss(model: Reader, sources: Sources) -> Tensor:
    """The heads' loss on plain windows."""
    patches, places, labels = sources.batch(0, WIDE + PLAIN)
    with mixed(), torch.no_grad():
        features = model.tower(patches, places)
    with mixed():
        return loss_of(model.named(features), labels)


def tower_loss(model: Reader, old: ClipVision, sources: Sources) -> tuple[Tensor, float]:
    """The loss of a step, and the distance in it."""
    patches, places, labels = sources.batch(WIDE, PLAIN)
    with mixed():
        features = model.tower(patches, places)
        with torch.no_grad():
            before = old(patches[WIDE:], places[WIDE:])
        loss = loss_of(model.named(features), labels)
    away = distance(features[WIDE:], before)
    return loss + NEAR * away, away.item()


def rate(progress: float, peak: float) -> float:
    """Learning rate: warm-up over the first hundredth, level to two fifths, then down to a thirtieth: most is learnt on the way down."""
    return peak * min(0.05 + 95 * progress, 1.0, max(0.03, (1 - progress) / 0.6))


def worker(plan: Plan, shared: Shared, rank: int, heads: bool) -> None:
    """One worker's loop; worker 0 also logs and saves."""
    torch.manual_seed(1)
    model, old = Reader(), from_folder(plan.start).phi.tower.requires_grad_(False)
    sources = Sources(plan.work, 10 + rank + plan.workers * int(shared.count[0]))
    minutes = plan.minutes * (HEADS if heads else 1 - HEADS)
    clock, shown, running = Clock(float(shared.count[1])), time.time(), []
    while (spent := clock.tick()) < minutes * 60:
        shared.pull(model, coarse if spent > ROUNDED * minutes * 60 else None)
        loss, away = (heads_loss(model, sources), 0.0) if heads else tower_loss(model, old, sources)
        model.zero_grad(set_to_none=True)
        loss.backward()
        shared.push(model, rate(spent / minutes / 60, plan.peak))
        running.append((loss.item(), away))
        if rank == 0 and time.time() - shown > 180:
            shown, shared.count[1] = time.time(), spent
            report(plan, shared, model, running, heads)
    if rank == 0 and running:
        shared.count[1] = spent
        report(plan, shared, model, running, heads)


def report(plan: Plan, shared: Shared, model: Reader, running: list[tuple[float, float]], heads: bool) -> None:
    """Logs the mean loss and distance since the last report and what is named on held-out pictures, and saves."""
    loss, away = np.mean(running, 0)
    running.clear()
    shared.pull(model)
    line: dict[str, object] = {"heads": heads, "step": int(shared.count[0]), "minutes": round(float(shared.count[1]) / 60, 2)}
    line |= {"loss": round(float(loss), 4), "away": round(float(away), 4)}
    with mixed():
        for name, pages in (("plain", HELD_PLAIN), ("wide", HELD_WIDE)):
            line[name] = accuracy(model, Windows(plan.work, pages, 5), 24, SIDE)
    with (plan.work / "widen.jsonl").open("a") as log:
        print(json.dumps(line), file=log)
    shared.save(plan.work / ("heads.pt" if heads else "widen.pt"))


def train(plan: Plan) -> None:
    """Trains for `plan.minutes` of each worker's core (all runs together), resuming where it stopped, and writes the checkpoint."""
    torch.set_num_threads(1)
    for name, count, wide in ((WIDE_PAGES, plan.pages, True), (PLAIN_PAGES, plan.pages // 3, False), (HELD_WIDE, 48, True), (HELD_PLAIN, 48, False)):
        cache_pages(plan.work, name, count, plan.workers, partial(make_pictures, wide=wide))
    student, model = from_folder(plan.start), Reader()
    model.tower.load_state_dict(student.phi.tower.state_dict())
    for heads, path in ((True, plan.work / "heads.pt"), (False, plan.work / "widen.pt")):
        shared = Shared(model, parts_of(model, heads))
        if path.exists():
            shared.load(path)
        run(plan.workers, lambda rank: worker(plan, shared, rank, heads))  # noqa: B023 (called here)
        fill(model, shared.weights)
    student.phi.tower.load_state_dict(model.tower.state_dict())
    export(student.phi, plan.out, rounded=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True, help="the checkpoint folder to begin from")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint with the new tower goes")
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--pages", type=int, default=4500)
    parser.add_argument("--peak", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=2)
    train(Plan(**vars(parser.parse_args())))
