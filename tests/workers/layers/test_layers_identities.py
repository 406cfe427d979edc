"""Designs that must be one function, and the states that training moves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_layers_oracle import build

from search_space.methods.avgk import AvgK
from search_space.methods.direct import Direct
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.layers.experts import Experts
from workers.layers.ffn import FFN
from workers.layers.routing import Bags, Full, Ragged
from workers.layers.steps import after_step

pytestmark = pytest.mark.slow

D, T = 7, 6


def tokens(n: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(9)
    return torch.randn(n, D, dtype=torch.float64), torch.zeros(n, dtype=torch.long)


def blocks_of(spec: FFNSpec, *, seed: int = 3) -> Experts:
    return build(spec, seed=seed).layers[0].experts


@pytest.mark.parametrize("gated", [False, True])
def test_blocks_of_a_dense_ffn_sum_to_it(gated: bool):
    whole = build(FFNSpec(d_ff=24, gated=gated)).eval()
    cut = build(FFNSpec(d_ff=24, expert_width=4, gated=gated)).eval()
    for name in ("keys_BGD", "values_BGD") + (("gates_BGD",) if gated else ()):
        getattr(cut.layers[0].experts, name).data = getattr(
            whole.layers[0].experts, name
        ).data.view(6, 4, D)
    cut.layers[0].norm.weight.data = whole.layers[0].norm.weight.data
    x_TD, ids_T = tokens()
    torch.testing.assert_close(cut(x_TD, ids_T)[0], whole(x_TD, ids_T)[0])


@pytest.mark.parametrize(("width", "gated"), [(1, False), (4, True), (11, False)])
def test_every_layout_of_all_pairs_is_dense(width: int, gated: bool):
    experts = blocks_of(FFNSpec(d_ff=5 * width, expert_width=width, gated=gated))
    x_TD, _ = tokens()
    every_TK = torch.arange(5).expand(T, 5)
    dense_TD = experts(x_TD, Full())
    for routing in (
        Ragged.from_choices(every_TK, None, 5),
        Bags.from_choices(every_TK, None),
        Bags.from_choices(every_TK, None).by_expert(5),
        Ragged.from_choices(every_TK, None, 5).by_token(T),
        Ragged.from_open(torch.ones(T, 5), torch.ones(T, 5, dtype=torch.bool)),
    ):
        torch.testing.assert_close(experts(x_TD, routing), dense_TD)


@pytest.mark.parametrize(
    ("width", "selection"), [(11, AvgK(k=5)), (3, AvgK(k=5)), (1, Direct(k=5))]
)
def test_selection_of_all_blocks_with_weight_one_is_dense(width: int, selection):
    spec = FFNSpec(d_ff=5 * width, expert_width=width, selection=selection)
    sparse = build(spec)
    dense = build(FFNSpec(d_ff=5 * width, expert_width=width))
    dense.load_state_dict(sparse.state_dict())
    x_TD, ids_T = tokens()
    torch.testing.assert_close(sparse(x_TD, ids_T)[0], dense(x_TD, ids_T)[0])


def test_topk_of_all_experts_with_unit_weights_is_dense():
    # Equal logits weigh each of B experts 1 / B under softmax; values B times as large undo it.
    spec = FFNSpec(d_ff=33, expert_width=11, selection=TopK(k=3))
    sparse, dense = build(spec), build(FFNSpec(d_ff=33, expert_width=11))
    layer = sparse.layers[0]
    layer.selection.router.weight_BD.data.zero_()
    dense.load_state_dict({k: v for k, v in sparse.state_dict().items() if "selection" not in k})
    layer.experts.values_BGD.data.mul_(3)
    x_TD, ids_T = tokens()
    torch.testing.assert_close(sparse(x_TD, ids_T)[0], dense(x_TD, ids_T)[0])


def test_finedeep_of_one_layer_with_constant_gates_is_dense():
    deep = build(FFNSpec(d_ff=24, expert_width=8, output_gate=True))
    dense = build(FFNSpec(d_ff=24, expert_width=8))
    state = deep.state_dict()
    del state["layers.0.experts.output_gate_BD"]
    dense.load_state_dict(state)
    x_TD, ids_T = tokens()
    assert not torch.allclose(deep(x_TD, ids_T)[0], dense(x_TD, ids_T)[0])
    # A score of zero is a gate of one half; values twice as large undo it.
    deep.layers[0].experts.output_gate_BD.data.zero_()
    deep.layers[0].experts.values_BGD.data.mul_(2)
    torch.testing.assert_close(deep(x_TD, ids_T)[0], dense(x_TD, ids_T)[0])


@pytest.mark.parametrize("training", [True, False])
def test_straight_through_without_a_threshold_is_the_weighted_sum(training: bool):
    knobs = StraightThrough(tau=0.0, renormalize=False)
    model = build(FFNSpec(d_ff=33, expert_width=11, selection=knobs)).train(training)
    layer = model.layers[0]
    x_TD, ids_T = tokens()
    n_TD = layer.norm(x_TD)
    p_TB = layer.selection.router(n_TD).sigmoid()
    want_TD = x_TD.clone()
    for b in range(3):
        keys_GD, values_GD = layer.experts.keys_BGD[b], layer.experts.values_BGD[b]
        want_TD = want_TD + p_TB[:, b, None] * (F.gelu(n_TD @ keys_GD.t()) @ values_GD)
    torch.testing.assert_close(model(x_TD, ids_T)[0], want_TD)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("gate", "scale"), [("sigmoid", 2), ("softmax", 16)])
def test_peer_that_reads_every_expert_with_equal_weights_is_dense(gate, scale, gated: bool):
    knobs = ProductKey(heads=1, k=16, key_dim=4, gate=gate)
    peer = build(FFNSpec(d_ff=16, expert_width=1, selection=knobs, gated=gated))
    dense = build(FFNSpec(d_ff=16, expert_width=1, gated=gated))
    dense.load_state_dict({k: v for k, v in peer.state_dict().items() if "selection" not in k})
    x_TD, ids_T = tokens()
    # Sub-keys of zero weigh each expert 1 / scale.
    peer.layers[0].selection.sub_keys_H2RC.data.zero_()
    peer.layers[0].experts.values_BGD.data.mul_(scale)
    torch.testing.assert_close(peer(x_TD, ids_T)[0], dense(x_TD, ids_T)[0])


@pytest.mark.parametrize("gated", [False, True])
def test_avgk_of_single_units_is_direct_selection(gated: bool):
    avgk = build(FFNSpec(d_ff=13, expert_width=1, gated=gated, selection=AvgK(k=4)))
    direct = build(FFNSpec(d_ff=13, expert_width=1, gated=gated, selection=Direct(k=4)))
    direct.load_state_dict(avgk.state_dict())
    x_TD, ids_T = tokens()
    torch.testing.assert_close(avgk(x_TD, ids_T)[0], direct(x_TD, ids_T)[0])


def test_avgk_follows_the_live_weights():
    model = build(FFNSpec(d_ff=44, expert_width=11, selection=AvgK(k=1))).eval()
    layer = model.layers[0]
    x_TD, ids_T = tokens()

    def chosen() -> list[int]:
        return layer.selection(layer.norm(x_TD), ids_T, layer.experts).routing.counts

    with torch.no_grad():
        layer.experts.keys_BGD.copy_(layer.experts.keys_BGD[[1, 2, 3, 0]])
    after = chosen()
    with torch.no_grad():
        layer.experts.keys_BGD.copy_(layer.experts.keys_BGD[[3, 0, 1, 2]])
    before = chosen()
    assert after == before[1:] + before[:1]
    assert len(set(before)) > 1


def learn(model: FFN, x_TD: torch.Tensor, ids_T: torch.Tensor) -> None:
    """An optimizer step, as far as the layers' states go."""
    y_TD, loss = model(x_TD, ids_T)
    (y_TD.sum() + (0 if loss is None else loss)).backward()
    after_step(model)


