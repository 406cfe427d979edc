"""Which library multiplies: measured once a machine, checked, kept, and never seen by attention."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from workers.kernels import products
from workers.kernels.api.attention import attention
from workers.kernels.dispatch import chosen_products, describe, describe_products
from workers.kernels.pairs import Loads, Operands, Pairs
from workers.kernels.products import MARGIN, TOLERANCE, Choice, Measured, choose
from workers.kernels.settings import Backend, Products, override
from workers.kernels.switch import onednn, onednn_multiplies
from workers.kernels.torch import expert_ffn, grouped

FASTER = Measured(torch_rate=100.0, onednn_rate=240.0, gain=2.1, error=1e-6)
EVEN = Measured(torch_rate=100.0, onednn_rate=101.0, gain=MARGIN - 0.001, error=1e-6)
ROUNDS = Measured(torch_rate=100.0, onednn_rate=0.0, gain=0.0, error=3e-4)


@pytest.fixture
def auto(tmp_path):
    """The fastest way, and a cache of the test's own."""
    with override(products=Products.AUTO, cache=tmp_path / "cache"):
        yield tmp_path / "cache"


def says(monkeypatch, found):
    """Replace the measurement; counts how often it is made."""
    calls = []

    def measure():
        calls.append(found)
        return found

    monkeypatch.setattr(products, "measure", measure)
    products._kept.cache_clear()
    return calls


@pytest.mark.parametrize(
    ("found", "way"),
    [(FASTER, Products.ONEDNN), (EVEN, Products.TORCH), (ROUNDS, Products.TORCH)],
)
def test_the_fastest_way_runs_and_is_on_for_the_body_alone(auto, monkeypatch, found, way):
    says(monkeypatch, found)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with chosen_products("cpu"):
        assert onednn_multiplies() == (way is Products.ONEDNN)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert f", products {way}" in describe("cpu")
    with chosen_products("meta"):
        assert not onednn_multiplies()


