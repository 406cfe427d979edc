"""Which backend runs: numba on the CPU, Triton on a GPU once it passed, else torch, and why."""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.models.bundle import bundle_sources
from search_space.errors import InputError
from search_space.methods import find, names
from workers.kernels import dispatch, settings
from workers.kernels.api.cross_entropy import linear_cross_entropy
from workers.kernels.api.expert_ffn import expert_ffn
from workers.kernels.api.residual_norm import residual_norm
from workers.kernels.api.rms_norm import rms_norm
from workers.kernels.api.rotary import normed_heads
from workers.kernels.dispatch import FILES, MOST_UNITS, NAMED, choose, describe
from workers.kernels.pairs import Pairs
from workers.kernels.settings import Backend, Products, Settings, override

pytestmark = pytest.mark.slow

UNNAMED = {"masked_attention", "spread_choice"}  # the torch form of another name runs
ROOT = Path(__file__).parents[3]
IMPORTS_TRITON = re.compile(r"^\s*(import|from)\s+triton\b", re.MULTILINE)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that is not there: torch names it, and a tensor's stand-in lives on it."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    dispatch.why_not.cache_clear()
    yield like(torch.float32)
    dispatch.why_not.cache_clear()


def like(dtype, device="cuda"):
    """What the dispatch looks at of a tensor."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


def chosen(*tensors, operation="rms_norm", size=0):
    """The backend's name alone."""
    return choose(operation, tensors, size)[0]


def check_says(monkeypatch, reason, known=True):
    """Replace the self-check, which dispatch imports by name; counts the checks."""
    calls = []

    def verdict(device):
        calls.append(device)
        if isinstance(reason, Exception):
            raise reason
        return reason

    found = importlib.import_module

    def load(name):
        if name != dispatch.SELF_CHECK:
            return found(name)
        if not known:
            raise ImportError(f"No module named {name!r}")
        return SimpleNamespace(verdict=verdict)

    monkeypatch.setattr(dispatch.importlib, "import_module", load)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    return calls