def test_relu_penalty_follows_the_activity():
    spec = FFNSpec(d_ff=88, expert_width=11, selection=ReLURouting(target_activity=0.25))
    model = build(spec)
    selection = model.layers[0].selection
    x_TD, ids_T = tokens(64)
    start = float(selection.l1_coefficient)
    model.eval()
    learn(model, x_TD, ids_T)
    assert float(selection.l1_coefficient) == start
    model.train()
    learn(model, x_TD, ids_T)  # about half of the gates are open at random weights
    assert float(selection.l1_coefficient) == pytest.approx(1.2 * start)
    selection.router.weight_BD.data.zero_()  # none are
    for _ in range(2):
        learn(model, x_TD, ids_T)
    assert float(selection.l1_coefficient) == pytest.approx(start / 1.2)
    assert "layers.0.selection.l1_coefficient" in model.state_dict()


def test_relu_penalty_stays_a_number_however_long_it_moves_one_way():
    spec = FFNSpec(d_ff=8, expert_width=8, selection=ReLURouting(l1_factor=1e9))
    model = FFN(spec, D, 4).train()
    model.layers[0].selection.router.weight_BD.data.zero_()
    x_TD, ids_T = tokens()
    for _ in range(20):
        learn(model, x_TD.float(), ids_T)
    assert float(model.layers[0].selection.l1_coefficient) > 0


