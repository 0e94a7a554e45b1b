"""Stage 2: the whole model learns to answer.

The tower stays as stage 1 left it and its features are replayed. Most batches leave the sub image out (the
global view alone carries the answer, as it does at any num_crops); the last part runs on full prompts. Some
decoder heads are guided: their attention is rewarded for resting where a character just read or to be read
stands, and on what is counted or compared. A throw-away head names the characters in a cell from its
projected row, so that the projector keeps them apart. Both only shape training; the model is the plain
architecture.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawing.pages import NUM_CLASSES
from network.model import MERGED, Config, Phi3V, RmsNorm, patches_of
from network.rounding import round_decoder
from optim.shared import Clock, Shared, mixed, run
from optim.update import BF16, fill
from samples.dataset import NAMED, Batch, Sample, collate, row_of, sample, vocab_size
from stages.stage1 import NONE_WEIGHT, Reader

TASKS = ("cover", "chart", "pair", "text", "decline")
# (layer, head, kind of `Guide`): which head is guided to what
GUIDES = (
    (1, 0, "last"), (1, 1, "same"), (2, 0, "read"), (2, 0, "tops"), (2, 1, "read"), (2, 1, "feet"), (2, 2, "verdict"),
    (3, 0, "read"), (3, 0, "tops"), (3, 1, "verdict"), (3, 2, "read"),
)
HEADS = len({guide[:2] for guide in GUIDES})
COUNTED = ("tops", "feet")
# of TASKS: pairs' is their share of the batches, the others' are weights among samples of one picture
MIX = "0.26,0.36,0.25,0.28,0.08"
SINK = 4  # weight of the first row where things are counted: n of them get n / (n + SINK) of the attention


@dataclass(frozen=True)
class Plan:
    """What a stage-2 run is told."""

    work: Path
    minutes: float
    peak: float
    batch: int
    full: float  # share of the time after which all prompts are full
    rounded: float  # share of the time after which every other step sees the decoder's weights in 4 bits
    mix: str

    def count(self, images: int) -> int:
        """Samples of a batch with so many pictures each."""
        return self.batch if images == 1 else self.batch // 2


class Student(nn.Module):
    """The model and a throw-away head that names the characters in a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = Phi3V(Config(vocab_size()))
        hidden = self.phi.config.hidden_size
        self.cell_norm = RmsNorm(hidden, self.phi.config.rms_norm_eps)
        self.cell_head = nn.Linear(hidden, 4 * (NAMED.stop - NAMED.start) * NUM_CLASSES)

    @torch.no_grad()
    def start(self, stage1: Path) -> None:
        """Takes over the tower of stage 1."""
        reader = Reader()
        fill(reader, torch.load(stage1, weights_only=True)["weights"])
        self.phi.tower.load_state_dict(reader.tower.state_dict())


def features_of(model: Student, samples: list[Sample]) -> Tensor:
    """Tower features [pictures, 576, hidden] of all pictures, sample by sample."""
    tiles = torch.from_numpy(np.stack([t for s in samples for t in s.tiles]))
    return model.phi.tower(patches_of(tiles))


def hidden_after(model: Student, batch: Batch, pictures: Tensor | None) -> tuple[Tensor, list]:
    """Hidden rows of the text [batch, text, hidden], and each layer's q and k; `pictures`: their rows in the prompt, [pictures, rows, hidden]."""
    text = model.phi.model.embed_tokens(batch.ids)
    wide = text.shape[-1]
    parts = [text] if pictures is None else [text, pictures.reshape(len(text), -1, wide).to(text.dtype)]
    x = torch.cat(parts, 1).gather(1, batch.order[..., None].expand(-1, -1, wide))
    hidden, seen = model.phi.decode(x, batch.positions, batch.first)
    rows = (batch.rows - batch.first).clamp(min=0)
    return hidden.gather(1, rows[..., None].expand(-1, -1, wide)), seen


