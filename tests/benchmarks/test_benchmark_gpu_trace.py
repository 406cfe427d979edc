"""The trace's table: what it counts, and that a step which asks the device is told of."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("triton", reason="a GPU's forms need triton")

import torch

from benchmarks import gpu_trace
from benchmarks.step_trace import grouped_launches
from search_space.backbone import Backbone
from workers.layers.router import Router

pytestmark = pytest.mark.slow

SMALL = Backbone(d_model=32, n_layers=4, n_heads=2, vocab_size=100, seq_len=16)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu_trace, "BACKBONE", SMALL)


def rows(name: str) -> dict:
    return {row.name.partition(": ")[2]: row for row in gpu_trace.preset_rows(name, "float32")}


def lists(n: int, *shape: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.empty(shape, dtype=dtype, device="meta") for _ in range(n)]


def test_a_grouped_operation_launches_for_as_many_tensors_and_blocks_as_a_kernel_takes():
    assert grouped_launches([lists(64, 4), lists(64, 4)]) == 1
    assert grouped_launches([lists(65, 4), lists(65, 4)]) == 2
    assert grouped_launches([lists(37, 4)] * 4) == 2
    # 320 blocks of 65,536 elements.
    assert grouped_launches([lists(1, 320, 1 << 16)]) == 1
    assert grouped_launches([lists(2, 321, 1 << 15)] * 2) == 2
    assert grouped_launches([lists(1, 961, 1 << 16)]) == 4
    assert grouped_launches([lists(3, 0)]) == 0


def test_a_grouped_operation_takes_what_its_kernel_does_not_one_by_one():
    narrow, strided = lists(5, 4, dtype=torch.bfloat16), [x[::2] for x in lists(5, 8)]
    assert grouped_launches([lists(5, 4), strided]) == 5
    assert grouped_launches([lists(5, 4), narrow]) == 5
    assert grouped_launches([lists(5, 4), narrow], "_foreach_copy_") == 1
    turned = [x.t() for x in lists(5, 2, 3)]
    assert grouped_launches([lists(5, 3, 2), turned], "_foreach_copy_") == 5


def test_a_dense_layer_is_within_the_bar():
    found = rows("dense")
    assert all(row.holds for row in found.values())
    assert 20 < found["launches a layer, float32"].value <= gpu_trace.MOST_LAUNCHES
    # Mixed precision casts outside of the layers.
    both = (found[f"launches a layer, {p}"].value for p in ("float32", "bfloat16"))
    assert len(set(both)) == 1
    assert (
        found["launches a step"].value > SMALL.n_layers * found["launches a layer, float32"].value
    )
    deeper = dataclasses.replace(SMALL, n_layers=6)
    counts = [gpu_trace.traced("dense", b, "float32")[0] for b in (SMALL, deeper)]
    layers = [trace.parts[gpu_trace.LAYERS] for trace in counts]
    assert layers[1].count - layers[0].count == 2 * found["launches a layer, float32"].value
    assert layers[1].moved > layers[0].moved
    # The optimizers take what all layers have together.
    assert len({trace.parts[gpu_trace.REST].count for trace in counts}) == 1


@pytest.mark.parametrize("precision", gpu_trace.PRECISIONS)
def test_so_is_one_of_two_sub_layers_with_gates_on_their_experts_outputs(precision):
    assert gpu_trace.launches_a_layer("finedeep", precision) <= gpu_trace.MOST_LAUNCHES


def test_a_step_that_asks_is_a_row_that_does_not_hold(monkeypatch):
    forward = Router.forward
    monkeypatch.setattr(Router, "forward", lambda self, x: forward(self, x * x.sum().item()))
    (row,) = gpu_trace.preset_rows("switch", "float32")
    assert not row.holds and "_local_scalar_dense" in row.value
    assert "(bar <= 0)" in gpu_trace.markdown([row])
