"""Makes a finished tower of fewer layers one of today's number: each new layer begins by passing on what it is given.

So the decoder reads with the new tower what it read with the old one, and whatever the new layers learn is more.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from network.model import ClipConfig, ClipVision


def tower_of(tensors: dict[str, Tensor], layers: int) -> ClipVision:
    """The tower of `layers` layers that these are the weights of, grown if today's has more."""
    tower = ClipVision(replace(ClipConfig(), num_hidden_layers=layers))
    tower.load_state_dict(tensors)
    while len(tower.encoder.layers) < ClipConfig().num_hidden_layers:
        tower = grown(tower)
    return tower


@torch.no_grad()
def grown(tower: ClipVision) -> ClipVision:
    """The tower with a layer more before the last one that is run, whose norms it has, for they get what that one's get: behind it the rows differ
    so much in size that attention would go to the flat ones. Its heads look at the eight neighbours, by the first layer's queries and keys."""
    *before, last, never_run = tower.encoder.layers
    layer, size = deepcopy(last), tower.embeddings.class_embedding.shape[0]
    for name in ("q_proj", "k_proj"):
        getattr(layer.self_attn, name).load_state_dict(getattr(before[0].self_attn, name).state_dict())
    for linear in (layer.self_attn.v_proj, layer.mlp.fc1):
        nn.init.normal_(linear.weight, std=size**-0.5)
        linear.bias.zero_()
    for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
        linear.weight.zero_()
        linear.bias.zero_()
    tower.encoder.layers = nn.ModuleList((*before, layer, last, never_run))
    return tower
