"""Examples as tensors: prompt ids by the processor's rules, tiles, answers, and where to look."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from drawing.canvas import Mark, to_tile
from drawing.pages import label_maps
from drawing.tasks import MAKERS, Example, Pointer
from network.model import MERGED
from samples.tokens import tokenizer_json

SHORT_ROWS = 157  # glb_GN and the global view
LONG_ROWS = 313  # the sub image before them
# Room in a record (`Sample.record`). None of some 30,000 samples needed more, except pairs with large shapes: of their cells CELLS are drawn.
TAIL = 128  # tokens after the pictures
CELLS = 56  # cells of a picture with something in them
SPOTS = 5  # rows that one row is to look at
ROOM = {"read": 56, "last": 54, "tops": 2, "feet": 2, "same": 3, "verdict": 28}  # guides by kind
PLACES = {kind: slice(sum(list(ROOM.values())[:i]), sum(list(ROOM.values())[: i + 1])) for i, kind in enumerate(ROOM)}
# Names of rows in a record, which hold for any number of rows a picture: 0 the first, cells of two pictures, the tail's
CELL, TEXT = 1, 1 + 2 * MERGED * MERGED
NAMED = slice(1, 4)  # columns of a patch's labels that its cell's row is to name: the character and its direct neighbours
FIELDS = {
    "tail": (TAIL,), "targets": (TAIL,), "weights": (TAIL,), "cells": (2, CELLS),
    "names": (2, CELLS, 4 * (NAMED.stop - NAMED.start)),
    "rows": (sum(ROOM.values()),), "spots": (sum(ROOM.values()), SPOTS),
}
SIZES = [math.prod(shape) for shape in FIELDS.values()]
# of a counted number and of what a comparison comes to in the loss: few tokens among many easy ones
WEIGHTS = {"tops": 5, "verdict": 3}


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The tokenizer of `tokens.py`."""
    import json

    return Tokenizer.from_str(json.dumps(tokenizer_json()))


@lru_cache(maxsize=1)
def vocab_size() -> int:
    """Rows of the embedding table: the vocabulary rounded up to a multiple of 64."""
    return (tokenizer().get_vocab_size() + 63) // 64 * 64


def end_id() -> int:
    """The id of <|end|>, which closes an answer."""
    return tokenizer().token_to_id("<|end|>")


def prompt_chunks(question: str, images: int) -> list[list[int]]:
    """The ids of the chunks around the picture runs, each with its leading BOS."""
    tags = "".join("<|image|>\n" for _ in range(images)).replace("<|image|>", "\0")
    prompt = f"<|user|>\n{tags}{question}<|end|>\n<|assistant|>\n"
    return [tokenizer().encode(chunk).ids for chunk in prompt.split("\0")]


@dataclass
class Look:
    """The merged cells (row * 12 + column) of a picture that an answer token is read from; where the
    token is how many shapes there are, those of their topmost points and in `feet` of their lowest."""

    image: int
    cells: list[int]
    feet: list[int] | None = None


@dataclass
class Sample:
    """One example ready for batching.

    A picture has a tile u8 [336, 336, 3] and, if asked for, labels [576, 8], those of its patches' centres (`label_maps`).
    `chunks` are the prompt's id runs with a picture between each two. `look` holds for each answer
    token where it is read from, or None. `alike` and `verdict` are those of `Example` in answer tokens.
    """

    task: str
    tiles: list[np.ndarray]
    labels: list[np.ndarray]
    chunks: list[list[int]]
    answer: list[int]
    look: list[Look | None]
    alike: list[tuple[int, int, bool]]
    verdict: int
    features: torch.Tensor | None = None

    @property
    def begin(self) -> int:
        """The row of the tail that predicts the first answer token."""
        return len(self.chunks[-1]) - 1

    @property
    def length(self) -> int:
        """Tokens of the tail."""
        return self.begin + len(self.answer)

    @property
    def fits(self) -> bool:
        """Whether a record has room for it."""
        return self.length <= TAIL

    @cached_property
    def record(self) -> np.ndarray:
        """All but the pictures and what stands before them: i16 [sum(SIZES)], `FIELDS` after each other, -1 where there is nothing."""
        parts = {name: np.full(shape, -1, np.int16) for name, shape in FIELDS.items()}
        tail = self.chunks[-1] + self.answer[:-1]
        parts["tail"][: len(tail)] = tail
        parts["targets"][self.begin : self.length] = self.answer
        parts["weights"][:] = 1
        guides = guides_of(self)
        for kind, place in PLACES.items():
            for at, guide in zip(range(place.start, place.stop), (g for g in guides if g.kind == kind), strict=False):
                parts["rows"][at] = TEXT + guide.row
                parts["spots"][at, : len(guide.spots)] = guide.spots
                if kind in WEIGHTS:
                    parts["weights"][guide.row] = WEIGHTS[kind]
        for image, labels in enumerate(self.labels):
            self._name_cells(labels, parts["cells"][image], parts["names"][image])
        return np.concatenate([part.ravel() for part in parts.values()])

    def _name_cells(self, labels: np.ndarray, cells: np.ndarray, names: np.ndarray) -> None:
        """Fills in which cells of a picture [576, 8] have something in them [CELLS], and what their patches hold [CELLS, 12]."""
        held = labels.reshape(MERGED, 2, MERGED, 2, -1).swapaxes(1, 2).reshape(MERGED * MERGED, 4, -1)[..., NAMED]
        held = held.reshape(MERGED * MERGED, -1)
        found = held.any(1).nonzero()[0]
        if len(found) > CELLS:
            found = np.random.default_rng(len(self.answer)).permutation(found)[:CELLS]
        cells[: len(found)], names[: len(found)] = found, held[found]


