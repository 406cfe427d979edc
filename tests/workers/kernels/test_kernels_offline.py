"""Each kernel compiles for a GPU that is not here, without spills or stack."""

from __future__ import annotations

import pytest
from depth import where

pytest.importorskip("triton", reason="the Triton forms need triton")

from benchmarks.catalog import catalog
from benchmarks.kernels import judged
from benchmarks.offline import TARGETS, Compiled, compile_for
from benchmarks.roofline import DEVICES, works

pytestmark = pytest.mark.slow

ENTRIES = {entry.name: entry for entry in catalog()}


def alone(name: str) -> bool:
    """Whether it is the one form of its kernel that stands for those of other activations."""
    return not name.endswith((" gelu", " relu")) and ", wide" not in name


@pytest.mark.parametrize("name", where(ENTRIES, alone))
def test_it_compiles_for_the_h100_within_the_bars(name):
    entry = ENTRIES[name]
    rows = list(judged(entry, "sm_90", [compile_for(entry, entry.configs[0], "sm_90")]))
    assert [row for row in rows if not row.holds] == []
    assert any("matrix" in row.name for row in rows) == bool(entry.product)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"sm_90"}))
def test_the_grouped_product_compiles_for_the_others(target):
    entry = ENTRIES["grouped product"]
    rows = judged(entry, target, [compile_for(entry, entry.configs[0], target)])
    assert [row for row in rows if not row.holds] == []


def test_every_bar_can_fail():
    bad = Compiled(spills=4, stack=8, shared=1 << 20, registers=255, matrix=0, load_bytes=2)
    good = Compiled(spills=0, stack=0, shared=0, registers=32, matrix=2, load_bytes=16)
    rows = judged(ENTRIES["grouped product"], "sm_90", [good, bad])
    assert [row.holds for row in rows if row.bar] == [False] * 5


def test_every_argument_of_every_kernel_is_described():
    for entry in ENTRIES.values():
        signature, constants, _ = entry.source(entry.configs[0])
        assert set(constants) <= set(signature), entry.name
        pointers = {name for name in signature if name.endswith("_ptr")}
        numbers = set(signature) - pointers - set(constants) - set(entry.types)
        assert numbers <= set(entry.sizes), entry.name


def test_the_roofline_is_the_slower_of_memory_and_arithmetic():
    product = next(work for work in works() if work.name == "grouped product")
    device = DEVICES[0]
    slower = max(product.moved / device.bandwidth, product.flops / device.flops)
    assert product.seconds(device) == slower
    assert product.flops == 2 * 16_384 * 8 * 1024 * 512
