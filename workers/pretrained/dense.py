"""A cut model whose FFNs are dense, as its family's own class again: what is pruned, or was never
cut, needs no code of this project.

H hidden units of a layer, D model width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from workers.pretrained.model import PretrainedLM


@torch.no_grad()
def as_dense(model: PretrainedLM) -> Any:
    """A new transformers model of the family's class, with the weights of `model`.

    model: each of its layers reads all of its units with weight 1, and all layers have as many.
    """
    lm = model.lm
    config = copy.deepcopy(lm.config)
    config.intermediate_size = lm.model.layers[0].mlp.experts.keys_BGD.shape[:2].numel()
    plain = type(lm)(config)
    own = {name: p for name, p in lm.state_dict().items() if ".mlp." not in name}
    plain.load_state_dict(own, strict=False)
    for to, layer in zip(plain.model.layers, lm.model.layers, strict=True):
        experts = layer.mlp.experts
        to.mlp.gate_proj.weight.copy_(experts.gates_BGD.flatten(0, 1))
        to.mlp.up_proj.weight.copy_(experts.keys_BGD.flatten(0, 1))
        to.mlp.down_proj.weight.copy_(experts.values_BGD.flatten(0, 1).t())
    return plain.eval()
