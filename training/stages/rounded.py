"""Rounds a finished checkpoint's decoder to the mantissas that take half a byte of the program (`network/rounding.py`), without training, so that
it answers as before.

Each matrix is rounded column by column, and what a column's rounding does to the products is made up for in the columns that follow (GPTQ,
https://arxiv.org/abs/2210.17323). How columns make up for each other is learnt from the inputs of the matrix over samples, where each row
counts as much as the answers depend on what is made of it: by the squared gradient of the probability of answers that the model
itself would give (Fisher information). A token of an answer counts thousands of times more than a row of a picture's margin.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from drawing.wider import plain_source, small_source, wide_source
from network.rounding import coarse
from samples.dataset import Batch, collate
from samples.feed import GROUPS, Prompts
from stages.crops import all_views, seen_in_crops
from stages.export import export
from stages.stage2 import Feed, Student, hidden_after, kept_features
from stages.start import from_folder
from stages.tune import OLD

SAMPLES = 8  # pictures of a batch
CROPS, REHEARSED, WIDE, SHORT = 0.08, 0.5, 0.5, 0.3  # shares: four crops; else as in stage 3; else wide pictures; without sub images
DAMPING = 0.01  # of the mean of the diagonal, added to it: columns that were hardly used make up for nothing
HELD = 40  # batches that tell how far the rounded model is from the other

Seen = tuple[Batch, Tensor | None]  # a batch and the rows of its pictures


class Batches:
    """Prompts of all kinds, with what the tower makes of their pictures."""

    def __init__(self, model: Student, seed: int) -> None:
        self.model, self.rng, self.feed = model, random.Random(seed), Feed(OLD, seed)
        self.wide, self.plain = Prompts(self.rng, wide_source), Prompts(self.rng, plain_source)
        self.small = Prompts(self.rng, small_source, fine=True)

    @torch.no_grad()
    def next(self) -> Seen:
        """A fresh batch."""
        if self.rng.random() < CROPS:
            samples = self.small.batch(1, SAMPLES // 3)
            return seen_in_crops(self.model, samples, all_views(samples))
        rehearsed, source = self.rng.random() < REHEARSED, self.wide if self.rng.random() < WIDE else self.plain
        images = self.feed.group() if rehearsed else self.rng.choices(list(GROUPS), list(GROUPS.values()))[0]
        count = max(2, SAMPLES // max(1, images))
        samples = self.feed.fresh(images, count, 1.0) if rehearsed else source.batch(images, count)
        short = self.rng.random() < SHORT
        embed = self.model.phi.model.vision_embed_tokens
        pictures = embed(kept_features(self.model, samples, images), short) if images else None
        return collate(samples, short), pictures


def matrices(model: Student) -> Iterator[tuple[str, nn.Linear]]:
    """What is rounded, by name: the matrices of the decoder's layers and lm_head."""
    for name, module in model.phi.named_modules():
        if isinstance(module, nn.Linear) and (name.startswith("model.layers.") or name == "lm_head"):
            yield name, module


def curvatures(model: Student, batches: Batches, count: int) -> dict[str, Tensor]:
    """Of each matrix, how its inputs go together, [inputs, inputs]: the sum over rows of the outer product of a row with itself, times the
    squared gradient at the matrix's outputs there."""
    found = {name: torch.zeros(m.in_features, m.in_features) for name, m in matrices(model)}

    def watch(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        rows = inputs[0].detach().flatten(0, -2)

        def weigh(gradient: Tensor) -> None:
            found[name].addmm_((rows * gradient.flatten(0, -2).square().sum(-1, keepdim=True)).T, rows)

        output.register_hook(weigh)

    hooks = [m.register_forward_hook(partial(watch, name)) for name, m in matrices(model)]
    weights = [m.weight for _, m in matrices(model)]
    for _ in range(count):
        batch, pictures = batches.next()
        rows = hidden_after(model, batch, pictures)[0][batch.targets >= 0]
        told = model.phi.lm_head(rows).log_softmax(-1)
        said = torch.multinomial(told.detach().exp(), 1)
        torch.autograd.grad(told.gather(1, said).sum(), weights)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def rounded(weight: Tensor, curvature: Tensor) -> Tensor:
    """A matrix [outputs, inputs] rounded column by column, the most used first; `curvature` as `curvatures` has it."""
    order = curvature.diagonal().argsort(descending=True)
    left, h = weight[:, order].double(), curvature[order][:, order].double()
    h = h + torch.eye(len(h)) * DAMPING * h.diagonal().mean()
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for i in range(len(h)):
        kept = coarse(left[:, i].float()).double()
        error = (left[:, i] - kept) / upper[i, i]
        left[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
        left[:, i] = kept
    return left[:, order.argsort()].float()


@torch.no_grad()
def difference(model: Student, other: Student, held: list[Seen]) -> tuple[float, float]:
    """Mean KL divergence of the other's answers from the model's, nats a token, and the share of tokens where the likeliest is another."""
    divergence, changed, tokens = 0.0, 0, 0
    for batch, pictures in held:
        answers = batch.targets >= 0
        wanted, found = (m.phi.lm_head(hidden_after(m, batch, pictures)[0][answers]).log_softmax(-1) for m in (model, other))
        divergence += (wanted.exp() * (wanted - found)).sum().item()
        changed += int((wanted.argmax(-1) != found.argmax(-1)).sum())
        tokens += len(wanted)
    return divergence / tokens, changed / tokens


def round_checkpoint(start: Path, out: Path, count: int) -> None:
    """Writes the checkpoint with its decoder rounded, and tells how far it is from what it was, beside rounding to the nearest."""
    torch.set_flush_denormal(True)
    model, nearest = from_folder(start), from_folder(start)
    torch.manual_seed(5)
    found = curvatures(model, Batches(model, 4242), count)
    unseen = Batches(model, 777)
    held = [unseen.next() for _ in range(HELD)]
    made = from_folder(start)
    for (name, m), (_, near) in zip(matrices(made), matrices(nearest), strict=True):
        m.weight.data, near.weight.data = rounded(m.weight, found[name]), coarse(near.weight.data)
    for name, other in (("to the nearest", nearest), ("column by column", made)):
        divergence, changed = difference(model, other, held)
        print(f"rounded {name}: {divergence:.6f} nats a token, {changed:.3%} of the tokens are others")
    export(made.phi, out, rounded=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="the checkpoint folder to round")
    parser.add_argument("--out", type=Path, required=True, help="where the rounded checkpoint goes")
    parser.add_argument("--batches", type=int, default=300, help="of samples that the rounding is learnt from")
    args = parser.parse_args()
    round_checkpoint(args.start, args.out, args.batches)
