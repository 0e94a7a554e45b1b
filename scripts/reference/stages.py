"""Runs the tiny checkpoint in f32 with torch, and writes what every stage of the model gives.

    pip install torch==2.4.1 transformers==4.43.4 tokenizers==0.19.1 pillow==10.3.0 numpy==1.26.4 safetensors==0.8.0
    python scripts/reference/stages.py testdata/tiny testdata

Writes stages.json, the prompts with their pictures (of testdata/images), and stages.safetensors, with the names of
`phi3v trace` behind the prompt's name:
    NAME.input_ids           [tokens]; rows of picture i hold -i
    NAME.vision_features.i   [1 + tiles, patches, vision hidden], once per picture; `patches` lists the patches
    NAME.image_embeds.i      [num_img_tokens, hidden], once per picture, all rows, since a separator is one row
    NAME.hidden_states.l     [rows, hidden]; NAME.rows lists the rows
    NAME.final_norm          [rows, hidden]
    NAME.logits              [vocab], after the prompt
    NAME.generated_ids       the greedy continuation, each step computed as a whole, without a cache

The vision tower is transformers' CLIPVisionModel; merge, projector and decoder are written here after MODEL.md, in
other terms than phi3v's: whole arrays and permutations, no cache, no blocks. One thread, for the same bytes each time.
"""

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import torch
from image_fixtures import MEAN, STD, global_view, hd_transform
from PIL import Image
from safetensors.torch import load_file, save
from tokenizer_fixture import ASK, SENTENCES, processor_ids
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

VISION = "model.vision_embed_tokens"
# 7 has no common factor with lines of 24 patches, nor with picture rows of 12 w_crop + 1 for w_crop 1 and 2: every
# column comes up.
STEP = 7
PATCHES = range(0, 576, STEP)
# A greedy step whose best logit leads by less than this says little about the model.
LEAD = 5e-3


class Checkpoint:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.num_crops = json.loads((folder / "preprocessor_config.json").read_text())["num_crops"]
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        self.weights = {}
        for file in sorted(set(index["weight_map"].values())):
            self.weights.update({name: tensor.float() for name, tensor in load_file(folder / file).items()})
        self.vision_tower = CLIPVisionModel(CLIPVisionConfig(**self.config["img_processor"]["clip_config"])).eval()
        prefix = f"{VISION}.img_processor."
        clip = {name.removeprefix(prefix): tensor for name, tensor in self.weights.items() if name.startswith(prefix)}
        self.vision_tower.load_state_dict(clip)

    def linear(self, x, name):
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def rms_norm(self, x, name):
        mean = x.pow(2).mean(-1, keepdim=True)
        return self.weights[f"{name}.weight"] * (x * torch.rsqrt(mean + self.config["rms_norm_eps"]))


def tiles(image, num_crops):
    """The global view, then the tiles row by row, [1 + tiles, 3, 336, 336]; and the rows and columns of tiles."""
    hd = hd_transform(image, num_crops)
    values = torch.from_numpy((np.asarray(hd).astype(np.float32) / np.float32(255) - MEAN) / STD)
    h_crop, w_crop = hd.height // 336, hd.width // 336
    cut = values.view(h_crop, 336, w_crop, 336, 3).permute(0, 2, 4, 1, 3).flatten(0, 1)
    return torch.cat([global_view(hd)[None], cut]), h_crop, w_crop


def vision_features(model, pixel_values):
    """[tiles, 576, vision hidden]: the output of the last layer but one, without the class row."""
    return model.vision_tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]


def image_embeds(model, features, h_crop, w_crop):
    """[num_img_tokens, hidden]: the picture's lines, glb_GN, the global view's lines; sub_GN ends every line."""

    def lines(patches, rows, columns):
        grid = patches.view(rows, columns, 12, 2, 12, 2, -1).permute(0, 2, 1, 4, 3, 5, 6)
        grid = grid.reshape(12 * rows, 12 * columns, -1)  # 2 x 2 patches side by side
        ends = model.weights[f"{VISION}.sub_GN"].view(1, 1, -1).expand(12 * rows, 1, -1)
        return torch.cat([grid, ends], 1).flatten(0, 1)

    between = model.weights[f"{VISION}.glb_GN"].view(1, -1)
    rows = torch.cat([lines(features[1:], h_crop, w_crop), between, lines(features[:1], 1, 1)])
    return model.linear(functional.gelu(model.linear(rows, f"{VISION}.img_projection.0")), f"{VISION}.img_projection.2")


