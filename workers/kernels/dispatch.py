"""The only place that picks a backend, and that knows why no other one runs.

A CPU runs numba's forms, a GPU Triton's after a numerical check on that very device. The torch
forms run on other devices, where the device's own backend does not take an operation, a size or a
dtype, and where it cannot be loaded or failed its check: then a warning says why. Plain float32
products on a CPU take the library that workers.kernels.products measured.
workers.kernels.settings has what the environment may ask for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from search_space.errors import InputError
from workers.kernels import products
from workers.kernels.bfloat16 import instructions
from workers.kernels.place import acted, kind
from workers.kernels.settings import Backend, Products, settings
from workers.kernels.switch import onednn

log = logging.getLogger(__name__)

# Backends are imported by these names when they are first to run: a CPU never loads triton.
SELF_CHECK = "workers.kernels.selfcheck"
RECYCLE = "workers.kernels.recycle"
# Operation -> the file of its forms: the same name in api/ and in each backend's folder.
FILES = {
    "attention": "attention",  # causal, of as many queries as keys
    "masked_attention": "attention",  # any other
    "expert_ffn": "expert_ffn",
    "expert_choice": "choice",  # of all tokens of a batch
    "spread_choice": "choice",  # of tokens whose batch several processes read
    "dense_ffn": "dense_ffn",  # one expert of all tokens
    "plain_ffn": "dense_ffn",  # the same with weights, or several weights a pair
    "grouped_mm": "grouped",
    "joint_ffn": "expert_ffn",  # experts of which some lie by themselves
    "linear_cross_entropy": "cross_entropy",
    "normed_heads": "rotary",
    "order_pairs": "pair_order",
    "orthogonalize": "orthogonalize",
    "output_gated_ffn": "output_gate",
    "product_key_search": "product_key",
    "relu_choice": "relu_choice",
    "residual_norm": "residual_norm",
    "rms_norm": "rms_norm",
    "row_dot": "rows",
    "row_sum": "rows",
    "spread": "spread",
    "threshold_gates": "gates",
    "top_indices": "topk",
}


class Limit(NamedTuple):
    """A size up to which a backend takes an operation.

    most: the largest size that it takes.
    of: what is counted.
    why: not more.
    """

    most: int
    of: str
    why: str


@dataclass(frozen=True, eq=False)
class Takes:
    """What a backend takes, on any machine.

    dtypes: of all tensors of a call.
    absent: the operations that it has no form of, and why.
    limits: of the sizes that `api` tells, by operation; benchmarks/layers.py measures numba's.
    """

    backend: Backend
    dtypes: tuple[torch.dtype, ...]
    absent: dict[str, str]
    limits: dict[str, Limit]


# Of an expert, up to which compiled loops are faster than a library's products between a gather and
# a sum, by the processor's vectors (docs/speed.md).
MOST_UNITS = 512 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 128
# The same in mixed precision. Loops that do not multiply bfloat16 run in float32, and AMX, which a
# library has and they have not, was measured nowhere.
MOST_MIXED_UNITS = MOST_UNITS if instructions() == "avx512_bf16" else 128

NUMBA = Takes(
    Backend.NUMBA,
    dtypes=(torch.float32, torch.float64),
    absent={
        "masked_attention": "training has none, and torch has a fused kernel for it",
        "plain_ffn": "plain products of all tokens are a library's best case",
        "grouped_mm": "rows that lie together are a library's best case",
        "joint_ffn": "shared experts are a library's best case",
        "linear_cross_entropy": "its time is that of plain products, a library's best case",
        "expert_choice": "its time is that of `top_indices`, which has one",
        "spread_choice": "its time is that of `top_indices`, which has one",
        "order_pairs": "torch's sort takes little of a CPU's step",
        "output_gated_ffn": "its time is that of plain products, a library's best case",
        "relu_choice": "a CPU is asked how many gates are open, and has no room for the others",
        "threshold_gates": "its time is that of a few operations on narrow rows",
        "spread": "a CPU reads the chosen rows alone",
    },
    limits={
        "attention": Limit(1024, "tokens", "a head's scores are kept whole in backward"),
        "expert_ffn": Limit(MOST_UNITS, "units of an expert", "wider, a library is faster"),
        "product_key_search": Limit(256, "choices", "ranking a half costs their square"),
        "top_indices": Limit(64, "choices", "ranking costs their square"),
    },
)
TRITON = Takes(
    Backend.TRITON,
    dtypes=(torch.float32, torch.float16, torch.bfloat16),
    absent={
        "attention": "torch has a fused kernel for it",
        "masked_attention": "torch has a fused kernel for it",
        "spread_choice": "processes speak to each other between its means and its loss",
        "top_indices": "torch has a kernel for it",
        "orthogonalize": "its time is that of batched products, a library's best case",
    },
    limits={
        "expert_choice": Limit(1024, "experts", "a token's scores must fit registers"),
        "order_pairs": Limit(1024, "experts", "counts of all must fit registers"),
        "relu_choice": Limit(1024, "experts", "a token's gates must fit registers"),
        "threshold_gates": Limit(1024, "experts", "a token's gates must fit registers"),
        "product_key_search": Limit(32, "choices", "their square must fit a warp's registers"),
    },
)
OWN = {"cpu": NUMBA, "cuda": TRITON}  # by the device's type
NAMED = {Backend.NUMBA: NUMBA, Backend.TRITON: TRITON}
# Looked at in every call, and an enum's members are slow to reach.
AUTO, TORCH = Backend.AUTO, Backend.TORCH

Form = TypeVar("Form", bound=Callable[..., Any])  # all forms of an operation have one signature


def form(operation: str, torch_form: Form, tensors: Sequence[Tensor], size: int) -> Form:
    """The form of an operation that is to run on these tensors.

    operation: a name of FILES.
    torch_form: the one that runs where no other does.
    tensors: all that must have one dtype; the first one's device counts.
    size: what a Limit counts of this operation, 0 where nothing is counted.
    """
    backend, _ = choose(operation, tensors, size)
    if backend is TORCH:
        return torch_form
    own: Form = load(backend, operation)
    return own


def choose(operation: str, tensors: Sequence[Tensor], size: int = 0) -> tuple[Backend, str]:
    """The backend for an operation on these tensors, and where it is torch, why no other runs.

    operation: a name of FILES.
    tensors: all that must have one dtype; the first one's device counts.
    size: what a Limit counts of this operation, 0 where nothing is counted.
    """
    device, asked = tensors[0].device, settings().backend
    if asked is TORCH:
        return TORCH, "torch was asked for"
    takes = OWN.get(kind(tensors[0])) if asked is AUTO else NAMED[asked]
    if takes is None:
        return TORCH, f"no other on {device.type}"
    reason = _refusal(takes, operation, tensors, size) or _unavailable(takes.backend, device)
    return (TORCH, reason) if reason else (takes.backend, "")


def _refusal(takes: Takes, operation: str, tensors: Sequence[Tensor], size: int) -> str:
    """Why a backend does not take this call on any machine; "" where it does."""
    absent, limit = takes.absent.get(operation), takes.limits.get(operation)
    if absent is not None:
        return f"{takes.backend} has no form of it: {absent}"
    if limit is not None and size > limit.most:
        return f"{takes.backend} takes at most {limit.most} {limit.of} ({limit.why}): got {size}"
    dtype = tensors[0].dtype
    for x in tensors:
        if x.dtype != dtype:
            return "the tensors have several dtypes"
    if dtype.is_floating_point and dtype not in takes.dtypes:
        return f"{takes.backend} does not take {str(dtype).removeprefix('torch.')}"
    return ""


def _unavailable(backend: Backend, device: torch.device) -> str:
    """Why this process does not run a backend on a device; "" where it does."""
    if acted() is not None:  # whoever acts knows whether the forms are traced, interpreted or run
        return ""
    if backend is NUMBA.backend:
        return numba_fault() if device.type == "cpu" else "numba's forms are for CPUs"
    if device.type == "cuda":
        return "" if settings().backend is backend else why_not(device.index or 0)
    if device.type == "cpu" and interpreted():
        return ""
    return "no TRITON_INTERPRET=1 before triton was imported"


@functools.cache
def load(backend: Backend, operation: str) -> Any:
    """A backend's form of an operation, a function."""
    module = importlib.import_module(f"workers.kernels.{backend}.{FILES[operation]}")
    return getattr(module, operation)


