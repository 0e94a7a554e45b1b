"""The hub's checkpoint layout: configuration files, tensor names and shapes, and safetensors files, for any size.

Used by real_size_checkpoint.py and tiny_checkpoint.py. Needs numpy.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

PATCH, POSITIONS = 14, 577


@dataclass(frozen=True)
class Sizes:
    """What config.json says of a model's size."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int
    clip_hidden: int
    clip_layers: int
    clip_heads: int
    clip_ffn: int
    short_factor: list[float]
    long_factor: list[float]


def config(sizes: Sizes, clip_config: bool) -> dict:
    """config.json. The hub's has no `clip_config`: its vision tower is always ViT-L/14-336."""
    img_processor = {
        "image_dim_out": sizes.clip_hidden,
        "model_name": "openai/clip-vit-large-patch14-336",
        "name": "clip_vision_model",
        "num_img_tokens": 144,
    }
    if clip_config:
        img_processor["clip_config"] = {
            "hidden_act": "quick_gelu",
            "hidden_size": sizes.clip_hidden,
            "image_size": 336,
            "intermediate_size": sizes.clip_ffn,
            "layer_norm_eps": 1e-05,
            "num_attention_heads": sizes.clip_heads,
            "num_channels": 3,
            "num_hidden_layers": sizes.clip_layers,
            "patch_size": PATCH,
        }
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
        "hidden_size": sizes.hidden,
        "img_processor": img_processor,
        "intermediate_size": sizes.ffn,
        "max_position_embeddings": 131072,
        "model_type": "phi3_v",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.heads,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"long_factor": sizes.long_factor, "short_factor": sizes.short_factor, "type": "su"},
        "rope_theta": 10000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": sizes.vocab,
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


def generation_config(endoftext: int, end: int) -> dict:
    return {"bos_token_id": 1, "eos_token_id": [2, endoftext, end], "pad_token_id": endoftext}


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint, in the order in which it is written."""
    hidden, clip_hidden, clip_ffn = sizes.hidden, sizes.clip_hidden, sizes.clip_ffn
    table = {"model.embed_tokens.weight": (sizes.vocab, hidden)}
    vision = "model.vision_embed_tokens"
    clip = f"{vision}.img_processor.vision_model"
    table[f"{vision}.glb_GN"] = (1, 1, 4 * clip_hidden)
    table[f"{vision}.sub_GN"] = (1, 1, 1, 4 * clip_hidden)
    table[f"{clip}.embeddings.class_embedding"] = (clip_hidden,)
    table[f"{clip}.embeddings.patch_embedding.weight"] = (clip_hidden, 3, PATCH, PATCH)
    table[f"{clip}.embeddings.position_embedding.weight"] = (POSITIONS, clip_hidden)
    for norm in ("pre_layrnorm", "post_layernorm"):
        table[f"{clip}.{norm}.weight"] = table[f"{clip}.{norm}.bias"] = (clip_hidden,)
    for i in range(sizes.clip_layers):
        layer = f"{clip}.encoder.layers.{i}"
        for norm in ("layer_norm1", "layer_norm2"):
            table[f"{layer}.{norm}.weight"] = table[f"{layer}.{norm}.bias"] = (clip_hidden,)
        for proj in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table[f"{layer}.self_attn.{proj}.weight"] = (clip_hidden, clip_hidden)
            table[f"{layer}.self_attn.{proj}.bias"] = (clip_hidden,)
        table[f"{layer}.mlp.fc1.weight"] = (clip_ffn, clip_hidden)
        table[f"{layer}.mlp.fc1.bias"] = (clip_ffn,)
        table[f"{layer}.mlp.fc2.weight"] = (clip_hidden, clip_ffn)
        table[f"{layer}.mlp.fc2.bias"] = (clip_hidden,)
    for i, columns in ((0, 4 * clip_hidden), (2, hidden)):
        table[f"{vision}.img_projection.{i}.weight"] = (hidden, columns)
        table[f"{vision}.img_projection.{i}.bias"] = (hidden,)
    for i in range(sizes.layers):
        layer = f"model.layers.{i}"
        table[f"{layer}.input_layernorm.weight"] = (hidden,)
        table[f"{layer}.self_attn.qkv_proj.weight"] = (3 * hidden, hidden)
        table[f"{layer}.self_attn.o_proj.weight"] = (hidden, hidden)
        table[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        table[f"{layer}.mlp.gate_up_proj.weight"] = (2 * sizes.ffn, hidden)
        table[f"{layer}.mlp.down_proj.weight"] = (hidden, sizes.ffn)
    table["model.norm.weight"] = (hidden,)
    table["lm_head.weight"] = (sizes.vocab, hidden)
    return table


def is_norm_weight(name: str) -> bool:
    norms = ("layernorm", "layer_norm", "layrnorm", "model.norm")
    return name.endswith(".weight") and any(norm in name for norm in norms)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """f32 to bf16 bits, rounded to nearest even. No NaNs here."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF)
    rounded += (bits >> np.uint32(16)) & np.uint32(1)
    return (rounded >> np.uint32(16)).astype("<u2")


def write_weights(
    out: Path,
    table: dict[str, tuple[int, ...]],
    values: Callable[[str, tuple[int, ...]], np.ndarray],
    first_shard_bytes: int,
) -> None:
    """Two shards and their index. `values` gives the bf16 bits of one tensor at a time."""
    shards, filled = ([], []), 0
    for name, shape in table.items():
        filled += 2 * math.prod(shape)
        shards[0 if filled <= first_shard_bytes else 1].append(name)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-00002.safetensors"
        write_shard(out / file, {name: table[name] for name in names}, values)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": filled}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(out / "model.safetensors.index.json", index)


def write_shard(path: Path, table: dict, values: Callable[[str, tuple[int, ...]], np.ndarray]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in table.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name, shape in table.items():
            file.write(values(name, shape).tobytes())
    print(f"{path}: {len(table)} tensors, {offset} bytes")


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
