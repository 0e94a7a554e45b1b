"""llama.cpp beside phi3v, alternating, on the text model of Phi-3.5-vision.

    CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" pip install gguf llama-cpp-python==0.3.36
    cargo build --release
    python benchmarks/peers/llama_cpp.py --phi3v target/release/phi3v --work /var/tmp/llama_cpp --rounds 2

Both run the whole text model with random weights of Phi-3-mini's shapes, and use the same number of threads. Prefill is
one prompt in an empty cache, with the logits of its last token alone; decode is the median of single tokens, 32 of
llama.cpp's and 12 of phi3v's. Both are warmed up with 64 tokens. llama.cpp is called through llama-cpp-python (0.3.36),
with mapped files and in ubatches of 512, as is usual. phi3v runs `phi3v bench`, which measures its vision tower too.

llama.cpp's Q4_K and Q4_0 files have every matrix in that format but lm_head, which is Q6_K as llama-quantize makes it.
So Q4_K is not quite Q4_K_M: that has Q5_K for attn_qkv and Q6_K for half of the ffn_down, more to read and to do than
here. Q8_0 is Q8_0 throughout. phi3v's q4 has an lm_head of 8 bits. LongRoPE's factors are left out: they cost nothing.

No way to run llama.cpp is best at everything, so several take part: weights as they are in the file or repacked (the
default; Q4_0 only repacked, as it is slower otherwise, and Q8_0 cannot be on x86), and flash attention with keys and
values of 16 bits (the default) or none and keys of 8 bits, which decodes faster after a long prompt. phi3v keeps its
defaults, among them keys and values of 8 bits. Prints each round, and for each figure the ratio of the medians: phi3v's
to that of the way of llama.cpp that is fastest in it, q4 beside both 4-bit formats and q8 beside Q8_0.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

# as a script its folder comes first on the path, and llama_cpp would be this very file
sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

import gguf  # noqa: E402
import llama_cpp  # noqa: E402

HIDDEN, FFN, HEADS, LAYERS, VOCAB = 3072, 8192, 32, 32, 32064
# prompts; some tokens are decoded after each
PROMPTS, QUICK_PROMPTS = (0, 512, 1941), (0, 512)
CONTEXT, STEPS, WARM_UP = 2048, 32, 64
# llama.cpp's formats of the matrices and of lm_head, and what of phi3v each is compared with
FORMATS = {"Q4_K": ("Q4_K", "Q6_K", "q4"), "Q4_0": ("Q4_0", "Q6_K", "q4"), "Q8_0": ("Q8_0", "Q8_0", "q8")}
# format, weights repacked, flash attention (otherwise 8-bit keys)
VARIANTS = [(kind, repack, flash)
            for kind, repack in (("Q4_K", False), ("Q4_K", True), ("Q4_0", True), ("Q8_0", False))
            for flash in (True, False)]
# deviation of the weights
WEIGHT = 0.02
# offsets of a block's f16 scales, and values that give such weights when all other bits are random
SCALES = {
    "Q4_0": {0: WEIGHT / 4.6},
    "Q8_0": {0: WEIGHT / 74},
    "Q4_K": {0: WEIGHT / 253, 2: 7.5 * WEIGHT / 253},
    "Q6_K": {208: WEIGHT / 77},
}

# llama.cpp tells much about every model that it opens
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


def tensors(matrix, lm_head):
    yield "token_embd.weight", (VOCAB, HIDDEN), matrix
    yield "output_norm.weight", (HIDDEN,), "F32"
    yield "output.weight", (VOCAB, HIDDEN), lm_head
    for layer in range(LAYERS):
        yield f"blk.{layer}.attn_norm.weight", (HIDDEN,), "F32"
        yield f"blk.{layer}.attn_qkv.weight", (3 * HIDDEN, HIDDEN), matrix
        yield f"blk.{layer}.attn_output.weight", (HIDDEN, HIDDEN), matrix
        yield f"blk.{layer}.ffn_norm.weight", (HIDDEN,), "F32"
        yield f"blk.{layer}.ffn_up.weight", (2 * FFN, HIDDEN), matrix
        yield f"blk.{layer}.ffn_down.weight", (HIDDEN, FFN), matrix


def random_tensor(generator, shape, kind):
    if kind == "F32":
        return np.ones(shape, np.float32)
    values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = generator.integers(0, 256, (shape[0] * shape[1] // values, size), np.uint8)
    if kind == "Q6_K":
        # its 16 scales of 8 bits stay below 8: the f16 scale would otherwise be subnormal
        blocks[:, 192:208] &= 7
    for offset, scale in SCALES[kind].items():
        blocks[:, offset:offset + 2] = np.array([scale], "<f2").view(np.uint8)
    return blocks


def write_model(path, matrix, lm_head):
    """A GGUF of random weights; it gets its name when it is whole."""
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "phi3")
    writer.add_context_length(131072)
    writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(VOCAB)
    for name, shape, kind in tensors(matrix, lm_head):
        raw = gguf.GGMLQuantizationType[kind]
        values, size = gguf.GGML_QUANT_SIZES[raw]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), int(np.prod(shape)) // values * size, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    generator = np.random.default_rng(1)
    for _, shape, kind in tensors(matrix, lm_head):
        writer.write_tensor_data(random_tensor(generator, shape, kind))
    writer.close()
    part.rename(path)


@contextlib.contextmanager
def llama(path, threads, repack, flash):
    settings = llama_cpp.llama_model_default_params()
    settings.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    settings.use_extra_bufts = repack
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = CONTEXT
    settings.n_threads = settings.n_threads_batch = threads
    settings.flash_attn_type = int(flash)
    if not flash:
        settings.type_k = llama_cpp.GGML_TYPE_Q8_0
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        sys.exit(f"llama.cpp cannot run {path}")
    try:
        yield context
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def forward(context, tokens):
    """Seconds that the next `tokens` tokens take; only the last one's logits are computed."""
    ids = (llama_cpp.llama_token * tokens)(*range(tokens))
    start = time.perf_counter()
    failed = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, tokens))
    llama_cpp.llama_synchronize(context)
    seconds = time.perf_counter() - start
    if failed:
        sys.exit(f"llama.cpp could not compute {tokens} tokens")
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (VOCAB,))
    if not np.isfinite(logits).all():
        sys.exit("llama.cpp computed logits that are not finite")
    return seconds


