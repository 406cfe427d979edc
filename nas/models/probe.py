"""What a trained model says, and what it computes, on the tokens that its export is checked on.

L tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_space.backbone import Backbone
from search_space.cost import model_cost
from search_space.native import NativeForm
from search_space.spec import FFNSpec

if TYPE_CHECKING:
    from torch import Tensor

    from workers.model import LanguageModel

LENGTH = 64


@dataclass(frozen=True)
class Probe:
    """Of a trained model.

    logits: on `probe_ids`, (L, V).
    flops: a token's there, by the closed form at the activity that the model had, in the count of
        torch, which sees attention's whole square.
    exact: whether an export computes just so many; a class of transformers, and a method from
        elsewhere, have ways of their own.
    """

    logits: Tensor
    flops: float
    exact: bool


def probe_ids(vocab_size: int, length: int) -> list[int]:
    """Token ids that an export is checked on: fixed, spread over the vocabulary."""
    return [(7919 * i + 13) % vocab_size for i in range(min(length, LENGTH))]


def probe(
    model: LanguageModel, spec: FFNSpec, backbone: Backbone, native: NativeForm | None, length: int
) -> Probe:
    """Run the model, in evaluation mode on the CPU, on the tokens.

    native: the class that it will be exported as; None for custom code.
    length: the longest sequence that the export takes.
    """
    import torch

    from nas.models.bundle import plug_in_packages
    from workers.layers.recording import record_stats

    ids = probe_ids(backbone.vocab_size, length)
    with torch.no_grad(), record_stats(model.eval()) as recorded:
        logits = model.logits(model(torch.tensor([ids])).hidden_NLD)[0]
    shares = [stats.summary()["active"] for stats in recorded.values()]
    flops = _flops(spec, dataclasses.replace(backbone, seq_len=len(ids)), shares, native)
    ours = native is None and not plug_in_packages(type(spec.selection))
    return Probe(logits, flops, ours)


def _flops(
    spec: FFNSpec, backbone: Backbone, shares: list[Any], native: NativeForm | None
) -> float:
    layers, width = backbone.n_layers, backbone.n_heads * backbone.head_dim
    found = model_cost(spec, backbone, sum(shares) / len(shares)).active_flops
    found += layers * 2 * width * backbone.seq_len  # above the diagonal
    if native is not None:
        found += layers * 6 * native.zero_units * backbone.d_model
    return found
