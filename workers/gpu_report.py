"""What a GPU computes, and how fast beside its own copies and products: `nas doctor --gpu`.

`python -m workers.gpu_report` prints a JSON row a line: check, state (ok, note or broken), found.
It runs in a process of its own, so that a kernel that crashes takes nobody with it.

T tokens, P (token, expert) pairs, B experts, D width, G hidden units of an expert, N table rows.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from workers.kernels.api.grouped import grouped_mm
from workers.kernels.api.rms_norm import rms_norm
from workers.kernels.api.rows import row_sum
from workers.kernels.dispatch import describe
from workers.kernels.pairs import Loads
from workers.kernels.row_order import RowOrder
from workers.stepcheck import verdict

TIMES, WARM_UP = 20, 3
LOW = 0.3  # a share of the device's own rate that deserves a look


@dataclass(frozen=True)
class Sizes:
    """Of what is timed."""

    tokens: int = 16_384
    experts: int = 64
    width: int = 1024
    hidden: int = 512
    k: int = 8
    table: int = 1 << 18
    square: int = 8192


TOY = Sizes(tokens=64, experts=4, width=32, hidden=16, k=2, table=100, square=64)


@dataclass(frozen=True)
class Case:
    """An operation, the bytes that it must move and the FLOPs that it must do."""

    name: str
    call: Callable[[], object]
    moved: float
    flops: float


def rows(device: torch.device) -> Iterator[dict[str, Any]]:
    """Of one GPU: its checks, its rates, and our kernels' shares of them."""
    name = torch.cuda.get_device_name(device)
    kernels = describe(str(device))
    yield _row(f"{name}: kernels", "note" if kernels.startswith("torch") else "ok", kernels)
    fault = verdict(device)
    yield _row(
        f"{name}: a training step", "broken" if fault else "ok", fault or "as float32 on the CPU"
    )
    narrow = torch.cuda.is_bf16_supported(including_emulation=False)
    yield from rates(device, torch.bfloat16 if narrow else torch.float32, Sizes())


def rates(device: torch.device, dtype: torch.dtype, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The device's copy and product, and the share of the faster that each operation reaches."""
    kind = str(dtype).removeprefix("torch.")
    bandwidth, flops = device_rates(device, dtype, sizes.square)
    yield _row("copy", "ok", f"{bandwidth / 1e9:,.0f} GB/s")
    yield _row("product", "ok", f"{flops / 1e12:,.1f} TFLOP/s in {kind}")
    for case in cases(device, dtype, sizes):
        took = seconds(case.call, device)
        share = max(case.moved / bandwidth, case.flops / flops) / took
        bound = "arithmetic" if case.flops / flops > case.moved / bandwidth else "bandwidth"
        found = f"{1e6 * took:,.0f} µs, {share:.0%} of the {bound} measured above"
        yield _row(case.name, "ok" if share >= LOW else "note", found)


def device_rates(device: torch.device, dtype: torch.dtype, square: int) -> tuple[float, float]:
    """Bytes a second of a copy (read and written), and FLOPs a second of a square product."""
    x, y = (torch.ones(square, square, device=device, dtype=dtype) for _ in range(2))
    moved = 2.0 * x.numel() * x.element_size()
    copied, multiplied = (
        seconds(call, device) for call in (lambda: y.copy_(x), lambda: torch.mm(x, x))
    )
    return moved / copied, 2.0 * square**3 / multiplied


def cases(device: torch.device, dtype: torch.dtype, n: Sizes) -> Iterator[Case]:
    """One operation that arithmetic bounds, and two that bandwidth does."""
    draw = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=draw).to(dtype)

    size = torch.tensor([], dtype=dtype).element_size()
    n_pairs = n.tokens * n.k
    x_PD, w_BDG = normal(n_pairs, n.width), normal(n.experts, n.width, n.hidden)
    expert_P = torch.randint(n.experts, (n_pairs,), device=device, generator=draw)
    loads = Loads(torch.bincount(expert_P, minlength=n.experts).cumsum(0))
    yield Case(
        f"grouped product, {n.experts} experts",
        lambda: grouped_mm(x_PD, w_BDG, loads),
        size * (x_PD.numel() + w_BDG.numel() + n_pairs * n.hidden),
        2.0 * n_pairs * n.width * n.hidden,
    )
    table_ND, weight_P = normal(n.table, n.width), normal(n_pairs)
    order = RowOrder(
        torch.randint(n.table, (n_pairs,), device=device, generator=draw),
        torch.arange(n.tokens, device=device).repeat_interleave(n.k),
        torch.arange(0, n_pairs, n.k, device=device),
    )
    read = size * (n_pairs + n.tokens) * n.width
    yield Case("sum of table rows", lambda: row_sum(weight_P, table_ND, order), read, 2.0 * read)
    x_TD, w_D = normal(n.tokens, n.width), normal(n.width)
    yield Case("RMSNorm", lambda: rms_norm(x_TD, w_D), 2.0 * size * x_TD.numel(), 0.0)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Of one call: on a GPU the median of replays of a graph of many, so that the host does not
    count; else, and where it cannot be captured, of TIMES, after WARM_UP that are not counted."""
    if device.type == "cuda":
        with contextlib.suppress(ImportError, RuntimeError), torch.no_grad():
            from triton.testing import do_bench_cudagraph

            return float(do_bench_cudagraph(call, return_mode="median")) / 1e3

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    took = []
    with torch.no_grad():
        for _ in range(WARM_UP + TIMES):
            wait()
            began = time.perf_counter()
            call()
            wait()
            took.append(time.perf_counter() - began)
    return median(took[WARM_UP:])


def _row(check: str, state: str, found: str) -> dict[str, Any]:
    return {"check": check, "state": state, "found": " ".join(found.split())}


if __name__ == "__main__":
    for index in range(torch.cuda.device_count()):
        for row in rows(torch.device("cuda", index)):
            print(json.dumps(row), flush=True)
