"""Writes a checkpoint of Phi-3-vision's size and layout with random weights (8.3 GB), for tests of speed and memory.

What such a model says is noise; every shape, name and byte count is the real one's. The 592 bf16 tensors lie in two
shards like the hub's. Tensor number i of the sorted names comes from numpy's SFC64 seeded with 1000 + i: matrices,
embeddings and separators are normal with deviation 0.02, biases with 0.005, norm weights are 1.

    python scripts/reference/real_size_checkpoint.py OUT [--tokenizer tokenizer.json] [--config-only]

Needs numpy. Streams, so that memory stays under 1 GB.
"""

import argparse
import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np

HIDDEN, LAYERS, HEADS, FFN, VOCAB = 3072, 32, 32, 8192, 32064
CLIP_HIDDEN, CLIP_LAYERS, CLIP_FFN = 1024, 24, 4096
PATCH, POSITIONS = 14, 577
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


def config() -> dict:
    return {
        "architectures": ["Phi3VForCausalLM"],
        "bos_token_id": 1,
        "embd_layer": {
            "embedding_cls": "image",
            "hd_transform_order": "sub_glb",
            "projection_cls": "mlp",
            "use_hd_transform": True,
            "with_learnable_separator": True,
        },
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "img_processor": {
            "image_dim_out": CLIP_HIDDEN,
            "model_name": "openai/clip-vit-large-patch14-336",
            "name": "clip_vision_model",
            "num_img_tokens": 144,
        },
        "intermediate_size": FFN,
        "max_position_embeddings": 131072,
        "model_type": "phi3_v",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": LONG_FACTOR, "short_factor": SHORT_FACTOR, "type": "su"},
        "rope_theta": 10000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCAB,
    }


def preprocessor_config(num_crops: int) -> dict:
    return {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Phi3VImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "num_crops": num_crops,
        "num_img_tokens": 144,
        "processor_class": "Phi3VProcessor",
    }


def generation_config() -> dict:
    return {"bos_token_id": 1, "eos_token_id": [2, 32000, 32007], "pad_token_id": 32000}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, in the order in which it is written."""
    table = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    vision = "model.vision_embed_tokens"
    clip = f"{vision}.img_processor.vision_model"
    table[f"{vision}.glb_GN"] = (1, 1, 4 * CLIP_HIDDEN)
    table[f"{vision}.sub_GN"] = (1, 1, 1, 4 * CLIP_HIDDEN)
    table[f"{clip}.embeddings.class_embedding"] = (CLIP_HIDDEN,)
    table[f"{clip}.embeddings.patch_embedding.weight"] = (CLIP_HIDDEN, 3, PATCH, PATCH)
    table[f"{clip}.embeddings.position_embedding.weight"] = (POSITIONS, CLIP_HIDDEN)
    for norm in ("pre_layrnorm", "post_layernorm"):
        table[f"{clip}.{norm}.weight"] = table[f"{clip}.{norm}.bias"] = (CLIP_HIDDEN,)
    for i in range(CLIP_LAYERS):
        layer = f"{clip}.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            table[f"{layer}.{norm}.weight"] = table[f"{layer}.{norm}.bias"] = (CLIP_HIDDEN,)
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table[f"{layer}.self_attn.{proj}.weight"] = (CLIP_HIDDEN, CLIP_HIDDEN)
            table[f"{layer}.self_attn.{proj}.bias"] = (CLIP_HIDDEN,)
        table[f"{layer}.mlp.fc1.weight"] = (CLIP_FFN, CLIP_HIDDEN)
        table[f"{layer}.mlp.fc1.bias"] = (CLIP_FFN,)
        table[f"{layer}.mlp.fc2.weight"] = (CLIP_HIDDEN, CLIP_FFN)
        table[f"{layer}.mlp.fc2.bias"] = (CLIP_HIDDEN,)
    for i, columns in ((0, 4 * CLIP_HIDDEN), (2, HIDDEN)):
        table[f"{vision}.img_projection.{i}.weight"] = (HIDDEN, columns)
        table[f"{vision}.img_projection.{i}.bias"] = (HIDDEN,)
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        table[f"{layer}.input_layernorm.weight"] = (HIDDEN,)
        table[f"{layer}.self_attn.qkv_proj.weight"] = (3 * HIDDEN, HIDDEN)
        table[f"{layer}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        table[f"{layer}.post_attention_layernorm.weight"] = (HIDDEN,)
        table[f"{layer}.mlp.gate_up_proj.weight"] = (2 * FFN, HIDDEN)
        table[f"{layer}.mlp.down_proj.weight"] = (HIDDEN, FFN)
    table["model.norm.weight"] = (HIDDEN,)
    table["lm_head.weight"] = (VOCAB, HIDDEN)
    return table


def is_norm(name: str) -> bool:
    return any(part in name for part in ("layernorm", "layer_norm", "layrnorm", "model.norm"))


def to_bf16(values: np.ndarray) -> np.ndarray:
    """f32 to bf16 bits, rounded to nearest even. No NaNs here."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF)
    rounded += (bits >> np.uint32(16)) & np.uint32(1)
    return (rounded >> np.uint32(16)).astype("<u2")


def values(name: str, shape: tuple[int, ...], index: int) -> np.ndarray:
    """The tensor's bf16 bits."""
    if is_norm(name) and name.endswith(".weight"):
        return np.full(shape, 0x3F80, dtype="<u2")
    deviation = np.float32(0.005 if name.endswith(".bias") else 0.02)
    rng = np.random.Generator(np.random.SFC64(1000 + index))
    normal = rng.standard_normal(math.prod(shape), dtype=np.float32)
    normal *= deviation
    return to_bf16(normal)


def write_shard(path: Path, names: list[str], table: dict, order: dict[str, int]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        end = offset + 2 * math.prod(table[name])
        header[name] = {"dtype": "BF16", "shape": list(table[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in names:
            file.write(values(name, table[name], order[name]).tobytes())
    print(f"{path}: {len(names)} tensors, {offset} bytes")


def write_weights(out: Path) -> None:
    table = shapes()
    order = {name: i for i, name in enumerate(sorted(table))}
    total = sum(2 * math.prod(shape) for shape in table.values())
    assert (len(table), total) == (592, 8_293_242_880)
    shards, filled = ([], []), 0
    for name, shape in table.items():
        filled += 2 * math.prod(shape)
        shards[0 if filled <= FIRST_SHARD_BYTES else 1].append(name)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_shard(out / file, names, table, order)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(out / "model.safetensors.index.json", index)


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to copy; the model cannot be used without one")
    parser.add_argument("--num-crops", type=int, default=16)
    parser.add_argument("--config-only", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "config.json", config())
    if args.config_only:
        return
    write_json(args.out / "preprocessor_config.json", preprocessor_config(args.num_crops))
    write_json(args.out / "generation_config.json", generation_config())
    if args.tokenizer:
        shutil.copyfile(args.tokenizer, args.out / "tokenizer.json")
    write_weights(args.out)


if __name__ == "__main__":
    main()
