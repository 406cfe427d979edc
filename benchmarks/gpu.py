"""The one command for a machine with a GPU: every Triton kernel checked, then timed beside peers.

Each operation is held against float64, then timed with its peers: the torch form, F.grouped_mm, the
grouped experts of transformers, and Liger Kernel and scattermoe where they are installed. The
roofline is that of a copy's bandwidth and a matrix product's rate, both measured first. Then whole
training steps beside transformers', the launches a layer of each preset and whether its bits are
the same again and without a graph, and how many trials should share the GPU: send us the JSON.
With --interpret every operation is checked at toy sizes in Triton's interpreter on the CPU, and
nothing is timed; whole steps are held there by tests/workers/kernels/test_gpu_form.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from benchmarks import interpreter
from benchmarks.report import Row, at_most, parser, publish

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu_cases import Case
    from search_space.contract import Precision

PARTS = ("operations", "steps", "launches", "sharing")
TOLERANCE = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}


def checked(dtype: str) -> Iterator[Row]:
    """Each operation's error at toy sizes on the CPU."""
    import torch

    from benchmarks.gpu_cases import cases

    for case in cases("cpu", getattr(torch, dtype), toy=True):
        yield error_row(case, dtype)


def measured(dtype: str, parts: Sequence[str]) -> Iterator[Row]:
    """Copy and matrix rates of the GPU, then the parts that are asked for."""
    import torch

    from benchmarks import gpu_launches
    from benchmarks.gpu_steps import sharing_rows, step_rows

    bandwidth, flops = measured_rates(getattr(torch, dtype))
    yield Row("copy", bandwidth / 1e9, "GB/s")
    yield Row("matrix product", flops / 1e12, "TFLOP/s")
    if "operations" in parts:
        yield from operation_rows(dtype, bandwidth, flops)
    if dtype != "float16":  # no recipe trains in it
        precision: Precision = "bfloat16" if dtype == "bfloat16" else "float32"
        if "steps" in parts:
            yield from step_rows(precision, "cuda", flops)
        if "launches" in parts:
            yield from gpu_launches.rows(precision, "cuda")
    if "sharing" in parts:
        yield from sharing_rows("cuda")


def operation_rows(dtype: str, bandwidth: float, flops: float) -> Iterator[Row]:
    """Each operation's error, times and share."""
    import torch

    from benchmarks.gpu_cases import cases

    for case in cases("cuda", getattr(torch, dtype), toy=False):
        yield error_row(case, dtype)
        for form, call in case.forms.items():
            seconds = timed(call)
            yield Row(f"{case.name}: {form}", 1e6 * seconds, "µs")
            if form == "triton":
                share = max(case.moved / bandwidth, case.flops / flops) / seconds
                yield Row(f"{case.name}: share of the roofline", share)


def told(rows: Iterator[Row]) -> Iterator[Row]:
    """The same, each on stderr as soon as it is there: the whole takes minutes."""
    for row in rows:
        print(f"{row.name}: {row.value} {row.unit}", file=sys.stderr, flush=True)
        yield row


def measured_rates(dtype: torch.dtype) -> tuple[float, float]:
    """Bytes a second of a copy (read and write), FLOPs a second of a square product."""
    import torch

    n = 8192
    x, y = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
    moved = 2 * x.numel() * x.element_size()
    return moved / timed(lambda: y.copy_(x)), 2 * n**3 / timed(lambda: x @ y)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call on the GPU: the median of replays of a graph of many, so that the host
    does not count; one by one, with the cache cleared between, where it waits for the device."""
    import torch
    from triton.testing import do_bench, do_bench_cudagraph

    try:
        return float(do_bench_cudagraph(call, return_mode="median")) / 1e3
    except RuntimeError:  # it asks the device for a number, which no graph can
        torch.cuda.synchronize()
        return float(do_bench(call, return_mode="median")) / 1e3


def error_row(case: Case, dtype: str) -> Row:
    """Our form's largest error against float64, as a share of the largest true value."""
    truth = case.exact().double()
    error = float((case.forms["triton"]().double() - truth).abs().max() / truth.abs().max())
    return at_most(f"{case.name}: error", error, TOLERANCE[dtype], "of the largest")


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 2 where there is no GPU to measure."""
    command = parser(__doc__)
    command.add_argument("--dtype", choices=list(TOLERANCE))
    command.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    command.add_argument("--interpret", action="store_true", help="toy sizes on the CPU, no GPU")
    options = command.parse_args(arguments)
    if options.interpret:
        if options.dtype == "bfloat16":
            command.error("the interpreter is wrong in bfloat16; choose float32 or float16")
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is first imported
        interpreter.lighten()
        return publish(checked(options.dtype or "float32"), options.json)
    import torch

    if not torch.cuda.is_available():
        command.error("no GPU is visible to torch; --interpret runs toy sizes on the CPU")
    return publish(told(measured(options.dtype or "bfloat16", options.parts)), options.json)


if __name__ == "__main__":
    sys.exit(main())
