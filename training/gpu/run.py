"""All stages on one NVIDIA GPU: nine minutes in place of two hours, and ten times the samples.

    python training/train.py --gpu --work /tmp/demo --out DIR [--wide] [--start FOLDER]

All processors but four render. Pages, then samples with their features, lie in rings on the GPU, from which every step draws its
batch. Stage 3 is not a part of its own: pictures of four crops join in the last quarter of stage 2, conversations too. Times are by the
clock. Stopped, it goes on from the last save, at most a twentieth of the run old, when run again. With a checkpoint to start from, its tower reads
pages with attention at once, and its decoder goes on from what it knows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gpu.feeds import KINDS, NONE, ONE, ONE_OF_FOUR, PAGE, TALKS, TWO, TWO_OF_FOUR, Kind
from gpu.render import Orders, Renderers
from gpu.rings import BLOCKS, Stock
from network.model import GRID, balance, place_mask
from network.rounding import round_decoder
from optim.shared import keep
from optim.update import CLIP, Update, flat
from samples.dataset import FOUR_CROPS, LONG_ROWS, Batch, Sample, Shape, assemble
from stages.stage1 import Reader, loss_of, shares
from stages.stage1 import rate as tower_rate
from stages.stage2 import TASKS, Student, answer_loss, cell_loss, guide_loss, held_out, hidden_after, rate, trained
from stages.start import from_folder
from stages.strengthen import strengthen
from stages.tune import held_out as wide_held_out

MIX = "0.25,0.36,0.25,0.25,0.14"  # of TASKS, near stage 2's, but more to be declined; pairs' (the third) is not used: see `drawn`
TOWER, WIDE_TOWER = 0.21, 0.3  # of the time for stage 1, of plain pages and of wide ones
PLAIN = 0.4  # of stage 1 without attention
# Shares of stage 2 after which prompts are full, weights rounded, crops seen (these need full prompts: CROPS >= FULL)
FULL, ROUNDED, CROPS = 0.75, 0.7, 0.75
WIDE_HELD = {"cover": 1, "chart": 1, "pair": 2, "text": 1, "missing": 1}  # kinds of wide samples held out, and their pictures
SIDE = 20  # patches along a side of stage 1's windows


@dataclass(frozen=True)
class Plan:
    """What a run is told."""

    work: Path
    minutes: float
    batch: int
    peak: float
    workers: int
    scale: float  # of all rings
    wide: bool  # wide pages and samples in place of plain ones
    start: Path | None  # a checkpoint to begin from

    @property
    def tower(self) -> float:
        """The share of the time for stage 1."""
        return WIDE_TOWER if self.wide else TOWER


class Run:
    """The clock, the log and what was saved: `part` tells what was trained then, 0 and 1 the tower's parts, 2 the whole."""

    def __init__(self, plan: Plan) -> None:
        self.path = plan.work / "gpu.pt"
        self.saved: dict[str, Tensor] = torch.load(self.path, weights_only=True) if self.path.exists() else {}
        self.spent, self.seconds = float(self.saved.get("spent", 0.0)), plan.minutes * 60
        self.started = time.time() - self.spent
        self.log = (plan.work / "gpu.jsonl").open("a" if self.saved else "w")
        self.noted = 0.0

    def begin(self) -> None:
        """Starts the clock."""
        self.started = time.time() - self.spent

    @property
    def part(self) -> int:
        """The part that the saved state belongs to."""
        return int(self.saved.get("part", 0))

    def save(self, part: int, optimizer: Optimizer) -> None:
        """Keeps a part's state."""
        spent = torch.tensor(time.time() - self.started, dtype=torch.float64)
        keep({"part": torch.tensor(part), "spent": spent, **optimizer.state()}, self.path)

    def load(self, part: int, optimizer: Optimizer) -> None:
        """Goes on from the saved state if it is this part's."""
        if self.saved and self.part == part:
            optimizer.load(self.saved)

    def progress(self, begin: float, end: float) -> Iterator[float]:
        """Shares of the time between two shares of the run, until it is over."""
        while (spent := (time.time() - self.started) / self.seconds) < end:
            yield (spent - begin) / (end - begin)

    def due(self) -> bool:
        """Whether the last note is a twentieth of the run old."""
        return time.time() - self.noted > max(4.0, self.seconds / 20)

    def note(self, **what: object) -> None:
        """Logs a line."""
        self.noted = time.time()
        line = json.dumps({"minutes": round((self.noted - self.started) / 60, 3), **what})
        print(line, file=self.log, flush=True)
        print(line, file=sys.stderr, flush=True)


