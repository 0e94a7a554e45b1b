"""Weights as they are shipped and as phi3v's q4 stores them, so that training can get used to both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GROUP, SUBGROUP = 128, 32
SHRINK = (1.0, 0.9, 0.8)  # of the step that clips nothing; the encoder tries some more
DROPPED = 20  # of the 23 bits of an f32's mantissa: 3 stay, so that with the sign they take half a byte of the program


@torch.no_grad()
def coarse(x: Tensor) -> Tensor:
    """f32 numbers rounded to those that a checkpoint has: bf16 whose last 4 bits are 0."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << (DROPPED - 1))) & -(1 << DROPPED)).view(torch.float32)


def q4(weight: Tensor) -> Tensor:
    """A matrix [n, k], k a multiple of 128, rounded to 4 bits: levels -8 to 7 times a sub-scale of 0 to 15 for
    each 32 values times a scale for each 128 (docs/internals/weights-format.md)."""
    x = weight.view(weight.shape[0], -1, GROUP // SUBGROUP, SUBGROUP)
    whole = torch.maximum(x.amax(-1) / 7, -x.amin(-1) / 8).clamp(min=1e-12)[..., None]
    best, least = torch.zeros_like(x), torch.full_like(whole, float("inf"))
    for shrink in SHRINK:
        scale = (whole * shrink).amax(-2, keepdim=True) / 15
        step = (whole * shrink / scale).round().clamp(1, 15) * scale
        tried = (x / step).round().clamp(-8, 7) * step
        error = (tried - x).square().sum(-1, keepdim=True)
        best = torch.where(error < least, tried, best)
        least = torch.minimum(error, least)
    return best.view_as(weight)


@torch.no_grad()
def round_decoder(model: nn.Module) -> None:
    """Rounds the matrices that `--quant q4` stores in 4 bits: those of the decoder's layers."""
    matrices = [p for name, p in model.named_parameters() if "model.layers." in name and p.dim() == 2]
    for width in {p.shape[1] for p in matrices}:  # a few large calls instead of many small ones
        group = [p for p in matrices if p.shape[1] == width]
        for p, rounded in zip(group, q4(torch.cat(group)).split([len(p) for p in group]), strict=True):
            p.copy_(rounded)
