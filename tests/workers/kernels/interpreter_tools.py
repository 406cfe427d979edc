"""What the checks in Triton's interpreter share: inputs, comparisons, and which operators ran."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.interpreter import lighten

lighten()
DTYPES = (torch.float32, torch.float16)


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    tolerance = 2e-5 if dtype == torch.float32 else 1e-2
    scale = max(1.0, float(want.detach().abs().max())) if want.numel() else 1.0
    torch.testing.assert_close(got.double(), want.double(), rtol=tolerance, atol=tolerance * scale)


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def pairs(sizes: list[int], n_rows: int) -> tuple[Tensor, ...]:
    """Row and token of each pair, and where each token's begin."""
    size_T = torch.tensor(sizes)
    token_P = torch.arange(len(sizes)).repeat_interleave(size_T)
    row_P = torch.randint(n_rows, token_P.shape, generator=torch.Generator().manual_seed(5))
    return row_P, token_P, size_T.cumsum(0) - size_T


def agree(results, slow, inputs, dy, dtype) -> None:
    """A value and its gradients against those of `slow` in float64."""
    exact = [x.detach().double().requires_grad_() for x in inputs]
    want = slow(*exact)
    wanted = torch.autograd.grad(want, exact, dy.double(), materialize_grads=True)
    for a, b in zip(results, [want, *wanted], strict=True):
        close(a.detach(), b.detach(), dtype)


def tell(checks: Iterable[tuple[str, str, Callable[[], None]]]) -> None:
    """Print a JSON line of each check, {"operation", "case", "error"}: error "" where it held.

    With `--first` on the command line, of the first check of each operation.
    """
    seen: set[str] = set()
    for operation, case, check in checks:
        if operation in seen and "--first" in sys.argv:
            continue
        seen.add(operation)
        error = ""
        try:
            check()
        except Exception:
            error = traceback.format_exc(limit=-3)
        print(json.dumps({"operation": operation, "case": case, "error": error}), flush=True)


class Operators(TorchDispatchMode):
    """The names of this product's operators that ran inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "ffn_nas":
            self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
