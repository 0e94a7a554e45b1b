"""What a GPU trains on: rings of the newest pages and samples, which renderers fill."""

from __future__ import annotations

import queue

import torch
from torch import Tensor

from drawing.pages import COLOUR_COLUMN
from gpu.feeds import KINDS, NONE, ONE, ONE_OF_FOUR, PAGE, TALKS, TWO, TWO_OF_FOUR, Kind
from gpu.render import Renderers
from network.model import GRID, PATCH, ClipVision, patches_of

# Kept of each kind: 7 GB of pages, later 36 GB of features
ROOM = {PAGE: 12_000, NONE: 4_000, ONE: 110_000, TWO: 28_000, ONE_OF_FOUR: 6_000, TWO_OF_FOUR: 2_500}
ROOM |= {kind: 12_000 // kind.pictures for kind in TALKS}
BLOCKS = 1_200  # 26 GB of the computer's memory
# Shares of the blocks rendered after the pages, of plain samples and of wide ones
SHARES = {NONE: 0.02, ONE: 0.58, TWO: 0.3, ONE_OF_FOUR: 0.05, TWO_OF_FOUR: 0.05}
WIDE_SHARES = {NONE: 0.02, ONE: 0.48, TWO: 0.2, ONE_OF_FOUR: 0.12, TWO_OF_FOUR: 0.06, **{kind: 0.03 for kind in TALKS}}


class Ring:
    """The newest rows of some tensors of equal length, on the device."""

    def __init__(self, size: int) -> None:
        self.size, self.at, self.held = size, 0, 0
        self.parts: list[Tensor] = []

    def add(self, *parts: Tensor) -> None:
        """Puts rows in place of the oldest."""
        if not self.parts:
            self.parts = [p.new_empty(self.size, *p.shape[1:]) for p in parts]
        n = len(parts[0])
        if self.at + n > self.size:
            self.at = 0
        for kept, p in zip(self.parts, parts, strict=True):
            kept[self.at : self.at + n] = p
        self.at += n
        self.held = max(self.held, self.at)

    def places(self, count: int) -> Tensor:
        """Random rows."""
        return torch.randint(self.held, (count,), device=self.parts[0].device)

    def draw(self, count: int) -> list[Tensor]:
        """Random rows of all parts."""
        at = self.places(count)
        return [p[at] for p in self.parts]


class Stock:
    """A ring for each kind of block; samples are kept as records and features, once there is a tower."""

    def __init__(self, renderers: Renderers, device: torch.device, scale: float) -> None:
        self.renderers, self.device, self.wide = renderers, device, renderers.orders.wide
        self.served = renderers.serve(device)
        self.rings = {kind: Ring(int(room * scale)) for kind, room in ROOM.items()}
        self.made = {kind: 0 for kind in KINDS}
        self.tower: ClipVision | None = None

    def take(self, wait: bool = False) -> None:
        """Puts the next block away, if there is one."""
        try:
            kind, parts = self.served.get(wait, 60)
        except queue.Empty:
            if wait:
                raise RuntimeError("no renderer made a block within a minute; its traceback is above") from None
            return
        for part in parts:  # they were made on the stream that carried them
            if part.is_cuda:
                part.record_stream(torch.cuda.current_stream())
        self.made[kind] += kind.count
        if kind is PAGE:
            if self.tower is None:
                self.rings[kind].add(*parts)
        elif kind is NONE:
            self.rings[kind].add(parts[1])
        elif self.tower is not None:
            self.rings[kind].add(parts[1], self.features(parts[0], kind))

    def want_samples(self) -> None:
        """Has samples rendered in place of pages from now on."""
        shares = WIDE_SHARES if self.wide else SHARES
        self.renderers.wanted[1:] = [shares.get(kind, 0.0) for kind in KINDS[1:]]
        self.renderers.wanted[0] = 0.0  # pages last: renderers read meanwhile, and some share must be above 0

    def mixed(self) -> torch.autocast:
        """Products in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    @torch.no_grad()
    def features(self, tiles: Tensor, kind: Kind) -> Tensor:
        """Tower features bf16 [samples, tiles, 576, hidden] of tiles u8 [samples * tiles, 336, 336, 3]."""
        with self.mixed():
            found = torch.cat([self.tower(patches_of(t)) for t in tiles.split(64)]).bfloat16()
        return found.view(-1, kind.tiles, GRID * GRID, found.shape[-1])

    def windows(self, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `Windows.batch` draws: patches [count, side^2, 588], places [count, side^2], labels [count, side^2, 8]."""
        pages, device, wide = self.rings[PAGE], self.device, side * PATCH
        pixels, maps, tables = pages.parts
        page = pages.places(count)[:, None, None]
        rows, cols = (torch.randint(337 - wide, (count, 1), device=device) + torch.arange(wide, device=device) for _ in range(2))
        crops = pixels[page, rows[:, :, None], cols[:, None, :]]  # [count, wide, wide, 3]
        marks = maps[page, rows[:, 7::PATCH, None], cols[:, None, 7::PATCH]].long()
        labels = tables[page, marks].long()  # [count, side, side, 8]
        grid = torch.arange(side, device=device)
        top, left = (torch.randint(GRID - side + 1, (count, 1, 1), device=device) for _ in range(2))
        places = (top + grid[:, None]) * GRID + left + grid
        crops = tinted(crops, ~labels[..., COLOUR_COLUMN].flatten(1).any(1))
        return patches_of(crops), places.view(count, -1), labels.view(count, side * side, -1)


def tinted(crops: Tensor, plain: Tensor) -> Tensor:
    """Pictures u8 [count, height, width, 3]; `plain` ones, which hold no shape, are inverted or recoloured now and then."""
    count, device = len(crops), crops.device
    kind = torch.rand(count, device=device)
    crops = torch.where((plain & (kind < 0.3))[:, None, None, None], 255 - crops, crops)
    order = torch.rand(count, 3, device=device).argsort(1)
    order = torch.where((plain & ((kind > 0.7) | (kind < 0.15)))[:, None], order, torch.arange(3, device=device))
    return crops.gather(3, order[:, None, None].expand(crops.shape))
