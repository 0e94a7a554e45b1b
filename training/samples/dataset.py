"""Examples as tensors: prompt ids by the processor's rules, tiles, answers, and where to look."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from drawing.canvas import TILE, Mark, to_tile
from drawing.example import Example, Pointer
from drawing.pages import label_maps
from drawing.tasks import MAKERS
from network.model import MERGED
from samples.tokens import tokenizer_json

SHORT_ROWS = 157  # glb_GN and the global view
LONG_ROWS = 313  # the sub image before them
FINE = 2 * MERGED  # cells along a side of the sub image of a picture of 2x2 tiles
FOUR_CROPS = FINE * (FINE + 1) + SHORT_ROWS  # rows of such a picture: 757
# Room in a record (`Sample.record`). Of a picture with more cells that have something in them, CELLS are drawn.
PICTURES = 4
ROOM = 448  # tokens of a conversation without its pictures
BRIEF = 192  # of a single turn
CELLS = 56  # cells of a picture with something in them
SPOTS = 5  # rows that one row is to look at
GUIDES = {"read": 150, "last": 150, "tops": 4, "feet": 4, "same": 9, "verdict": 84}  # guides by kind
PLACES = {kind: slice(sum(list(GUIDES.values())[:i]), sum(list(GUIDES.values())[: i + 1])) for i, kind in enumerate(GUIDES)}
# Names of rows in a record, which hold for any number of rows a picture: 0 the first, cells of the pictures' global views,
# cells of the first two's sub images, the text's
CELL = 1
SUB = CELL + PICTURES * MERGED * MERGED
TEXT = SUB + 2 * FINE * FINE
NAMED = slice(1, 4)  # columns of a patch's labels that its cell's row is to name: the character and its direct neighbours
FIELDS = {
    "text": (ROOM,), "targets": (ROOM,), "weights": (ROOM,), "before": (PICTURES,), "cells": (PICTURES, CELLS),
    "names": (PICTURES, CELLS, 4 * (NAMED.stop - NAMED.start)),
    "rows": (sum(GUIDES.values()),), "spots": (sum(GUIDES.values()), SPOTS),
}
SIZES = [math.prod(shape) for shape in FIELDS.values()]
# of a counted number and of what a comparison comes to in the loss: few tokens among many easy ones
WEIGHTS = {"tops": 5, "verdict": 3}
# Of the tokens that decide what is answered: an answer's first one where nothing is copied, else all up to the first copied one. (JSON
# parts from a plain text there only; without this, texts came out as JSON.)
PHRASED, LEADING = 8, 4


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
    """The merged cells (row * 12 + column) of a picture's global view that an answer token is read from, or, where `fine`, those of its sub
    image (row * 24 + column); where the token is how many shapes there are, those of their topmost points and in `feet` of their lowest."""

    image: int
    cells: list[int]
    feet: list[int] | None = None
    fine: bool = False


@dataclass
class Said:
    """An answer in a sample's text: its tokens, the place of the token that predicts the first, where each is read from (or None).

    `alike` and `verdict` are those of `Example` in answer tokens.
    """

    task: str
    begin: int
    tokens: list[int]
    look: list[Look | None]
    alike: list[tuple[int, int, bool]]
    verdict: int


@dataclass
class Sample:
    """One example ready for batching.

    A picture has a tile u8 [336, 336, 3] and, if asked for, labels [576, 8], those of its patches' centres (`label_maps`).
    `text` are the ids of the whole conversation without its pictures and without the last <|end|>; `before` tells
    for each picture how many of them stand before it; `said` are the answers. `large` are the pictures at 672x672 where crops are used.
    `features` and `taught` are what the tower in training and a teacher's make of the tiles, [pictures, 576, hidden], once asked for.
    """

    task: str
    tiles: list[np.ndarray]
    labels: list[np.ndarray]
    text: list[int]
    before: list[int]
    said: list[Said]
    large: list[np.ndarray] = field(default_factory=list)
    features: torch.Tensor | None = None
    taught: torch.Tensor | None = None

    @property
    def fits(self) -> bool:
        """Whether a record has room for it."""
        guides = Counter(guide.kind for guide in guides_of(self))
        return len(self.text) <= ROOM and len(self.before) <= PICTURES and all(guides[kind] <= room for kind, room in GUIDES.items())

    @cached_property
    def record(self) -> np.ndarray:
        """All but the pictures: i16 [sum(SIZES)], `FIELDS` after each other, -1 where there is nothing."""
        parts = {name: np.full(shape, -1, np.int16) for name, shape in FIELDS.items()}
        parts["text"][: len(self.text)] = self.text
        parts["before"][: len(self.before)] = self.before
        parts["weights"][:] = 1
        for said in self.said:
            parts["targets"][said.begin : said.begin + len(said.tokens)] = said.tokens
            leading = next((i for i, look in enumerate(said.look) if look), None)
            if leading is None:
                parts["weights"][said.begin] = PHRASED
            else:
                parts["weights"][said.begin : said.begin + leading + 1] = LEADING
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
            found = np.random.default_rng(len(self.text)).permutation(found)[:CELLS]
        cells[: len(found)], names[: len(found)] = found, held[found]


def cell_of(point: tuple[float, float], side: int = MERGED) -> int:
    """The merged cell under a point, of so many along a side."""
    column, row = (min(side - 1, max(0, int(v // 28))) for v in point)
    return row * side + column


def cells_of(mark: Mark, side: int = MERGED) -> list[int]:
    """The merged cells under the vertical middle line of a character."""
    x0, y0, x1, y1 = mark.box
    height, middle = y1 - y0, (x0 + x1) / 2
    first, last = (cell_of((middle, y), side) // side for y in (y0 + 0.25 * height, y1 - 0.3 * height))
    column = cell_of((middle, y0), side) % side
    return [row * side + column for row in range(first, last + 1)]


FINE_BELOW = 14  # pixels of the tile: lower marks are read from the sub image where it is larger than the global view


@dataclass
class Drawn:
    """A picture in its tile and, where crops are used, at their size, with the marks of both."""

    tile: np.ndarray
    marks: list[Mark]
    large: np.ndarray | None = None
    large_marks: list[Mark] = field(default_factory=list)


def prepare(example: Example, with_labels: bool, fine: bool = False) -> Sample:
    """Renders the tiles and aligns the answers' tokens with the marks; `fine`: the pictures come as 2x2 tiles beside the global view."""
    drawn = []
    for turn in example.turns:
        for canvas in turn.canvases:
            drawn.append(Drawn(*to_tile(canvas), *(to_tile(canvas, 2 * TILE) if fine else ())))
    script = Script(example.system)
    for turn in example.turns:
        script.take(turn, drawn)
    labels = []
    if with_labels:
        for picture in drawn:
            where, table = label_maps(picture.marks)
            labels.append(table[where[7::14, 7::14].astype(np.int64)].reshape(576, -1))
    large = [d.large for d in drawn if d.large is not None]
    return Sample(example.task, [d.tile for d in drawn], labels, script.text[:-1], script.before, script.said, large)


