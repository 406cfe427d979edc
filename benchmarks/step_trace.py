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
# Kernels of one operation, by reading torch 2.13's CUDA sources; one for all others. A sort is
# cub's radix sort, a pass for each byte of its keys, between a histogram and a scan.
KERNELS = {
    "_scaled_dot_product_flash_attention_for_cpu_backward": 3,  # sums, gradients, a conversion
    "embedding_dense_backward": 6,  # sorts the ids
    "index_put": 6,  # the same, of the places
    "topk": 2,
    "cumsum": 2,
    "scatter_add": 1,
}


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
            kernels = 2 + tensors[0].itemsize if name == "sort" else KERNELS.get(name, 1)
            self.add(name, tensors, kernels)
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