class Optimizer:
    """`Update` without waiting for the GPU but at every 20th step; keeps exact weights beside the model's, which may be rounded."""

    def __init__(self, model: nn.Module, moving: Tensor) -> None:
        self.model, self.update = model, Update(model, moving)
        self.weights = flat(model)
        self.live = self.weights.clone()
        for p, part in zip(model.parameters(), self.live.split([p.numel() for p in model.parameters()]), strict=True):
            p.data = part.view_as(p)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.resting = [torch.zeros_like(p).flatten() for p in model.parameters()]  # gradients of what gets none
        self.steps = 0

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, in the computer's memory."""
        return {"weights": self.weights.cpu(), "first": self.first.cpu(), "second": self.second.cpu(), "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        for name in ("weights", "first", "second"):
            getattr(self, name).copy_(state[name])
        self.live.copy_(self.weights)
        self.steps = int(state["steps"])

    @torch.no_grad()
    def step(self, rate_: float) -> None:
        """One step with the model's gradients; where their norm is not finite, with zeros."""
        parts = zip(self.model.parameters(), self.resting, strict=True)
        grad = torch.cat([none if p.grad is None else p.grad.flatten() for p, none in parts])
        self.model.zero_grad(set_to_none=True)
        norm = grad.norm()
        grad = grad.masked_fill(~norm.isfinite(), 0.0) * (CLIP / (norm.nan_to_num(1.0, 1.0) + 1e-6)).clamp(max=1.0)
        self.steps += 1
        step, momentum = self.update.moments(grad, self.first, self.second, self.steps)
        self.update.matrices(momentum, step)
        self.update.apply(self.weights, step, rate_)
        self.live.copy_(self.weights)
        if self.weights.is_cuda and self.steps % 20 == 0:
            torch.cuda.synchronize()  # so that the clock is true


def train_tower(plan: Plan, run: Run, stock: Stock) -> Reader:
    """Stage 1: without attention, then with it; a tower to start from has learnt the former."""
    pages = stock.rings[PAGE]
    while pages.held < pages.size // 6:
        stock.take(wait=True)
    model = Reader().to(stock.device)
    balance(model.tower, stock.windows(64, 8)[0])
    if plan.start:
        model.tower.load_state_dict(from_folder(plan.start).phi.tower.state_dict())
    split = 0.0 if plan.start else plan.tower * PLAIN
    for part, begin, end in ((0, 0.0, split), (1, split, plan.tower)):
        if part >= run.part and begin < end:
            if part and run.part < 1 and not plan.start:
                strengthen(model, *stock.windows(8, GRID)[:2])
            read_pages(plan, run, stock, model, Span(part, begin, end))
    return model


@dataclass(frozen=True)
class Span:
    """A part of stage 1 and the shares of the run at which it begins and ends."""

    part: int
    begin: float
    end: float


def read_pages(plan: Plan, run: Run, stock: Stock, model: Reader, span: Span) -> None:
    """Trains the tower for one part of stage 1."""
    pages, moving = stock.rings[PAGE], place_mask(model).to(stock.device)
    optimizer = Optimizer(model, moving)
    run.load(span.part, optimizer)
    for p in run.progress(span.begin, span.end):
        if stock.made[PAGE] < pages.size:
            stock.take()
        else:
            stock.want_samples()
        patches, places, labels = stock.windows(plan.batch // 2, SIDE)
        with stock.mixed():
            outputs = model(patches, places, 0 if span.part else SIDE)
        loss_of(outputs, labels, 0.5).backward()
        optimizer.step(tower_rate(p, plan.peak / (2 if plan.start else 1)))
        if run.due():
            run.note(stage=1, step=optimizer.steps, page=named(model, stock))
            run.save(span.part, optimizer)
    run.note(stage=1, step=optimizer.steps, page=named(model, stock))


@torch.no_grad()
def named(model: Reader, stock: Stock) -> list[float]:
    """Shares of patches named right on whole pages, by head (pages that were trained on, in windows)."""
    patches, places, labels = stock.windows(16, GRID)
    with stock.mixed():
        outputs = model(patches, places)
    return shares(outputs, labels)


@dataclass(frozen=True)
class Rows:
    """Samples of a kind on the device: records [n, numbers], features [n, tiles, 576, hidden] unless there are no pictures."""

    kind: Kind
    records: Tensor
    features: Tensor | None = None


class Whole:
    """The whole model and its losses on rows of the stock."""

    def __init__(self, reader: Reader | None, stock: Stock, start: Path | None) -> None:
        torch.manual_seed(2)
        self.stock = stock
        self.model = from_folder(start) if start else Student()
        if reader is not None:  # otherwise the tower comes with the saved state
            self.model.phi.tower.load_state_dict(reader.tower.state_dict())
        self.model.to(stock.device)

    def laid_out(self, rows: Rows, short: bool) -> tuple[Batch, Tensor | None]:
        """The batch of some rows, and their pictures' rows [pictures, rows, hidden]."""
        kind, features = rows.kind, rows.features
        batch = assemble(rows.records, Shape(kind.pictures, short, FOUR_CROPS if kind.views > 1 else LONG_ROWS), kind.text)
        if features is None:
            return batch, None
        embed = self.model.phi.model.vision_embed_tokens
        if kind.views > 1:
            return batch, embed.grid(features.view(-1, kind.views, *features.shape[2:]), 2, 2)
        return batch, embed(features.flatten(0, 1), short)

    def losses(self, rows: Rows, short: bool) -> list[Tensor]:
        """The answers', the guides' and the cells' loss."""
        batch, pictures = self.laid_out(rows, short)
        hidden, seen = hidden_after(self.model, batch, pictures)
        parts = [answer_loss(self.model, batch, hidden)]
        if pictures is not None:
            parts.append(guide_loss(batch, seen))
            if rows.kind.views == 1:
                parts.append(cell_loss(self.model, batch, pictures))
        return parts

    @torch.no_grad()
    def exact(self, rows: Rows, short: bool) -> float:
        """Share of whole answers right; greedy answers are right if and only if every token is, fed the true answer."""
        with self.stock.mixed():
            batch, pictures = self.laid_out(rows, short)
            hidden, _ = hidden_after(self.model, batch, pictures)
            right = (self.model.phi.lm_head(hidden).argmax(-1) == batch.targets) | (batch.targets < 0)
        return round(right.all(1).float().mean().item(), 4)

    def put(self, samples: list[Sample]) -> Rows:
        """Samples of one or of two pictures, on the device."""
        kind, device = (ONE, TWO)[len(samples[0].tiles) - 1], self.stock.device
        records = torch.from_numpy(np.stack([s.record for s in samples])).to(device)
        tiles = torch.from_numpy(np.stack([t for s in samples for t in s.tiles])).to(device)
        return Rows(kind, records, self.stock.features(tiles, kind))


def drawn(rng: random.Random, progress: float, size: int, wide: bool) -> tuple[Kind, int]:
    """The kind of the next batch and its number of samples."""
    pictures = rng.choices((0, 1, 2), (0.04, 0.71, 0.25))[0]
    kind, share = (NONE, ONE, TWO)[pictures], max(1, pictures)
    late = pictures > 0 and progress > CROPS
    if late and wide and rng.random() < 0.15:
        kind = rng.choice(TALKS)
        share = 4 * kind.pictures
    elif late and rng.random() < (0.35 if wide else 0.25):
        kind, share = (ONE_OF_FOUR, TWO_OF_FOUR)[pictures - 1], 4 * pictures
    return kind, max(1, size // share)


def train_whole(plan: Plan, run: Run, stock: Stock, whole: Whole, held: dict[str, list[Sample]]) -> None:
    """Stages 2 and 3."""
    model, rings = whole.model, stock.rings
    optimizer = Optimizer(model, trained(model).to(stock.device))
    run.load(2, optimizer)
    stock.tower = model.phi.tower  # which the saved state may have brought
    tests = {task: whole.put(samples) for task, samples in held.items()}
    rng, sums = random.Random(3), torch.zeros(4, device=stock.device)  # of the losses, and their number
    stock.want_samples()
    while rings[ONE].held < plan.batch or rings[TWO].held < plan.batch // 2:
        stock.take(wait=True)
    for p in run.progress(plan.tower, 1.0):
        stock.renderers.progress.value = p
        stock.take()
        kind, count = drawn(rng, p, plan.batch, plan.wide)
        if rings[kind].held < count:
            continue
        if p > ROUNDED and rng.random() < 0.5:
            round_decoder(model)
        with stock.mixed():
            parts = whole.losses(Rows(kind, *rings[kind].draw(count)), p < FULL)
        guided = 0.5 if p < 0.6 else 0.2
        sum(w * part for w, part in zip((1.0, guided, 0.6 * guided), parts, strict=False)).backward()
        optimizer.step(rate(p, plan.peak / (2 if plan.start else 1)))
        sums += torch.stack([*(part.detach() for part in parts), *sums.new_zeros(3 - len(parts)), sums.new_ones(())])
        if run.due():
            report(plan, run, whole, optimizer, sums, {task: whole.exact(rows, p < FULL) for task, rows in tests.items()})
    report(plan, run, whole, optimizer, sums, {task: whole.exact(rows, False) for task, rows in tests.items()})


def report(plan: Plan, run: Run, whole: Whole, optimizer: Optimizer, sums: Tensor, right: dict[str, float]) -> None:
    """Logs the mean losses since the last report and the share of answers right, held out but for four crops' (trained on), and saves."""
    rings, made = whole.stock.rings, whole.stock.made
    losses = [round(x, 4) for x in (sums[:3] / sums[3].clamp(min=1)).tolist()]
    sums.zero_()
    right |= {k.name: whole.exact(Rows(k, *rings[k].draw(32)), False) for k in (ONE_OF_FOUR, TWO_OF_FOUR) if rings[k].held > 32}
    run.note(stage=2, step=optimizer.steps, made={k.name: made[k] for k in KINDS}, losses=losses, right=right)
    run.save(2, optimizer)
    state = {"weights": optimizer.weights.cpu(), "count": torch.tensor([optimizer.steps, time.time() - run.started])}
    keep(state, plan.work / "stage3.pt")


def main(plan: Plan) -> None:
    """All of it."""
    plan.work.mkdir(parents=True, exist_ok=True)
    run = Run(plan)
    orders = Orders(MIX, plan.wide, plan.start is None, 10_000 + 100 * int(run.spent))
    renderers = Renderers(plan.workers, max(8, int(BLOCKS * plan.scale)), orders)  # before the GPU is touched: they fork
    torch.manual_seed(1)
    held = {task: held_out(task, max(8, int(128 * plan.scale))) for task in TASKS}
    if plan.wide:
        held |= {f"wide {kind}": wide_held_out(kind, images, True, max(8, int(64 * plan.scale))) for kind, images in WIDE_HELD.items()}
    stock = Stock(renderers, torch.device("cuda" if torch.cuda.is_available() else "cpu"), plan.scale)
    run.begin()
    reader = train_tower(plan, run, stock) if run.part < 2 else None
    whole = Whole(reader, stock, plan.start)
    stock.rings.pop(PAGE)
    train_whole(plan, run, stock, whole, held)
    renderers.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.85)
    parser.add_argument("--batch", type=int, default=256, help="samples a step of stage 2, twice the windows of stage 1")
    parser.add_argument("--peak", type=float, default=2e-3, help="learning rate; half of it with --start")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 5) - 4))
    parser.add_argument("--scale", type=float, default=1.0, help="of all rings; 0.02 for a trial on a processor")
    parser.add_argument("--wide", action="store_true", help="wide pages and samples")
    parser.add_argument("--start", type=Path, help="a checkpoint folder to begin from")
    main(Plan(**vars(parser.parse_args())))
