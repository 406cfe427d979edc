"""A trained proxy as one of transformers' own classes: the same function in their tensors.

Three things of the proxy are folded into weights. Its normed embedding becomes the input table,
whose rows are normed, and the head keeps the raw one. Its sharper attention, 12 / C in place of
1 / sqrt(C) for heads C wide, becomes a factor of the queries' gain. And where a class always has a
shared expert, as wide as one or more of the others, units of zeros fill it up.

D model width, V vocabulary, B experts, G units of an expert, U units of all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models.custom import SHARD
from search_space.backbone import Backbone
from search_space.native import DENSE, SIGMOID, NativeForm
from search_space.spec import FFNSpec

if TYPE_CHECKING:
    from torch import Tensor


def native_model(
    proxy: Any, spec: FFNSpec, backbone: Backbone, form: NativeForm, ends: dict[str, int]
) -> Any:
    """The class of `form`, in evaluation mode, with the proxy's function.

    proxy: a `ProxyLM` of `spec` and `backbone`.
    ends: `eos_token_id` and `pad_token_id`.
    """
    import transformers

    from workers.kernels.api.rms_norm import EPS

    cls = getattr(transformers, form.architecture)
    config = cls.config_class(
        **_backbone_config(backbone), **_ffn_config(spec, form), **ends, rms_norm_eps=EPS
    )
    model = cls(config).eval()
    model.load_state_dict(tensors_of(proxy, form))
    model.generation_config = transformers.GenerationConfig(**ends)
    return model


def save_native(model: Any, folder: Path) -> None:
    """Write the model as its class's published checkpoints lie on disk: experts one by one."""
    model.save_pretrained(folder, max_shard_size=SHARD)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    # transformers 5 has other names for these two than the engines' loaders of before it.
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    if "num_local_experts" in config:
        config["num_experts"] = config["num_local_experts"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _backbone_config(backbone: Backbone) -> dict[str, Any]:
    return {
        "hidden_size": backbone.d_model,
        "num_hidden_layers": backbone.n_layers,
        "num_attention_heads": backbone.n_heads,
        "num_key_value_heads": backbone.n_heads,
        "head_dim": backbone.head_dim,
        "vocab_size": backbone.vocab_size,
        "max_position_embeddings": backbone.seq_len,
        "rope_parameters": {"rope_type": "default", "rope_theta": backbone.rope_theta},
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "dtype": "float32",
        "layer_types": ["full_attention"] * backbone.n_layers,
    }


def _ffn_config(spec: FFNSpec, form: NativeForm) -> dict[str, Any]:
    routing = form.routing
    if form.architecture == DENSE:
        return {"intermediate_size": spec.d_ff + spec.shared_width}
    experts = {
        "moe_intermediate_size": spec.expert_width,
        "intermediate_size": spec.expert_width,  # of dense layers, of which there are none
        "num_experts_per_tok": routing.k,
        "norm_topk_prob": routing.normalize,
    }
    if form.architecture != SIGMOID:
        # Its loss counts the k choices of a token where ours counts shares.
        alpha = getattr(spec.selection, "balance_weight", 0.0)
        return experts | {"num_experts": spec.n_experts, "router_aux_loss_coef": alpha / routing.k}
    return experts | {
        "n_routed_experts": spec.n_experts,
        "n_shared_experts": (spec.shared_width + form.zero_units) // spec.expert_width,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 0,
        "sliding_window": None,
        # Of transformers' class these are the code; vLLM's and llama.cpp's read them.
        "moe_layer_freq": 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def tensors_of(proxy: Any, form: NativeForm) -> dict[str, Tensor]:
    """All weights and buffers by the class's names."""
    import torch
    import torch.nn.functional as F

    from workers.kernels.api.rms_norm import EPS

    with torch.no_grad():
        embed_VD = proxy.embed.weight
        found = {
            "model.embed_tokens.weight": F.rms_norm(embed_VD, embed_VD.shape[1:], eps=EPS),
            "model.norm.weight": proxy.norm.weight,
            "lm_head.weight": embed_VD,
        }
        for number, layer in enumerate(proxy.layers):
            own = _attention(layer.attention) | _ffn(layer.ffn.layers[0], form)
            found |= {f"model.layers.{number}.{name}": tensor for name, tensor in own.items()}
    return found


def sharper(head_dim: int) -> float:
    """What the proxy's scores are of the class's, whose heads are so wide."""
    from workers.model import SHARPEST_SCORE

    return SHARPEST_SCORE / math.sqrt(head_dim)


def _attention(attention: Any) -> dict[str, Tensor]:
    q_DD, k_DD, v_DD = attention.qkv_3DD
    return {
        "input_layernorm.weight": attention.norm.weight,
        "self_attn.q_proj.weight": q_DD,
        "self_attn.k_proj.weight": k_DD,
        "self_attn.v_proj.weight": v_DD,
        "self_attn.o_proj.weight": attention.out_DD,
        "self_attn.q_norm.weight": attention.q_norm.weight * sharper(attention.head_dim),
        "self_attn.k_norm.weight": attention.k_norm.weight,
    }


def _ffn(layer: Any, form: NativeForm) -> dict[str, Tensor]:
    import torch

    found = {"post_attention_layernorm.weight": layer.norm.weight}
    experts, shared = layer.experts, [] if layer.shared is None else [layer.shared]
    if form.architecture == DENSE:
        return found | _one_ffn("mlp.", [experts, *shared])
    router_BD, bias_B = layer.selection.linear_router(experts.gates_BGD)
    found |= {
        "mlp.gate.weight": router_BD,
        "mlp.experts.gate_up_proj": torch.cat((experts.gates_BGD, experts.keys_BGD), 1),
        "mlp.experts.down_proj": experts.values_BGD.transpose(1, 2),
    }
    if form.architecture == SIGMOID:
        found["mlp.gate.e_score_correction_bias"] = bias_B
        zeros = experts.keys_BGD.new_zeros(form.zero_units, experts.keys_BGD.shape[2])
        found |= _one_ffn("mlp.shared_experts.", shared, [zeros])
    return found


def _one_ffn(prefix: str, parts: list[Any], zeros_UD: Sequence[Tensor] = ()) -> dict[str, Tensor]:
    """Experts of weight 1 side by side, and units of zeros, as one gated FFN."""
    import torch

    gates = [part.gates_BGD.flatten(0, 1) for part in parts]
    keys = [part.keys_BGD.flatten(0, 1) for part in parts]
    values = [part.values_BGD.flatten(0, 1) for part in parts]
    return {
        f"{prefix}gate_proj.weight": torch.cat([*gates, *zeros_UD]),
        f"{prefix}up_proj.weight": torch.cat([*keys, *zeros_UD]),
        f"{prefix}down_proj.weight": torch.cat([*values, *zeros_UD]).t(),
    }
