"""Which configuration of a Triton kernel is taken, with timings that are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="the Triton forms need triton")

from workers.kernels.settings import override
from workers.kernels.triton import tune
from workers.kernels.triton.config import Config


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU 80GB")
    tune._read.cache_clear()
    with override(cache=tmp_path, autotune=True):
        yield
    tune._read.cache_clear()


def test_the_fastest_is_taken_and_remembered_by_width_and_dtype(cache, monkeypatch):
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


def test_off_and_on_the_cpu_the_first_is_taken(cache):
    configs = (Config.of(BLOCK=32), Config.of(BLOCK=64))
    assert tune.choose("sum", configs, torch.ones(1), (8,), None) == configs[0]
    like = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=torch.float32)
    with override(autotune=False):
        assert tune.choose("sum", configs, like, (8,), None) == configs[0]


def test_an_amd_gpu_takes_none_that_is_nvidias_alone(cache, monkeypatch):
    configs = (Config.of(BLOCK=32, nvidia=True), Config.of(BLOCK=64))
    like = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=torch.float32)
    with override(autotune=False):
        assert tune.choose("sum", configs, like, (8,), None) == configs[0]
        monkeypatch.setattr(torch.version, "hip", "7.0")
        assert tune.choose("sum", configs, like, (8,), None) == configs[1]
