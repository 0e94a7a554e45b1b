"""Examples as tensors: prompt ids by the processor's rules, tiles, answers, and where to look."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from canvas import Mark, to_tile
from pages import label_maps
from tasks import MAKERS, Example, Pointer
from tokens import tokenizer_json

SHORT_ROWS = 157  # glb_GN and the global view
LONG_ROWS = 313
SUB_ROWS = LONG_ROWS - SHORT_ROWS


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
    """A fresh sample of a task."""
    return prepare(MAKERS[task](rng, **options), with_labels)


class Guide(NamedTuple):
    """Rows of the prompt and the answer that a row of a sample should look at.

    Kinds: `read` for the character that the row predicts (the first row where none follows), `last` for the
    one that is its input, `tops` and `feet` for shapes to be counted, `same` for an equal thing earlier in the
    answer (the first row where there is none), `verdict` for the things compared.
    """

    kind: str
    sample: int
    row: int
    spots: list[int]


@dataclass
class Batch:
    """Samples with the same number of pictures, padded to one length.

    ids [batch, tokens] (negative: picture rows), positions [tokens], first: the first row whose
    output matters. rows/columns of `targets` [batch, tokens - first] (-100: no loss).
    """

    samples: list[Sample]
    ids: torch.Tensor
    positions: torch.Tensor
    first: int
    targets: torch.Tensor
    guides: list[Guide]


def guides_of(sample: Sample, b: int, begin: int, starts: list[int]) -> list[Guide]:
    """Where to look in sample `b`, whose first answer token is predicted by row `begin`."""
    found: list[Guide] = []
    for i, look in enumerate(sample.look):
        if look is None:
            if i and sample.look[i - 1] is not None and sample.task != "pair":  # a copied stretch is over
                found.append(Guide("read", b, begin + i, [0]))
            continue
        spots, feet = ([starts[look.image] + c // 12 * 13 + c % 12 for c in cells] for cells in (look.cells, look.feet or []))
        if feet:
            found += [Guide("tops", b, begin + i, spots), Guide("feet", b, begin + i, feet)]
        else:
            found.append(Guide("read", b, begin + i, spots))
            found.append(Guide("last", b, begin + i + 1, spots))
    told = [begin + 1 + j for _, j, _ in sample.alike]
    for (i, _, same), row in zip(sample.alike, told, strict=True):
        found.append(Guide("same", b, row, [begin + 1 + i if same else 0]))
    if sample.alike:
        found += [Guide("verdict", b, begin + i, told) for i in range(sample.verdict, len(sample.answer))]
    return found


def collate(samples: list[Sample], short: bool, long: int = LONG_ROWS) -> Batch:
    """Builds a batch; `short` leaves the sub images out but keeps all positions. A picture has `long` rows in all."""
    rows = SHORT_ROWS if short else long
    head: list[int] = []
    positions: list[int] = []
    starts: list[int] = []
    at = 0
    for n, chunk in enumerate(samples[0].chunks[:-1]):
        positions += range(at, at + len(chunk))
        head += chunk
        starts.append(len(head) + rows - SHORT_ROWS + 1)
        at += len(chunk) + long
        positions += range(at - rows, at)
        head += [-1 - n] * rows
    tails = [s.chunks[-1] + s.answer[:-1] for s in samples]
    longest = max(map(len, tails))
    ids = torch.zeros(len(samples), len(head) + longest, dtype=torch.long)
    targets = torch.full((len(samples), longest), -100)
    guides: list[Guide] = []
    for b, (s, tail) in enumerate(zip(samples, tails)):
        ids[b, : len(head) + len(tail)] = torch.tensor(head + tail)
        begin = len(s.chunks[-1]) - 1  # the row that predicts the first answer token
        targets[b, begin : begin + len(s.answer)] = torch.tensor(s.answer)
        guides += [g for g in guides_of(s, b, len(head) + begin, starts) if g.row < ids.shape[1]]
    positions += range(at, at + longest)
    return Batch(samples, ids, torch.tensor(positions), len(head), targets, guides)