def llama_figures(context, prompts):
    memory = llama_cpp.llama_get_memory(context)
    forward(context, WARM_UP)
    found = {}
    for tokens in prompts:
        llama_cpp.llama_memory_clear(memory, False)
        if tokens:
            found["prefill", tokens] = tokens / forward(context, tokens)
        found["decode", tokens] = 1 / statistics.median(forward(context, 1) for _ in range(STEPS))
    return found


def model_file(folder, kind):
    return folder / f"phi3-mini-random-{kind}.gguf"


def label(kind, repack, flash):
    return " ".join(["llama.cpp", kind] + ["repacked"] * repack + ["flash" if flash else "8-bit keys"])


def peer_figures(args, quant, prompts):
    """What each way to run llama.cpp reaches in the formats that are compared with phi3v's `quant`."""
    for kind, repack, flash in VARIANTS:
        if kind in args.format and FORMATS[kind][2] == quant:
            with llama(model_file(args.work, kind), args.threads, repack, flash) as context:
                yield label(kind, repack, flash), llama_figures(context, prompts)


def phi3v_figures(args, quant, prompts):
    command = [args.phi3v, "bench", "--json", "--format", quant, "--threads", str(args.threads)]
    report = subprocess.run(command + ["--quick"] * args.quick, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {(result["name"], result["size"]): result["value"] for result in json.loads(report)["results"]
            if result["name"] in ("prefill", "decode") and result["size"] in prompts}


def one_round(args, prompts):
    for quant in dict.fromkeys(FORMATS[kind][2] for kind in args.format):
        for name, figures in peer_figures(args, quant, prompts):
            yield quant, name, figures
        yield quant, f"phi3v {quant}", phi3v_figures(args, quant, prompts)


def compare(rounds):
    """Prints how fast phi3v is beside the fastest variant of each figure, by medians."""
    middle = {(quant, name, figure): statistics.median(values) for (quant, name, figure), values in rounds.items()}
    for (quant, name, figure), ours in middle.items():
        peers = [(value, peer) for (same, peer, what), value in middle.items()
                 if same == quant and what == figure and peer != name]
        if name.startswith("phi3v") and peers:
            theirs, peer = max(peers)
            print(f"{figure[0]:7} {figure[1]:5}  {name} is {ours / theirs:.2f} times as fast as {peer}: "
                  f"{ours:.1f} to {theirs:.1f} tok/s")


def measure(args):
    prompts = QUICK_PROMPTS if args.quick else PROMPTS
    rounds = {}
    for number in range(args.rounds):
        for quant, name, figures in one_round(args, prompts):
            for figure, value in figures.items():
                rounds.setdefault((quant, name, figure), []).append(value)
            text = "  ".join(f"{what} {size:4} {value:6.1f}" for (what, size), value in sorted(figures.items()))
            print(f"round {number + 1}  {name:34} {text} tok/s", flush=True)
    compare(rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phi3v", default="phi3v")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the models, 9 GB")
    parser.add_argument("--keep", action="store_true", help="leave the models there, for the next run")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="512 tokens at most, as phi3v bench --quick")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    llama_cpp.llama_log_set(SILENT, None)
    print(f"llama-cpp-python {llama_cpp.__version__}:", llama_cpp.llama_print_system_info().decode(), flush=True)
    try:
        for kind in args.format:
            path = model_file(args.work, kind)
            if not path.exists():
                write_model(path, *FORMATS[kind][:2])
        measure(args)
    finally:
        for path in args.work.glob("phi3-mini-random-*"):
            if not args.keep or path.suffix == ".part":
                path.unlink()


if __name__ == "__main__":
    main()
