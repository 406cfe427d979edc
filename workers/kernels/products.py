"""Which library multiplies fastest on this machine, measured once and kept on disk.

torch's default on x86 is MKL, which takes narrower instructions on processors of AMD; oneDNN is in
the same wheel and takes those that the processor has. Which one is ahead differs by machine, and
the two round differently. So the first process that asks measures, and every later one reads what
it wrote: a run that is taken up again multiplies as before. workers.kernels.switch has the way.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from search_space.errors import InputError
from search_space.places import KERNELS
from workers.kernels.settings import Products, cache_folder, settings
from workers.kernels.switch import onednn

log = logging.getLogger(__name__)

CUBE = 512  # sides of the product whose rate is told
ROWS = 512  # tokens of a small proxy's step
WIDTHS = (64, 128, 256)  # of proxies
REPEATS = 15  # of each product, in turns; the fastest counts, for others only make one slower
# oneDNN must be faster by this much over all shapes. Measurements of one machine lie within 0.02 of
# their median, whoever else uses it, so that machines of one kind agree.
MARGIN = 1.04
# Largest error against float64 as a share of the largest value: a sum of float32 in any order is
# within 2e-6, factors rounded to TF32 or bfloat16 are off by 3e-5 and 3e-4.
TOLERANCE = 1e-5
INNER = 1024  # terms of the sums that are checked

Product = Callable[[], Tensor]


@dataclass(frozen=True)
class Measured:
    """What one machine's products do.

    torch_rate: GFLOP/s of a cube of side `CUBE` by torch's default.
    onednn_rate: the same by oneDNN, 0 where it was not timed.
    gain: how many times faster oneDNN is, the geometric mean over training's shapes.
    error: oneDNN's largest, as a share of the largest value.
    """

    torch_rate: float
    onednn_rate: float
    gain: float
    error: float


@dataclass(frozen=True)
class Choice:
    """How this process multiplies.

    way: TORCH or ONEDNN.
    why: "" where that is what was measured to be fastest or was asked for.
    """

    way: Products
    why: str = ""


def choose(threads: int) -> Choice:
    """How float32 products on the CPU are to run, by the settings in force.

    threads: of torch in this process.
    """
    asked = settings().products
    if asked is Products.TORCH:
        return Choice(Products.TORCH)
    if not torch.backends.mkldnn.is_available():
        return Choice(Products.TORCH, "this torch has no oneDNN")
    try:
        found = measured(threads)
    except InputError as error:
        return Choice(Products.TORCH, str(error))
    except OSError as error:
        # Not measured anew in each process: the answers might differ within one study.
        return Choice(Products.TORCH, f"no measurement can be kept: {error.strerror or error}")
    # Written so that NaN is a fault.
    if not found.error <= TOLERANCE:
        return Choice(Products.TORCH, f"onednn rounds its factors here, by {found.error:.0e}")
    if asked is Products.ONEDNN or found.gain >= MARGIN:
        return Choice(Products.ONEDNN)
    return Choice(Products.TORCH)


def measured(threads: int) -> Measured:
    """What was measured on this machine with so many threads; measures where nothing is known.

    Raises InputError where no folder is known to keep it in, OSError where it cannot be written.
    """
    return _kept(cache_file(cache_folder(), threads))


def cache_file(cache: Path, threads: int, of: str = "products") -> Path:
    """Where a machine's measurement is kept: by processor, torch and threads."""
    label = f"{processor()} {torch.backends.cpu.get_cpu_capability()}"
    machine = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")
    return cache / KERNELS / f"{of}-{machine}-torch-{torch.__version__}-x{threads}.json"


@functools.cache
def processor() -> str:
    """The processor's name, family and model: two of one name may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.processor() or platform.machine()} {platform.system()}"
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    names = ("model name", "cpu family", "model")
    return " ".join(facts.get(name, "") for name in names).strip() or platform.machine()


@functools.cache  # asked by every trial
def _kept(path: Path) -> Measured:
    if not path.exists():
        write_once(path, asdict(measure()))
    try:
        return Measured(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        log.warning("%s is damaged: products are measured again", path)
        path.unlink()
        write_once(path, asdict(measure()))
        return Measured(**json.loads(path.read_text()))


def write_once(path: Path, found: dict[str, float]) -> None:
    """Keep a measurement: of several processes the first one's, the others' are dropped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(found, file)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)


def measure() -> Measured:
    """Times and checks both ways; a second on one thread."""
    error = max(worst_error(*factors) for factors in _checked())
    if not error <= TOLERANCE:
        return Measured(rate(_cube(), False), 0.0, 0.0, error)
    logs, seconds = [], (math.inf, math.inf)
    for product in [*_timed(), _cube()]:
        seconds = best_seconds(product)
        logs.append(math.log(seconds[0] / seconds[1]))
    flops = 2.0 * CUBE**3
    torch_rate, onednn_rate = (1e-9 * flops / s for s in seconds)  # the cube comes last
    return Measured(torch_rate, onednn_rate, math.exp(sum(logs) / len(logs)), error)


def best_seconds(product: Product) -> tuple[float, float]:
    """Of a product by torch's default and by oneDNN, the least of several turns."""
    best = [math.inf, math.inf]
    for _ in range(REPEATS):
        for on in (False, True):
            with onednn(on):
                best[on] = min(best[on], seconds_of(product))
    return best[0], best[1]


def rate(product: Product, on: bool) -> float:
    """GFLOP/s of a cube of side `CUBE` by one way.

    product: such a one.
    on: by oneDNN, and not by torch's default.
    """
    with onednn(on):
        return 2e-9 * CUBE**3 / min(seconds_of(product) for _ in range(REPEATS))


def worst_error(a: Tensor, b: Tensor) -> float:
    """Of a @ b by oneDNN against float64, as a share of the largest value."""
    exact = a.double() @ b.double()
    with onednn(True):
        found = a @ b
    return float((found.double() - exact).abs().max() / exact.abs().max())


def seconds_of(product: Product) -> float:
    """That a product takes, of this thread's own where torch has one."""
    # One thread's own time leaves out that of others on its core.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    product()
    return clock() - began


def _cube() -> Product:
    a = _random(CUBE, CUBE)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out)


def _timed() -> list[Product]:
    """A layer's products at each width, and Muon's."""
    products: list[Product] = [functools.partial(torch.mm, a, b) for a, b in layer_factors()]
    for width in WIDTHS:
        squares = _random(512 // width, width, width)
        products.append(functools.partial(torch.bmm, squares, squares))
    return products


def layer_factors() -> list[tuple[Tensor, Tensor]]:
    """Those of a linear layer's product and of its two gradients, at each width."""
    factors = []
    for width in WIDTHS:
        x, w, y = _random(ROWS, width), _random(4 * width, width), _random(ROWS, 4 * width)
        factors += [(x, w.t()), (y, w), (y.t(), x)]
    return factors


def _checked() -> list[tuple[Tensor, Tensor]]:
    """Factors in each layout, with long sums."""
    a, b = _random(96, INNER), _random(INNER, 80)
    at, bt = _random(INNER, 96).t(), _random(80, INNER).t()
    return [(a, b), (a, bt), (at, b), (_random(3, 64, INNER), _random(3, INNER, 48))]


def _random(*shape: int) -> Tensor:
    """The same numbers in every process, whatever it has drawn."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