def cell_of(point: tuple[int, int]) -> int:
    """The merged cell under a point."""
    x, y = point
    return min(11, max(0, y // 28)) * 12 + min(11, max(0, x // 28))


def cells_of(mark: Mark) -> list[int]:
    """The merged cells under the vertical middle line of a character."""
    x0, y0, x1, y1 = mark.box
    column = min(11, max(0, int((x0 + x1) / 2 // 28)))
    height = y1 - y0
    low, high = (y0 + 0.25 * height) / 28, (y1 - 0.3 * height) / 28
    rows = range(min(11, max(0, int(low))), min(11, max(0, int(high))) + 1)
    return [r * 12 + column for r in rows]


def prepare(example: Example, with_labels: bool) -> Sample:
    """Renders the tiles and aligns the answer's tokens with the marks."""
    drawn = [to_tile(c) for c in example.canvases]
    encoded = tokenizer().encode(example.answer, add_special_tokens=False)
    owner: list[tuple[Pointer, int] | None] = []
    for text, pointer in example.parts:
        owner += [None if pointer is None else (pointer, i) for i in range(len(text))]
    look: list[Look | None] = []
    token_at: dict[int, int] = {}  # the token that starts at a character of the answer
    at = 0
    for piece in encoded.tokens:
        # pieces tile the answer with one blank prepended; a byte token is one character here
        size = 1 if piece.startswith("<0x") else len(piece)
        start = at - 1 if at else 0
        at += size
        token_at[start] = len(look)
        found = owner[start] if size == 1 and at > 1 and start < len(owner) else None
        look.append(None if found is None else target(found, drawn))
    labels = []
    if with_labels:
        for _, marks in drawn:
            where, table = label_maps(marks)
            labels.append(table[where[7::14, 7::14].astype(np.int64)].reshape(576, -1))
    return Sample(
        example.task, [t for t, _ in drawn], labels, prompt_chunks(example.question, len(drawn)),
        [*encoded.ids, end_id()], [*look, None],
        [(token_at[i], token_at[j], same) for i, j, same in example.alike], token_at.get(example.verdict, -1),
    )


def target(found: tuple[Pointer, int], drawn: list) -> Look:
    """The picture and the cells that a copied character stands in."""
    pointer, i = found
    marks = drawn[pointer.image][1]
    if marks[pointer.marks[0]].line < 0:  # shapes: any of them
        shapes = [marks[m] for m in pointer.marks]
        feet = [cell_of(s.foot) for s in shapes] if pointer.count else None
        return Look(pointer.image, [cell_of(s.top) for s in shapes], feet)
    return Look(pointer.image, cells_of(marks[pointer.marks[i]]))


def sample(task: str, rng: random.Random, with_labels: bool = False, **options: object) -> Sample:
    """A fresh sample of a task that has room in a record."""
    while not (found := prepare(MAKERS[task](rng, **options), with_labels)).fits:
        pass
    return found


class Guide(NamedTuple):
    """Rows, by their names, that a row of a sample's tail should look at.

    Kinds: `read` for the character that the row predicts (the first row where none follows), `last` for the
    one that is its input, `tops` and `feet` for shapes to be counted, `same` for an equal thing earlier in the
    answer (the first row where there is none), `verdict` for the things compared.
    """

    kind: str
    row: int
    spots: list[int]


def guides_of(sample: Sample) -> list[Guide]:
    """Where the rows of a sample's tail should look."""
    found: list[Guide] = []
    begin = sample.begin
    for i, look in enumerate(sample.look):
        if look is None:
            if i and sample.look[i - 1] is not None and sample.task != "pair":  # a copied stretch is over
                found.append(Guide("read", begin + i, [0]))
            continue
        spots, feet = ([CELL + look.image * MERGED * MERGED + c for c in cells] for cells in (look.cells, look.feet or []))
        if feet:
            found += [Guide("tops", begin + i, spots), Guide("feet", begin + i, feet)]
        else:
            found += [Guide("read", begin + i, spots), Guide("last", begin + i + 1, spots)]
    told = [begin + 1 + j for _, j, _ in sample.alike]
    for (i, _, same), row in zip(sample.alike, told, strict=True):
        found.append(Guide("same", row, [TEXT + begin + 1 + i if same else 0]))
    if sample.alike:
        names = [TEXT + row for row in told]
        found += [Guide("verdict", begin + i, names) for i in range(sample.verdict, len(sample.answer))]
    return [g for g in found if g.row < sample.length]


@dataclass(frozen=True)
class Layout:
    """What stands before the tails of samples with the same number of pictures.

    ids [first] (0: picture rows), which lie in `spans`; positions [first + TAIL]; rows [TEXT + TAIL]: which row a name means.
    """

    spans: list[tuple[int, int]]
    ids: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device) -> Layout:
        return Layout(self.spans, self.ids.to(device), self.positions.to(device), self.rows.to(device))


def row_of(cell: torch.Tensor) -> torch.Tensor:
    """The row of a merged cell in its view, where a separator ends each line of cells."""
    return cell // MERGED * (MERGED + 1) + cell % MERGED


@lru_cache(maxsize=32)
def layout(pictures: int, short: bool, long: int = LONG_ROWS) -> Layout:
    """`short` leaves the sub images out but keeps all positions. A picture has `long` rows in all."""
    rows = SHORT_ROWS if short else long
    ids: list[int] = []
    positions: list[int] = []
    spans: list[tuple[int, int]] = []
    names = torch.zeros(TEXT + TAIL, dtype=torch.long)
    cell = torch.arange(MERGED * MERGED)
    at = 0
    for n, chunk in enumerate(prompt_chunks("", pictures)[:-1]):
        positions += range(at, at + len(chunk))
        ids += chunk
        start = len(ids) + rows - SHORT_ROWS + 1  # of the global view
        names[CELL + len(cell) * n : CELL + len(cell) * (n + 1)] = start + row_of(cell)
        at += len(chunk) + long
        positions += range(at - rows, at)
        spans.append((len(ids), len(ids) + rows))
        ids += [0] * rows
    positions += range(at, at + TAIL)
    names[TEXT:] = len(ids) + torch.arange(TAIL)
    return Layout(spans, torch.tensor(ids, dtype=torch.long), torch.tensor(positions), names)


@dataclass
class Batch:
    """Samples with the same number of pictures, padded to one length.

    ids [batch, tokens] (0: picture rows, in `spans`), positions [tokens], first: the first row of the tails. Of these
    rows: targets (-100: no loss) and their weights, both [batch, tokens - first]. guides: kind -> rows [batch, n] and
    those to look at [batch, n, SPOTS] (-1: none). cells [batch, pictures, CELLS] (-1: none), names [batch, pictures,
    CELLS, 12]: what their patches hold.
    """

    spans: list[tuple[int, int]]
    ids: torch.Tensor
    positions: torch.Tensor
    first: int
    targets: torch.Tensor
    weights: torch.Tensor
    guides: dict[str, tuple[torch.Tensor, torch.Tensor]]
    cells: torch.Tensor
    names: torch.Tensor


def assemble(records: torch.Tensor, before: Layout, longest: int = TAIL) -> Batch:
    """A batch of records [batch, numbers] of whose tails the longest has so many tokens."""
    fields = records.long().split(SIZES, 1)
    part = {name: f.view(-1, *shape) for (name, shape), f in zip(FIELDS.items(), fields, strict=True)}
    first, pictures = len(before.ids), len(before.spans)
    ids = torch.cat((before.ids.expand(len(records), -1), part["tail"][:, :longest].clamp(min=0)), 1)
    targets = part["targets"][:, :longest]
    kinds = () if pictures == 0 else ("read", "last") if pictures == 1 else tuple(ROOM)
    guides = {}
    for kind in kinds:
        found = [part[name][:, PLACES[kind]] for name in ("rows", "spots")]
        rows, spots = (before.rows[f.clamp(min=0)].masked_fill(f < 0, -1) for f in found)
        guides[kind] = rows, spots
    return Batch(
        before.spans, ids, before.positions[: first + longest], first, targets.masked_fill(targets < 0, -100),
        part["weights"][:, :longest].float(), guides, part["cells"][:, :pictures], part["names"][:, :pictures],
    )


def collate(samples: list[Sample], short: bool, long: int = LONG_ROWS) -> Batch:
    """Builds a batch of samples with the same number of pictures."""
    records = torch.from_numpy(np.stack([s.record for s in samples]))
    return assemble(records, layout(len(samples[0].tiles), short, long), max(s.length for s in samples))
