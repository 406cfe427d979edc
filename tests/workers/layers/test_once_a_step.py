"""Balancing biases, penalties and running statistics move once an optimizer step.

Whatever is run in between: parts of a batch, forwards that are computed again, evaluations.
"""

from __future__ import annotations

import functools
import gc
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.rates import Rates
from search_space.spec import FFNSpec
from workers.layers.query_norm import pooled
from workers.model import ProxyLM
from workers.training.optimizers import Optimizers

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=50, seq_len=8)
SPECS = {
    "bias": FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1, bias_rate=0.25)),
    "penalty": FFNSpec(
        d_ff=64, expert_width=16, depth=2, selection=ReLURouting(l1_start=0.5, target_activity=0.3)
    ),
    "statistics": FFNSpec(d_ff=64, expert_width=4, selection=ProductKey(heads=2, k=2, key_dim=4)),
}
MOVING = ("bias_B", "l1_coefficient", "mean_Q", "var_Q")
by_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def build(spec: FFNSpec) -> ProxyLM:
    torch.manual_seed(0)
    model = ProxyLM(spec, BACKBONE).train()
    with torch.no_grad():  # values start at zero, and would give routers no gradient
        for name, p in model.named_parameters():
            if name.endswith("values_BGD"):
                p.normal_(std=0.1)
    return model


def moving(model: ProxyLM) -> dict[str, torch.Tensor]:
    """What a step moves, and the activity that prices the next one."""
    found = {n: b.clone() for n, b in model.named_buffers() if n.rsplit(".", 1)[-1] in MOVING}
    for name, module in model.named_modules():
        activity = getattr(module, "training_activity", None)
        if activity is not None:
            found[f"{name}.activity"] = torch.tensor(float(activity))
    return found


def batch(n: int = 4) -> torch.Tensor:
    return torch.randint(50, (n, 8), generator=torch.Generator().manual_seed(1))


def loss_of(model: ProxyLM, ids_NL: torch.Tensor) -> torch.Tensor:
    out = model(ids_NL)
    loss = F.cross_entropy(model.logits(out.hidden_NLD).flatten(0, 1), ids_NL.flatten())
    return loss if out.aux_loss is None else loss + out.aux_loss


def assert_same(one: dict, other: dict, **tolerance) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def assert_moved(before: dict, after: dict) -> None:
    assert any(not torch.equal(value, after[name]) for name, value in before.items())


def one_step(spec: FFNSpec) -> dict:
    """What one forward, backward and step leave."""
    model = build(spec)
    before = moving(model)
    loss_of(model, batch()).backward()
    assert_same(moving(model), before)
    model.after_step()
    assert_moved(before, moving(model))
    return moving(model)


@by_spec
def test_a_batch_in_parts_moves_as_the_whole_does(spec):
    """The parts' activations are the whole's in the first layer, and for biases in all."""
    model = build(spec)
    for part_NL in batch().split([1, 3]):
        loss_of(model, part_NL).backward()
    model.after_step()
    first = {n: v for n, v in one_step(spec).items() if ".0.ffn.layers.0." in n}
    parts = {n: v for n, v in moving(model).items() if n in first}
    assert_same(parts, first, rtol=1e-5, atol=1e-6)
    again = moving(model)
    model.after_step()  # nothing was learned since
    assert_same(moving(model), again)


@by_spec
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_forward_that_is_computed_again_counts_once(spec, reentrant):
    model = build(spec)
    for layer in model.layers:
        layer.ffn.apart = functools.partial(checkpoint, layer.ffn.apart, use_reentrant=reentrant)
    loss_of(model, batch()).backward()
    model.after_step()
    assert_same(moving(model), one_step(spec))


@by_spec
def test_a_graph_that_is_walked_twice_counts_once(spec):
    model = build(spec)
    loss = loss_of(model, batch())
    loss.backward(retain_graph=True)
    loss.backward()
    model.after_step()
    assert_same(moving(model), one_step(spec))


@by_spec
def test_evaluation_inside_training_moves_nothing(spec):
    model = build(spec)
    other_NL = batch(3).flip(1)
    loss_of(model, batch()).backward()
    with torch.no_grad():
        loss_of(model, other_NL)
    loss_of(model, other_NL)  # with a graph that nobody walks
    model.eval()
    loss_of(model, other_NL).backward()
    model.train().after_step()
    assert_same(moving(model), one_step(spec))


