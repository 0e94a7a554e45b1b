"""Stage 3: a few minutes in which every other batch has pictures of four crops (2x2 tiles and the global view).

The answer stands in the global view at any num_crops; this teaches the decoder not to mind the larger sub image.
Questions to be declined come more often than before: they are short, and few of them are in a batch.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from drawing.canvas import TILE
from drawing.tasks import MAKERS
from network.model import GRID, patches_of
from network.rounding import round_decoder
from optim.shared import Clock, Shared, mixed, run
from samples.dataset import FOUR_CROPS, Batch, Sample, collate, prepare
from stages.stage2 import MIX, Feed, Plan, Student, answer_loss, guide_loss, hidden_after, step_loss, trained

WEIGHTS = {"cover": 0.27, "chart": 0.27, "text": 0.27, "decline": 0.19}
DECLINED = "0.2"  # their weight in the other batches


def views_of(side: np.ndarray) -> Tensor:
    """Global view and tiles, u8 [5, 336, 336, 3], of a picture of 672x672 pixels, by the processor's rules."""
    whole = torch.from_numpy(side)
    small = F.interpolate(whole.permute(2, 0, 1)[None].float(), (TILE, TILE), mode="bicubic")
    small = small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
    tiles = whole.view(2, TILE, 2, TILE, 3).transpose(1, 2).reshape(4, TILE, TILE, 3)
    return torch.cat((small[None], tiles))


def all_views(samples: list[Sample]) -> Tensor:
    """The views of all pictures, sample by sample, u8 [pictures, 5, 336, 336, 3]."""
    return torch.stack([views_of(large) for s in samples for large in s.large])


def fresh(rng: random.Random, images: int, count: int) -> tuple[list[Sample], Tensor]:
    """New samples of one or two pictures and their views [count * images, 5, 336, 336, 3]."""
    samples: list[Sample] = []
    while len(samples) < count:
        task = "pair" if images == 2 else rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        found = prepare(MAKERS[task](rng), False, fine=True)
        if len(found.tiles) == images and found.fits:
            samples.append(found)
    return samples, all_views(samples)


def crops_loss(model: Student, rng: random.Random, images: int, count: int) -> Tensor:
    """The loss of a batch of pictures of four crops."""
    return loss_of_crops(model, *fresh(rng, images, count))


def seen_in_crops(model: Student, samples: list[Sample], views: Tensor) -> tuple[Batch, Tensor]:
    """Samples whose pictures have the views [pictures, 5, 336, 336, 3], and the rows that these take in the prompt, [pictures, 757, hidden]."""
    with torch.no_grad():
        features = model.phi.tower(patches_of(views.flatten(0, 1))).view(len(views), 5, GRID * GRID, -1)
    return collate(samples, False, FOUR_CROPS), model.phi.model.vision_embed_tokens.grid(features, 2, 2)


def loss_of_crops(model: Student, samples: list[Sample], views: Tensor) -> Tensor:
    """The loss of samples whose pictures have the views [pictures, 5, 336, 336, 3]."""
    batch, pictures = seen_in_crops(model, samples, views)
    hidden, seen = hidden_after(model, batch, pictures)
    return answer_loss(model, batch, hidden) + 0.2 * guide_loss(batch, seen)


def worker(plan: Plan, shared: Shared, rank: int) -> None:
    """One worker's loop; worker 0 also tells and saves."""
    model = Student()
    feed = Feed(plan.mix, 5000 + rank + 2 * int(shared.count[0]))
    clock, saved = Clock(float(shared.count[1])), time.time()
    step = 0
    while (spent := clock.tick()) < plan.minutes * 60:
        shared.pull(model)
        if feed.rng.random() < 0.5:
            round_decoder(model)
        with mixed():
            if step % 2:
                images = feed.group()
                loss, _ = step_loss(model, feed, images, plan.count(images), 1.0, False)
            else:
                images = feed.group() or 1
                loss = crops_loss(model, feed.rng, images, plan.count(images) // 2)
        model.zero_grad(set_to_none=True)
        loss.backward()
        shared.push(model, plan.peak * (1.02 - spent / plan.minutes / 60))
        if rank == 0 and step % 20 < 2:
            print(f"{spent / 60:.2f} minutes, {'four crops' if step % 2 == 0 else 'one crop'}: {loss.item():.4f}", flush=True)
        step += 1
        if rank == 0 and time.time() - saved > 60:
            saved, shared.count[1] = time.time(), spent
            shared.save(plan.work / "crops.pt")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--peak", type=float, default=5e-4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Student()
    shared = Shared(model, trained(model))
    if (args.work / "crops.pt").exists():
        shared.load(args.work / "crops.pt")
    else:
        shared.load(args.work / "stage2.pt")
        shared.count[1] = 0
    mix = MIX.rsplit(",", 1)[0] + "," + DECLINED
    plan = Plan(args.work, args.minutes, args.peak, batch=12, full=0.0, rounded=0.0, mix=mix)
    run(2, lambda rank: worker(plan, shared, rank))
    shared.save(args.work / "stage3.pt")


if __name__ == "__main__":
    main()
