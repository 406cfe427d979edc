"""Which backend runs: torch on the CPU; on a GPU Triton once it passed, else torch, and why."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.models.export import bundle_sources
from search_space.errors import InputError
from workers.kernels import dispatch
from workers.kernels.dispatch import Backend, Settings, describe, override, triton_ops
from workers.kernels.torch.cross_entropy import linear_cross_entropy
from workers.kernels.torch.expert_ffn import Pairs, expert_ffn
from workers.kernels.torch.rms_norm import rms_norm
from workers.kernels.torch.rotary import norm_and_rotate

ROOT = Path(__file__).parents[3]
IMPORTS_TRITON = re.compile(r"^\s*(import|from)\s+triton\b", re.MULTILINE)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is not there: torch names it, and a tensor's stand-in lives on it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    dispatch.why_not.cache_clear()
    yield SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32)
    dispatch.why_not.cache_clear()


def check_says(monkeypatch, reason, modules=None):
    """Replace the modules that dispatch imports by name; counts the checks."""
    calls = []

    def verdict(device):
        calls.append(device)
        return reason

    known = {
        dispatch.SELF_CHECK: SimpleNamespace(verdict=verdict),
        dispatch.TRITON_OPS: "the Triton forms",
    }

    def load(name):
        if modules is not None and name not in modules:
            raise ImportError(f"No module named {name!r}")
        return known[name]

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    return calls


def test_the_cpu_runs_its_own_forms_and_never_loads_triton():
    code = """
import sys, torch
from workers.kernels.dispatch import describe
from workers.kernels.torch.grouped import grouped_mm
import workers.layers.build
assert "numba" not in sys.modules
assert describe("cpu").startswith("numba ")
grouped_mm(torch.ones(2, 3), torch.ones(1, 3, 4), [2])
assert "triton" not in sys.modules
assert "workers.kernels.triton" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_gpu_that_passed_runs_triton_and_is_checked_once(gpu, monkeypatch):
    calls = check_says(monkeypatch, "")
    assert triton_ops(gpu) == "the Triton forms"
    assert triton_ops(gpu, gpu) == "the Triton forms"
    assert describe("cuda") == "triton 9.9"
    assert len(calls) == 1


def test_a_gpu_that_failed_runs_torch_and_says_why(gpu, monkeypatch, caplog):
    check_says(monkeypatch, "row_sum in float32 is off by 0.5, more than 1e-05")
    with caplog.at_level(logging.WARNING):
        assert triton_ops(gpu) is None
        assert triton_ops(gpu) is None
    assert [record.getMessage() for record in caplog.records] == [
        "the torch forms run on Test GPU: row_sum in float32 is off by 0.5, more than 1e-05"
    ]
    assert describe("cuda") == "torch (row_sum in float32 is off by 0.5, more than 1e-05)"


def test_without_the_triton_forms_torch_runs(gpu, monkeypatch):
    check_says(monkeypatch, "", modules=())
    assert triton_ops(gpu) is None
    assert "cannot be imported" in describe("cuda")


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float64),
        SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.bfloat16),
    ],
)
def test_mixed_dtypes_and_float64_run_torch(gpu, monkeypatch, other):
    check_says(monkeypatch, "")
    assert triton_ops(gpu, other) is None
    assert (triton_ops(other) is None) == (other.dtype == torch.float64)


def fused_calls(dtype: torch.dtype):
    """Each fused operation on tensors of one type."""
    x_TD, w_D = torch.ones(4, 6, dtype=dtype), torch.ones(6, dtype=dtype)
    matrix_BGD = torch.ones(2, 3, 6, dtype=dtype)
    token_P = torch.tensor([0, 1, 3])
    angle = torch.ones(1, 1, 4, 3)
    return {
        "expert_ffn": lambda: expert_ffn(
            x_TD, *[matrix_BGD] * 3, Pairs(token_P, [2, 1]), None, "silu"
        ),
        "rms_norm": lambda: rms_norm(x_TD, w_D),
        "norm_and_rotate": lambda: norm_and_rotate(x_TD.view(1, 1, 4, 6), w_D, angle, angle),
        "linear_cross_entropy": lambda: linear_cross_entropy(
            x_TD, matrix_BGD[0], torch.tensor([0, 1, 2, 0])
        ),
    }


class Asked(Exception):
    """A Triton form was asked for."""


@pytest.fixture
def no_triton(monkeypatch):
    def refuse(name):
        raise Asked(name)

    monkeypatch.setattr(dispatch.importlib, "import_module", refuse)
    with override(backend=Backend.TRITON):
        yield


