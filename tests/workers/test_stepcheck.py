"""A whole training step, checked before it is trusted: the check itself, on the CPU, whose own
forms stand for a GPU's."""

from __future__ import annotations

import json

import pytest
import torch

from search_space.errors import WorkFailed
from workers import stepcheck
from workers.kernels.api import residual_norm
from workers.kernels.settings import Backend, override, settings

CPU = torch.device("cpu")


@pytest.fixture
def one_design(monkeypatch):
    """The check of one design alone."""
    kept = stepcheck.specs()["mixtral"]
    monkeypatch.setattr(stepcheck, "specs", lambda: {"mixtral": kept})


@pytest.fixture
def gpu(monkeypatch, tmp_path, one_design):
    """A GPU that this process does not have; steps on it are done on the CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    own = stepcheck.step_fault
    monkeypatch.setattr(
        stepcheck, "step_fault", lambda device, backend=Backend.AUTO: own(CPU, backend)
    )
    stepcheck._trusted_backend.cache_clear()
    with override(cache=tmp_path):
        yield tmp_path / "kernels" / "step-check.json"
    stepcheck._trusted_backend.cache_clear()


@pytest.mark.slow
def test_every_kind_of_design_steps_as_the_torch_forms_do():
    assert stepcheck.step_fault(CPU) == ""


def test_a_step_that_was_right_is_not_asked_again(gpu, monkeypatch):
    with stepcheck.trusted("cuda"):
        assert settings().backend is Backend.AUTO
    (entry,) = json.loads(gpu.read_text())
    assert entry.startswith(f"Test GPU torch {torch.__version__} ")
    monkeypatch.setattr(stepcheck, "step_fault", None)
    assert stepcheck.verdict(CPU) == ""


def wrong(monkeypatch, factor, everywhere=False):
    """The norm is off by a factor: in its own form alone, or in torch's, too."""
    own = residual_norm.form

    def formed(name, torch_form, *tensors, **sizes):
        run = own(name, torch_form, *tensors, **sizes)
        twisted = everywhere and settings().backend is Backend.TORCH and next(turns) % 2
        return (lambda *a: scaled(run(*a))) if run is not torch_form or twisted else run

    def scaled(normed):
        return normed[0], *(factor * y for y in normed[1:])

    turns = iter(range(10**6))
    monkeypatch.setattr(residual_norm, "form", formed)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_a_wrong_step_is_named_and_torch_runs(gpu, monkeypatch, caplog, factor):
    wrong(monkeypatch, factor)
    with stepcheck.trusted("cuda"):
        assert settings().backend is Backend.TORCH
    assert "the torch forms run on Test GPU: a training step of mixtral: the" in caplog.text
    assert not gpu.exists()


def test_a_gpu_that_is_wrong_with_torch_too_is_refused(gpu, monkeypatch):
    wrong(monkeypatch, 1.05, everywhere=True)
    with (
        pytest.raises(WorkFailed, match=r"computes wrongly: a training step.*workers\.device: cpu"),
        stepcheck.trusted("cuda"),
    ):
        pass


def test_a_cpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(stepcheck, "step_fault", None)
    with stepcheck.trusted("cpu"):
        assert settings().backend is Backend.AUTO


def test_the_optimizers_step_is_looked_at_too(one_design):
    step = stepcheck._Step(stepcheck.specs()["mixtral"], CPU)
    other = stepcheck._Step(stepcheck.specs()["mixtral"], CPU)
    name = next(iter(other.ways))
    other.ways[name] = 1.1 * other.ways[name]
    assert f"the step of {name} is off by 0.1" in stepcheck._difference(other, step)
