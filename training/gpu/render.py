"""Processes that render pages and samples while a GPU trains, in blocks of one kind, through memory they share with it."""

from __future__ import annotations

import mmap
import multiprocessing as mp
import os
import queue
import random
import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drawing.canvas import TILE
from drawing.pages import FOOT_COLUMN, label_maps, page
from gpu.feeds import KINDS, PAGE, Kind, Plain, Wide
from samples.dataset import SIZES

PIXELS, RECORD = TILE * TILE * 3, sum(SIZES)  # bytes of a tile; i16 numbers of a record
MARKS = 2048  # rows of a page's table of classes; a page has some 300 marks, a wide one up to 2,000
MAP = TILE * TILE  # i16 numbers of a page's marks

BLOCK = 64 * (PIXELS + 2 * RECORD)  # bytes; the largest kind's
TABLE = MARKS * (FOOT_COLUMN + 1)
assert BLOCK >= max(PAGE.count * (PIXELS + 2 * MAP + TABLE), *(k.count * (k.tiles * PIXELS + 2 * RECORD) for k in KINDS))


@dataclass(frozen=True)
class Orders:
    """What renderers are told: shares of the tasks (`stage2.MIX`), whether samples are wide, whether plain ones come first, the first seed."""

    mix: str
    wide: bool
    easy: bool
    seed: int

    def feed(self, rank: int) -> Plain | Wide:
        """A renderer's feed."""
        seed = self.seed + rank
        return Wide(self.mix, seed, self.easy) if self.wide else Plain(self.mix, seed)


def parts_of(block: np.ndarray, kind: Kind) -> list[np.ndarray]:
    """Views of a block's bytes: tiles u8 [count * tiles, 336, 336, 3], then records i16 [count, numbers] or, of pages,
    marks i16 [count, 336, 336] and tables u8 [count, MARKS, 8]."""
    at, found = 0, []
    shapes: list[tuple[tuple[int, ...], type]] = [((kind.count * kind.tiles, TILE, TILE, 3), np.uint8)]
    if kind is PAGE:
        shapes += [((kind.count, TILE, TILE), np.int16), ((kind.count, MARKS, FOOT_COLUMN + 1), np.uint8)]
    else:
        shapes.append(((kind.count, RECORD), np.int16))
    for shape, form in shapes:
        size = int(np.prod(shape)) * np.dtype(form).itemsize
        found.append(block[at : at + size].view(form).reshape(shape))
        at += size
    return found


def render_pages(rng: random.Random, parts: list[np.ndarray], wide: bool) -> None:
    """Fills a block with pages."""
    tiles, marks, tables = parts
    done = 0
    while done < len(tiles):
        tile, found = page(rng, wide)
        where, table = label_maps(found)
        if len(table) <= MARKS:
            tiles[done], marks[done], tables[done, : len(table)] = tile, where, table
            done += 1


def render(feed: Plain | Wide, kind: Kind, parts: list[np.ndarray], progress: float) -> None:
    """Fills a block with pages, or with samples as easy as the progress asks for."""
    if kind is PAGE:
        return render_pages(feed.rng, parts, isinstance(feed, Wide))
    tiles, records = parts
    samples, views = feed.block(kind, progress)
    if views is not None:
        tiles[:] = views.numpy().reshape(tiles.shape)
    elif kind.pictures:
        tiles[:] = np.stack([t for s in samples for t in s.tiles])
    records[:] = np.stack([s.record for s in samples])


class Renderers:
    """The processes, the blocks they share with the trainer, and what they are to make."""

    def __init__(self, workers: int, blocks: int, orders: Orders) -> None:
        self.orders = orders
        context = mp.get_context("fork")
        memory = np.frombuffer(mmap.mmap(-1, blocks * BLOCK), np.uint8)
        self.blocks = memory.reshape(blocks, BLOCK)
        self.free, self.ready = context.Queue(), context.Queue()
        for i in range(blocks):
            self.free.put(i)
        self.wanted = context.RawArray("d", [1.0] + [0.0] * (len(KINDS) - 1))  # share of the processes' work for each kind
        self.progress = context.RawValue("d", 0.0)
        self.workers = [context.Process(target=self._work, args=(rank, orders), daemon=True) for rank in range(workers)]
        for worker in self.workers:
            worker.start()

    def _work(self, rank: int, orders: Orders) -> None:
        os.nice(10)
        torch.set_num_threads(1)
        feed = orders.feed(rank)
        while True:
            at = self.free.get()
            kind = feed.rng.choices(range(len(KINDS)), list(self.wanted))[0]
            render(feed, KINDS[kind], parts_of(self.blocks[at], KINDS[kind]), self.progress.value)
            self.ready.put((at, kind))

    def serve(self, device: torch.device) -> queue.Queue[tuple[Kind, list[Tensor]]]:
        """A queue that a thread fills with blocks on the device."""
        served: queue.Queue[tuple[Kind, list[Tensor]]] = queue.Queue(6)
        threading.Thread(target=self._carry, args=(device, served), daemon=True).start()
        return served

    def _carry(self, device: torch.device, served: queue.Queue[tuple[Kind, list[Tensor]]]) -> None:
        stream = torch.cuda.Stream() if device.type == "cuda" else None
        with torch.cuda.stream(stream):
            while True:
                at, kind = self.ready.get()
                parts = [torch.from_numpy(part).to(device, copy=True) for part in parts_of(self.blocks[at], KINDS[kind])]
                if stream:
                    stream.synchronize()
                self.free.put(at)
                served.put((KINDS[kind], parts))

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers:
            worker.kill()