class Script:
    """A conversation written down as ids by the processor's rules: each chunk between pictures begins with BOS."""

    def __init__(self, system: str) -> None:
        self.text: list[int] = []
        self.before: list[int] = []
        self.said: list[Said] = []
        self.chunk = True  # whether a chunk begins
        self.pending = f"<|system|>\n{system}<|end|>\n" if system else ""

    def flush(self) -> None:
        """Turns what is pending into ids."""
        self.text += tokenizer().encode(self.pending, add_special_tokens=self.chunk).ids
        self.pending, self.chunk = "", False

    def take(self, turn: Example, drawn: list[Drawn]) -> None:
        """Adds a turn; `drawn`: all pictures of the conversation."""
        self.pending += "<|user|>\n"
        first = len(self.before) - turn.back
        for _ in turn.canvases:
            self.flush()
            self.before.append(len(self.text))
            self.pending, self.chunk = "\n", True
        self.pending += f"{turn.question}<|end|>\n<|assistant|>\n"
        self.flush()
        said = told(turn, first, drawn, len(self.text) - 1)
        self.said.append(said)
        self.text += said.tokens
        self.pending = "\n"


def told(turn: Example, first: int, drawn: list[Drawn], begin: int) -> Said:
    """A turn's answer, whose pointers count from picture `first`."""
    encoded = tokenizer().encode(turn.answer, add_special_tokens=False)
    owner: list[tuple[Pointer, int] | None] = []
    for text, pointer in turn.parts:
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
        look.append(None if found is None else target(found, first, drawn))
    alike = [(token_at[i], token_at[j], same) for i, j, same in turn.alike]
    return Said(turn.task, begin, [*encoded.ids, end_id()], [*look, None], alike, token_at.get(turn.verdict, -1))