@by_spec
@pytest.mark.parametrize("fused", [False, True])
def test_any_torch_optimizer_settles_at_its_step(spec, fused):
    """A loop that knows of nothing, with parts of a batch and an evaluation after the last step."""
    model, expected = build(spec), build(spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
    expected_state: dict = {}
    for _ in range(3):
        expected.load_state_dict(model.state_dict())
        for part_NL in batch().split(2):
            loss_of(model, part_NL).backward()
            loss_of(expected, part_NL).backward()
        expected.after_step()
        expected_state = moving(expected)
        optimizer.step()
        assert_same(moving(model), expected_state)
        optimizer.zero_grad()
        model.after_step()  # which it has had
        assert_same(moving(model), expected_state)
    assert_moved(moving(build(spec)), expected_state)


@by_spec
def test_our_optimizers_settle_once_a_step(spec):
    """Muon and AdamW are two of torch's optimizers, and one step."""
    model = build(spec)
    optimizers = Optimizers(model, Recipe(), Rates(0.007, 0.01), lr_multiplier=1.0)
    loss_of(model, batch()).backward()
    optimizers.step(1.0)
    assert_same(moving(model), one_step(spec))


def test_the_step_of_another_model_settles_nothing():
    model, other = build(SPECS["bias"]), build(SPECS["bias"])
    before = moving(model)
    loss_of(model, batch()).backward()
    loss_of(other, batch()).backward()
    torch.optim.SGD(other.parameters(), lr=1e-2).step()
    assert_same(moving(model), before)
    assert_moved(before, moving(other))


def test_a_model_that_was_watched_can_go():
    model = build(SPECS["bias"])
    loss_of(model, batch()).backward()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_biases_move_by_the_loads_of_all_parts():
    """Two parts that each overload another expert overload none."""
    selection = build(SPECS["bias"]).layers[0].ffn.layers[0].selection
    with torch.no_grad():
        selection.router.weight_BD.zero_()
        selection.router.weight_BD[:, :4] = torch.eye(4)
    x_TD = torch.eye(4).repeat(1, 4)[:, :16]  # token i picks expert i
    ids_T = torch.zeros(2, dtype=torch.long)
    for part_TD in (x_TD[:2], x_TD[2:]):
        selection(part_TD, ids_T, None).routing.weight_P.sum().backward()
    selection.settle([selection])
    assert selection.bias_B.tolist() == [0.0] * 4


def test_layers_share_one_penalty_and_divide_the_activity():
    model = build(SPECS["penalty"])
    selections = [sub.selection for layer in model.layers for sub in layer.ffn.layers]
    with torch.no_grad():  # one layer with all gates shut, three with half of them: 0.375 > 0.3
        selections[0].router.weight_BD.zero_()
    loss_of(model, batch()).backward()
    model.after_step()
    shares = [selection.training_activity for selection in selections]
    assert shares[0] == 0 and min(shares[1:]) > 0.3
    assert sum(shares) / 4 > 0.3
    assert [float(s.l1_coefficient) for s in selections] == pytest.approx([0.5 * 1.2] * 4)


def test_statistics_of_parts_are_those_of_the_whole():
    x_TQ = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 3 + 5
    parts = [(len(part), part.mean(0), part.var(0)) for part in x_TQ.split([2, 30, 18])]
    mean_Q, var_Q = pooled(parts)
    torch.testing.assert_close(mean_Q, x_TQ.mean(0))
    torch.testing.assert_close(var_Q, x_TQ.var(0))


@pytest.mark.parametrize(
    ("l1_start", "warmup", "want"),
    [(1e-8, 20, 1.2**-20), (0.5, 20, 0.5), (1e-8, 200, 1e-8), (1e-8, 0, 1.0)],
)
def test_a_run_starts_where_its_warmup_leads_to_one(l1_start, warmup, want):
    spec = FFNSpec(d_ff=64, expert_width=16, selection=ReLURouting(l1_start=l1_start))
    model = ProxyLM(spec, BACKBONE)
    selection = model.layers[1].ffn.layers[0].selection
    assert float(selection.l1_coefficient) == pytest.approx(l1_start)
    model.begin_run(warmup)
    assert float(selection.l1_coefficient) == pytest.approx(want)
    assert math.isfinite(selection.l1_coefficient)
