"""Stage 1: the tower alone learns to name what lies under each patch.

Windows of 8x8 patches are cut at any pixel of a page full of text and given true positions. Throw-away
heads name the character under the centre of each patch, its two neighbours on either side in
the line, the colour of a shape, and whether a shape's topmost or lowest point lies there (things
that can be counted: one a shape).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawing.pages import COLOUR_CLASS, COLOUR_COLUMN, NEIGHBOURS, NUM_CLASSES, make_pages
from network.model import GRID, PATCH, ClipConfig, ClipVision, balance, patches_of, place_mask, start_as_convolution
from optim.shared import Clock, Shared, mixed, run

NONE_WEIGHT = 0.1  # most patches are background: their class counts a tenth
HEAD_WEIGHTS = (0.3, 0.7, 1.0, 0.7, 0.3, 0.3, 0.5, 0.5)


class Reader(nn.Module):
    """The tower and its throw-away heads."""

    def __init__(self) -> None:
        super().__init__()
        config = ClipConfig()
        self.tower = ClipVision(config)
        self.heads = nn.ModuleList(
            nn.Linear(config.hidden_size, NUM_CLASSES) for _ in NEIGHBOURS
        )
        self.heads.append(nn.Linear(config.hidden_size, len(COLOUR_CLASS) + 1))
        self.heads.extend(nn.Linear(config.hidden_size, 2) for _ in range(2))
        self.norm = nn.LayerNorm(config.hidden_size)
        start_as_convolution(self.tower)
        nn.init.constant_(self.norm.weight, 2.5)

    def forward(self, patches: Tensor, places: Tensor, rows: int = 0) -> list[Tensor]:
        return self.named(self.tower(patches, places, rows))

    def named(self, features: Tensor) -> list[Tensor]:
        """What the heads make of the tower's features [batch, n, hidden]."""
        x = self.norm(features)
        return [head(x) for head in self.heads]


Maker = Callable[[int, int], tuple[np.ndarray, np.ndarray, list[np.ndarray]]]  # `make_pages` or its like


def cache_pages(folder: Path, seed: int, count: int, workers: int = 2, make: Maker = make_pages) -> None:
    """Renders pages into `folder` unless they are there."""
    if (folder / f"pages{seed}_starts.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = (count + workers * 4 - 1) // (workers * 4)
    with mp.get_context("fork").Pool(workers) as pool:
        parts = pool.starmap(make, [(seed * 100 + i, part) for i in range(workers * 4)])
    tables = [t for p in parts for t in p[2]]
    np.save(folder / f"pages{seed}_pixels.npy", np.concatenate([p[0] for p in parts]))
    np.save(folder / f"pages{seed}_maps.npy", np.concatenate([p[1] for p in parts]))
    np.save(folder / f"pages{seed}_tables.npy", np.concatenate(tables))
    np.save(folder / f"pages{seed}_starts.npy", np.cumsum([0] + [len(t) for t in tables]))


class Windows:
    """Random windows of the cached pages."""

    def __init__(self, folder: Path, pages: int, seed: int) -> None:
        def part(name: str) -> np.ndarray:
            return np.load(folder / f"pages{pages}_{name}.npy", mmap_mode="r")

        self.pixels, self.maps, self.tables, self.starts = map(part, ("pixels", "maps", "tables", "starts"))
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor]:
        """Patches [count, n, 588], places [count, n], labels [count, n, 8]."""
        high, wide = rows * PATCH, cols * PATCH
        crops = np.empty((count, high, wide, 3), np.uint8)
        labels = np.empty((count, rows, cols, len(HEAD_WEIGHTS)), np.uint8)
        places = np.empty((count, rows, cols), np.int64)
        grid = np.arange(rows)[:, None] * GRID + np.arange(cols)[None]
        for i in range(count):
            p = self.rng.integers(len(self.pixels))
            y = self.rng.integers(337 - high)
            x = self.rng.integers(337 - wide)
            crops[i] = self.pixels[p, y : y + high, x : x + wide]
            marks = self.maps[p, y + 7 : y + high : PATCH, x + 7 : x + wide : PATCH]
            labels[i] = self.tables[self.starts[p] + marks.astype(np.int64)]
            top = self.rng.integers(GRID - rows + 1)
            left = self.rng.integers(GRID - cols + 1)
            places[i] = grid + top * GRID + left
            self._tint(crops, labels, i)
        n = rows * cols
        return (
            patches_of(torch.from_numpy(crops)),
            torch.from_numpy(places).view(count, n),
            torch.from_numpy(labels.astype(np.int64)).view(count, n, -1),
        )

    def _tint(self, crops: np.ndarray, labels: np.ndarray, i: int) -> None:
        """Inverts or recolours a window that holds no shape."""
        if labels[i, :, :, COLOUR_COLUMN].any():
            return
        kind = self.rng.random()
        if kind < 0.3:
            crops[i] = 255 - crops[i]
        if kind > 0.7 or kind < 0.15:
            crops[i] = crops[i][:, :, self.rng.permutation(3)]


