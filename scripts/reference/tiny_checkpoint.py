"""Writes testdata/tiny: a random checkpoint of 350 KB in the hub's layout, for tests that always run.

Sizes are odd on purpose (head_dim 16, three heads, hidden 48), weights are large enough for every stage to matter:
matrices are normal with deviation 1/sqrt(columns), embeddings with 1, norm weights 1 + 0.2 N, biases 0.2 N. Tensor
number i of the sorted names comes from numpy's SFC64 seeded with 7000 + i. Values are bf16.

    python scripts/reference/tiny_checkpoint.py testdata/tiny

Needs numpy. tokenizer.json beside the weights comes from tokenizer_fixture.py and has the 512 ids that belong here.
"""

import argparse
import math
from pathlib import Path

import checkpoint_files as files
import numpy as np
from real_size_checkpoint import LONG_FACTOR, SHORT_FACTOR

SIZES = files.Sizes(
    hidden=48,
    layers=2,
    heads=3,
    ffn=96,
    vocab=512,
    clip_hidden=32,
    clip_layers=3,
    clip_heads=2,
    clip_ffn=64,
    # every sixth of the real model's
    short_factor=SHORT_FACTOR[::6],
    long_factor=LONG_FACTOR[::6],
)

EMBEDDINGS = ("embed_tokens.weight", "class_embedding", "position_embedding.weight", "_GN")

# ids of the tokenizer beside the weights
ENDOFTEXT, END = 467, 474


def values(name: str, shape: tuple[int, ...], index: int) -> np.ndarray:
    """The tensor's bf16 bits."""
    rng = np.random.Generator(np.random.SFC64(7000 + index))
    normal = rng.standard_normal(math.prod(shape), dtype=np.float32)
    if files.is_norm_weight(name):
        scaled = 1 + np.float32(0.2) * normal
    elif name.endswith(".bias"):
        scaled = np.float32(0.2) * normal
    elif name.endswith(EMBEDDINGS):
        scaled = normal
    else:
        scaled = normal / np.float32(math.sqrt(math.prod(shape[1:])))
    return files.to_bf16(scaled.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_json(args.out / "config.json", files.config(SIZES, clip_config=True))
    files.write_json(args.out / "preprocessor_config.json", files.preprocessor_config(4))
    files.write_json(args.out / "generation_config.json", files.generation_config(ENDOFTEXT, END))
    table = files.shapes(SIZES)
    order = {name: i for i, name in enumerate(sorted(table))}
    half = sum(2 * math.prod(shape) for shape in table.values()) // 2
    files.write_weights(args.out, table, lambda name, shape: values(name, shape, order[name]), half)


if __name__ == "__main__":
    main()