@pytest.mark.parametrize("name", fused_calls(torch.float32))
def test_a_fused_operation_runs_torch_in_float64(no_triton, name):
    assert torch.isfinite(fused_calls(torch.float64)[name]()).all()
    with pytest.raises(Asked):
        fused_calls(torch.float32)[name]()


def test_fused_operations_of_mixed_dtypes_run_torch(no_triton):
    x_TD, narrow = torch.ones(4, 6), torch.ones(2, 6, dtype=torch.float16)
    with pytest.raises(RuntimeError, match="same dtype"):
        linear_cross_entropy(x_TD, narrow, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="same dtype"):
        expert_ffn(x_TD, *[narrow[None]] * 3, Pairs(torch.arange(4), [4]), None, "silu")


def test_one_expert_of_all_tokens_runs_torch(no_triton):
    x_TD, matrix_BGD = torch.ones(4, 6), torch.ones(1, 2, 6)
    y_TD = expert_ffn(x_TD, matrix_BGD, None, matrix_BGD, Pairs(None, [4]), None, "relu")
    assert torch.equal(y_TD, torch.full((4, 6), 12.0))


def test_triton_forms_on_a_cpu_without_the_interpreter_run_torch_and_say_so(monkeypatch, caplog):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    dispatch.interpreted.cache_clear()
    x_TD, w_D = torch.randn(4, 6), torch.ones(6)
    with override(backend=Backend.TRITON):
        # Asked for too late: the kernels were decorated without it.
        importlib.import_module(dispatch.TRITON_OPS)
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        got = rms_norm(x_TD, w_D)
        assert describe("cpu") == "torch (no TRITON_INTERPRET=1 before triton was imported)"
    torch.testing.assert_close(got, torch.nn.functional.rms_norm(x_TD, (6,), w_D, 1e-6))
    (message,) = [r.getMessage() for r in caplog.records]
    assert "TRITON_INTERPRET=1 set before triton is first imported" in message
    dispatch.interpreted.cache_clear()


