"""Tables of which a token reads much are multiplied whole on a GPU, with equal results."""

from __future__ import annotations

import pytest
import torch

from search_space.methods.direct import Direct
from search_space.methods.product_key import ProductKey
from search_space.spec import FFNSpec
from workers.kernels.place import as_on
from workers.kernels.settings import Backend, override
from workers.layers import experts, value_table
from workers.layers.experts import SPREAD, is_much
from workers.layers.ffn import SubLayer

D, TOKENS = 16, 12


def keys(root: int, values: str, heads: int = 2) -> FFNSpec:
    selection = ProductKey(heads=heads, k=3, key_dim=8, query_norm="layer", values=values)
    return FFNSpec(d_ff=root**2, expert_width=1, selection=selection)


SPECS = {
    "direct": FFNSpec(d_ff=12, expert_width=1, selection=Direct(k=3)),
    "direct, gated": FFNSpec(
        d_ff=12, expert_width=1, activation="silu", gated=True, selection=Direct(k=3)
    ),
    "peer": keys(4, "peer"),
    "pkm": keys(4, "pkm"),
}


def layer(spec: FFNSpec) -> SubLayer:
    torch.manual_seed(0)
    made = SubLayer(spec, D, 23, True).train()
    for values in made.parameters():
        if not values.any():
            torch.nn.init.normal_(values, std=0.3)
    return made


def results(made: SubLayer) -> list[torch.Tensor]:
    """The output, and the gradients of all parameters and of the input."""
    made.zero_grad()
    draw = torch.Generator().manual_seed(1)
    h_TD = torch.randn(TOKENS, D, generator=draw).requires_grad_()
    y_TD, _ = made(h_TD, torch.zeros(TOKENS, dtype=torch.int64))
    (y_TD * torch.randn(TOKENS, D, generator=draw)).sum().backward()
    grads = (h_TD.grad, *(p.grad for p in made.parameters() if p.grad is not None))
    return [y_TD.detach(), *(g.to_dense() if g.is_sparse else g for g in grads)]


@pytest.fixture
def reads(monkeypatch):
    """How often a row was read by itself."""
    seen = []
    for module in (experts, value_table):
        own = module.row_sum
        monkeypatch.setattr(module, "row_sum", lambda *a, own=own: seen.append(1) or own(*a))
    return seen


@pytest.mark.parametrize("name", SPECS)
def test_a_gpu_computes_what_a_cpu_reads(name, reads):
    made = layer(SPECS[name])
    want = results(made)
    assert reads == [1]
    with override(backend=Backend.TORCH), as_on("cuda"):
        got = results(made)
        assert reads == [1]
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        # Who records statistics hears of the rows that were read.
        made.stats = made.new_stats()
        made(torch.randn(TOKENS, D), torch.zeros(TOKENS, dtype=torch.int64))
        assert reads == [1, 1]
        assert made.stats.load_B.sum() == TOKENS * SPECS[name].granularity


def test_of_little_the_rows_are_read(reads):
    root = 14
    assert not is_much(6, root**2)
    with override(backend=Backend.TORCH), as_on("cuda"):
        results(layer(keys(root, "pkm")))
        results(layer(keys(root, "peer")))
    assert reads == [1, 1]


def test_how_much_is_much():
    assert is_much(1, SPREAD) and not is_much(1, SPREAD + 1)
    assert not is_much(0, 1)  # not known
