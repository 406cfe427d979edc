"""Our layers against other people's code with the same weights, in float32."""

from __future__ import annotations

import pytest
import torch
from PEER_pytorch import PEER
from torch import nn
from transformers import DeepseekV3Config, MixtralConfig, OlmoeConfig, SwitchTransformersConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersSparseMLP,
)

from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.layers.ffn import FFN, SubLayer
from workers.layers.routing import Full

D, WIDTH, B, T = 24, 20, 6, 50
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def randomise(module: nn.Module) -> None:
    torch.manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


def ours(spec: FFNSpec) -> SubLayer:
    """One sub-layer in evaluation mode."""
    return FFN(spec, D, 4).eval().layers[0]


def branch(layer: SubLayer, x_TD: torch.Tensor) -> torch.Tensor:
    """What the layer adds to the residual stream, for an input that is already normalised."""
    routing = layer.selection(x_TD, torch.zeros(len(x_TD), dtype=torch.long), layer.experts).routing
    y_TD = layer.experts(x_TD, routing)
    return y_TD if layer.shared is None else y_TD + layer.shared(x_TD, Full())


def copy_gated(layer: SubLayer, router: nn.Module, experts: nn.Module) -> None:
    """gate_up_proj stacks gates over keys; down_proj is the transposed values."""
    gates_BGD, keys_BGD = experts.gate_up_proj.data.chunk(2, dim=1)
    layer.selection.router.weight_BD.data.copy_(router.weight)
    layer.experts.gates_BGD.data.copy_(gates_BGD)
    layer.experts.keys_BGD.data.copy_(keys_BGD)
    layer.experts.values_BGD.data.copy_(experts.down_proj.data.transpose(1, 2))


def gated_spec(selection, **options) -> FFNSpec:
    return FFNSpec(
        d_ff=B * WIDTH,
        expert_width=WIDTH,
        activation="silu",
        gated=True,
        selection=selection,
        **options,
    )


def assert_same(layer: SubLayer, theirs: nn.Module) -> None:
    x_TD = torch.randn(T, D)
    with torch.no_grad():
        want_TD = theirs(x_TD[None])[0]
        assert float(want_TD.abs().max()) > 0.1
        torch.testing.assert_close(branch(layer, x_TD), want_TD, **TOLERANCE)


def test_mixtral():
    theirs = MixtralSparseMoeBlock(
        MixtralConfig(
            hidden_size=D, intermediate_size=WIDTH, num_local_experts=B, num_experts_per_tok=2
        )
    ).eval()
    randomise(theirs)
    layer = ours(gated_spec(TopK(k=2, normalize=True)))
    copy_gated(layer, theirs.gate, theirs.experts)
    assert_same(layer, theirs)


@pytest.mark.parametrize("normalize", [False, True])
def test_olmoe(normalize: bool):
    theirs = OlmoeSparseMoeBlock(
        OlmoeConfig(
            hidden_size=D,
            intermediate_size=WIDTH,
            num_experts=B,
            num_experts_per_tok=3,
            norm_topk_prob=normalize,
        )
    ).eval()
    randomise(theirs)
    layer = ours(gated_spec(TopK(k=3, normalize=normalize)))
    copy_gated(layer, theirs.gate, theirs.experts)
    assert_same(layer, theirs)


def test_deepseek_v3():
    theirs = DeepseekV3MoE(
        DeepseekV3Config(
            hidden_size=D,
            moe_intermediate_size=WIDTH,
            n_routed_experts=B,
            n_shared_experts=2,
            num_experts_per_tok=3,
            n_group=1,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.0,
        )
    ).eval()
    randomise(theirs)
    theirs.gate.e_score_correction_bias.normal_(std=0.3)
    selection = TopK(k=3, gate="sigmoid", normalize=True, bias_rate=0.001)
    layer = ours(gated_spec(selection, shared_width=2 * WIDTH))
    copy_gated(layer, theirs.gate, theirs.experts)
    layer.selection.bias_B.copy_(theirs.gate.e_score_correction_bias)
    shared = theirs.shared_experts
    layer.shared.gates_BGD.data.copy_(shared.gate_proj.weight[None])
    layer.shared.keys_BGD.data.copy_(shared.up_proj.weight[None])
    layer.shared.values_BGD.data.copy_(shared.down_proj.weight.t()[None])
    assert_same(layer, theirs)


def test_switch():
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(d_model=D, d_ff=WIDTH, num_experts=B, expert_capacity=T)
    ).eval()
    randomise(theirs)
    spec = FFNSpec(d_ff=B * WIDTH, expert_width=WIDTH, activation="relu", selection=TopK(k=1))
    layer = ours(spec)
    layer.selection.router.weight_BD.data.copy_(theirs.router.classifier.weight)
    for b in range(B):
        expert = theirs.experts[f"expert_{b}"]
        layer.experts.keys_BGD.data[b].copy_(expert.wi.weight)
        layer.experts.values_BGD.data[b].copy_(expert.wo.weight.t())
    assert_same(layer, theirs)


@pytest.mark.parametrize("gate", ["softmax", "sigmoid"])
def test_peer(gate: str):
    heads, root, half, k = 3, 5, 6, 4
    theirs = PEER(
        D,
        heads=heads,
        num_experts=root**2,
        num_experts_per_head=k,
        dim_key=half,
        non_competing_scores=False,
    ).eval()
    randomise(theirs)
    if gate == "sigmoid":
        theirs.score_activation = nn.Sigmoid()
    knobs = ProductKey(heads=heads, k=k, key_dim=2 * half, gate=gate, query_norm="none")
    layer = ours(FFNSpec(d_ff=root**2, expert_width=1, selection=knobs))
    # Theirs: queries (half, head, feature), sub-keys (head, key, half, feature).
    query = theirs.to_queries[0].weight.data.view(2, heads, half, D)
    layer.selection.query_HCD.data.copy_(query.transpose(0, 1).reshape(heads, 2 * half, D))
    layer.selection.sub_keys_H2RC.data.copy_(theirs.keys.data.transpose(1, 2))
    layer.experts.keys_BGD.data.copy_(theirs.weight_down_embed.weight.data[:, None])
    layer.experts.values_BGD.data.copy_(theirs.weight_up_embed.weight.data[:, None])
    assert_same(layer, theirs)