def target(found: tuple[Pointer, int], first: int, drawn: list[Drawn]) -> Look:
    """The picture and the cells that a copied character stands in."""
    pointer, i = found
    image = first + pointer.image
    marks = drawn[image].marks
    if marks[pointer.marks[0]].line < 0:  # shapes: any of them
        shapes = [marks[m] for m in pointer.marks]
        feet = [cell_of(s.foot) for s in shapes] if pointer.count else None
        return Look(image, [cell_of(s.top) for s in shapes], feet)
    mark = pointer.marks[i]
    if drawn[image].large is not None and marks[mark].box[3] - marks[mark].box[1] < FINE_BELOW:
        return Look(image, cells_of(drawn[image].large_marks[mark], FINE), fine=True)
    return Look(image, cells_of(marks[mark]))


def sample(task: str, rng: random.Random, with_labels: bool = False, **options: object) -> Sample:
    """A fresh sample of a task that has room in a record."""
    while not (found := prepare(MAKERS[task](rng, **options), with_labels)).fits:
        pass
    return found


class Guide(NamedTuple):
    """Rows, by their names, that a row of a sample's text should look at.

    Kinds: `read` for the character that the row predicts (the first row where none follows), `last` for the
    one that is its input, `tops` and `feet` for shapes to be counted, `same` for an equal thing earlier in the
    answer (the first row where there is none), `verdict` for the things compared.
    """

    kind: str
    row: int
    spots: list[int]


def guides_of(sample: Sample) -> list[Guide]:
    """Where the rows of a sample's text should look."""
    found = [guide for said in sample.said for guide in guides_to(said)]
    return [g for g in found if g.row < len(sample.text)]


def names_of(look: Look, cells: list[int]) -> list[int]:
    """The names of the rows of cells."""
    first, each = (SUB, FINE * FINE) if look.fine else (CELL, MERGED * MERGED)
    return [first + look.image * each + cell for cell in cells]


def guides_to(said: Said) -> list[Guide]:
    """Where the rows of an answer should look."""
    found: list[Guide] = []
    begin = said.begin
    for i, look in enumerate(said.look):
        if look is None:
            if i and said.look[i - 1] is not None and said.task != "pair":  # a copied stretch is over
                found.append(Guide("read", begin + i, [0]))
            continue
        spots, feet = names_of(look, look.cells)[:SPOTS], names_of(look, look.feet or [])
        if feet:
            found += [Guide("tops", begin + i, spots), Guide("feet", begin + i, feet)]
        else:
            found += [Guide("read", begin + i, spots), Guide("last", begin + i + 1, spots)]
    seen = [begin + 1 + j for _, j, _ in said.alike]
    for (i, _, same), row in zip(said.alike, seen, strict=True):
        found.append(Guide("same", row, [TEXT + begin + 1 + i if same else 0]))
    if said.alike:
        names = [TEXT + row for row in seen]
        found += [Guide("verdict", begin + i, names) for i in range(said.verdict, len(said.tokens))]
    return found


def row_of(cell: torch.Tensor, side: int = MERGED) -> torch.Tensor:
    """The row of a merged cell in its view, where a separator ends each line of cells, so many to a line."""
    return cell // side * (side + 1) + cell % side


@dataclass
class Batch:
    """Samples with the same number of pictures, padded to one length of text.

    ids [batch, text]. order [batch, tokens]: what stands in each row of the prompt, a token of the text or, after those, a row of the
    pictures. positions [batch or 1, tokens]. rows [batch, text]: where the text stands. first: no row before it predicts anything. targets of
    the text's rows (-100: no loss) and their weights, both [batch, text]. guides: kind -> rows [batch, n] and those to look at
    [batch, n, SPOTS] (-1: none). cells [batch, pictures, CELLS] (-1: none), names [batch, pictures, CELLS, 12]: what their patches hold.
    """

    ids: torch.Tensor
    order: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor
    first: int
    targets: torch.Tensor
    weights: torch.Tensor
    guides: dict[str, tuple[torch.Tensor, torch.Tensor]]
    cells: torch.Tensor
    names: torch.Tensor


@dataclass(frozen=True)
class Shape:
    """How prompts of a batch are laid out: `short` ones leave the sub images out but keep all positions; a picture has `long` rows in all."""

    pictures: int
    short: bool = False
    long: int = LONG_ROWS

    @property
    def rows(self) -> int:
        """Rows of a picture in the prompt."""
        return SHORT_ROWS if self.short else self.long


