"""OpenVINO beside phi3v, alternating, on the shapes of Phi-3.5-vision.

    pip install openvino
    cargo build --release
    python benchmarks/peers/openvino_int4.py --phi3v target/release/phi3v --rounds 2

Both run the whole text model and the whole vision tower with random weights, and use the same number of threads. The
graphs are built with OpenVINO's own operations, in the form in which optimum-intel exports such models: keys and values
are states of the model, weights are integers of 4 bits in groups of 128 (lm_head and the vision tower: 8 bits for each
row) that are multiplied by their scales, attention is one operation. The script ends where OpenVINO does not run
attention with its states, or a product with its weights, as the one kernel that it has for them. Everything else is
OpenVINO's default where one answer at a time is asked for: the precision of activations, 8-bit keys and values.

OpenVINO is given less to do: no embeddings of tokens, no rotary embedding, a mask that is ready, no patch convolution
and no projector. Prefill is one prompt in an empty cache, with the logits of its last token alone; decode is the median
of single tokens. phi3v runs `phi3v bench`. Prints each round, and for each figure the ratio of the medians.

`--small` runs OpenVINO alone on tiny shapes, which shows that the graphs are what they should be.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as ops

GROUP, EPSILON = 128, 1e-5
# deviation of the weights
WEIGHT = 0.02
STEPS, WARM_UP = 32, 64
# prompts; some tokens are decoded after each
PROMPTS, QUICK_PROMPTS = (0, 512, 1941), (0, 512)


@dataclass
class Text:
    hidden: int = 3072
    ffn: int = 8192
    heads: int = 32
    layers: int = 32
    vocab: int = 32064


@dataclass
class Vision:
    hidden: int = 1024
    ffn: int = 4096
    heads: int = 16
    layers: int = 23
    patches: int = 577
    tiles: int = 13


class Graph:
    """A model of random weights; it has to live as long as what is compiled of it, for OpenVINO does not copy them."""

    def __init__(self):
        self.generator = np.random.default_rng(1)
        self.states, self.sinks, self.weights = 0, [], []

    def linear(self, x, n, k, bits):
        """A product by a matrix of n rows, of so many bits."""
        grouped = [n, k // GROUP, GROUP] if bits == 4 else [n, k]
        count = n * k * bits // 8
        kind = ov.Type.i4 if bits == 4 else ov.Type.i8
        values = self.generator.integers(0, 256, count, np.uint8)
        if bits == 8:
            values = values.view(np.int8)
        self.weights.append(values)
        weight = ops.convert(ops.constant(ov.Tensor(values, ov.Shape(grouped), kind)), "f16")
        # integers that are uniform deviate by their number / sqrt(12)
        scale = np.full(grouped[:-1] + [1], WEIGHT / (2**bits / 12**0.5), np.float16)
        weight = ops.multiply(weight, ops.constant(scale))
        if bits == 4:
            weight = ops.reshape(weight, ops.constant([n, k], ov.Type.i64), False)
        return ops.matmul(x, ops.convert(weight, "f32"), False, True)

    def rms_norm(self, x, width):
        square = ops.reduce_mean(ops.power(x, number(2)), axes([-1]), True)
        inverse = ops.divide(number(1), ops.sqrt(ops.add(square, number(EPSILON))))
        return ops.multiply(ops.constant(np.ones((1, 1, width), np.float32)), ops.multiply(x, inverse))

    def layer_norm(self, x, width):
        normed = ops.mvn(x, axes([-1]), True, EPSILON, "inside_sqrt")
        normed = ops.multiply(normed, ops.constant(np.ones((1, 1, width), np.float32)))
        return ops.add(normed, ops.constant(np.zeros((1, 1, width), np.float32)))

    def kept(self, x, beam, heads, dim):
        """Keys or values behind those of earlier tokens, which are kept for later ones."""
        name = f"state{self.states}"
        self.states += 1
        empty = ops.constant(np.zeros((1, heads, 0, dim), np.float32))
        state = ops.read_value(empty, name, ov.Type.f32, ov.PartialShape([1, heads, -1, dim]))
        x = ops.concat([ops.gather(state, beam, axes(0)), x], 2)
        self.sinks.append(ops.assign(x, name))
        return x


def parameter(name, shape, kind):
    node = ops.parameter(ov.PartialShape(shape), kind)
    node.output(0).set_names({name})
    return node


def number(value):
    return ops.constant(np.array(value, np.float32))


def axes(values):
    return ops.constant(np.array(values, np.int64))


def to_heads(x, heads, dim):
    # [batch, rows, heads * dim] to [batch, heads, rows, dim]
    return ops.transpose(ops.reshape(x, axes([0, 0, heads, dim]), True), axes([0, 2, 1, 3]))


def from_heads(x, width):
    return ops.reshape(ops.transpose(x, axes([0, 2, 1, 3])), axes([0, 0, width]), True)


def text_model(sizes):
    graph, hidden, dim = Graph(), sizes.hidden, sizes.hidden // sizes.heads
    x = embeddings = parameter("embeddings", [1, -1, hidden], np.float32)
    mask = parameter("mask", [1, 1, -1, -1], np.float32)
    beam = parameter("beam", [1], np.int32)
    for _ in range(sizes.layers):
        qkv = graph.linear(graph.rms_norm(x, hidden), 3 * hidden, hidden, 4)
        q, k, v = (to_heads(part, sizes.heads, dim) for part in ops.split(qkv, axes(2), 3).outputs())
        k, v = (graph.kept(part, beam, sizes.heads, dim) for part in (k, v))
        attended = ops.scaled_dot_product_attention(q, k, v, mask, causal=False)
        x = ops.add(x, graph.linear(from_heads(attended, hidden), hidden, hidden, 4))
        gate_up = graph.linear(graph.rms_norm(x, hidden), 2 * sizes.ffn, hidden, 4)
        gate, up = ops.split(gate_up, axes(2), 2).outputs()
        x = ops.add(x, graph.linear(ops.multiply(ops.swish(gate), up), hidden, sizes.ffn, 4))
    last = ops.gather(x, axes([-1]), axes(1))
    logits = ops.result(graph.linear(graph.rms_norm(last, hidden), sizes.vocab, hidden, 8))
    graph.model = ov.Model([logits], graph.sinks, [embeddings, mask, beam], "text")
    return graph


def vision_model(sizes):
    graph, hidden, dim = Graph(), sizes.hidden, sizes.hidden // sizes.heads
    x = patches = parameter("patches", [-1, sizes.patches, hidden], np.float32)
    for _ in range(sizes.layers):
        normed = graph.layer_norm(x, hidden)
        q, k, v = (to_heads(graph.linear(normed, hidden, hidden, 8), sizes.heads, dim) for _ in range(3))
        attended = ops.scaled_dot_product_attention(q, k, v, causal=False)
        x = ops.add(x, graph.linear(from_heads(attended, hidden), hidden, hidden, 8))
        inner = graph.linear(graph.layer_norm(x, hidden), sizes.ffn, hidden, 8)
        # QuickGELU
        x = ops.add(x, graph.linear(ops.swish(inner, number(1.702)), hidden, sizes.ffn, 8))
    graph.model = ov.Model([ops.result(x)], [patches], "vision")
    return graph


def compiled(graph, threads):
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    return ov.Core().compile_model(graph.model, "CPU", settings)


def kernels(model):
    """How often each kind of kernel runs."""
    return Counter(node.get_rt_info()["layerType"].astype(str) for node in model.get_runtime_model().get_ops())


class Decoder:
    """A text model with keys and values of the tokens so far."""

    def __init__(self, sizes, threads):
        self.graph = text_model(sizes)
        model = compiled(self.graph, threads)
        kinds = kernels(model)
        if kinds["ScaledDotProductAttention"] != sizes.layers or kinds["Concatenation"] or kinds["Convert"]:
            sys.exit(f"OpenVINO does not run attention or products as one kernel each: {kinds}")
        self.sizes, self.request, self.past = sizes, model.create_infer_request(), 0
        self.generator = np.random.default_rng(2)

    def clear(self):
        self.request.reset_state()
        self.past = 0

    def forward(self, tokens):
        """Seconds that the next `tokens` tokens take."""
        embeddings = self.generator.standard_normal((1, tokens, self.sizes.hidden), np.float32) * WEIGHT
        mask = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
        mask = np.pad(mask, ((0, 0), (self.past, 0)))[None, None]
        start = time.perf_counter()
        self.request.infer({"embeddings": embeddings, "mask": mask, "beam": np.zeros(1, np.int32)})
        seconds = time.perf_counter() - start
        if not np.isfinite(self.request.get_output_tensor().data).all():
            sys.exit("OpenVINO computed logits that are not finite")
        self.past += tokens
        return seconds


def openvino_figures(args, sizes, prompts):
    text, vision = sizes
    decoder = Decoder(text, args.threads)
    decoder.forward(WARM_UP)
    found = {}
    for tokens in prompts:
        decoder.clear()
        if tokens:
            found["prefill", tokens] = tokens / decoder.forward(tokens)
        found["decode", tokens] = 1 / statistics.median(decoder.forward(1) for _ in range(STEPS))
    del decoder
    graph = vision_model(vision)
    tower = compiled(graph, args.threads).create_infer_request()
    tiles = np.random.default_rng(3).standard_normal((vision.tiles, vision.patches, vision.hidden), np.float32)
    tower.infer({"patches": tiles[:1]})
    start = time.perf_counter()
    tower.infer({"patches": tiles})
    found["vision", vision.tiles] = (time.perf_counter() - start) * 1e3
    return found


def phi3v_figures(args, wanted):
    command = [args.phi3v, "bench", "--json", "--format", "q4", "--threads", str(args.threads)]
    report = subprocess.run(command + ["--quick"] * args.quick, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = ((result["name"], result["size"], result["value"]) for result in json.loads(report)["results"])
    return {(name, size): value for name, size, value in results if (name, size) in wanted}


def line(figures):
    return "  ".join(f"{name} {size:4} {value:7.1f}{' ms' if name == 'vision' else ' tok/s'}"
                     for (name, size), value in sorted(figures.items()))


def compare(rounds):
    """Prints how fast phi3v is beside OpenVINO, by medians."""
    middle = {name: {figure: statistics.median(figures[figure] for figures in all_figures)
                     for figure in all_figures[0]} for name, all_figures in rounds.items()}
    ours, theirs = middle["phi3v q4"], middle["OpenVINO int4"]
    for figure, value in ours.items():
        # vision is a time, the others are rates
        ratio = theirs[figure] / value if figure[0] == "vision" else value / theirs[figure]
        print(f"{figure[0]:7} {figure[1]:5}  phi3v q4 is {ratio:.2f} times as fast as OpenVINO int4: "
              f"{value:.1f} to {theirs[figure]:.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phi3v", default="phi3v")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="512 tokens and one tile, as phi3v bench --quick")
    parser.add_argument("--small", action="store_true", help="OpenVINO alone, on tiny shapes")
    args = parser.parse_args()
    print("OpenVINO", ov.get_version(), flush=True)
    if args.small:
        sizes = (Text(hidden=256, ffn=512, heads=4, layers=2, vocab=1000),
                 Vision(hidden=128, ffn=256, heads=2, layers=2, patches=17, tiles=3))
        print(line(openvino_figures(args, sizes, (0, 40))))
        return
    sizes = (Text(), Vision(tiles=1 if args.quick else 13))
    rounds = {}
    for number_of_round in range(args.rounds):
        theirs = openvino_figures(args, sizes, QUICK_PROMPTS if args.quick else PROMPTS)
        for name, figures in (("OpenVINO int4", theirs), ("phi3v q4", phi3v_figures(args, theirs.keys()))):
            rounds.setdefault(name, []).append(figures)
            print(f"round {number_of_round + 1}  {name:14} {line(figures)}", flush=True)
    compare(rounds)


if __name__ == "__main__":
    main()