@pytest.mark.parametrize("routed", [True, False])
def test_experts_whose_rows_vary_never_see_it(monkeypatch, routed):
    """oneDNN would keep a compiled product for every number of rows that an expert ever had."""
    seen = []
    products_of, add = expert_ffn._products, expert_ffn._add_weight_gradients
    for name, run in (("_products", products_of), ("_add_weight_gradients", add)):

        def told(*args, run=run, **more):
            seen.append(onednn_multiplies())
            return run(*args, **more)

        monkeypatch.setattr(expert_ffn, name, told)
    x_TD, w_BGD = torch.randn(6, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    token_P = torch.tensor([0, 2, 2, 1, 5, 3])
    pairs = Pairs(token_P, [4, 2]) if routed else Pairs(None, [6])
    w = w_BGD if routed else w_BGD[:1]
    with onednn(True):
        given = Operands(x_TD, w, None, w, None)
        expert_ffn.expert_ffn(given, pairs, "relu", None).sum().backward()
        assert onednn_multiplies()
    assert len(seen) >= 6 and set(seen) == {not routed}


def test_nor_do_grouped_products(monkeypatch):
    seen, mm = [], torch.mm
    monkeypatch.setattr(
        torch, "mm", lambda *a, **b: seen.append(onednn_multiplies()) or mm(*a, **b)
    )
    x, w = torch.randn(6, 4, requires_grad=True), torch.randn(2, 4, 3, requires_grad=True)
    with onednn(True):
        grouped.grouped_mm(x, w, Loads([4, 2])).sum().backward()
    assert seen == [False] * 6


def test_the_switch_goes_back_after_an_error(auto, monkeypatch):
    says(monkeypatch, FASTER)
    with pytest.raises(ArithmeticError), chosen_products("cpu"):
        raise ArithmeticError
    assert not onednn_multiplies()


def test_a_library_that_rounds_is_refused_even_where_it_was_asked_for(auto, monkeypatch):
    says(monkeypatch, ROUNDS)
    with override(products=Products.ONEDNN):
        assert choose(1) == Choice(Products.TORCH, "onednn rounds its factors here, by 3e-04")
    assert describe("cpu").endswith("products torch (onednn rounds its factors here, by 3e-04)")


def test_an_error_that_is_no_number_is_refused(auto, monkeypatch):
    says(monkeypatch, Measured(100.0, 240.0, 2.0, float("nan")))
    assert choose(1).way is Products.TORCH


def test_a_way_that_was_asked_for_runs(auto, monkeypatch):
    calls = says(monkeypatch, EVEN)
    with override(products=Products.ONEDNN):
        assert choose(1) == Choice(Products.ONEDNN)
    with override(products=Products.TORCH):
        assert choose(2) == Choice(Products.TORCH)
    assert len(calls) == 1  # torch's own way needs no measurement


def test_a_machine_is_measured_once_and_a_later_measurement_changes_nothing(auto, monkeypatch):
    says(monkeypatch, FASTER)
    assert choose(1).way is Products.ONEDNN
    calls = says(monkeypatch, EVEN)  # as another process, on a worse day
    assert choose(1).way is Products.ONEDNN
    assert not calls
    assert choose(2).way is Products.TORCH  # other threads are another machine
    assert len(calls) == 1
    assert len(list((auto / "kernels").iterdir())) == 2  # no draft is left


def test_of_two_processes_that_measure_at_once_both_take_the_first_answer(auto, monkeypatch):
    path = products.cache_file(auto, 1)

    def measure():
        products.write_once(path, asdict(FASTER))  # the other one was faster
        return EVEN

    monkeypatch.setattr(products, "measure", measure)
    products._kept.cache_clear()
    assert products.measured(1) == FASTER


def test_a_damaged_measurement_is_made_again(auto, monkeypatch, caplog):
    says(monkeypatch, FASTER)
    path = products.cache_file(auto, 1)
    path.parent.mkdir(parents=True)
    path.write_text('{"gain": ')
    with caplog.at_level(logging.WARNING):
        assert products.measured(1) == FASTER
    assert "is damaged" in caplog.text
    assert json.loads(path.read_text())["gain"] == FASTER.gain


def test_where_nothing_can_be_kept_torch_runs(auto, monkeypatch, tmp_path):
    says(monkeypatch, FASTER)
    (tmp_path / "file").write_text("")
    with override(cache=tmp_path / "file"):
        choice = choose(1)
        assert describe_products().startswith("torch (no measurement can be kept: ")
    assert choice.way is Products.TORCH and choice.why.startswith("no measurement can be kept: ")


def test_doctor_is_told_the_rates(auto, monkeypatch):
    says(monkeypatch, FASTER)
    assert describe_products() == (
        "onednn: torch 100, onednn 240 GFLOP/s, 2.10x over training's shapes"
    )


def test_the_gain_is_a_mean_over_shapes_in_which_a_slower_one_counts(auto, monkeypatch):
    monkeypatch.setattr(products, "_timed", lambda: ["a", "b"])
    seconds = {"a": (4.0, 1.0), "b": (1.0, 2.0)}
    monkeypatch.setattr(products, "best_seconds", lambda p: seconds.get(p, (2e-3, 1e-3)))
    found = products.measure()
    assert found.gain == pytest.approx((4 * 0.5 * 2) ** (1 / 3))
    assert found.onednn_rate == pytest.approx(2 * found.torch_rate)


def test_factors_that_are_rounded_are_seen(monkeypatch):
    """As matrix units for bfloat16 would round them under the switch."""
    matmul = torch.Tensor.__matmul__

    def rounding(a, b):
        if not onednn_multiplies():
            return matmul(a, b)
        return matmul(a.bfloat16().float(), b.bfloat16().float())

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert products.measure().error > 10 * TOLERANCE


def test_the_chosen_way_has_the_error_of_float32(auto):
    """The one test that looks at the machine at hand: whatever it chooses, the numbers hold."""
    generator = torch.Generator().manual_seed(1)
    x, w = (torch.randn(shape, generator=generator) for shape in ((200, 513), (333, 513)))
    products._kept.cache_clear()
    with chosen_products("cpu"):
        found = F.linear(x, w), x.t() @ x, torch.bmm(x[None], w.t()[None])
        for start in (0, 1):
            found[1].addmm_(x.t(), x, beta=float(start))
    exact = F.linear(x.double(), w.double()), 2 * x.double().t() @ x.double()
    exact = *exact, exact[0][None]
    for got, true in zip(found, exact, strict=True):
        assert (got - true).abs().max() / true.abs().max() < TOLERANCE


def test_attention_never_sees_the_switch(monkeypatch):
    seen = []
    fused = F.scaled_dot_product_attention

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen.append(onednn_multiplies())
            return x.clone()

        @staticmethod
        def backward(ctx, dx):
            seen.append(onednn_multiplies())
            return dx

    # The watch is the last node of the graph that attention makes, as the fused one is.
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *heads, **o: Watched.apply(fused(*heads, **o))
    )
    heads = [torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3)]
    with override(backend=Backend.TORCH), onednn(True):
        y = attention(*heads, None, True, 0.5)
        assert onednn_multiplies()
        y.sum().backward()
        assert onednn_multiplies()
        grads = [x.grad.clone() for x in heads]
        with torch.no_grad():
            attention(*heads, None, True, 0.5)
        assert onednn_multiplies()
    assert seen == [False] * 3
    plain = fused(*heads, is_causal=True, scale=0.5)
    assert torch.equal(y, plain)
    wanted = torch.autograd.grad(plain.sum(), heads)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))
