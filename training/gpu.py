"""The stages on one NVIDIA GPU: some ten minutes in place of two hours, with many times the samples.

    python training/gpu.py --work /tmp/demo --minutes 8.5

All but four processors render. Pages, then samples with their features, lie in rings on the GPU; a step draws a batch from one.
Stage 3 is not a part of its own here: batches with pictures of four crops join in the last quarter. Times are by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from crops import FOUR_CROPS
from dataset import LONG_ROWS, Batch, Layout, assemble, layout
from model import GRID, PATCH, balance, patches_of, place_mask
from pages import COLOUR_COLUMN
from parallel import BETAS, CLIP, DECAY, fill, matrices, orthogonal
from render import KINDS, PAGE, Kind, Renderers
from rounding import round_decoder
from stage1 import Reader, loss_of
from stage1 import rate as tower_rate
from stage2 import TASKS, Student, answer_loss, cell_loss, guide_loss, held_out, hidden_after, rate, trained
from strengthen import strengthen

NONE, ONE, TWO, ONE_OF_FOUR, TWO_OF_FOUR = KINDS[1:]
# Samples kept, in all some 32 GB of features, and the shares of the renderers' blocks
ROOM = {NONE: 4_000, ONE: 110_000, TWO: 28_000, ONE_OF_FOUR: 6_000, TWO_OF_FOUR: 2_500}
BLOCKS = {NONE: 0.02, ONE: 0.58, TWO: 0.3, ONE_OF_FOUR: 0.05, TWO_OF_FOUR: 0.05}
GPU_MIX = "0.25,0.36,0.25,0.25,0.14"
PAGES = 12_000
TOWER = 0.21  # of the time for stage 1
PLAIN = 0.4  # of stage 1 without attention
FULL, ROUNDED, CROPS = 0.75, 0.7, 0.75  # shares of stage 2 after which prompts are full, weights rounded, crops seen
SEEN = 256  # samples drawn before a kind is used


@dataclass(frozen=True)
class Plan:
    """What a run is told."""

    work: Path
    minutes: float
    batch: int
    peak: float
    workers: int
    scale: float  # of all rings


class Ring:
    """The newest rows of some tensors of equal length, on the device."""

    def __init__(self, size: int) -> None:
        self.size, self.at, self.held = size, 0, 0
        self.parts: list[Tensor] = []

    def add(self, *parts: Tensor) -> None:
        """Puts rows in place of the oldest."""
        if not self.parts:
            self.parts = [p.new_empty(self.size, *p.shape[1:]) for p in parts]
        n = len(parts[0])
        if self.at + n > self.size:
            self.at = 0
        for kept, p in zip(self.parts, parts, strict=True):
            kept[self.at : self.at + n] = p
        self.at += n
        self.held = max(self.held, self.at)

    def places(self, count: int) -> Tensor:
        """Random rows."""
        return torch.randint(self.held, (count,), device=self.parts[0].device)

    def draw(self, count: int) -> list[Tensor]:
        """Random rows of all parts."""
        at = self.places(count)
        return [p[at] for p in self.parts]


class Optimizer:
    """What `Shared.push` does, without ever waiting for the GPU; keeps exact weights beside those of the model, which may be rounded."""

    def __init__(self, model: nn.Module, moving: Tensor) -> None:
        self.model, self.moving = model, moving
        self.weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        self.live = self.weights.clone()
        for p, part in zip(model.parameters(), self.live.split([p.numel() for p in model.parameters()]), strict=True):
            p.data = part.view_as(p)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.groups: dict[tuple[int, int], list[slice]] = {}
        for m in matrices(model):
            if bool(moving[m.span].any()):
                self.groups.setdefault((m.rows, m.cols), []).append(m.span)
        self.resting = [torch.zeros_like(p).flatten() for p in model.parameters()]  # gradients of what gets none
        self.steps = 0

    @torch.no_grad()
    def step(self, rate_: float) -> None:
        """One step with the model's gradients; one that is not finite counts as none."""
        parts = zip(self.model.parameters(), self.resting, strict=True)
        grad = torch.cat([none if p.grad is None else p.grad.flatten() for p, none in parts])
        self.model.zero_grad(set_to_none=True)
        norm = grad.norm()
        grad = grad.masked_fill(~norm.isfinite(), 0.0) * (CLIP / (norm.nan_to_num(1.0, 1.0) + 1e-6)).clamp(max=1.0)
        self.steps += 1
        b1, b2 = BETAS
        self.first.lerp_(grad, 1 - b1)
        self.second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        first = self.first / (1 - b1**self.steps)
        step = first / ((self.second / (1 - b2**self.steps)).sqrt_() + 1e-8)
        momentum = grad.lerp_(first, b1)
        for (rows, cols), spans in self.groups.items():
            stack = torch.stack([momentum[s].view(rows, cols) for s in spans])
            for s, update in zip(spans, orthogonal(stack) * (0.2 * max(rows, cols) ** 0.5), strict=True):
                step[s] = update.flatten()
        self.weights.sub_((rate_ * self.moving) * (step + DECAY * self.weights))
        self.live.copy_(self.weights)


