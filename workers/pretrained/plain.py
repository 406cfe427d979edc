"""A cut model as a class of transformers without code of this project, and such a class as a cut
model again.

Where all FFNs are dense the class is the base's own; where every layer has experts that a softmax
picks, it is the one whose attention is the base's (`search_space.native`).

B experts, G units of an expert, H hidden units of a layer, D model width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from search_space.backbone import Backbone
from search_space.errors import InputError
from search_space.native import FAMILIES, NativeForm
from search_space.routing import EVERY_EXPERT
from search_space.spec import FFNSpec
from workers.pretrained.model import CutFFN, PretrainedLM, cut_ffns, put_in

# What a config.json says of its own class alone.
OWN_KEYS = ("model_type", "architectures", "auto_map", "ffn")


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


@torch.no_grad()
def as_routed(model: PretrainedLM, spec: FFNSpec, form: NativeForm) -> Any:
    """A new transformers model of the form's class, with the weights of `model`.

    model: its layers all have the experts of `spec`, a cut with this native form.
    Raises InputError where the base's attention is none of the class.
    """
    import transformers

    lm = model.lm
    _check_attention(lm.config, form)
    data = {k: v for k, v in lm.config.to_dict().items() if k not in OWN_KEYS}
    cls = getattr(transformers, form.architecture)
    plain = cls(cls.config_class(**data | _experts_config(spec, form, lm.config)))
    own = {name: p for name, p in lm.state_dict().items() if ".mlp." not in name}
    lacks, _ = plain.load_state_dict(own, strict=False)
    assert all(".mlp." in name for name in lacks)
    for to, layer in zip(plain.model.layers, lm.model.layers, strict=True):
        experts = layer.mlp.experts
        router_BD, _ = layer.mlp.selection.linear_router(experts.gates_BGD)
        to.mlp.gate.weight.copy_(router_BD)
        to.mlp.experts.gate_up_proj.copy_(torch.cat((experts.gates_BGD, experts.keys_BGD), 1))
        to.mlp.experts.down_proj.copy_(experts.values_BGD.transpose(1, 2))
        if form.zero_units:
            for p in (*to.mlp.shared_expert.parameters(), to.mlp.shared_expert_gate.weight):
                p.zero_()
    plain.generation_config = lm.generation_config
    return plain.eval()


def _experts_config(spec: FFNSpec, form: NativeForm, config: Any) -> dict[str, Any]:
    routing = form.routing
    alpha = getattr(spec.selection, "balance_weight", 0.0)
    found = {
        "num_experts": spec.n_experts,
        "num_experts_per_tok": routing.k,
        # The classes' loss counts the k choices of a token where ours counts shares.
        "router_aux_loss_coef": alpha / routing.k,
        "sliding_window": getattr(config, "sliding_window", None),
    }
    if form.architecture == "MixtralForCausalLM":
        found["num_local_experts"] = found.pop("num_experts")
        return found | {"intermediate_size": spec.expert_width}
    found |= {
        "moe_intermediate_size": spec.expert_width,
        "norm_topk_prob": routing.normalize,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
    if form.zero_units:
        found |= {"shared_expert_intermediate_size": form.zero_units, "qkv_bias": True}
    return found


def _check_attention(config: Any, form: NativeForm) -> None:
    """What a base may have that its class with experts has not."""
    found = ""
    if form.architecture == "MixtralForCausalLM" and getattr(config, "attention_bias", False):
        found = "biases"
    elif getattr(config, "use_sliding_window", False):
        found = "a sliding window in some layers"
    if found:
        raise InputError(
            f"{form.architecture} computes the same but for the base's attention, which has "
            f"{found}; use --form custom"
        )


@torch.no_grad()
def from_plain(lm: Any, spec: FFNSpec, backbone: Backbone, form: NativeForm) -> PretrainedLM:
    """The cut model that `as_dense` or `as_routed` has written.

    lm: may lend its tensors to the result.
    """
    ffns = cut_ffns(spec, backbone)
    routed = form.routing != EVERY_EXPERT
    for layer, ffn in zip(lm.model.layers, ffns, strict=True):
        (_fill_routed if routed else _fill_dense)(ffn, layer.mlp)
    if routed:
        lm = _family(lm, backbone)
    put_in(lm, ffns)
    return PretrainedLM(lm, backbone)


def _fill_dense(ffn: CutFFN, mlp: Any) -> None:
    down_HD = mlp.down_proj.weight.t()
    _fill(ffn, mlp.gate_proj.weight, mlp.up_proj.weight, down_HD)


def _fill_routed(ffn: CutFFN, mlp: Any) -> None:
    gate_BGD, up_BGD = mlp.experts.gate_up_proj.chunk(2, 1)
    _fill(ffn, gate_BGD, up_BGD, mlp.experts.down_proj.transpose(1, 2))
    assert isinstance(ffn.experts.gates_BGD, Tensor)
    router_BD, _ = ffn.selection.linear_router(ffn.experts.gates_BGD)
    if isinstance(router_BD, nn.Parameter):  # else it is made of the gates
        router_BD.copy_(mlp.gate.weight)


def _fill(ffn: CutFFN, gates: Tensor, keys: Tensor, values: Tensor) -> None:
    experts: Any = ffn.experts
    for own_BGD, given in (
        (experts.gates_BGD, gates),
        (experts.keys_BGD, keys),
        (experts.values_BGD, values),
    ):
        own_BGD.copy_(given.reshape(own_BGD.shape))


def _family(lm: Any, backbone: Backbone) -> Any:
    """The dense class of the base, with all of `lm` but its FFNs."""
    import transformers

    base = backbone.foreign
    assert base is not None and base.family != "ffn_nas"
    cls = getattr(transformers, FAMILIES[base.family])
    data = {k: v for k, v in lm.config.to_dict().items() if k not in OWN_KEYS}
    found = cls(cls.config_class(**data | {"intermediate_size": backbone.reference_d_ff}))
    own = {name: p for name, p in lm.state_dict().items() if ".mlp." not in name}
    found.load_state_dict(own, strict=False)
    found.generation_config = lm.generation_config
    return found