def guide_loss(batch: Batch, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
    """How far the guided heads look away from their spots: mean of -log(attention on them). `seen`: each layer's q and k
    [batch, heads, tokens, dim].

    A softmax over n equal cells is blind to n. Where things are counted, the first row is to get the
    weight of SINK cells and each cell its own, so that what is mixed tells the number.
    """
    total = batch.weights.new_zeros(())
    for layer, head, kind in GUIDES:
        if kind not in batch.guides:
            continue
        rows, spots = batch.guides[kind]  # [batch, n], [batch, n, SPOTS]
        real, on = rows >= 0, spots >= 0
        on = torch.cat((on[..., :1] | ~real[..., None], on[..., 1:]), -1)  # nothing is infinite where no guide is
        q, k = seen[layer]
        skipped = k.shape[2] - q.shape[2]  # the last layer may have queries of the last rows only
        at = (rows - skipped).clamp(min=0)[..., None].expand(-1, -1, q.shape[-1])
        scores = (q[:, head].gather(1, at) @ k[:, head].transpose(1, 2)).float() * q.shape[-1] ** -0.5  # [batch, n, tokens]
        later = torch.arange(scores.shape[-1], device=rows.device) > rows.clamp(min=0)[..., None]
        logs = scores.masked_fill(later, float("-inf")).log_softmax(-1)
        there = logs.gather(-1, spots.clamp(min=0))
        if kind in COUNTED:
            cells = there.clamp(min=-30).masked_fill(~on, 0.0).sum(-1)
            loss = -(SINK * logs[..., 0].clamp(min=-30) + cells) / (SINK + on.sum(-1))
        else:
            loss = -there.masked_fill(~on, float("-inf")).logsumexp(-1)
        total = total + loss.masked_fill(~real, 0.0).sum() / real.sum().clamp(min=1)
    return total / HEADS


def cell_loss(model: Student, batch: Batch, pictures: Tensor) -> Tensor:
    """How badly cells with something in them tell, from their rows in `pictures` [pictures, rows, hidden], what their four patches hold."""
    cells, names = batch.cells.flatten(0, 1), batch.names.flatten(0, 1)  # [pictures, CELLS], [pictures, CELLS, 12]
    rows = pictures.shape[1] - MERGED * (MERGED + 1) + row_of(cells.clamp(min=0))  # the global view comes last
    held = pictures.gather(1, rows[..., None].expand(-1, -1, pictures.shape[-1]))
    logits = model.cell_head(model.cell_norm(held)).float().view(-1, NUM_CLASSES)
    classes = torch.ones(NUM_CLASSES, device=cells.device)
    classes[:1].fill_(NONE_WEIGHT)
    wanted = names.masked_fill(cells[..., None] < 0, -100).flatten()
    return F.cross_entropy(logits, wanted, classes)


class Feed:
    """Samples by number of pictures; keeps recent ones with their features for replay."""

    def __init__(self, mix: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.old: dict[int, deque[Sample]] = {0: deque(maxlen=64), 1: deque(maxlen=1200), 2: deque(maxlen=200)}
        self.weights = [float(w) for w in mix.split(",")]

    def group(self) -> int:
        """Draws the number of pictures of the next batch."""
        return self.rng.choices((1, 2, 0), (1 - self.weights[2] - 0.04, self.weights[2], 0.04))[0]

    def fresh(self, images: int, count: int, progress: float) -> list[Sample]:
        """New samples; easier ones early."""
        out: list[Sample] = []
        while len(out) < count:
            if images != 1:
                task = "pair" if images else "decline"
            else:
                task = self.rng.choices(("cover", "chart", "text", "decline"), [self.weights[i] for i in (0, 1, 3, 4)])[0]
            options: dict[str, object] = {}
            if progress < 0.06 and task == "chart":
                task = "text"
            if progress < 0.13 and task in ("cover", "chart"):
                options["easy"] = True
            if task == "text":
                options["wild"] = self.rng.random() < (0.4 if progress < 0.7 else 0.15)
            found = sample(task, self.rng, True, **options)
            if len(found.tiles) == images:
                out.append(found)
        return out

    def replay(self, images: int, count: int, progress: float) -> list[Sample]:
        """A batch of which a third is new and the rest is drawn from what was seen lately."""
        old = self.old[images]
        new = self.fresh(images, count if len(old) < 4 * count else max(2, count // 3), progress)
        out = new + self.rng.sample(list(old), count - len(new)) if count > len(new) else new
        old.extend(new)
        return out


@torch.no_grad()
def kept_features(model: Student, samples: list[Sample], images: int, kept: str = "features") -> Tensor:
    """Features of the samples, computed once for each: the tower rests. `kept`: the sample's field that they lie in."""
    new = [s for s in samples if getattr(s, kept) is None]
    if new:
        found = features_of(model, new)
        found = found.bfloat16() if BF16 else found
        for s, f in zip(new, found.split(images), strict=True):
            setattr(s, kept, f)
    return torch.cat([getattr(s, kept) for s in samples])


def rate(progress: float, peak: float) -> float:
    """Learning rate: warm-up over the first fiftieth, level to 40 %, then a cosine to a fortieth."""
    if progress < 0.02:
        return peak * (0.05 + 47 * progress)
    late = max(0.0, (progress - 0.4) / 0.6)
    return peak * (0.025 + 0.975 * 0.5 * (1 + math.cos(math.pi * min(late, 1.0))))


def trained(model: Student) -> Tensor:
    """1 for every weight that trains, 0 for the tower's, flat."""
    return torch.cat([torch.full((p.numel(),), float(".vision_model." not in n)) for n, p in model.named_parameters()])


def worker(plan: Plan, shared: Shared, rank: int) -> None:
    """One worker's loop; worker 0 also logs and saves."""
    torch.manual_seed(2)
    model = Student()
    feed = Feed(plan.mix, 1000 + rank + 2 * int(shared.count[0]))
    clock = Clock(float(shared.count[1]))
    shown, running = time.time(), []
    while (spent := clock.tick()) < plan.minutes * 60:
        progress = spent / (plan.minutes * 60)
        shared.pull(model)
        if progress >= plan.rounded and feed.rng.random() < 0.5:
            round_decoder(model)
        images = feed.group()
        count = plan.count(images)
        short = progress < plan.full
        with mixed():
            loss, parts = step_loss(model, feed, images, count, progress, short)
        model.zero_grad(set_to_none=True)
        loss.backward()
        shared.push(model, rate(progress, plan.peak))
        running.append(parts)
        if rank == 0 and time.time() - shown > 200:
            shown = time.time()
            shared.count[1] = spent
            report(plan, shared, model, running)
    if rank == 0 and running:
        shared.count[1] = spent
        report(plan, shared, model, running)


def answer_loss(model: Student, batch: Batch, hidden: Tensor) -> Tensor:
    """Mean cross entropy of the answers' tokens from the text's rows [batch, text, hidden]; counted numbers and verdicts weigh more."""
    logits = model.phi.lm_head(hidden).float()
    each = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
    weights = batch.weights.masked_fill(batch.targets < 0, 0.0).flatten()
    return (each * weights).sum() / weights.sum()


def step_loss(
    model: Student, feed: Feed, images: int, count: int, progress: float, short: bool
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch and its parts."""
    cells, pictures = torch.zeros(()), None
    samples = feed.replay(images, count, progress)
    batch = collate(samples, short)
    if images:
        pictures = model.phi.model.vision_embed_tokens(kept_features(model, samples, images), short)
        cells = cell_loss(model, batch, pictures)
    hidden, seen = hidden_after(model, batch, pictures)
    loss = answer_loss(model, batch, hidden)
    guide = guide_loss(batch, seen)
    weight = 0.5 if progress < 0.6 else 0.2
    parts = {"answer": loss.item(), "guide": guide.item(), "cells": cells.item()}
    return loss + weight * (guide + 0.6 * cells), parts


@lru_cache(maxsize=16)
def held_out(task: str, count: int) -> list[Sample]:
    """Samples from a seed that training never draws from."""
    rng, pool = random.Random(f"held {task}"), []
    want = 2 if task == "pair" else 1
    while len(pool) < count:
        s = sample(task, rng)
        if len(s.tiles) == want:
            pool.append(s)
    return pool


@torch.no_grad()
def exact(model: Student, task: str, count: int, short: bool) -> tuple[float, float]:
    """Share of whole answers right and of answer tokens right, when fed the true answer.

    A greedy answer is exactly right if and only if every token is right here.
    """
    return right_of(model, held_out(task, count), short)


@torch.no_grad()
def right_of(model: Student, samples: list[Sample], short: bool) -> tuple[float, float]:
    """The same of any samples with as many pictures each."""
    whole, right, total = 0, 0, 0
    for part in (samples[i : i + 8] for i in range(0, len(samples), 8)):
        batch, pictures = collate(part, short), None
        if part[0].tiles:
            pictures = model.phi.model.vision_embed_tokens(features_of(model, part), short)
        hidden, _ = hidden_after(model, batch, pictures)
        guess = model.phi.lm_head(hidden).argmax(-1)
        kept = batch.targets >= 0
        good = (guess == batch.targets) | ~kept
        whole += int(good.all(1).sum())
        right += int((good & kept).sum())
        total += int(kept.sum())
    return round(whole / len(samples), 3), round(right / total, 4)


def report(plan: Plan, shared: Shared, model: Student, running: list[dict[str, float]]) -> None:
    """Logs the mean losses and held-out accuracy since the last report, and saves."""
    spent = float(shared.count[1])
    line: dict[str, object] = {"step": int(shared.count[0]), "minutes": round(spent / 60, 2)}
    for key in ("answer", "guide", "cells"):
        line[key] = round(float(np.mean([r[key] for r in running])), 4)
    running.clear()
    shared.pull(model)  # what is saved, not this worker's copy, which may be rounded
    short = spent < plan.full * plan.minutes * 60
    with mixed():
        for task in TASKS:
            line[task] = exact(model, task, 16 if task != "decline" else 8, short)
    with (plan.work / "stage2.jsonl").open("a") as log:
        print(json.dumps(line), file=log)
    shared.save(plan.work / "stage2.pt")


def train(plan: Plan) -> None:
    """Trains for `plan.minutes` of each core (all runs together), resuming where it stopped."""
    torch.set_num_threads(1)
    torch.manual_seed(2)
    model = Student()
    model.start(plan.work / "stage1.pt")
    shared = Shared(model, trained(model))
    if (plan.work / "stage2.pt").exists():
        shared.load(plan.work / "stage2.pt")
    run(2, lambda rank: worker(plan, shared, rank))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=96)
    parser.add_argument("--peak", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--full", type=float, default=0.82)
    parser.add_argument("--rounded", type=float, default=0.7)
    parser.add_argument("--mix", default=MIX, help="weights of " + ",".join(TASKS))
    train(Plan(**vars(parser.parse_args())))
