"""Begins from a checkpoint folder: its weights in a model of today's vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from samples.dataset import tokenizer, vocab_size
from samples.tokens import DECLINE, SPACE
from stages.grow import tower_of
from stages.stage2 import Student

TOWER = "model.vision_embed_tokens.img_processor.vision_model."
TABLES = ("model.embed_tokens.weight", "lm_head.weight")  # one row a token


def pieces_of(folder: Path) -> dict[str, int]:
    """Piece -> id of a folder's tokenizer, added tokens included."""
    table = json.loads((folder / "tokenizer.json").read_text())
    return table["model"]["vocab"] | {token["content"]: token["id"] for token in table["added_tokens"]}


def moved(rows: Tensor, old: dict[str, int]) -> Tensor:
    """A table's rows in the order of today's vocabulary. New whole answers begin like the one that declines; new parts of such
    answers, which are never said, like the old ones' mean."""
    now = tokenizer().get_vocab()
    parts = [old[piece] for piece in old if len(piece) > 1 and piece[0] != "<"]
    made = rows[parts].mean(0).expand(vocab_size(), -1).clone()
    whole = old[(SPACE + DECLINE).replace(" ", SPACE)]
    for piece, place in now.items():
        if piece in old:
            made[place] = rows[old[piece]]
        elif piece.startswith(SPACE) and piece.endswith("."):
            made[place] = rows[whole]
    return made


def from_folder(folder: Path) -> Student:
    """The model of a checkpoint folder, with a fresh throw-away head."""
    torch.manual_seed(4)
    student, old = Student(), pieces_of(folder)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name in TABLES:
        tensors[name] = moved(tensors[name], old)
    layers = json.loads((folder / "config.json").read_text())["img_processor"]["clip_config"]["num_hidden_layers"]
    tower = tower_of({name.removeprefix(TOWER): tensors.pop(name) for name in list(tensors) if name.startswith(TOWER)}, layers)
    student.phi.load_state_dict(tensors | {TOWER + name: tensor for name, tensor in tower.state_dict().items()})
    return student