def windows(pages: Ring, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `Windows.batch` draws: patches [count, side^2, 588], places [count, side^2], labels [count, side^2, 8]."""
    pixels, maps, tables = pages.parts
    device, wide = pixels.device, side * PATCH
    page = pages.places(count)[:, None, None]
    rows, cols = (torch.randint(337 - wide, (count, 1), device=device) + torch.arange(wide, device=device) for _ in range(2))
    crops = pixels[page, rows[:, :, None], cols[:, None, :]]  # [count, wide, wide, 3]
    marks = maps[page, rows[:, 7::PATCH, None], cols[:, None, 7::PATCH]].long()
    labels = tables[page, marks].long()  # [count, side, side, 8]
    grid = torch.arange(side, device=device)
    top, left = (torch.randint(GRID - side + 1, (count, 1, 1), device=device) for _ in range(2))
    places = (top + grid[:, None]) * GRID + left + grid
    kind, plain = torch.rand(count, device=device), ~labels[..., COLOUR_COLUMN].flatten(1).any(1)
    crops = torch.where((plain & (kind < 0.3))[:, None, None, None], 255 - crops, crops)
    order = torch.rand(count, 3, device=device).argsort(1)
    order = torch.where((plain & ((kind > 0.7) | (kind < 0.15)))[:, None], order, torch.arange(3, device=device))
    crops = crops.gather(3, order[:, None, None].expand(crops.shape))
    return patches_of(crops), places.view(count, -1), labels.view(count, side * side, -1)


class Trainer:
    """The rings, the renderers that fill them, and the steps."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.renderers = Renderers(plan.workers, max(8, int(1200 * plan.scale)), GPU_MIX)
        self.held = {task: held_out(task, 128 if plan.scale == 1 else 8) for task in TASKS}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.served = self.renderers.serve(self.device)
        self.pages = Ring(int(PAGES * plan.scale))
        self.rings = {kind: Ring(int(room * plan.scale)) for kind, room in ROOM.items()}
        self.made = {kind: 0 for kind in KINDS}
        self.student: Student | None = None
        self.last = 0
        self.log = (plan.work / "gpu.jsonl").open("a")
        torch.manual_seed(1)

    def mixed(self) -> torch.autocast:
        """Products in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def take(self, wait: bool = False) -> None:
        """Puts the next block away, if there is one."""
        try:
            kind, parts = self.served.get(timeout=60 if wait else 0) if wait else self.served.get_nowait()
        except queue.Empty:
            return
        for part in parts:  # they were made on the stream that carried them
            if part.is_cuda:
                part.record_stream(torch.cuda.current_stream())
        self.made[kind] += kind.count
        if kind is PAGE:
            self.pages.add(*parts)
        elif kind is NONE:
            self.rings[kind].add(parts[1])
        elif self.student is not None:
            self.rings[kind].add(parts[1], self.features(parts[0]).view(kind.count, kind.tiles, GRID * GRID, -1))

    @torch.no_grad()
    def features(self, tiles: Tensor) -> Tensor:
        """Tower features bf16 [n, 576, hidden] of tiles u8 [n, 336, 336, 3]."""
        with self.mixed():
            return torch.cat([self.student.phi.tower(patches_of(t)) for t in tiles.split(64)]).bfloat16()

    def progress(self, begin: float, end: float) -> Iterator[float]:
        """Shares of the time between two shares of the whole run, until it is over."""
        whole = self.plan.minutes * 60
        while (spent := (time.time() - self.started) / whole) < end:
            yield (spent - begin) / (end - begin)

    def note(self, **what: object) -> None:
        """Logs a line."""
        line = {"minutes": round((time.time() - self.started) / 60, 3), **what}
        print(json.dumps(line), file=self.log, flush=True)
        print(json.dumps(line), file=sys.stderr, flush=True)

    def tower(self) -> Reader:
        """Stage 1."""
        while self.pages.held < self.pages.size // 6:
            self.take(wait=True)
        self.note(pages=self.pages.held)
        model = Reader().to(self.device)
        balance(model.tower, windows(self.pages, 64, 8)[0])
        moving = place_mask(model).to(self.device)
        for attend, end in ((False, TOWER * PLAIN), (True, TOWER)):
            optimizer = Optimizer(model, moving)
            begin = 0.0 if not attend else TOWER * PLAIN
            for p in self.progress(begin, end):
                if self.made[PAGE] < PAGES * self.plan.scale:
                    self.take()
                else:
                    for i, kind in enumerate(KINDS):
                        self.renderers.wanted[i] = BLOCKS.get(kind, 0.0)
                self.tower_loss(model, 0 if attend else 20).backward()
                optimizer.step(tower_rate(p, self.plan.peak))
                self.settle(optimizer.steps)
            self.note(stage=1, steps=optimizer.steps, made=self.made[PAGE], page=self.named(model))
            if not attend:
                patches, places, _ = windows(self.pages, 8, GRID)
                strengthen(model, patches, places)
                self.note(strengthened=self.named(model))
        return model

    def tower_loss(self, model: Reader, rows: int) -> Tensor:
        """The loss of a batch of stage 1; `rows` as in `ClipVision.forward`."""
        patches, places, labels = windows(self.pages, self.plan.batch // 2, 20)
        with self.mixed():
            outputs = model(patches, places, rows)
        return loss_of(outputs, labels, 0.5)

    def settle(self, step: int) -> None:
        """Lets the GPU catch up now and then, so that the clock is true."""
        if self.device.type == "cuda" and step % 20 == 0:
            torch.cuda.synchronize()

    @torch.no_grad()
    def named(self, model: Reader) -> list[float]:
        """Shares of patches named right on whole pages, by head (pages that were trained on, but never whole)."""
        patches, places, labels = windows(self.pages, 16, GRID)
        with self.mixed():
            outputs = model(patches, places)
        hits = [((o.argmax(-1) == labels[..., i])[labels[..., i] > 0]).float().mean().item() for i, o in enumerate(outputs)]
        return [round(h, 4) for h in hits]

    def batch(self, kind: Kind, count: int, short: bool) -> tuple[Batch, Tensor | None]:
        """A batch of a kind, and its pictures' rows [pictures, rows, hidden]."""
        records, *features = self.rings[kind].draw(count)
        return self.laid_out(kind, records, features[0] if features else None, short)

    def laid_out(self, kind: Kind, records: Tensor, features: Tensor | None, short: bool) -> tuple[Batch, Tensor | None]:
        """The same of given records and features [n, tiles, 576, hidden]."""
        long = FOUR_CROPS if kind.views > 1 else LONG_ROWS
        batch = assemble(records, self.before(kind.pictures, short, long))
        if features is None:
            return batch, None
        embed = self.student.phi.model.vision_embed_tokens
        if kind.views > 1:
            return batch, embed.grid(features.view(-1, kind.views, *features.shape[2:]), 2, 2)
        return batch, embed(features.flatten(0, 1), short)

    def before(self, pictures: int, short: bool, long: int) -> Layout:
        """A layout on the device."""
        key = (pictures, short, long)
        if key not in self.layouts:
            self.layouts[key] = layout(pictures, short, long).to(self.device)
        return self.layouts[key]

    def loss(self, kind: Kind, count: int, short: bool) -> list[Tensor]:
        """The answers', the guides' and the cells' loss of a batch."""
        batch, pictures = self.batch(kind, count, short)
        hidden, seen = hidden_after(self.student, batch, pictures)
        parts = [answer_loss(self.student, batch, hidden)]
        if pictures is not None:
            parts.append(guide_loss(batch, seen))
            if kind.views == 1:
                parts.append(cell_loss(self.student, batch, pictures))
        return parts

    def kind(self, rng: random.Random, progress: float) -> tuple[Kind, int]:
        """Draws the kind of the next batch and its size."""
        size = self.plan.batch
        pictures = rng.choices((0, 1, 2), (0.04, 0.71, 0.25))[0]
        if pictures and progress > CROPS and rng.random() < 0.25:
            return (ONE_OF_FOUR, size // 4) if pictures == 1 else (TWO_OF_FOUR, size // 8)
        return (NONE, ONE, TWO)[pictures], size // max(1, pictures)

    def whole(self, reader: Reader) -> None:
        """Stages 2 and 3."""
        torch.manual_seed(2)
        student = Student()
        student.phi.tower.load_state_dict(reader.tower.state_dict())
        student.to(self.device)
        self.layouts: dict[tuple[int, bool, int], Layout] = {}
        optimizer, self.student = Optimizer(student, trained(student).to(self.device)), student
        self.prepare_held()
        self.pages.parts.clear()
        rng, shown, sums = random.Random(3), time.time(), torch.zeros(3, device=self.device)
        while self.rings[ONE].held < SEEN or self.rings[TWO].held < SEEN // 2:
            self.take(wait=True)
        for p in self.progress(TOWER, 1.0):
            self.renderers.progress.value = p
            self.take()
            kind, count = self.kind(rng, p)
            if self.rings[kind].held < count:
                continue
            if p > ROUNDED and rng.random() < 0.5:
                round_decoder(student)
            with self.mixed():
                parts = self.loss(kind, count, p < FULL)
            guided = 0.5 if p < 0.6 else 0.2
            sum(w * part for w, part in zip((1.0, guided, 0.6 * guided), parts)).backward()
            optimizer.step(rate(p, self.plan.peak))
            sums[: len(parts)] += torch.stack([part.detach() for part in parts])
            self.settle(optimizer.steps)
            if time.time() - shown > max(4, self.plan.minutes * 3):
                self.report(optimizer, p, sums)
                shown = time.time()
        self.report(optimizer, 1.0, sums)

    def prepare_held(self) -> None:
        """Puts the held-out samples on the device."""
        import numpy as np

        self.tests = {}
        for task, samples in self.held.items():
            kind = (NONE, ONE, TWO)[len(samples[0].tiles)]
            samples = [s for s in samples if len(s.tiles) == kind.pictures]
            records = torch.from_numpy(np.stack([s.record for s in samples])).to(self.device)
            features = None
            if kind.pictures:
                tiles = torch.from_numpy(np.stack([t for s in samples for t in s.tiles])).to(self.device)
                features = self.features(tiles).view(len(samples), kind.tiles, GRID * GRID, -1)
            self.tests[task] = kind, records, features

    @torch.no_grad()
    def exact(self, kind: Kind, records: Tensor, features: Tensor | None, short: bool) -> float:
        """Share of whole answers right; greedy answers are right if and only if every token is, fed the true answer."""
        batch, pictures = self.laid_out(kind, records, features, short)
        hidden, _ = hidden_after(self.student, batch, pictures)
        right = (self.student.phi.lm_head(hidden).argmax(-1) == batch.targets) | (batch.targets < 0)
        return round(right.all(1).float().mean().item(), 4)

    def report(self, optimizer: Optimizer, p: float, sums: Tensor) -> None:
        """Logs the losses since the last report and held-out accuracy, and saves."""
        line: dict[str, object] = {"stage": 2, "step": optimizer.steps, "made": {k.name: n for k, n in self.made.items()}, "waiting": self.renderers.ready.qsize()}
        line["loss"] = [round(x, 4) for x in (sums / max(1, optimizer.steps - self.last)).tolist()]
        self.last = optimizer.steps
        sums.zero_()
        with self.mixed():
            line["right"] = {task: self.exact(*test, p < FULL) for task, test in self.tests.items()}
            if p > CROPS:
                for kind in (ONE_OF_FOUR, TWO_OF_FOUR):
                    if self.rings[kind].held > 32:
                        line[kind.name] = self.exact(kind, *self.rings[kind].draw(32), False)
        self.note(**line)
        state = {"weights": optimizer.weights.cpu(), "count": torch.tensor([optimizer.steps, time.time() - self.started])}
        torch.save(state, self.plan.work / "stage3.tmp")
        os.replace(self.plan.work / "stage3.tmp", self.plan.work / "stage3.pt")

    def run(self) -> None:
        """All of it."""
        self.started = time.time()
        self.whole(self.tower())
        self.renderers.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--batch", type=int, default=256, help="samples a step of stage 2, twice the windows of stage 1")
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 3) - 4))
    parser.add_argument("--scale", type=float, default=1.0, help="of all rings; less for a trial")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    Trainer(Plan(**vars(args))).run()
