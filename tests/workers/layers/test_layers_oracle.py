"""Every FFN design against its slow obvious form: outputs, losses and all gradients, in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from oracles import SELECT, ffn

from search_space.methods import names
from search_space.methods.avgk import AvgK
from search_space.methods.dense import Dense
from search_space.methods.direct import Direct
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.layers.ffn import FFN

pytestmark = [pytest.mark.usefixtures("form"), pytest.mark.slow]

D, VOCAB, TOLERANCE = 7, 11, 1e-10

# (d_ff, expert_width, selection): blocks wide and narrow, of odd and prime widths, one and many,
# k of 1 and of all.
SHAPES = [
    (13, 13, Dense()),
    (33, 11, Dense()),
    (6, 3, Dense()),
    (55, 11, TopK(k=1, balance_weight=0.3)),
    (55, 11, TopK(k=2, normalize=True, balance_weight=0.3, z_weight=0.2, entropy_weight=0.4)),
    (27, 9, TopK(k=3, gate="sigmoid", balance_weight=0.3, z_weight=0.2, entropy_weight=0.4)),
    (15, 3, TopK(k=3, gate="sigmoid", normalize=True, bias_rate=0.1)),
    (13, 1, TopK(k=4, bias_rate=0.1)),
    (9, 9, TopK(k=1)),
    (55, 11, Hash(k=1)),
    (15, 3, Hash(k=2)),
    (9, 9, Hash(k=1)),
    (55, 11, AvgK(k=2)),
    (15, 3, AvgK(k=5)),
    (13, 1, AvgK(k=3)),
    (9, 9, AvgK(k=1)),
    (17, 1, Direct(k=5)),
    (5, 1, Direct(k=5)),
    (1, 1, Direct(k=1)),
    (9, 1, ProductKey(heads=2, k=2, key_dim=6)),
    (9, 1, ProductKey(heads=2, k=7, key_dim=4, gate="sigmoid", query_norm="layer")),
    (27, 3, ProductKey(heads=3, k=3, key_dim=2, query_norm="none")),
    (36, 9, ProductKey(heads=2, k=3, key_dim=4, gate="sigmoid")),
    (9, 1, ProductKey(heads=2, k=9, key_dim=6, values="pkm")),
    (16, 1, ProductKey(heads=3, k=3, key_dim=6, values="pkm", gate="sigmoid", query_norm="layer")),
    (1, 1, ProductKey(heads=2, k=1, key_dim=2)),
    (55, 11, StraightThrough(tau=0.5, sparsity_weight=0.7)),
    (15, 3, StraightThrough(tau=0.9, sparsity_weight=0.0)),
    (27, 9, StraightThrough(tau=0.0, renormalize=False)),
    (9, 9, StraightThrough(tau=0.5)),
    (55, 11, ReLURouting(l1_start=0.3)),
    (15, 3, ReLURouting(l1_start=0.3)),
    (9, 9, ReLURouting(l1_start=0.3)),
]


def legal(spec: FFNSpec, **change) -> FFNSpec | None:
    """The changed spec, or None where the space refuses the combination."""
    try:
        return replace(spec, **change)
    except ValueError:
        return None


def designs() -> list[FFNSpec]:
    specs: list[FFNSpec | None] = []
    activations = itertools.cycle(["gelu", "relu", "silu"])
    for d_ff, width, selection in SHAPES:
        plain = FFNSpec(d_ff=d_ff, expert_width=width, selection=selection)
        for gated in (False, True):
            specs.append(legal(plain, gated=gated, activation=next(activations)))
        specs.append(legal(plain, output_gate=True, activation=next(activations)))
        deep = {"d_ff": 2 * d_ff, "depth": 2, "shared_width": 6, "activation": next(activations)}
        specs.append(legal(plain, gated=True, output_gate=True, **deep) or legal(plain, **deep))
    return [spec for spec in specs if spec is not None]


def build(spec: FFNSpec, d_model: int = D, *, seed: int = 0, scale: float = 0.6) -> FFN:
    """A float64 FFN with every parameter and statistic random, so that nothing hides in a zero."""
    torch.manual_seed(seed)
    model = FFN(spec, d_model, VOCAB).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
        for name, buffer in model.named_buffers():
            if name.endswith(("mean_Q", "bias_B")):
                buffer.normal_(std=0.1)
            elif name.endswith("var_Q"):
                buffer.uniform_(0.5, 2.0)
    return model


def assert_close(name: str, got: torch.Tensor | None, want: torch.Tensor | None) -> None:
    """Largest error relative to the largest value; no gradient is a gradient of zero."""
    if got is None or want is None:
        assert all(g is None or not g.detach().any() for g in (got, want)), name
        return
    assert got.shape == want.shape, name
    got, want = got.detach(), want.detach()
    error = float((got - want).abs().max()) / max(float(want.abs().max()), 1e-6)
    assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


def compare(model: FFN, spec: FFNSpec, n_tokens: int, training: bool) -> None:
    """Assert that layer and oracle agree on outputs, loss and the gradients of both."""
    model.train(training)
    d_model = model.layers[0].norm.weight.numel()
    x_TD = torch.randn(n_tokens, d_model, dtype=torch.float64, requires_grad=True)
    ids_T = torch.randint(VOCAB, (n_tokens,))
    cotangent_TD = torch.randn(n_tokens, d_model, dtype=torch.float64)
    # Copied first: a training forward moves the balancing states.
    twin = {k: v.detach().clone() for k, v in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for name in names:
        twin[name].requires_grad_()
    twin_x_TD = x_TD.detach().clone().requires_grad_()

    y_TD, loss = model(x_TD, ids_T)
    want_TD, want_loss = ffn(spec, twin, twin_x_TD, ids_T, training)
    assert_close("output", y_TD, want_TD)
    assert_close("loss", loss, want_loss)
    for output, auxiliary in ((y_TD, loss), (want_TD, want_loss)):
        ((output * cotangent_TD).sum() + (0 if auxiliary is None else auxiliary)).backward()
    assert_close("gradient of x", x_TD.grad, twin_x_TD.grad)
    for name, parameter in model.named_parameters():
        assert_close(f"gradient of {name}", parameter.grad, twin[name].grad)


def test_cases_cover_every_method_and_oracle():
    methods = {spec.method for spec in designs()}
    assert methods == set(names()) == set(SELECT)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("spec", designs(), ids=lambda spec: spec.label)
def test_layer_equals_oracle(spec: FFNSpec, training: bool):
    for n_tokens in (1, 4) if training else (4,):
        compare(build(spec, seed=n_tokens), spec, n_tokens, training)


@pytest.mark.parametrize("d_model", [1, 2, 13])
@pytest.mark.parametrize("selection", [TopK(k=2), Direct(k=2), ProductKey(heads=1, k=2, key_dim=2)])
def test_other_model_widths(selection, d_model: int):
    spec = FFNSpec(d_ff=9, expert_width=1, selection=selection)
    compare(build(spec, d_model), spec, 3, training=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("width", [3, 11])
def test_relu_routing_with_every_gate_shut(width: int, training: bool):
    spec = FFNSpec(d_ff=5 * width, expert_width=width, selection=ReLURouting())
    model = build(spec)
    torch.nn.init.zeros_(model.layers[0].selection.router.weight_BD)
    compare(model, spec, 4, training)
    x_TD = torch.randn(4, D, dtype=torch.float64)
    assert torch.equal(model(x_TD, torch.zeros(4, dtype=torch.long))[0], x_TD)


@pytest.mark.parametrize("training", [True, False])
def test_straight_through_with_every_gate_shut_keeps_the_best(training: bool):
    spec = FFNSpec(d_ff=33, expert_width=11, selection=StraightThrough(tau=0.999))
    model = build(spec, scale=0.1)
    compare(model, spec, 4, training)
    if training:  # mean G(p), and every gate is shut
        _, loss = model(torch.randn(4, D, dtype=torch.float64), torch.zeros(4, dtype=torch.long))
        assert float(loss.detach()) == pytest.approx(0, abs=1e-15)
        loss.backward()
        assert model.layers[0].selection.router.weight_BD.grad.abs().min() > 0


def test_relu_routing_with_one_token_shut_among_open_ones():
    spec = FFNSpec(d_ff=22, expert_width=11, selection=ReLURouting())
    model = build(spec)
    with torch.no_grad():
        model.layers[0].norm.weight.fill_(1.0)
        model.layers[0].selection.router.weight_BD.zero_()
        model.layers[0].selection.router.weight_BD[:, 0] = 1.0
    x_TD = torch.randn(3, D, dtype=torch.float64)
    x_TD[:, 0] = torch.tensor([1.0, -1.0, 1.0])
    y_TD = model(x_TD, torch.zeros(3, dtype=torch.long))[0]
    moved_T = (y_TD - x_TD).abs().sum(1) > 0
    assert moved_T.tolist() == [True, False, True]
