"""Two single-threaded workers that train one model together without waiting for each other.

The weights and the optimizer's moments lie flat in shared memory. A worker copies the weights, computes
a gradient on its own batch, and applies it under a lock. On a machine shared with other work this
keeps every idle core busy, where one process with two threads waits for the slower thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from optim.update import BF16, CLIP, Update, fill, flat


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


def keep(state: dict[str, Tensor], path: Path) -> None:
    """Writes a state in one move, so that a stop never leaves half a file."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


class Shared:
    """Flat weights, moments and counters in shared memory; `moving` as `Update` takes it."""

    def __init__(self, model: nn.Module, moving: Tensor) -> None:
        self.update = Update(model, moving)
        self.weights = flat(model).share_memory_()
        self.first = torch.zeros_like(self.weights).share_memory_()
        self.second = torch.zeros_like(self.weights).share_memory_()
        self.count = torch.zeros(2, dtype=torch.float64).share_memory_()  # steps, seconds spent
        self.lock = mp.get_context("fork").Lock()

    def pull(self, model: nn.Module, rounded: Callable[[Tensor], Tensor] | None = None) -> None:
        """Copies the shared weights into a worker's model, rounded if told how."""
        fill(model, rounded(self.weights) if rounded else self.weights)

    def push(self, model: nn.Module, rate: float) -> None:
        """One step with the model's gradients, unless they are not finite."""
        grad = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
        )
        norm = float(grad.norm())
        if not norm < float("inf"):
            return
        grad.mul_(min(1.0, CLIP / (norm + 1e-6)))
        with self.lock:
            self.count[0] += 1
            step, momentum = self.update.moments(grad, self.first, self.second, float(self.count[0]))
        self.update.matrices(momentum, step)  # the long part, without the lock
        with self.lock:
            self.update.apply(self.weights, step, rate)

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
