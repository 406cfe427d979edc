"""The check that Triton forms must pass on a GPU, on the CPU with torch forms in their place: the
check itself, not the kernels."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="the Triton forms need triton")

from workers.kernels import selfcheck
from workers.kernels.dispatch import FILES, TRITON, load
from workers.kernels.settings import Backend, override


@pytest.fixture
def check(monkeypatch, tmp_path):
    """The module, what it takes for Triton's forms, and the file of its verdicts."""
    absent = TRITON.absent
    forms = SimpleNamespace(
        **{name: load(Backend.TORCH, name) for name in FILES if name not in absent}
    )

    def loaded(backend, operation):
        return getattr(forms, operation) if backend is Backend.TRITON else load(backend, operation)

    monkeypatch.setattr(selfcheck, "load", loaded)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    monkeypatch.setattr(selfcheck, "TOLERANCE", {torch.float32: 1e-5})
    with override(cache=tmp_path):
        yield selfcheck, forms, tmp_path / "kernels" / "self-check.json"


def test_right_kernels_pass_and_are_remembered(check):
    selfcheck, forms, path = check
    assert selfcheck.verdict(torch.device("cpu")) == ""
    (entry,) = json.loads(path.read_text())
    assert entry.startswith("Test GPU triton ")
    forms.row_sum = None  # would fail, were it asked again
    assert selfcheck.verdict(torch.device("cpu")) == ""


@pytest.mark.parametrize(
    "name",
    [
        "grouped_mm",
        "row_sum",
        "row_dot",
        "expert_ffn",
        "dense_ffn",
        "output_gated_ffn",
        "rms_norm",
        "residual_norm",
        "normed_heads",
        "linear_cross_entropy",
    ],
)
@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_wrong_kernel_is_named_and_not_remembered(check, name, factor):
    selfcheck, forms, path = check
    right = getattr(forms, name)

    def wrong(*arguments):
        found = right(*arguments)
        several = isinstance(found, tuple)
        return tuple(y * factor for y in found) if several else found * factor

    setattr(forms, name, wrong)
    reason = selfcheck.verdict(torch.device("cpu"))
    assert re.fullmatch(rf"{name}.* in float32 is off by .*", reason)
    assert not path.exists()


def test_a_wrong_gradient_is_found(check):
    selfcheck, forms, _ = check
    right = forms.grouped_mm
    forms.grouped_mm = lambda x, w, counts: (
        right(x, w * 1.01, counts) - right(x, w * 0.01, counts).detach()
    )
    assert "grouped_mm in float32 is off by" in selfcheck.verdict(torch.device("cpu"))


def test_a_wrong_score_of_a_key_is_found(check):
    selfcheck, forms, _ = check
    right = forms.product_key_search
    forms.product_key_search = lambda query, keys, k: right(query, 1.001 * keys, k)
    assert "product_key_search in float32 is off by" in selfcheck.verdict(torch.device("cpu"))


def test_a_kernel_that_raises_is_a_reason(check):
    selfcheck, forms, _ = check

    def fails(*arguments):
        raise RuntimeError("no\nbinary for this device")

    forms.row_dot = fails
    expected = "RuntimeError: no binary for this device"
    assert selfcheck.verdict(torch.device("cpu")) == expected
