"""An entry of a product is the same sum in the same order on every processor of a kind."""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys

import llvmlite.binding
import pytest
import torch

from workers.kernels.numba import blocks, library
from workers.kernels.numba.grouped import grouped_product, grouped_weight_gradient

pytestmark = pytest.mark.slow

SUM = """
from workers.kernels.numba.library import jit

@jit
def added(a, b):
    return a + b
"""
COUNTS, INNER, OUTER = [7, 0, 12], 37, 101


def digest() -> str:
    """Of what a product and a weight gradient make of the same numbers."""
    g = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, generator=g) for shape in ((9, INNER), (3, OUTER, INNER)))
    token, place = torch.randint(9, (19,), generator=g), torch.arange(19)
    runs = torch.arange(3), torch.tensor([0, *COUNTS]).cumsum(0)
    y, grad = torch.zeros(19, OUTER), torch.zeros_like(w)
    grouped_product(x, token, w, True, *runs, y, place, False, INNER)
    grouped_weight_gradient(y, x, token, *runs, runs[0] >= 0, grad)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in (y, grad))).hexdigest()


def without_avx512(code, folder):
    """What a Python prints whose loops are compiled, in `folder`, for a processor without it."""
    features = llvmlite.binding.get_host_cpu_features()
    kept = {name: on and not name.startswith(("avx512", "avx10")) for name, on in features.items()}
    asked = {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": ",".join(f"{'+' if on else '-'}{n}" for n, on in kept.items()),
        "NUMBA_CACHE_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wide_and_narrow_vectors_make_the_same_bits(tmp_path):
    if blocks.MOST == 1:
        pytest.skip("this processor has no AVX-512")
    code = (
        "from workers.kernels.numba import blocks; import test_kernels_blocks as t\n"
        "assert blocks.MOST == 1; print(t.digest())"
    )
    assert without_avx512(code, tmp_path).split() == [digest()]


def test_kept_machine_code_is_of_todays_loops_wherever_they_lie(tmp_path, monkeypatch):
    """What a loop calls lies in other files, which numba does not look at."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sum_of_two.py").write_text(SUM)
    hits = []
    for code in ("these loops", "these loops", "other loops"):
        monkeypatch.setattr(library, "CODE", code)
        monkeypatch.delitem(sys.modules, "sum_of_two", raising=False)
        added = importlib.import_module("sum_of_two").added
        assert added(1, 2) == 3
        hits.append(sum(added.stats.cache_hits.values()))
    assert hits == [0, 1, 0]
