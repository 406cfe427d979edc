"""A GPU's losses and activities are asked for where somebody wants them, and are the CPU's then."""

from __future__ import annotations

import math

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.methods.relu_routing import ReLURouting
from search_space.spec import FFNSpec
from workers.kernels.place import as_on
from workers.model import ProxyLM
from workers.training.losses import Diverged, Losses
from workers.training.meter import Meter

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=50, seq_len=8)
SPEC = FFNSpec(d_ff=64, expert_width=16, selection=ReLURouting())
STEPS = 40


def test_a_gpus_losses_add_up_to_the_cpus():
    ours, theirs = Losses(), Losses()
    for step, loss in enumerate(torch.rand(7)):
        theirs.add(loss, step)
        with as_on("cuda"):
            ours.add(loss, step)
    assert ours.sum() == theirs.sum() == theirs.total
    ours.begin(2.5, 3)
    assert ours.sum() == 2.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gpu_tells_of_the_first_loss_that_was_no_number(value):
    losses = Losses()
    for step, loss in enumerate([1.0, 2.0, value, math.nan], start=11):
        with as_on("cuda"):
            losses.add(torch.tensor(loss), step)
        losses.counted(step)
    with pytest.raises(Diverged, match=f"the loss is {value} at step 13"):
        losses.sum()


def test_a_cpu_tells_at_once():
    with pytest.raises(Diverged, match="the loss is nan at step 3"):
        Losses().add(torch.tensor(math.nan), 3)


def meter(until: float) -> tuple[Meter, list]:
    model = ProxyLM(SPEC, BACKBONE)
    request = EvalRequest(
        evaluation=1,
        spec=SPEC,
        backbone=BACKBONE,
        recipe=Recipe(batch_size=2),
        corpus_dir="",
        until_flops=until,
    )
    made = Meter(model, request)
    return made, made.adaptive


def spend(kind: str, until: float, stop: int = 1 << 30, state=None) -> tuple[Meter, int, int]:
    """Steps of drawn activities up to a level; the meter, the steps and how often it was asked."""
    made, layers = meter(until)
    generator, steps, asked = torch.Generator().manual_seed(3), 0, 0
    activities = torch.rand(1000, generator=generator, dtype=torch.float64)
    if state is not None:
        made.carry(state[0])
        steps = state[1]
    with as_on(kind):
        while steps < stop and made.affords_a_step(until):
            for layer in layers:
                layer.training_activity = activities[steps]
            before = made.noted.count
            made.note()
            made.charge()
            asked += made.noted.count <= before
            steps += 1
    return made, steps, asked


def test_a_gpus_meter_stops_where_a_cpus_does_and_knows_what_was_spent():
    until = STEPS * step_flops(SPEC, BACKBONE, 2)
    on_cpu, steps, _ = spend("cpu", until)
    on_gpu, same, asked = spend("cuda", until)
    assert same == steps > STEPS // 2
    assert asked < steps / 2
    assert (on_gpu.spent, on_gpu.price, on_gpu.asked) == (
        on_cpu.spent,
        on_cpu.price,
        on_cpu.asked,
    )


@pytest.mark.parametrize("other", ["cpu", "cuda"])
def test_a_run_that_is_taken_up_spends_the_same(other):
    until = STEPS * step_flops(SPEC, BACKBONE, 2)
    whole, steps, _ = spend("cuda", until)
    part, done, _ = spend("cuda", until, stop=7)
    assert part.noted.count
    again, in_all, _ = spend(other, until, state=(part.carried(), done))
    assert (in_all, again.spent, again.asked) == (steps, whole.spent, whole.asked)
