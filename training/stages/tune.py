"""Trains a finished checkpoint's decoder further on processors: wordings, forms, what has to be declined, conversations, crops.

The tower rests and its features are kept, as in stage 2. The model reads what it read before, so pictures are the plain ones and the projector
rests, too, unless the tower has learnt wide ones (`stages/widen.py`). On what the checkpoint was trained on it is also to say what a teacher
says, with the same probabilities: the checkpoint, or the one that this was made from.
Stopped, it goes on from the last save.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from drawing.wider import plain_source, small_source, wide_source
from network.rounding import coarse, round_decoder
from optim.shared import Clock, Shared, keep, mixed, run
from samples.dataset import Batch, Sample, collate, tokenizer
from samples.feed import GROUPS, Prompts
from stages.crops import all_views, loss_of_crops
from stages.stage2 import TASKS, Feed, Student, answer_loss, exact, guide_loss, hidden_after, kept_features, right_of
from stages.start import from_folder, pieces_of

KEPT = {0: 64, 1: 800, 2: 160, 3: 40, 4: 40}  # recent samples replayed, by number of pictures
ROUNDED, CROPS, WIDE_CROPS = 0.4, 0.08, 0.14  # shares of the steps with rounded weights, and with pictures of four crops, plain or wide
REHEARSED, WIDE_REHEARSED = 0.75, 0.5  # shares of the other steps with what the checkpoint was trained on
SHORT = 0.5  # share of the other steps without sub images, which are cheaper
PROJECTOR = 0.2  # of the learning rate, for the projector where pictures are wide
OLD = "0.34,0.44,0.16,0.2,0.15"  # of what the checkpoint was trained on: more covers and charts than in stage 3, which are lost first
RECENT = 0.02  # of a step's weights in the running mean that is exported: single steps stray, their mean reads better
HELD = (("cover", 1), ("chart", 1), ("pair", 2), ("text", 1), ("missing", 1), ("form", 1), ("decline", 0), ("talk", 2))


@dataclass(frozen=True)
class Plan:
    """What a run is told."""

    work: Path
    start: Path
    minutes: float
    peak: float
    batch: int
    workers: int
    wide: bool
    teacher: Path

    def count(self, images: int) -> int:
        """Samples of a batch with so many pictures each."""
        return max(2, self.batch // max(1, images))


class Replay:
    """Batches of wide prompts, of which a third is new and the rest was seen lately."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.rng = random.Random(seed)
        self.prompts = Prompts(self.rng, wide_source if plan.wide else plain_source)
        self.old: dict[int, deque[Sample]] = {n: deque(maxlen=room) for n, room in KEPT.items()}

    def batch(self, images: int, count: int) -> list[Sample]:
        """So many samples with so many pictures each."""
        old = self.old[images]
        fresh = self.prompts.batch(images, count if len(old) < 2 * count else max(1, count // 3))
        kept = self.rng.sample(list(old), count - len(fresh))
        old.extend(fresh)
        return fresh + kept


@lru_cache(maxsize=32)
def held_out(kind: str, images: int, wide: bool, count: int = 16) -> list[Sample]:
    """Samples of a kind from a seed that training never draws from."""
    prompts = Prompts(random.Random(f"held {kind}"), wide_source if wide else plain_source)
    return [prompts.sample(kind, images) for _ in range(count)]


class Teacher:
    """A checkpoint that stays as it is."""

    def __init__(self, folder: Path) -> None:
        self.model = from_folder(folder).requires_grad_(False)
        old = pieces_of(folder)
        self.unknown = torch.tensor([place for piece, place in tokenizer().get_vocab().items() if piece not in old], dtype=torch.long)

    @torch.no_grad()
    def sees(self, samples: list[Sample], short: bool) -> Tensor | None:
        """The pictures' rows [pictures, rows, hidden] as its own tower has them; computed once for each sample."""
        images = len(samples[0].tiles)
        return self.model.phi.model.vision_embed_tokens(kept_features(self.model, samples, images, "taught"), short) if images else None

    def divergence(self, model: Student, batch: Batch, pictures: Tensor | None, hidden: Tensor) -> Tensor:
        """How far the answers' probabilities are from the teacher's: mean KL divergence of their tokens, nats. `pictures`: as it sees them.
        `hidden`: the model's rows of the text [batch, text, hidden]. Tokens that the teacher does not know it never means."""
        with torch.no_grad():
            rows, _ = hidden_after(self.model, batch, pictures)
            wanted = self.model.phi.lm_head(rows).float().index_fill(-1, self.unknown, -1e9).log_softmax(-1)
        found = model.phi.lm_head(hidden).float().log_softmax(-1)
        weights = batch.weights.masked_fill(batch.targets < 0, 0.0)
        return ((wanted.exp() * (wanted - found)).sum(-1) * weights).sum() / weights.sum()


@dataclass(frozen=True)
class Sources:
    """Where a worker's batches come from."""

    old: Feed  # what the checkpoint was trained on
    new: Replay
    small: Prompts  # pictures of four crops


def step_loss(model: Student, teacher: Teacher, plan: Plan, sources: Sources) -> Tensor:
    """The loss of one batch: of four crops now and then, else of one, old or new."""
    rng = sources.new.rng
    if rng.random() < (WIDE_CROPS if plan.wide else CROPS):
        images = rng.choice((1, 1, 2))
        samples = sources.small.batch(images, max(1, plan.count(images) // 3))
        return loss_of_crops(model, samples, all_views(samples))
    rehearsed = rng.random() < (WIDE_REHEARSED if plan.wide else REHEARSED)
    if rehearsed:
        images = sources.old.group()
        samples = sources.old.replay(images, plan.count(images), 1.0)
    else:
        images = rng.choices(list(GROUPS), list(GROUPS.values()))[0]
        samples = sources.new.batch(images, plan.count(images))
    short = rng.random() < SHORT
    batch, pictures = collate(samples, short), None
    if images:
        with torch.set_grad_enabled(plan.wide):
            pictures = model.phi.model.vision_embed_tokens(kept_features(model, samples, images), short)
    hidden, seen = hidden_after(model, batch, pictures)
    loss = answer_loss(model, batch, hidden) + 0.2 * guide_loss(batch, seen)
    return loss + teacher.divergence(model, batch, teacher.sees(samples, short), hidden) if rehearsed else loss


def moving(model: Student, wide: bool) -> Tensor:
    """Each weight's share of the learning rate, flat: 1 for the decoder's, 0 for those that make rows of pictures: where these moved too, digits
    and letters were lost. To see wide pictures the projector has to move, a little."""
    seeing = PROJECTOR if wide else 0.0
    shares = [0.0 if ".vision_model." in n else seeing if "vision_embed_tokens" in n else 1.0 for n, _ in model.named_parameters()]
    return torch.cat([torch.full((p.numel(),), share) for share, p in zip(shares, model.parameters(), strict=True)])


def rate(progress: float, peak: float) -> float:
    """Learning rate: warm-up over the first twentieth, then down to nothing."""
    return peak * min(progress / 0.05, (1.02 - progress) / 0.97)


def worker(plan: Plan, shared: Shared, rank: int) -> None:
    """One worker's loop; worker 0 also logs and saves."""
    torch.manual_seed(3)
    model, teacher = Student(), Teacher(plan.teacher)
    seed = 20_000 + rank + plan.workers * int(shared.count[0])
    small = Prompts(random.Random(-seed), small_source if plan.wide else plain_source, fine=True)
    sources = Sources(Feed(OLD, seed), Replay(plan, seed), small)
    mean = mean_of(plan, shared)
    clock, shown, losses = Clock(float(shared.count[1])), time.time(), []
    while (spent := clock.tick()) < plan.minutes * 60:
        shared.pull(model, coarse)
        if sources.new.rng.random() < ROUNDED:
            round_decoder(model)
        with mixed():
            loss = step_loss(model, teacher, plan, sources)
        model.zero_grad(set_to_none=True)
        loss.backward()
        shared.push(model, rate(spent / plan.minutes / 60, plan.peak))
        mean.lerp_(shared.weights, max(RECENT, 1 / float(shared.count[0])))
        losses.append(loss.item())
        if rank == 0 and time.time() - shown > 300:
            shown, shared.count[1] = time.time(), spent
            report(plan, shared, model, losses)
            keep({"weights": mean}, plan.work / "mean.pt")
    if rank == 0 and losses:
        shared.count[1] = spent
        report(plan, shared, model, losses)
        keep({"weights": mean}, plan.work / "mean.pt")


def mean_of(plan: Plan, shared: Shared) -> Tensor:
    """The running mean of the weights so far; where there is none yet, the weights."""
    path = plan.work / "mean.pt"
    return torch.load(path, weights_only=True)["weights"] if path.exists() else shared.weights.clone()


def report(plan: Plan, shared: Shared, model: Student, losses: list[float]) -> None:
    """Logs the mean loss since the last report and held-out accuracy, and saves."""
    step, spent = shared.count.tolist()
    line: dict[str, object] = {"step": int(step), "minutes": round(spent / 60, 2), "loss": round(float(np.mean(losses)), 4)}
    losses.clear()
    shared.pull(model)  # what is saved, not this worker's copy, which may be rounded
    with mixed():
        line["plain"] = {task: exact(model, task, 16, False) for task in TASKS}
        line["wide" if plan.wide else "asked"] = {kind: right_of(model, held_out(kind, images, plan.wide), False) for kind, images in HELD}
    with (plan.work / "tune.jsonl").open("a") as log:
        print(json.dumps(line), file=log)
    shared.save(plan.work / "tune.pt")


def train(plan: Plan) -> None:
    """Trains for `plan.minutes` of each worker's core (all runs together), resuming where it stopped."""
    torch.set_num_threads(1)
    plan.work.mkdir(parents=True, exist_ok=True)
    model = from_folder(plan.start)
    shared = Shared(model, moving(model, plan.wide))
    if (plan.work / "tune.pt").exists():
        shared.load(plan.work / "tune.pt")
    run(plan.workers, lambda rank: worker(plan, shared, rank))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True, help="the checkpoint folder to begin from")
    parser.add_argument("--teacher", type=Path, help="the checkpoint folder whose probabilities are kept (--start)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--peak", type=float, default=4e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wide", action="store_true", help="wide pictures, which a tower has to have learnt to read")
    args = parser.parse_args()
    args.teacher = args.teacher or args.start
    train(Plan(**vars(args)))
