"""A whole training step as a GPU does it, traced on a machine without one.

The step runs on tensors without numbers (torch's FakeTensorMode), in the forms that a GPU takes.
Whatever would ask the device for a number cannot be answered there, and raises. So a step that can
be traced waits for nothing, and what it launches and moves can be counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Precision, Recipe
from search_space.cost import step_flops
from search_space.spec import FFNSpec
from workers.kernels.place import as_on
from workers.model import LanguageModel, ProxyLM
from workers.training.loop import Training

OURS = "ffn_nas"
# Operations that launch nothing: they make room, or answer from the host.
SILENT = {
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "detach",
    "alias",
    "device",
}
SILENT |= {"promote_types", "_unsafe_view", "lift_fresh", "result_type", "is_same_size"}
SILENT |= {"_record_function_enter_new", "_record_function_exit"}
# Kernels of one operation, by reading torch 2.13's CUDA sources; one for all others. A sort is
# cub's radix sort, a pass for each byte of its keys, between a histogram and a scan.
KERNELS = {
    "_scaled_dot_product_flash_attention_for_cpu_backward": 3,  # sums, gradients, a conversion
    "embedding_dense_backward": 6,  # sorts the ids
    "index_put": 6,  # the same, of the places
    "topk": 2,
    "cumsum": 2,
    "scatter_add": 1,
    "_foreach_norm": 3,  # zeros, the blocks' norms, and theirs
}
CAT = 128  # tensors that one kernel of `cat` or `stack` takes
# How torch's grouped operations (`_foreach_*`, `_fused_*`) cut their lists of tensors into launches
# with arguments of 4 KB: tensors of a launch by the number of lists, its blocks, and a block's
# elements.
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
MOST_BLOCKS, BLOCK = 320, 1 << 16


class Corpus:
    """Batches of one token, for a step that reads no numbers."""

    def __init__(self, vocab_size: int) -> None:
        self.token_counts = np.arange(vocab_size)

    def batch(self, step: int, seed: int, batch_size: int, seq_len: int) -> Any:
        """Inputs and targets, (N, L) each."""
        tokens = np.zeros((batch_size, seq_len), dtype=np.int64)
        return tokens, tokens.copy()


@dataclass
class Seen:
    """What a part of a step launches and moves.

    launches: by the name of an operation or kernel.
    moved: bytes, each tensor that an operation is given or makes counted once for it.
    """

    launches: Counter[str] = field(default_factory=Counter)
    moved: float = 0.0

    @property
    def count(self) -> int:
        """All launches."""
        return sum(self.launches.values())


class Trace(TorchDispatchMode):
    """Counts what runs in the body, by part; the product's operators by what they launch.

    parts: by name; `part` says which is counted now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, Seen] = {}
        self.part = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == OURS:
            with self:  # the operator's own body, in place of what stands for it in a trace
                return OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if not (func.is_view or name in SILENT or func.namespace == "prim"):
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.add(name, tensors, _kernels(name, args, result))
        return result

    def kernel(self, kernel: Any, programs: int, config: Any, arguments: tuple[Any, ...]) -> None:
        """A kernel of ours; a table of rows counts for the rows that are read."""
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        self.add(kernel.fn.__name__, tensors, 1)

    def add(self, name: str, tensors: list[Tensor], kernels: int) -> None:
        """Count an operation."""
        seen = self.parts.setdefault(self.part, Seen())
        seen.launches[name] += kernels
        storages = {x.untyped_storage()._cdata: x.numel() * x.itemsize for x in tensors}
        seen.moved += sum(storages.values())


def _kernels(name: str, args: tuple[Any, ...], result: Any) -> int:
    """How many kernels an operation of torch launches."""
    if name == "sort":
        return 2 + int(args[0].itemsize)
    if name in ("cat", "stack"):
        return -(-len(args[0]) // CAT)
    if name.startswith(("_foreach_", "_fused_")):
        lists = [x for x in args if isinstance(x, list | tuple) and x and isinstance(x[0], Tensor)]
        if name.startswith("_fused_"):
            lists = [x for x in lists if x[0].dim() or not lists[0][0].dim()]  # not the steps
        lists += [result] if isinstance(result, list) and name not in KERNELS else []
        return grouped_launches(lists, name) * KERNELS.get(name, 1)
    return KERNELS.get(name, 1)


def grouped_launches(lists: list[list[Tensor]], name: str = "") -> int:
    """Of a grouped operation on these lists of tensors: one for as many as fit, but one a tensor
    where their strides or dtypes are not those that its kernel takes."""
    mixed = name == "_foreach_copy_"
    for tensors in zip(*lists, strict=True):
        plain = all(torch.ops.aten.is_non_overlapping_and_dense(x) for x in tensors)
        alike = all(x.stride() == tensors[0].stride() for x in tensors)
        if not (plain and alike and (mixed or all(x.dtype == tensors[0].dtype for x in tensors))):
            return len(lists[0])
    launches = n_tensors = n_blocks = 0
    for x in lists[0]:
        n_tensors += 1
        left = -(-x.numel() // BLOCK)
        while left:
            taken = min(left, MOST_BLOCKS - n_blocks)
            left, n_blocks = left - taken, n_blocks + taken
            if n_blocks == MOST_BLOCKS or (not left and n_tensors == MOST_TENSORS[len(lists)]):
                launches, n_blocks, n_tensors = launches + 1, 0, int(left > 0)
    return launches + (n_blocks > 0)


@contextmanager
def on_a_gpu(trace: Trace) -> Iterator[FakeTensorMode]:
    """The body's tensors hold no numbers, it takes a GPU's forms, and `trace` counts."""
    from workers.kernels.triton.config import instead_of_launches

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, as_on("cuda"), instead_of_launches(trace.kernel), trace:
        yield fake


def training(
    spec: FFNSpec, backbone: Backbone, batch_size: int, precision: Precision, fake: FakeTensorMode
) -> Training:
    """One whose next steps reach no point of the curve."""
    model = ProxyLM(spec, backbone)
    corpus = Corpus(backbone.vocab_size)
    model.set_token_counts(torch.from_numpy(corpus.token_counts))
    model.begin_run(10)
    return training_of(model, spec, batch_size, precision, fake)


def without_numbers(model: LanguageModel, fake: FakeTensorMode) -> LanguageModel:
    """The same model, its tensors without their numbers."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return model._apply(fake.from_tensor)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def training_of(
    model: LanguageModel,
    spec: FFNSpec,
    batch_size: int,
    precision: Precision,
    fake: FakeTensorMode,
) -> Training:
    """As `training`, of a model that is there."""
    backbone = model.backbone
    step = step_flops(spec, backbone, batch_size)
    request = EvalRequest(
        evaluation=1,
        spec=spec,
        backbone=backbone,
        recipe=Recipe(batch_size=batch_size, precision="float32"),
        corpus_dir="",
        until_flops=1000 * step,
        curve_flops=999 * step,
    )
    corpus: Any = Corpus(backbone.vocab_size)
    made = Training(without_numbers(model.train(), fake), request, corpus, lambda progress: None)
    # Asked for here, where the CPU need not have it.
    recipe = dataclasses.replace(request.recipe, precision=precision)
    made.request = dataclasses.replace(made.request, recipe=recipe)
    return made