def rotations(config, tokens):
    """Cosines and sines, [tokens, head_dim / 2]. One set of factors holds for all rows; both carry the scale."""
    limit, scaling = config["original_max_position_embeddings"], config["rope_scaling"]
    factors = torch.tensor(scaling["long_factor" if tokens > limit else "short_factor"], dtype=torch.float32)
    dim = config["hidden_size"] // config["num_attention_heads"]
    inv_freq = 1.0 / (factors * config["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim))
    angles = torch.arange(tokens).float()[:, None] * inv_freq
    scale = math.sqrt(1 + math.log(config["max_position_embeddings"] / limit) / math.log(limit))
    return angles.cos() * scale, angles.sin() * scale


def rotate(x, cos, sin):
    """Pair i of a head, [heads, tokens, head_dim], is (i, i + head_dim / 2)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def attention(config, qkv, cos, sin):
    """Causal attention, [tokens, heads * head_dim], of rows of q, then k, then v."""
    heads, key_value_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["hidden_size"] // heads
    sizes = [heads, key_value_heads, key_value_heads]
    q, k, v = (
        part.view(len(qkv), size, dim).transpose(0, 1)
        for part, size in zip(qkv.split([dim * size for size in sizes], -1), sizes)
    )
    k, v = (part.repeat_interleave(heads // key_value_heads, 0) for part in (rotate(k, cos, sin), v))
    scores = rotate(q, cos, sin) @ k.transpose(1, 2) / math.sqrt(dim)
    later = torch.ones(len(qkv), len(qkv), dtype=torch.bool).triu(1)
    return (scores.masked_fill_(later, -math.inf).softmax(-1) @ v).transpose(0, 1).flatten(1)


def decoder(model, ids, embeds):
    """hidden_states (the embeddings, then the output of every layer), final_norm, and logits after the last token."""
    ids = torch.tensor(ids)
    x = model.weights["model.embed_tokens.weight"][ids.clamp(min=0)]
    for number, rows in enumerate(embeds, 1):
        x[ids == -number] = rows
    cos, sin = rotations(model.config, len(ids))
    states = [x]
    for index in range(model.config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        qkv = model.linear(model.rms_norm(x, f"{layer}.input_layernorm"), f"{layer}.self_attn.qkv_proj")
        x = x + model.linear(attention(model.config, qkv, cos, sin), f"{layer}.self_attn.o_proj")
        normed = model.rms_norm(x, f"{layer}.post_attention_layernorm")
        gate, up = model.linear(normed, f"{layer}.mlp.gate_up_proj").chunk(2, -1)
        x = x + model.linear(functional.silu(gate) * up, f"{layer}.mlp.down_proj")
        states.append(x)
    final_norm = model.rms_norm(x, "model.norm")
    return states, final_norm, model.linear(final_norm[-1], "lm_head")


def greedy(model, ids, embeds, new_tokens):
    """The likeliest token, again and again, and the smallest lead it had."""
    ids, lead = list(ids), math.inf
    for _ in range(new_tokens):
        best = decoder(model, ids, embeds)[2].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(ids) - new_tokens :], lead


def words(count):
    chosen = random.Random(4096).choices(" ".join(SENTENCES).split(), k=count)
    return " ".join(chosen)


def prompts():
    """Name, prompt, pictures, length of the continuation, and which rows to record."""
    one, two = "<|image_1|>\nWhat is written here?", "<|image_1|>\n<|image_2|>\n What is difference in this two images?"
    yield "text", ASK.format("Could you please introduce this stock to me?"), [], 24, 1
    yield "one_picture", ASK.format(one), ["rgb.png"], 16, STEP
    yield "two_pictures", ASK.format(two), ["tall.png", "gray.png"], 12, STEP
    # 4,100 tokens: the long factors
    yield "long", ASK.format(words(1638)), [], 4, 97
    # 4,092 tokens, and 4,097 after the fifth of the continuation: the long factors from there on, for every row
    yield "crossing", ASK.format(f"<|image_1|>\n{words(1331)}"), ["rgb.png"], 12, 97


def stages(model, prompt, images, new_tokens, step):
    """The tensors of one prompt."""
    found, embeds = {}, []
    for number, image in enumerate(images, 1):
        pixel_values, h_crop, w_crop = tiles(image, model.num_crops)
        features = vision_features(model, pixel_values)
        embeds.append(image_embeds(model, features, h_crop, w_crop))
        found[f"vision_features.{number}"] = features[:, PATCHES]
        found[f"image_embeds.{number}"] = embeds[-1]
    ids = processor_ids(model.tokenizer, prompt, [len(rows) for rows in embeds])
    states, final_norm, logits = decoder(model, ids, embeds)
    rows = sorted({*range(0, len(ids), step), len(ids) - 1})
    for index, state in enumerate(states):
        found[f"hidden_states.{index}"] = state[rows]
    found["final_norm"], found["logits"] = final_norm[rows], logits
    generated, lead = greedy(model, ids, embeds, new_tokens)
    assert lead > LEAD, f"a lead of {lead}: choose another prompt"
    integers = {"input_ids": ids, "rows": rows, "generated_ids": generated}
    found.update({name: torch.tensor(values, dtype=torch.int32) for name, values in integers.items()})
    print(f"{len(ids)} tokens, {len(rows)} rows, smallest lead {lead:.3g}, then {generated}")
    return found


@torch.no_grad()
def main(folder, out):
    torch.set_num_threads(1)
    model = Checkpoint(folder)
    cases, recorded, tensors = [], set(), {"patches": torch.tensor(PATCHES, dtype=torch.int32)}
    for name, prompt, files, new_tokens, step in prompts():
        print(name, end=": ", flush=True)
        images = [Image.open(out / "images" / file).convert("RGB") for file in files]
        found = stages(model, prompt, images, new_tokens, step)
        for number, file in enumerate(files, 1):
            if file in recorded:  # a picture's stages do not depend on the prompt
                del found[f"vision_features.{number}"], found[f"image_embeds.{number}"]
        recorded.update(files)
        tensors.update({f"{name}.{stage}": tensor.contiguous() for stage, tensor in found.items()})
        cases.append({"name": name, "images": files, "max_new_tokens": new_tokens, "prompt": prompt})
    (out / "stages.safetensors").write_bytes(save(tensors))
    (out / "stages.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
