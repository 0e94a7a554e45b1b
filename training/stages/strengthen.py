"""Makes the place channels of a stage-1 state three times stronger, and attention's scores twice as large.

With the picture's channels grown in training, patches of strong contrast have short keys and lose
attention to flat ones. The norms' weights are adapted so that their outputs stay the same on
average; the rest of stage 1 settles it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from network.model import GRID, PLACE
from optim.shared import keep
from optim.update import fill, flat
from stages.stage1 import Reader, Windows

FACTOR = 3.0


class Tap:
    """Records the standard deviation of every row that enters each layer norm."""

    def __init__(self, model: Reader) -> None:
        self.seen: dict[nn.LayerNorm, Tensor] = {}
        self.hooks = [norm.register_forward_pre_hook(self._hook) for norm in norms(model)]

    def remove(self) -> None:
        """Stops recording."""
        for hook in self.hooks:
            hook.remove()

    def _hook(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen[norm] = inputs[0].std(-1)  # type: ignore[index]


def norms(model: Reader) -> list[nn.LayerNorm]:
    """The norms after pre_layrnorm, in the order they are used."""
    layers = model.tower.encoder.layers[:-1]
    return [n for layer in layers for n in (layer.layer_norm1, layer.layer_norm2)] + [model.norm]


@torch.no_grad()
def strengthen(model: Reader, patches: Tensor, places: Tensor) -> None:
    """Changes the weights; the norms are adapted on whole pages [pages, 576, 588] at `places`."""
    tap = Tap(model)
    model(patches, places, GRID)
    before = dict(tap.seen)
    model.tower.pre_layrnorm.weight[:PLACE] *= FACTOR
    model.tower.pre_layrnorm.bias[:PLACE] *= FACTOR
    for layer in model.tower.encoder.layers[:-1]:
        layer.self_attn.q_proj.weight *= 2
    for norm in norms(model):  # in order: each ratio is taken after the earlier ones are set
        model(patches, places, GRID)
        ratio = (tap.seen[norm] / before[norm]).mean()
        norm.weight[PLACE:] *= ratio
        norm.weight[:PLACE] *= ratio / FACTOR
        print(float(ratio), file=sys.stderr)
    tap.remove()


def main(work: Path, source: Path, target: Path) -> None:
    """Reads a state, changes its weights, writes it."""
    state = torch.load(source, weights_only=True)
    model = Reader()
    fill(model, state["weights"])
    patches, places, _ = Windows(work, 2, 3).batch(8, GRID, GRID)
    strengthen(model, patches, places)
    state["weights"] = flat(model)
    keep(state, target)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
