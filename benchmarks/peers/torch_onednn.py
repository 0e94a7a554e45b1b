"""torch (oneDNN) beside phi3v, alternating, on the shapes of Phi-3.5-vision.

    pip install torch==2.4.1
    cargo build --release
    python benchmarks/peers/torch_onednn.py --phi3v target/release/phi3v --rounds 2

torch runs one decoder layer on 1,941 tokens and one encoder layer on 13 tiles, random weights in bf16, and the time is
multiplied by the number of layers: products and attention alone, without norms, rotary embedding, activation functions
or the KV cache, so torch is given less to do. phi3v runs the whole model through `phi3v bench`. Both use the
same number of threads. Prints each round, and the ratio of the medians.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

TOKENS, HIDDEN, FFN, HEADS, LAYERS = 1941, 3072, 8192, 32, 32
TILES, PATCHES, VISION, VISION_FFN, VISION_HEADS, VISION_LAYERS = 13, 577, 1024, 4096, 16, 23


def median_seconds(work, repeats=3):
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrices(*shapes):
    return [torch.randn(n, k, dtype=torch.bfloat16) * 0.02 for n, k in shapes]


def attend(qkv, batch, rows, heads, causal):
    q, k, v = (part.view(batch, rows, heads, -1).transpose(1, 2) for part in qkv)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return out.transpose(1, 2).reshape(batch * rows, -1)


def decoder_layer():
    qkv, o, gate_up, down = matrices((3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (2 * FFN, HIDDEN), (HIDDEN, FFN))
    x = torch.randn(TOKENS, HIDDEN, dtype=torch.bfloat16)

    def work():
        a = attend(F.linear(x, qkv).chunk(3, dim=-1), 1, TOKENS, HEADS, True)
        F.linear(a, o)
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        F.linear(gate * up, down)

    return work


def encoder_layer():
    q, k, v, o = matrices(*[(VISION, VISION)] * 4)
    fc1, fc2 = matrices((VISION_FFN, VISION), (VISION, VISION_FFN))
    x = torch.randn(TILES * PATCHES, VISION, dtype=torch.bfloat16)

    def work():
        a = attend([F.linear(x, w) for w in (q, k, v)], TILES, PATCHES, VISION_HEADS, False)
        F.linear(a, o)
        F.linear(F.linear(x, fc1), fc2)

    return work


def torch_round(layers):
    with torch.inference_mode():
        prefill, vision = (median_seconds(work) for work in layers)
    return {"prefill": TOKENS / (prefill * LAYERS), "vision": vision * VISION_LAYERS * 1e3}


def phi3v_round(binary, formats, threads):
    command = [binary, "bench", "--json", "--format", ",".join(formats), "--threads", str(threads)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = {}
    for result in report["results"]:
        if (result["name"], result["size"]) in {("prefill", TOKENS), ("vision", TILES)}:
            found.setdefault(result["format"], {})[result["name"]] = result["value"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phi3v", default="phi3v")
    parser.add_argument("--format", nargs="+", default=["q8", "q4"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    layers = (decoder_layer(), encoder_layer())
    rounds = {}
    for number in range(args.rounds):
        found = {"torch bf16": torch_round(layers), **phi3v_round(args.phi3v, args.format, args.threads)}
        for name, values in found.items():
            rounds.setdefault(name, []).append(values)
            print(f"round {number + 1}  {name:10}  prefill {values['prefill']:7.1f} tok/s  "
                  f"vision {values['vision']:8.0f} ms", flush=True)
    middle = {name: {key: statistics.median(v[key] for v in values) for key in ("prefill", "vision")}
              for name, values in rounds.items()}
    for name in args.format:
        prefill = middle[name]["prefill"] / middle["torch bf16"]["prefill"]
        vision = middle["torch bf16"]["vision"] / middle[name]["vision"]
        print(f"phi3v {name} is {prefill:.2f} times as fast as torch in prefill, {vision:.2f} times in vision")


if __name__ == "__main__":
    main()
