"""Builds the small tokenizer: single characters, byte tokens, and the answers' fixed phrases.

Every phrase is one piece, reached by a chain of merges that starts at a pair of characters which
copied words do not contain (such as a quote and a space), so words stay single characters.
"""

from __future__ import annotations

import json
from pathlib import Path

from drawing.words import ALPHABET

SPACE = "\u2581"
DECLINE = (
    "I am the small built-in demo model and can only read covers, charts, large text "
    "and simple shapes."
)
_ONLY = "; I can only read covers, charts, large text and simple shapes."
# What is said where a task's question finds nothing to answer it by
MISSING = {
    "cover": "I see no book cover here" + _ONLY,
    "chart": "I see no chart with printed values here" + _ONLY,
    "pair": "I see no two pictures of shapes here" + _ONLY,
    "text": "I see no text here" + _ONLY,
    "series": "I see more than one series here" + _ONLY,
}
UNREADABLE = "I cannot read it; the letters are too small or too faint for me."
DECLINES = (DECLINE, UNREADABLE, *MISSING.values())  # every way to decline
# (phrase, the pair of characters its chain of merges starts with)
PHRASES = (
    (' The title of the book is "', ' "'),
    ('" and the author is ', '" '),
    (' A line chart titled "', ' "'),
    (' A bar chart titled "', ' "'),
    ('". It starts at ', '".'),
    (" (", " ("),
    (") and ends at ", ") "),
    ("). The lowest is ", ")."),
    (") and the highest is ", ") "),
    ("). It is rising.", ")."),
    ("). It is falling.", ")."),
    ("; second picture: ", "; "),
    (" First picture: ", ": "),
    (". They differ in ", ". "),
    (". They look the same.", ". "),
    (" " + DECLINE, "-i"),
    *((f" {said}", "; ") for said in DECLINES[1:]),
)
# name, rstrip, special; the flags are those of the hub's tokenizer
ADDED = (
    ("<unk>", False, True),
    ("<s>", False, True),
    ("</s>", True, False),
    ("<|endoftext|>", False, True),
    ("<|assistant|>", True, True),
    ("<|system|>", False, True),
    ("<|end|>", False, True),
    ("<|user|>", False, True),
    ("<|image|>", True, True),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + "
    "'<|end|>\\n' }}{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}"
    "{{- '<|assistant|>\\n' -}}{% endif %}"
)


def chains() -> tuple[list[str], list[str]]:
    """The pieces and the merges of all phrases, in order of rank."""
    pieces: list[str] = []
    merges: list[str] = []

    def merge(left: str, right: str) -> str:
        whole = left + right
        if whole not in pieces:
            pieces.append(whole)
            merges.append(f"{left} {right}")
        return whole

    for phrase, seed in PHRASES:
        text, start = phrase.replace(" ", SPACE), seed.replace(" ", SPACE)
        at = text.index(start)
        piece = merge(start[0], start[1])
        for char in text[at + 2 :]:
            piece = merge(piece, char)
        for char in reversed(text[:at]):
            piece = merge(char, piece)
    return pieces, merges


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Piece -> id, with the added tokens first to third and last; and the merges."""
    pieces, merges = chains()
    chars = sorted({c for c in ALPHABET + "".join(p for p, _ in PHRASES) + '"()/;+=*#@' if c != " "})
    names = [name for name, _, _ in ADDED]
    order = names[:3] + [f"<0x{i:02X}>" for i in range(256)] + [SPACE] + chars + pieces + names[3:]
    return {piece: i for i, piece in enumerate(order)}, merges


def added_tokens(vocab: dict[str, int]) -> list[dict[str, object]]:
    """The `added_tokens` table."""
    return [
        {
            "id": vocab[name], "content": name, "single_word": False, "lstrip": False,
            "rstrip": rstrip, "normalized": False, "special": special,
        }
        for name, rstrip, special in ADDED
    ]


def tokenizer_json() -> dict[str, object]:
    """The whole tokenizer.json."""
    vocab, merges = vocabulary()
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    bos_b = {"SpecialToken": {"id": "<s>", "type_id": 1}}
    a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    inside = {k: v for k, v in vocab.items() if k not in [n for n, _, _ in ADDED[3:]]}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added_tokens(vocab),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, a], "pair": [bos, a, bos_b, b],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": inside, "merges": merges,
        },
    }


def write(folder: Path) -> None:
    """Writes the three tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = tokenizer_json()
    added: list[dict[str, object]] = table["added_tokens"]  # type: ignore[assignment]
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    extra = ["<|system|>", "<|end|>", "<|user|>", "<|end|>"]
    config = {
        "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added},
        "additional_special_tokens": extra, "bos_token": "<s>", "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "legacy": False,
        "model_max_length": 131072, "pad_token": "<|endoftext|>", "padding_side": "right",
        "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    special = {"additional_special_tokens": extra}
    for role, name in (("bos", "<s>"), ("eos", "<|endoftext|>"), ("pad", "<|endoftext|>"), ("unk", "<unk>")):
        special[f"{role}_token"] = {"content": name, **plain}  # type: ignore[assignment]
    for name, value in (
        ("tokenizer.json", table), ("tokenizer_config.json", config), ("special_tokens_map.json", special),
    ):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
