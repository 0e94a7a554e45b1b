"""Writes a checkpoint of Phi-3-vision's size and layout with random weights (8.3 GB), for tests of speed and memory.

What such a model says is noise; every shape, name and byte count is the real one's. The 592 bf16 tensors lie in two
shards like the hub's. Tensor number i of the sorted names comes from numpy's SFC64 seeded with 1000 + i: matrices,
embeddings and separators are normal with deviation 0.02, biases with 0.005, norm weights are 1.

    python scripts/reference/real_size_checkpoint.py OUT [--tokenizer tokenizer.json] [--config-only]

Needs numpy. Streams, so that memory stays under 2 GB.
"""

import argparse
import math
import shutil
from pathlib import Path

import checkpoint_files as files
import numpy as np

FIRST_SHARD_BYTES = 4_944_044_032

SHORT_FACTOR = (
    [1.05] * 3 + [1.1] * 3 + [1.25, 1.25, 1.4, 1.45, 1.55, 1.85, 1.9] + [2.0] * 19
    + [2.1, 2.1, 2.2] + [2.35] * 4 + [2.4, 2.4, 2.65, 2.7, 2.9, 2.95] + [3.05] * 3
)
# f32 values written out, as the hub has them
LONG_FACTOR = [
    1.0299999713897705, 1.0499999523162842, 1.0499999523162842, 1.0799999237060547, 1.2299998998641968,
    1.2299998998641968, 1.2999999523162842, 1.4499999284744263, 1.5999999046325684, 1.6499998569488525,
    1.8999998569488525, 2.859999895095825, 3.68999981880188, 5.419999599456787, 5.489999771118164,
    5.489999771118164, 9.09000015258789, 11.579999923706055, 15.65999984741211, 15.769999504089355,
    15.789999961853027, 18.360000610351562, 21.989999771118164, 23.079999923706055, 30.009998321533203,
    32.35000228881836, 32.590003967285156, 35.56000518798828, 39.95000457763672, 53.840003967285156,
    56.20000457763672, 57.95000457763672, 59.29000473022461, 59.77000427246094, 59.920005798339844,
    61.190006256103516, 61.96000671386719, 62.50000762939453, 63.3700065612793, 63.48000717163086,
    63.48000717163086, 63.66000747680664, 63.850006103515625, 64.08000946044922, 64.760009765625,
    64.80001068115234, 64.81001281738281, 64.81001281738281,
]  # fmt: skip

SIZES = files.Sizes(
    hidden=3072,
    layers=32,
    heads=32,
    ffn=8192,
    vocab=32064,
    clip_hidden=1024,
    clip_layers=24,
    clip_heads=16,
    clip_ffn=4096,
    short_factor=SHORT_FACTOR,
    long_factor=LONG_FACTOR,
)


def values(name: str, shape: tuple[int, ...], index: int) -> np.ndarray:
    """The tensor's bf16 bits."""
    if files.is_norm_weight(name):
        return np.full(shape, 0x3F80, dtype="<u2")
    deviation = np.float32(0.005 if name.endswith(".bias") else 0.02)
    rng = np.random.Generator(np.random.SFC64(1000 + index))
    normal = rng.standard_normal(math.prod(shape), dtype=np.float32)
    normal *= deviation
    return files.to_bf16(normal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to copy; the model cannot be used without one")
    parser.add_argument("--num-crops", type=int, default=16)
    parser.add_argument("--config-only", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_json(args.out / "config.json", files.config(SIZES, clip_config=False))
    if args.config_only:
        return
    files.write_json(args.out / "preprocessor_config.json", files.preprocessor_config(args.num_crops))
    files.write_json(args.out / "generation_config.json", files.generation_config(32000, 32007))
    if args.tokenizer:
        shutil.copyfile(args.tokenizer, args.out / "tokenizer.json")
    table = files.shapes(SIZES)
    assert (len(table), sum(2 * math.prod(shape) for shape in table.values())) == (592, 8_293_242_880)
    order = {name: i for i, name in enumerate(sorted(table))}
    files.write_weights(args.out, table, lambda name, shape: values(name, shape, order[name]), FIRST_SHARD_BYTES)


if __name__ == "__main__":
    main()
