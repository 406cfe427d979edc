"""Whether the Triton forms compute the right numbers on this very device.

Each operation that has a kernel of its own, its gradients with it, runs once at odd sizes in each
dtype and is held against its torch form in float64 on the CPU. A pass is remembered on disk for
the device's name, the Triton version and the kernels' source; a failure is not, for it may have
been a passing one. `python -m workers.kernels.selfcheck DEVICE PART PARTS` does a part of it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import triton
from torch import Tensor

from search_space.places import KERNELS
from workers.kernels.dispatch import load
from workers.kernels.in_parts import fault_in_parts, tell
from workers.kernels.remembered import alone, passed, remember
from workers.kernels.selfcheck_problems import Call, Problem, problems
from workers.kernels.settings import Backend, cache_folder, override
from workers.kernels.switch import exact_products

log = logging.getLogger(__name__)

# Largest error against float64 as a share of the largest value. Each dtype's own rounding of the
# result, with room for the order of a sum.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def verdict(device: torch.device) -> str:
    """ "" where every operation agrees with float64 on `device`, else what did not."""
    entry = f"{torch.cuda.get_device_name(device)} triton {triton.__version__} {source_digest()}"
    path = cache_folder() / KERNELS / "self-check.json"
    if entry in passed(path):
        return ""
    with alone(path):
        if entry in passed(path):  # by the process that was waited for
            return ""
        if device.type == "cuda":
            reason = fault_in_parts(__name__, device, sum(1 for _ in cases()))
        else:
            reason = first_fault(device)
        if not reason:
            remember(path, entry)
    return reason


def cases() -> Iterator[tuple[torch.dtype, Problem]]:
    """All problems, in each dtype."""
    for dtype in TOLERANCE:
        for problem in problems(dtype):
            yield dtype, problem


def first_fault(device: torch.device, part: int = 0, parts: int = 1) -> str:
    """The first disagreement with float64 in words, "" for none; of every `parts`-th case."""
    try:
        with override(autotune=False), exact_products():
            for dtype, (name, call, leaves) in itertools.islice(cases(), part, None, parts):
                error = worst_error(name.partition(" ")[0], call, leaves, device)
                # Written so that NaN is a fault.
                if not error <= TOLERANCE[dtype]:
                    kind = str(dtype).removeprefix("torch.")
                    more = f"more than {TOLERANCE[dtype]:g}"
                    return f"{name} in {kind} is off by {error:.2g}, {more}"
    except (RuntimeError, triton.TritonError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def worst_error(operation: str, call: Call, leaves: list[Tensor], device: torch.device) -> float:
    """Largest error of the value and of each gradient, as a share of the largest true value."""
    there = [x.detach().to(device).requires_grad_() for x in leaves]
    here = [x.detach().double().requires_grad_() for x in leaves]
    got = call(load(Backend.TRITON, operation), *there)
    want = call(load(Backend.TORCH, operation), *here)
    dy = torch.linspace(-1, 1, want.numel()).view(want.shape).to(got.dtype)
    results = [got, *torch.autograd.grad(got, there, dy.to(device))]
    truths = [want, *torch.autograd.grad(want, here, dy.double())]
    errors = [
        (a.detach().cpu().double() - b.detach()).abs().max() / b.detach().abs().max()
        for a, b in zip(results, truths, strict=True)
    ]
    return float(torch.stack(errors).max())


def source_digest() -> str:
    """Changes with any line of the kernels."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "triton").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    tell(first_fault(torch.device(sys.argv[1]), *map(int, sys.argv[2:4])))
