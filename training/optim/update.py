"""One step on flat weights: Muon (momentum made orthogonal, scaled to AdamW's usual step size) for hidden matrices, AdamW for the rest.

Weights, gradients and moments are flat vectors in the order of `model.parameters()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

# bf16 products pay where the CPU has tiles, and on AMD's AVX-512. Intel's AVX-512 alone has them at half the rate of f32 (85 and 163 G
# operations/s of a core of Emerald Rapids whose tiles are hidden), and elsewhere torch emulates them.
CPU = Path("/proc/cpuinfo").read_text()
BF16 = "amx_bf16" in CPU or ("avx512_bf16" in CPU and "AuthenticAMD" in CPU)
CLIP, DECAY, BETAS = 1.0, 0.01, (0.9, 0.98)  # longest gradient, pull of weights to zero, averages of both moments


@dataclass(frozen=True)
class Matrix:
    """A block of rows of a weight matrix inside the flat vector, stepped by Muon."""

    start: int
    rows: int
    cols: int

    @property
    def span(self) -> slice:
        """Its place in the flat vector."""
        return slice(self.start, self.start + self.rows * self.cols)


def matrices(model: nn.Module) -> list[Matrix]:
    """The hidden weight matrices; fused ones (qkv, gate and up) as separate blocks."""
    found, at = [], 0
    for name, p in model.named_parameters():
        inner = ".layers." in name or "img_projection" in name
        if p.dim() == 2 and inner and name.endswith(".weight"):
            blocks = 3 if "qkv_proj" in name else 2 if "gate_up_proj" in name else 1
            rows, cols = p.shape[0] // blocks, p.shape[1]
            found += [Matrix(at + i * rows * cols, rows, cols) for i in range(blocks)]
        at += p.numel()
    return found


def orthogonal(stack: Tensor) -> Tensor:
    """The nearest half-orthogonal matrices [n, rows, cols] by five Newton-Schulz steps (Muon)."""
    x = stack / (stack.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if BF16 or x.is_cuda else x
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x.transpose(1, 2) if tall else x).float()


@torch.no_grad()
def fill(model: nn.Module, weights: Tensor) -> None:
    """Copies flat weights into a model."""
    for p, part in zip(model.parameters(), weights.split([p.numel() for p in model.parameters()]), strict=True):
        p.copy_(part.view_as(p))


def flat(model: nn.Module) -> Tensor:
    """A copy of a model's weights, flat."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Update:
    """How the weights of one model move; `moving` is flat, each weight's share of the learning rate, 0 where it rests."""

    def __init__(self, model: nn.Module, moving: Tensor) -> None:
        self.moving = moving
        self.groups: dict[tuple[int, int], list[slice]] = {}  # by shape: one product steps all of a shape
        live = [m for m in matrices(model) if bool(moving[m.span].any())]
        for m in live:
            self.groups.setdefault((m.rows, m.cols), []).append(m.span)
        self.others = [slice(0, len(moving))]  # what AdamW steps: one long call is the fastest on a GPU
        if not moving.is_cuda:
            spans = sorted((m.span.start, m.span.stop) for m in live)
            starts, stops = [0, *(stop for _, stop in spans)], [*(start for start, _ in spans), len(moving)]
            self.others = [slice(a, b) for a, b in zip(starts, stops, strict=True) if a < b]

    def moments(self, grad: Tensor, first: Tensor, second: Tensor, count: float) -> tuple[Tensor, Tensor]:
        """Takes a clipped gradient into both moments, as the step number `count`; gives AdamW's step, and Muon's momentum
        in the gradient's place."""
        b1, b2 = BETAS
        first.lerp_(grad, 1 - b1)
        mean, step = first / (1 - b1**count), torch.zeros_like(grad)
        for s in self.others:
            second[s].mul_(b2).addcmul_(grad[s], grad[s], value=1 - b2)
            step[s] = mean[s] / ((second[s] / (1 - b2**count)).sqrt_() + 1e-8)
        return step, grad.lerp_(mean, b1)

    def matrices(self, momentum: Tensor, step: Tensor) -> None:
        """Fills the hidden matrices' part of `step`."""
        for (rows, cols), spans in self.groups.items():
            stack = torch.stack([momentum[s].view(rows, cols) for s in spans])
            for s, made in zip(spans, orthogonal(stack) * (0.2 * max(rows, cols) ** 0.5), strict=True):
                step[s] = made.flatten()

    def apply(self, weights: Tensor, step: Tensor, rate: float) -> None:
        """Moves the weights by `rate` times the step and their decay."""
        weights.sub_((rate * self.moving) * (step + DECAY * weights))