def test_the_cpu_runs_its_own_forms_and_never_loads_triton():
    code = """
import sys, torch
from workers.kernels.dispatch import describe
from workers.kernels.api.grouped import grouped_mm
import workers.layers.build
assert "numba" not in sys.modules
assert describe("cpu").startswith("numba ")
grouped_mm(torch.ones(2, 3), torch.ones(1, 3, 4), [2])
assert "triton" not in sys.modules
assert "workers.kernels.triton" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_backend_has_a_form_of_every_operation_or_a_reason():
    """And all forms of an operation are called alike, as its public function calls them."""
    pytest.importorskip("triton", reason="the Triton forms need triton")
    for operation in sorted(FILES.keys() - UNNAMED):
        torch_form = dispatch.load(Backend.TORCH, operation)
        for backend, takes in NAMED.items():
            if operation in takes.absent:
                assert takes.absent[operation]
                continue
            form = dispatch.load(backend, operation)
            assert n_parameters(form) == n_parameters(torch_form), (backend, operation)
    for backend, takes in NAMED.items():
        assert takes.backend is backend
        assert {*takes.absent, *takes.limits} <= set(FILES)
        assert set(takes.absent) >= UNNAMED


def n_parameters(form):
    """Those of a call by position."""
    parameters = inspect.signature(form).parameters.values()
    return len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD])


def test_a_gpu_that_passed_runs_triton_and_is_checked_once(gpu, monkeypatch):
    calls = check_says(monkeypatch, "")
    assert choose("rms_norm", [gpu]) == (Backend.TRITON, "")
    assert choose("rms_norm", [gpu, gpu]) == (Backend.TRITON, "")
    assert describe("cuda") == "triton 9.9"
    assert len(calls) == 1


def test_a_gpu_that_failed_runs_torch_and_says_why(gpu, monkeypatch, caplog):
    reason = "row_sum in float32 is off by 0.5, more than 1e-05"
    check_says(monkeypatch, reason)
    with caplog.at_level(logging.WARNING):
        assert choose("rms_norm", [gpu]) == (Backend.TORCH, reason)
        assert choose("row_sum", [gpu]) == (Backend.TORCH, reason)
    assert [record.getMessage() for record in caplog.records] == [
        f"the torch forms run on Test GPU: {reason}"
    ]
    assert describe("cuda") == f"torch ({reason})"


def test_a_gpu_without_a_folder_for_what_its_check_remembers_runs_torch(gpu, monkeypatch, caplog):
    check_says(monkeypatch, InputError("there is no home directory"))
    assert chosen(gpu) is Backend.TORCH
    assert describe("cuda") == "torch (there is no home directory)"
    assert "the torch forms run on Test GPU: there is no home directory" in caplog.text


def test_without_the_triton_forms_torch_runs(gpu, monkeypatch):
    check_says(monkeypatch, "", known=False)
    assert chosen(gpu) is Backend.TORCH
    assert "cannot be imported" in describe("cuda")


FLOAT, DOUBLE, HALF = torch.float32, torch.float64, torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtypes", "operation", "size", "reason"),
    [
        ("cpu", [FLOAT], "expert_ffn", MOST_UNITS + 1, f"numba takes at most {MOST_UNITS} units"),
        ("cpu", [FLOAT], "product_key_search", 257, "numba takes at most 256 choices"),
        ("cpu", [DOUBLE], "top_indices", 65, "numba takes at most 64 choices"),
        ("cpu", [HALF], "rms_norm", 0, "numba does not take bfloat16"),
        ("cpu", [FLOAT, DOUBLE], "rms_norm", 0, "the tensors have several dtypes"),
        ("cpu", [FLOAT], "grouped_mm", 0, "numba has no form of it: rows that lie together"),
        ("cuda", [FLOAT], "product_key_search", 33, "triton takes at most 32 choices"),
        ("cuda", [FLOAT], "top_indices", 1, "triton has no form of it: torch has a kernel"),
        ("cuda", [FLOAT], "expert_choice", 1025, "triton takes at most 1024 experts"),
        ("cuda", [FLOAT], "spread_choice", 1, "triton has no form of it: processes speak"),
        ("cuda", [FLOAT], "attention", 1, "triton has no form of it: torch has a fused kernel"),
        ("cuda", [DOUBLE], "rms_norm", 0, "triton does not take float64"),
        ("cuda", [FLOAT, HALF], "rms_norm", 0, "the tensors have several dtypes"),
        ("meta", [FLOAT], "rms_norm", 0, "no other on meta"),
    ],
)
def test_what_a_devices_backend_does_not_take_torch_runs(
    gpu, monkeypatch, device, dtypes, operation, size, reason
):
    check_says(monkeypatch, "")
    monkeypatch.setattr(dispatch, "numba_fault", lambda: "")
    tensors = [like(dtype, device) for dtype in dtypes]
    backend, why = choose(operation, tensors, size)
    assert backend is Backend.TORCH
    assert why.startswith(reason)
    if size > 1:  # one less fits
        assert choose(operation, tensors, size - 1)[0] is not Backend.TORCH


def test_a_backend_that_was_asked_for_runs_where_it_can(gpu, monkeypatch):
    check_says(monkeypatch, "off")
    monkeypatch.setattr(dispatch, "numba_fault", lambda: "")
    monkeypatch.setattr(dispatch, "interpreted", lambda: False)
    cpu = like(FLOAT, "cpu")
    with override(backend=Backend.TORCH):
        assert choose("rms_norm", [cpu]) == (Backend.TORCH, "torch was asked for")
    with override(backend=Backend.NUMBA):
        assert chosen(cpu) is Backend.NUMBA
        assert choose("rms_norm", [gpu]) == (Backend.TORCH, "numba's forms are for CPUs")
        assert describe("cuda") == "torch (numba's forms are for CPUs)"
    with override(backend=Backend.TRITON):  # without its check
        assert chosen(gpu) is Backend.TRITON
        assert choose("rms_norm", [cpu])[1].startswith("no TRITON_INTERPRET=1")


def fused_calls(dtype: torch.dtype):
    """Each fused operation on tensors of one type."""
    x_TD, w_D = torch.ones(4, 6, dtype=dtype), torch.ones(6, dtype=dtype)
    matrix_BGD = torch.ones(2, 3, 6, dtype=dtype)
    token_P = torch.tensor([0, 1, 3])
    qkv, angle = torch.ones(1, 4, 3, 2, 6, dtype=dtype), torch.ones(1, 1, 4, 3)
    return {
        "expert_ffn": lambda: expert_ffn(
            x_TD, *[matrix_BGD] * 3, Pairs(token_P, [2, 1]), None, "silu"
        ),
        "rms_norm": lambda: rms_norm(x_TD, w_D),
        "residual_norm": lambda: residual_norm(x_TD, x_TD, w_D).wide_D,
        "normed_heads": lambda: normed_heads(qkv, w_D, w_D, angle, angle)[0],
        "linear_cross_entropy": lambda: linear_cross_entropy(
            x_TD, matrix_BGD[0], torch.tensor([0, 1, 2, 0])
        ),
    }


class Asked(Exception):
    """A Triton form was asked for."""


@pytest.fixture
def no_triton(monkeypatch):
    found = importlib.import_module

    def refuse(name):
        if name.startswith("workers.kernels.triton"):
            raise Asked(name)
        return found(name)

    monkeypatch.setattr(dispatch.importlib, "import_module", refuse)
    dispatch.interpreted.cache_clear()
    with override(backend=Backend.TRITON):
        yield
    dispatch.interpreted.cache_clear()


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


@pytest.mark.parametrize("weight_TC", [None, torch.ones(4, 1), torch.ones(4, 2)])
def test_one_expert_of_all_tokens_has_a_triton_form_weighted_or_not(no_triton, weight_TC):
    x_TD, matrix_BGD, pairs = torch.ones(4, 6), torch.ones(1, 2, 6), Pairs(None, [4])
    with pytest.raises(Asked):
        expert_ffn(x_TD, matrix_BGD, None, matrix_BGD, pairs, weight_TC, "relu")


def test_triton_forms_on_a_cpu_without_the_interpreter_run_torch_and_say_so(monkeypatch, caplog):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    dispatch.interpreted.cache_clear()
    x_TD, w_D = torch.randn(4, 6), torch.ones(6)
    with override(backend=Backend.TRITON):
        # Asked for too late: the kernels were decorated without it.
        importlib.import_module("workers.kernels.triton.grouped")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        got = rms_norm(x_TD, w_D)
        reason = "no TRITON_INTERPRET=1 before triton was imported"
        assert describe("cpu") == f"torch ({reason}), products torch"
    torch.testing.assert_close(got, torch.nn.functional.rms_norm(x_TD, (6,), w_D, 1e-6))
    (message,) = [r.getMessage() for r in caplog.records]
    assert "TRITON_INTERPRET=1 set before triton is first imported" in message
    dispatch.interpreted.cache_clear()


def test_an_override_ends_with_its_block(gpu, monkeypatch):
    check_says(monkeypatch, "")
    monkeypatch.setattr(dispatch, "interpreted", lambda: True)
    with override(backend=Backend.TORCH):
        assert chosen(gpu) is Backend.TORCH
        assert describe("cuda") == "torch"
        with override(autotune=False):
            assert settings.settings().backend is Backend.TORCH
    assert chosen(gpu) is Backend.TRITON
    with override(backend=Backend.TRITON):
        assert chosen(torch.ones(1)) is Backend.TRITON
    assert chosen(torch.ones(1)) is not Backend.TRITON


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "FFN_NAS_KERNELS",
            "cuda",
            "FFN_NAS_KERNELS must be one of auto, torch, numba, triton: got 'cuda'",
        ),
        ("FFN_NAS_AUTOTUNE", "yes", "FFN_NAS_AUTOTUNE must be one of 1, 0: got 'yes'"),
        (
            "FFN_NAS_PRODUCTS",
            "mkl",
            "FFN_NAS_PRODUCTS must be one of auto, torch, onednn: got 'mkl'",
        ),
    ],
)
def test_an_unknown_value_is_refused(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        Settings.from_environment()


def test_a_bad_environment_is_told_and_does_not_break_a_record(monkeypatch):
    monkeypatch.setenv("FFN_NAS_KERNELS", "cuda")
    monkeypatch.setattr(settings, "_environment", Settings.from_environment)
    assert describe("cpu").startswith("torch (FFN_NAS_KERNELS must be one of")


def test_the_environment_is_read(monkeypatch, tmp_path):
    values = {"KERNELS": "torch", "AUTOTUNE": "0", "CACHE": str(tmp_path), "PRODUCTS": "onednn"}
    for name, value in values.items():
        monkeypatch.setenv(f"FFN_NAS_{name}", value)
    found = Settings.from_environment()
    assert found == Settings(Backend.TORCH, False, tmp_path, Products.ONEDNN)


@pytest.mark.parametrize("method", names())
def test_an_export_carries_the_torch_forms_alone(method):
    sources = bundle_sources(find(method))
    assert "workers_kernels_torch_rows.py" in sources
    others = ("triton", "numba", "selfcheck", "dispatch", "settings", "products")
    assert not [name for name in sources if any(other in name for other in others)]
    assert not [name for name, text in sources.items() if IMPORTS_TRITON.search(text)]
