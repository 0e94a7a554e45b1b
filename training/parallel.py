"""Two single-threaded workers that train one model together without waiting for each other.

The weights and the optimizer's moments lie flat in shared memory. A worker copies the weights, computes
a gradient on its own batch, and applies it under a lock. On a machine shared with other work this
keeps every idle core busy, where one process with two threads waits for the slower thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

# bf16 products pay only where the CPU has them; elsewhere torch emulates them at a loss.
BF16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
CLIP, DECAY, BETAS = 1.0, 0.01, (0.9, 0.98)  # longest gradient, pull of weights to zero, AdamW's averages


def mixed() -> torch.autocast:
    """Products in bf16 on CPUs that have them, in f32 on others."""
    return torch.autocast("cpu", torch.bfloat16, enabled=BF16)


class Clock:
    """Seconds of its core that a worker has had; other work on the machine makes a run longer, not shorter."""

    def __init__(self, spent: float) -> None:
        self.before = spent - time.process_time()

    def tick(self) -> float:
        """All seconds so far, those of earlier runs included."""
        return self.before + time.process_time()


@dataclass(frozen=True)
class Matrix:
    """A block of rows of a weight matrix inside the flat vector, stepped by Muon."""

    start: int
    rows: int
    cols: int

    @property
    def span(self) -> slice:
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


def keep(state: dict[str, Tensor], path: Path) -> None:
    """Writes a state in one move, so that a stop never leaves half a file."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


class Shared:
    """Flat weights, moments and counters in shared memory.

    Hidden matrices step by Muon (momentum made orthogonal, scaled to AdamW's usual step size),
    everything else by AdamW.
    """

    def __init__(self, model: nn.Module) -> None:
        params = list(model.parameters())
        self.matrices: dict[tuple[int, int], list[Matrix]] = {}
        for m in matrices(model):
            self.matrices.setdefault((m.rows, m.cols), []).append(m)
        spans = sorted((m.span.start, m.span.stop) for group in self.matrices.values() for m in group)
        ends = [0, *(stop for _, stop in spans)], [*(start for start, _ in spans), sum(p.numel() for p in params)]
        self.others = [slice(a, b) for a, b in zip(*ends) if a < b]  # what AdamW steps
        self.weights = torch.cat([p.detach().flatten() for p in params]).share_memory_()
        self.first = torch.zeros_like(self.weights).share_memory_()
        self.second = torch.zeros_like(self.weights).share_memory_()
        self.count = torch.zeros(2, dtype=torch.float64).share_memory_()  # steps, seconds spent
        self.lock = mp.get_context("fork").Lock()

    def pull(self, model: nn.Module) -> None:
        """Copies the shared weights into a worker's model."""
        fill(model, self.weights)

    def push(self, model: nn.Module, rates: Tensor) -> None:
        """One step with the model's gradients, unless they are not finite; `rates` is flat."""
        grad = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
        )
        norm = float(grad.norm())
        if not norm < float("inf"):
            return
        grad.mul_(min(1.0, CLIP / (norm + 1e-6)))
        b1, b2 = BETAS
        with self.lock:
            self.count[0] += 1
            n = float(self.count[0])
            self.first.lerp_(grad, 1 - b1)
            for s in self.others:
                self.second[s].mul_(b2).addcmul_(grad[s], grad[s], value=1 - b2)
            first = self.first / (1 - b1**n)
            step = torch.zeros_like(grad)
            for s in self.others:
                step[s] = first[s] / ((self.second[s] / (1 - b2**n)).sqrt_() + 1e-8)
        self._muon(grad.lerp_(first, b1), step)
        with self.lock:
            self.weights.sub_(rates * (step + DECAY * self.weights))

    def _muon(self, momentum: Tensor, step: Tensor) -> None:
        """Fills the hidden matrices' part of `step`; matrices without a gradient stay at rest."""
        for (rows, cols), group in self.matrices.items():
            live = [m for m in group if bool(momentum[m.span].any())]
            if not live:
                continue
            stack = torch.stack([momentum[m.span].view(rows, cols) for m in live])
            made = orthogonal(stack) * (0.2 * max(rows, cols) ** 0.5)
            for m, update in zip(live, made):
                step[m.span] = update.flatten()

    def save(self, path: Path) -> None:
        """Writes the state."""
        with self.lock:
            state = {k: getattr(self, k).clone() for k in ("weights", "first", "second", "count")}
        keep(state, path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote."""
        state = torch.load(path, weights_only=True)
        for k in ("weights", "first", "second", "count"):
            getattr(self, k).copy_(state[k])


def run(workers: int, work: Callable[[int], None]) -> None:
    """Runs `work(rank)` in `workers` forked single-threaded processes until all return."""
    torch.set_num_threads(1)
    context = mp.get_context("fork")
    jobs = [context.Process(target=_one, args=(work, rank)) for rank in range(workers)]
    for job in jobs:
        job.start()
    while (alive := [job for job in jobs if job.is_alive()]) and not any(job.exitcode for job in jobs):
        wait([job.sentinel for job in alive])
    for job in alive:  # one has failed: what the others would make alone is not wanted
        job.kill()
    if any(job.exitcode for job in jobs):
        raise RuntimeError("a training worker failed; its traceback is above")


def _one(work: Callable[[int], None], rank: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # sharp attention has many weights so small that sums with them take ten times as long
    work(rank)