@dataclass(frozen=True)
class Places:
    """Where the texts [batch, text] and the pictures [batch, pictures, rows] of a batch stand, and their positions."""

    text: torch.Tensor
    pictures: torch.Tensor
    text_positions: torch.Tensor
    picture_positions: torch.Tensor

    @property
    def order(self) -> torch.Tensor:
        """`Batch.order`."""
        return self._spread(torch.arange(self.text.shape[1] + self.pictures[0].numel(), device=self.text.device).expand(len(self.text), -1))

    @property
    def positions(self) -> torch.Tensor:
        """`Batch.positions` of each sample."""
        return self._spread(torch.cat((self.text_positions, self.picture_positions.flatten(1)), 1))

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the text's rows, then of the pictures', in the order of the prompt."""
        return torch.empty_like(values).scatter_(1, torch.cat((self.text, self.pictures.flatten(1)), 1), values)


def places_of(before: torch.Tensor, longest: int, shape: Shape) -> Places:
    """Where everything stands, of samples with `before` [batch, pictures] tokens before each picture."""
    device = before.device
    index, run = torch.arange(longest, device=device), torch.arange(shape.rows, device=device)
    passed = (before[:, None] <= index[:, None]).sum(-1)  # pictures before each token
    place = torch.arange(shape.pictures, device=device)
    starts, positions = (before + place * each for each in (shape.rows, shape.long))
    return Places(
        index + shape.rows * passed, starts[..., None] + run,
        index + shape.long * passed, positions[..., None] + shape.long - shape.rows + run,
    )


def rows_by_name(places: Places, shape: Shape) -> torch.Tensor:
    """The row of every name [batch, TEXT + text]; 0 for those of cells that are not there."""
    text, starts = places.text, places.pictures[..., 0]
    rows = text.new_zeros(len(text), TEXT + text.shape[1])
    rows[:, TEXT:] = text
    cell, fine = (torch.arange(side * side, device=text.device) for side in (MERGED, FINE))
    for n in range(shape.pictures):
        view = starts[:, n : n + 1] + shape.rows - SHORT_ROWS + 1
        rows[:, CELL + n * len(cell) : CELL + (n + 1) * len(cell)] = view + row_of(cell)
        if shape.rows == FOUR_CROPS and n < 2:
            rows[:, SUB + n * len(fine) : SUB + (n + 1) * len(fine)] = starts[:, n : n + 1] + row_of(fine, FINE)
    return rows


def assemble(records: torch.Tensor, shape: Shape, longest: int = ROOM) -> Batch:
    """A batch of records [batch, numbers] of whose texts the longest has so many tokens."""
    fields = records.long().split(SIZES, 1)
    part = {name: f.view(-1, *size) for (name, size), f in zip(FIELDS.items(), fields, strict=True)}
    places = places_of(part["before"][:, : shape.pictures], longest, shape)
    targets = part["targets"][:, :longest]
    kinds = () if shape.pictures == 0 else ("read", "last") if shape.pictures == 1 else tuple(GUIDES)
    named = rows_by_name(places, shape)
    guides = {}
    for kind in kinds:
        rows, spots = (part[name][:, PLACES[kind]] for name in ("rows", "spots"))
        if not records.is_cuda:  # a GPU would have to be waited for
            used = int((rows >= 0).sum(1).max())
            rows, spots = rows[:, :used], spots[:, :used]
        guides[kind] = tuple(
            named.gather(1, f.clamp(min=0).flatten(1)).view_as(f).masked_fill(f < 0, -1) for f in (rows, spots)
        )
    first = 0 if records.is_cuda else int(places.text.masked_fill(targets < 0, places.text.max()).min())
    order = places.order
    positions = places.positions if shape.short else torch.arange(order.shape[1], device=records.device)[None]
    return Batch(
        part["text"][:, :longest].clamp(min=0), order, positions, places.text, first, targets.masked_fill(targets < 0, -100),
        part["weights"][:, :longest].float(), guides, part["cells"][:, : shape.pictures], part["names"][:, : shape.pictures],
    )


def collate(samples: list[Sample], short: bool, long: int = LONG_ROWS) -> Batch:
    """Builds a batch of samples with the same number of pictures."""
    records = torch.from_numpy(np.stack([s.record for s in samples]))
    return assemble(records, Shape(len(samples[0].tiles), short, long), max(len(s.text) for s in samples))
