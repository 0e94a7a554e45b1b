"""The phi3_v architecture in plain torch, with the hub's tensor names.

`Phi3V` holds a CLIP vision tower, the 2x2 merge with its separators, the projector and the
decoder. The module tree is arranged so that `state_dict()` has the checkpoint's names. Pictures
are given as one 336x336 tile (num_crops 1, where the global view equals the tile) or as a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 24  # patches along a side of a tile
MERGED = 12  # merged cells along a side of a tile
PATCH = 14
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipConfig:
    """Shape of the vision tower; the last encoder layer exists but is never run."""

    hidden_size: int = 128
    num_hidden_layers: int = 5
    num_attention_heads: int = 8
    intermediate_size: int = 512
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class Config:
    """Shape of the whole model."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 131072
    original_max_position_embeddings: int = 4096
    clip: ClipConfig = field(default_factory=ClipConfig)


@lru_cache(maxsize=4)
def _normal(device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.tensor(IMAGE_MEAN, device=device), torch.tensor(IMAGE_STD, device=device)


def patches_of(pixels: Tensor) -> Tensor:
    """u8 [..., H, W, 3] with H, W multiples of 14 -> normalised f32 [..., H/14 * W/14, 588].

    The 588 values are in the order of a convolution weight: channel, row, column.
    """
    mean, std = _normal(pixels.device)
    x = (pixels.float() / 255 - mean) / std
    *lead, h, w, _ = x.shape
    x = x.reshape(*lead, h // PATCH, PATCH, w // PATCH, PATCH, 3)
    n = len(lead)
    x = x.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3)  # [..., rows, cols, 3, 14, 14]
    return x.reshape(*lead, (h // PATCH) * (w // PATCH), 3 * PATCH * PATCH)


class Attend(torch.autograd.Function):
    """Attention on [batch * heads, tokens, dim], part by part so that the scores stay in the second-level cache.

    Scores are in the type of q and k, weights in that of v. If causal, q may lack the first rows, and
    the later half of the rows is done by itself: the other half sees half of the keys only.
    """

    ROOM = 1 << 21  # bytes of scores at a time; the cache has 1 or 2 MB

    @staticmethod
    def parts(q: Tensor, k: Tensor, causal: bool) -> list[tuple[slice, slice, int]]:
        """Heads, query rows and number of keys of each part."""
        (n, rows, _), keys = q.shape, k.shape[1]
        step = (rows + 1) // 2 if causal else rows
        heads = max(1, Attend.ROOM // (step * keys * q.element_size()))
        return [
            (slice(c, c + heads), slice(r, min(r + step, rows)), keys - rows + min(r + step, rows) if causal else keys)
            for c in range(0, n, heads) for r in range(0, rows, step)
        ]

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        (_, rows, dim), first = q.shape, k.shape[1] - q.shape[1]
        ctx.parts = Attend.parts(q, k, causal)
        mask = torch.full((rows, rows), float("-inf"), dtype=q.dtype).triu(1) if causal else None
        out, weights = torch.empty_like(q, dtype=v.dtype), []
        for c, r, keys in ctx.parts:
            scores = (q[c, r] * dim**-0.5) @ k[c, :keys].transpose(1, 2)
            if mask is not None:
                scores[:, :, first + r.start :] += mask[r, r]
            weights.append(scores.softmax(-1).to(v.dtype))
            out[c, r] = weights[-1] @ v[c, :keys]
        ctx.save_for_backward(q, k, v, *weights)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        dim = q.shape[-1]
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        q, k = q.to(v.dtype), k.to(v.dtype)
        for (c, r, keys), weight in zip(ctx.parts, weights, strict=True):
            dv[c, :keys] += weight.transpose(1, 2) @ grad[c, r]
            scores = torch._softmax_backward_data(grad[c, r] @ v[c, :keys].transpose(1, 2), weight, -1, v.dtype)
            scores *= dim**-0.5
            dq[c, r] = (scores @ k[c, :keys]).to(dq.dtype)
            dk[c, :keys] += scores.transpose(1, 2) @ q[c, r]
        return dq, dk, dv, None


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Attention on [batch, heads, tokens, dim]."""
    with torch.autocast(q.device.type, enabled=False):
        if q.is_cuda or not (causal or torch.is_grad_enabled()):
            return F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=causal).to(v.dtype)
        flat = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
        return Attend.apply(*flat, causal).view(*q.shape)


def moved(x: Tensor, by: int, axis: int) -> Tensor:
    """x shifted so that element i is x[i + by] along an axis; the border is repeated."""
    if by == 0:
        return x
    size = x.shape[axis]
    if by > 0:
        edge = x.narrow(axis, size - 1, 1)
        return torch.cat([x.narrow(axis, by, size - by)] + [edge] * by, axis)
    edge = x.narrow(axis, 0, 1)
    return torch.cat([edge] * -by + [x.narrow(axis, 0, size + by)], axis)


class ClipAttention(nn.Module):
    """Multi-head attention with biases."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj, self.v_proj = nn.Linear(h, h), nn.Linear(h, h)
        self.q_proj, self.out_proj = nn.Linear(h, h), nn.Linear(h, h)

    def shifted(self, x: Tensor, rows: int, offsets: tuple[tuple[int, int], ...]) -> Tensor:
        """What `forward` gives while each head looks at exactly one neighbour; no class row."""
        b, t, h = x.shape
        v = self.v_proj(x).view(b, rows, t // rows, self.heads, -1)
        parts = [moved(moved(part, dx, 2), dy, 1) for part, (dx, dy) in zip(v.unbind(3), offsets, strict=True)]
        return self.out_proj(torch.cat(parts, -1).view(b, t, h))

    def forward(self, x: Tensor) -> Tensor:  # [batch, tokens, hidden]
        b, t, h = x.shape
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        bias = torch.cat((self.q_proj.bias, self.k_proj.bias, self.v_proj.bias))
        qkv = F.linear(x, weight, bias).view(b, t, 3, self.heads, h // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # the scores in f32: places are told apart by them, and they are large
        return self.out_proj(attend(q.float(), k.float(), v).transpose(1, 2).reshape(b, t, h))


class ClipMlp(nn.Module):
    """Two linear maps with quick_gelu between."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        # x * sigmoid(1.702 x) written with silu, whose gradient is one fused step
        return self.fc2(F.silu(1.702 * self.fc1(x)) * (1 / 1.702))


class ClipLayer(nn.Module):
    """One pre-norm encoder layer."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.self_attn = ClipAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = ClipMlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, rows: int = 0, offsets: tuple[tuple[int, int], ...] = ()) -> Tensor:
        y = self.layer_norm1(x)
        x = x + (self.self_attn.shifted(y, rows, offsets) if rows else self.self_attn(y))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    """Patch, class and position embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.class_embedding = nn.Parameter(torch.randn(h) * 0.02)
        self.patch_embedding = nn.Conv2d(3, h, PATCH, PATCH, bias=False)
        self.position_embedding = nn.Embedding(GRID * GRID + 1, h)

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """Patches [batch, n, 588] at `places` [batch, n] (row * 24 + column) -> [batch, 1 + n, hidden]."""
        h = self.class_embedding.shape[0]
        x = F.linear(patches, self.patch_embedding.weight.view(h, -1))
        x = x + self.position_embedding(places + 1)
        cls = self.class_embedding + self.position_embedding.weight[0]
        return torch.cat((cls.expand(x.shape[0], 1, h).to(x.dtype), x), 1)


class ClipVision(nn.Module):
    """The vision tower; `forward` gives hidden_states[-2] without the class row."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(ClipLayer(config) for _ in range(config.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, patches: Tensor, places: Tensor | None = None, rows: int = 0) -> Tensor:
        """Patches [batch, n, 588] -> features [batch, n, hidden]; all 576 places when not given.

        With `rows` > 0 the patches form that many rows and every head takes its neighbour directly
        (`start_as_convolution`), which is what the attention comes to and much cheaper.
        """
        if places is None:
            places = torch.arange(GRID * GRID, device=patches.device).expand(patches.shape[0], -1)
        x = self.pre_layrnorm(self.embeddings(patches, places))
        x = x[:, 1:] if rows else x
        for layer, offsets in zip(self.encoder.layers[:-1], OFFSETS, strict=True):
            x = layer(x, rows, offsets)
        return x if rows else x[:, 1:]


_AROUND = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))
# Neighbour offsets (columns, rows) that the heads of each layer look at before training.
OFFSETS = (
    _AROUND,
    ((-1, 0), (1, 0), (-2, 0), (2, 0), (0, -1), (0, 1), (-1, 1), (1, -1)),
    _AROUND,
    ((-1, 0), (1, 0), (-2, 0), (2, 0), (-3, 0), (3, 0), (0, -1), (0, 1)),
)
PLACE = 16  # leading channels that hold the place
# Wavelengths of the position table in patches: of all sets of four, these make a place look least like any other.
_WAVES = (3.44, 4.08, 4.84, 7.86)


def cosine_filters(channels: int) -> Tensor:
    """Patch filters [channels, 3, 14, 14] to start from: none in the first 16 channels, then 12 colour
    filters, then brightness in order of rising frequency."""
    at = (torch.arange(PATCH) + 0.5) / PATCH
    waves = [torch.cos(math.pi * k * at) for k in range(PATCH)]
    order = sorted((i * i + j * j, i, j) for i in range(PATCH) for j in range(PATCH))
    planes = [(f, torch.outer(waves[i], waves[j])) for f, i, j in order]
    out = torch.zeros(channels, 3, PATCH, PATCH)
    tints = (torch.tensor([1.0, -1.0, 0.0]), torch.tensor([0.5, 0.5, -1.0]))
    for n in range(12):
        out[16 + n] = tints[n % 2][:, None, None] * planes[n // 2][1] * (0.3 / PATCH)
    for n in range(28, channels):
        frequency, plane = planes[n - 28]
        out[n] = plane * ((0.3 if frequency else 0.1) / PATCH)
    return out


@torch.no_grad()
def balance(tower: ClipVision, patches: Tensor, target: float = 0.7) -> None:
    """Scales the filters so that their outputs over `patches` deviate by about `target`, strong
    ones by the root of their strength more."""
    weight = tower.embeddings.patch_embedding.weight
    spread = F.linear(patches, weight.view(weight.shape[0], -1)).flatten(0, -2).std(0)
    live = spread > 0
    middle = spread[live].median()
    scale = target / (spread.clamp(min=0.05) * middle).sqrt()
    weight.mul_(torch.where(live, scale, 0.0)[:, None, None, None])


@torch.no_grad()
def start_as_convolution(tower: ClipVision, gain: float = 1.5) -> None:
    """Starts the tower so that each head looks at one neighbouring patch, like a convolution.

    The first 16 channels hold a 2-D sine table of the place and nothing else; q and k read it so
    that the score is highest at the head's offset. `place_mask` tells what keeps it so.
    """
    h = tower.embeddings.class_embedding.shape[0]
    place = torch.arange(GRID * GRID)
    table = torch.zeros(GRID * GRID, h)
    for i, axis in enumerate((place % GRID, place // GRID)):
        for j, wave in enumerate(_WAVES):
            angle = axis * (2 * math.pi / wave)
            table[:, 8 * i + 2 * j], table[:, 8 * i + 2 * j + 1] = angle.sin(), angle.cos()
    tower.embeddings.position_embedding.weight.zero_()
    tower.embeddings.position_embedding.weight[1:] = table * 30
    # The table outweighs the picture, so that every norm divides by nearly the same number and
    # no patch draws attention by its contrast; the picture is made as much stronger after each.
    tower.pre_layrnorm.weight[:PLACE] = 3
    tower.pre_layrnorm.weight[PLACE:] = 4
    tower.embeddings.patch_embedding.weight.copy_(cosine_filters(h))
    for layer, offsets in zip(tower.encoder.layers[:-1], OFFSETS, strict=True):
        attn = layer.self_attn
        layer.layer_norm1.weight[PLACE:] = 2.5
        layer.layer_norm2.weight[PLACE:] = 2.5
        d = h // attn.heads
        for head, offset in enumerate(offsets):
            q, k = torch.zeros(d, h), torch.zeros(d, h)
            for i, shift in enumerate(offset):
                for j, wave in enumerate(_WAVES):
                    c, s = math.cos(2 * math.pi * shift / wave), math.sin(2 * math.pi * shift / wave)
                    row = 8 * i + 2 * j
                    q[row : row + 2, row : row + 2] = torch.tensor([[c, s], [-s, c]]) * gain
                    k[row : row + 2, row : row + 2] = torch.eye(2) * gain
            attn.q_proj.weight[head * d : (head + 1) * d] = q
            attn.k_proj.weight[head * d : (head + 1) * d] = k
        nn.init.normal_(attn.v_proj.weight, std=h**-0.5)
        nn.init.normal_(attn.out_proj.weight, std=0.5 * h**-0.5)
        for linear in (attn.q_proj, attn.k_proj, attn.v_proj, attn.out_proj):
            linear.bias.zero_()
        for linear in (attn.out_proj, layer.mlp.fc2):
            linear.weight[:PLACE] = 0
            linear.bias[:PLACE] = 0


def place_mask(model: nn.Module) -> Tensor:
    """1 for every weight that trains, 0 for those that hold the heads' neighbour offsets, flat.

    Held are q, k, the position table and whatever writes into the place channels. (Left free, the
    attention fades to a plain average within 2,000 steps and the tower reads single patches.)
    """
    flat = []
    for name, p in model.named_parameters():
        mask = torch.ones_like(p)
        if "position_embedding" in name or ("layers" in name and ("q_proj" in name or "k_proj" in name)):
            mask.zero_()
        elif "pre_layrnorm" in name or "layer_norm1" in name:
            mask[:PLACE] = 0
        elif "vision_model" in name or name.startswith("tower."):
            if "patch_embedding" in name:
                mask.fill_(0.1)  # its weights are small, and so are its steps
            if "patch_embedding" in name or "out_proj" in name or "fc2" in name:
                mask[:PLACE] = 0
        flat.append(mask.flatten())
    return torch.cat(flat)


class Normed(torch.autograd.Function):
    """x / rms(x) * weight in few passes: what is kept for the backward pass, and all of it, is in bf16 where products are."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # x [..., hidden]
        inverse = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1] + eps).rsqrt()
        unit = torch.empty_like(x, dtype=working(x))
        torch.mul(x, inverse, out=unit)
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight.to(unit.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, weight = ctx.saved_tensors
        along = grad * unit
        weights = weight.to(unit.dtype)
        mean = (along @ weights)[..., None] / unit.shape[-1]
        back = (grad * weights).addcmul_(unit, mean.to(unit.dtype), value=-1)
        return back.to(inverse.dtype).mul_(inverse), along.flatten(0, -2).sum(0, dtype=inverse.dtype), None


def working(x: Tensor) -> torch.dtype:
    """The type that autocast gives to products of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class RmsNorm(nn.Module):
    """Root-mean-square norm."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return Normed.apply(x, self.weight, self.eps)


def rotary(config: Config, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of positions [..., tokens], [..., 1, tokens, head_dim], both times the "su" attention scaling; all factors are 1."""
    dim = config.hidden_size // config.num_attention_heads
    rates = config.rope_theta ** (-torch.arange(0, dim, 2, device=positions.device) / dim)
    angles = positions[..., None].float() * rates
    angles = torch.cat((angles, angles), -1).unsqueeze(-3)
    stretch = config.max_position_embeddings / config.original_max_position_embeddings
    scale = math.sqrt(1 + math.log(stretch) / math.log(config.original_max_position_embeddings))
    return angles.cos() * scale, angles.sin() * scale


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [batch, heads, tokens, dim], pairs (i, i + dim/2)."""
    a, b = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-b, a), -1) * sin.to(x.dtype)


class Attention(nn.Module):
    """Causal multi-head attention with one qkv map and no biases."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        h = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv_proj = nn.Linear(h, 3 * h, bias=False)
        self.o_proj = nn.Linear(h, h, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Output for rows from `first` on, and the rotated q (those rows) and k (all rows)."""
        b, t, h = x.shape
        qkv = self.qkv_proj(x).view(b, t, 3, self.heads, h // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q[:, :, first:], cos[..., first:, :], sin[..., first:, :]), rotate(k, cos, sin)
        mixed = attend(q, k, v, causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t - first, h)), q, k


class Mlp(nn.Module):
    """down(up * silu(gate)) with gate and up in one map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(up * F.silu(gate))


class DecoderLayer(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        mixed, q, k = self.self_attn(self.input_layernorm(x), cos, sin, first)
        x = x[:, first:] + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), q, k


class VisionEmbed(nn.Module):
    """The tower, the 2x2 merge with its separators, and the projector."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        wide, h = 4 * config.clip.hidden_size, config.hidden_size
        self.img_processor = nn.Module()
        self.img_processor.vision_model = ClipVision(config.clip)
        self.sub_GN = nn.Parameter(torch.randn(1, 1, 1, wide) * 0.5)
        self.glb_GN = nn.Parameter(torch.randn(1, 1, wide) * 0.5)
        self.img_projection = nn.Sequential(nn.Linear(wide, h), nn.GELU(), nn.Linear(h, h))
        with torch.no_grad():  # the place channels are strong in the features: start them level
            self.img_projection[0].weight.view(h, 4, -1)[:, :, :PLACE] *= 0.15

    def merge(self, features: Tensor, rows: int = 1, cols: int = 1) -> Tensor:
        """Tile features [n * rows * cols, 576, hidden] -> [n, 12 rows * (12 cols + 1), 4 hidden]."""
        c = features.shape[-1]
        x = features.view(-1, rows, cols, MERGED, 2, MERGED, 2, c)
        x = x.permute(0, 1, 3, 2, 5, 4, 6, 7).reshape(-1, rows * MERGED, cols * MERGED, 4 * c)
        end = self.sub_GN.expand(x.shape[0], x.shape[1], 1, 4 * c).to(x.dtype)
        return torch.cat((x, end), 2).flatten(1, 2)

    def forward(self, features: Tensor, short: bool = False) -> Tensor:
        """One tile a picture, [n, 576, hidden] -> [n, 313, hidden]; `short` leaves out the sub image."""
        tile = self.img_projection(self.merge(features))
        mark = self.img_projection(self.glb_GN).expand(tile.shape[0], 1, -1)
        return torch.cat((mark, tile) if short else (tile, mark, tile), 1)

    def grid(self, views: Tensor, rows: int, cols: int) -> Tensor:
        """Features [n, 1 + rows * cols, 576, hidden] of pictures, global view first -> [n, tokens, hidden]."""
        mark = self.glb_GN.expand(len(views), 1, -1)
        parts = (self.merge(views[:, 1:].flatten(0, 1), rows, cols), mark.to(views.dtype), self.merge(views[:, 0]))
        return self.img_projection(torch.cat(parts, 1))


class Phi3V(nn.Module):
    """The whole model, with the hub's tensor names."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.vision_embed_tokens = VisionEmbed(config)
        self.model.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.5)
        for layer in self.model.layers:
            nn.init.normal_(layer.self_attn.o_proj.weight, std=0.5 * config.hidden_size**-0.5)
            nn.init.normal_(layer.mlp.down_proj.weight, std=0.5 * config.intermediate_size**-0.5)

    @property
    def tower(self) -> ClipVision:
        return self.model.vision_embed_tokens.img_processor.vision_model

    def embed(self, ids: Tensor, pictures: Tensor | None) -> Tensor:
        """Token embeddings [batch, tokens, hidden]; negative ids are the rows of `pictures` in order."""
        x = self.model.embed_tokens(ids.clamp(min=0))
        if pictures is None:
            return x
        return x.masked_scatter((ids < 0)[..., None], pictures.to(x.dtype))

    def decode(self, x: Tensor, positions: Tensor, first: int = 0) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Hidden rows from `first` on after the final norm, and each layer's q and k (all heads)."""
        cos, sin = rotary(self.config, positions)
        seen = []
        for i, layer in enumerate(self.model.layers):
            x, q, k = layer(x, cos, sin, first if i == len(self.model.layers) - 1 else 0)
            seen.append((q, k))
        return self.model.norm(x), seen
