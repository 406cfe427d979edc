"""Which of a CPU's instructions multiply bfloat16, and how much faster; measured once a machine."""

from __future__ import annotations

import functools
import json
import math
import platform
from typing import Any

import torch
from torch import Tensor

from workers.kernels.products import (
    REPEATS,
    cache_file,
    choose,
    layer_factors,
    seconds_of,
    write_once,
)
from workers.kernels.settings import Products, cache_folder
from workers.kernels.switch import onednn

# torch's types leave out what tells of a CPU.
_cpu: Any = torch.cpu


def instructions() -> str:
    """`amx`, `avx512_bf16` or `arm_bf16`; "" where torch would emulate them, slower than float32.

    Not oneDNN's own answer, which on x86 counts what it emulates.
    """
    if not torch.backends.mkldnn.is_available():
        return ""
    if _cpu._is_amx_tile_supported():
        return "amx"
    if _cpu._is_avx512_bf16_supported():
        return "avx512_bf16"
    is_arm = platform.machine().lower() in ("aarch64", "arm64")
    return "arm_bf16" if is_arm and torch.ops.mkldnn._is_mkldnn_bf16_supported() else ""


def measured_gain(threads: int) -> float:
    """`gain` as the first process on this machine with so many threads found it.

    Raises InputError where no folder is known to keep it in, OSError where it cannot be written.
    """
    path = cache_file(cache_folder(), threads, of="bfloat16")
    if not path.exists():
        write_once(path, {"gain": gain()})
    return float(json.loads(path.read_text())["gain"])


def gain() -> float:
    """How many times faster a layer's products are in bfloat16, the rounding of their factors
    included, than in float32 as this machine runs them."""
    logs = []
    with onednn(choose(torch.get_num_threads()).way is Products.ONEDNN):
        for a, b in layer_factors():
            both = functools.partial(torch.mm, a, b), functools.partial(_rounded, a, b)
            turns = [[seconds_of(product) for product in both] for _ in range(REPEATS)]
            wide, narrow = (min(seconds) for seconds in zip(*turns, strict=True))
            logs.append(math.log(wide / narrow))
    return math.exp(sum(logs) / len(logs))


def _rounded(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a.bfloat16(), b.bfloat16())
