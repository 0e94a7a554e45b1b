"""torch beside phi3v on a graphics card, for scripts/bench-gpu: a JSON object to a line for each figure.

    python benchmarks/peers/gpu_torch.py            products in bf16, and transformers' Phi-3 of Phi-3.5-vision's size
    python benchmarks/peers/gpu_torch.py --vllm     the same model by vLLM, one sequence at a time
    python benchmarks/peers/gpu_torch.py --small    small shapes, on the processor where there is no card

Weights are random and nothing is downloaded. What this Python has not is said on stderr and left out.
"""

import argparse
import json
import sys
import tempfile
import time

SHAPES = [
    ("qkv_proj", 9216, 3072),
    ("o_proj", 3072, 3072),
    ("gate_up_proj", 16384, 3072),
    ("down_proj", 3072, 8192),
    ("lm_head", 32064, 3072),
    ("fc1", 4096, 1024),
]
PROMPT, STEPS, TILES = 1941, 64, 13
MODEL = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 0,
}
TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # the last is not used
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


def tell(name: str, seconds: float, value: float, unit: str) -> None:
    print(json.dumps({"name": name, "seconds": seconds, "value": value, "unit": unit}), flush=True)


def leave_out(what: str) -> None:
    print(f"left out: {what}", file=sys.stderr)


class Torch:
    """torch on a card, or on the processor to try this."""

    def __init__(self, small: bool) -> None:
        import torch

        self.torch, self.small = torch, small
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def seconds(self, run, times: int) -> float:
        """Of one call, the mean of so many after a first."""
        run()
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            run()
        self.wait()
        return (time.perf_counter() - start) / times

    def random(self, *shape: int):
        return self.torch.randn(*shape, dtype=self.torch.bfloat16, device=self.device)

    def products(self) -> None:
        many, scale = (64, 16) if self.small else (2048, 1)
        for name, n, k in SHAPES:
            n, k = max(n // scale, 64), max(k // scale, 128)
            weight = self.random(n, k)
            for rows in (1, many):
                x = self.random(rows, k)
                seconds = self.seconds(lambda: x @ weight.T, 20)
                rate, unit = (2 * n * k / seconds / 1e9, "GB/s") if rows == 1 else (2 * rows * n * k / seconds / 1e12, "TFLOP/s")
                tell(f"torch bf16 {name} {rows} rows", seconds, rate, unit)

    def transformers(self) -> None:
        """Vision tower and decoder with random weights, as transformers runs them in bf16."""
        from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, Phi3Config, Phi3ForCausalLM

        shrunk = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}
        model, tower = dict(MODEL), dict(TOWER)
        prompt, tiles = (PROMPT, TILES)
        if self.small:
            model |= shrunk | {"num_key_value_heads": 2, "vocab_size": 640}
            tower |= shrunk
            prompt, tiles = 64, 2
        self.torch.set_default_dtype(self.torch.bfloat16)
        with self.torch.device(self.device), self.torch.inference_mode():
            decoder = Phi3ForCausalLM(Phi3Config(**model)).eval()
            vision = CLIPVisionModel(CLIPVisionConfig(**tower)).eval()
            pixels = self.random(tiles, 3, 336, 336)
            seen = self.seconds(lambda: vision(pixels), 2)
            tell(f"transformers bf16: vision tower, {tiles} tiles", seen, 1e3 * seen, "ms")
            ids = self.torch.ones((1, prompt), dtype=self.torch.long)
            filled = self.seconds(lambda: decoder(ids, past_key_values=DynamicCache(), logits_to_keep=1), 2)
            tell(f"transformers bf16: prefill of {prompt} tokens", filled, prompt / filled, "tok/s")
            tell("transformers bf16: first token", seen + filled, seen + filled, "s")
            for depth in (0, prompt):
                cache = DynamicCache()
                if depth:
                    decoder(ids, past_key_values=cache, logits_to_keep=1)
                step = self.seconds(lambda: decoder(ids[:, :1], past_key_values=cache), STEPS)
                tell(f"transformers bf16: decode at depth {depth}", step, 1 / step, "tok/s")


def vllm() -> None:
    """The decoder by vLLM: a prompt's time by one token, a step's by what 64 more take."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        config = MODEL | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": "bfloat16"}
        with open(f"{folder}/config.json", "w") as file:
            json.dump(config, file)
        model = LLM(folder, load_format="dummy", skip_tokenizer_init=True, max_model_len=4096, enable_prefix_caching=False)

        def run(prompt: int, tokens: int) -> float:
            sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
            start = time.perf_counter()
            model.generate({"prompt_token_ids": [1] * prompt}, sampling, use_tqdm=False)
            return time.perf_counter() - start

        for prompt in (1, PROMPT):
            run(prompt, 2)
            first = min(run(prompt, 1) for _ in range(3))
            step = (run(prompt, STEPS + 1) - first) / STEPS
            if prompt > 1:
                tell(f"vllm bf16: prefill of {prompt} tokens", first, prompt / first, "tok/s")
            tell(f"vllm bf16: decode at depth {0 if prompt == 1 else prompt}", step, 1 / step, "tok/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", action="store_true")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    try:
        torch = Torch(arguments.small)
    except ImportError:
        return leave_out("torch is not in this Python")
    if torch.device != "cuda" and not arguments.small:
        return leave_out("torch sees no card by CUDA or ROCm")
    parts = [("vllm", vllm)] if arguments.vllm else [("products", torch.products), ("transformers", torch.transformers)]
    failed = False
    for name, run in parts:
        try:
            run()
        except ImportError as error:
            leave_out(f"{name}: {error}")
        except Exception as error:  # whatever a peer does, the rest is measured
            leave_out(f"{name}: {type(error).__name__}: {error}")
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