def test_an_override_ends_with_its_block(gpu, monkeypatch):
    check_says(monkeypatch, "")
    monkeypatch.setattr(dispatch, "interpreted", lambda: True)
    with override(backend=Backend.TORCH):
        assert triton_ops(gpu) is None
        assert describe("cuda") == "torch"
        with override(autotune=False):
            assert dispatch.settings().backend is Backend.TORCH
    assert triton_ops(gpu) == "the Triton forms"
    with override(backend=Backend.TRITON):
        assert triton_ops(torch.ones(1)) == "the Triton forms"
    assert triton_ops(torch.ones(1)) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FFN_NAS_KERNELS", "cuda", "FFN_NAS_KERNELS must be one of auto, torch, triton: got 'cud"),
        ("FFN_NAS_AUTOTUNE", "yes", "FFN_NAS_AUTOTUNE must be 0 or 1: got 'yes'"),
    ],
)
def test_an_unknown_value_is_refused(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        Settings.from_environment()


def test_a_bad_environment_is_told_and_does_not_break_a_record(monkeypatch):
    monkeypatch.setenv("FFN_NAS_KERNELS", "cuda")
    monkeypatch.setattr(dispatch, "_environment", Settings.from_environment)
    assert describe("cpu").startswith("torch (FFN_NAS_KERNELS must be one of")


def test_the_environment_is_read(monkeypatch, tmp_path):
    for name, value in {"KERNELS": "torch", "AUTOTUNE": "0", "CACHE": str(tmp_path)}.items():
        monkeypatch.setenv(f"FFN_NAS_{name}", value)
    assert Settings.from_environment() == Settings(Backend.TORCH, False, tmp_path)


def test_an_export_carries_no_triton():
    sources = bundle_sources()
    assert "workers_kernels_dispatch.py" in sources
    assert not [name for name in sources if "triton" in name or "selfcheck" in name]
    assert not [name for name, text in sources.items() if IMPORTS_TRITON.search(text)]


def all_sums(query_STC, sub_keys_SRC, k):
    """The best of a query's scores, every sum of two halves made, and their places."""
    first_HTR, second_HTR = (
        (query_STC @ sub_keys_SRC.transpose(1, 2)).unflatten(0, (-1, 2)).unbind(1)
    )
    return (first_HTR.unsqueeze(3) + second_HTR.unsqueeze(2)).flatten(2).topk(k)


class TestSelfCheck:
    """On the CPU with the torch forms in the kernels' place: the check itself, not the kernels."""

    @pytest.fixture
    def check(self, monkeypatch, tmp_path):
        pytest.importorskip("triton", reason="the Triton forms need triton")
        from workers.kernels import selfcheck
        from workers.kernels.torch import cross_entropy, expert_ffn, grouped, rms_norm, rows

        forms = SimpleNamespace(
            grouped_mm=lambda x, w, end_B: grouped.grouped_mm(
                x, w, end_B.diff(prepend=end_B.new_zeros(1)).tolist()
            ),
            row_sum=rows.row_sum,
            row_dot=rows.row_dot,
            expert_ffn=expert_ffn.expert_ffn,
            rms_norm=rms_norm.rms_norm,
            linear_cross_entropy=cross_entropy.linear_cross_entropy,
            product_key_search=all_sums,
        )
        monkeypatch.setattr(selfcheck, "ops", forms)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
        monkeypatch.setattr(selfcheck, "TOLERANCE", {torch.float32: 1e-5})
        with override(cache=tmp_path):
            yield selfcheck, forms, tmp_path / "kernels" / "self-check.json"

    def test_right_kernels_pass_and_are_remembered(self, check):
        selfcheck, forms, path = check
        assert selfcheck.verdict(torch.device("cpu")) == ""
        (entry,) = json.loads(path.read_text())
        assert entry.startswith("Test GPU triton ")
        forms.row_sum = None  # would fail, were it asked again
        assert selfcheck.verdict(torch.device("cpu")) == ""

    @pytest.mark.parametrize(
        "name",
        ["grouped_mm", "row_sum", "row_dot", "expert_ffn", "rms_norm", "linear_cross_entropy"],
    )
    @pytest.mark.parametrize("factor", [1.001, float("nan")])
    def test_a_wrong_kernel_is_named_and_not_remembered(self, check, name, factor):
        selfcheck, forms, path = check
        right = getattr(forms, name)
        setattr(forms, name, lambda *arguments: right(*arguments) * factor)
        reason = selfcheck.verdict(torch.device("cpu"))
        assert re.fullmatch(rf"{name}.* in float32 is off by .*", reason)
        assert not path.exists()

    def test_a_wrong_gradient_is_found(self, check):
        selfcheck, forms, _ = check
        right = forms.grouped_mm
        forms.grouped_mm = lambda x, w, end_B: (
            right(x, w * 1.01, end_B) - right(x, w * 0.01, end_B).detach()
        )
        assert "grouped_mm in float32 is off by" in selfcheck.verdict(torch.device("cpu"))

    def test_a_wrong_score_of_a_key_is_found(self, check):
        selfcheck, forms, _ = check
        forms.product_key_search = lambda query, keys, k: all_sums(query, 1.001 * keys, k)
        assert "product_key in float32 is off by" in selfcheck.verdict(torch.device("cpu"))

    def test_a_kernel_that_raises_is_a_reason(self, check):
        selfcheck, forms, _ = check

        def fails(*arguments):
            raise RuntimeError("no\nbinary for this device")

        forms.row_dot = fails
        expected = "RuntimeError: no binary for this device"
        assert selfcheck.verdict(torch.device("cpu")) == expected


class TestTuning:
    """Which configuration is taken, with timings that are given."""

    @pytest.fixture
    def tune(self, monkeypatch, tmp_path):
        pytest.importorskip("triton", reason="the Triton forms need triton")
        from workers.kernels.triton import tune

        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU 80GB")
        tune._read.cache_clear()
        with override(cache=tmp_path, autotune=True):
            yield tune
        tune._read.cache_clear()

    def test_the_fastest_is_taken_and_remembered_by_width_and_dtype(self, tune, monkeypatch):
        from workers.kernels.triton.config import Config

        configs = tuple(Config.of(BLOCK=size) for size in (32, 64, 128))
        timed = []

        def milliseconds(run, config):
            timed.append(config)
            return {32: 3.0, 64: 1.0, 128: float("inf")}[config["BLOCK"]]

        monkeypatch.setattr(tune, "_milliseconds", milliseconds)
        like = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=torch.float32)
        assert tune.choose("sum", configs, like, (8,), None) == configs[1]
        tune._read.cache_clear()  # as another process
        assert tune.choose("sum", configs, like, (8,), None) == configs[1]
        assert len(timed) == 3
        tune.choose("sum", configs, like, (16,), None)
        assert len(timed) == 6
        like.dtype = torch.float16
        tune.choose("sum", configs, like, (16,), None)
        assert len(timed) == 9
        # A table that no longer holds the choice is timed again.
        assert tune.choose("sum", configs[::2], like, (16,), None) == configs[0]

    def test_off_and_on_the_cpu_the_first_is_taken(self, tune):
        from workers.kernels.triton.config import Config

        configs = (Config.of(BLOCK=32), Config.of(BLOCK=64))
        assert tune.choose("sum", configs, torch.ones(1), (8,), None) == configs[0]
        like = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=torch.float32)
        with override(autotune=False):
            assert tune.choose("sum", configs, like, (8,), None) == configs[0]
