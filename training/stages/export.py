"""Writes a trained state as a checkpoint folder with the hub's layout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from network.model import IMAGE_MEAN, IMAGE_STD, Config, Phi3V
from network.rounding import coarse
from optim.update import fill, flat
from samples import tokens
from samples.dataset import tokenizer, vocab_size
from stages.stage2 import Student
from stages.start import from_folder


def load_student(path: Path) -> Phi3V:
    """The model of a stage-2 state, its weights rounded to bf16 (and widened again)."""
    student = Student()
    weights = torch.load(path, weights_only=True)["weights"]
    held = sum(p.numel() for p in student.parameters())
    if len(weights) != held:
        raise ValueError(f"{path} holds {len(weights)} weights, the model {held}")
    fill(student, weights.to(torch.bfloat16))
    return student.phi.eval()


def averaged(start: Phi3V, tuned: Phi3V, share: float) -> Phi3V:
    """The tuned model, whose weights become `share` of its own and the rest of those of the checkpoint before: such an average keeps what only the
    start could do and most of what was learnt since (WiSE-FT)."""
    fill(tuned, torch.lerp(flat(start), flat(tuned), share))
    return tuned


def config_json(config: Config) -> dict[str, object]:
    """config.json in the hub's layout, with the small tower under `clip_config`."""
    clip = config.clip
    half = config.hidden_size // config.num_attention_heads // 2
    return {
        "_name_or_path": "phi3v-demo",
        "architectures": ["Phi3VForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "embd_layer": {
            "embedding_cls": "image", "hd_transform_order": "sub_glb", "projection_cls": "mlp",
            "use_hd_transform": True, "with_learnable_separator": True,
        },
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "img_processor": {
            "image_dim_out": clip.hidden_size,
            "model_name": "phi3v-demo-tower",
            "name": "clip_vision_model",
            "num_img_tokens": 144,
            "clip_config": {
                "hidden_size": clip.hidden_size, "num_hidden_layers": clip.num_hidden_layers,
                "num_attention_heads": clip.num_attention_heads,
                "intermediate_size": clip.intermediate_size, "image_size": 336, "patch_size": 14,
                "hidden_act": "quick_gelu", "layer_norm_eps": clip.layer_norm_eps,
                "num_channels": 3, "projection_dim": clip.hidden_size,
            },
        },
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "model_type": "phi3_v",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_attention_heads,
        "original_max_position_embeddings": config.original_max_position_embeddings,
        "pad_token_id": tokenizer().token_to_id("<|endoftext|>"),
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": {"long_factor": [1.0] * half, "short_factor": [1.0] * half, "type": "su"},
        "rope_theta": config.rope_theta,
        "sliding_window": config.max_position_embeddings,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.1",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def export(model: Phi3V, folder: Path, rounded: bool) -> int:
    """Writes all files; returns the bytes they take. `rounded`: as `coarse` has it, which costs answers where it was not seen in training."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens.write(folder)
    stops = [2, tokenizer().token_to_id("<|endoftext|>"), tokenizer().token_to_id("<|end|>")]
    files = {
        "config.json": config_json(model.config),
        "generation_config.json": {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": stops,
            "pad_token_id": stops[1], "transformers_version": "4.38.1",
        },
        "preprocessor_config.json": {
            "num_crops": 1, "num_crops_max": 4, "image_mean": list(IMAGE_MEAN), "image_std": list(IMAGE_STD),
            "image_processor_type": "Phi3VImageProcessor", "processor_class": "Phi3VProcessor",
            "num_img_tokens": 144,
        },
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    tensors = {n: (coarse(t.float()) if rounded else t).to(torch.bfloat16).contiguous() for n, t in model.state_dict().items()}
    never_run = f"encoder.layers.{model.config.clip.num_hidden_layers - 1}."
    tensors |= {n: torch.zeros_like(t) for n, t in tensors.items() if never_run in n}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(f.stat().st_size for f in folder.iterdir())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="stage3.pt, or stage2.pt")
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--start", type=Path, help="the checkpoint folder to average with: the teacher, or what the state was tuned from")
    parser.add_argument("--share", type=float, default=1.0, help="of the state in the average")
    args = parser.parse_args()
    trained = load_student(args.state)
    if args.start:
        trained = averaged(from_folder(args.start).phi, trained, args.share)
    print(f"{export(trained, args.folder, rounded=args.start is not None)} bytes, vocabulary {vocab_size()}")