def test_bias_balancing_pulls_the_choice_and_not_the_weights():
    spec = FFNSpec(d_ff=33, expert_width=11, selection=TopK(k=1, bias_rate=0.5))
    selection = build(spec).layers[0].selection
    selection.bias_B.zero_()
    x_TD, ids_T = tokens(30)
    routing = selection(x_TD, ids_T, None).routing
    counts = routing.counts
    assert not selection.bias_B.any()
    routing.weight_P.sum().backward()
    after_step(selection)
    want = [-0.5 * ((c > 10) - (c < 10)) for c in counts]
    assert selection.bias_B.tolist() == want
    selection.bias_B.copy_(torch.tensor([0.0, 0.0, 9.0]))
    routing = selection.eval()(x_TD, ids_T, None).routing
    assert routing.counts == [0, 0, 30]
    p_TB = selection.router(x_TD).softmax(1)
    torch.testing.assert_close(routing.weight_P, p_TB[:, 2])


def test_batch_norm_of_queries_keeps_running_statistics():
    spec = FFNSpec(d_ff=9, expert_width=1, selection=ProductKey(heads=2, k=2, key_dim=4))
    layer = FFN(spec, D, 4).double().layers[0]
    x_TD, ids_T = tokens(50)
    query_TQ = F.linear(x_TD, layer.selection.query_HCD.flatten(0, 1))
    norm = layer.selection.norm
    layer.train().selection(x_TD, ids_T, layer.experts).routing.weight_TK.sum().backward()
    assert not norm.mean_Q.any()
    after_step(layer)
    torch.testing.assert_close(norm.mean_Q, 0.1 * query_TQ.mean(0))
    torch.testing.assert_close(norm.var_Q, 0.9 + 0.1 * query_TQ.var(0))
    kept = norm.mean_Q.clone()
    one = layer.selection(x_TD[:1], ids_T[:1], layer.experts)  # one token has no variance
    one.routing.weight_TK.sum().backward()
    layer.eval().selection(x_TD, ids_T, layer.experts).routing.weight_TK.sum().backward()
    after_step(layer)
    assert torch.equal(norm.mean_Q, kept)


@pytest.mark.parametrize("gated", [False, True])
def test_a_dense_ffn_and_one_of_two_parts_are_one_function(gated: bool):
    whole = build(FFNSpec(d_ff=24, gated=gated))
    parts = build(FFNSpec(d_ff=16, shared_width=8, gated=gated))
    layer, other = whole.layers[0], parts.layers[0]
    other.norm.weight.data = layer.norm.weight.data
    for name in ("keys_BGD", "values_BGD") + (("gates_BGD",) if gated else ()):
        first, second = getattr(layer.experts, name).data.split([16, 8], dim=1)
        getattr(other.experts, name).data = first
        getattr(other.shared, name).data = second
    x_TD, ids_T = tokens()
    torch.testing.assert_close(parts(x_TD, ids_T)[0], whole(x_TD, ids_T)[0])


@pytest.mark.parametrize("width", [8, 64])
def test_two_parts_start_in_one_distribution(width: int):
    """The keys' deviation is a matter of the model's width alone, and values start at zero."""
    torch.manual_seed(0)
    layer = FFN(FFNSpec(d_ff=width, shared_width=width), 256, 4).layers[0]
    for part in (layer.experts, layer.shared):
        assert float(part.keys_BGD.detach().std()) == pytest.approx(1 / 16, rel=0.1)
        assert not part.values_BGD.any()
