"""The rate along a trunk and on its branch, and where the one leaves the other."""

from __future__ import annotations

import dataclasses
import math

import pytest

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.methods.relu_routing import ReLURouting
from search_space.spec import FFNSpec
from workers.model import ProxyLM
from workers.training.meter import Meter
from workers.training.schedule import Schedule

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=50, seq_len=8)
SPEC = FFNSpec(d_ff=32)
PRICE = step_flops(SPEC, BACKBONE, 8)


def walk(steps, trunk=None, **recipe):
    """The factor of every step of a run to a rung of `steps` steps, and those of its trunk."""
    request = EvalRequest(
        evaluation=0,
        spec=SPEC,
        backbone=BACKBONE,
        recipe=Recipe(**recipe),
        corpus_dir="",
        until_flops=PRICE * steps,
    )
    meter = Meter(ProxyLM(SPEC, BACKBONE), request)
    schedule = Schedule(request, trunk) if trunk else Schedule(request)
    factors, left = [], 0
    while True:
        if not meter.affords_a_step(schedule.level):
            if schedule.left is not None:
                return factors, left
            schedule.leave(meter)
            left = len(factors)
            continue
        factors.append(schedule.factor(len(factors), meter))
        meter.charge()


def test_a_run_warms_up_holds_and_decays():
    factors, left = walk(100, warmup=10, decay=0.2)
    assert left == 80 and len(factors) == 100
    assert factors[:10] == pytest.approx([(step + 0.5) / 10 for step in range(10)])
    assert factors[10:80] == [1.0] * 70
    assert factors[80:] == pytest.approx([1 - math.sqrt((i + 0.5) / 20) for i in range(20)])


def test_the_trunk_knows_no_rung():
    low, left = walk(30.7, warmup=7, decay=0.3)
    high, _ = walk(300, warmup=7, decay=0.3)
    assert left == 21  # 0.7 x 30.7 steps pay for 21
    assert low[:left] == high[:left]
    assert all(a < b for a, b in zip(low[left:], high[left:], strict=False))


def test_the_branch_falls_over_what_is_left_where_it_leaves():
    factors, left = walk(10.5, warmup=0, decay=0.3)
    assert left == 7 and len(factors) == 10
    assert factors[7:] == pytest.approx([1 - math.sqrt((i + 0.5) / 3.5) for i in range(3)])


@pytest.mark.parametrize(("decay", "left"), [(0.0, 20), (1.0, 0), (0.01, 19)])
def test_no_branch_and_nothing_else(decay, left):
    factors, its = walk(20, warmup=4, decay=decay)
    assert (its, len(factors)) == (left, 20)
    if decay == 0:
        assert factors[4:] == [1.0] * 16
    if decay == 1:
        rising = [min(1.0, (i + 0.5) / 4) for i in range(20)]
        falling = [1 - math.sqrt((i + 0.5) / 20) for i in range(20)]
        assert factors == pytest.approx([a * b for a, b in zip(rising, falling, strict=True)])


def test_a_branch_falls_from_where_its_trunk_is():
    factors, left = walk(20, trunk=lambda step: 1 / (1 + step), warmup=2, decay=0.5)
    assert factors[:3] == pytest.approx([0.25, 0.75 / 2, 1 / 3])
    assert factors[left] == pytest.approx((1 - math.sqrt(0.05)) / (1 + left))


def test_a_level_that_a_dear_step_asked_for_is_remembered():
    """A price that falls leaves a run below a level which would not have paid for its steps."""
    spec = FFNSpec(d_ff=64, expert_width=16, selection=ReLURouting())
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=BACKBONE,
        recipe=Recipe(),
        corpus_dir="",
        until_flops=1e12,
    )
    meter = Meter(ProxyLM(spec, BACKBONE), request)
    (layer,) = meter.adaptive
    layer.training_activity = 1.0
    meter.charge()
    dear = meter.price
    layer.training_activity = 0.1
    meter.charge()
    assert meter.price < dear
    assert meter.asked == 2 * dear > meter.spent == dear + meter.price
    again = Meter(ProxyLM(spec, BACKBONE), dataclasses.replace(request))
    again.carry(meter.carried())
    assert (again.spent, again.price, again.asked) == (meter.spent, meter.price, meter.asked)
