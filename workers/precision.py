"""In which precision a device trains: what it has, and what `auto` means on it.

bfloat16 is mixed precision: torch's autocast around forward and loss. Weights, their gradients and
the optimizers stay in float32, as do norms, routers and sums; experts and attention follow
`workers.kernels.api.mixed`.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from search_space.contract import EvalRequest, Precision
from search_space.errors import InputError
from workers.kernels.bfloat16 import instructions, measured_gain

# Of a layer's products; a whole step gains less (docs/speed.md).
LEAST_GAIN = 1.3
MOST_SHIFT = 0.003  # bits per byte of a mean over three seeds, at d 128 and 6e12 FLOPs


@dataclass(frozen=True)
class Shift:
    """What bfloat16 does to results.

    bits_per_byte: mean of the seeds', minus float32's.
    source: where that was measured.
    """

    bits_per_byte: float
    source: str


# What `python -m benchmarks.precision --flops 6e12 --seeds 3` found, by a CPU's instructions.
# None: not measured, and `auto` stays float32 there.
SHIFTS: dict[str, Shift | None] = {
    "amx": None,
    "avx512_bf16": Shift(-0.0007, "AMD EPYC, family 25, model 17 (docs/recipe.md)"),
    "arm_bf16": None,
}


def mixed(precision: Precision, device: str) -> AbstractContextManager[object]:
    """The forward pass and the loss of the body run in this precision."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def float32_products(device: str) -> str:
    """How a GPU multiplies float32, for a run's record: "ieee", or "tf32" (factors of 10 bits)
    where the process told torch so; "" on a CPU.

    This project turns TF32 on nowhere: float32 is what a study says it is. The product's own
    kernels follow torch's setting.
    """
    if torch.device(device).type != "cuda":
        return ""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def settled(request: EvalRequest) -> EvalRequest:
    """The request with the precision that it is trained in. Raises InputError where its device
    has not the one asked for."""
    precision = chosen(request.recipe.precision, request.device, request.threads)
    recipe = dataclasses.replace(request.recipe, precision=precision)
    return dataclasses.replace(request, recipe=recipe)


def chosen(asked: Precision, device: str, threads: int) -> Precision:
    """What this process trains in. Raises InputError for bfloat16 on a device without it.

    device: as torch names it.
    threads: of torch, on a CPU.
    """
    if asked == "float32":
        return asked
    if asked == "auto":
        return automatic(device, threads)[0]
    if fault := why_not(device):
        raise InputError(
            f"recipe.precision: bfloat16 needs a device that has it: {fault}; set it to auto "
            "or float32"
        )
    return asked


def automatic(device: str, threads: int) -> tuple[Precision, str]:
    """What `auto` means on a device, and why.

    threads: of torch, on a CPU.
    """
    if fault := why_not(device):
        return "float32", fault
    if torch.device(device).type != "cpu":
        return "bfloat16", "the GPU has it"
    has = instructions()
    shift = SHIFTS[has]
    if shift is None or not abs(shift.bits_per_byte) <= MOST_SHIFT:
        known = "nobody measured" if shift is None else f"{shift.bits_per_byte:+.4f} bits per byte"
        return "float32", f"what bfloat16 by {has} does to results: {known}"
    try:
        gain = measured_gain(threads)
    except (InputError, OSError) as error:  # processes might answer differently
        return "float32", f"nothing can be kept: {error}"
    found: Precision = "bfloat16" if gain >= LEAST_GAIN else "float32"
    return found, f"a layer's products are {gain:.2f} times as fast in bfloat16, by {has}"


def why_not(device: str) -> str:
    """Why a device has no bfloat16 of its own; "" where it has it."""
    kind = torch.device(device).type
    if kind == "cpu":
        return "" if instructions() else "this CPU has none of AVX512_BF16, AMX and Arm's BF16"
    if kind != "cuda":
        return f"{kind} is none that this project knows"
    if not torch.cuda.is_available():
        return "no GPU is seen here"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return ""
    major, minor = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    return f"{name} has compute capability {major}.{minor}, below 8.0"