def loss_of(outputs: list[Tensor], labels: Tensor, ramp: float = 1.0) -> Tensor:
    """The weighted cross entropies of all heads; those of the neighbours count `ramp` times."""
    total = torch.zeros((), device=labels.device)
    for i, (logits, weight) in enumerate(zip(outputs, HEAD_WEIGHTS, strict=True)):
        weight = weight if i in (2, 5, 6, 7) else weight * ramp
        classes = torch.ones(logits.shape[-1], device=labels.device)
        classes[:1].fill_(NONE_WEIGHT)
        total = total + weight * F.cross_entropy(
            logits.float().flatten(0, 1), labels[..., i].flatten(), classes
        )
    return total


def shares(outputs: list[Tensor], labels: Tensor) -> list[float]:
    """Share of right answers of each head on patches that lie on a mark; labels [count, n, 8]."""
    right = [(o.argmax(-1) == labels[..., i])[labels[..., i] > 0] for i, o in enumerate(outputs)]
    return [round(r.float().mean().item(), 4) for r in right]


@torch.no_grad()
def accuracy(model: Reader, windows: Windows, count: int, side: int) -> list[float]:
    """Share of right answers of each head on patches that lie on a mark."""
    patches, places, labels = windows.batch(count, side, side)
    return shares(model(patches, places), labels)


def rate(progress: float, peak: float) -> float:
    """Learning rate: warm-up over the first hundredth, level to 75 %, then down to a thirtieth."""
    if progress < 0.01:
        return peak * (0.05 + 95 * progress)
    return peak * min(1.0, max(0.03, (1 - progress) / 0.25))


@dataclass(frozen=True)
class Plan:
    """What a stage-1 run is told."""

    work: Path
    minutes: float
    pages: int
    peak: float
    batch: int
    attend: bool  # whether heads find their neighbours by attention, as they do in use, on larger windows


def worker(plan: Plan, shared: Shared, rank: int) -> None:
    """One worker's loop; worker 0 also logs and saves."""
    torch.manual_seed(1)
    model = Reader()
    windows = Windows(plan.work, 1, 10 + rank + 2 * int(shared.count[0]))
    clock = Clock(float(shared.count[1]))
    shown, running = time.time(), []
    while (spent := clock.tick()) < plan.minutes * 60:
        progress = spent / (plan.minutes * 60)
        patches, places, labels = windows.batch(8, 20, 20) if plan.attend else windows.batch(plan.batch, 8, 8)
        shared.pull(model)
        with mixed():
            outputs = model(patches, places, 0 if plan.attend else 8)
        loss = loss_of(outputs, labels, 0.5)
        model.zero_grad(set_to_none=True)
        loss.backward()
        shared.push(model, rate(progress, plan.peak))
        running.append(loss.item())
        if rank == 0 and time.time() - shown > 90:
            shown = time.time()
            shared.count[1] = spent
            report(plan, shared, model, running)
    if rank == 0 and running:
        shared.count[1] = spent
        report(plan, shared, model, running)


def report(plan: Plan, shared: Shared, model: Reader, running: list[float]) -> None:
    """Logs the loss since the last report and the held-out accuracy, and saves."""
    held = Windows(plan.work, 2, 5)
    with mixed():
        line = {
            "step": int(shared.count[0]),
            "minutes": round(float(shared.count[1]) / 60, 2),
            "loss": round(float(np.mean(running)), 4),
            "window": accuracy(model, held, 48, 8),
            "page": accuracy(model, held, 4, 24),
        }
    running.clear()
    with (plan.work / "stage1.jsonl").open("a") as log:
        print(json.dumps(line), file=log)
    shared.save(plan.work / "stage1.pt")


def train(plan: Plan) -> None:
    """Trains for `plan.minutes` of each core (all runs together), resuming where it stopped."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cache_pages(plan.work, 1, plan.pages)
    cache_pages(plan.work, 2, 64)
    model = Reader()
    balance(model.tower, Windows(plan.work, 2, 3).batch(64, 8, 8)[0])
    shared = Shared(model, place_mask(model))
    if (plan.work / "stage1.pt").exists():
        shared.load(plan.work / "stage1.pt")
    run(2, lambda rank: worker(plan, shared, rank))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--pages", type=int, default=1500)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=64, help="windows of 8x8 patches a step")
    parser.add_argument("--attend", action="store_true", help="by attention on windows of 20x20 patches")
    args = parser.parse_args()
    train(Plan(**vars(args)))