@functools.cache
def numba_fault() -> str:
    """Why this process has no numba forms; "" where it has them."""
    try:
        for operation in sorted(FILES.keys() - NUMBA.absent.keys()):
            load(NUMBA.backend, operation)
    except (ImportError, RuntimeError) as error:  # RuntimeError: numba may write to no folder
        log.warning("the torch forms run on the CPU: %s", error)
        return str(error)
    importlib.import_module(RECYCLE).keep_freed_blocks()
    return ""


@functools.cache
def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels here, as Triton forms on a CPU need."""
    kernels = importlib.import_module("workers.kernels.triton.grouped")
    if type(kernels.product_kernel).__name__ == "InterpretedFunction":
        return True
    log.warning(
        "the torch forms run: Triton forms on a CPU need its interpreter, TRITON_INTERPRET=1 set "
        "before triton is first imported"
    )
    return False


@functools.cache
def why_not(device_index: int) -> str:
    """Why this process runs torch forms on that GPU; "" where the Triton forms passed."""
    device = torch.device("cuda", device_index)
    try:
        reason = str(importlib.import_module(SELF_CHECK).verdict(device))
    except ImportError as error:
        reason = f"the Triton forms cannot be imported: {error}"
    except InputError as error:  # there is no folder for what they remember
        reason = str(error)
    if reason:
        log.warning("the torch forms run on %s: %s", torch.cuda.get_device_name(device), reason)
    return reason


@contextlib.contextmanager
def chosen_products(device: str) -> Iterator[None]:
    """Plain float32 products of the body run in the way that is fastest on this machine.

    The switch is the process's; attention turns it off for its own products, forward and backward.

    device: of the products; only a CPU's have a choice.
    """
    if torch.device(device).type != "cpu":
        yield
        return
    choice = products.choose(torch.get_num_threads())
    with onednn(choice.way is Products.ONEDNN):
        yield


def describe(device: str = "cpu") -> str:
    """Which kernels run on a device, for a trial's record: `numba 0.68.1, products onednn`,
    `triton 3.9.0`, `torch`, or `torch` with the reason in brackets. Never raises."""
    chosen = torch.device(device)
    try:
        kernels = _describe_kernels(chosen)
    except InputError as error:
        return f"torch ({error})"
    if chosen.type != "cpu":
        return kernels
    choice = products.choose(torch.get_num_threads())
    return f"{kernels}, products {choice.way}" + (f" ({choice.why})" if choice.why else "")


def _describe_kernels(device: torch.device) -> str:
    backend = settings().backend
    takes = OWN.get(device.type) if backend is AUTO else NAMED.get(backend)
    if takes is None:
        return "torch"
    backend = takes.backend
    reason = _unavailable(backend, device)
    return f"torch ({reason})" if reason else f"{backend} {importlib.metadata.version(backend)}"


def describe_products(threads: int = 1) -> str:
    """How float32 products run on this machine's CPU, with the rates of a 512 cube."""
    choice = products.choose(threads)
    why = f" ({choice.why})" if choice.why else ""
    try:
        found = products.measured(threads)
    except (InputError, OSError):
        return f"{choice.way}{why}"
    rates = f"torch {found.torch_rate:.0f}, onednn {found.onednn_rate:.0f} GFLOP/s"
    return f"{choice.way}{why}: {rates}, {found.gain:.2f}x over training's shapes"
